"""A campaign against the project: wrong files, texts, command lines, kills, checkpoints, disks.

    python -m tests.attack                     short: what tests/test_attack.py runs
    python -m tests.attack --long --json F     the table of docs/results/reliability.md
    python -m tests.attack --long --only kills,disk --seed 7

Every attack ends in one of these, of which only the first two are allowed:

    right        what is true of the input came out; or a run ended bit for bit like one undisturbed
    one line     one line says what is wrong, and the exit code is 2
    traceback    any other exception, more than one line, or another exit code
    hang         no end within 10 seconds in this process; a run that outlives its limit
    loss         something of the input, or of a run's results, is gone or other, and nobody said so

All of it is seeded. Where a right answer is known, it comes from elsewhere: the json, csv and gzip
of Python for files, a run that nobody disturbed for kills and checkpoints.
"""
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
for folder in (ROOT, ROOT / "tests"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
