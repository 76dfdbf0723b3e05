"""The race runs what it says, once, whatever stops it on the way; its statistics are those of a textbook."""
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import race
import standings

FAKE = '''
import json, os, sys, time
sys.path.insert(0, {root!r})
import config
cfg = config.parse()
path, note = os.path.join(cfg.run, "metrics.jsonl"), lambda text: open(os.path.join(cfg.run, "notes"), "a").write(text + "\\n")
os.makedirs(os.path.join(cfg.run, "checkpoint"), exist_ok=True)
cfg.save(os.path.join(cfg.run, "config.json"))
done = len(open(path).readlines()) if cfg.resume and os.path.exists(path) else 0
note(f"{{'resumed' if cfg.resume else 'new'}} {{done}} {{time.time()}}")
good = {{"influence": 0.8, "spice": 0.6, "fixed": 0.5}}[cfg.reward] + 0.01 * (cfg.seed % 7)
try:
    for t in range(done + 1, cfg.iterations + 1):
        time.sleep({wait})
        if cfg.reward == "spice" and os.path.exists(os.path.join(os.path.dirname(cfg.run), "spice-fails")):
            sys.exit("error: spice does not work")
        line = dict(iteration=t, test_accuracy=good - 1000 * cfg.generator_lr, dev_accuracy=0.5 + 100 * cfg.generator_lr, key_accuracy=0.5,
                    test_accuracy_anchor=0.4, target_share=None, valid_share=0.9, solved_share=0.5, seconds=dict(answer=1.0))
        open(path, "a").write(json.dumps(line) + "\\n")
except KeyboardInterrupt:
    note("interrupted")
    sys.exit(130)
note(f"end 0 {{time.time()}}")
'''


@pytest.fixture
def out(tmp_path, monkeypatch):
    """A folder for races of a train.py that only pretends; docs/ is elsewhere too, and no figures are drawn."""
    pretend(tmp_path, monkeypatch.setattr)
    return tmp_path / "out"


def pretend(folder, put, wait=0.0):
    (folder / "docs").mkdir(exist_ok=True)
    (folder / "train.py").write_text(FAKE.format(root=str(race.ROOT), wait=wait))
    put(race, "TRAIN", folder / "train.py")
    put(race, "DOCS", folder / "docs")
    put(race, "POLL_SECONDS", 0.02)
    put(race, "draw_figures", lambda path: None)


def go(out, *flags, arms="influence,fixed", seeds=2, iterations=6):
    return race.main([*flags, "--arms", arms, "--seeds", str(seeds), "--iterations", str(iterations), "--out", str(out)])


def notes(out, name):
    """What the fake run wrote: its starts, resumes and interruptions, without the times."""
    path = out / name / "notes"
    return [" ".join(line.split()[:2]) for line in path.read_text().splitlines() if not line.startswith("end")] if path.exists() else []


# ---------------------------------------------------------------- which runs

def args_of(*flags):
    return race.read_flags(list(flags))


def test_the_seeds_that_are_reported_are_not_those_of_the_search(out):
    reported = {job.seed for job in race.race_jobs(args_of())}
    searched = {job.seed for job in race.search_jobs(args_of("search"))}
    assert min(reported) >= 1000 and not reported & searched and searched == {100}


def test_the_race_has_eight_seeds_of_each_reward_and_five_of_each_ablation(out):
    jobs = race.race_jobs(args_of())
    count = {arm: sum(job.arm == arm for job in jobs) for arm in race.ARMS}
    assert count == dict.fromkeys(race.REWARDS, 8) | dict.fromkeys(("cosine", "group_std", "batch_std", "none", "dev_only"), 5)


def test_all_arms_of_a_seed_come_before_the_next_seed(out):
    seeds = [job.seed for job in race.race_jobs(args_of())]
    assert seeds == sorted(seeds)
    assert {job.arm for job in race.race_jobs(args_of())[:len(race.ARMS)]} == set(race.ARMS)


