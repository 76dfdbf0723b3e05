"""The race runs what it says, once, whatever stops it on the way; its statistics are those of a
textbook."""
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import config
from engine import flags, presets
from studies import figures, race, standings

# runs and processes of their own
pytestmark = pytest.mark.slow

# A train.py that only pretends. It settles what was left to it, as the real one does.
FAKE = '''
import json, os, sys, time
from dataclasses import replace
sys.path.insert(0, {root!r})
import config
from engine import flags

cfg = flags.parse()
path = os.path.join(cfg.run, "metrics.jsonl")
auto = [name for name in config.CHOICES if getattr(cfg, name) == "auto"]
settled = replace(cfg, **{{name: config.CHOICES[name][-1] for name in auto}})

def note(text):
    with open(os.path.join(cfg.run, "notes"), "a") as f:
        f.write(text + "\\n")

os.makedirs(os.path.join(cfg.run, "checkpoint"), exist_ok=True)
settled.save(os.path.join(cfg.run, "config.json"))
done = len(open(path).readlines()) if cfg.resume and os.path.exists(path) else 0
note(f"{{'resumed' if cfg.resume else 'new'}} {{done}} {{time.time()}}")
good = {{"influence": 0.8, "spice": 0.6, "fixed": 0.5}}[cfg.reward] + 0.01 * (cfg.seed % 7)
spoilt = os.path.join(os.path.dirname(cfg.run), "spice-fails")
try:
    for t in range(done + 1, cfg.iterations + 1):
        time.sleep({wait})
        if cfg.reward == "spice" and os.path.exists(spoilt):
            sys.exit("error: spice does not work")
        line = dict(
            iteration=t,
            test_accuracy=good - 1000 * cfg.generator_lr,
            dev_accuracy=0.5 + 100 * cfg.generator_lr,
            key_accuracy=0.5,
            test_accuracy_anchor=0.4,
            target_share=None,
            valid_share=0.9,
            solved_share=0.5,
            seconds=dict(answer=1.0),
        )
        with open(path, "a") as f:
            f.write(json.dumps(line) + "\\n")
except KeyboardInterrupt:
    note("interrupted")
    sys.exit(130)
note(f"end 0 {{time.time()}}")
'''


@pytest.fixture
def out(tmp_path, monkeypatch):
    """A folder for races of a train.py that only pretends; docs/ is elsewhere too, and no figures
    are drawn."""
    pretend(tmp_path, monkeypatch.setattr)
    return tmp_path / "out"


def pretend(folder, put, wait=0.0):
    (folder / "docs").mkdir(exist_ok=True)
    (folder / "train.py").write_text(FAKE.format(root=str(config.ROOT), wait=wait))
    put(race, "TRAIN", folder / "train.py")
    put(race, "DOCS", folder / "docs")
    put(race, "POLL_SECONDS", 0.02)
    put(race, "draw_figures", lambda path: None)


def go(out, *flags, arms="influence,fixed", seeds=2, iterations=6):
    return race.main([*flags, "--arms", arms, "--seeds", str(seeds),
                      "--iterations", str(iterations), "--out", str(out)])


def notes(out, name):
    """What the fake run wrote: its starts, resumes and interruptions, without the times."""
    path = out / name / "notes"
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    return [" ".join(line.split()[:2]) for line in lines if not line.startswith("end")]


def results(out):
    return json.loads((out / "race.json").read_text())


# ---------------------------------------------------------------- which runs

def args_of(*flags):
    return race.read_flags(list(flags))


def test_the_seeds_that_are_reported_are_not_those_of_the_search(out):
    reported = {job.seed for job in race.race_jobs(args_of())}
    searched = {job.seed for job in race.search_jobs(args_of("search"))}
    assert min(reported) >= 1000 and not reported & searched and searched == {100}


def test_the_race_has_eight_seeds_of_each_reward_and_five_of_each_ablation(out):
    jobs = race.race_jobs(args_of())
    count = Counter(job.arm for job in jobs)
    ablations = ("cosine", "group_std", "batch_std", "none", "dev_only")
    assert count == dict.fromkeys(race.REWARDS, 8) | dict.fromkeys(ablations, 5)


