r"""Free-form answers: what counts as equal, and what a slow, crashed or killed check turns into. With the real math-verify.

answer_pairs.jsonl has one pair a line: answer, truth, equal, kind. The verdicts are a mathematician's, each decided before the checker saw
the pair; held_out marks those written after its rules. Where we are wrong, known_wrong says so, and a change in either direction fails.
    a rounded number is another number; a unit may be left out, another unit is another answer; p% is p/100, and p if p > 1
    a bare list has no order, (a, b) has one; "x =" in front changes nothing; several numbers, or a sentence around one, are no answer
"""
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

import verify
from verify import MAX_CHARS, Verifier, decide

ROOT = Path(__file__).resolve().parent.parent
ROWS = [json.loads(line) for line in (ROOT / "tests" / "answer_pairs.jsonl").read_text(encoding="utf-8").splitlines()]
SLOW = "9^{9^{9}}"      # a number of 370 million digits, computed in one call that no Python signal handler interrupts

RIGHT = {   # kind: pairs right, pairs
    "aime": (24, 24), "algebra": (47, 50), "choice": (23, 23), "complex": (24, 24), "decimal": (37, 37), "degree": (19, 19),
    "empty": (20, 21), "equation": (52, 54), "fraction": (36, 36), "function": (36, 36), "inequality": (29, 29), "infinity": (14, 14),
    "integer": (34, 34), "interval": (30, 30), "matrix": (16, 16), "mixed number": (15, 15), "percent": (28, 28), "plus-minus": (20, 20),
    "ratio": (8, 9), "root": (28, 28), "scientific": (24, 24), "sentence": (29, 30), "set": (32, 33), "text": (44, 44),
    "thousands": (25, 26), "tuple": (27, 27), "unit": (54, 57), "wrapper": (34, 34),
}


@pytest.fixture(scope="module")
def verifier():
    with Verifier(seconds=20) as verifier:    # generous: a busy machine is no reason for a failing test
        yield verifier


@pytest.fixture(scope="module")
def verdicts(verifier):
    return verifier.check([(row["answer"], row["truth"]) for row in ROWS])


def test_the_pairs_we_get_wrong_are_those_marked_as_known(verdicts):
    wrong = [(row["answer"], row["truth"], verdict) for row, verdict in zip(ROWS, verdicts) if verdict is not row["equal"]]
    assert wrong == [(row["answer"], row["truth"], not row["equal"]) for row in ROWS if row.get("known_wrong")]


@pytest.mark.parametrize("kind", RIGHT)
def test_share_right(verdicts, kind):
    right = [verdict is row["equal"] for row, verdict in zip(ROWS, verdicts) if row["kind"] == kind]
    assert (sum(right), len(right)) == RIGHT[kind]


def test_wrong_pairs_called_equal_are_the_rarer_mistake(verdicts):
    outcomes = Counter((verdict, row["equal"]) for row, verdict in zip(ROWS, verdicts))
    assert outcomes == {(True, True): 381, (False, False): 428, (True, False): 4, (False, True): 9}


def test_the_table_is_whole():
    assert {row["kind"] for row in ROWS} == set(RIGHT)
    assert len({(row["answer"], row["truth"]) for row in ROWS}) == len(ROWS) >= 200
    assert min(Counter(row["equal"] for row in ROWS).values()) >= 100


def test_a_verdict_per_pair_in_order(verifier):
    assert verifier.check([("1", "2"), ("2^3", "8"), (None, "3"), ("1", "2"), ("4", "4")]) == [False, True, False, False, True]
    assert verifier.check([]) == []


def test_no_process_is_started_where_a_glance_settles_it():
    equal = [("4", " 4"), ("033", "33"), (r"\frac12", "0.5"), ("12 cm", "12"), ("Yes", r"\text{yes}")]
    different = [(None, "4"), ("", "4"), ("1" * (MAX_CHARS + 1), "4"), ("tea", "eat"), ("5 cm", "5 m")]
    with Verifier() as verifier:
        assert verifier.check(equal + different) == [True] * 5 + [False] * 5
        assert verifier.workers == []


# ---------------------------------------------------------------- nothing a model writes hangs or crashes the caller

