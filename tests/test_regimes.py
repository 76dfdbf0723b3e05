"""Every knob turns what it says and nothing else; its runs go on from the JSON file alone."""
import json
import shutil
from pathlib import Path

import pytest

import config
from data import Document, InputError, Question
from engine import flags, presets
from studies import regimes, runs, standings
from test_race import pretend
from toy import knobs, truth
from toy.world import EASY, note_set

plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture
def out(tmp_path, monkeypatch):
    """A folder for runs of a train.py that only pretends; the worlds are made, but no anchor is
    taught."""
    pretend(tmp_path, monkeypatch.setattr)
    monkeypatch.setattr(regimes, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(knobs, "STEPS", 1)
    monkeypatch.setattr(regimes, "draw_figures", lambda path: None)
    return tmp_path / "out"


def go(out, knob, *flags, seeds=2):
    return regimes.main([knob, *flags, "--seeds", str(seeds), "--iterations", "3",
                         "--out", str(out)])


def results(out):
    return json.loads((out / "regimes.json").read_text())


RATES = {"influence": "1.5e-4", "learnability": "5e-5", "spice": "4.5e-4"}


def jobs_of(knob, out):
    return regimes.jobs_of(knob, RATES, regimes.read_flags([knob, "--out", str(out)]))


# ---------------------------------------------------------------- which runs

@pytest.mark.slow
@pytest.mark.parametrize("knob", regimes.KNOBS)
def test_a_knob_changes_its_own_settings_and_train_reads_them(out, knob):
    """Against the first value, nothing but files differs; on a value the arms have one world."""
    may_move = {"dev", "questions", "documents", "model", "generator_model", "rlvr",
                "rlvr_per_step"}
    arms_may = {"reward", "similarity", "advantage", "train_on", "questions", "generator_lr",
                "dev", "invalid_score"}
    jobs = jobs_of(knob, out)
    regimes.make_worlds(regimes.each(jobs))
    assert list(jobs) == list(regimes.KNOBS[knob][2])
    for arm, of_arm in jobs.items():
        assert list(of_arm) == list(regimes.KNOBS[knob][0])
        cfgs = [flags.from_flags({**of_value[2000].flags, "run": "x"})
                for of_value in of_arm.values()]
        assert all(differ(cfgs[0], cfg) <= may_move for cfg in cfgs)
    last = [flags.from_flags({**list(of_arm.values())[-1][2000].flags, "run": "x"})
            for of_arm in jobs.values()]
    assert all(differ(last[0], cfg) <= arms_may for cfg in last)
    assert {cfg.seed for cfg in last} == {2000} and {cfg.iterations for cfg in last} == {20}


def differ(a, b):
    return {name for name in config.SETTINGS if name != "run"
            and getattr(a, name) != getattr(b, name)}


def test_each_arm_has_the_rate_of_its_reward_and_five_seeds(out):
    jobs = jobs_of("useless", out)
    for arm, of_arm in jobs.items():
        for of_seed in of_arm.values():
            assert list(of_seed) == [2000, 2001, 2002, 2003, 2004]
            rates = {job.flags.get("generator_lr") for job in of_seed.values()}
            assert rates == {RATES.get(arm)}


def test_the_same_run_is_run_once_whatever_knobs_ask_for_it(out):
    useless, noise = jobs_of("useless", out), jobs_of("noise", out)
    assert useless["influence"][0.5][2000].key == noise["dugrpo"][0.5][2000].key
    assert noise["dugrpo"][0][2001].key == jobs_of("dev", out)["influence"][160][2001].key
    assert useless["influence"][0.5][2000].key != useless["spice"][0.5][2000].key
    # a generator that nobody pays does not care for dev questions
    assert len({job.key for line in jobs_of("dev", out)["fixed"].values()
                for job in line.values()}) == 5


def test_all_comparisons_of_a_knob_are_one_family(out):
    """Alone each would be told apart, p = .03; of nine none is."""
    jobs, runs = jobs_of("noise", out), {}
    moves = [0.02, 0.05, 0.1, 0.15, 0.05]
    for arm, of_arm in jobs.items():
        for of_value in of_arm.values():
            for (seed, job), move in zip(of_value.items(), moves):
                ahead = move * (arm == "dugrpo")
                runs[job.key] = {"test_accuracy": [0.5 + ahead], "moved": 1.0} | dict.fromkeys(
                    ("key_accuracy", "target_share", "valid_share"), [0.5])
    found = regimes.results_of("noise", jobs, runs)
    pairs = [pair for of_value in found["pairs"].values() for pair in of_value]
    assert [len(of_value) for of_value in found["pairs"].values()] == [3, 3, 3]
    assert {(pair["better"], pair["other"]) for pair in pairs} == {
        ("dugrpo", arm) for arm in ("group_std", "batch_std", "none")}
    p = pairs[0]["p"]
    assert 0.01 < p < 0.05 and all(pair["p_holm"] == pytest.approx(9 * p) for pair in pairs)
    assert "whole knob" in regimes.told(found) and "nothing apart" in regimes.told(found)


# ---------------------------------------------------------------- running them

@pytest.mark.slow
def test_the_file_alone_is_enough_to_go_on(out, capsys):
    assert go(out, "dev", "--arms", "influence,fixed") == 0
    found = results(out)
    line = found["knobs"]["dev"]["arms"]["influence"]
    # 6 sizes x 2 seeds, and the level line's 2
    assert len(found["runs"]) == 14 and len(line) == 6
    assert line[0]["final"]["mean"] == pytest.approx(0.8 + 0.01 * (2000 % 7 + 2001 % 7) / 2 - 0.15)
    pair, = found["knobs"]["dev"]["pairs"]["5"]
    assert (pair["better"], pair["other"]) == ("influence", "fixed")
    said = capsys.readouterr().out
    assert "| influence |" in said and "s an iteration on one thread here" in said
    for knob in (*regimes.KNOBS, "all of them"):
        assert f"    {knob}: about" in said

    shutil.copy(out / "regimes.json", out.parent / "kept.json")
    shutil.rmtree(out)
    assert go(out, "dev", "--arms", "influence,fixed", "--file", str(out.parent / "kept.json")) == 0
    assert "14 finished, 0 to do" in capsys.readouterr().out
    again = json.loads((out.parent / "kept.json").read_text())
    assert again["runs"] == found["runs"] and again["knobs"] == found["knobs"]
    # nor is a world made for runs that are there
    assert not (out / "worlds").exists()


@pytest.mark.slow
def test_one_real_iteration_of_a_knob(tmp_path, monkeypatch):
    """Real notes, real runs, on little of the world; the truth is known to the log alone."""
    tiny = {"docs_per_step": 2, "questions_per_doc": 4, "answers_per_question": 4,
            "minibatch_rows": 16}
    for name in ("dev", "test"):
        questions = json.loads((config.ROOT / presets.TOY[name]).read_text())
        tiny[name] = str(tmp_path / f"{name}.json")
        Path(tiny[name]).write_text(json.dumps(questions[:8]))
    arms = {arm: regimes.ALL_ARMS[arm] | tiny for arm in ("influence", "fixed")}
    monkeypatch.setattr(regimes, "ALL_ARMS", arms)
    monkeypatch.setattr(regimes, "KNOBS",
                        {"useless": ((0.9,), "share", ("influence", "fixed"))})
    monkeypatch.setattr(regimes, "ARMS", {"influence": None})
    monkeypatch.setattr(runs, "POLL_SECONDS", 0.1)
    code = regimes.main(["useless", "--seeds", "1", "--iterations", "1",
                         "--out", str(tmp_path / "out")])
    assert code == 0
    found = results(tmp_path / "out")
    point, = found["knobs"]["useless"]["arms"]["influence"]
    assert point["final"]["n"] == 1 and point["key_accuracy"] is not None
    record = found["runs"]["useless-0.9/influence/2000"]
    assert record["flags"]["documents"].endswith("useless-0.9/documents.json")
    assert (tmp_path / "out/regimes.svg").stat().st_size > 5000


def test_a_panel_shows_the_means_and_intervals_of_its_file(tmp_path):
    from studies import figures
    line = [{"final": standings.t_interval([0.5, 0.6, 0.7])}, None]
    content = {"knobs": {"dev": {"values": [5, 10], "label": "dev questions",
                                 "arms": {"influence": line}, "pairs": {}}}}
    (tmp_path / "regimes.json").write_text(json.dumps(content))
    figure = figures.regimes(plt, [str(tmp_path / "regimes.json")])
    ax = figure.axes[0]
    drawn, = ax.containers
    assert list(drawn.lines[0].get_ydata()) == pytest.approx([60])
    low, high = drawn.lines[2][0].get_segments()[0][:, 1]
    assert (low, high) == pytest.approx((60 - 24.8414, 60 + 24.8414), abs=1e-3)
    plt.close("all")


@pytest.mark.parametrize("words, says", [
    (["devs"], "devs: expected one of dev"),
    (["dev", "--arms", "spice"], "--arms spice"),
    (["--arms", "influence"], "--arms influence"),
    (["keys", "--summary", "--file", "none.json"], "no finished run"),
])
def test_bad_input_is_one_line(out, capsys, words, says):
    assert regimes.main([*words, "--out", str(out)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and says in said[0]


# ---------------------------------------------------------------- the knobs

def test_a_sample_of_dev_questions_is_its_seeds(tmp_path):
    for seed in (1, 2):
        knobs.turn("dev", 20, tmp_path, seed)
    one, two = (json.loads((tmp_path / f"seed{seed}.json").read_text()) for seed in (1, 2))
    everything = json.loads(Path(EASY.path("dev.json")).read_text())
    assert len(one) == 20 and one != two and all(row in everything for row in one + two)
    knobs.dev(tmp_path, 160, 3)
    assert len(json.loads((tmp_path / "seed3.json").read_text())) == 160


def test_a_share_of_the_notes_has_nothing_that_dev_asks_for(tmp_path):
    folder = knobs.turn("useless", 0.6, tmp_path / "useless-0.6")
    notes = json.loads((folder / "documents.json").read_text())
    triples = sum("boxes held" in row["content"] or any(f" {verb} " in row["content"]
                  for verb in ("picked", "counted", "sold", "found", "packed")) for row in notes)
    # standard error .02
    assert len(notes) == 600 and 1 - triples / 600 == pytest.approx(0.6, abs=0.06)


def test_one_note_in_so_many_has_large_numbers(tmp_path):
    import re
    folder = knobs.turn("rare", 10, tmp_path / "rare-10")
    notes = json.loads((folder / "documents.json").read_text())
    triple = re.compile(r"(?:picked|counted|sold|found|packed) (\d+) .*? (\d+) and \w+ \w+ (\d+)"
                        r"|boxes held (\d+), (\d+) and (\d+)")
    large = []
    for row in notes:
        numbers = [int(x) for x in triple.search(row["content"]).groups() if x]
        assert len(numbers) == 3 and (max(numbers) < 50 or min(numbers) >= 50)
        large.append(min(numbers) >= 50)
    # standard error .012
    assert len(notes) == 600 and sum(large) / 600 == pytest.approx(0.1, abs=0.04)


def test_without_barren_notes_the_easy_world_is_as_it_was(tmp_path):
    import random
    shipped = json.loads(Path(EASY.path("documents.json")).read_text())
    assert note_set(random.Random(2026), 600, EASY) == shipped


def test_the_log_knows_whose_notes_these_are_and_training_does_not(tmp_path):
    folder = knobs.turn("useless", 0.5, tmp_path / "useless-0.5")
    path = str(folder / "documents.json")
    assert truth.world_of(path) is EASY and truth.world_of(str(tmp_path / "x.json")) is None
    notes = json.loads(Path(path).read_text())
    assert set(notes[0]) == {"doc_id", "content"}
    question = Question("What is 2 plus 3?", ["4", "5", "6", "7"], "5")
    draft = type("Draft", (), {"question": question, "document": Document("", "")})
    assert truth.truth([draft], path) == {
        "key_accuracy": 1.0, "target_share": 0.0, "unread_share": 0.0}


@pytest.mark.slow
def test_scales_change_the_weights_and_no_output(tmp_path):
    import torch
    from transformers import Qwen3ForCausalLM
    knobs.turn("scales", 16, tmp_path)
    before, _ = knobs.anchor()
    after = Qwen3ForCausalLM.from_pretrained(tmp_path / "anchor")
    ids = torch.arange(40).view(2, 20)
    logits = [model(ids).logits for model in (before, after)]
    assert torch.equal(*logits)

    def gradients(model):
        model(ids, labels=ids).loss.backward()
        layer = model.model.layers[0]
        return layer.mlp.up_proj.weight.grad, layer.mlp.down_proj.weight.grad

    (up, down), (up16, down16) = gradients(before), gradients(after)
    assert torch.allclose(up16, up / 16, rtol=1e-3, atol=1e-8)
    assert torch.allclose(down16, down * 16, rtol=1e-3, atol=1e-6)


def test_what_the_solver_masters_is_always_right_and_what_is_long_is_not_asked_by_dev():
    import random
    rng = random.Random(1)
    right, wrong = 0, 0
    for _ in range(200):
        prompt, response = knobs.lesson_of_solver(rng, mastered=("plus", "day", "order"), times=3)
        said = response.count("The answer is")
        assert said == (1 if "largest" in prompt else 3) and response.count("boxed") == 1
        if "plus" in prompt:
            asked = prompt.split("What is ")[1].split("?")[0].split(" plus ")
            answer = int(response.split()[3])
            right += answer == int(asked[0]) + int(asked[1])
            wrong += answer != int(asked[0]) + int(asked[1])
    assert right > 20 and wrong == 0


def test_a_knob_that_is_none_is_one_line(tmp_path, capsys):
    from engine.speech import run_script
    for words in (["key=1"], ["keys"], ["keys=x"], ["dev=500"], ["useless=2"], ["rare=0"],
                  ["rare=1.5"], ["keys=2"], ["rare=inf"], ["lengths=0.5"], ["lengths=nan"],
                  ["scales=0"]):
        with pytest.raises(SystemExit) as ended:
            run_script(lambda: knobs.main([*words, "--out", str(tmp_path)]))
        assert ended.value.code == 2
        assert "expected" in capsys.readouterr().err


def test_another_value_is_not_taken_from_a_folder_that_holds_one(tmp_path, capsys):
    knobs.main(["dev=5", "--out", str(tmp_path / "new")])
    with pytest.raises(InputError, match="is not empty"):
        knobs.main(["dev=40", "--out", str(tmp_path / "new")])


def test_arms_are_those_of_the_knob_that_was_asked_for(out):
    args = regimes.read_flags(["keys", "--arms", "spice,fixed", "--out", str(out)])
    assert list(regimes.jobs_of("keys", RATES, args)) == ["spice", "fixed"]
    assert list(regimes.jobs_of("dev", RATES, args)) == ["influence", "dev_only", "fixed"]


def test_a_published_knob_is_whole(out, monkeypatch, capsys):
    """Of some of its seeds a point would have another interval than the page says."""
    regimes.DOCS.mkdir(exist_ok=True)
    monkeypatch.setattr(regimes, "SEEDS", 2)
    monkeypatch.setattr(regimes, "ITERATIONS", 3)
    monkeypatch.setattr(regimes.frozen, "freeze", lambda recorded, where: recorded or "abc")
    assert regimes.main(["scales", "--out", str(out)]) == 0
    file = regimes.DOCS / "regimes.json"
    found = json.loads(file.read_text())
    assert list(found["knobs"]) == ["scales"]

    del found["runs"]["scales-4/dot/2001"]
    file.write_text(json.dumps(found))
    capsys.readouterr()
    assert regimes.main(["scales", "--summary", "--out", str(out)]) == 2
    assert "scales: 23 of 24 runs have ended" in capsys.readouterr().out
