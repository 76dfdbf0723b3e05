r"""Free-form answers: what counts as equal, and what a slow, crashed or killed check turns into.
With the real math-verify.

answer_pairs.jsonl has one pair a line: answer, truth, equal, kind, source. What is equal was
decided before the checker saw the pair; held_out marks those that nobody
looked at while writing its rules.
Where we are wrong, known_wrong says so, and a change in either direction fails.

    a rounded number is another number; a unit or a word may be left out, another is another answer;
    p% is p/100, and p if p > 1; a bare list has no order, (a, b) has one; "x =" in front changes
    nothing; several numbers, or a sentence around one, are no answer
"""
import doctest
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from engine import forms, notation, units, verify
from engine.verify import MAX_CHARS, Verifier, decide
from tools import pairs
from tools.verdicts import PAGE, table

# runs and processes of their own
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "tests/answer_pairs.jsonl"
PAIRS = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
# A number of 370 million digits, computed in one call that no Python signal handler interrupts.
SLOW = "9^{9^{9}}"

@pytest.fixture(scope="module")
def verifier():
    # generous: a busy machine is no reason for a failing test
    with Verifier(seconds=20) as verifier:
        yield verifier


@pytest.fixture(scope="module")
def verdicts(verifier):
    return verifier.check([(pair["answer"], pair["truth"]) for pair in PAIRS])


def test_the_pairs_we_get_wrong_are_those_marked_as_known(verdicts):
    wrong, known = [], []
    for pair, verdict in zip(PAIRS, verdicts):
        if verdict is not pair["equal"]:
            wrong.append((pair["answer"], pair["truth"], verdict))
        if pair.get("known_wrong"):
            known.append((pair["answer"], pair["truth"], not pair["equal"]))
    assert wrong == known


def test_the_page_has_the_verdicts_of_every_kind(verdicts):
    page = PAGE.read_text(encoding="utf-8")
    for line in table(PAIRS, verdicts, verdicts).splitlines()[2:]:
        kind_and_ours = line.split("|")[:6]
        assert "|".join(kind_and_ours) in page


def farmed(verdicts, among):
    """Indices of wrong answers called equal."""
    return [i for i in among if verdicts[i] and not PAIRS[i]["equal"]]


def test_at_most_one_pair_in_300_is_a_false_equality(verdicts):
    held_out = [i for i, pair in enumerate(PAIRS) if pair.get("held_out")]
    assert len(held_out) >= 700
    assert 300 * len(farmed(verdicts, held_out)) <= len(held_out)
    assert 300 * len(farmed(verdicts, range(len(PAIRS)))) <= len(PAIRS)


def test_the_table_is_whole():
    assert len({(pair["answer"], pair["truth"]) for pair in PAIRS}) == len(PAIRS) >= 1500
    assert min(Counter(pair["equal"] for pair in PAIRS).values()) >= 1000
    assert all(pair["kind"] and pair["source"] for pair in PAIRS)
    assert {pair["source"].split(":")[0] for pair in PAIRS} == {
        "the first table", "report", "by hand", "by hand, after the rules", "generated"}


def test_generated_pairs_are_those_of_the_seeded_script():
    written = [pair for pair in PAIRS if pair["source"] == "generated"]
    seen = {(pair["answer"], pair["truth"]) for pair in PAIRS if pair["source"] != "generated"}
    again = []
    for kind, make in pairs.KINDS.items():
        again += pairs.rows(kind, make, seen)
    for pair in written:
        pair.pop("known_wrong", None)
    assert again == written


def test_held_out_is_a_matter_of_the_pair_alone():
    for pair in PAIRS:
        if pair["source"] in ("by hand", "generated"):
            same = pairs.is_held_out(pair["answer"], pair["truth"])
            assert pair.get("held_out", False) == same


def test_a_verdict_per_pair_in_order(verifier):
    pairs = [("1", "2"), ("x + x", "2x"), (None, "3"), ("1", "2"), ("4", "4")]
    assert verifier.check(pairs) == [False, True, False, False, True]
    assert verifier.check([]) == []


def test_no_process_is_started_where_a_glance_settles_it():
    equal = [("4", " 4"), ("033", "33"), (r"\frac12", "0.5"), ("12 cm", "12"),
             ("Yes", r"\text{yes}")]
    different = [(None, "4"), ("", "4"), ("1" * (MAX_CHARS + 1), "4"), ("tea", "eat"),
                 ("5 cm", "5 m")]
    with Verifier() as verifier:
        assert verifier.check(equal + different) == [True] * 5 + [False] * 5
        assert verifier.workers == []


# ---------------------------------------------------------------- nothing hangs the caller