def test_all_arms_of_a_seed_come_before_the_next_seed(out):
    jobs = race.race_jobs(args_of())
    seeds = [job.seed for job in jobs]
    assert seeds == sorted(seeds)
    assert {job.arm for job in jobs[:len(race.ARMS)]} == set(race.ARMS)


def test_every_arm_asks_train_for_what_its_name_says(out):
    """train.py's own reading of the flags; two arms with the same configuration would be the same
    arm twice."""
    cfgs = {job.arm: flags.from_flags({**job.flags, "run": job.run})
            for job in race.race_jobs(args_of())}
    assert [cfgs[arm].reward for arm in race.REWARDS] == list(race.REWARDS)
    assert cfgs["cosine"].similarity == "cosine" and cfgs["dev_only"].train_on == "dev"
    for arm in ("group_std", "batch_std", "none"):
        assert cfgs[arm].advantage == arm

    what = {(cfg.reward, cfg.similarity, cfg.advantage, cfg.train_on) for cfg in cfgs.values()}
    assert len(what) == len(race.ARMS)
    budget = {(cfg.iterations, cfg.drafts_per_step, cfg.answers_per_question, cfg.solver_lr)
              for cfg in cfgs.values()}
    assert len(budget) == 1


def test_every_reward_that_moves_a_generator_is_searched_alike(out):
    searched = {}
    for job in race.search_jobs(args_of("search")):
        searched.setdefault(job.arm, []).append((job.flags["generator_lr"], job.seed))
    assert set(searched) == set(race.REWARDS) - {"fixed"}
    for runs in searched.values():
        assert sorted(runs) == [("1.5e-4", 100), ("4.5e-4", 100), ("5e-5", 100)]


# ---------------------------------------------------------------- is it the run that was asked for?

def real_race(tmp_path, monkeypatch, *flags):
    """One iteration of the fixed generator by the real train.py, on less of the world."""
    tiny = {"reward": "fixed", "docs_per_step": 2, "questions_per_doc": 4, "minibatch_rows": 16}
    for name in ("dev", "test"):
        questions = json.loads((config.ROOT / presets.TOY[name]).read_text())
        tiny[name] = str(tmp_path / f"{name}.json")
        Path(tiny[name]).write_text(json.dumps(questions[:16]))
    monkeypatch.setitem(race.ARMS, "fixed", tiny)
    monkeypatch.setattr(race, "POLL_SECONDS", 0.1)
    return go(tmp_path / "out", *flags, arms="fixed", seeds=1, iterations=1)


def test_a_real_run_is_finished_after_its_iterations_and_not_run_again(
        tmp_path, monkeypatch, capsys):
    assert real_race(tmp_path, monkeypatch) == 0
    found = results(tmp_path / "out")
    assert found["runs"] == "1 of 1" and list(found["arms"]) == ["fixed"]
    started = (tmp_path / "out/fixed-seed1000/race.jsonl").read_text()
    assert len(started.splitlines()) == 1
    capsys.readouterr()

    assert real_race(tmp_path, monkeypatch) == 0
    assert "1 finished, 0 to do" in capsys.readouterr().out
    assert (tmp_path / "out/fixed-seed1000/race.jsonl").read_text() == started


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("arm", ["fixed", "influence"])
def test_a_race_of_one_arm_finishes(out, arm, jobs):
    assert go(out, "--jobs", jobs, arms=arm, seeds=1, iterations=1) == 0
    assert results(out)["runs"] == "1 of 1"
    assert go(out, arms=arm, seeds=1, iterations=1) == 0
    assert notes(out, f"{arm}-seed1000") == ["new 0"]


LEFT_TO_THE_RUN = [name for name, choices in config.CHOICES.items() if "auto" in choices]


