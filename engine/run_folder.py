"""A run's folder: one process writes it, and its checkpoint goes on with nothing but its own run.

    .lock        held by every rank while it lives, and gone with it however it dies; what is in it:
                 who holds it, and whether a checkpoint was ever made
    config.json  beside the fields run_id and inputs
    inputs       {name: sha256 of what was loaded}: documents, dev, test, ..., prompts, anchors
    run_id       sha256 of inputs and of the settings that no resume may change: the same command
                 on the same files is the same run, and its logs are the same
    state.json   of a checkpoint: run_id, settings, inputs, and the sha256 of each log up to it

So a resume that would end in other numbers than the run had is one line: another run's checkpoint,
an edited config.json, a log that was cut or changed, a dev file that has lost a question, a prompt
that somebody improved. Where data and prompts were changed on purpose, --accept_changed_data goes
on and notes it in metrics.jsonl. Against accidents, not against forgery: whoever computes the
hashes anew is believed.
"""
import errno
import fcntl
import hashlib
import itertools
import json
import os
import socket
import time
from dataclasses import replace
from pathlib import Path

from config import CHANGEABLE, FILES, SETTINGS
from data import InputError
from engine import checkpoint, ranks

LOGS = ("metrics.jsonl", "questions.jsonl")


# ---------------------------------------------------------------- whose folder it is

def taken(folder):
    """Is a run there? An empty config.json is what a run left that was stopped before it began."""
    for name in ("config.json", *LOGS):
        path = os.path.join(folder, name)
        if os.path.exists(path) and os.path.getsize(path):
            return True
    return checkpoint.exists(folder)


def own_folder(cfg):
    """A run never writes over another: a named folder is refused, a default one gets a number.

    One that goes on must have its folder for itself. On all ranks together.
    """
    if cfg.resume:
        if not cfg.run_id:
            raise InputError(f"{cfg.run}: was begun by a version that gave its runs no run_id, so "
                             "nothing tells whether its checkpoint, logs and data belong together; "
                             "it can be evaluated and shown, not resumed")
        LOCK.hold(cfg.run)
        return cfg
    if not taken(cfg.run):
        return cfg
    if "run" in cfg.given:
        raise InputError(f"--output_dir {cfg.run}: holds a run already; give another folder, or go "
                         f"on with it by --resume {cfg.run}")
    free = (f"{cfg.run}-{i}" for i in itertools.count(2) if not taken(f"{cfg.run}-{i}"))
    return replace(cfg, run=next(free))


# What a file system says that knows no locks.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL}


class Lock:
    """RUN/.lock: rank r holds its byte r. A record lock dies with its process, whoever it forked.

    A killed torchrun leaves ranks that live some seconds more and may still be writing, so one
    that finds bytes of several ranks held waits for them a little.
    """

    def __init__(self):
        self.file = None
        self.run = None

    def hold(self, run, seconds=10):
        """On all ranks together. InputError if another process still has it after so long."""
        if self.run == run:
            return
        self.release()
        if ranks.is_main():
            make_folder(run)
            self.open(run)
            self.wait(run, seconds)
            self.note_checkpoint(self.made())
        ranks.barrier()
        if not ranks.is_main():
            self.open(run)
            self.take(ranks.rank(), 1)
        ranks.barrier()
        self.run = run

    def open(self, run):
        try:
            path = os.path.join(run, ".lock")
            self.file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", 0)
        except OSError as error:
            raise InputError(f"{run}: cannot be written ({error.strerror})") from None

    def wait(self, run, seconds):
        """All bytes at once, so that no rank of another process is left; then the first alone."""
        begun = time.monotonic()
        while not self.take(0, 0):
            found = self.content()
            several = found.get("ranks") != 1
            if time.monotonic() > begun + (seconds if several else min(1, seconds)):
                holder = found.get("holder", "another process")
                self.release()
                raise InputError(f"{run}: {holder} is at work in this folder; wait until it has "
                                 "ended, or give another one by --output_dir")
            time.sleep(0.2)
        fcntl.lockf(self.file, fcntl.LOCK_UN, 0, 1)

    def take(self, start, length):
        """Lock so many bytes from `start` on, 0: all -> False if somebody holds one of them."""
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
        except OSError as error:
            return error.errno in NO_LOCKS
        return True

    def content(self):
        """{"holder", "ranks", "checkpoint"} as far as they are there."""
        try:
            self.file.seek(0)
            found = json.loads(self.file.read(1000))
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def made(self):
        """Was a checkpoint ever made in this folder? None where the file does not tell."""
        return self.content().get("checkpoint")

    def note_checkpoint(self, made):
        """Once there was one, logs without a checkpoint are a loss, not a beginning."""
        if not ranks.is_main() or not self.file:
            return
        holder = f"process {os.getpid()} on {socket.gethostname()}"
        found = {"holder": holder, "ranks": ranks.world(), "checkpoint": made}
        self.file.seek(0)
        self.file.write(json.dumps(found).encode() + b"\n")
        self.file.truncate()

    def release(self):
        if self.file:
            self.file.close()
        self.file = self.run = None


