"""How an attack ended, and the tally of many: `attempt`, `Tally`, `table`."""
import collections
import contextlib
import math
import signal
import time
import traceback

ALLOWED = ("right", "one line")
FORBIDDEN = ("traceback", "hang", "loss")
# in this process; a run gets a limit of its own
SECONDS = 10


class Hang(BaseException):
    """Not an Exception, so that nothing on the way takes it for a wrong item and goes on."""


class Loss(Exception):
    """What came out is not what is true of the input."""


class OutOfTime(BaseException):
    """The minutes of a kind of attack are over; what was tried counts."""


class Tally:
    """The outcomes of one kind of attack, with what each forbidden one was.

    minutes: add raises OutOfTime after so many.
    """

    def __init__(self, kind, minutes=math.inf):
        self.kind = kind
        self.until = time.monotonic() + 60 * minutes
        self.whole = False
        self.counts = collections.Counter()
        self.seconds = 0.0
        self.bad = []

    def add(self, outcome, what="", detail=""):
        self.counts[outcome] += 1
        if outcome in FORBIDDEN:
            self.bad.append({"outcome": outcome, "attack": what, "detail": detail[-600:]})
        if time.monotonic() > self.until:
            raise OutOfTime

    @property
    def tried(self):
        return sum(self.counts.values())

    @property
    def forbidden(self):
        return sum(self.counts[name] for name in FORBIDDEN)

    def as_json(self):
        return {"tried": self.tried, "seconds": round(self.seconds, 1), "whole": self.whole,
                **{name: self.counts[name] for name in ALLOWED + FORBIDDEN}, "bad": self.bad}


@contextlib.contextmanager
def limit(seconds=SECONDS):
    """Raises Hang in what runs inside, after so many seconds."""
    def late(*_):
        raise Hang

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempt(tally, what, function, refusal):
    """Runs function() and adds how it ended. refusal: the exception whose text is the one line.

    function raises Loss for what is not true; SystemExit with code 2 counts as its one line too.
    """
    try:
        with limit():
            function()
    except refusal as error:
        # scripts show it by speech.complain, which makes one line of any name of a file
        tally.add("one line" if str(error).strip() else "traceback", what, "an empty line")
    except Hang:
        tally.add("hang", what)
    except Loss as error:
        tally.add("loss", what, str(error))
    except (Exception, SystemExit):
        tally.add("traceback", what, traceback.format_exc())
    else:
        tally.add("right", what)


def table(tallies):
    """Tallies -> the lines of a Markdown table."""
    heads = "kind | tried | right | one line + exit code 2 | traceback | hang | silent loss | s"
    lines = [f"| {heads} |",
             "|---|--:|--:|--:|--:|--:|--:|--:|"]
    for x in tallies:
        cells = [x.kind, x.tried, *(x.counts[name] for name in ALLOWED + FORBIDDEN),
                 round(x.seconds)]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines
