"""Saves a run so that it can go on as if it had never stopped: atomic, verified, and without pickle.

    checkpoint/             the newest
    checkpoint.previous/    the one before, used when the newest is cut short or damaged
        solver.safetensors, generator.safetensors    fp32 weights and AdamW's two moments: "weight.NAME", "exp_avg.NAME", "exp_avg_sq.NAME"
        state.json                                   iteration, step counts, sizes of the logs, counters, and the sha256 of the files beside it

A checkpoint is written to checkpoint.part/, synced to disk, and renamed. A run can be killed at any moment: what is called checkpoint/ is whole, and if
the disk lies, the hashes tell. The logs are cut back to the sizes they had, so no iteration is written twice.

Random state: there is none to save. Every draw is a function of (seed, iteration, role, stage, row), see policy.uniforms; the document cursor is the
iteration, see data.document_batch. So "every random state" is two numbers in config.json and state.json.
"""
import hashlib
import json
import os
import shutil

import torch
from safetensors import safe_open
from safetensors.torch import save_file

import ranks
from data import InputError

MOMENTS = ("exp_avg", "exp_avg_sq")


def names(policy):
    """Parameter names in the order of policy.params; a tied tensor has one."""
    by_id = {id(p): name for name, p in policy.model.named_parameters()}
    return [by_id[id(p)] for p in policy.params]


def policy_tensors(policy):
    """A policy -> {name: tensor}: weights, and both moments once AdamW has taken a step."""
    tensors = {}
    for name, p in zip(names(policy), policy.params):
        tensors[f"weight.{name}"] = p.detach()
        for moment in MOMENTS if policy.optimizer.state.get(p) else ():
            tensors[f"{moment}.{name}"] = policy.optimizer.state[p][moment]
    return {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}


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


def save(run, policies, state, g_dev_average=None):
    """Write {role: policy}, the JSON-able `state` and the running mean of g_dev, if there is one, as the run's newest checkpoint.

    The one before becomes checkpoint.previous.
    """
    part, newest, previous = (os.path.join(run, f"checkpoint{end}") for end in (".part", "", ".previous"))
    shutil.rmtree(part, ignore_errors=True)
    os.makedirs(part)
    files, hashes = list(policies) + (["g_dev_average"] if g_dev_average is not None else []), {}
    for name in files:                                      # one at a time: each is as large as a model and its AdamW
        path = os.path.join(part, f"{name}.safetensors")
        save_file(policy_tensors(policies[name]) if name in policies else
                  {key: g.contiguous().cpu() for key, g in zip(names(policies["solver"]), g_dev_average)}, path)
        sync(path)
        hashes[f"{name}.safetensors"] = sha256(path)
    steps = {role: {"adam": policy_steps(policy), "skipped": policy.skipped} for role, policy in policies.items()}
    with open(os.path.join(part, "state.json"), "w") as f:
        json.dump({**state, "steps": steps, "sha256": hashes}, f, indent=1)
        f.flush()
        os.fsync(f.fileno())
    if os.path.exists(newest):
        shutil.rmtree(previous, ignore_errors=True)
        os.rename(newest, previous)                     # killed here: only checkpoint.previous exists, and find() takes it
    os.rename(part, newest)
    sync(run)


def holds(path, digest):
    """Is the file there, with this sha256?"""
    return os.path.exists(path) and sha256(path) == digest


def drop_newest(run):
    """Remove a newest checkpoint that was found damaged, so that save() does not put it in the place of the whole one before it."""
    shutil.rmtree(os.path.join(run, "checkpoint"), ignore_errors=True)


def exists(run):
    """Was there ever a checkpoint, whole or not?"""
    return any(os.path.exists(os.path.join(run, name)) for name in ("checkpoint", "checkpoint.previous"))


def find(run):
    """-> (folder, state) of the newest whole checkpoint, or (None, None). Says on the way which ones are damaged."""
    for folder in (os.path.join(run, "checkpoint"), os.path.join(run, "checkpoint.previous")):
        if not os.path.exists(folder):
            continue
        try:
            with open(os.path.join(folder, "state.json")) as f:
                state = json.load(f)
            bad = [name for name, digest in state["sha256"].items() if not holds(os.path.join(folder, name), digest)]
        except (OSError, ValueError, KeyError, TypeError) as error:
            bad = [f"state.json ({type(error).__name__})"]
        if not bad:
            return folder, state
        if ranks.is_main():
            print(f"{folder}: {', '.join(bad)} is cut short or damaged; trying the checkpoint before it")
    return None, None


def load(folder, state, policies):
    """Put weights, moments and step counts of a checkpoint into {role: policy}; -> its running mean of g_dev, or None.

    InputError if its tensors are not those of the model.
    """
    for role, policy in policies.items():
        steps, path = state["steps"][role], os.path.join(folder, f"{role}.safetensors")
        policy.skipped = steps["skipped"]
        with safe_open(path, framework="pt", device=str(policy.device)) as f:
            for name, p in zip(names(policy), policy.params):
                if f"weight.{name}" not in f.keys() or f.get_slice(f"weight.{name}").get_shape() != list(p.shape):
                    raise InputError(f"{path}: no tensor weight.{name} of shape {tuple(p.shape)}; is this the run's own checkpoint?")
                with torch.no_grad():
                    p.copy_(f.get_tensor(f"weight.{name}"))
                if steps["adam"]:
                    policy.optimizer.state[p] = {"step": torch.tensor(float(steps["adam"])),
                                                 **{moment: f.get_tensor(f"{moment}.{name}") for moment in MOMENTS}}
    if "g_dev_average.safetensors" not in state["sha256"]:
        return None
    solver = policies["solver"]
    with safe_open(os.path.join(folder, "g_dev_average.safetensors"), framework="pt", device=str(solver.device)) as f:
        return [f.get_tensor(name) for name in names(solver)]


def cut(path, size):
    """Cut a log back to the size it had at the checkpoint, so that the iterations after it are written once."""
    if os.path.exists(path):
        with open(path, "r+b") as f:
            f.truncate(size)
