"""Several processes as one: the few things the method asks of torch.distributed, and what they are without it.

Every rank computes its share of rows; sums and lists are put together here. What a rank holds of a model is decided in policy.py: a slice
of each weight (shard.py), or a whole copy. With one process every function returns its argument, and that is the normal path.

    share(items)            this rank's part: items[rank], items[rank + world], ...
    evenly(items)           items, largest first, in an order in which share() gives every rank about as much
    gather(part, n)         the inverse: every rank's part -> the whole list of n, in order
    most(n)                 the largest n of all ranks
    from_main(value)        what the main rank computed, everywhere: for judgements that a clock can change (a time-out)
    sum_gradients(params)   .grad -> the sum over ranks, in place
    is_main()               one rank writes files and talks
    silent(seconds)         the ranks that have died

A rank that dies (killed, out of memory, its machine gone) must end the run, not hang it. Some backends notice and some wait, so twice a
second each rank counts up a key in the store that torchrun keeps, and reads the others' keys. Whoever sees an error asks silent() who is
to blame, and a rank without a sign of life for two minutes ends the run even if no error was seen.
"""
import os
import signal
import sys
import threading
import time
from datetime import timedelta

import torch
import torch.distributed as dist

WAIT = timedelta(minutes=30)    # of one rank for another that lives: no stage's shares may differ by more
BEAT, DEAD = 0.5, 120.0         # seconds between two signs of life; seconds without one
BUNDLE = 2 ** 22                # numbers that are added up in one message; a larger tensor goes alone
GONE = 10 ** 9                  # the count of a rank that has left in good order


def start(device):
    """Join the group that torchrun announced, if it did; nccl on CUDA, gloo on CPU. From then on a SIGTERM raises Terminated."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)                   # object collectives use the current device
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=WAIT)
        signal.signal(signal.SIGTERM, terminate)
        Pulse.own = Pulse()


def stop():
    if Pulse.own:                                           # not is_initialized: vLLM starts a group of its own in a single process
        Pulse.own.stop()
        dist.destroy_process_group()


def world():
    return dist.get_world_size() if dist.is_initialized() else 1


def rank():
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", "0"))


def is_main():
    return rank() == 0


def share(items):
    return items[rank()::world()]


def evenly(items, k=None):
    """Items, largest first -> the order in which k ranks (all there are, unless given) take them in turn: a rank's sum differs from another's by at
    most one item, since who takes the larger one takes the smaller one in the next round. The last round may be short and begins with rank 0.

    >>> evenly([9, 7, 5, 4, 1], 2)          # rank 0: 9 + 4 + 1, rank 1: 7 + 5
    [9, 7, 4, 5, 1]
    """
    k = k or world()
    rounds = [items[i:i + k] for i in range(0, len(items), k)]
    return [item for i, some in enumerate(rounds) for item in (some if (len(rounds) - i) % 2 else some[::-1])]


def gather(part, n):
    """This rank's share -> the whole list of n items in the order share() took them from."""
    if world() == 1:
        return part
    parts = [None] * world()
    dist.all_gather_object(parts, part)                     # our own processes' objects, never a file's
    whole = [None] * n
    for r, p in enumerate(parts):
        whole[r::world()] = p
    return whole


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
    """Add up .grad over ranks, in place. A rank that had no rows contributes zeros. Small tensors go together: a message costs more than its bytes."""
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
    """This rank's signs of life, and an eye on those of the others."""
    own = None                                              # there is one in each process

    def __init__(self):
        super().__init__(daemon=True)
        self.store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, wait_for_workers=False)
        self.rank, self.world, self.ended = rank(), world(), threading.Event()
        self.start()

    def counts(self, mine=0):
        """[count of each rank], `mine` added to this rank's."""
        try:
            return [self.store.add(f"pulse/{r}", mine if r == self.rank else 0) for r in range(self.world)]
        except RuntimeError:                                # without torchrun the store is rank 0's, and died with it
            return [GONE - 1] + [GONE] * (self.world - 1)

    def run(self):
        last, seen, awake = [0] * self.world, [time.monotonic()] * self.world, time.monotonic()
        while not self.ended.wait(BEAT):
            now, counts = time.monotonic(), self.counts(1)
            if now - awake > 10 * BEAT:                     # this process was stopped itself, perhaps the whole job: the others' time begins again
                seen = [now] * self.world
            awake = now
            seen = [now if count != before or count >= GONE else then for count, before, then in zip(counts, last, seen)]
            last = counts
            dead = [r for r in range(self.world) if now - seen[r] > DEAD]
            if dead:
                say_dead(dead, "the newest checkpoint is whole; --resume goes on from there")
                os._exit(1)                                 # the main thread may be waiting for the dead, and cannot be woken

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
    return [r for r, (a, b) in enumerate(zip(before, Pulse.own.counts())) if a == b and a < GONE]


def say_dead(dead, advice):
    """One line, from the first rank that lives."""
    if Pulse.own.rank == min(set(range(Pulse.own.world)) - set(dead)):
        names = f"rank{'s' * (len(dead) > 1)} {', '.join(map(str, dead))} of {Pulse.own.world}"
        cause = "killed, out of memory, or its machine is gone"
        print(f"\nerror: {names} died ({cause}), so the run has ended; {advice}", file=sys.stderr, flush=True)
