"""The command: runs the kinds that were asked for, prints the table, writes JSON."""
import argparse
import contextlib
import importlib
import json
import math
import os
import platform
import sys
import tempfile
import time

from . import ROOT
from .outcome import OutOfTime, Tally, table

KINDS = ("readers", "texts", "flags", "kills", "checkpoints", "disk", "growth")


def campaign(kinds, seed, long, minutes=math.inf):
    """-> [Tally], one of each kind, and printed as they come."""
    tallies = []
    for kind in kinds:
        tally = Tally(kind, minutes)
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="attack-") as folder:
            attacks = importlib.import_module(f"{__package__}.{kind}")
            with contextlib.suppress(OutOfTime):
                attacks.run(tally, seed, long, folder)
                tally.whole = True
        tally.seconds = time.monotonic() - begun
        tallies.append(tally)
        for bad in tally.bad:
            print(f"{kind}: {bad['outcome']}: {bad['attack']}: {bad['detail']}", file=sys.stderr)
        print(f"{kind}: {tally.tried} in {tally.seconds:.0f} s", file=sys.stderr, flush=True)
    return tallies


def read_arguments(words):
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__)
    parser.add_argument("--long", action="store_true", help="many more of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=math.inf, help="of each kind at most")
    parser.add_argument("--only", default=",".join(KINDS), help=f"some of {','.join(KINDS)}")
    parser.add_argument("--json", default="attack.json", help="where every number goes")
    args = parser.parse_args(words)
    args.only = args.only.split(",")
    for kind in args.only:
        if kind not in KINDS:
            parser.error(f"--only {kind}: expected some of {', '.join(KINDS)}")
    return args


def main(words=None):
    """-> exit code: 0, or 1 where something forbidden was seen."""
    args = read_arguments(words)
    os.chdir(ROOT)
    tallies = campaign(args.only, args.seed, args.long, args.minutes)
    print("\n".join(table(tallies)))
    found = {"seed": args.seed, "long": args.long, "python": platform.python_version(),
             "kinds": {tally.kind: tally.as_json() for tally in tallies}}
    with open(args.json, "w", encoding="utf-8") as f:
        json.dump(found, f, indent=1)
    return int(any(tally.forbidden for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
