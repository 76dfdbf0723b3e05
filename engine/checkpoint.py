"""Saves a run so that it goes on as if it had never stopped: atomic, verified, on any ranks.

    checkpoint/             the newest
    checkpoint.previous/    the one before, used when the newest is cut short or damaged
        solver/, generator/   a safetensors file from each rank: fp32 weights and AdamW's moments,
                              "weight.NAME", "exp_avg.NAME", "exp_avg_sq.NAME"
        g_dev_average/        the running mean of g_dev, if there is one: "NAME"
        state.json            iteration, step counts, counters, what binds it to its run and its
                              logs (engine/run_folder.py), the sha256 of every file beside it, and a
                              checksum over all of this

A checkpoint is written to checkpoint.part/, synced to disk, and renamed. A run can be killed at any
moment: what is called checkpoint/ is whole, and if the disk lies, the hashes tell. The logs are cut
back to the sizes they had, so no iteration is written twice. No pickle is read or written.

torch.distributed.checkpoint lets every rank write its slices at the same time, and reads what a
rank needs out of all files: a run saved on 8 ranks goes on on 3, or on 1. Ranks share the hashing
too. All must see the run's folder. While a file is written, its bytes are in host memory twice.

Random state: there is none to save. Every draw is a function of (seed, iteration, role, stage,
row), see sampling.uniforms; the document cursor is the iteration, see data.document_batch.
"""
import contextlib
import glob
import hashlib
import json
import os
import shutil
import warnings

import torch
import torch.distributed.checkpoint as distributed
from torch.distributed.checkpoint import (CheckpointException, HuggingFaceStorageReader,
                                          HuggingFaceStorageWriter)

from engine import ranks
from engine.speech import line_of, shorten
from data import InputError

MOMENTS = ("exp_avg", "exp_avg_sq")


def names(policy):
    """Parameter names in the order of policy.params; a tied tensor has one."""
    by_id = {id(p): name for name, p in policy.model.named_parameters()}
    return [by_id[id(p)] for p in policy.params]


def policy_tensors(policy):
    """A policy -> {name: tensor}: weights, and both moments once AdamW has taken a step.

    No copies: writing into them moves the policy.
    """
    tensors = {}
    for name, p in zip(names(policy), policy.params):
        tensors[f"weight.{name}"] = p.detach()
        for moment in MOMENTS if policy.optimizer.state.get(p) else ():
            tensors[f"{moment}.{name}"] = policy.optimizer.state[p][moment]
    return tensors


