"""A model in shards: each rank keeps a slice of every weight, gradient and AdamW moment (FSDP2).

It changes where numbers live, not what they are: tests/test_ranks.py and tests/test_shard.py hold 2
and 3 ranks against one process.

    wanted(cfg, P, ..)  should a model of P parameters be cut at all? (--shard)
    split(net, ...)     cut a module, in place: its parameters become DTensors, slices of their
                        first dimension; sizes need not divide
    local(t), whole(t)  this rank's slice of a tensor; the tensor put together on every rank
    total(x, like)      a sum over this rank's slices -> the sum over all of them

With P parameters on R ranks each holds 16 P / R bytes (weights 4, gradients 4, moments 8), and
while a pass runs two layers and the rest (embedding, last norm, head), gathered. A pass is
collective: all ranks gather the same layer at the same time, so one with fewer passes runs empty
ones until it has as many (packing.even_passes): a token without an answer, whose gradients are
exact zeros. Gradients are added up, not averaged, since our losses are already divided by constants
of the whole batch. docs/results/memory.md has what is moved.

On plain tensors local and whole return their argument and total returns x: one process, and ranks
that hold whole copies, take the same path. Missing on purpose: tensor and pipeline parallelism, and
overlap of communication beyond what FSDP does. Never run on a GPU.
"""
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor


def wanted(cfg, P, on_cuda):
    """Should a model of P parameters be cut, where there are several ranks?

    Whole copies are faster where memory is no question.
    """
    large = on_cuda or P >= 10 ** 9
    return cfg.shard == "true" or (cfg.shard == "auto" and large)


def possible(cfg):
    """Are there ranks to cut for? Or one whose group was made to try it (tools/gpu_check.py)?"""
    if not dist.is_initialized() or cfg.shard == "false":
        return False
    return dist.get_world_size() > 1 or cfg.shard == "true"


def split(net, layers, device, bf16):
    """Cut `layers`, and what is left of `net`, over all ranks, on `device`.

    bf16: weights are kept and gradients summed in fp32 all the same.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    precision = MixedPrecisionPolicy()
    if bf16:
        precision = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    # inner ones first: the root takes what is left
    for module in [*layers, net]:
        for p in module.parameters():
            # loaded as stored: only what is about to be cut is whole in fp32
            if not isinstance(p, DTensor):
                p.data = p.data.float()
        fully_shard(module, mesh=mesh, mp_policy=precision)
    for module in net.modules():
        if isinstance(module, FSDPModule):
            # add up, do not average: a factor of 1, by a plain sum, which gloo has too
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def local(t):
    return t.to_local() if isinstance(t, DTensor) else t


def whole(t):
    return t.full_tensor() if isinstance(t, DTensor) else t


def total(x, like):
    """x, a sum over local slices of tensors such as `like` -> the sum over all ranks', in place."""
    if isinstance(like, DTensor):
        dist.all_reduce(x)
    return x
