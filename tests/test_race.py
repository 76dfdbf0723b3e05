"""The race runs what it says, once, whatever stops it on the way, and goes on from its JSON file
alone; its statistics are those of a textbook."""
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import config
from data import InputError
from engine import flags, presets
from studies import figures, race, runs, standings
from studies.records import Records, read_json, record_of

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

for made in ("checkpoint", "generator"):
    os.makedirs(os.path.join(cfg.run, made), exist_ok=True)
settled.save(os.path.join(cfg.run, "config.json"))
done = len(open(path).readlines()) if cfg.resume and os.path.exists(path) else 0
note(f"{{'resumed' if cfg.resume else 'new'}} {{done}} {{time.time()}}")
good = {{"spice": 0.6, "fixed": 0.5}}.get(cfg.reward, 0.8) + 0.01 * (cfg.seed % 7)
spoilt = os.path.join({folder!r}, "spice-fails")
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
            tokens_sampled=100,
            tokens_trained=50,
            tokens_tested=20,
            seconds=dict(answer=1.0, evaluate=1.0),
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
    (folder / "train.py").write_text(FAKE.format(root=str(config.ROOT), wait=wait,
                                                 folder=str(folder)))
    put(runs, "TRAIN", folder / "train.py")
    put(race, "DOCS", folder / "docs")
    put(runs, "POLL_SECONDS", 0.02)
    put(race, "draw_figures", lambda path: None)


def go(out, *flags, arms="influence,fixed", seeds=2, iterations=6):
    return race.main([*flags, "--arms", arms, "--seeds", str(seeds),
                      "--iterations", str(iterations), "--out", str(out)])


def notes(out, name):
    """What the fake run wrote: its starts, resumes and interruptions, without the times."""
    arm, seed = name.split("-seed")
    path = out / "race" / arm / seed / "notes"
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    return [" ".join(line.split()[:2]) for line in lines if not line.startswith("end")]


def results(out):
    return json.loads((out / "race.json").read_text())


# ---------------------------------------------------------------- which runs

def args_of(*flags):
    return race.read_flags(list(flags))


RATES = {arm: "1.5e-4" if race.moves(arm) else None for arm in race.ARMS}


def jobs_of(*flags):
    return race.seed_by_seed(race.race_jobs(args_of(*flags), RATES))


def searched_jobs(args):
    found = []
    for arm in filter(race.moves, args.arms):
        for jobs in race.search_jobs(arm, race.LADDER[race.FIRST_RATES], args).values():
            found += jobs
    return found


def arm_of(job):
    return job.key.split("/")[1]


def test_the_seeds_that_are_reported_are_not_those_of_the_search(out):
    reported = {job.flags["seed"] for job in jobs_of()}
    searched = {job.flags["seed"] for job in searched_jobs(args_of())}
    assert reported == set(range(1000, 1008)) and searched == {100, 101, 102}
    teacher = race.teacher_job(args_of(), "1.5e-4")
    assert teacher.flags["seed"] in searched and teacher.flags["reward"] == "influence"


def test_the_race_has_eight_seeds_of_fourteen_arms(out):
    assert Counter(map(arm_of, jobs_of())) == dict.fromkeys(race.ARMS, 8)
    assert len(race.ARMS) == 14


def test_all_arms_of_a_seed_come_before_the_next_seed(out):
    jobs = jobs_of()
    seeds = [job.flags["seed"] for job in jobs]
    assert seeds == sorted(seeds)
    assert {arm_of(job) for job in jobs[:len(race.ARMS)]} == set(race.ARMS)


def test_every_arm_asks_train_for_what_its_name_says(out, monkeypatch):
    """train.py's own reading of the flags; two arms with the same configuration would be the same
    arm twice."""
    monkeypatch.chdir(out.parent)
    Path("runs/race/teacher/generator").mkdir(parents=True)
    cfgs = {arm_of(job): flags.from_flags({**job.flags, "run": "x"}) for job in jobs_of()}
    assert [cfgs[arm].reward for arm in race.REWARDS] == list(race.REWARDS)
    assert cfgs["cosine"].similarity == "cosine" and cfgs["dev_only"].train_on == "dev"
    assert cfgs["mixed"].reward == "influence + 0.5 spice"
    assert cfgs["frozen"].generator_model.endswith("runs/race/teacher/generator")
    for arm in ("group_std", "batch_std", "none"):
        assert cfgs[arm].advantage == arm

    what = {(cfg.reward, cfg.similarity, cfg.advantage, cfg.train_on, cfg.generator_model)
            for cfg in cfgs.values()}
    assert len(what) == len(race.ARMS)
    budget = {(cfg.iterations, cfg.drafts_per_step, cfg.answers_per_question, cfg.solver_lr)
              for cfg in cfgs.values()}
    assert len(budget) == 1