WORTHLESS = {   # none of them is 5: not equal, or unknown where the limit strikes
    "tower": "9^{9^{9^{9}}}", "bare tower": "9^9^9^9", "small base": "0.1^{-9^{9^9}}", "factorial": "(10^{8})!",
    "factorial tower": "9!!!!!!", "binomial": r"\binom{10^9}{5 \cdot 10^8}", "long sum": r"\sum_{k=1}^{10^9} \frac{1}{k^2}",
    "exponent": "1e999999999", "nested fractions": r"\frac{" * 150 + "1" + "}{2}" * 150, "open fractions": r"\frac{" * 300,
    "nested roots": r"\sqrt{" * 280 + "2" + "}" * 280, "brackets": "(" * 900 + "1" + ")" * 900, "braces": "{" * 990 + "}" * 990,
    "left without right": r"\left(" * 300, "indices": "x_{" * 400 + "}" * 400, "digits": "1" * 1999, "sum": "1+" * 999 + "1",
    "equations": "1=" * 999 + "1", "list": "1," * 990, "bars": "|" * 1999, "dollars": "$" * 1999, "boxes": r"\boxed{" * 280,
    "open text": r"\text{" * 330, "backslashes": "\\" * 1999, "unbalanced": "}{", "emoji": "😀" * 1000, "null bytes": "\0" * 50 + "6",
    "half a surrogate pair": "\ud800", "determinant": r"\det " * 400, "a million digits": "7" * 1_000_000,
    "a megabyte of braces": "{" * 500_000 + "}" * 500_000, "a megabyte of space": " " * 1_000_000 + "6",
    "a megabyte of fractions": r"\frac{" * 170_000,
}


@pytest.fixture(scope="module")
def hasty():
    with Verifier(seconds=0.3, workers=1) as verifier:
        verifier.check([("x + 1", "1 + x")])
        yield verifier


@pytest.mark.parametrize("answer", WORTHLESS.values(), ids=WORTHLESS)
def test_worthless_input_costs_at_most_its_time_limit(hasty, answer):
    start, before = time.perf_counter(), hasty.timeouts
    verdict, = hasty.check([(answer, "5")])
    assert time.perf_counter() - start < 60                         # a third of a CPU second, on a machine that may be busy
    assert (verdict, hasty.timeouts - before) in [(False, 0), (None, 1)] and hasty.crashes == 0
    asked_again = (hasty.check([("2^4", "16"), ("2^4", "17")]) for _ in range(4))             # a fresh child on a busy core may need longer at first
    assert [True, False] in asked_again                                     # and the next ones are answered as if nothing had been


