"""The logging guests: never imported unasked, their absence is one line, and a resumed run is in
their log once.
"""
import glob
import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import config
import train
from data import InputError
from engine import flags, ranks, trackers

# runs and processes of their own
pytestmark = pytest.mark.slow

ROOT = Path(train.__file__).resolve().parent


def line_of(t):
    """A line of metrics.jsonl."""
    return {"iteration": t, "dev_accuracy": t / 10, "test_accuracy": None,
            "tokens_sampled": 100 * t, "seconds": {"dev": 1 / t, "write": 2.0}}


LINES = [line_of(t) for t in range(1, 5)]


BLOCKED = """
import sys
module, *words = sys.argv[1:]
sys.modules[module] = None
import train
from engine import flags
sys.exit(train.main(flags.parse(words)))
"""


@pytest.mark.parametrize("track", ["tensorboard", "wandb"])
def test_without_the_package_one_line_says_so_and_nothing_is_written(track, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, trackers.NEEDS[track], None)
    says = f"--track {track}: cannot be imported .*pip install {track}"
    with pytest.raises(InputError, match=says):
        trackers.require(track)

    run = tmp_path / "run"
    words = [trackers.NEEDS[track], "--track", track, "--run", run]
    ended = subprocess.run([sys.executable, "-c", BLOCKED, *words], cwd=ROOT, capture_output=True,
                           text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: --track {track}")
    assert not run.exists()


def test_without_track_neither_is_imported():
    code = ("import sys, train; from engine import trackers; trackers.require('none'); "
            "sys.exit('wandb' in sys.modules or 'tensorboard' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_track_may_be_set_beside_resume(tmp_path):
    flags.parse(["--run", str(tmp_path)]).save(tmp_path / "config.json")
    assert flags.parse(["--resume", str(tmp_path), "--track", "wandb"]).track == "wandb"


# ---------------------------------------------------------------- what is logged, with two lists

@pytest.fixture
def seen(monkeypatch):
    """A stand-in for tensorboard: seen[0] holds (t, values) in the order of the calls since the
    start, seen[1] the close.
    """
    calls, closed = [], []

    def tensorboard(cfg):
        calls.clear()
        return lambda values, t: calls.append((t, values)), lambda: closed.append(True)

    monkeypatch.setattr(trackers, "tensorboard", tensorboard)
    monkeypatch.setitem(trackers.NEEDS, "tensorboard", "json")
    return calls, closed


def written(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_the_lines_in_the_file_come_first_and_every_number_is_logged(seen, tmp_path):
    def at(t):
        return {"dev_accuracy": t / 10, "tokens_sampled": 100 * t, "seconds/dev": 1 / t,
                "seconds/write": 2.0}

    file = written(tmp_path / "metrics.jsonl", LINES[:2])
    log, _ = trackers.start(config.Config(track="tensorboard"), file)
    log(LINES[2])
    assert seen[0] == [(t, at(t)) for t in (1, 2, 3)]


def test_only_the_main_rank_tracks(seen, tmp_path, monkeypatch):
    monkeypatch.setattr(ranks, "is_main", lambda: False)
    file = written(tmp_path / "metrics.jsonl", LINES[:2])
    log, close = trackers.start(config.Config(track="tensorboard"), file)
    log(LINES[2])
    close()
    assert seen == ([], [])


@pytest.mark.skipif(not (ROOT / "toy/anchor/config.json").exists(),
                    reason="the toy anchor has not been made yet")
def test_a_run_and_its_resume_are_in_the_log_once(seen, tmp_path):
    dev = tmp_path / "dev.json"
    dev.write_text(json.dumps(json.loads((ROOT / "toy/dev.json").read_text())[:8]))
    sizes = dict(docs_per_step=1, questions_per_doc=2, answers_per_question=2, minibatch_rows=4,
                 iterations=2, show_every=0, device="cpu")
    own = {"dev": str(dev), "test": None, "run": str(tmp_path / "run"), "track": "tensorboard"}
    run = train.train(flags.from_flags(sizes | own))
    assert [t for t, _ in seen[0]] == [1, 2] and len(seen[1]) == 1

    train.train(flags.from_flags({"resume": run, "iterations": 3}))
    text = (tmp_path / "run/metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert seen[0] == [(t, trackers.numbers(line)) for t, line in zip((1, 2, 3), lines)]
    assert len(seen[1]) == 2


# ---------------------------------------------------------------- the packages themselves

def killed_and_resumed(track, tmp_path):
    """Three lines are logged, the checkpoint was after two: the resumed run logs the third again,
    and a fourth.
    """
    cfg = config.Config(track=track, run=str(tmp_path / "run"))
    metrics = tmp_path / "metrics.jsonl"
    log, close = trackers.start(cfg, str(metrics))
    for line in LINES[:3]:
        log(line)
    close()

    log, close = trackers.start(replace(cfg, resume=cfg.run), written(metrics, LINES[:2]))
    for line in LINES[2:]:
        log(line)
    close()
    return cfg.run


def test_tensorboard_reads_back_every_step_once(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = killed_and_resumed("tensorboard", tmp_path) + "/tensorboard"
    events = reader.EventAccumulator(folder).Reload()
    assert set(events.Tags()["scalars"]) == set(trackers.numbers(LINES[0]))
    for name in trackers.numbers(LINES[0]):
        values = [trackers.numbers(line)[name] for line in LINES]
        points = events.Scalars(name)
        assert [point.step for point in points] == [line["iteration"] for line in LINES]
        assert [point.value for point in points] == pytest.approx(values, rel=1e-7)


def wandb_history(path):
    """A .wandb file, LevelDB's log format after 7 bytes -> [{key: value}] of its history."""
    from wandb.proto.wandb_internal_pb2 import Record
    raw, at, part, rows = Path(path).read_bytes(), 7, b"", []
    while at + 7 <= len(raw):
        # no header fits into the rest of this block
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = struct.unpack("<HB", raw[at + 4:at + 7])
        part += raw[at + 7:at + 7 + size]
        at += 7 + size
        # a whole record, or its last part
        if kind in (1, 4):
            row = {}
            for item in Record.FromString(part).history.item:
                row[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
            rows += [row] if row else []
            part = b""
    return rows


def test_wandb_reads_back_every_step_once_and_keeps_its_id(tmp_path):
    pytest.importorskip("wandb")
    folder, = glob.glob(killed_and_resumed("wandb", tmp_path) + "/wandb/offline-run-*")
    rows = wandb_history(f"{folder}/run-{folder.rsplit('-', 1)[1]}.wandb")
    assert [row["_step"] for row in rows] == [1, 2, 3, 4]
    for row, line in zip(rows, LINES):
        own = {name: x for name, x in row.items() if name[0] != "_"}
        assert own == trackers.numbers(line)
