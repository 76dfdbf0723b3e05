"""What a run says: columns that fit, a header on every screen, last lines that say what to do next.
"""
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from config import ROOT, Config
from engine import log

LINE = {
    "iteration": 45, "dev_accuracy": 0.42421, "test_accuracy": 0.8625, "test_standard_error": 0.017,
    "valid_share": 1.0, "solved_share": 0.438, "mixed_share": None, "score_mean": -0.00074,
    "score_std": 0.039, "key_accuracy": 0.301, "target_share": 1.0, "generator_grad_norm": 12.5,
    "solver_grad_norm": None, "overlap_dev_share": 0.0, "overlap_test_share": 0.3,
    "answer_cut_share": 0.5, "verifier_timeouts": 2, "g_dev_norm": None, "invalid_reasons": {}}
ANCHOR = {"test": [0.442, 0.025], "valid": None}
NO_ANCHOR = dict.fromkeys(ANCHOR)


def test_columns_fit_in_100_and_names_stand_over_their_numbers():
    for cfg in (Config(iterations=100), Config(iterations=1000, reward="fixed")):
        cells = log.columns(LINE, cfg, 5000, 500000)
        text = "".join(cell for _, cell in cells)
        assert len(text) == len(log.header(cells)) <= 100
        end = 0
        for name, cell in cells:
            end += len(cell)
            assert log.header(cells)[:end].endswith(name)


def test_a_number_that_does_not_exist_is_a_dash_and_shares_are_percent():
    cells = dict(log.columns(LINE, Config(), 3.21, 0))
    assert cells["mixed"].strip() == cells["solver"].strip() == "-"
    assert (cells["dev"].strip(), cells["valid"].strip(), cells["keys"].strip()) == (
        "42.4",
        "100",
        "30",
    )
    assert (cells["time"].strip(), cells["left"].strip()) == ("3.2 s", "0 s")


def test_an_own_run_has_no_columns_of_the_worlds_truth():
    line = {
        key: value for key, value in LINE.items() if key not in ("key_accuracy", "target_share")
    }
    assert not {"keys", "target"} & set(dict(log.columns(line, Config(), 1, 1)))


def test_the_names_of_the_columns_come_back_every_screenful(capsys):
    quiet = SimpleNamespace(
        cfg=Config(iterations=45), started=0.0, first=0, lines_said=0, say=lambda text: print(text)
    )
    for t in range(1, 46):
        log.Log.say_line(quiet, LINE | {"iteration": t}, SimpleNamespace(total=lambda: 1.0))
    lines = capsys.readouterr().out.splitlines()
    assert [i for i, line in enumerate(lines) if "solved" in line] == [1, 23, 45]


def test_an_error_is_half_of_a_95_percent_interval():
    assert log.percent([0.442, 0.025]) == "44.2 % (+- 4.9)"
    assert log.percent([0.5, None]) == "50.0 %" and log.percent([None, None]) == "an unknown share"


def test_the_last_lines_say_the_result_and_what_to_do_next():
    lines = list(log.last_words(Config(run="runs/x", iterations=45), LINE, ANCHOR))
    assert lines[0].startswith("test accuracy: 44.2 % (+- 4.9) before, 86.2 % (+- 3.3) after 45")
    assert len(lines) <= 5 and all(len(line) <= 100 for line in lines)
    assert "--resume runs/x --iterations 90" in lines[-1]


@pytest.mark.parametrize(
    "reward, other", [("fixed", "influence"), ("influence", "fixed"), ("spice", "fixed")]
)
def test_a_run_is_not_advised_to_try_itself(reward, other):
    text = "\n".join(log.last_words(Config(run="r", reward=reward), LINE, NO_ANCHOR))
    assert f"--reward {other}" in text and f"--reward {reward}" not in text


def test_each_thing_that_is_off_is_one_sentence():
    found = list(log.warnings(LINE, Config()))
    assert [words.split()[0] for words in found] == ["no", "30%", "50%", "2"]
    assert not list(log.warnings(LINE, Config(train_on="dev", reward="fixed")))


def test_what_is_off_does_not_say_that_a_role_stood_still_when_it_moved():
    """spice pays beside influence, and RLVR problems teach the solver."""
    off = LINE | {"mixed_share": 0.0, "valid_share": 0.0}
    still = " ".join(log.warnings(off | {"generator_grad_norm": None}, Config()))
    assert "nothing was trained" in still and "the generator did not move" in still
    moved = " ".join(log.warnings(off | {"solver_grad_norm": 0.3}, Config()))
    assert "nothing was trained" not in moved and "did not move" not in moved


@pytest.mark.slow
def test_what_is_piped_holds_no_frames_of_bars_and_no_line_over_100(tmp_path):
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        "--iterations",
        "1",
        "--docs_per_step",
        "2",
        "--show_every",
        "1",
        "--threads",
        "1",
        "--output_dir",
        "run",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"COLUMNS": "80"}
    )
    assert done.returncode == 0, done.stderr
    assert "\r" not in done.stdout + done.stderr and "it/s" not in done.stderr
    said = done.stdout.splitlines()
    ours = [line for line in said if str(ROOT) not in line]
    assert max(map(len, ours)) <= 100
    assert "key_accuracy" in json.loads((tmp_path / "run/metrics.jsonl").read_text())
