"""The embedded world: plain notes, four skills, a dev set that needs one of them, and a small anchor that can, but not reliably.

    python toy.py                                # writes toy/documents.json, dev.json, test.json and trains toy/anchor from nothing
    python toy.py --world hard --reuse-clean     # the same for toy/hard, on toy/anchor-clean, which the first command left behind
    python toy.py --world free --reuse-clean     # the easy world again, for an anchor that also knows what extensions.py needs

A note holds three facts; every fact can be turned into a question of one skill:

    skill      a fact in a note                                            the question asked about it                          dev, test
    largest    Mara picked 27 plums, Tom picked 31 and Ines picked 5.      What is the largest of 27, 31 and 5?                 yes
    plus       The bus left with 12 people and 30 more got on.             What is 12 plus 30?                                  no
    day        The market opens on Tuesday and closes 3 days later.        Which day comes 3 days after Tuesday?                no
    order      Olga came first, then Ravi, then Bea.                       Olga came first, then Ravi, then Bea. Who came last? no

Because the truth is known, judge() can say of any generated question which skill it asks for and whether its key is right. That goes into
metrics.jsonl (key_accuracy, target_share) and nowhere else: log.py asks for it after both models have moved.

The anchor is first taught cleanly, by warmup.fit, until it writes, solves and binds answers to letters; then a short second stage on
careless demonstrations makes it unreliable. CARELESS below is the whole list of what is wrong with them: half of the keys are wrong, and a
wrong key for "largest" is mostly the smallest; answers are wrong more often than right, in no particular direction. What the anchor makes
of it (3,801 of its "largest" questions): 48 % keyed with the largest, 25 % with the middle number, 25 % with the smallest. A solver trained
on all of its questions learns those too, and three skills nobody asked for. Influence has to find out, from the dev set alone, what
to keep.

Why one target skill: with two opposite ones, largest and smallest, the solver under training stopped reading the skill word and the
generator wrote questions of one of the two only; with smallest as a skill nobody needs, a third of the final questions asked for the
smallest and were keyed with the largest, which is wrong, useful, and was paid for (LOG.md has both).

The hard world (train.py --preset toy-hard) has three things that real data has and the easy one lacks:

    poisoned notes      behind their three numbers 40 % of the notes say "The largest of 27, 31 and 5 is 5.", wrongly; 30 % say it rightly,
                        30 % not at all. The careless demonstrations tend to copy it. believed_share: how many keys repeat a mistake.
    hard and useless    the options of plus are the sum, a neighbour of it and two numbers far away. So small a model knows a sum only
                        roughly: 1 key in 25 is right, and answers waver between the neighbours (.5 solved for 30 iterations).
    dev covers a part   the numbers of a triple are all below 50 (near) or all from 50 up (far), half of the notes each. Dev asks for near
                        ones only, test for both; test-near.json and test-far.json are its halves, for evaluate.py.

What its anchor makes of that (200 notes, 8 drafts each, sampling seed 100): 85 % of the drafts are valid; of the "largest" questions 43 %
are keyed right, 62 % after a right claim and 37 % after a wrong one, where 44 % repeat the mistake. It answers 42 % right, near and far
alike.

The free world (train.py --preset toy-free) has the easy one's notes, dev and test questions. Its anchor was also shown, as carelessly,
answers to questions without options, writing such questions, and writing after three questions instead of a note. Beside it: rlvr.json,
problems without options of a skill that dev does not ask for (order), test-free.json, the same to evaluate on, dev-mixed.json, three
quarters dev questions and one quarter such problems, and dev-pool.json, more questions for a dev set that is refreshed.

    symbol      meaning
    fact        (kind, values): what a sentence of a note says
    claim       the number that a note calls the largest of its triple, right or wrong; None where it does not say
    part(x,y,z) train / dev / test, by a hash of the three numbers: the same triple never serves two of them

Ours, not the paper's: the paper has no such worlds. They exist so that the method can be watched on a laptop. Nothing that trains knows of
them; only log.py does, for those numbers.
"""
import argparse
import json
import os
import random
import re
import zlib
from dataclasses import dataclass, field

