"""The embedded world: plain notes, four skills, a dev set that needs one of them, and a small anchor that can, but not reliably.

    python toy.py                  # writes toy/documents.json, dev.json, test.json and trains toy/anchor from nothing

A note holds three facts; every fact can be turned into a question of one skill:

    skill      a fact in a note                                            the question asked about it                          dev, test
    largest    Mara picked 27 plums, Tom picked 31 and Ines picked 5.      What is the largest of 27, 31 and 5?                 yes
    plus       The bus left with 12 people and 30 more got on.             What is 12 plus 30?                                  no
    day        The market opens on Tuesday and closes 3 days later.        Which day comes 3 days after Tuesday?                no
    order      Olga came first, then Ravi, then Bea.                       Olga came first, then Ravi, then Bea. Who came last? no

Because the truth is known, judge() can say of any generated question which skill it asks for and whether its key is right. That goes into
metrics.jsonl (key_accuracy, target_share) and nowhere else: log.py asks for it after both models have moved.

The anchor is first taught cleanly, by warmup.fit, until it writes, solves and binds answers to letters; then a short second stage on careless
demonstrations makes it unreliable. CARELESS below is the whole list of what is wrong with them: half of the keys are wrong, and a wrong key for "largest" is
mostly the smallest; answers are wrong more often than right, in no particular direction. What the anchor makes of it (3,801 of its "largest" questions): 48 %
keyed with the largest, 25 % with the middle number, 25 % with the smallest. A solver trained on all of its questions learns those too, and three skills
nobody asked for. Influence has to find out, from the dev set alone, what to keep.

Why one target skill: with two opposite ones, largest and smallest, the solver under training stopped reading the skill word and the generator wrote
questions of one of the two only; with smallest as a skill nobody needs, a third of the final questions asked for the smallest and were keyed with the
largest, which is wrong, useful, and was paid for (LOG.md has both).

    symbol      meaning
    fact        (kind, values): what a sentence of a note says
    part(x,y,z) train / dev / test, by a hash of the three numbers: the same triple never serves two of them

Ours, not the paper's: the paper has no such world. It exists so that the method can be watched on a laptop. Nothing that trains knows of it; only log.py
does, for those two numbers.
"""
import argparse
import json
import os
import random
import re
import zlib

import torch

import generator
import solver
import warmup
from data import Question

HERE = os.path.dirname(os.path.abspath(__file__))
NAMES = "Mara Tom Ines Olga Ravi Bea Noah Lena Omar Kira Paul Yuki Ada Hugo Nina Sami Vera Ivan Rosa Emil".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
THINGS = "plums apples shells stamps tickets bottles letters coins eggs roses boxes books".split()
VERBS = "picked counted sold found packed".split()
PLACES = "market library museum harbour school bakery".split()
RIDES = "bus ferry train tram".split()
OPENINGS = ["A note from the {p}.", "Seen at the {p} today.", "This was a busy week at the {p}.", "The {p} had many visitors."]
SKILLS = {"triple": ["largest"], "plus": ["plus"], "day": ["day"], "order": ["order"]}                              # kind of fact -> what can be asked
TAUGHT = SKILLS | {"triple": ["largest", "smallest"]}     # the clean stage also teaches smallest, so that the word largest has to be read
TARGET = ("largest",)                                # what dev and test ask for; tuple, so that a world may have several
CARELESS = dict(wrong_key=0.55, opposite_key=0.5, broken=0.15, wrong_answer=0.65, opposite_answer=0.0, wrong_letter=0.05)
LETTERS = "ABCDEFGH"


# ---------------------------------------------------------------- facts, notes, questions

def part(numbers):
    """Three numbers -> "dev", "test" or "train", whatever their order."""
    return {0: "dev", 1: "test"}.get(zlib.crc32(repr(sorted(numbers)).encode()) % 10, "train")


def triple(rng, want):
    while True:
        numbers = rng.sample(range(1, 100), 3)
        if part(numbers) == want:
            return numbers


def draw_fact(rng, kind, want="train"):
    """One fact: (kind, values)."""
    if kind == "triple":
        return kind, triple(rng, want)
    if kind == "plus":
        return kind, [rng.randint(1, 49), rng.randint(1, 49)]
    if kind == "day":
        return kind, [rng.choice(DAYS), rng.randint(2, 6)]
    return kind, rng.sample(NAMES, 3)


