"""Curves elsewhere: each line of metrics.jsonl in tensorboard or wandb too. Guests: never imported
unless asked for.

    python train.py --track tensorboard    then: tensorboard --logdir RUN/tensorboard
    python train.py --track wandb          then: wandb sync RUN/wandb/offline-run-*

Every number of a line is logged under its key at step t, its iteration. A number inside a dict gets
both keys, "seconds/dev"; null is left out.

metrics.jsonl stays the record, and what is written here is a copy of it. When a run resumes, the
copy is thrown away and made anew from the lines in the file, which were cut back to the checkpoint
before: after a kill no step is missing or there twice, and --track may be set for the first time
beside --resume. Only the main rank writes.

wandb is always offline: it writes into the run's folder and talks to nobody, and you decide what to
sync. A resumed run keeps its wandb id. Not tried, for want of a server: `wandb sync`, and how the
server takes a second one after a resume.
"""
import glob
import importlib
import json
import os
import shutil

import config
from engine import ranks
from data import InputError

# What is imported; the package to install has the tracker's name.
NEEDS = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb"}


def require(track):
    """The name of a tracker, or "none" -> its module, or None.

    InputError if it cannot be imported. For all ranks, so that all end.
    """
    if track == "none":
        return None
    try:
        return importlib.import_module(NEEDS[track])
    except ImportError as error:
        raise InputError(f"--track {track}: cannot be imported ({error}); pip install {track}, or "
                         "leave --track out") from None


def start(cfg, metrics):
    """-> (log(line), close()), with the lines in the file `metrics` logged already.

    Both do nothing without a tracker or on another rank. A line is a dict of metrics.jsonl.
    """
    if cfg.track == "none" or not ranks.is_main():
        return lambda line: None, lambda: None
    write, close = {"tensorboard": tensorboard, "wandb": wandb}[cfg.track](cfg)

    def log(line):
        write(numbers(line), line["iteration"])

    if os.path.exists(metrics):
        with open(metrics, encoding="utf-8") as f:
            for line in f:
                log(json.loads(line))
    return log, close


def numbers(line):
    """A line of metrics.jsonl -> {key: number}, without the iteration, which is the step.

    >>> numbers({"iteration": 3, "dev_accuracy": 0.5, "test_accuracy": None, "seconds": {"dev": 2}})
    {'dev_accuracy': 0.5, 'seconds/dev': 2}
    """
    every = {}
    for name, x in line.items():
        if isinstance(x, dict):
            every |= {f"{name}/{part}": y for part, y in x.items()}
        elif name != "iteration":
            every[name] = x
    return {name: x for name, x in every.items() if isinstance(x, (int, float))}


def tensorboard(cfg):
    """Event files in RUN/tensorboard -> (write(values, t), close()). They hold single precision."""
    folder = os.path.join(cfg.run, "tensorboard")
    if cfg.resume:
        shutil.rmtree(folder, ignore_errors=True)
    # a tensorboard that is watching forgets what it read before
    writer = require("tensorboard").SummaryWriter(folder, purge_step=1)

    def write(values, t):
        for name, x in values.items():
            writer.add_scalar(name, x, t)
        writer.flush()

    return write, writer.close


def wandb(cfg):
    """An offline run in RUN/wandb -> (write(values, t), close())."""
    # offline-run-DATE-ID
    pattern = os.path.join(glob.escape(cfg.run), "wandb", "offline-run-*")
    earlier = glob.glob(pattern) if cfg.resume else []
    run_id = earlier[0].rsplit("-", 1)[1] if earlier else None
    for folder in earlier:
        shutil.rmtree(folder)
    settings = {name: getattr(cfg, name) for name in config.SETTINGS}
    run = require("wandb").init(
        project="infuser", name=os.path.basename(cfg.run), id=run_id, dir=cfg.run, mode="offline",
        config=settings, settings={"console": "off"})
    return lambda values, t: run.log(values, step=t), run.finish