@pytest.mark.parametrize("name", LEFT_TO_THE_RUN)
def test_what_was_left_to_the_run_may_be_settled_in_any_way(out, name):
    go(out, arms="fixed", seeds=1)
    job, = race.race_jobs(args_of("--arms", "fixed", "--seeds", "1", "--iterations", "6",
                                  "--out", str(out)))
    path = out / "fixed-seed1000/config.json"
    for settled in config.CHOICES[name]:
        replace(flags.load(path), **{name: settled}).save(path)
        assert race.state(job) == "finished"


def test_what_was_asked_for_outright_may_not(out):
    go(out, arms="fixed", seeds=1)
    args = args_of("--arms", "fixed", "--iterations", "6", "--out", str(out))
    same = race.make_job("fixed", 1000, None, args, "fixed-seed1000", dtype="bf16")
    other = race.make_job("fixed", 1000, None, args, "fixed-seed1000", dtype="fp32")
    assert race.state(same) == "finished"
    assert "dtype bf16, not fp32" in race.state(other)


# ---------------------------------------------------------------- running them

def test_a_finished_run_is_skipped_and_an_interrupted_one_goes_on(out, capsys):
    assert go(out) == 0
    metrics = out / "influence-seed1001/metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:4]))
    before = (out / "fixed-seed1000/metrics.jsonl").read_text()
    capsys.readouterr()
    assert go(out) == 0
    assert "3 finished, 1 to do" in capsys.readouterr().out
    assert notes(out, "influence-seed1001") == ["new 0", "resumed 4"]
    assert notes(out, "fixed-seed1000") == ["new 0"]
    assert (out / "fixed-seed1000/metrics.jsonl").read_text() == before


def test_a_line_that_was_cut_short_does_not_make_a_run_finished(out):
    go(out, arms="fixed", seeds=1)
    job, = race.race_jobs(args_of("--arms", "fixed", "--seeds", "1", "--iterations", "6",
                                  "--out", str(out)))
    assert race.state(job) == "finished"
    metrics = out / "fixed-seed1000/metrics.jsonl"
    metrics.write_text(metrics.read_text()[:-20])
    assert race.state(job) == "begun"


def test_another_run_in_the_folder_is_left_alone_and_reported(out, capsys):
    go(out, arms="fixed", seeds=1)
    before = (out / "fixed-seed1000/metrics.jsonl").read_bytes()
    assert go(out, arms="influence,fixed", seeds=1, iterations=7) == 1
    assert "iterations 6, not 7" in capsys.readouterr().out
    assert (out / "fixed-seed1000/metrics.jsonl").read_bytes() == before
    assert list(json.loads((out / "race.json").read_text())["arms"]) == ["influence"]


def test_a_run_that_fails_is_reported_and_does_not_stop_the_others(out, capsys):
    out.mkdir()
    (out / "spice-fails").write_text("")
    assert go(out, arms="spice,influence,fixed") == 1
    said = capsys.readouterr()
    assert "error: spice does not work" in said.out and "spice-seed1001" in said.err
    assert json.loads((out / "race.json").read_text())["runs"] == "4 of 6"
    (out / "spice-fails").unlink()
    assert go(out, arms="spice,influence,fixed") == 0
    assert notes(out, "spice-seed1000") == ["new 0", "resumed 0"]


@pytest.mark.parametrize("keep", [False, True])
def test_the_checkpoints_of_a_finished_run_stay_only_with_keep(out, keep):
    go(out, *["--keep"] * keep, arms="fixed", seeds=1)
    assert (out / "fixed-seed1000/checkpoint").exists() == keep
    assert (out / "fixed-seed1000/metrics.jsonl").exists()


