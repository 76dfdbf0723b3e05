"""Free-form answers: what counts as equal, and what a slow, crashed or killed check turns into. With the real math-verify."""
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from verify import MAX_CHARS, Verifier

SLOW = "9^{9^{9}}"      # a number of 370 million digits, computed in one call that no Python signal interrupts

EQUAL = [   # name, answer, truth
    ("same text", "blue whale", "blue whale"),
    ("space", " blue \n whale", "blue whale"),
    ("fraction", r"\frac{1}{2}", "1/2"),
    ("decimal", "0.5", r"\frac12"),
    ("trailing zero", "3.0", "3"),
    ("thousands", "1,000", "1000"),
    ("per cent", r"50\%", "0.5"),
    ("dollars around it", "$5$", "5"),
    ("currency", r"\$18", "18"),
    ("unit", r"10 \text{ cm}", "10"),
    ("text", r"\text{blue}", "blue"),
    ("assignment", "x = 3", "3"),
    ("algebra", "x^2 + 2x + 1", "(x+1)^2"),
    ("root", r"2\sqrt{3}", r"\sqrt{12}"),
    ("set in another order", r"\{1, 2\}", r"\{2, 1\}"),
    ("an interval for a relation", "(1, 2)", "1 < x < 2"),
]

DIFFERENT = [
    ("number", "7", "8"),
    ("sign", "-1", "1"),
    ("word", "red", "blue"),
    ("a relation for an interval: the order matters", "1 < x < 2", "(1, 2)"),
    ("no box", None, "3"),
    ("empty", "", "3"),
    ("empty truth", "3", ""),
    ("not closed", "}{", "2"),
    ("a sentence", "I do not know", "5"),
    ("half a surrogate pair", "\ud800", "5"),
    ("unreadable nesting", r"\frac{" * 100, "2"),
    ("too long to be an answer", "1+" * MAX_CHARS + "1", str(2 * MAX_CHARS + 1)),
    ("a megabyte of braces", "{" * 500_000 + "}" * 500_000, "2"),
]


@pytest.fixture(scope="module")
def verifier():
    with Verifier(seconds=20) as verifier:    # generous: a busy machine is no reason for a failing test
        yield verifier


@pytest.mark.parametrize("answer, truth", [pytest.param(*row[1:], id=row[0]) for row in EQUAL])
def test_equal(verifier, answer, truth):
    assert verifier.check([(answer, truth)]) == [True]


@pytest.mark.parametrize("answer, truth", [pytest.param(*row[1:], id=row[0]) for row in DIFFERENT])
def test_different(verifier, answer, truth):
    assert verifier.check([(answer, truth)]) == [False]


def test_a_verdict_per_pair_in_order(verifier):
    assert verifier.check([("1", "2"), ("1/2", "0.5"), (None, "3"), ("1", "2"), ("4", "4")]) == [False, True, False, False, True]
    assert verifier.check([]) == []


def test_no_process_is_started_where_text_decides():
    with Verifier() as verifier:
        assert verifier.check([("4", " 4"), (None, "4"), ("", "4"), ("1" * (MAX_CHARS + 1), "4")]) == [True, False, False, False]
        assert verifier.process is None


def test_a_slow_check_is_unknown_not_wrong_and_the_next_one_works():
    with Verifier(seconds=1) as verifier:
        start = time.perf_counter()
        assert verifier.check([(SLOW, "3"), ("1/2", "0.5"), (SLOW, "3")]) == [None, True, None]
        assert (verifier.timeouts, verifier.crashes) == (1, 0)      # the same pair is asked once
        assert time.perf_counter() - start < 15


def test_a_worker_killed_in_the_middle_is_a_crash_and_is_replaced():
    with Verifier(seconds=20) as verifier:
        verifier.start()
        threading.Timer(0.5, verifier.process.kill).start()         # SIGKILL while it computes
        assert verifier.check([(SLOW, "3"), ("1/2", "0.5")]) == [None, True]
        assert (verifier.timeouts, verifier.crashes) == (0, 1)


def test_a_worker_killed_between_two_answers_costs_nothing(verifier):
    assert verifier.check([("1/2", "0.5")]) == [True]
    verifier.process.kill()
    verifier.process.wait()
    assert verifier.check([("1/4", "0.25")]) == [True]
    assert verifier.crashes == 0


def test_an_interrupted_check_leaves_no_reply_behind_for_the_next_one():
    with Verifier(seconds=20) as verifier:
        verifier.start()
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            verifier.check([(SLOW, "3")])
        assert verifier.process is None and verifier.check([("1", "2"), ("1/2", "0.5")]) == [False, True]


def test_the_worker_ends_with_its_script_even_if_nobody_closes_it():
    script = "import os; from verify import Verifier; v = Verifier(); v.start(); print(v.process.pid, flush=True); os._exit(1)"
    root = Path(__file__).resolve().parent.parent
    pid = int(subprocess.run([sys.executable, "-c", script], cwd=root, stdout=subprocess.PIPE, text=True).stdout)
    give_up = time.perf_counter() + 10
    while is_running(pid) and time.perf_counter() < give_up:
        time.sleep(0.05)
    assert not is_running(pid)


def is_running(pid):
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], stdout=subprocess.PIPE, text=True).stdout.strip()
    return state != "" and not state.startswith("Z")    # Z: ended, but nobody has asked for its exit code


def test_a_worker_that_cannot_start_says_what_to_try(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="import math_verify"):
        Verifier().check([("1/2", "0.5")])
