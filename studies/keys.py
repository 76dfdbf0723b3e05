"""Are a generator's keys right? By a model that reads: which option is likeliest by the passage?

    python -m studies.keys FILE ... --documents FILE --known FILE --model MODEL

    FILE        drafts: lines of a run's questions.jsonl (studies.passages writes them below
                OUT/drafts, early and late)
    documents   what they were written from
    known       questions with passages whose keys are right, to see how good the reader is
    model       the reader: a model as it comes, not one of those that were trained

    symbol   code       meaning
    a        on_right   share of the known questions whose key the reader picks
    e        on_wrong   the same where another option is called the key: by chance one of three
                        options that it does not pick otherwise, (1 - a) / 3
    y        picked     share of the drafts whose key the reader picks
    p        right      (y - e) / (a - e), cut to [0, 1]: share of right keys; its interval is that
                        of y and a, by bootstrap

The reader compares the mean log-probability of an option's tokens behind "Question: ... Answer:".
It cannot tell a question without any right option, so p is an upper bound where there are such;
`in passage` is the share whose key stands in the passage, word for word.
"""
import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from data import InputError, Question
from engine.arguments import Parser
from engine.progress import bar
from engine.readers import load_documents, load_questions
from engine.speech import run_script


# ---------------------------------------------------------------- the reader

class Reader:

    def __init__(self, path):
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()

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
                     for question in bar(questions, desc=what, unit="question")])


# ---------------------------------------------------------------- drafts

def drafts_of(path, documents):
    """Lines of questions.jsonl -> the valid drafts as questions with their passages."""
    content = {document.doc_id: document.content for document in documents}
    questions = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row.get("status") != "valid":
            continue
        if row["doc_id"] not in content:
            raise InputError(f"{path}: a draft from {row['doc_id']}, which is none of --documents")
        questions.append(Question(row["question"], row["choices"], row["answer"],
                                  passage=content[row["doc_id"]]))
    if not questions:
        raise InputError(f"{path}: holds no valid draft, expected lines of questions.jsonl")
    return questions


def in_passage(question):
    return question.ground_truth.lower() in question.passage.lower()


# ---------------------------------------------------------------- how many are right

def right_share(picked, on_right):
    """Share of drafts, and of known questions, whose key the reader picks -> share of right keys.

    >>> right_share(0.88, 0.88), right_share(0.04, 0.88), round(right_share(0.46, 0.88), 2)
    (1.0, 0.0, 0.5)
    """
    on_wrong = (1 - on_right) / 3
    return float(np.clip((picked - on_wrong) / (on_right - on_wrong), 0, 1))


def estimate(picked, known, repeats=2000, seed=0):
    """(Q,) and (K,) booleans -> [share of right keys, low, high]."""
    rng = np.random.default_rng(seed)

    def mean_again(x):
        return rng.choice(x, (repeats, len(x))).mean(1)                     # (repeats,)
    pairs = zip(mean_again(picked), mean_again(known))
    low, high = np.percentile([right_share(y, a) for y, a in pairs if a > 0.3], [2.5, 97.5])
    return [right_share(picked.mean(), known.mean()), float(low), float(high)]


def main(argv=None):
    parser = Parser("python -m studies.keys", __doc__)
    parser.add_argument("files", nargs="+", metavar="FILE", help="drafts")
    parser.add_argument("--documents", required=True, metavar="FILE")
    parser.add_argument("--known", required=True, metavar="FILE")
    parser.add_argument("--model", required=True, help="the reader, a folder or hub id")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)

    documents = load_documents(args.documents)
    drafts = {path: drafts_of(path, documents) for path in args.files}
    reader = Reader(args.model)
    known = agrees(reader, load_questions(args.known), "known questions")
    if known.mean() < 0.4:
        raise InputError(f"{args.model}: picks the key of {100 * known.mean():.0f} % of the known "
                         "questions, which is too few to tell right keys from wrong ones")
    print(f"The reader picks the key of {100 * known.mean():.1f} % of {len(known)} known "
          "questions.\n\n| drafts | n | it picks, % | right keys, % | in the passage, % |\n"
          "|---|--:|--:|--:|--:|")
    for path, questions in drafts.items():
        picked = agrees(reader, questions, Path(path).stem)
        middle, low, high = [100 * x for x in estimate(picked, known)]
        stands = 100 * np.mean([in_passage(question) for question in questions])
        print(f"| {Path(path).stem} | {len(picked)} | {100 * picked.mean():.1f} | {middle:.0f} "
              f"[{low:.0f}, {high:.0f}] | {stands:.0f} |", flush=True)


if __name__ == "__main__":
    sys.exit(run_script(main))