def test_every_arm_that_moves_a_generator_is_searched_alike(out):
    searched = {}
    for job in searched_jobs(args_of()):
        searched.setdefault(arm_of(job), []).append((job.flags["generator_lr"],
                                                     job.flags["seed"]))
    assert set(searched) == set(race.ARMS) - {"fixed", "frozen", "dev_only"}
    for tried in searched.values():
        assert len(tried) == len(set(tried)) == 15
        assert tried == searched["influence"]


# ---------------------------------------------------------------- is it the run that was asked for?

def real_race(tmp_path, monkeypatch, *flags):
    """One iteration of the fixed generator by the real train.py, on less of the world."""
    tiny = {"reward": "fixed", "docs_per_step": 2, "questions_per_doc": 4, "minibatch_rows": 16}
    for name in ("dev", "test"):
        questions = json.loads((config.ROOT / presets.TOY[name]).read_text())
        tiny[name] = str(tmp_path / f"{name}.json")
        Path(tiny[name]).write_text(json.dumps(questions[:16]))
    monkeypatch.setitem(race.ARMS, "fixed", tiny)
    monkeypatch.setattr(runs, "POLL_SECONDS", 0.1)
    return go(tmp_path / "out", *flags, arms="fixed", seeds=1, iterations=1)


def test_a_real_run_is_recorded_and_its_record_alone_is_enough(tmp_path, monkeypatch, capsys):
    assert real_race(tmp_path, monkeypatch) == 0
    found = results(tmp_path / "out")
    assert found["runs_done"] == "1 of 1" and list(found["arms"]) == ["fixed"]
    record = found["runs"]["race/fixed/1000"]
    line = json.loads((tmp_path / "out/race/fixed/1000/metrics.jsonl").read_text())
    assert record["test_accuracy"][-1] == line["test_accuracy"]
    assert record["tokens"][-1] == (line["tokens_sampled"] + line["tokens_trained"]
                                    - line["tokens_tested"]) > 0
    assert line["tokens_tested"] > 0 and record["moved"] == 0
    assert record["flags"]["docs_per_step"] == 2 and record["commit"] == runs.frozen.commit()
    capsys.readouterr()

    # another machine: the file, and no run folder
    for path in list((tmp_path / "out").iterdir()):
        if path.name != "race.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert real_race(tmp_path, monkeypatch) == 0
    assert "1 finished, 0 to do" in capsys.readouterr().out
    assert not (tmp_path / "out/race").exists()
    again = results(tmp_path / "out")
    assert again["runs"] == found["runs"] and again["arms"] == found["arms"]


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("arm", ["fixed", "influence"])
def test_a_race_of_one_arm_finishes(out, arm, jobs):
    assert go(out, "--jobs", jobs, arms=arm, seeds=1, iterations=1) == 0
    assert results(out)["runs_done"] == "1 of 1"
    assert go(out, arms=arm, seeds=1, iterations=1) == 0
    assert notes(out, f"{arm}-seed1000") == ["new 0"]


def job_of(out, arm, **changes):
    args = args_of("--arms", arm, "--iterations", "6", "--out", str(out))
    return race.make_job(arm, 1000, None, args, f"race/{arm}/1000", 6, **changes)


LEFT_TO_THE_RUN = [name for name, choices in config.CHOICES.items() if "auto" in choices]


@pytest.mark.parametrize("name", LEFT_TO_THE_RUN)
def test_what_was_left_to_the_run_may_be_settled_in_any_way(out, name):
    go(out, arms="fixed", seeds=1)
    path = out / "race/fixed/1000/config.json"
    for settled in config.CHOICES[name]:
        replace(flags.load(path), **{name: settled}).save(path)
        assert runs.state(job_of(out, "fixed"), out) == "finished"


