"""What a device is told before the first tensor. It changes when memory is taken and which kernel
runs, and no number of a CPU run.

    CPU    freed memory stays with the process
    CUDA   segments that grow, since every pass has another length: fixed ones are left in pieces
           no cuDNN attention: it plans anew for every new length, for tens of milliseconds
           pinned memory of the size asked for, not of the next power of two

vLLM's sleep refuses segments that grow, so with --sampler vllm they do not. What the
environment sets (PYTORCH_ALLOC_CONF) wins. The lines for CUDA have not met a GPU: docs/first-gpu.md
says what to look at there.
"""
import ctypes
import os

import torch

PINNED = "pinned_max_round_threshold_mb:1"
# Read by torch itself, the second by its older releases.
ENVIRONMENT = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


def prepare(device, sampler):
    """Once per role, before its model is loaded; twice does no harm."""
    if device.type == "cpu":
        keep_memory()
        return
    torch.cuda.set_device(device)
    torch.backends.cuda.enable_cudnn_sdp(False)
    settings = allocator(sampler, os.environ)
    if settings:
        torch._C._accelerator_setAllocatorSettings(settings)


def allocator(sampler, environment):
    """-> torch's allocator settings, or "" where a person has made some.

    >>> allocator("plain", {})
    'pinned_max_round_threshold_mb:1,expandable_segments:True'
    >>> allocator("vllm", {})
    'pinned_max_round_threshold_mb:1,expandable_segments:False'
    >>> allocator("plain", {"PYTORCH_ALLOC_CONF": "backend:native"})
    ''
    """
    if any(environment.get(name) for name in ENVIRONMENT):
        return ""
    return f"{PINNED},expandable_segments:{sampler != 'vllm'}"


def release(device):
    """Give back what the allocator holds and nothing uses: a sampling stage's cache has other sizes
    than the passes after it.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()


def is_out_of_memory(error):
    """Of a GPU, of Python, or of torch on a CPU, which says so only in words."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def keep_memory():
    """Let freed memory stay with the process, where the C library is glibc.

    It would give large tensors back to the system and fault them in again. Fresh memory costs more
    than what is computed in it, and two ranks that ask for it at once wait for each other (LOG.md).
    Peaks stay as they are.
    """
    if os.name != "posix":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        # malloc.h: M_TRIM_THRESHOLD never; M_MMAP_MAX none
        mallopt(-1, -1)
        mallopt(-4, 0)