@pytest.mark.parametrize("cores, asked, at_once", [(2, 9, 2), (2, 1, 1), (1, 2, 1)])
def test_never_more_runs_at_a_time_than_cores_and_jobs(
        tmp_path, monkeypatch, cores, asked, at_once):
    pretend(tmp_path, monkeypatch.setattr, wait=0.3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    go(tmp_path / "out", "--jobs", str(asked), seeds=2, iterations=2)
    times = []
    for path in tmp_path.glob("out/*/notes"):
        times.append([float(line.split()[2]) for line in path.read_text().splitlines()])
    assert len(times) == 4
    assert max(running_at(start, times) for start, _ in times) == at_once


def running_at(t, times):
    return sum(start <= t < end for start, end in times)


def race_apart(folder, seconds=0.2):
    """The race in a process of its own, on a train.py that takes its time."""
    code = f"""if True:
        import sys
        sys.path[:0] = [{str(config.ROOT)!r}, {str(Path(__file__).parent)!r}]
        from pathlib import Path
        import test_race
        folder = Path({str(folder)!r})
        test_race.pretend(folder, setattr, wait={seconds})
        sys.exit(test_race.go(folder / "out"))
    """
    return subprocess.Popen([sys.executable, "-c", code], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def wait_for(happened, seconds=60):
    end = time.time() + seconds
    while not happened() and time.time() < end:
        time.sleep(0.05)
    assert happened()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_reaches_the_runs_and_the_same_command_goes_on(tmp_path, monkeypatch, number):
    process = race_apart(tmp_path)
    out = tmp_path / "out"
    metrics = out / "influence-seed1000/metrics.jsonl"
    wait_for(metrics.exists)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on from here" in said and "Traceback" not in said
    # "interrupted": the signal came through
    assert notes(out, "influence-seed1000") == ["new 0", "interrupted"]

    pretend(tmp_path, monkeypatch.setattr)
    lines = len(metrics.read_text().splitlines())
    assert lines < 6 and go(out) == 0
    assert notes(out, "influence-seed1000") == ["new 0", "interrupted", f"resumed {lines}"]


def test_two_races_in_one_folder_are_refused_even_if_the_first_was_killed(
        tmp_path, monkeypatch, capsys):
    process = race_apart(tmp_path, seconds=1.0)
    path = tmp_path / "out/influence-seed1000/notes"
    wait_for(path.exists)
    # its run lives on
    process.kill()
    process.wait()

    pretend(tmp_path, monkeypatch.setattr)
    assert go(tmp_path / "out") == 2
    assert "still at work" in capsys.readouterr().err
    wait_for(lambda: "end" in path.read_text())


# ---------------------------------------------------------------- the search

def test_the_search_chooses_by_the_dev_questions_and_the_race_obeys(out, capsys):
    """The fake's dev accuracy rises with the learning rate, its test accuracy falls."""
    assert go(out, "search", arms="influence") == 0
    found = json.loads((race.DOCS / "race-search.json").read_text())["toy"]["influence"]
    assert found["generator_lr"] == "4.5e-4" and found["at_the_edge"]
    assert found["dev_accuracy"]["5e-5"] == {"100": pytest.approx(0.505)}
    capsys.readouterr()
    args = args_of("--arms", "influence,spice,fixed,cosine", "--seeds", "1")
    rates = [job.flags.get("generator_lr") for job in race.race_jobs(args)]
    assert rates == ["4.5e-4", "1.5e-4", None, "4.5e-4"]
    # the default is said, and only there
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said] == ["spice"]


def test_an_unfinished_search_chooses_nothing(out, capsys):
    go(out, "search", arms="influence")
    (race.DOCS / "race-search.json").unlink()
    (out / "influence-lr5e-5-seed100/metrics.jsonl").unlink()
    assert go(out, "search", "--summary", arms="influence") == 0
    assert "nothing is chosen" in capsys.readouterr().out
    assert json.loads((race.DOCS / "race-search.json").read_text()) == {}


# ---------------------------------------------------------------- statistics

def test_the_interval_of_three_numbers_is_that_of_a_hand():
    """std 0.1, t = 4.302653 at two degrees of freedom: 4.302653 x 0.1 / sqrt(3) = 0.248414."""
    x = standings.interval([0.5, 0.6, 0.7])
    half = 0.248414
    expected = (0.6, 0.6 - half, 0.6 + half)
    assert (x["mean"], x["low"], x["high"]) == pytest.approx(expected, abs=1e-5)


def test_one_number_has_no_interval():
    assert standings.interval([0.5]) == {"mean": 0.5, "low": None, "high": None, "n": 1}


@pytest.mark.parametrize("t", [0.1, 1.0, 3.0, 20.0])
def test_p_values_are_those_of_the_closed_forms(t):
    """Student's t with one degree of freedom is Cauchy's; with two its distribution is a square
    root."""
    assert standings.t_p_value(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t), abs=1e-5)
    assert standings.t_p_value(-t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t), abs=1e-5)


