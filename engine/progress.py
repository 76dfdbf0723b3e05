"""Progress bars with an ETA: on a terminal only, so that a file or a pipe gets no frames of them,
and from one rank.
"""
from tqdm import tqdm

from engine import ranks


def bar(items=None, **words):
    """tqdm's bar over items, or of `total`; it leaves nothing behind. disable=None: off where
    stderr is no terminal.
    """
    return tqdm(items, leave=False, disable=None if ranks.is_main() else True, **words)
