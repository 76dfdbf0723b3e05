"""Four ways to train on real passages: the runs, their exams, and going on from the file alone."""
import json
import math
import shutil

import numpy as np
import pytest

import config
from engine import flags
from engine.readers import load_questions
from policy import Policy
from studies import expected, passages, runs


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The embedded world in the place of the passages, little of it, and one short iteration."""
    toy = config.ROOT / "toy"
    out = tmp_path / "reading"
    out.mkdir()
    for name, source, n in (("documents", "documents", 4), ("dev", "dev", 6), ("test", "test", 5),
                            ("test-bare", "test", 5), ("oracle", "dev", 8)):
        rows = json.loads((toy / f"{source}.json").read_text())[-n:]
        (out / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for role in ("solver", "writer"):
        shutil.copytree(toy / "anchor", out / role)
    tiny = {"docs_per_step": 2, "answers_per_question": 4, "max_response_tokens": 48,
            "solver_lr": 1e-3}
    arms = {arm: tiny | given for arm, given in passages.ARMS.items()}
    monkeypatch.setattr(passages, "ARMS", arms)
    monkeypatch.setattr(runs, "POLL_SECONDS", 0.1)
    return out


def go(folder, *words):
    return passages.main([str(folder), "--iterations", "1", "--seeds", "1", "--jobs", "1",
                          "--arms", "fixed,oracle", "--out", str(folder / "out"), *words])


def test_the_arms_differ_by_what_pays_the_generator(folder):
    args = passages.read_flags([str(folder), "--out", str(folder / "out")])
    asked = [flags.from_flags({**job.flags, "run": "x"}) for job in passages.jobs_of(args)]
    assert [cfg.seed for cfg in asked] == [0] * 4 + [1] * 4
    assert [cfg.iterations for cfg in asked] == [40] * 8
    words = ["--first_seed", "2", "--seeds", "1", "--arms", "spice"]
    later = passages.read_flags([str(folder), *words, "--out", str(folder / "out")])
    assert [job.key for job in passages.jobs_of(later)] == ["spice/2"]
    assert len({(cfg.docs_per_step, cfg.questions_per_doc, cfg.answers_per_question, cfg.solver_lr,
                 cfg.generator_lr, cfg.dev, cfg.model) for cfg in asked}) == 1
    assert [(cfg.reward, cfg.train_on) for cfg in asked[:4]] == [
        ("influence", "generated"), ("fixed", "generated"), ("fixed", "file"),
        ("spice", "generated")]


@pytest.mark.slow
def test_real_runs_have_their_exam_and_the_file_is_enough(folder, capsys):
    page = folder / "page.md"
    page.write_text("<!-- results -->\n<!-- end of results -->\n")
    assert go(folder, "--page", str(page)) == 0
    said = capsys.readouterr().out
    file = folder / "out" / "passages.json"
    found = json.loads(file.read_text())
    anchor, = found["anchors"].values()
    assert len(anchor["test"]["exact"]) == 5 and np.mean(anchor["test"]["mass"]) > 0.7
    exact, after = (x["test"]["exact"] for x in (anchor, found["runs"]["oracle/0"]["exam"]))
    assert exact != after and all(0 <= x <= 1 for x in exact + after)
    mean = np.mean(np.array(after) - np.array(exact))
    row = found["arms"]["oracle"]
    assert row["test"]["mean"] == pytest.approx(mean)
    assert row["read"]["mean"] == pytest.approx(
        row["option"]["mean"] - row["option, bare"]["mean"])
    assert f"{100 * mean:+.1f} [" in said and "| oracle |" in page.read_text()
    assert not (folder / "out/oracle/0/solver").exists()
    drafts = (folder / "out/drafts/fixed-0-early.jsonl").read_text().splitlines()
    assert drafts and all(json.loads(line)["answers"] for line in drafts)

    kept = folder.parent / "kept.json"
    shutil.move(file, kept)
    shutil.rmtree(folder / "out")
    assert go(folder, "--file", str(kept)) == 0
    assert json.loads(kept.read_text())["runs"] == found["runs"]
    assert not (folder / "out/fixed/0").exists()


def test_what_is_counted_is_what_a_tree_of_all_answers_counts(folder):
    """The embedded anchor also names what is no option, so its mass is far from 1."""
    args = passages.read_flags([str(folder), "--out", str(folder / "out")])
    cfg = flags.from_flags({"preset": "reading", "model": args.solver, "run": args.out})
    policy = Policy("solver", args.solver, 1e-3, cfg)
    questions = load_questions(str(folder / "test.jsonl"))[:3]
    found = passages.counted(policy, questions, cfg)
    for question, low, mass, option, fits in zip(questions, *found.values()):
        trees = expected.plant(policy, [question])
        assert expected.grow(policy, trees, cfg)
        layout = expected.Layout(policy, trees, cfg)
        accuracy, covered = expected.Accuracy(layout)(layout.logps(policy, cfg))
        assert low - 0.01 <= accuracy <= low + covered - mass + 0.01
        assert covered > 0.95 and 0.3 < mass <= covered + 0.01 and max(low, option, fits) <= mass


def test_seeds_are_averaged_before_questions():
    x = passages.over_questions({0: np.array([0.1, 0.3]), 1: np.array([0.3, math.nan])})
    assert x["mean"] == pytest.approx(0.2) and x["seeds"] == {
        0: pytest.approx(0.2), 1: pytest.approx(0.3)}


@pytest.mark.parametrize("words, says", [
    (["--arms", "rzero"], "--arms rzero: expected some of influence"),
    (["--solver", "nowhere"], "nowhere: expected the model that warmup.py made"),
    (["--summary"], "no run that has ended")])
def test_bad_input_is_one_line(folder, capsys, words, says):
    assert go(folder, *words) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and says in said[0]
