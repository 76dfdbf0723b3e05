"""The embedded worlds: plain notes, four skills, and dev and test questions that need one of them.

A note holds three facts; every fact can be turned into a question of one skill:

    skill      a fact in a note                           the question asked about it
    largest    Mara picked 27 plums, Tom picked 31        What is the largest of 27, 31 and 5?
               and Ines picked 5.                         (all that dev and test ask for)
    plus       The bus left with 12 people                What is 12 plus 30?
               and 30 more got on later.
    day        The market opens on Tuesday                Which day comes 3 days after Tuesday?
               and closes 3 days later.
    order      Olga came first, then Ravi, then Bea.      Olga came first, ... Who came last?

    symbol      meaning
    fact        (kind, values): what a sentence of a note says
    claim       the number that a note calls the largest of its triple, right or wrong, or None
    part(x,y,z) train / dev / test, by a hash of the three numbers: a triple serves one of them

The paper has no such worlds: they are there to watch the method on a laptop. Nothing that trains
knows of them. docs/worlds.md tells what each world has and why.
"""
import json
import os
import random
import zlib
from dataclasses import dataclass, field

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

NAMES = ("Mara Tom Ines Olga Ravi Bea Noah Lena Omar Kira "
         "Paul Yuki Ada Hugo Nina Sami Vera Ivan Rosa Emil").split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
THINGS = "plums apples shells stamps tickets bottles letters coins eggs roses boxes books".split()
VERBS = "picked counted sold found packed".split()
PLACES = "market library museum harbour school bakery".split()
RIDES = "bus ferry train tram".split()
OPENINGS = ["A note from the {p}.", "Seen at the {p} today.",
            "This was a busy week at the {p}.", "The {p} had many visitors."]
CLAIM = "The largest of {}, {} and {} is {}."

# kind of fact -> what can be asked about it
SKILLS = {"triple": ["largest"], "plus": ["plus"], "day": ["day"], "order": ["order"]}

# what dev and test ask for; a tuple, so that a world may have several
TARGET = ("largest",)

# What is wrong with the anchor's last demonstrations, each a share of them (toy/make.py).
CARELESS = dict(
    wrong_key=0.55, opposite_key=0.5, neighbour=0.0, broken=0.15,
    wrong_answer=0.65, opposite_answer=0.0, wrong_letter=0.05)

# trust: a note's claim is the key
CARELESS_HARD = CARELESS | dict(wrong_key=0.5, wrong_answer=0.6, trust=0.6, neighbour=0.9)


def anywhere():
    """The easy world's one region: the three numbers of a triple are any of 1 to 99."""
    return {"all": range(1, 100)}


@dataclass(frozen=True)
class World:
    """What tells one world from another; they share everything else, the clean anchor included."""
    folder: str
    careless: dict                  # what is wrong with the anchor's last demonstrations
    careless_steps: int
    regions: dict = field(default_factory=anywhere)     # a triple's numbers lie in one of them
    dev_region: str | None = None   # the one that dev covers; None: all
    addends: tuple = (1, 49)
    near_sums: bool = False         # choices of "plus": the sum, a neighbour, and two far away
    wrong_claims: float = 0.0       # share of notes that call a wrong number the largest
    right_claims: float = 0.0       # and the right one
    free: bool = False              # its anchor knows free-form questions, and seed questions
    barren: float = 0.0             # share of notes about nothing that dev and test ask for

    def path(self, name):
        return os.path.join(ROOT, self.folder, name)


EASY = World("toy", CARELESS, careless_steps=200)
HARD = World(
    "toy/hard", CARELESS_HARD, careless_steps=300,
    regions={"near": range(1, 50), "far": range(50, 100)}, dev_region="near",
    addends=(11, 39), near_sums=True, wrong_claims=0.4, right_claims=0.3)
FREE = World("toy/free", CARELESS, careless_steps=400, free=True)
WORLDS = {"easy": EASY, "hard": HARD, "free": FREE}