# The one of this process.
LOCK = Lock()


def make_folder(run):
    try:
        os.makedirs(run, exist_ok=True)
    except OSError as error:
        raise InputError(f"{run}: cannot be made a folder ({error.strerror})") from None


# ---------------------------------------------------------------- what a run was begun with

# Where things lie; their content is among the inputs.
PLACES = (*FILES, "model", "generator_model", "run", "resume")


def settings(cfg):
    """Config -> {field: value} of those that a resume may not change."""
    fixed = {}
    for name in SETTINGS:
        if name not in CHANGEABLE and name not in PLACES:
            fixed[name] = getattr(cfg, name)
    return fixed


def id_of(cfg, inputs):
    """-> run_id, 16 hexadecimal digits."""
    return checkpoint.checksum({"settings": settings(cfg), "inputs": inputs})[:16]


def fingerprint(items):
    """A list of documents, questions or anything with a repr that tells it apart -> sha256."""
    found = hashlib.sha256()
    for item in items:
        found.update(repr(item).encode("utf-8", "surrogatepass") + b"\n")
    return found.hexdigest()


def model_fingerprint(path):
    """A model folder -> sha256 of its texts and of the names and sizes of its other files.

    The weights are not read: those of a run are in its checkpoint. A hub id stands for itself.
    """
    if not os.path.isdir(path):
        return fingerprint([path])
    found = []
    for file in sorted(Path(path).iterdir()):
        if file.suffix in (".json", ".jinja", ".txt", ".model"):
            found.append((file.name, file.read_bytes()))
        elif file.suffix == ".safetensors":
            found.append((file.name, file.stat().st_size))
    return fingerprint(found)


# ---------------------------------------------------------------- going on

def find(cfg, inputs, prefixes):
    """-> (folder, state, names of changed inputs): what a resumed run goes on from.

    (None, None, changed inputs) where it begins, a resumed one too if it was stopped before its
    first checkpoint. prefixes(state): raises InputError unless the logs are those the state
    remembers. On all ranks together; nothing is changed. InputError if the run would not be the
    same.
    """
    if not cfg.resume:
        return None, None, []
    folder, state = checkpoint.find(cfg.run)
    if folder is None:
        refuse_if_lost(cfg)
        return None, None, compare(cfg, None, inputs)
    try:
        changed = compare(cfg, state, inputs)
        prefixes(state)
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{folder}/state.json: is not what a run writes") from None
    return folder, state, changed


def refuse_if_lost(cfg):
    """InputError where there must have been a checkpoint: the logs would be emptied."""
    if checkpoint.exists(cfg.run):
        raise InputError(f"{cfg.run}: no whole checkpoint is left, so the run cannot go on; its "
                         "logs are untouched. Start again with another --output_dir")
    lines = 0
    path = os.path.join(cfg.run, LOGS[0])
    if os.path.exists(path):
        lines = Path(path).read_bytes().count(b"\n")
    made = ranks.from_main(LOCK.made() if ranks.is_main() else None)
    if made is None:
        made = lines > cfg.checkpoint_every
    if made and lines:
        raise InputError(f"{cfg.run}: its logs hold {lines} iterations, but its checkpoint is "
                         "gone, so the run cannot go on; its logs are untouched. Put the "
                         "checkpoint back, or start again with another --output_dir")


def compare(cfg, state, inputs):
    """-> the names of the inputs that are not those of the run, if that is accepted.

    InputError if it is not, or if the state is another run's or config.json was changed by hand.
    """
    refuse_edited(cfg, state)
    if state and state["run_id"] != cfg.run_id:
        raise InputError(f"{cfg.run}: its checkpoint is of run {state['run_id']}, its config.json "
                         f"of {cfg.run_id}; put back what belongs here, or start again with "
                         "another --output_dir")
    before = state["inputs"] if state else cfg.inputs
    changed = [name for name in {**before, **inputs} if before.get(name) != inputs.get(name)]
    if changed and not cfg.accept_changed_data:
        raise InputError(f"{cfg.run}: {', '.join(changed)} changed since the run began, so it "
                         "would not be the same run; put back what was there, or go on with what "
                         "is there now by --accept_changed_data")
    return changed


def refuse_edited(cfg, state):
    """InputError where config.json holds other values than the run was begun with."""
    if id_of(cfg, cfg.inputs) == cfg.run_id:
        return
    path = os.path.join(cfg.run, "config.json")
    if state and state["run_id"] == cfg.run_id:
        for name, value in settings(cfg).items():
            if state["settings"][name] != value:
                raise InputError(f"{path}: {name} = {value!r}, but the run was begun with "
                                 f"{state['settings'][name]!r}; only {', '.join(CHANGEABLE)} may "
                                 "change")
    raise InputError(f"{path}: is not as the run wrote it; put back what was there, or start again "
                     "with another --output_dir")


def named(cfg, inputs, state):
    """cfg with its run_id and inputs: those it began with, or those it begins with."""
    if state:
        return cfg
    return replace(cfg, run_id=id_of(cfg, inputs), inputs=inputs)