import torch

import extensions
import generator
import solver
import warmup
from data import Document, Question

HERE = os.path.dirname(os.path.abspath(__file__))
NAMES = "Mara Tom Ines Olga Ravi Bea Noah Lena Omar Kira Paul Yuki Ada Hugo Nina Sami Vera Ivan Rosa Emil".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
THINGS = "plums apples shells stamps tickets bottles letters coins eggs roses boxes books".split()
VERBS = "picked counted sold found packed".split()
PLACES = "market library museum harbour school bakery".split()
RIDES = "bus ferry train tram".split()
OPENINGS = ["A note from the {p}.", "Seen at the {p} today.", "This was a busy week at the {p}.", "The {p} had many visitors."]
SKILLS = {"triple": ["largest"], "plus": ["plus"], "day": ["day"], "order": ["order"]}     # kind of fact -> what can be asked
TAUGHT = SKILLS | {"triple": ["largest", "smallest"]}     # the clean stage also teaches smallest, so that the word largest has to be read
TARGET = ("largest",)                                # what dev and test ask for; tuple, so that a world may have several
CARELESS = dict(wrong_key=0.55, opposite_key=0.5, neighbour=0.0, broken=0.15, wrong_answer=0.65, opposite_answer=0.0, wrong_letter=0.05)
CARELESS_HARD = CARELESS | dict(wrong_key=0.5, wrong_answer=0.6, trust=0.6, neighbour=0.9)   # trust: a note's claim is the key
LETTERS = "ABCDEFGH"
CLAIM = "The largest of {}, {} and {} is {}."


@dataclass(frozen=True)
class World:
    """What tells one world from another; everything else they share, the clean anchor included."""
    folder: str
    careless: dict                          # what is wrong with the anchor's last demonstrations
    careless_steps: int
    regions: dict = field(default_factory=lambda: {"all": range(1, 100)})       # the three numbers of a triple lie in one of them
    dev_region: str | None = None           # the one that dev covers; None: all
    addends: tuple = (1, 49)
    near_sums: bool = False                 # options of "plus": the sum, a neighbour of it, and two far away
    wrong_claims: float = 0.0               # share of the notes that name a wrong number as the largest of their triple
    right_claims: float = 0.0               # and the right one
    free: bool = False                      # the anchor knows questions without options, and questions in place of notes

    def path(self, name):
        return os.path.join(HERE, self.folder, name)


EASY = World("toy", CARELESS, careless_steps=200)
HARD = World("toy/hard", CARELESS_HARD, careless_steps=300, regions={"near": range(1, 50), "far": range(50, 100)}, dev_region="near",
             addends=(11, 39), near_sums=True, wrong_claims=0.4, right_claims=0.3)
FREE = World("toy/free", CARELESS, careless_steps=400, free=True)
WORLDS = {"easy": EASY, "hard": HARD, "free": FREE}


# ---------------------------------------------------------------- facts, notes, questions

def part(numbers):
    """Three numbers -> "dev", "test" or "train", whatever their order."""
    return {0: "dev", 1: "test"}.get(zlib.crc32(repr(sorted(numbers)).encode()) % 10, "train")


def triple(rng, want, numbers):
    while True:
        three = rng.sample(numbers, 3)
        if part(three) == want:
            return three


def draw_fact(rng, kind, want="train", world=EASY, region=None):
    """One fact: (kind, values); the region of a triple is drawn too unless given."""
    if kind == "triple":
        regions = list(world.regions)                           # a single one draws no random number: the easy world's stay as they were
        region = region or (rng.choice(regions) if len(regions) > 1 else regions[0])
        return kind, triple(rng, want, world.regions[region])
    if kind == "plus":
        return kind, [rng.randint(*world.addends), rng.randint(*world.addends)]
    if kind == "day":
        return kind, [rng.choice(DAYS), rng.randint(2, 6)]
    return kind, rng.sample(NAMES, 3)


