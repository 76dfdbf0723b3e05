"""A model in shards: each rank keeps a slice of every weight, of its gradient and of AdamW's moments (FSDP2).

It changes where numbers live, not what they are: tests/test_ranks.py and tests/test_shard.py hold 2 and 3 ranks against one process.

    wanted(cfg, P, ..)  should a model of P parameters be cut at all? (--shard)
    split(net, ...)     cut a module, in place: its parameters become DTensors, slices of their first dimension; sizes need not divide
    local(t), whole(t)  this rank's slice of a tensor; the tensor put together on every rank
    total(x, like)      a sum over this rank's slices -> the sum over all of them

The net is cut layer by layer. A layer's weights are gathered when its forward pass begins, dropped when it ends, and gathered once more for
its backward pass; its gradients are summed into slices as soon as they are complete. The rest (embedding, last norm, head) stays gathered
from the beginning of the forward to the end of the backward pass. With P parameters on k ranks, in bytes:

    held by each rank              (4 weights + 4 gradients + 8 moments) P / k, and while a pass runs two layers and the rest, gathered
    moved by each rank, per pass   in bf16 2 x 2 P to gather and 4 P to sum gradients in fp32, in fp32 2 x 4 P and 4 P; all times (k - 1) / k

A pass is collective: all ranks gather the same layer at the same time. So a rank with fewer micro-batches than another runs empty ones until
it has as many (policy.even_passes). An empty pass is a row of one token without an answer: its loss is the empty sum, its gradients are exact
zeros. Accumulating locally until the last pass would move less, but hold a whole gradient on every rank, which sharding is there to avoid.

FSDP averages gradients over ranks. Our losses are already divided by constants of the whole batch, so here they are added up.

On plain tensors local and whole return their argument and total returns x: one process, and ranks that hold whole copies, take the same path.
Each rank reads the whole model into host memory first, and moves it to its device layer by layer. Missing on purpose: tensor and pipeline
parallelism, and overlapping one question's communication with another's arithmetic beyond what FSDP does. Never run on a GPU.
"""
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor


def wanted(cfg, P, on_cuda):
    """Should a model of P parameters be cut, where there are several ranks? Whole copies are faster where memory is no question."""
    return cfg.shard == "true" or (cfg.shard == "auto" and (on_cuda or P >= 10 ** 9))


def split(net, layers, device, bf16):
    """Cut `layers`, and what is left of `net`, over all ranks, on `device`. bf16: weights are kept and gradients summed in fp32 all the same."""
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    precision = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32) if bf16 else MixedPrecisionPolicy()
    for module in [*layers, net]:                           # inner ones first: the root takes what is left
        fully_shard(module, mesh=mesh, mp_policy=precision)
    for module in net.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)          # add up, do not average
            module.set_force_sum_reduction_for_comms(True)  # a factor of 1 by a plain sum, which gloo has too


def local(t):
    return t.to_local() if isinstance(t, DTensor) else t


def whole(t):
    return t.full_tensor() if isinstance(t, DTensor) else t


def total(x, like):
    """x, a sum over local slices of tensors such as `like` -> the sum over all ranks' slices, in place."""
    if isinstance(like, DTensor):
        dist.all_reduce(x)
    return x
