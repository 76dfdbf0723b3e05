"""The command lines of all scripts: one rule for them. train.py takes one-line errors and --a-b
from here, the rest from flags.py.

    parser = Parser(prog, about)     as argparse; what is wrong is one line and exit code 2
    parser.parse_args(words)         --a-b is --a_b; numbers are within BOUNDS, and what --json,
                                     --figure and --figures name can be written

Nobody means a number outside of BOUNDS: a thread count that ends in a crash of torch, a million
answers to each question, a temperature that is no number. Needs no torch.
"""
import argparse
import math
import os
import re
import sys

from data import InputError
from engine.outputs import file_to_write, folder_to_write

# Beyond it, the thread pool of torch takes the process with it.
MOST_THREADS = 1024
MANY = 1_000_000
MOST_SEED = 2**63 - 1
# name of an argument: least, most
BOUNDS = {
    "threads": (0, MOST_THREADS),
    "jobs": (1, MOST_THREADS),
    "seed": (0, MOST_SEED),
    "seeds": (1, 1000),
    "limit": (1, MOST_SEED),
    "samples": (1, 100_000),
    "drafts": (1, 100_000),
    "questions_per_doc": (1, 100_000),
    "max_prompt_tokens": (1, 10 * MANY),
    "max_response_tokens": (1, 10 * MANY),
    "rows_at_once": (0, MANY),
    "batch": (1, MANY),
    "iterations": (1, MANY),
    "questions": (1, MANY),
    "answers": (1, MANY),
    "dev": (1, MANY),
    "repeats": (1, MANY),
    "rows": (1, MANY),
    "columns": (1, MANY),
    "most": (1, MANY),
    "batches": (0, MANY),
    "splits": (1, MANY),
    "epochs": (0, MANY),
    "lr": (0, 10),
    "top_k": (0, MOST_SEED),
}
FIGURES = (".png", ".svg", ".pdf")


def underscored(word):
    """--docs-per-step=3 -> --docs_per_step=3; values are left alone."""
    return re.sub(r"^--[^=]+", lambda flag: "--" + flag[0][2:].replace("-", "_"), word)


class OneLine(argparse.ArgumentParser):

    def error(self, message):
        # argparse would print the usage of every flag first
        raise InputError(message)


class Parser(OneLine):

    def __init__(self, prog=None, about=None, **bounds):
        """bounds: {name: (least, most)} of its own, where a name means something else here."""
        self.bounds = BOUNDS | bounds
        super().__init__(prog=prog, description=about,
                         formatter_class=argparse.RawDescriptionHelpFormatter)

    def parse_args(self, words=None):
        words = sys.argv[1:] if words is None else words
        args = super().parse_args([underscored(str(word)) for word in words])
        check(args, self.bounds)
        return args


def check(args, bounds):
    """Raises InputError for the first number out of range, or file that cannot be written."""
    for name, value in vars(args).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"--{name} {value}: expected a finite number")
        if name in bounds and isinstance(value, (int, float)):
            least, most = bounds[name]
            if value < least:
                raise InputError(f"--{name} {value}: expected at least {least}")
            if value > most:
                raise InputError(f"--{name} {value}: expected at most {most:,}")
    for name in ("json", "figure"):
        path = getattr(args, name, None)
        if path:
            file_to_write(f"--{name}", path)
    if getattr(args, "figures", None):
        folder_to_write("--figures", args.figures)
    figure = getattr(args, "figure", None)
    if figure and os.path.splitext(figure)[1].lower() not in FIGURES:
        raise InputError(f"--figure {figure}: expected a name that ends in {', '.join(FIGURES)}")