def test_a_paired_difference_sees_what_two_intervals_hide():
    """Seeds differ by 0.2, arms by 0.02.

    d = .02, .03, .01; half = 4.302653 x .01 / sqrt(3) = .024841; two flips of eight are as far;
    t = .02 / (.01 / sqrt(3)) = sqrt(12).
    """
    x = {1: 0.52, 2: 0.73, 3: 0.91, 4: 0.2}
    y = {3: 0.9, 1: 0.5, 2: 0.7}
    found = standings.paired(x, y)
    assert (found["mean"], found["high"]) == pytest.approx((0.02, 0.02 + 0.024841), abs=1e-6)
    assert (found["n"], found["wins"]) == (3, 3)
    assert found["p_flip"] == 2 / 8
    assert found["p"] == pytest.approx(1 - 12 ** 0.5 / 14 ** 0.5, abs=1e-5)


def test_two_seeds_that_differ_by_the_same_one_question_prove_nothing():
    found = standings.paired({1: 0.5025, 2: 0.4025}, {1: 0.5, 2: 0.4})
    assert found["p"] > 0.3 and found["low"] < 0 < found["high"]


def line_of(value):
    return dict(iteration=1, test_accuracy=value, test_accuracy_anchor=0.4, key_accuracy=None,
                seconds={"answer": 1.8})


def race_of(finals, ablations=()):
    """{arm: test accuracy by seed} -> standings of one-iteration runs."""
    arms = {}
    for arm, values in finals.items():
        runs = {1000 + i: [line_of(value)] for i, value in enumerate(values)}
        arms[arm] = {"ablation": arm in ablations, "generator_lr": None, "runs": runs}
    return standings.standings(arms, 1, 5)


def test_the_order_is_said_for_the_pairs_that_it_is_supported_for():
    found = race_of({
        "fixed":     [0.50, 0.52, 0.54, 0.51],
        "influence": [0.80, 0.82, 0.85, 0.81],
        "spice":     [0.49, 0.55, 0.52, 0.53],
    })
    order, supported, together = found["conclusion"]
    assert "influence > spice ~ fixed" in order
    assert "influence above spice, fixed." in supported
    assert together == "Cannot be told apart: spice and fixed."


def test_seeds_that_cannot_tell_say_so():
    found = race_of({"influence": [0.9, 0.3], "fixed": [0.5, 0.5]})
    assert "influence ~ fixed" in found["conclusion"][0]
    assert found["conclusion"][1].startswith("No order is supported")


def test_one_seed_tells_nothing():
    found = race_of({"influence": [0.9], "fixed": [0.1]})
    assert found["pairs"]["rewards"] == []
    assert found["conclusion"][1].startswith("No order is supported")
    assert "90.0 |" in standings.table(found)


def test_ablations_are_compared_with_influence_only_and_on_the_seeds_they_share():
    found = race_of({"influence": [0.8, 0.9, 0.7, 0.1], "fixed": [0.5] * 4,
                     "cosine": [0.4, 0.51, 0.3]}, ablations=("cosine",))
    rewards = found["pairs"]["rewards"]
    assert [(pair["better"], pair["other"]) for pair in rewards] == [("influence", "fixed")]
    pair, = found["pairs"]["ablations"]
    assert (pair["better"], pair["other"], pair["n"]) == ("influence", "cosine", 3)
    assert pair["mean"] == pytest.approx((0.4 + 0.39 + 0.4) / 3)
    assert "cosine" not in found["conclusion"][0]
    assert found["arms"]["cosine"]["against"]["influence"]["wins"] == 0


