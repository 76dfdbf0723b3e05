"""One document walked through one iteration: every number of the method, and the line that made it.

    python -m classroom.walk                          the embedded world's first iteration
    python -m classroom.walk --iteration 20           after 19 iterations, trained first
    python -m classroom.walk runs/NAME --document 3   the iteration a run would do next
    python -m classroom.walk --text                   on the terminal; else a page, walk.html

The run itself is only read. Weights, optimizer, documents and random numbers are those that the run
would go on with, so the scores are those that it would write.
"""
import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

import train
from classroom import pages
from classroom.steps import Walk
from data import InputError
from engine import checkpoint, flags
from engine.outputs import file_to_write
from engine.speech import run_script
from engine.verify import Verifier


class Ear:
    """Stands where a run's log stands, and says nothing."""

    def __init__(self):
        self.inputs = {}

    def say(self, text):
        pass


def begin(args):
    """-> (cfg, folder of a checkpoint or None, its state): where the walk sets out from."""
    if args.run:
        cfg = flags.load(Path(args.run) / "config.json")
        folder, state = checkpoint.find(args.run)
        if folder is None:
            raise InputError(f"{args.run}: no whole checkpoint is there to set out from")
        t = state["iteration"] + 1
        if args.iteration not in (None, t):
            raise InputError(f"--iteration {args.iteration}: {args.run} has the weights behind "
                             f"iteration {t - 1}, so only iteration {t} can be walked through")
        return cfg, folder, state
    return None, None, None


def trained(args, place):
    """Without a run: the preset's iterations up to the one that is walked through."""
    words = ["--preset", args.preset, "--seed", str(args.seed), "--run", str(place / "run")]
    cfg = flags.parse(words)
    before = (args.iteration or 1) - 1
    if not before:
        return cfg, None, None
    train.train(replace(cfg, iterations=before, eval_every=before, show_every=0))
    folder, state = checkpoint.find(str(place / "run"))
    return cfg, folder, state


def walk(cfg, folder, state, document=None):
    """-> the sections of the walk, in order."""
    solver, generator = train.load_models(cfg, Ear())
    study, _ = train.load_data(cfg, solver, generator, Ear())
    t = 1
    if folder:
        policies = {"solver": solver, "generator": generator}
        study.load(state["study"], checkpoint.load(folder, state, policies))
        t = state["iteration"] + 1
    with Verifier() as verifier:
        return Walk(cfg, solver, generator, study, verifier, t, document).sections()


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m classroom.walk", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", help="folder of a run; none: the preset from its start")
    parser.add_argument("--preset", default="toy", help="without a run")
    parser.add_argument("--seed", type=int, default=0, help="without a run")
    parser.add_argument("--iteration", type=int, help="which; none: the next, or the first")
    parser.add_argument("--document", type=int, help="place in the batch; none: a telling one")
    parser.add_argument("--text", action="store_true", help="print it here instead of a page")
    parser.add_argument("--output", default="walk.html", help="the page to write")
    args = parser.parse_args(argv)
    if args.iteration is not None and args.iteration < 1:
        raise InputError(f"--iteration {args.iteration}: iterations count from 1")

    if not args.text:
        file_to_write("--output", args.output)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        start = begin(args) if args.run else trained(args, Path(place))
        sections = walk(*start, args.document)
    if args.text:
        print(pages.as_text(sections))
        return
    Path(args.output).write_text(pages.as_html(sections), encoding="utf-8")
    print(f"{args.output}: one document through one iteration, in {len(sections)} steps")


if __name__ == "__main__":
    sys.exit(run_script(main))
