"""Are a generator's keys right? By a model that reads: which option is likeliest by the passage?
And where stand the keys of what was paid for?

    python -m studies.keys FILE ... --documents FILE --known FILE --model MODEL

    FILE        drafts: lines of a run's questions.jsonl (studies.passages writes them below
                OUT/drafts, early and late)
    documents   what they were written from
    known       questions with passages whose keys are right, to see how good the reader is
    model       the reader: a model as it comes, not one of those that were trained

    symbol   code       meaning
    a        on_right   share of the known questions whose key the reader picks
    e        on_wrong   the same where another option is called the key: by chance one of those
                        that it does not pick otherwise, (1 - a) / 3 where all have four
    y        picked     share of the drafts whose key the reader picks
    p        right      (y - e) / (a - e), cut to [0, 1]: share of right keys; its interval is that
                        of y and a, by bootstrap

The reader compares the mean log-probability of an option's tokens behind "Question: ... Answer:".
It cannot tell a question without any right option, so p is an upper bound where there are such;
`in passage` is the share whose key stands in the passage, word for word.
"""
import itertools
import sys
from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase

import numpy as np
import torch

from data import InputError, Question
from engine.arguments import Parser
from engine.models import load_model
from engine.page import read_lines
from engine.progress import long_bar
from engine.readers import load_documents, load_questions
from engine.speech import run_script


# ---------------------------------------------------------------- the reader

class Reader:

    def __init__(self, path):
        model, self.tokenizer = load_model(path)
        self.model = model.eval()

    def picks(self, question):
        """-> the option whose tokens are the likeliest on the mean."""
        return max(question.choices, key=lambda option: self.likelihood(question, option))

    @torch.no_grad()
    def likelihood(self, question, option):
        """-> mean of log pi(token | passage, question, tokens before) over the option's tokens."""
        before = f"{question.passage}\n\nQuestion: {question.question_text}\nAnswer:"
        prompt = self.tokenizer(before).input_ids
        ids = prompt + self.tokenizer(f" {option}", add_special_tokens=False).input_ids
        logits = self.model(torch.tensor([ids]), use_cache=False).logits[0]     # (L, V)
        logp = torch.log_softmax(logits[len(prompt) - 1:-1].float(), dim=-1)
        return float(logp.gather(1, torch.tensor(ids[len(prompt):])[:, None]).mean())


def agrees(reader, questions, what):
    """-> (Q,) is the reader's option the key?"""
    return np.array([reader.picks(question) == question.ground_truth
                     for question in long_bar(questions, desc=what, unit="question")])


# ---------------------------------------------------------------- drafts

def drafts_of(path, documents):
    """Lines of questions.jsonl -> the valid drafts as questions with their passages, and what each
    was paid, None where nothing pays."""
    content = {document.doc_id: document.content for document in documents}
    questions, paid = [], []
    for row in read_lines(path, ("status", "doc_id"))[0]:
        if row["status"] != "valid":
            continue
        if not row["choices"]:
            raise InputError(f"{path}: a draft without choices, expected some: one is picked")
        if row["doc_id"] not in content:
            raise InputError(f"{path}: a draft from {row['doc_id']}, which is none of --documents; "
                             "give the run's own file")
        questions.append(Question(row["question"], row["choices"], row["answer"],
                                  passage=content[row["doc_id"]]))
        paid.append(row.get("score"))
    if not questions:
        raise InputError(f"{path}: holds no valid draft, expected lines of questions.jsonl")
    return questions, paid


def apart(question):
    r"""A question as load_questions reads it, its passage above it -> the same as a draft has it.

    >>> found = apart(Question("Ice melts.\n\nWhat melts?", ["ice", "ore"], "ice"))
    >>> found.passage, found.question_text
    ('Ice melts.', 'What melts?')
    """
    passage, _, text = question.question_text.rpartition("\n\n")
    return replace(question, passage=passage, question_text=text)


def in_passage(question):
    return question.ground_truth.lower() in question.passage.lower()


# ---------------------------------------------------------------- what was liked

def liked(questions, paid, letters="ABCD"):
    """Drafts and what each was paid -> {kind of draft: list of pay}, by where the key stands."""
    found = {f"key under {letter}": [] for letter in letters}
    found |= {"key in the passage": [], "not in it": []}
    for question, score in zip(questions, paid):
        letter = letters[question.choices.index(question.ground_truth)]
        found[f"key under {letter}"].append(score)
        found["key in the passage" if in_passage(question) else "not in it"].append(score)
    return found


