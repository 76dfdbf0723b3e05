"""Progress bars with an ETA, from one rank, and on a terminal only: a pipe gets no frames."""
from tqdm import tqdm

from engine import ranks


def bar(items=None, **words):
    """tqdm's bar over items, or of `total`; it leaves nothing behind.

    disable=None: off where stderr is no terminal.
    """
    return tqdm(items, leave=False, disable=None if ranks.is_main() else True, **words)
