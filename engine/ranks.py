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
    silent(seconds)         the ranks that have died

With one process every function returns its argument, and that is the normal path. What a rank holds
of a model is decided in policy.py: a slice of each weight (engine/shard.py), or a whole copy.

A rank that dies (killed, out of memory, its machine gone) must end the run, not hang it. Some
backends notice and some wait, so twice a second each rank counts up a key in the store that
torchrun keeps, and reads the others' keys. Whoever sees an error asks silent() who is to blame, and
a rank without a sign of life for two minutes ends the run even if no error was seen. A rank that
knows that it cannot go on (fail) says so there, and the others end within a second.
"""
import os
import signal
import sys
import threading
import time
from datetime import timedelta

import torch
import torch.distributed as dist

# Of one rank for another that lives: no stage's shares may differ by more.
WAIT = timedelta(minutes=30)
# Seconds between two signs of life; seconds without one.
BEAT, DEAD = 0.5, 120.0
# Numbers that are added up in one message; a larger tensor goes alone.
BUNDLE = 2 ** 22
# The count of a rank that has left in good order, and of one that cannot go on.
GONE, FAILED = 10 ** 9, 2 * 10 ** 9


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
            if self.somebody_failed(counts):
                # it has said why, and the main thread waits for it in vain; without torchrun the
                # others read a store that ends with rank 0
                time.sleep(2 * BEAT * (self.rank == 0))
                os._exit(1)
            dead = [r for r in range(self.world) if now - seen[r] > DEAD]
            if dead:
                say_dead(dead, "the newest checkpoint is whole; --resume goes on from there")
                # the main thread may be waiting for the dead, and cannot be woken
                os._exit(1)

    def somebody_failed(self, counts):
        """Has another rank said that it cannot go on?"""
        return any(count >= FAILED for r, count in enumerate(counts) if r != self.rank)

    def stop(self):
        self.ended.set()
        self.counts(GONE)


def fail(message):
    """This rank cannot go on: say why, let the others end, and end with code 2.

    Not by a clean exit, which waits for collectives that will not come. Where another rank has
    said something of the kind already, it is left at that.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not Pulse.own.somebody_failed(Pulse.own.counts()):
        print(f"\n{message}", file=sys.stderr, flush=True)
    Pulse.own.ended.set()
    Pulse.own.counts(FAILED)
    # until the others have read it
    time.sleep(4 * BEAT)
    os._exit(2)


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