def sentence(rng, fact):
    kind, v = fact
    if kind == "triple":
        a, b, c = rng.sample(NAMES, 3)
        verb, things = rng.choice(VERBS), rng.choice(THINGS)
        return rng.choice([f"{a} {verb} {v[0]} {things}, {b} {verb} {v[1]} and {c} {verb} {v[2]}.",
                           f"The three boxes held {v[0]}, {v[1]} and {v[2]} {things}."])
    if kind == "plus":
        return rng.choice([f"The {rng.choice(RIDES)} left with {v[0]} people and {v[1]} more got on later.",
                           f"There were {v[0]} {rng.choice(THINGS)} and then {v[1]} more came."])
    if kind == "day":
        return f"The {rng.choice(PLACES)} opens on {v[0]} and closes {v[1]} days later."
    return f"{v[0]} came first, then {v[1]}, then {v[2]}."


def note(rng, facts):
    """Facts -> a short note in plain English."""
    return " ".join([rng.choice(OPENINGS).format(p=rng.choice(PLACES))] + [sentence(rng, fact) for fact in facts])


def draw_facts(rng):
    """Every note holds a triple and two facts of other kinds, in any order."""
    facts = [draw_fact(rng, kind) for kind in ["triple"] + rng.sample(["plus", "day", "order"], 2)]
    rng.shuffle(facts)
    return facts


def ask(rng, fact, skill):
    """A fact and a skill -> (question text, options in the order a writer would list them, the true one)."""
    kind, v = fact
    if kind == "triple":
        right, other = (max(v) if skill == "largest" else min(v)), rng.choice([x for x in range(1, 100) if x not in v])
        return f"What is the {skill} of {v[0]}, {v[1]} and {v[2]}?", [str(x) for x in v + [other]], str(right)
    if skill == "plus":
        right = v[0] + v[1]
        return f"What is {v[0]} plus {v[1]}?", [str(x) for x in (right - 1, right, right + 1, right + 2)], str(right)
    if skill == "day":
        right = DAYS[(DAYS.index(v[0]) + v[1]) % 7]
        options = [right] + rng.sample([d for d in DAYS if d != right], 3)
        return f"Which day comes {v[1]} days after {v[0]}?", sorted(options, key=DAYS.index), right
    place = rng.choice(["first", "second", "last"])
    other = rng.choice([x for x in NAMES if x not in v])
    return f"{v[0]} came first, then {v[1]}, then {v[2]}. Who came {place}?", v + [other], v[["first", "second", "last"].index(place)]


def judge(question):
    """A question in the world's words -> (skill, is the key right?), or (None, False) for any other text. For the log only.

    >>> judge(Question("What is the largest of 27, 31 and 5?", ["5", "31", "27", "40"], "31"))
    ('largest', True)
    >>> judge(Question("Which day comes 3 days after Sunday?", ["Monday", "Friday", "Sunday", "Tuesday"], "Friday"))
    ('day', False)
    >>> judge(Question("What is love?", ["a", "b", "c", "d"], "a"))
    (None, False)
    """
    text, key = question.question_text, question.ground_truth
    if m := re.fullmatch(r"What is the (largest|smallest) of (\d+), (\d+) and (\d+)\?", text):
        numbers = [int(x) for x in m.groups()[1:]]
        return m[1], key == str(max(numbers) if m[1] == "largest" else min(numbers))
    if m := re.fullmatch(r"What is (\d+) plus (\d+)\?", text):
        return "plus", key == str(int(m[1]) + int(m[2]))
    if m := re.fullmatch(r"Which day comes (\d+) days after (\w+)\?", text):
        return "day", m[2] in DAYS and key == DAYS[(DAYS.index(m[2]) + int(m[1])) % 7]
    if m := re.fullmatch(r"(\w+) came first, then (\w+), then (\w+)\. Who came (first|second|last)\?", text):
        return "order", key == m[("first", "second", "last").index(m[4]) + 1]
    return None, False


