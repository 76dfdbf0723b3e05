"""Which tokens see which: masks for padded prompts, for rows that are being sampled, and for trees.
"""
import math

import torch


def masks_for(model, allowed, q_pos, k_pos):
    """(B, 1, q, k) booleans -> what `attention_mask` takes; models with sliding layers (OLMo-3) get
    one per kind of layer.

    q_pos (B, q), k_pos (B, k): positions. A window counts positions, not columns: in a tree the
    second answer stands behind the first.
    """
    def near(window):
        distance = q_pos[:, None, :, None] - k_pos[:, None, None, :]
        return allowed & (distance < window)
    return by_kind(model, allowed, near)


def by_kind(model, full, near):
    """-> what `attention_mask` takes: `full` if no layer slides, near(window) if all may, or one
    per kind of layer.
    """
    config = model.config.get_text_config()
    kinds, window = getattr(config, "layer_types", None), getattr(config, "sliding_window", None)
    if not window or (kinds and "sliding_attention" not in kinds):
        return full
    return {"full_attention": full, "sliding_attention": near(window)} if kinds else near(window)


def windows_of(model):
    """-> for each layer how many positions it sees, itself included, or None: all. As by_kind."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None) or None
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
    return [window if kind == "sliding_attention" else None for kind in kinds]


def tree_masks(model, positions, ends, dtype):
    """(B, L) positions, (B, L) ends -> what `attention_mask` takes: every token sees itself and its
    ancestors.

    0 and -inf in the type of the queries: of booleans torch would make such a mask in every layer
    and keep them all until the backward pass.
    """
    places = torch.arange(ends.shape[1], device=ends.device)
    below = places[:, None] < ends[:, None, :]
    allowed = below.tril_()[:, None]                                                # (B, 1, L, L)
    masks = masks_for(model, allowed, positions, positions)
    if isinstance(masks, dict):
        return {kind: as_numbers(mask, dtype) for kind, mask in masks.items()}
    return as_numbers(masks, dtype)


def as_numbers(mask, dtype):
    numbers = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return numbers.masked_fill_(mask.logical_not(), -math.inf)