def test_what_was_asked_for_outright_may_not(out):
    go(out, arms="fixed", seeds=1)
    assert runs.state(job_of(out, "fixed", dtype="bf16"), out) == "finished"
    assert "dtype bf16, not fp32" in runs.state(job_of(out, "fixed", dtype="fp32"), out)


# ---------------------------------------------------------------- running them

def forget(out, key):
    """The run is finished, and the file does not know."""
    found = results(out)
    del found["runs"][key]
    (out / "race.json").write_text(json.dumps(found))


def test_a_finished_run_is_skipped_and_an_interrupted_one_goes_on(out, capsys):
    assert go(out) == 0
    forget(out, "race/influence/1001")
    metrics = out / "race/influence/1001/metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:4]))
    before = (out / "race/fixed/1000/metrics.jsonl").read_text()
    capsys.readouterr()
    assert go(out) == 0
    assert "3 finished, 1 to do" in capsys.readouterr().out
    assert notes(out, "influence-seed1001") == ["new 0", "resumed 4"]
    assert notes(out, "fixed-seed1000") == ["new 0"]
    assert (out / "race/fixed/1000/metrics.jsonl").read_text() == before


def test_a_run_that_ended_unrecorded_is_recorded_and_not_repeated(out, capsys):
    go(out)
    before = results(out)["runs"]
    forget(out, "race/fixed/1001")
    capsys.readouterr()
    assert go(out) == 0
    assert "4 finished, 0 to do" in capsys.readouterr().out
    assert results(out)["runs"] == before


def test_the_file_alone_says_what_is_left(out, capsys):
    go(out, arms="influence,fixed", seeds=1)
    shutil.copy(out / "race.json", out.parent / "kept.json")
    shutil.rmtree(out)
    assert go(out, "--file", str(out.parent / "kept.json"), arms="influence,fixed", seeds=2) == 0
    assert "2 finished, 2 to do" in capsys.readouterr().out
    assert notes(out, "fixed-seed1000") == [] and notes(out, "fixed-seed1001") == ["new 0"]
    found = json.loads((out.parent / "kept.json").read_text())
    assert found["runs_done"] == "4 of 4" and found["arms"]["fixed"]["final"]["n"] == 2


def test_a_record_of_other_settings_is_never_taken_for_this_run(out, capsys):
    go(out, arms="fixed", seeds=1)
    assert go(out, arms="fixed", seeds=1, iterations=7) == 2
    assert "race/fixed/1000 was run with" in capsys.readouterr().err


def test_a_line_that_was_cut_short_does_not_make_a_run_finished(out):
    go(out, arms="fixed", seeds=1)
    assert runs.state(job_of(out, "fixed"), out) == "finished"
    metrics = out / "race/fixed/1000/metrics.jsonl"
    metrics.write_text(metrics.read_text()[:-20])
    assert runs.state(job_of(out, "fixed"), out) == "begun"


def test_a_run_that_was_stopped_before_its_models_were_saved_is_not_finished(out):
    """Its last line is written before them; then its checkpoint is there and its generator is not.
    """
    go(out, arms="fixed", seeds=1)
    run = out / "race/fixed/1000"
    (run / "checkpoint").mkdir(exist_ok=True)
    shutil.rmtree(run / "generator", ignore_errors=True)
    assert runs.state(job_of(out, "fixed"), out) == "begun"
    (run / "generator").mkdir()
    assert runs.state(job_of(out, "fixed"), out) == "finished"


def test_another_run_in_the_folder_is_left_alone_and_reported(out, capsys):
    go(out, arms="fixed", seeds=1)
    before = (out / "race/fixed/1000/metrics.jsonl").read_bytes()
    (out / "race.json").unlink()
    assert go(out, arms="influence,fixed", seeds=1, iterations=7) == 1
    assert "iterations 6, not 7" in capsys.readouterr().out
    assert (out / "race/fixed/1000/metrics.jsonl").read_bytes() == before
    assert list(results(out)["arms"]) == ["influence"]


def test_a_run_that_fails_is_reported_and_does_not_stop_the_others(out, capsys):
    (out.parent / "spice-fails").write_text("")
    assert go(out, arms="spice,influence,fixed") == 1
    said = capsys.readouterr()
    assert "error: spice does not work" in said.out and "race/spice/1001" in said.err
    assert results(out)["runs_done"] == "4 of 6"
    (out.parent / "spice-fails").unlink()
    assert go(out, arms="spice,influence,fixed") == 0
    assert notes(out, "spice-seed1000") == ["new 0", "resumed 0"]


