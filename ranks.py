"""Several processes as one: the few things the method asks of torch.distributed, and what they are without it.

Plain data parallelism: every rank holds both models and computes its share of rows; sums and lists are put together here. With one process every
function returns its argument, and that is the normal path.

    share(items)            this rank's part: items[rank], items[rank + world], ...
    gather(part, n)         the inverse: every rank's part -> the whole list of n, in order
    most(n)                 the largest n of all ranks
    from_main(value)        what the main rank computed, everywhere: for judgements that a clock can change (a time-out)
    sum_gradients(params)   .grad -> the sum over ranks, in place
    is_main()               one rank writes files and talks

Missing on purpose: sharding (FSDP2). It changes where numbers live, not what they are, and comes on top of this.
"""
import os
from datetime import timedelta

import torch
import torch.distributed as dist


def start(device):
    """Join the group that torchrun announced, if it did; nccl on CUDA, gloo on CPU."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)                   # object collectives use the current device
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(hours=2))    # others wait while one saves


def stop():
    if dist.is_initialized():
        dist.destroy_process_group()


def world():
    return dist.get_world_size() if dist.is_initialized() else 1


def rank():
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", "0"))


def is_main():
    return rank() == 0


def share(items):
    return items[rank()::world()]


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
    """Add up .grad over ranks, in place. A rank that had no rows contributes zeros."""
    if world() == 1:
        return
    for p in params:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
        dist.all_reduce(p.grad)


def barrier():
    if dist.is_initialized():
        dist.barrier()