# ---------------------------------------------------------------- facts

def part(numbers):
    """Three numbers (or names) -> "dev", "test" or "train", whatever their order."""
    tenth = zlib.crc32(repr(sorted(numbers)).encode()) % 10
    return {0: "dev", 1: "test"}.get(tenth, "train")


def triple(rng, want, numbers):
    """Three of the numbers, of the part `want`."""
    while True:
        three = rng.sample(numbers, 3)
        if part(three) == want:
            return three


def draw_fact(rng, kind, want="train", world=EASY, region=None):
    """One fact: (kind, values); the region of a triple is drawn too unless given."""
    if kind == "triple":
        regions = list(world.regions)
        if region is None:
            # A single one draws no random number: the easy world's stay as they were.
            region = rng.choice(regions) if len(regions) > 1 else regions[0]
        return kind, triple(rng, want, world.regions[region])

    if kind == "plus":
        return kind, [rng.randint(*world.addends), rng.randint(*world.addends)]
    if kind == "day":
        return kind, [rng.choice(DAYS), rng.randint(2, 6)]
    return kind, rng.sample(NAMES, 3)


def draw_facts(rng, world=EASY):
    """The facts of a note: a triple and two of other kinds, in any order; or a barren note's."""
    # where no note is barren, no random number is drawn for it
    if world.barren and rng.random() < world.barren:
        kinds = ["plus", "day", "order"]
    else:
        kinds = ["triple"] + rng.sample(["plus", "day", "order"], 2)
    facts = [draw_fact(rng, kind, world=world) for kind in kinds]
    rng.shuffle(facts)
    return facts


def draw_claim(rng, facts, world):
    """What a note calls the largest of its triple: the right number, a wrong one, or None."""
    if not world.wrong_claims:
        return None
    chance = rng.random()
    ascending = sorted(dict(facts)["triple"])

    if chance < world.wrong_claims:
        return rng.choice(ascending[:2])
    if chance < world.wrong_claims + world.right_claims:
        return ascending[2]
    return None


# ---------------------------------------------------------------- notes