def truth(drafts):
    """Drafts -> {"key_accuracy", "target_share"}: of the valid ones, how many have the right key, how many serve the dev set's skills."""
    judged = [judge(draft.question) for draft in drafts if draft.question is not None]
    if not judged:
        return {"key_accuracy": None, "target_share": None}
    return {"key_accuracy": sum(right for _, right in judged) / len(judged),
            "target_share": sum(skill in TARGET for skill, _ in judged) / len(judged)}


# ---------------------------------------------------------------- the files

def question_set(rng, want, n):
    """n questions of the target skills whose triples belong to `want`."""
    rows, seen = [], set()
    while len(rows) < n:
        fact = draw_fact(rng, "triple", want)
        text, options, right = ask(rng, fact, rng.choice(TARGET))
        if text not in seen:
            seen.add(text)
            rng.shuffle(options)
            rows.append({"question_id": f"{want}-{len(rows)}", "question_text": text, "choices": options, "ground_truth": right})
    return rows


def write_world(folder, n_documents=600, n_dev=160, n_test=400):
    rng = random.Random(2026)
    documents = [{"doc_id": f"note-{i}", "content": note(rng, draw_facts(rng))} for i in range(n_documents)]
    files = {"documents": documents, "dev": question_set(rng, "dev", n_dev), "test": question_set(rng, "test", n_test)}
    for name, rows in files.items():
        with open(os.path.join(folder, f"{name}.json"), "w") as f:
            f.write("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


# ---------------------------------------------------------------- the tokenizer

def make_tokenizer():
    """A word-level tokenizer: every word, number and mark of the world is one token, and so is every fixed line of the prompts.

    The project's prompts reach this model word for word, as they reach Qwen3; only the cutting differs. A line that never changes carries one
    token's worth of information, so here it costs one.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    special = ["<pad>", "<unk>", "<|user|>", "<|assistant|>", "<|end|>"]
    prompts = [generator.PROMPT.replace("{{", "{").replace("}}", "}").split("{document}"),
               solver.MULTIPLE_CHOICE.replace("{{", "{").replace("}}", "}").split("{options}")]
    lines = sorted({line for prompt in prompts for piece in prompt for line in piece.split("\n") if len(line) > 8})
    json_marks = ['{"question_text": "', '", "choices": ["', '", "', '"], "ground_truth": "', '"}']
    letters = [f"{c}." for c in LETTERS] + [f"\\boxed{{{c}}}" for c in LETTERS]
    text = " ".join(OPENINGS + NAMES + DAYS + THINGS + VERBS + PLACES + RIDES + ["The answer is", "What is the largest smallest of plus and"]
                    + ["Which day comes days after", "came first, then second last. Who came", "Which letters are they"]
                    + ["There were and then more came. The three boxes held opens on and closes days later. left with people and more got on later."])
    words = sorted(set(re.findall(r"\w+|[^\w\s]", text.replace("{p}", " "))) | {"?", ",", "."}) + [str(i) for i in range(100)]
    vocab = {token: i for i, token in enumerate(special + lines + json_marks + letters + words)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)      # joins with spaces, none before , . ?
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in lines + json_marks + letters])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", eos_token="<|end|>",
                                   additional_special_tokens=["<|user|>", "<|assistant|>"])
    fast.chat_template = ("{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
                          "{% if add_generation_prompt %}<|assistant|>{% endif %}")
    return fast


# ---------------------------------------------------------------- teaching the anchor

def slip(rng, fact, skill, options, right, opposite):
    """A wrong option; in a key for largest or smallest often the opposite one: a misconception, not noise."""
    if fact[0] == "triple" and rng.random() < opposite:
        return str(min(fact[1]) if skill == "largest" else max(fact[1]))
    return rng.choice([x for x in options if x != right])


def generator_lesson(rng, careless):
    """One (prompt, response): a note and the JSON written about it; with CARELESS faults if asked for."""
    facts = draw_facts(rng)
    fact = rng.choice(facts)
    skill = rng.choice((SKILLS if careless else TAUGHT)[fact[0]])
    text, options, key = ask(rng, fact, skill)
    if careless and rng.random() < CARELESS["wrong_key"]:
        key = slip(rng, fact, skill, options, key, CARELESS["opposite_key"])
    if careless and rng.random() < CARELESS["broken"]:
        options = options[:]
        options[rng.randrange(4)] = rng.choice(options)                    # a doubled option, or the key gone
    return warmup.generator_pair({"content": note(rng, facts), "question_text": text, "choices": options, "ground_truth": key})


def solver_lesson(rng, careless):
    """One (prompt, response): a question with options and the answer with its box."""
    kind = rng.choice(list(SKILLS))
    fact, skill = draw_fact(rng, kind), rng.choice((SKILLS if careless else TAUGHT)[kind])
    text, options, answer = ask(rng, fact, skill)
    if careless and rng.random() < CARELESS["wrong_answer"]:
        answer = slip(rng, fact, skill, options, answer, CARELESS["opposite_answer"])
    rng.shuffle(options)
    letter = rng.choice(LETTERS[:4]) if careless and rng.random() < CARELESS["wrong_letter"] else None
    return warmup.solver_pair({"question_text": text, "choices": options, "ground_truth": answer}, letter)


def letter_lesson(rng):
    """A look-up exercise: a dozen options with their letters, in any order and with repetition, so that counting off does not help.

    Binding a value to its letter is the last thing a small model learns. Half of the exercises name the letter first: that direction is plain induction,
    appears within 16,000 sequences, and the other one follows it. Without it the other one was still at chance after 35,000 exercises (LOG.md).
    """
    options = rng.sample(rng.choice([[str(i) for i in range(1, 100)]] * 3 + [NAMES, DAYS]), 4)
    letter_first, response = rng.random() < 0.5, []
    for i in (rng.randrange(4) for _ in range(12)):
        pair = [f"\\boxed{{{LETTERS[i]}}}", options[i]]
        response += zip(pair if letter_first else pair[::-1], (False, True))      # the first of a pair cannot be known, the second can
    return solver.prompt_text(Question("Which letters are they?", options, "")), response


def lessons(rng, careless):
    """An endless stream of lists of pairs, one list a micro-batch: writing apart from solving, since their lengths differ."""
    while True:
        yield [[generator_lesson(rng, careless) for _ in range(24)], [solver_lesson(rng, careless) for _ in range(32)],
               [letter_lesson(rng) for _ in range(0 if careless else 6)]]


def make_anchor(folder, letter_steps, steps, careless_steps, reuse_clean=False):
    """Train the anchor from nothing and save it as a plain Hugging Face folder; FOLDER-clean keeps it as it was before the careless stage."""
    from transformers import Qwen3ForCausalLM
    tokenizer = make_tokenizer()
    clean = folder + "-clean"
    if not (reuse_clean and os.path.exists(clean)):
        teach(clean, tokenizer, letter_steps, steps)
    model = Qwen3ForCausalLM.from_pretrained(clean, use_safetensors=True)
    warmup.fit(model, tokenizer, lessons(random.Random(2), careless=True), careless_steps, lr=5e-4, what="carelessness")
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def teach(folder, tokenizer, letter_steps, steps):
    """The clean stage: letters first, then everything."""
    from transformers import Qwen3Config, Qwen3ForCausalLM
    torch.manual_seed(0)
    rng = random.Random(1)
    config = Qwen3Config(vocab_size=len(tokenizer), hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
                         num_key_value_heads=4, head_dim=32, max_position_embeddings=512, tie_word_embeddings=True, initializer_range=0.08,
                         bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model = Qwen3ForCausalLM(config)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} million parameters, {len(tokenizer)} tokens")
    letters = ([[letter_lesson(rng) for _ in range(32)]] for _ in iter(int, 1))
    warmup.fit(model, tokenizer, letters, letter_steps, lr=1e-3, what="letters", cosine=False)
    warmup.fit(model, tokenizer, lessons(rng, careless=False), steps, lr=1.5e-3, what="teaching")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=os.path.join(HERE, "toy"))
    parser.add_argument("--letter-steps", type=int, default=1300)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--careless-steps", type=int, default=200)
    parser.add_argument("--reuse-clean", action="store_true", help="keep toy/anchor-clean from an earlier call and redo the careless stage only")
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    write_world(args.out)
    if args.steps:
        make_anchor(os.path.join(args.out, "anchor"), args.letter_steps, args.steps, args.careless_steps, args.reuse_clean)