@pytest.mark.parametrize("keep", [False, True])
def test_the_checkpoints_of_a_finished_run_stay_only_with_keep(out, keep):
    go(out, *["--keep"] * keep, arms="fixed", seeds=1)
    assert (out / "race/fixed/1000/checkpoint").exists() == keep
    assert (out / "race/fixed/1000/metrics.jsonl").exists()


def test_the_generator_that_writes_for_the_frozen_arm_stays_and_is_made_again_where_it_is_lost(out):
    assert go(out, arms="frozen", seeds=1) == 0
    assert (out / "teacher/generator").exists() and not (out / "teacher/checkpoint").exists()
    shutil.rmtree(out / "teacher")
    go(out, arms="frozen", seeds=1)
    assert not (out / "teacher").exists()
    go(out, arms="frozen", seeds=2)
    assert (out / "teacher/generator").exists()
    # its logs would pass for a finished run
    shutil.rmtree(out / "teacher/generator")
    assert go(out, arms="frozen", seeds=3) == 0
    assert (out / "teacher/generator").exists()


def test_what_another_study_wrote_is_not_written_over(tmp_path):
    path = tmp_path / "race.json"
    mine, other = Records(path), Records(path)
    mine.save(rates={"influence": 1})
    with pytest.raises(InputError, match="something else has written it"):
        other.save(rates={})
    assert json.loads(path.read_text())["rates"] == {"influence": 1}
    Records(path).save(rates={})


@pytest.mark.parametrize("cores, asked, at_once", [(2, 9, 2), (2, 1, 1), (1, 2, 1)])
def test_never_more_runs_at_a_time_than_cores_and_jobs(
        tmp_path, monkeypatch, cores, asked, at_once):
    pretend(tmp_path, monkeypatch.setattr, wait=0.3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    monkeypatch.setattr(Records, "seconds_per_iteration", lambda self: [1.0])
    go(tmp_path / "out", "--jobs", str(asked), seeds=2, iterations=2)
    times = []
    for path in tmp_path.glob("out/race/*/*/notes"):
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
        sys.exit(test_race.go(folder / "out", "--jobs", "1"))
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
    metrics = out / "race/influence/1000/metrics.jsonl"
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
    path = tmp_path / "out/race/influence/1000/notes"
    wait_for(path.exists)
    # its run lives on
    process.kill()
    process.wait()

    pretend(tmp_path, monkeypatch.setattr)
    assert go(tmp_path / "out") == 2
    assert "still at work" in capsys.readouterr().err
    wait_for(lambda: "end" in path.read_text())


# ---------------------------------------------------------------- frozen code

def repository(tmp_path, monkeypatch):
    """A history of one commit on main."""
    root = tmp_path / "house"
    (root / "engine").mkdir(parents=True)
    (root / "train.py").write_text("one = 1\n")
    monkeypatch.setattr(config, "ROOT", root)
    subprocess.run(["git", "init", "-q", "-b", "main", str(root)], check=True)
    commit_all("first")
    return root


def commit_all(message):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["add", "-A"], [*who, "commit", "-qm", message]):
        subprocess.run(["git", "-C", str(config.ROOT), *words], check=True)


def refused(recorded=None):
    with pytest.raises(race.InputError) as error:
        race.frozen.freeze(recorded, "race.json")
    return str(error.value)


def test_reported_runs_come_from_one_commit_of_main_and_no_other_code(tmp_path, monkeypatch):
    root = repository(tmp_path, monkeypatch)
    first = race.frozen.freeze(None, "race.json")
    assert first == race.frozen.commit() and len(first) == 10

    (root / "docs").mkdir()
    (root / "docs/race.json").write_text("results are no code")
    commit_all("results")
    assert race.frozen.freeze(first, "race.json") == first

    (root / "engine/new.py").write_text("a file that git does not know")
    assert refused(first).startswith("engine/new.py: differs from commit")
    assert race.frozen.commit().endswith(", changed")
    commit_all("more code")
    assert refused(first).startswith(f"engine/new.py: has changed since {first}")

    subprocess.run(["git", "-C", str(root), "checkout", "-qb", "aside"], check=True)
    (root / "train.py").write_text("two = 2\n")
    commit_all("aside")
    assert "not in the history of main" in refused()