def policy_steps(policy):
    """AdamW's step count k; the same for every parameter, since each update touches all of them."""
    state = policy.optimizer.state.get(policy.params[0])
    return int(state["step"]) if state else 0


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def sync(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


@contextlib.contextmanager
def as_it_was():
    """torch.distributed.checkpoint wraps whatever happens inside it, Ctrl-C, SIGTERM and a full
    disk too: raise those again as what they were."""
    try:
        yield
    except CheckpointException as error:
        for failure, _ in error.failures.values():
            if not isinstance(failure, Exception) or line_of(failure):
                raise failure from None
        raise


def write(folder, tensors):
    """{name: tensor}, whole or in shards -> safetensors files in `folder`, on disk at the end.

    On all ranks together.
    """
    writer = HuggingFaceStorageWriter(folder, save_distributed=True)
    with as_it_was(), warnings.catch_warnings():
        # it warns of a single process
        warnings.simplefilter("ignore")
        distributed.save(tensors, storage_writer=writer)


def read(folder, tensors):
    """Fill {name: tensor}, whole or in shards, from the files in `folder`, whoever wrote them.

    On all ranks together. InputError if the files lack a name, hold one that nobody asked for or
    hold it in another shape.
    """
    reader = HuggingFaceStorageReader(folder)
    stored = reader.read_metadata().state_dict_metadata
    unasked = sorted(set(stored) - set(tensors))
    if unasked:
        raise InputError(f"{folder}: holds {unasked[0]}, which this run has no place for; is this "
                         "the run's own checkpoint?")
    for name, tensor in tensors.items():
        if name not in stored or stored[name].size != tensor.shape:
            raise InputError(f"{folder}: no tensor {name} of shape {tuple(tensor.shape)}; is this "
                             "the run's own checkpoint?")
    with as_it_was(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        distributed.load(tensors, storage_reader=reader)


def hashes(folder, files):
    """{file in folder: sha256, None where it cannot be read}; each rank reads its share."""
    mine = []
    for name in ranks.share(files):
        try:
            mine.append(sha256(os.path.join(folder, name)))
        except OSError:
            mine.append(None)
    return dict(zip(files, ranks.gather(mine, len(files))))


def save(run, policies, state, g_dev_average=None):
    """Write {role: policy}, the JSON-able `state` and the running mean of g_dev, if there is one.

    They become the run's newest checkpoint, the one before checkpoint.previous. On all ranks
    together.
    """
    newest = os.path.join(run, "checkpoint")
    part, previous = f"{newest}.part", f"{newest}.previous"
    if ranks.is_main():
        remove(part)
        os.makedirs(part)
    ranks.barrier()
    # one at a time: each is as large as a model and its AdamW
    steps = {}
    for role, policy in policies.items():
        write(os.path.join(part, role), policy_tensors(policy))
        steps[role] = {"adam": policy_steps(policy), "skipped": policy.skipped}
    if g_dev_average is not None:
        average = dict(zip(names(policies["solver"]), g_dev_average))
        write(os.path.join(part, "g_dev_average"), average)
    ranks.barrier()
    files = ranks.from_main(files_in(part))
    digests = hashes(part, files)
    if ranks.is_main():
        write_state(os.path.join(part, "state.json"), {**state, "steps": steps, "sha256": digests})
        if os.path.exists(newest):
            remove(previous)
            # killed after this: only checkpoint.previous exists, and find() takes it
            os.rename(newest, previous)
        os.rename(part, newest)
        sync(run)
    ranks.barrier()


def write_state(path, state):
    """A checkpoint's state, with a checksum over itself, on disk at the end."""
    with open(path, "w") as f:
        json.dump({**state, "checksum": checksum(state)}, f, indent=1)
        f.flush()
        os.fsync(f.fileno())


def read_state(folder):
    """The state in a checkpoint, or None if it is not as it was written."""
    path = os.path.join(folder, "state.json")
    if not os.path.isfile(path):
        return None
    try:
        with open(path) as f:
            state = json.load(f)
        if state.pop("checksum") == checksum(state) and sound(state):
            return state
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return None


def sound(state):
    """Are the counts and hashes of a state what they can be?"""
    counts = [state["iteration"]]
    for of_role in state["steps"].values():
        counts += of_role["adam"], of_role["skipped"]
    whole = all(type(n) is int and n >= 0 for n in counts)
    return whole and all(type(digest) is str for digest in state["sha256"].values())


def checksum(state):
    """The sha256 of what JSON makes of a state."""
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def remove(path):
    """A folder or file, if it is there."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.lexists(path):
        os.remove(path)


def drop_newest(run):
    """Remove a newest checkpoint that was found damaged, so that save() does not put it in the
    place of the whole one before it."""
    remove(os.path.join(run, "checkpoint"))


def drop_previous(run):
    """At the end of a run the newest checkpoint is whole and synced, and one is enough to go on."""
    if ranks.is_main() and os.path.exists(os.path.join(run, "checkpoint")):
        remove(os.path.join(run, "checkpoint.previous"))


def exists(run):
    """Is there a checkpoint, whole or not?"""
    newest = os.path.join(run, "checkpoint")
    return os.path.lexists(newest) or os.path.lexists(f"{newest}.previous")


def find(run):
    """-> (folder, state) of the newest whole checkpoint, or (None, None); names damaged ones."""
    for folder in (os.path.join(run, "checkpoint"), os.path.join(run, "checkpoint.previous")):
        if not os.path.lexists(folder):
            continue
        state, there = ranks.from_main((read_state(folder), files_in(folder)))
        bad = ["state.json"]
        if state:
            expected = state["sha256"]
            # those that are there, too: a file that nobody wrote would be read
            found = hashes(folder, sorted({*expected, *there}))
            bad = [name for name, digest in found.items() if expected.get(name) != digest]
        if not bad:
            return folder, state
        if ranks.is_main():
            print(f"{folder}: {shorten(', '.join(bad))} is cut short, damaged or not its own; "
                  "trying the one before")
    return None, None


def files_in(folder):
    """The tensor files of a checkpoint, relative to it, in order."""
    written = glob.glob(os.path.join(glob.escape(folder), "*/*.safetensors"))
    return sorted(os.path.relpath(path, folder) for path in written)


@torch.no_grad()
def load(folder, state, policies):
    """Put weights, moments and step counts of a checkpoint into {role: policy}.

    -> its running mean of g_dev, or None. InputError if its tensors are not those of the model.
    """
    for role, policy in policies.items():
        steps = state["steps"][role]
        policy.skipped = steps["skipped"]
        for p in policy.params if steps["adam"] else ():
            moments = {moment: torch.zeros_like(p) for moment in MOMENTS}
            # beside its moments: a fused AdamW counts on the device
            step = torch.tensor(float(steps["adam"]), device=p.device)
            policy.optimizer.state[p] = {"step": step, **moments}
        read(os.path.join(folder, role), policy_tensors(policy))
    if not any(name.startswith("g_dev_average") for name in state["sha256"]):
        return None
    average = [torch.zeros_like(p) for p in policies["solver"].params]
    read(os.path.join(folder, "g_dev_average"), dict(zip(names(policies["solver"]), average)))
    return average