def test_every_arm_asks_train_for_what_its_name_says(out):
    """train.py's own reading of the flags; two arms with the same configuration would be the same arm twice."""
    cfgs = {job.arm: race.config.from_flags({**job.flags, "run": job.run}) for job in race.race_jobs(args_of())}
    assert [cfgs[arm].reward for arm in race.REWARDS] == list(race.REWARDS)
    assert cfgs["cosine"].similarity == "cosine" and cfgs["dev_only"].train_on == "dev"
    assert [cfgs[arm].advantage for arm in ("group_std", "batch_std", "none")] == ["group_std", "batch_std", "none"]
    what = {(cfg.reward, cfg.similarity, cfg.advantage, cfg.train_on) for cfg in cfgs.values()}
    assert len(what) == len(race.ARMS)
    budget = {(cfg.iterations, cfg.drafts_per_step, cfg.answers_per_question, cfg.solver_lr) for cfg in cfgs.values()}
    assert len(budget) == 1


def test_every_reward_that_moves_a_generator_is_searched_alike(out):
    jobs = race.search_jobs(args_of("search"))
    searched = {arm: {(job.flags["generator_lr"], job.seed) for job in jobs if job.arm == arm} for arm in race.ARMS}
    assert {arm for arm, runs in searched.items() if runs} == set(race.REWARDS) - {"fixed"}
    assert {tuple(sorted(runs)) for runs in searched.values() if runs} == {(("1.5e-4", 100), ("4.5e-4", 100), ("5e-5", 100))}


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
    assert notes(out, "fixed-seed1000") == ["new 0"] and (out / "fixed-seed1000/metrics.jsonl").read_text() == before


def test_a_line_that_was_cut_short_does_not_make_a_run_finished(out):
    go(out, arms="fixed", seeds=1)
    job, = race.race_jobs(args_of("--arms", "fixed", "--seeds", "1", "--iterations", "6", "--out", str(out)))
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
def test_never_more_runs_at_a_time_than_cores_and_jobs(tmp_path, monkeypatch, cores, asked, at_once):
    pretend(tmp_path, monkeypatch.setattr, wait=0.3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    go(tmp_path / "out", "--jobs", str(asked), seeds=2, iterations=2)
    times = [[float(line.split()[2]) for line in path.read_text().splitlines()] for path in tmp_path.glob("out/*/notes")]
    assert len(times) == 4
    assert max(sum(start <= t < end for start, end in times) for t, _ in times) == at_once


def race_apart(folder, seconds=0.2):
    """The race in a process of its own, on a train.py that takes its time."""
    code = (f"import sys; sys.path[:0] = [{str(race.ROOT)!r}, {str(Path(__file__).parent)!r}]\n"
            f"import race, test_race\nfrom pathlib import Path\nfolder = Path({str(folder)!r})\n"
            f"test_race.pretend(folder, setattr, wait={seconds})\nsys.exit(test_race.go(folder / 'out'))")
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(happened, seconds=60):
    end = time.time() + seconds
    while not happened() and time.time() < end:
        time.sleep(0.05)
    assert happened()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_reaches_the_runs_and_the_same_command_goes_on(tmp_path, monkeypatch, number):
    process, metrics = race_apart(tmp_path), tmp_path / "out/influence-seed1000/metrics.jsonl"
    wait_for(metrics.exists)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "goes on from here" in said and "Traceback" not in said
    out = tmp_path / "out"
    assert notes(out, "influence-seed1000") == ["new 0", "interrupted"]         # "interrupted": the signal came through
    pretend(tmp_path, monkeypatch.setattr)
    lines = len(metrics.read_text().splitlines())
    assert lines < 6 and go(out) == 0
    assert notes(out, "influence-seed1000") == ["new 0", "interrupted", f"resumed {lines}"]


def test_two_races_in_one_folder_are_refused_even_if_the_first_was_killed(tmp_path, monkeypatch, capsys):
    process = race_apart(tmp_path, seconds=1.0)
    wait_for((tmp_path / "out/influence-seed1000/notes").exists)
    process.kill()                                                              # its run lives on
    process.wait()
    pretend(tmp_path, monkeypatch.setattr)
    assert go(tmp_path / "out") == 2
    assert "still at work" in capsys.readouterr().err
    wait_for(lambda: "end" in (tmp_path / "out/influence-seed1000/notes").read_text())


# ---------------------------------------------------------------- the search

def test_the_search_chooses_by_the_dev_questions_and_the_race_obeys(out, capsys):
    """The fake's dev accuracy rises with the learning rate, its test accuracy falls."""
    assert go(out, "search", arms="influence") == 0
    found = json.loads((race.DOCS / "race-search.json").read_text())["toy"]["influence"]
    assert found["generator_lr"] == "4.5e-4" and found["at_the_edge"]
    assert found["dev_accuracy"]["5e-5"] == {"100": pytest.approx(0.505)}
    capsys.readouterr()
    args = args_of("--arms", "influence,spice,fixed,cosine", "--seeds", "1")
    assert [job.flags.get("generator_lr") for job in race.race_jobs(args)] == ["4.5e-4", "1.5e-4", None, "4.5e-4"]
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["spice"]       # the default is said, and only there


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
    assert (x["mean"], x["low"], x["high"]) == pytest.approx((0.6, 0.6 - 0.248414, 0.6 + 0.248414), abs=1e-5)


def test_one_number_has_no_interval():
    assert standings.interval([0.5]) == {"mean": 0.5, "low": None, "high": None, "n": 1}


@pytest.mark.parametrize("t", [0.1, 1.0, 3.0, 20.0])
def test_p_values_are_those_of_the_closed_forms(t):
    """Student's t with one degree of freedom is Cauchy's; with two its distribution is a square root."""
    assert standings.t_p_value(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t), abs=1e-5)
    assert standings.t_p_value(-t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t), abs=1e-5)


