"""What long work says where there is no terminal: nothing in a second, a line a minute after."""
from engine import progress


def test_a_pipe_gets_lines_and_no_frames(capfd, monkeypatch):
    clock = iter(range(0, 10_000, 50))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    shown = progress.long_bar(range(4), desc="warm start", unit="step")
    for step in shown:
        shown.set_postfix(loss=f"{step}.5")
    # a step takes 50 s: after two of them a minute has passed; at the end there is nothing to say
    assert capfd.readouterr().err == "warm start: 2 of 4 steps, loss=1.5, about 01:40 left\n"


def test_what_is_short_says_nothing_in_a_pipe(capfd):
    assert list(progress.long_bar([1, 2], desc="exam", unit="piece")) == [1, 2]
    assert list(progress.bar([1, 2], desc="exam")) == [1, 2]
    assert capfd.readouterr().err == ""
