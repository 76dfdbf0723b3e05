"""Progress bars with an ETA, from one rank. A pipe gets no frames, of long work a line a minute."""
import sys
import time

from tqdm import tqdm

from engine import ranks

SECONDS = 60        # between two lines


def bar(items=None, kind=tqdm, **words):
    """tqdm's bar over items, or of `total`; it leaves nothing behind.

    disable=None: off where stderr is no terminal.
    """
    return kind(items, leave=False, disable=None if ranks.is_main() else True, **words)


def long_bar(items, desc, unit):
    """The same over a list, for what takes minutes and says nothing else."""
    shown = bar(items, kind=Lines, desc=desc, unit=unit)
    shown.desc, shown.unit = desc, unit
    return shown


class Lines(tqdm):
    """A bar that becomes lines where it is off: `warm start: 12 of 70 steps, about 08:31 left`."""

    def __iter__(self):
        if not self.disable:
            yield from super().__iter__()
            return
        began = said = time.monotonic()
        for done, item in enumerate(self.iterable, start=1):
            yield item
            now = time.monotonic()
            if now - said >= SECONDS and done < self.total and ranks.is_main():
                left = tqdm.format_interval((now - began) / done * (self.total - done))
                note = f", {self.postfix}" if getattr(self, "postfix", "") else ""
                print(f"{self.desc}: {done} of {self.total} {self.unit}s{note}, about {left} left",
                      file=sys.stderr, flush=True)
                said = now