def test_a_paired_difference_sees_what_two_intervals_hide():
    """Seeds differ by 0.2, arms by 0.02: d = .02, .03, .01, half = 4.302653 x .01 / sqrt(3) = .024841; two flips of eight are as far."""
    x, y = {1: 0.52, 2: 0.73, 3: 0.91, 4: 0.2}, {3: 0.9, 1: 0.5, 2: 0.7}
    found = standings.paired(x, y)
    assert (found["mean"], found["high"]) == pytest.approx((0.02, 0.02 + 0.024841), abs=1e-6) and (found["n"], found["wins"]) == (3, 3)
    assert found["p_flip"] == 2 / 8
    assert found["p"] == pytest.approx(1 - 12 ** 0.5 / 14 ** 0.5, abs=1e-5)             # t = .02 / (.01 / sqrt(3)) = sqrt(12)


def test_two_seeds_that_differ_by_the_same_one_question_prove_nothing():
    found = standings.paired({1: 0.5025, 2: 0.4025}, {1: 0.5, 2: 0.4})
    assert found["p"] > 0.3 and found["low"] < 0 < found["high"]


def race_of(finals, ablations=()):
    """{arm: test accuracy by seed} -> standings of one-iteration runs."""
    line = lambda value: dict(iteration=1, test_accuracy=value, test_accuracy_anchor=0.4, key_accuracy=None, seconds={"answer": 1.8})
    arms = {arm: {"ablation": arm in ablations, "generator_lr": None, "runs": {1000 + i: [line(value)] for i, value in enumerate(values)}}
            for arm, values in finals.items()}
    return standings.standings(arms, 1, 5)


def test_the_order_is_said_for_the_pairs_that_it_is_supported_for():
    found = race_of({"fixed": [0.50, 0.52, 0.54, 0.51], "influence": [0.80, 0.82, 0.85, 0.81], "spice": [0.49, 0.55, 0.52, 0.53]})
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
    assert found["pairs"]["rewards"] == [] and found["conclusion"][1].startswith("No order is supported")
    assert "90.0 |" in standings.table(found)