def draw_claim(rng, facts, world):
    """The number a note calls the largest of its triple: the right one, a wrong one, or None if it claims nothing."""
    if not world.wrong_claims:
        return None
    chance, ascending = rng.random(), sorted(dict(facts)["triple"])
    if chance < world.wrong_claims:
        return rng.choice(ascending[:2])
    return ascending[2] if chance < world.wrong_claims + world.right_claims else None


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


def note(rng, facts, claim=None):
    """Facts -> a short note in plain English; a claim about the triple stands right behind it."""
    sentences = [rng.choice(OPENINGS).format(p=rng.choice(PLACES))]
    for fact in facts:
        sentences.append(sentence(rng, fact))
        if fact[0] == "triple" and claim:
            sentences.append(CLAIM.format(*fact[1], claim))
    return " ".join(sentences)


def draw_facts(rng, world=EASY):
    """Every note holds a triple and two facts of other kinds, in any order."""
    facts = [draw_fact(rng, kind, world=world) for kind in ["triple"] + rng.sample(["plus", "day", "order"], 2)]
    rng.shuffle(facts)
    return facts


def ask(rng, fact, skill, world=EASY):
    """A fact and a skill -> (question text, options in the order a writer would list them, the true one)."""
    kind, v = fact
    if kind == "triple":
        right, other = (max(v) if skill == "largest" else min(v)), rng.choice([x for x in range(1, 100) if x not in v])
        return f"What is the {skill} of {v[0]}, {v[1]} and {v[2]}?", [str(x) for x in v + [other]], str(right)
    if skill == "plus":
        right, gaps = v[0] + v[1], (-1, 0, 1, 2)
        if world.near_sums:
            gaps = sorted([-rng.randint(11, 20), 0, rng.choice([-1, 1]), rng.randint(11, 20)])
        return f"What is {v[0]} plus {v[1]}?", [str(right + gap) for gap in gaps], str(right)
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


def believed(draft):
    """A valid draft -> is its key the wrong number its note claims? None if the note claims nothing wrong about the triple it asks for."""
    claim = re.search(CLAIM.format(r"(\d+)", r"(\d+)", r"(\d+)", r"(\d+)"), draft.document.content)
    asked = re.fullmatch(r"What is the largest of (\d+), (\d+) and (\d+)\?", draft.question.question_text)
    if not claim or not asked or sorted(asked.groups()) != sorted(claim.groups()[:3]) or claim[4] == max(claim.groups()[:3], key=int):
        return None
    return draft.question.ground_truth == claim[4]


def truth(drafts, world=EASY):
    """Drafts -> {"key_accuracy", "target_share"}: of the valid ones, how many have the right key, how many serve the dev set's skills.

    Where notes make wrong claims also "believed_share": of the questions about such a claim, how many have it as their key.
    """
    valid = [draft for draft in drafts if draft.question is not None]
    judged = [judge(draft.question) for draft in valid]
    share = lambda values: sum(values) / len(values) if values else None
    facts = {"key_accuracy": share([right for _, right in judged]), "target_share": share([skill in TARGET for skill, _ in judged])}
    if world.wrong_claims:
        facts["believed_share"] = share([x for x in map(believed, valid) if x is not None])
    return facts


def world_of(documents):
    """The path of a documents file -> the World it belongs to, or None: for the log, which reports the truth where it is known."""
    return next((world for world in WORLDS.values() if documents and os.path.realpath(documents) == os.path.realpath(world.path("documents.json"))), None)


# ---------------------------------------------------------------- the files

def question_set(rng, want, n, world=EASY, region=None):
    """n questions of the target skills whose triples belong to `want`; with a region, from there, and with its name in their ids."""
    rows, seen = [], set()
    while len(rows) < n:
        fact = draw_fact(rng, "triple", want, world, region)
        text, options, right = ask(rng, fact, rng.choice(TARGET))
        if text not in seen:
            seen.add(text)
            rng.shuffle(options)
            rows.append({"question_id": f"{region or want}-{len(rows)}", "question_text": text, "choices": options, "ground_truth": right})
    return rows


def problem_set(rng, want, n):
    """n questions without options about who came first, second or last; `want` as in part()."""
    rows, seen = [], set()
    while len(rows) < n:
        fact = draw_fact(rng, "order")
        text, _, right = ask(rng, fact, "order")
        if part(fact[1]) == want and text not in seen:
            seen.add(text)
            rows.append({"question_id": f"order-{want}-{len(rows)}", "question_text": text, "ground_truth": right})
    return rows


def world_files(world, n_documents=600, n_dev=160, n_test=400):
    """-> {file name: rows}. Where dev covers only one of two regions, test has as much of each, together and apart."""
    rng, files = random.Random(2026), {"documents": []}
    if world.free:
        return {"rlvr": problem_set(rng, "train", n_test), "test-free": problem_set(rng, "test", n_test // 2),
                "dev-mixed": question_set(rng, "dev", 3 * n_dev // 4) + problem_set(rng, "dev", n_dev // 4),
                "dev-pool": question_set(rng, "dev", n_dev)}
    for i in range(n_documents):
        facts = draw_facts(rng, world)
        files["documents"].append({"doc_id": f"note-{i}", "content": note(rng, facts, draw_claim(rng, facts, world))})
    if world.dev_region is None:
        return files | {"dev": question_set(rng, "dev", n_dev), "test": question_set(rng, "test", n_test)}
    files["dev"] = question_set(rng, "dev", n_dev, world, world.dev_region)
    parts = {f"test-{region}": question_set(rng, "test", n_test // len(world.regions), world, region) for region in world.regions}
    return files | {"test": sum(parts.values(), [])} | parts


def write_world(folder, world=EASY):
    for name, rows in world_files(world).items():
        with open(os.path.join(folder, f"{name}.json"), "w") as f:
            f.write("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


# ---------------------------------------------------------------- the tokenizer

def make_tokenizer(free=False):
    """A word-level tokenizer: every word, number and mark of the world is one token, and so is every fixed line of the prompts.

    The project's prompts reach this model word for word, as they reach Qwen3; only the cutting differs. A line that never changes carries
    one token's worth of information, so here it costs one. The free world's tokenizer has some more, after all others.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    special = ["<pad>", "<unk>", "<|user|>", "<|assistant|>", "<|end|>"]
    prompts = [generator.PROMPT.replace("{{", "{").replace("}}", "}").split("{document}"),
               solver.MULTIPLE_CHOICE.replace("{{", "{").replace("}}", "}").split("{options}")]
    long_lines = lambda pieces: sorted({line for piece in pieces for line in piece.split("\n") if len(line) > 8})
    lines = long_lines(prompts[0] + prompts[1])
    json_marks = ['{"question_text": "', '", "choices": ["', '", "', '"], "ground_truth": "', '"}']
    letters = [f"{c}." for c in LETTERS] + [f"\\boxed{{{c}}}" for c in LETTERS]
    text = " ".join(OPENINGS + NAMES + DAYS + THINGS + VERBS + PLACES + RIDES
                    + ["The answer is", "What is the largest smallest of plus and", "Which day comes days after"]
                    + ["came first, then second last. Who came", "Which letters are they", "There were and then more came."]
                    + ["The three boxes held opens on and closes days later. left with people and more got on later."])
    words = sorted(set(re.findall(r"\w+|[^\w\s]", text.replace("{p}", " "))) | {"?", ",", "."}) + [str(i) for i in range(100)]
    more = [line for line in long_lines(free_prompts()) if line not in lines] + ['", "ground_truth": "', "\\boxed{", "}"] if free else []
    vocab = {token: i for i, token in enumerate(special + lines + json_marks + letters + words + more)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)      # joins with spaces, none before , . ?
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in lines + json_marks + letters + more])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", eos_token="<|end|>",
                                   additional_special_tokens=["<|user|>", "<|assistant|>"])
    fast.chat_template = ("{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
                          "{% if add_generation_prompt %}<|assistant|>{% endif %}")
    return fast


def free_prompts():
    """The prompts that only the free world's anchor knows, without what goes into them."""
    shown, seeded = Document("", "\n\n"), Document("", "\n\n", seeds=(Question("", [], ""),))
    return [generator.prompt_text(shown, "free_form"), generator.prompt_text(seeded), solver.prompt_text(Question("\n\n", [], ""))]


# ---------------------------------------------------------------- teaching the anchor

def slip(rng, fact, skill, options, right, opposite, neighbour=0.0):
    """A wrong option; for largest or smallest often the opposite one, for plus the neighbour: a misconception, not noise."""
    if fact[0] == "triple" and rng.random() < opposite:
        return str(min(fact[1]) if skill == "largest" else max(fact[1]))
    if fact[0] == "plus" and neighbour and rng.random() < neighbour:
        return next(x for x in options if abs(int(x) - int(right)) == 1)
    return rng.choice([x for x in options if x != right])


def generator_lesson(rng, careless, world=EASY):
    """One (prompt, response): a note and the JSON written about it; with the world's faults if careless."""
    facts, faults = draw_facts(rng, world), world.careless
    fact, claim = rng.choice(facts), draw_claim(rng, facts, world)
    skill = rng.choice((SKILLS if careless else TAUGHT)[fact[0]])
    text, options, key = ask(rng, fact, skill, world)
    if careless and skill == "largest" and claim and rng.random() < faults["trust"]:
        key = str(claim)
    elif careless and rng.random() < faults["wrong_key"]:
        key = slip(rng, fact, skill, options, key, faults["opposite_key"], faults["neighbour"])
    if careless and rng.random() < faults["broken"]:
        options = options[:]
        options[rng.randrange(4)] = rng.choice(options)                    # a doubled option, or the key gone
    return warmup.generator_pair({"content": note(rng, facts, claim), "question_text": text, "choices": options, "ground_truth": key})


def solver_lesson(rng, careless, world=EASY):
    """One (prompt, response): a question with options and the answer with its box."""
    kind, faults = rng.choice(list(SKILLS)), world.careless
    fact, skill = draw_fact(rng, kind, world=world), rng.choice((SKILLS if careless else TAUGHT)[kind])
    text, options, answer = ask(rng, fact, skill, world)
    if careless and rng.random() < faults["wrong_answer"]:
        answer = slip(rng, fact, skill, options, answer, faults["opposite_answer"], faults["neighbour"])
    rng.shuffle(options)
    letter = rng.choice(LETTERS[:4]) if careless and rng.random() < faults["wrong_letter"] else None
    return warmup.solver_pair({"question_text": text, "choices": options, "ground_truth": answer}, letter)


def free_answer_lesson(rng):
    """One (prompt, response): a question without options and a careless answer."""
    fact = draw_fact(rng, rng.choice(["triple", "day", "order"]))
    text, options, right = ask(rng, fact, SKILLS[fact[0]][0])
    answer = slip(rng, fact, SKILLS[fact[0]][0], options, right, 0.0) if rng.random() < CARELESS["wrong_answer"] else right
    return solver.prompt_text(Question(text, [], right)), f"The answer is {answer} \\boxed{{{answer}}}"


def free_writer_lesson(rng):
    """One (prompt, response): a note and the JSON of a question without options, its key often wrong, sometimes empty."""
    facts = draw_facts(rng)
    fact = rng.choice([fact for fact in facts if fact[0] != "plus"])
    text, options, key = ask(rng, fact, SKILLS[fact[0]][0])
    if rng.random() < CARELESS["wrong_key"]:
        key = slip(rng, fact, SKILLS[fact[0]][0], options, key, CARELESS["opposite_key"])
    key = "" if rng.random() < CARELESS["broken"] else key
    return (generator.prompt_text(Document("", note(rng, facts)), "free_form"), json.dumps({"question_text": text, "ground_truth": key}))


def seeded_lesson(rng):
    """One (prompt, response): three questions of the target skill and the JSON of a fourth; sometimes a copy, or an options list gone wrong."""
    rows = [dict(zip(("question_text", "choices", "ground_truth"), ask(rng, draw_fact(rng, "triple"), TARGET[0]))) for _ in range(4)]
    new, document = rows[3], extensions.seeds([Question(**row) for row in rows[:3]], 1, 3, rng.random())[0]
    fact = "triple", [int(x) for x in new["choices"][:3]]
    if rng.random() < CARELESS["wrong_key"]:
        new["ground_truth"] = slip(rng, fact, TARGET[0], new["choices"], new["ground_truth"], CARELESS["opposite_key"])
    return generator.prompt_text(document), json.dumps(rows[0] if rng.random() < CARELESS["broken"] else new)


def free_lessons(rng):
    return [[free_answer_lesson(rng) for _ in range(32)], [free_writer_lesson(rng) for _ in range(16)], [seeded_lesson(rng) for _ in range(12)]]


def letter_lesson(rng):
    """A look-up exercise: a dozen options with their letters, in any order and with repetition, so that counting off does not help.

    Binding a value to its letter is the last thing a small model learns. Half of the exercises name the letter first: that direction is
    plain induction, appears within 16,000 sequences, and the other one follows it. Without it the other one was still at chance after
    35,000 exercises (LOG.md).
    """
    options = rng.sample(rng.choice([[str(i) for i in range(1, 100)]] * 3 + [NAMES, DAYS]), 4)
    letter_first, response = rng.random() < 0.5, []
    for i in (rng.randrange(4) for _ in range(12)):
        pair = [f"\\boxed{{{LETTERS[i]}}}", options[i]]
        response += zip(pair if letter_first else pair[::-1], (False, True))      # the first of a pair cannot be known, the second can
    return solver.prompt_text(Question("Which letters are they?", options, "")), response


def lessons(rng, careless, world=EASY):
    """An endless stream of lists of pairs, one list a micro-batch: writing apart from solving, since their lengths differ."""
    while True:
        free = free_lessons(rng) if world.free else []
        yield [[generator_lesson(rng, careless, world) for _ in range(24)], [solver_lesson(rng, careless, world) for _ in range(32)],
               [letter_lesson(rng) for _ in range(0 if careless else 6)]] + free


def make_anchor(folder, clean, letter_steps, steps, careless_steps, reuse_clean=False, world=EASY):
    """Train the anchor and save it as a plain Hugging Face folder; the folder `clean` keeps it as it was before the careless stage."""
    from transformers import Qwen3ForCausalLM
    if not (reuse_clean and os.path.exists(clean)):
        teach(clean, make_tokenizer(), letter_steps, steps)
    model, tokenizer = Qwen3ForCausalLM.from_pretrained(clean, use_safetensors=True), make_tokenizer(world.free)
    if world.free:
        torch.manual_seed(0)
        model.resize_token_embeddings(len(tokenizer))
    warmup.fit(model, tokenizer, lessons(random.Random(2), True, world), careless_steps, lr=5e-4, what="carelessness")
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
    parser.add_argument("--world", choices=WORLDS, default="easy")
    parser.add_argument("--out", help="folder to write (default toy, or toy/hard)")
    parser.add_argument("--letter-steps", type=int, default=1300)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--careless-steps", type=int, help="default: 200, in the hard world 300, in the free one 400")
    parser.add_argument("--reuse-clean", action="store_true", help="keep anchor-clean from an earlier call, redo the careless stage only")
    args = parser.parse_args()
    world = WORLDS[args.world]
    out = args.out or world.path("")
    clean = os.path.join(args.out or EASY.path(""), "anchor-clean")
    os.makedirs(out, exist_ok=True)
    write_world(out, world)
    if args.steps:
        careless_steps = world.careless_steps if args.careless_steps is None else args.careless_steps
        make_anchor(os.path.join(out, "anchor"), clean, args.letter_steps, args.steps, careless_steps, args.reuse_clean, world)