def say_liked(drafts):
    """Print a line for each file whose drafts were paid."""
    drafts = {path: both for path, both in drafts.items() if None not in both[1]}
    if not drafts:
        return
    every = itertools.chain.from_iterable(questions for questions, _ in drafts.values())
    letters = ascii_uppercase[:max(len(question.choices) for question in every)]
    kinds = list(liked([], [], letters))
    print(f"Pay of a draft, mean and standard error:\n\n| drafts | {' | '.join(kinds)} |\n"
          f"|---|{'--:|' * len(kinds)}")
    for path, both in drafts.items():
        cells = [mean_text(scores) for scores in liked(*both, letters).values()]
        print(f"| {Path(path).stem} | {' | '.join(cells)} |")
    print(flush=True)


def mean_text(x):
    """Numbers -> "mean ± its standard error (how many)".

    >>> mean_text([0.0, 0.02, 0.04]), mean_text([])
    ('+0.020 ± 0.012 (3)', '-')
    """
    if len(x) < 2:
        return "-"
    return f"{np.mean(x):+.3f} ± {np.std(x, ddof=1) / len(x) ** 0.5:.3f} ({len(x)})"


# ---------------------------------------------------------------- how many are right

def right_share(picked, on_right, by_chance=1 / 3):
    """Share of drafts, and of known questions, whose key the reader picks -> share of right keys.

    by_chance: how often one of a draft's other options is the one that the reader picks wrongly.

    >>> [round(right_share(picked, 0.88), 2) for picked in (0.88, 0.04, 0.46)]
    [1.0, 0.0, 0.5]
    """
    on_wrong = (1 - on_right) * by_chance
    return float(np.clip((picked - on_wrong) / (on_right - on_wrong), 0, 1))


def estimate(picked, known, by_chance=1 / 3, repeats=2000, seed=0):
    """(Q,) and (K,) booleans -> [share of right keys, low, high]. by_chance as in right_share."""
    rng = np.random.default_rng(seed)

    def mean_again(x):
        return rng.choice(x, (repeats, len(x))).mean(1)                     # (repeats,)
    pairs = zip(mean_again(picked), mean_again(known))
    shares = [right_share(y, a, by_chance) for y, a in pairs if a > 0.3]
    low, high = np.percentile(shares, [2.5, 97.5])
    return [right_share(picked.mean(), known.mean(), by_chance), float(low), float(high)]


def main(argv=None):
    parser = Parser("python -m studies.keys", __doc__)
    parser.add_argument("files", nargs="+", metavar="FILE", help="drafts")
    parser.add_argument("--documents", required=True, metavar="FILE",
                        help="JSON or JSONL that the run read")
    parser.add_argument("--known", required=True, metavar="FILE",
                        help="questions with their passage, whose keys are right")
    parser.add_argument("--model", required=True, help="the reader, a folder or hub id")
    parser.add_argument("--threads", type=int, default=1,
                        help="CPU threads (default 1; 0: torch's default)")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)

    documents = load_documents(args.documents)
    drafts = {path: drafts_of(path, documents) for path in args.files}
    known = [apart(question) for question in load_questions(args.known)]
    say_liked(drafts)
    reader = Reader(args.model)
    known = agrees(reader, known, "known questions")
    if known.mean() < 0.4:
        raise InputError(f"{args.model}: picks the key of {100 * known.mean():.0f} % of the known "
                         "questions, expected at least 40 %, or right keys cannot be told from "
                         "wrong ones")
    print(f"The reader picks the key of {100 * known.mean():.1f} % of {len(known)} known "
          "questions.\n\n| drafts | n | it picks, % | right keys, % | in the passage, % |\n"
          "|---|--:|--:|--:|--:|")
    for path, (questions, _) in drafts.items():
        picked = agrees(reader, questions, Path(path).stem)
        by_chance = np.mean([1 / (len(question.choices) - 1) for question in questions])
        middle, low, high = [100 * x for x in estimate(picked, known, by_chance)]
        stands = 100 * np.mean([in_passage(question) for question in questions])
        print(f"| {Path(path).stem} | {len(picked)} | {100 * picked.mean():.1f} | {middle:.0f} "
              f"[{low:.0f}, {high:.0f}] | {stands:.0f} |", flush=True)


if __name__ == "__main__":
    sys.exit(run_script(main))
