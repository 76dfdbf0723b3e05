"""The short form of the campaign in tests/attack: nothing ends in a traceback, a hang or a loss.

`python -m tests.attack --long` is the long one; docs/results/reliability.md has its table.
"""
import pytest

from attack import __main__ as command
from attack.outcome import FORBIDDEN, Loss, Tally, attempt, table
from data import InputError
from engine import arguments, outputs

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", command.KINDS)
def test_every_attack_ends_right_or_in_one_line(kind, monkeypatch):
    monkeypatch.chdir(command.ROOT)
    tally, = command.campaign([kind], seed=0, long=False)
    assert tally.whole and tally.tried > 3
    assert [tally.counts[name] for name in FORBIDDEN] == [0, 0, 0], tally.bad


def endless():
    while True:
        pass


def lost():
    raise Loss("a question")


def refused():
    raise InputError("one line")


def test_the_campaign_can_see_what_it_forbids(monkeypatch):
    monkeypatch.setattr("attack.outcome.limit.__wrapped__.__defaults__", (0.2,))
    tally = Tally("fakes")
    for function in (endless, lost, refused, int, lambda: 1 / 0):
        attempt(tally, function.__name__, function, InputError)
    assert tally.counts == {"hang": 1, "loss": 1, "one line": 1, "right": 1, "traceback": 1}
    assert "| fakes | 5 | 1 | 1 | 1 | 1 | 1 |" in table([tally])[-1]


@pytest.mark.parametrize("words, says", [
    (["--threads", "-1"], "--threads -1: expected at least 0"),
    (["--threads", "100000"], "expected at most 1,024"),
    (["--lr", "nan"], "expected a finite number"), (["--lr", "inf"], "expected a finite number"),
    (["--lr", "x"], "invalid float value"), (["--figure", "a.xyz"], "ends in .png, .svg, .pdf"),
    (["--json", "/proc/x.json"], "cannot be written"), (["--json", "."], "is a folder"),
    (["--nothing"], "unrecognized arguments")])
def test_what_nobody_means_is_one_line(words, says):
    parser = arguments.Parser("x")
    for name, kind in (("threads", int), ("lr", float), ("figure", str), ("json", str)):
        parser.add_argument(f"--{name}", type=kind)
    with pytest.raises(InputError, match=says) as caught:
        parser.parse_args(words)
    assert "\n" not in str(caught.value)


def test_a_place_is_writable_if_writing_works(tmp_path):
    outputs.folder_to_write("--out", tmp_path / "new/below")
    outputs.file_to_write("--json", tmp_path / "new.json")
    # nothing was left behind
    assert list(tmp_path.iterdir()) == []
    for look in (outputs.folder_to_write, outputs.file_to_write):
        with pytest.raises(InputError, match="cannot be written"):
            look("--x", "/proc/x")
