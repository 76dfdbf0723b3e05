"""The role that is not at work waits in host memory, with its AdamW.

    leave       weights, moments, step counts: device -> host
    come back   host -> device; parameters stay the same objects

On CUDA the host's side is pinned, so that the copies run at the speed of the bus and not at a
tenth of it. Pinning is slow, so each tensor's place is taken once and kept: 12 bytes a parameter of
a role on its node, beside the device's own. On a CPU both are one place, and nothing moves. Whole
tensors and slices (engine/shard.py) take the same path.
"""
import torch

from engine import shard


class Waiting:
    """Where a role's tensors wait: {key: a host tensor, kept for the next time}.

    apart: is host memory another place than the device?
    """

    def __init__(self, device):
        self.apart = self.pinned = device.type == "cuda"
        self.places = {}

    @torch.no_grad()
    def put(self, key, t):
        """A tensor on the device -> its copy in host memory, always in the same place.

        The copy may still be on its way: synchronise before it is read.
        """
        if key not in self.places:
            host = t.detach().to("cpu", copy=True)
            mine = shard.local(host)
            if self.pinned:
                mine.set_(mine.pin_memory())
            self.places[key] = host
            return host
        shard.local(self.places[key]).copy_(shard.local(t.detach()), non_blocking=True)
        return self.places[key]


def move(net, optimizer, place, waiting):
    """A module and its AdamW to `place`: the device, or "cpu", where they wait."""
    if not waiting.apart:
        return
    leaves = place == "cpu"

    def moved(t, key):
        if leaves:
            return waiting.put(key, t)
        return t.detach().to(place, non_blocking=True, copy=True)

    def parameter(t):
        # buffers stay: they are small
        return moved(t, id(t)) if isinstance(t, torch.nn.Parameter) else t

    # what module.to() does, with a copy of our own; FSDP2 notices it too
    net._apply(parameter)
    for p, state in optimizer.state.items():
        # a fused AdamW counts on the device, so its step goes along
        for name in ("exp_avg", "exp_avg_sq", "step"):
            state[name] = moved(state[name], (id(p), name))
    if waiting.pinned:
        torch.cuda.synchronize()