def test_ablations_are_compared_with_influence_only_and_on_the_seeds_they_share():
    found = race_of({"influence": [0.8, 0.9, 0.7, 0.1], "fixed": [0.5] * 4, "cosine": [0.4, 0.51, 0.3]}, ablations=("cosine",))
    assert [(row["better"], row["other"]) for row in found["pairs"]["rewards"]] == [("influence", "fixed")]
    row, = found["pairs"]["ablations"]
    assert (row["better"], row["other"], row["n"], row["mean"]) == ("influence", "cosine", 3, pytest.approx((0.4 + 0.39 + 0.4) / 3))
    assert "cosine" not in found["conclusion"][0]
    assert found["arms"]["cosine"]["against"]["influence"]["wins"] == 0


def test_a_race_is_held_against_the_published_one():
    published = race_of({"influence": [0.80, 0.82, 0.85, 0.81], "spice": [0.60, 0.62, 0.64, 0.61], "fixed": [0.50, 0.52, 0.54, 0.51]})
    assert sum(row["told_apart"] for row in published["pairs"]["rewards"]) == 3
    quick = race_of({"influence": [0.80, 0.81], "spice": [0.4, 0.6], "fixed": [0.50, 0.52]})
    said = standings.agreement(quick, published)
    assert "Of the 3 pairs" in said and "2 have the same arm ahead" in said and said.endswith("; fixed before spice.")


# ---------------------------------------------------------------- what is written

def test_results_hold_the_curves_the_seeds_and_the_hours(out):
    go(out, arms="influence,fixed", seeds=2, iterations=12)
    found = json.loads((out / "race.json").read_text())
    x = found["arms"]["influence"]
    assert found["evaluated"] == [0, 5, 10, 12] and x["seeds"] == [1000, 1001]
    assert [row[0] for row in x["curves"]["test_accuracy"]] == [0.4, 0.4] and len(x["curves"]["key_accuracy"][0]) == 12
    assert x["final"]["mean"] == pytest.approx(0.8 + 0.01 * (1000 % 7 + 1001 % 7) / 2 - 1000 * 1.5e-4)
    assert x["hours"] == pytest.approx(24 / 3600, abs=1e-3) and found["commits"] != ["unknown"] or not (race.ROOT / ".git").exists()
    assert x["late"]["target_share"] is None
    assert "NaN" not in (out / "race.json").read_text()


def test_only_the_whole_race_is_written_into_docs(out, monkeypatch):
    """Everything asked for by default, and nothing missing."""
    monkeypatch.chdir(out.parent)
    monkeypatch.setattr(race, "ARMS", {arm: race.ARMS[arm] for arm in ("influence", "fixed")})
    monkeypatch.setitem(race.PLANS, "race", dict(iterations=2, seeds=2, out=""))
    assert go(Path("runs/race"), arms="influence", seeds=2, iterations=2) == 0
    assert race.main(["--summary"]) == 0                                        # one arm is missing
    assert not (race.DOCS / "race.json").exists() and Path("runs/race/race.json").exists()
    assert race.main([]) == 0
    assert json.loads((race.DOCS / "race.json").read_text())["runs"] == "4 of 4"


def test_figures_are_drawn_from_the_results_alone(out):
    pytest.importorskip("matplotlib")
    go(out, arms="influence,fixed,cosine", seeds=2)
    script = str(race.ROOT / "docs/race_figures.py")
    drawn = subprocess.run([sys.executable, script, str(out / "race.json")], capture_output=True, text=True)
    assert drawn.returncode == 0, drawn.stderr
    for name in ("race.svg", "race.png", "race-ablations.svg", "race-ablations.png"):
        assert (out / name).stat().st_size > 5000


@pytest.mark.parametrize("flags, says", [(["--arms", "influense"], "influense"), (["--seeds", "0"], "--seeds 0"),
                                         (["--world", "tox"], "tox"), (["--summary"], "no finished run")])
def test_bad_input_is_one_line(out, capsys, flags, says):
    assert race.main([*flags, "--out", str(out)]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(said) == 1 and says in said[0] and not out.exists()
