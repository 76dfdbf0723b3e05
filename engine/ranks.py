"""Several processes as one: what the method asks of torch.distributed, and what it is without it.

    share(items)            this rank's part: items[rank], items[rank + world], ...
    evenly(items)           items, largest first, in an order in which share() gives every rank
                            about as much
    gather(part, n)         the inverse: every rank's part -> the whole list of n, in order
    most(n)                 the largest n of all ranks
    divided(work, items)    work(this rank's share) -> the results of all items, everywhere: for
                            judgements that a clock can change (a time-out)
    from_main(value)        what the main rank computed, everywhere
    sum_gradients(params)   .grad -> the sum over ranks, in place
    is_main()               one rank writes files and talks
    meet(cfg)               before anything else: InputError unless all were started alike
    same(found, what)       InputError unless all ranks found the same
    refuse(line)            an InputError of one rank ends all, with one line
    silent(seconds)         the ranks that have died

With one process every function returns its argument, and that is the normal path. What a rank holds
of a model is decided in policy.py: a slice of each weight (engine/shard.py), or a whole copy.

A rank that dies (killed, out of memory, its machine gone) must end the run, not hang it. Some
backends notice and some wait, so twice a second each rank counts up a key in the store that
torchrun keeps, and reads the others' keys. Whoever sees an error asks silent() who is to blame, and
a rank without a sign of life for two minutes ends the run even if no error was seen. A rank that
knows that it cannot go on (refuse) says so there, and the others end within seconds.
"""
import json
import os
import signal
import sys
import threading
import time
from datetime import timedelta

import torch
import torch.distributed as dist

from config import SETTINGS
from data import InputError
from engine.speech import complain

# How long one rank waits for another that lives: no stage's shares may differ by more.
WAIT = timedelta(minutes=30)
# Seconds between two signs of life; seconds without one.
BEAT, DEAD = 0.5, 120.0
# Numbers that are added up in one message; a larger tensor goes alone.
BUNDLE = 2 ** 22
# The count of a rank that has left in good order; of one that was given something it cannot use.
GONE = 10 ** 9
REFUSED = 10 ** 12


# The store that meet() opened: where rank 0 serves it, it lives as long as this.
MET = []