def test_a_race_is_held_against_the_published_one():
    published = race_of({
        "influence": [0.80, 0.82, 0.85, 0.81],
        "spice":     [0.60, 0.62, 0.64, 0.61],
        "fixed":     [0.50, 0.52, 0.54, 0.51],
    })
    assert sum(pair["told_apart"] for pair in published["pairs"]["rewards"]) == 3
    quick = race_of({"influence": [0.80, 0.81], "spice": [0.4, 0.6], "fixed": [0.50, 0.52]})
    said = standings.agreement(quick, published)
    assert "Of the 3 pairs" in said and "2 have the same arm ahead" in said
    assert said.endswith("; fixed before spice.")


# ---------------------------------------------------------------- what is written

def test_results_hold_the_curves_the_seeds_and_the_hours(out):
    go(out, arms="influence,fixed", seeds=2, iterations=12)
    found = results(out)
    x = found["arms"]["influence"]
    curves = x["curves"]
    assert found["evaluated"] == [0, 5, 10, 12] and x["seeds"] == [1000, 1001]
    assert [values[0] for values in curves["test_accuracy"]] == [0.4, 0.4]
    assert len(curves["key_accuracy"][0]) == 12

    of_seeds = 0.01 * (1000 % 7 + 1001 % 7) / 2
    assert x["final"]["mean"] == pytest.approx(0.8 + of_seeds - 1000 * 1.5e-4)
    assert x["hours"] == pytest.approx(24 / 3600, abs=1e-3)
    assert found["commits"] != ["unknown"] or not (config.ROOT / ".git").exists()
    assert x["late"]["target_share"] is None
    assert "NaN" not in (out / "race.json").read_text()


def test_only_the_whole_race_is_written_into_docs(out, monkeypatch):
    """Everything asked for by default, and nothing missing."""
    monkeypatch.chdir(out.parent)
    monkeypatch.setattr(race, "ARMS", {arm: race.ARMS[arm] for arm in ("influence", "fixed")})
    monkeypatch.setitem(race.PLANS, "race", dict(iterations=2, seeds=2, out=""))
    assert go(Path("runs/race"), arms="influence", seeds=2, iterations=2) == 0
    # one arm is missing
    assert race.main(["--summary"]) == 0
    assert not (race.DOCS / "race.json").exists() and Path("runs/race/race.json").exists()
    assert race.main([]) == 0
    assert json.loads((race.DOCS / "race.json").read_text())["runs"] == "4 of 4"


def test_figures_are_drawn_from_the_results_alone(out):
    pytest.importorskip("matplotlib")
    go(out, arms="influence,fixed,cosine", seeds=2)
    command = [sys.executable, "-m", "studies.figures", "race", str(out / "race.json")]
    drawn = subprocess.run(command, cwd=config.ROOT, capture_output=True, text=True)
    assert drawn.returncode == 0, drawn.stderr
    for name in ("race.svg", "race.png", "race-ablations.svg", "race-ablations.png"):
        assert (out / name).stat().st_size > 5000


def test_the_curves_are_drawn_from_run_folders_the_same_each_time(out):
    pytest.importorskip("matplotlib")
    go(out, arms="influence,fixed", seeds=2)
    words = ["curves"]
    for name, arm in (("infuser", "influence"), ("fixed", "fixed")):
        words.append(f"{name}={out / arm}-seed1000,{out / arm}-seed1001")
    drawn = []
    for i in range(2):
        assert figures.main([*words, "--out", str(out / f"curves{i}")]) == 0
        drawn.append((out / f"curves{i}.svg").read_bytes())
    assert drawn[0] == drawn[1] and len(drawn[0]) > 5000


def test_without_matplotlib_one_line_says_so(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert figures.main(["race", "race.json"]) == 1
    assert capsys.readouterr().err.startswith("no figures: matplotlib is not installed")


@pytest.mark.parametrize("flags, says", [
    (["--arms", "influense"], "influense"),
    (["--seeds", "0"], "--seeds 0"),
    (["--world", "tox"], "tox"),
    (["--summary"], "no finished run"),
])
def test_bad_input_is_one_line(out, capsys, flags, says):
    assert race.main([*flags, "--out", str(out)]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(said) == 1 and says in said[0] and not out.exists()
