"""Saves a run so that it goes on as if it had never stopped: atomic, verified, on any ranks.

    checkpoint/             the newest
    checkpoint.previous/    the one before, used when the newest is cut short or damaged
        solver/, generator/   a safetensors file from each rank: fp32 weights and AdamW's moments,
                              "weight.NAME", "exp_avg.NAME", "exp_avg_sq.NAME"
        g_dev_average/        the running mean of g_dev, if there is one: "NAME"
        state.json            iteration, step counts, sizes of the logs, counters, and the sha256 of
                              the files beside it

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
    """torch.distributed.checkpoint wraps whatever happens inside it, Ctrl-C and SIGTERM too: raise
    those again as what they were."""
    try:
        yield
    except CheckpointException as error:
        for failure, _ in error.failures.values():
            if not isinstance(failure, Exception):
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

    On all ranks together. InputError if the files lack a name or hold it in another shape.
    """
    reader = HuggingFaceStorageReader(folder)
    stored = reader.read_metadata().state_dict_metadata
    for name, tensor in tensors.items():
        if name not in stored or stored[name].size != tensor.shape:
            raise InputError(f"{folder}: no tensor {name} of shape {tuple(tensor.shape)}; is this "
                             "the run's own checkpoint?")
    with as_it_was(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        distributed.load(tensors, storage_reader=reader)


def hashes(folder, files):
    """{file in folder: sha256, None where it is missing}; each rank reads its share."""
    mine = []
    for name in ranks.share(files):
        path = os.path.join(folder, name)
        mine.append(sha256(path) if os.path.exists(path) else None)
    return dict(zip(files, ranks.gather(mine, len(files))))


def save(run, policies, state, g_dev_average=None):
    """Write {role: policy}, the JSON-able `state` and the running mean of g_dev, if there is one.

    They become the run's newest checkpoint, the one before checkpoint.previous. On all ranks
    together.
    """
    newest = os.path.join(run, "checkpoint")
    part, previous = f"{newest}.part", f"{newest}.previous"
    if ranks.is_main():
        shutil.rmtree(part, ignore_errors=True)
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
    written = glob.glob(os.path.join(glob.escape(part), "*/*.safetensors"))
    files = ranks.from_main(sorted(os.path.relpath(path, part) for path in written))
    digests = hashes(part, files)
    if ranks.is_main():
        with open(os.path.join(part, "state.json"), "w") as f:
            json.dump({**state, "steps": steps, "sha256": digests}, f, indent=1)
            f.flush()
            os.fsync(f.fileno())
        if os.path.exists(newest):
            shutil.rmtree(previous, ignore_errors=True)
            # killed after this: only checkpoint.previous exists, and find() takes it
            os.rename(newest, previous)
        os.rename(part, newest)
        sync(run)
    ranks.barrier()


def drop_newest(run):
    """Remove a newest checkpoint that was found damaged, so that save() does not put it in the
    place of the whole one before it."""
    shutil.rmtree(os.path.join(run, "checkpoint"), ignore_errors=True)


def drop_previous(run):
    """At the end of a run the newest checkpoint is whole and synced, and one is enough to go on."""
    if ranks.is_main() and os.path.exists(os.path.join(run, "checkpoint")):
        shutil.rmtree(os.path.join(run, "checkpoint.previous"), ignore_errors=True)


def exists(run):
    """Was there ever a checkpoint, whole or not?"""
    newest = os.path.join(run, "checkpoint")
    return os.path.exists(newest) or os.path.exists(f"{newest}.previous")


def find(run):
    """-> (folder, state) of the newest whole checkpoint, or (None, None); names damaged ones."""
    for folder in (os.path.join(run, "checkpoint"), os.path.join(run, "checkpoint.previous")):
        if not os.path.exists(folder):
            continue
        try:
            with open(os.path.join(folder, "state.json")) as f:
                state = json.load(f)
            found = hashes(folder, list(state["sha256"]))
            bad = [name for name, digest in state["sha256"].items() if found[name] != digest]
        except (OSError, ValueError, KeyError, TypeError) as error:
            bad = [f"state.json ({type(error).__name__})"]
        if not bad:
            return folder, state
        if ranks.is_main():
            print(f"{folder}: {', '.join(bad)} is cut short or damaged; trying the one before")
    return None, None


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


def cut(path, size):
    """Cut a log back to its size at the checkpoint: the iterations after it are written once."""
    if os.path.exists(path):
        with open(path, "r+b") as f:
            f.truncate(size)