def test_the_reported_race_is_refused_where_code_has_changed(out, tmp_path, monkeypatch, capsys):
    root = repository(tmp_path, monkeypatch)
    (root / "train.py").write_text("three = 3\n")
    assert race.main(["--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "train.py: differs from commit" in said and len(said.splitlines()) == 1
    assert not (race.DOCS / "race.json").exists()


# ---------------------------------------------------------------- the search

def test_the_search_chooses_by_the_dev_questions_widens_its_grid_and_the_race_obeys(out, capsys):
    """The fake's dev accuracy rises with the learning rate, its test accuracy falls: the last rate
    of the ladder wins."""
    assert go(out, "--search_seeds", "2", arms="influence,fixed", seeds=1, iterations=3) == 0
    found = results(out)
    searched = found["search"]["influence"]
    assert searched["generator_lr"] == race.LADDER[-1] and searched["at_the_edge"]
    assert list(searched["dev_accuracy"]) == list(race.LADDER[2:])
    assert searched["dev_accuracy"]["5e-5"] == pytest.approx(0.505)
    assert found["arms"]["influence"]["generator_lr"] == race.LADDER[-1]
    assert found["arms"]["fixed"]["generator_lr"] is None
    assert sum(key.startswith("search/") for key in found["runs"]) == 2 * 7
    said = capsys.readouterr().out
    assert "1.35e-3 is best and lies at the edge, so 4e-3 is tried" in said

    before = found["runs"]
    shutil.rmtree(out / "search")
    # of other arms than these the search stays known
    assert go(out, "--search_seeds", "2", arms="fixed", seeds=1, iterations=3) == 0
    assert results(out)["search"] == found["search"]
    assert go(out, "--search_seeds", "2", arms="influence,fixed", seeds=1, iterations=3) == 0
    assert results(out)["runs"] == before


def test_without_a_search_the_default_rate_is_said(out, capsys):
    go(out, arms="spice,fixed", seeds=1, iterations=1)
    said = [line for line in capsys.readouterr().out.splitlines() if "not searched" in line]
    assert [line.split(":")[0] for line in said] == ["spice"]
    assert results(out)["arms"]["spice"]["generator_lr"] == race.DEFAULT_RATE


def test_an_unfinished_search_lets_nobody_race(out, capsys):
    assert go(out, "--search_seeds", "1", "--summary", arms="influence") == 2
    assert "its search is not finished" in capsys.readouterr().err


# ---------------------------------------------------------------- rows again, from scratch

def test_a_check_says_which_rows_come_out(out, capsys):
    go(out, arms="influence,fixed", seeds=3)
    capsys.readouterr()
    assert go(out, "--check", "1", arms="fixed", seeds=3) == 0
    assert "fixed: 37.3 on 3 seeds" in (said := capsys.readouterr().out), said
    assert "within the interval; 3 of 3 seeds give the very same number" in said

    found = results(out)
    row = found["arms"]["influence"]["final"]
    row["low"], row["high"] = 0.1, 0.2
    (out / "race.json").write_text(json.dumps(found))
    shutil.rmtree(next(out.parent.glob("out-check-*")))
    go(out, "--check", "1", arms="influence", seeds=3)
    assert "NOT within the interval" in capsys.readouterr().out
    checks = results(out)["checks"]
    assert [list(x["rows"]) for x in checks] == [["fixed"], ["influence"]]
    assert [x["rows"][arm]["within"] for x, arm in zip(checks, ("fixed", "influence"))] == [1, 0]

    go(out, "--summary", arms="influence,fixed", seeds=3)
    told = (out / "race-tables.md").read_text().split("Rows run again from scratch:")[1]
    assert "influence: 67.3 on 3 seeds, recorded 67.3 [10.0, 20.0]: NOT within" in told, told


# ---------------------------------------------------------------- statistics

def test_the_interval_of_three_numbers_is_that_of_a_hand():
    """std 0.1, t = 4.302653 at two degrees of freedom: 4.302653 x 0.1 / sqrt(3) = 0.248414."""
    x = standings.t_interval([0.5, 0.6, 0.7])
    half = 0.248414
    expected = (0.6, 0.6 - half, 0.6 + half)
    assert (x["mean"], x["low"], x["high"]) == pytest.approx(expected, abs=1e-5)


def test_one_number_has_no_interval():
    assert standings.t_interval([0.5]) == {"mean": 0.5, "low": None, "high": None, "n": 1}


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
                tokens_sampled=10, tokens_trained=5, seconds={"answer": 1.8})


def race_of(finals, ablations=()):
    """{arm: test accuracy by seed} -> standings of one-iteration runs."""
    arms, records = {}, {}
    for arm, values in finals.items():
        keys = {1000 + i: f"{arm}/{i}" for i in range(len(values))}
        arms[arm] = {"ablation": arm in ablations, "generator_lr": None, "keys": keys}
        for key, value in zip(keys.values(), values):
            records[key] = record_of(runs.Job(key, {}), [line_of(value)], "abc")
    return standings.standings(arms, records)


def test_holm_of_four_p_values_is_that_of_a_hand():
    """.005 x 4, .01 x 3, then .03 x 2 and .04 x 1, which may not fall below .06."""
    found = standings.holm([0.04, 0.005, 0.03, 0.01])
    assert found == pytest.approx([0.06, 0.02, 0.06, 0.03])


def record(accuracy, tokens, seconds):
    return {"test_accuracy": accuracy, "tokens": tokens, "seconds": seconds}


def test_the_price_of_75_percent_lies_on_the_line_between_two_evaluations():
    """.70 -> .80: half of the way. The other seed never gets there."""
    costs = standings.costs_of({
        1: record([0.4, 0.7, 0.8], [0, 100, 300], [0, 10.0, 20.0]),
        2: record([0.4, 0.5, 0.6], [0, 100, 300], [0, 10.0, 20.0])})
    assert costs == {1: (pytest.approx(200), pytest.approx(15)), 2: None}


def test_a_ratio_of_costs_is_the_geometric_mean_over_seeds_that_both_reach():
    """2 and 8 times: 4; the third seed has no partner."""
    mine = {1: (20.0, 1.0), 2: (80.0, 1.0), 3: (99.0, 1.0)}
    influence = {1: (10.0, 1.0), 2: (10.0, 1.0), 3: None}
    found = standings.cost(mine, influence, "spice")
    assert found["tokens_ratio"]["mean"] == pytest.approx(4) and found["tokens_ratio"]["n"] == 2
    # logs .693 and 2.079: 1.386 +- 12.706 x .980 / sqrt(2)
    assert math.log(found["tokens_ratio"]["high"]) == pytest.approx(1.3863 + 8.8070, abs=1e-3)
    assert found["reached"] == 3 and found["of"] == 3
    assert standings.cost(mine, influence, "influence")["tokens_ratio"]["mean"] is None


def test_what_a_whole_run_took_and_where_it_was_at_the_tokens_of_the_fixed_generator():
    """Fixed takes 150 and 350 tokens: halfway to the second evaluation, and more than there are."""
    of_fixed = {1: record([0, 0, 0], [0, 100, 150], [0, 1, 2]),
                2: record([0, 0, 0], [0, 100, 350], [0, 1, 2])}
    mine = {1: record([0.4, 0.6, 0.8], [0, 100, 200], [0, 10.0, 20.0]) | {"moved": 2.0},
            2: record([0.4, 0.5, 0.6], [0, 100, 300], [0, 10.0, 30.0]) | {"moved": 4.0}}
    found = standings.whole_runs(mine, of_fixed)
    assert found == {"tokens": 250, "seconds": 25, "moved": 3, "as_fixed": None}
    alone = standings.whole_runs({1: mine[1]}, of_fixed)
    assert alone["as_fixed"] == pytest.approx(0.7)
    assert standings.whole_runs(of_fixed, {})["moved"] is None


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
    curves = standings.curves(found, "influence")
    # the fake tests after every iteration
    assert found["evaluated"] == list(range(13)) and x["seeds"] == [1000, 1001]
    assert [values[0] for values in curves["test_accuracy"]] == [0.4, 0.4]
    assert len(curves["key_accuracy"][0]) == 12

    of_seeds = 0.01 * (1000 % 7 + 1001 % 7) / 2
    assert x["final"]["mean"] == pytest.approx(0.8 + of_seeds - 1000 * 1.5e-4)
    assert x["hours"] == pytest.approx(48 / 3600, abs=1e-3)
    run = found["runs"]["race/influence/1000"]
    assert run["tokens"][:3] == [0, 130, 260] and run["seconds"][-1] == 12
    assert found["commits"] != ["unknown"] or not (config.ROOT / ".git").exists()
    assert x["late"]["target_share"] is None
    assert "NaN" not in (out / "race.json").read_text()


def test_a_page_is_filled_by_the_reported_race_alone(out, monkeypatch, capsys):
    """And what stands around the place stays."""
    page = race.DOCS / "race.md"
    page.write_text("# Race\n\n<!-- results -->\nNothing yet\n<!-- end of results -->\n"
                    "\nThe end.\n")
    monkeypatch.setattr(race, "ARMS", {arm: race.ARMS[arm] for arm in ("influence", "fixed")})
    monkeypatch.setattr(race, "ITERATIONS", {"race": 2, "search": 2, "quick": 2})
    monkeypatch.setattr(race, "LADDER", race.LADDER[:7])
    monkeypatch.setattr(race.frozen, "freeze", lambda recorded, where: recorded or "abc")
    assert go(out, arms="influence,fixed", seeds=2, iterations=2) == 0
    assert "Nothing yet" in page.read_text() and not (race.DOCS / "race.json").exists()

    monkeypatch.setattr(race, "SEEDS", 2)
    assert race.main(["--out", str(out.parent / "whole")]) == 0
    found = read_json(race.DOCS / "race.json")
    assert found["runs_done"] == "4 of 4" and found["frozen"] == "abc"
    text = page.read_text()
    assert text.startswith("# Race\n") and text.endswith("The end.\n") and "Nothing yet" not in text
    assert standings.table(found) in text and standings.whole_table(found) in text

    # some arms, or fewer seeds: another family of tests, printed and not published
    before = (race.DOCS / "race.json").read_bytes()
    for words in (["--arms", "influence"], ["--seeds", "1"]):
        capsys.readouterr()
        assert race.main(["--summary", "--out", str(out.parent / "whole"), *words]) == 0
        said = capsys.readouterr().out
        assert "| influence |" in said and "race.json stays as it is" in said
    assert (race.DOCS / "race.json").read_bytes() == before and page.read_text() == text


def test_figures_are_drawn_from_the_results_alone(out):
    pytest.importorskip("matplotlib")
    go(out, arms="influence,fixed,cosine", seeds=2)
    command = [sys.executable, "-m", "studies.figures", "race", str(out / "race.json")]
    drawn = subprocess.run(command, cwd=config.ROOT, capture_output=True, text=True)
    assert drawn.returncode == 0, drawn.stderr
    for name in ("race.svg", "race.png"):
        assert (out / name).stat().st_size > 5000


def test_the_curves_are_drawn_from_run_folders_the_same_each_time(out):
    pytest.importorskip("matplotlib")
    go(out, arms="influence,fixed", seeds=2)
    words = ["curves"]
    for name, arm in (("infuser", "influence"), ("fixed", "fixed")):
        words.append(f"{name}={out}/race/{arm}/1000,{out}/race/{arm}/1001")
    drawn = []
    for i in range(2):
        assert figures.main([*words, "--out", str(out / f"curves{i}")]) == 0
        drawn.append((out / f"curves{i}.svg").read_bytes())
    assert drawn[0] == drawn[1] and len(drawn[0]) > 5000


def test_without_matplotlib_one_line_says_so(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert figures.main(["race", "race.json"]) == 1
    assert capsys.readouterr().err.startswith("no figures: a figure needs matplotlib")


@pytest.mark.parametrize("flags, says", [
    (["--arms", "influense"], "influense"),
    (["--seeds", "0"], "--seeds 0"),
    (["--world", "tox"], "tox"),
    (["--summary", "--search_seeds", "0", "--file", "none.json"], "no finished run"),
    (["--check", "2", "--quick"], "holds no race to check"),
    (["--search_seeds", "9"], "--search_seeds 9"),
])
def test_bad_input_is_one_line(out, capsys, flags, says):
    assert race.main([*flags, "--out", str(out)]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(said) == 1 and says in said[0] and not out.exists()