@pytest.mark.parametrize("piece", ["1=", "1,", "1 ", "a ", "x+", "{", "\\", "$", "\\ ", "**", r"\text{", r"\frac", "1,000 ", "√", "5 m "])
def test_a_glance_is_quick_whatever_it_meets(piece):
    start = time.perf_counter()
    for text in (piece * (MAX_CHARS // len(piece)), piece * (MAX_CHARS // len(piece) - 3) + "= 5"):
        decide(text, "5")
        decide("5", text)
    assert time.perf_counter() - start < 30                         # about 1; a search that grows with the cube takes minutes


# ---------------------------------------------------------------- the pool

def test_a_slow_check_is_unknown_not_wrong_and_the_next_one_works():
    with Verifier(seconds=1) as verifier:
        start = time.perf_counter()
        assert verifier.check([(SLOW, "3"), ("2^3", "8"), (SLOW, "3")]) == [None, True, None]
        assert (verifier.timeouts, verifier.crashes) == (1, 0)      # the same pair is asked once
        assert time.perf_counter() - start < 60


def test_order_and_counts_are_kept_while_several_workers_time_out():
    pairs = [(f"2^{{{k}}}", str(2 ** k + k % 2)) for k in range(12)]
    pairs[2], pairs[7] = (SLOW, "3"), (SLOW, "4")
    expected = [k % 2 == 0 for k in range(12)]
    expected[2] = expected[7] = None
    with Verifier(seconds=1, workers=3) as verifier:
        assert verifier.check(pairs) == expected
        assert (len(verifier.workers), verifier.timeouts, verifier.crashes) == (3, 2, 0)
        assert verifier.check(pairs[3:7]) == expected[3:7]


def test_no_more_workers_than_there_is_work():
    with Verifier(workers=3) as verifier:
        assert verifier.check([("2^3", "8"), ("4", "4")]) == [True, True]
        assert len(verifier.workers) == 1


def child_of(worker):
    return int(subprocess.run(["pgrep", "-P", str(worker.process.pid)], stdout=subprocess.PIPE, text=True).stdout)


@pytest.mark.parametrize("who", [lambda worker: worker.process.pid, child_of], ids=["worker", "its child"])
def test_a_process_killed_in_the_middle_is_a_crash_and_is_replaced(who):
    with Verifier(seconds=3, workers=1) as verifier:
        assert verifier.check([("2^3", "8")]) == [True]
        threading.Timer(0.5, os.kill, (who(verifier.workers[0]), signal.SIGKILL)).start()       # while it computes
        assert verifier.check([(SLOW, "3"), ("2^4", "16")]) == [None, True]
        assert (verifier.timeouts, verifier.crashes) == (0, 1)


@pytest.mark.parametrize("who", [lambda worker: worker.process.pid, child_of], ids=["worker", "its child"])
def test_a_process_killed_between_two_checks_costs_nothing(who):
    with Verifier(seconds=20, workers=1) as verifier:
        assert verifier.check([("2^3", "8")]) == [True]
        process = verifier.workers[0].process
        os.kill(who(verifier.workers[0]), signal.SIGKILL)
        if who is child_of:
            process.wait(timeout=10)                                # it ends with its child
        assert verifier.check([("2^4", "16")]) in ([True], [None])  # None: the worker was on its way out as the pair went in
        assert verifier.check([("2^5", "32")]) == [True]


def test_a_worker_that_is_stopped_is_given_up_and_closing_does_not_hang(monkeypatch):
    with Verifier(seconds=0.5, workers=1) as verifier:
        assert verifier.check([("2^3", "8")]) == [True]
        os.killpg(verifier.workers[0].process.pid, signal.SIGSTOP)
        start = time.perf_counter()
        with monkeypatch.context() as patch:
            patch.setattr(verify, "STALL_SECONDS", 0.5)
            assert verifier.check([("2^4", "16")]) == [None] and (verifier.timeouts, verifier.crashes) == (1, 0)
        assert verifier.check([("2^5", "32")]) == [True]
        os.killpg(verifier.workers[0].process.pid, signal.SIGSTOP)
    assert time.perf_counter() - start < 60 and verifier.workers == []


def test_an_interrupted_check_leaves_no_reply_behind_for_the_next_one():
    with Verifier(seconds=20, workers=2) as verifier:
        assert verifier.check([("2^3", "8")]) == [True]
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            verifier.check([(SLOW, "3")])
        assert verifier.workers == [] and verifier.check([("2^3", "9"), ("2^4", "16")]) == [False, True]


SCRIPT = "from verify import Verifier; v = Verifier(workers=1); v.check([('2^3', '8')]); print(v.workers[0].process.pid, flush=True); "


def test_ctrl_c_on_the_whole_terminal_prints_no_traceback_of_a_worker():
    script = subprocess.Popen([sys.executable, "-c", SCRIPT + "v.check([('9^{9^{9}}', '3')])"], cwd=ROOT, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, start_new_session=True)
    pid = int(script.stdout.readline())
    time.sleep(0.5)
    os.killpg(script.pid, signal.SIGINT)                            # what a terminal does: to the script and to all that belong to it
    _, errors = script.communicate(timeout=30)
    assert errors.count("Traceback") == 1 and errors.rstrip().endswith("KeyboardInterrupt") and ends(pid)


def test_the_worker_ends_with_its_script_even_if_nobody_closes_it():
    pid = int(subprocess.run([sys.executable, "-c", SCRIPT + "import os; os._exit(1)"], cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout)
    assert ends(pid)


def ends(pid):
    give_up = time.perf_counter() + 10
    while is_running(pid) and time.perf_counter() < give_up:
        time.sleep(0.05)
    return not is_running(pid)


def is_running(pid):
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], stdout=subprocess.PIPE, text=True).stdout.strip()
    return state != "" and not state.startswith("Z")    # Z: ended, but nobody has asked for its exit code


def test_a_worker_loads_neither_torch_nor_the_progress_bar():
    unwanted = {"torch", "numpy", "tqdm", "transformers"}
    code = f"import sys, verify; assert verify.algebra('2^3', '8'); print(sorted({unwanted} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout == "[]\n"


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no limit on the address space")
def test_a_worker_has_its_memory_limited():
    with Verifier(workers=1) as verifier:
        verifier.check([("2^3", "8")])
        limits = Path(f"/proc/{verifier.workers[0].process.pid}/limits").read_text()
    assert [line.split()[3] for line in limits.splitlines() if line.startswith("Max address space")] == [str(verify.MEMORY_BYTES)]


def test_a_large_batch_shows_a_progress_bar_and_a_small_one_does_not(capsys, monkeypatch):
    monkeypatch.setattr(verify, "BAR_FROM", 3)
    with Verifier(workers=1) as verifier:
        verifier.check([("2^3", "8"), ("2^4", "16")])
        assert capsys.readouterr().err == ""
        verifier.check([("2^3", "8"), ("2^4", "16"), ("2^5", "32")])
        assert "answer checks" in capsys.readouterr().err


def test_a_worker_that_cannot_start_says_what_to_try(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="import math_verify"):
        Verifier().check([("2^3", "8")])