def sentence(rng, fact):
    """A fact -> one of the sentences that say it."""
    kind, v = fact
    if kind == "triple":
        a, b, c = rng.sample(NAMES, 3)
        verb = rng.choice(VERBS)
        things = rng.choice(THINGS)
        return rng.choice([
            f"{a} {verb} {v[0]} {things}, {b} {verb} {v[1]} and {c} {verb} {v[2]}.",
            f"The three boxes held {v[0]}, {v[1]} and {v[2]} {things}."])

    if kind == "plus":
        # Both are written, and only then is one drawn: the order of draws is part of the world.
        return rng.choice([
            f"The {rng.choice(RIDES)} left with {v[0]} people and {v[1]} more got on later.",
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


# ---------------------------------------------------------------- questions

def ask(rng, fact, skill, world=EASY):
    """A fact and a skill -> (question text, choices as a writer would list them, the true one)."""
    kind, v = fact
    if kind == "triple":
        return ask_triple(rng, v, skill)
    if kind == "plus":
        return ask_plus(rng, v, world)
    if kind == "day":
        return ask_day(rng, v)
    return ask_order(rng, v)


def ask_triple(rng, v, skill):
    """The three numbers and a fourth."""
    right = max(v) if skill == "largest" else min(v)
    other = rng.choice([x for x in range(1, 100) if x not in v])
    choices = [str(x) for x in v + [other]]
    return f"What is the {skill} of {v[0]}, {v[1]} and {v[2]}?", choices, str(right)


def ask_plus(rng, v, world):
    """The sum and its neighbours; with near_sums one neighbour and two numbers far away."""
    right = v[0] + v[1]
    gaps = (-1, 0, 1, 2)
    if world.near_sums:
        gaps = sorted([-rng.randint(11, 20), 0, rng.choice([-1, 1]), rng.randint(11, 20)])
    choices = [str(right + gap) for gap in gaps]
    return f"What is {v[0]} plus {v[1]}?", choices, str(right)


def ask_day(rng, v):
    """The right day and three others, in the order of the week."""
    right = DAYS[(DAYS.index(v[0]) + v[1]) % 7]
    others = rng.sample([day for day in DAYS if day != right], 3)
    choices = sorted([right] + others, key=DAYS.index)
    return f"Which day comes {v[1]} days after {v[0]}?", choices, right


def ask_order(rng, v):
    """The three names and a fourth."""
    places = ["first", "second", "last"]
    place = rng.choice(places)
    other = rng.choice([name for name in NAMES if name not in v])
    text = f"{v[0]} came first, then {v[1]}, then {v[2]}. Who came {place}?"
    return text, v + [other], v[places.index(place)]


# ---------------------------------------------------------------- the files

def question_set(rng, want, n, world=EASY, region=None):
    """n questions of the target skills whose triples belong to the part `want`.

    With a region, from there, and with its name in their ids.
    """
    rows = []
    seen = set()
    while len(rows) < n:
        fact = draw_fact(rng, "triple", want, world, region)
        text, choices, right = ask(rng, fact, rng.choice(TARGET))
        if text in seen:
            continue
        seen.add(text)
        rng.shuffle(choices)
        rows.append({
            "question_id": f"{region or want}-{len(rows)}", "question_text": text,
            "choices": choices, "ground_truth": right})
    return rows


def problem_set(rng, want, n):
    """n questions without choices about who came first, second or last, of the part `want`."""
    rows = []
    seen = set()
    while len(rows) < n:
        fact = draw_fact(rng, "order")
        text, _, right = ask(rng, fact, "order")
        if part(fact[1]) != want or text in seen:
            continue
        seen.add(text)
        rows.append({
            "question_id": f"order-{want}-{len(rows)}", "question_text": text,
            "ground_truth": right})
    return rows


def note_set(rng, n, world):
    """n notes, as a documents file has them."""
    rows = []
    for i in range(n):
        facts = draw_facts(rng, world)
        claim = draw_claim(rng, facts, world)
        rows.append({"doc_id": f"note-{i}", "content": note(rng, facts, claim)})
    return rows


def world_files(world, n_documents=600, n_dev=160, n_test=400):
    """-> {file name: rows}. Where dev covers one of two regions, test is half and half."""
    rng = random.Random(2026)
    if world.free:
        return free_files(rng, n_dev, n_test)

    files = {"documents": note_set(rng, n_documents, world)}
    if world.dev_region is None:
        files["dev"] = question_set(rng, "dev", n_dev)
        files["test"] = question_set(rng, "test", n_test)
        return files

    files["dev"] = question_set(rng, "dev", n_dev, world, world.dev_region)
    n_each = n_test // len(world.regions)
    parts = {}
    for region in world.regions:
        parts[f"test-{region}"] = question_set(rng, "test", n_each, world, region)
    files["test"] = sum(parts.values(), [])
    return files | parts


def free_files(rng, n_dev, n_test):
    """What the free world has beside the easy one's notes, dev and test questions."""
    files = {}
    files["rlvr"] = problem_set(rng, "train", n_test)
    files["test-free"] = problem_set(rng, "test", n_test // 2)
    files["dev-mixed"] = question_set(rng, "dev", 3 * n_dev // 4)
    files["dev-mixed"] += problem_set(rng, "dev", n_dev // 4)
    files["dev-pool"] = question_set(rng, "dev", n_dev)
    return files


def write_world(folder, world=EASY):
    """Write the world's data files into a folder."""
    for name, rows in world_files(world).items():
        lines = ",\n".join(json.dumps(row) for row in rows)
        with open(os.path.join(folder, f"{name}.json"), "w") as f:
            f.write(f"[\n{lines}\n]\n")