def meet(cfg, patience=timedelta(minutes=10)):
    """Ranks tell each other their Config, or the InputError in its place, before anything is done.

    InputError, the same on every rank, if one has one or if a field differs. Through the store
    alone: no group can be made by ranks that do not agree on its kind.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    mine = {"error": str(cfg)} if isinstance(cfg, InputError) else {
        "fields": {name: getattr(cfg, name) for name in SETTINGS}}
    if world == 1:
        if "error" in mine:
            raise cfg
        return
    lacking = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if lacking:
        raise InputError(f"WORLD_SIZE is {world} in the environment but {lacking[0]} is not set; "
                         "start with torchrun, or unset WORLD_SIZE")
    everyones = exchange(json.dumps(mine), world, patience)
    complaint = disagreement([json.loads(text) for text in everyones])
    if complaint:
        raise InputError(complaint)


def exchange(text, world, patience):
    """Every rank's text -> all of them, in order of rank, on each."""
    try:
        store, rank, _ = next(dist.rendezvous("env://", timeout=patience))
        MET.append(store)
        store.set(f"meet/{rank}", text)
        found = [store.get(f"meet/{r}").decode() for r in range(world)]
        store.add("met", 1)
        # who serves the store leaves last
        end = time.monotonic() + 10
        while rank == 0 and store.add("met", 0) < world and time.monotonic() < end:
            time.sleep(0.02)
        return found
    except (RuntimeError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        raise InputError(f"the {world} ranks did not find each other ({why})") from None


def disagreement(everyones):
    """[{"fields"} or {"error"} of each rank] -> what to say about them; None if all are alike."""
    first = everyones[0]
    for r, theirs in enumerate(everyones):
        if "error" in theirs:
            return theirs["error"] if "error" in first else f"rank {r}: {theirs['error']}"
    for r, theirs in enumerate(everyones):
        for name, value in theirs["fields"].items():
            if value != first["fields"].get(name):
                return (f"rank {r} was started with {name} = {value!r}, rank 0 with "
                        f"{first['fields'].get(name)!r}; all ranks need the same command line")
    return None


def same(found, what):
    """{name: anything JSON takes} of each rank. InputError on all unless all found the same.

    what: the words between "rank 1 " and " rank 0", with {} for the names that differ.
    """
    everyones = gather([found], world())
    for r, theirs in enumerate(everyones):
        names = sorted({*theirs, *everyones[0]})
        differ = [name for name in names if theirs.get(name) != everyones[0].get(name)]
        if differ:
            raise InputError(f"rank {r} {what.format(', '.join(differ))} rank 0; all ranks must "
                             "read the same files")


def refuse(line):
    """An InputError's line: said once, by the first rank that has one, and the end of all ranks.

    Those that have none may be waiting for this one, and end by their Pulse.
    """
    if Pulse.own is None:
        if is_main():
            complain(line)
        return
    if Pulse.own.first():
        complain(line)
    Pulse.own.counts(REFUSED)
    Pulse.own.leave_last()


def start(device):
    """Join the group that torchrun announced, if it did; nccl on CUDA, gloo on CPU.

    From then on a SIGTERM raises Terminated.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        return
    if device.type == "cuda":
        # object collectives use the current device
        torch.cuda.set_device(device)
    dist.init_process_group(**group_words(device))
    signal.signal(signal.SIGTERM, terminate)
    Pulse.own = Pulse()


def group_words(device):
    """What init_process_group is told.

    On CUDA the device too: else the first barrier guesses it from the rank, which is wrong with
    several machines, and the connections are made in the middle of the first stage.
    """
    if device.type == "cuda":
        return {"backend": "nccl", "timeout": WAIT, "device_id": device}
    return {"backend": "gloo", "timeout": WAIT}


def stop():
    # not is_initialized: vLLM starts a group of its own in a single process
    if Pulse.own:
        Pulse.own.stop()
        dist.destroy_process_group()


def world():
    return dist.get_world_size() if dist.is_initialized() else 1


def rank():
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", "0"))


def is_main():
    return rank() == 0


# ---------------------------------------------------------------- dividing work

def share(items):
    return items[rank()::world()]


def evenly(items, R=None):
    """Items, largest first -> the order in which R ranks (all there are) take them in turn.

    A rank's sum differs from another's by at most one item, since who takes the larger one takes
    the smaller one in the next round. The last round may be short and begins with rank 0. Below
    rank 0 gets 9 + 4 + 1, rank 1 7 + 5.

    >>> evenly([9, 7, 5, 4, 1], 2)
    [9, 7, 4, 5, 1]
    """
    R = R or world()
    rounds = [items[i:i + R] for i in range(0, len(items), R)]
    order = []
    for i, some in enumerate(rounds):
        order += some if (len(rounds) - i) % 2 else some[::-1]
    return order


def gather(part, n):
    """This rank's share -> the whole list of n items in the order share() took them from."""
    if world() == 1:
        return part
    parts = [None] * world()
    # our own processes' objects, never a file's
    dist.all_gather_object(parts, part)
    whole = [None] * n
    for r, theirs in enumerate(parts):
        whole[r::world()] = theirs
    return whole


def divided(work, items):
    """work: a list -> a result for each of its items. Every rank does its share -> all results, in
    order, on every rank.
    """
    return gather(work(share(items)), len(items))


def from_main(value):
    """The main rank's value, on every rank."""
    box = [value]
    if world() > 1:
        dist.broadcast_object_list(box)
    return box[0]


def most(n):
    """The largest of all ranks' n."""
    return max(gather([n], world()))


def sum_gradients(params):
    """Add up .grad over ranks, in place. A rank that had no groups contributes zeros.

    Small tensors go together: a message costs more than its bytes.
    """
    if world() == 1:
        return
    bundles, room = [], 0
    for p in params:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
        if p.numel() > room:
            bundles, room = bundles + [[]], BUNDLE
        bundles[-1].append(p.grad)
        room -= p.numel()

    for grads in bundles:
        flat = torch.cat([g.flatten() for g in grads])
        dist.all_reduce(flat)
        for g, part in zip(grads, flat.split([g.numel() for g in grads])):
            g.copy_(part.view_as(g))


def barrier():
    if dist.is_initialized():
        dist.barrier()


# ---------------------------------------------------------------- who is alive

class Terminated(BaseException):
    """Somebody sent SIGTERM: torchrun, because a rank has failed, or a person."""


def terminate(*_):
    raise Terminated


class Pulse(threading.Thread):
    """This rank's signs of life, and an eye on those of the others. One in each process, `own`."""
    own = None

    def __init__(self):
        super().__init__(daemon=True)
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self.store = dist.TCPStore(host, port, is_master=False, wait_for_workers=False)
        self.rank, self.world, self.ended = rank(), world(), threading.Event()
        self.start()

    def counts(self, mine=0):
        """[count of each rank], `mine` added to this rank's."""
        found = []
        try:
            for r in range(self.world):
                found.append(self.store.add(f"pulse/{r}", mine if r == self.rank else 0))
            return found
        except RuntimeError:
            # without torchrun the store is rank 0's, and died with it
            return [GONE - 1] + [GONE] * (self.world - 1)

    def run(self):
        last, awake = [0] * self.world, time.monotonic()
        seen = [awake] * self.world
        while not self.ended.wait(BEAT):
            now, counts = time.monotonic(), self.counts(1)
            if now - awake > 10 * BEAT:
                # this process was stopped itself, perhaps the whole job: the others' time begins
                # again
                seen = [now] * self.world
            awake = now
            for r, count in enumerate(counts):
                if count != last[r] or count >= GONE:
                    seen[r] = now
            last = counts
            if max(counts) >= REFUSED:
                # it has said why
                self.leave_last()
                os._exit(2)
            dead = [r for r in range(self.world) if now - seen[r] > DEAD]
            if dead:
                say_dead(dead, "the newest checkpoint is whole; --resume goes on from there")
                # the main thread may be waiting for the dead, and cannot be woken
                os._exit(1)

    def first(self):
        """Is this the first rank that has something to say?"""
        try:
            return self.store.add("said", 1) == 1
        except RuntimeError:
            return False

    def leave_last(self):
        """Without torchrun the store is rank 0's: the others have time to hear of an end."""
        if self.rank == 0:
            time.sleep(6 * BEAT)

    def stop(self):
        self.ended.set()
        self.counts(GONE)


def silent(seconds=5):
    """The ranks that give no sign of life for so long. SIGTERM is ignored from here on."""
    if Pulse.own is None:
        return []
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    before = Pulse.own.counts()
    time.sleep(seconds)
    after = Pulse.own.counts()
    return [r for r, (a, b) in enumerate(zip(before, after)) if a == b and a < GONE]


def say_dead(dead, advice):
    """One line, from the first rank that lives."""
    if Pulse.own.rank != min(set(range(Pulse.own.world)) - set(dead)):
        return
    names = f"rank{'s' * (len(dead) > 1)} {', '.join(map(str, dead))} of {Pulse.own.world}"
    cause = "killed, out of memory, or its machine is gone"
    print(f"\nerror: {names} died ({cause}), so the run has ended; {advice}", file=sys.stderr,
          flush=True)