# None of them is 5: not equal, or unknown where the limit strikes.
WORTHLESS = {
    "tower": "9^{9^{9^{9}}}",
    "bare tower": "9^9^9^9",
    "small base": "0.1^{-9^{9^9}}",
    "factorial": "(10^{8})!",
    "factorial tower": "9!!!!!!",
    "binomial": r"\binom{10^9}{5 \cdot 10^8}",
    "long sum": r"\sum_{k=1}^{10^9} \frac{1}{k^2}",
    "exponent": "1e999999999",
    "nested fractions": r"\frac{" * 150 + "1" + "}{2}" * 150,
    "open fractions": r"\frac{" * 300,
    "nested roots": r"\sqrt{" * 280 + "2" + "}" * 280,
    "brackets": "(" * 900 + "1" + ")" * 900,
    "braces": "{" * 990 + "}" * 990,
    "left without right": r"\left(" * 300,
    "indices": "x_{" * 400 + "}" * 400,
    "digits": "1" * 1999,
    "sum": "1+" * 999 + "1",
    "equations": "1=" * 999 + "1",
    "list": "1," * 990,
    "bars": "|" * 1999,
    "dollars": "$" * 1999,
    "boxes": r"\boxed{" * 280,
    "open text": r"\text{" * 330,
    "backslashes": "\\" * 1999,
    "unbalanced": "}{",
    "emoji": "😀" * 1000,
    "null bytes": "\0" * 50 + "6",
    "half a surrogate pair": "\ud800",
    "determinant": r"\det " * 400,
    "a million digits": "7" * 1_000_000,
    "a megabyte of braces": "{" * 500_000 + "}" * 500_000,
    "a megabyte of space": " " * 1_000_000 + "6",
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
    # a third of a CPU second, on a machine that may be busy
    assert time.perf_counter() - start < 60
    assert (verdict, hasty.timeouts - before) in [(False, 0), (None, 1)] and hasty.crashes == 0

    # the next ones are answered as if nothing had been; a fresh child on a busy core may need
    # longer at first
    asked_again = (hasty.check([("3x + x", "4x"), ("3x + x", "5x")]) for _ in range(4))
    assert [True, False] in asked_again


PIECES = ["1=", "1,", "1 ", "a ", "x+", "{", "\\", "$", "\\ ", "**", r"\text{", r"\frac", "1,000 ",
          "√", "5 m ", ",", "10^A_", "½", "1-", "1/", "~", "Ab", "f(", "2 to ", "x<1 or ", r"\pm "]


@pytest.mark.parametrize("piece", PIECES)
def test_a_glance_is_quick_whatever_it_meets(piece):
    start = time.perf_counter()
    n = MAX_CHARS // len(piece)
    for text in (piece * n, piece * (n - 3) + "= 5"):
        decide(text, "5")
        decide("5", text)
    # about 1; a search that grows with the cube takes minutes
    assert time.perf_counter() - start < 30


# ---------------------------------------------------------------- the pool

def test_a_slow_check_is_unknown_not_wrong_and_the_next_one_works():
    with Verifier(seconds=1) as verifier:
        start = time.perf_counter()
        assert verifier.check([(SLOW, "3"), ("x + x", "2x"), (SLOW, "3")]) == [None, True, None]
        # the same pair is asked once
        assert (verifier.timeouts, verifier.crashes) == (1, 0)
        assert time.perf_counter() - start < 60


def test_order_and_counts_are_kept_while_several_workers_time_out():
    pairs = [(f"{k}x + x", f"{k + 1 + k % 2}x") for k in range(12)]
    pairs[2], pairs[7] = (SLOW, "3"), (SLOW, "4")
    expected = [k % 2 == 0 for k in range(12)]
    expected[2] = expected[7] = None
    with Verifier(seconds=1, workers=3) as verifier:
        assert verifier.check(pairs) == expected
        assert (len(verifier.workers), verifier.timeouts, verifier.crashes) == (3, 2, 0)
        assert verifier.check(pairs[3:7]) == expected[3:7]


def test_no_more_workers_than_there_is_work():
    with Verifier(workers=3) as verifier:
        assert verifier.check([("x + x", "2x"), ("4", "4")]) == [True, True]
        assert len(verifier.workers) == 1


def child_of(worker):
    command = ["pgrep", "-P", str(worker.process.pid)]
    return int(subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout)


def itself(worker):
    return worker.process.pid


WHO = pytest.mark.parametrize("who", [itself, child_of], ids=["worker", "its child"])


@WHO
def test_a_process_killed_in_the_middle_is_a_crash_and_is_replaced(who):
    with Verifier(seconds=3, workers=1) as verifier:
        assert verifier.check([("x + x", "2x")]) == [True]
        # while it computes
        threading.Timer(0.5, os.kill, (who(verifier.workers[0]), signal.SIGKILL)).start()
        assert verifier.check([(SLOW, "3"), ("3x + x", "4x")]) == [None, True]
        assert (verifier.timeouts, verifier.crashes) == (0, 1)


@WHO
def test_a_process_killed_between_two_checks_costs_nothing(who):
    with Verifier(seconds=20, workers=1) as verifier:
        assert verifier.check([("x + x", "2x")]) == [True]
        process = verifier.workers[0].process
        os.kill(who(verifier.workers[0]), signal.SIGKILL)
        if who is child_of:
            # it ends with its child
            process.wait(timeout=10)
        # None: the worker was on its way out as the pair went in
        assert verifier.check([("3x + x", "4x")]) in ([True], [None])
        assert verifier.check([("4x + x", "5x")]) == [True]


def test_a_worker_that_is_stopped_is_given_up_and_closing_does_not_hang(monkeypatch):
    with Verifier(seconds=0.5, workers=1) as verifier:
        assert verifier.check([("x + x", "2x")]) == [True]
        os.killpg(verifier.workers[0].process.pid, signal.SIGSTOP)
        start = time.perf_counter()
        with monkeypatch.context() as patch:
            patch.setattr(verify, "STALL_SECONDS", 0.5)
            assert verifier.check([("3x + x", "4x")]) == [None]
            assert (verifier.timeouts, verifier.crashes) == (1, 0)
        assert verifier.check([("4x + x", "5x")]) == [True]
        os.killpg(verifier.workers[0].process.pid, signal.SIGSTOP)
    assert time.perf_counter() - start < 60 and verifier.workers == []


def test_an_interrupted_check_leaves_no_reply_behind_for_the_next_one():
    with Verifier(seconds=20, workers=2) as verifier:
        assert verifier.check([("x + x", "2x")]) == [True]
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            verifier.check([(SLOW, "3")])
        assert verifier.workers == []
        assert verifier.check([("x + x", "3x"), ("3x + x", "4x")]) == [False, True]


SCRIPT = """
from engine.verify import Verifier
v = Verifier(workers=1)
v.check([('x + x', '2x')])
print(v.workers[0].process.pid, flush=True)
"""


def test_ctrl_c_on_the_whole_terminal_prints_no_traceback_of_a_worker():
    slow = SCRIPT + "v.check([('9^{9^{9}}', '3')])"
    script = subprocess.Popen([sys.executable, "-c", slow], cwd=ROOT, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, start_new_session=True)
    pid = int(script.stdout.readline())
    time.sleep(0.5)
    # what a terminal does: to the script and to all that belong to it
    os.killpg(script.pid, signal.SIGINT)
    _, errors = script.communicate(timeout=30)
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt") and ends(pid)


def test_the_worker_ends_with_its_script_even_if_nobody_closes_it():
    assert ends(int(printed(SCRIPT + "import os; os._exit(1)")))


def printed(code):
    """What Python prints that runs the code in a process of its own."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout


def ends(pid):
    give_up = time.perf_counter() + 10
    while is_running(pid) and time.perf_counter() < give_up:
        time.sleep(0.05)
    return not is_running(pid)


def is_running(pid):
    command = ["ps", "-o", "stat=", "-p", str(pid)]
    state = subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout.strip()
    # Z: ended, but nobody has asked for its exit code
    return state != "" and not state.startswith("Z")


def test_a_worker_loads_neither_torch_nor_the_progress_bar():
    unwanted = {"torch", "numpy", "tqdm", "transformers"}
    code = ("import sys; from engine import verify; assert verify.algebra('x + x', '2x'); "
            f"print(sorted({unwanted} & set(sys.modules)))")
    assert printed(code) == "[]\n"


def test_a_worker_takes_no_file_of_ours_for_a_library(tmp_path):
    """engine/statistics.py would pass for Python's, as math_verify.py here for the package."""
    shutil.copytree(ROOT / "engine", tmp_path / "engine")
    for folder in (tmp_path, tmp_path / "engine"):
        (folder / "math_verify.py").write_text("raise ImportError")
    check = ("from engine.verify import Verifier; v = Verifier(workers=1); "
             "print(v.check([('x + x', '2x')])); v.close()")
    command = [sys.executable, "-c", check]
    found = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert found.stdout == "[True]\n"


def test_examples_in_the_docstrings():
    for module in (forms, notation, units, verify):
        assert doctest.testmod(module).failed == 0


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no limit on the address space")
def test_a_worker_has_its_memory_limited():
    with Verifier(workers=1) as verifier:
        verifier.check([("x + x", "2x")])
        limits = Path(f"/proc/{verifier.workers[0].process.pid}/limits").read_text().splitlines()
    found = [line.split()[3] for line in limits if line.startswith("Max address space")]
    assert found == [str(verify.MEMORY_BYTES)]


def test_a_large_batch_shows_a_progress_bar_and_a_small_one_does_not(capsys, monkeypatch):
    monkeypatch.setattr(verify, "BAR_FROM", 3)
    with Verifier(workers=1) as verifier:
        verifier.check([("x + x", "2x"), ("3x + x", "4x")])
        assert capsys.readouterr().err == ""
        verifier.check([("x + x", "2x"), ("3x + x", "4x"), ("4x + x", "5x")])
        assert "answer checks" in capsys.readouterr().err


def test_a_worker_that_cannot_start_says_what_to_try(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="import math_verify"):
        Verifier().check([("x + x", "2x")])
