"""Rows end to end: a pass without padding, in which every row attends to itself alone.

    rows of lengths 5, 3, 2   --side by side-->  (3, 5) with 5 places of padding
                              --end to end---->  (1, 10), ends (0, 5, 8, 10)

The ends travel as the attention mask, so that any model passes them on to its layers, also when a
layer is computed again in the backward pass. On CUDA in bf16 torch's varlen_attn reads them
(FlashAttention; it has a backward pass and takes fewer key heads than query heads). Anywhere else
each row goes through plain attention, one after the other: slow, and the same numbers
(tests/test_varlen.py). The kernel itself has not met a GPU here: tools/gpu_check.py compares.

    code      shape              meaning
    ends      (R + 1,)           where rows end, int32, from 0 on
    mask      (1, N, W, R + 1)   ends, expanded: N the longest row, W the window or 1. The kernel
                                 wants both as Python numbers, and reading them off the device
                                 would wait for it in every layer
    query     (1, heads, T, size)  T tokens of all rows; key, value the same
"""
from itertools import accumulate, pairwise

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from engine.attention import heads_of
from engine.masks import by_kind

# What FlashAttention is built for: Ampere and later, heads of at most 256 in steps of 8.
OLDEST_GPU, LARGEST_HEAD, STEP = (8, 0), 256, 8


def wanted(cfg, policy):
    """Should rows of this role go end to end? (--end_to_end)"""
    if cfg.end_to_end != "auto":
        return cfg.end_to_end == "true"
    return policy.bf16 and kernel_fits(policy.model, policy.device)


def kernel_fits(model, device):
    """Has torch's flash attention, in 16 bits, a kernel for this model's heads on this device?"""
    if device.type != "cuda":
        return False
    _, _, size = heads_of(model.config)
    fits = size <= LARGEST_HEAD and size % STEP == 0
    return fits and torch.cuda.get_device_capability(device) >= OLDEST_GPU


def accept(model):
    """Let the model's attention, whichever it is, take such rows.

    -> False if its layers do not look their attention up by name.
    """
    if not model._can_set_attn_implementation():
        return False
    name = model.config._attn_implementation
    if name.endswith(" or rows"):
        return True
    plain = ALL_ATTENTION_FUNCTIONS[name]

    # called attention_mask, since some layers pass it by keyword
    def attention(module, query, key, value, attention_mask, **words):
        if attention_mask is not None and attention_mask.dtype == torch.int32:
            return row_attention(query, key, value, attention_mask, words.get("scaling"))
        return plain(module, query, key, value, attention_mask, **words)

    AttentionInterface.register(f"{name} or rows", attention)
    AttentionMaskInterface.register(f"{name} or rows", AttentionMaskInterface()[name])
    model.set_attn_implementation(f"{name} or rows")
    return True


def row_masks(model, lengths, device):
    """Lengths of R rows -> what `attention_mask` takes, for each kind of layer."""
    ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
    full = ends.expand(1, max(lengths), 1, -1)
    return by_kind(model, full, lambda window: ends.expand(1, max(lengths), window, -1))


def row_attention(query, key, value, mask, scale):
    """-> (1, T, heads, size), None: what an attention function of transformers returns."""
    _, longest, window, _ = mask.shape
    ends = mask[0, 0, 0]
    near = window if window > 1 else None
    if query.is_cuda and value.dtype in (torch.bfloat16, torch.float16):
        out = by_kernel(query, key, value, ends, longest, near, scale)
    else:
        out = by_row(query, key, value, ends.tolist(), near, scale)
    return out, None


def by_kernel(query, key, value, ends, longest, window, scale):
    # a norm leaves fp32 under autocast, which knows nothing of this kernel
    q, k, v = (x[0].transpose(0, 1).to(value.dtype) for x in (query, key, value))   # (T, heads, .)
    left = -1 if window is None else window - 1
    out = varlen_attn(q, k, v, ends, ends, longest, longest, scale=scale, window_size=(left, 0),
                      enable_gqa=q.shape[1] != k.shape[1])
    return out[None]


def by_row(query, key, value, ends, window, scale):
    """The kernel's stand-in in passes; attention.varlen is the one of sampling."""
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    parts = []
    for a, b in pairwise(ends):
        q, k, v = (x[:, :, a:b] for x in (query, key, value))
        near = None
        if window is not None and b - a > window:
            near = torch.ones(b - a, b - a, dtype=torch.bool, device=q.device)
            near = near.tril_().triu_(1 - window)
        parts.append(scaled_dot_product_attention(q, k, v, attn_mask=near, scale=scale,
                                                  is_causal=near is None))
    return torch.cat(parts, dim=2).transpose(1, 2)                      # (1, T, heads, size)
