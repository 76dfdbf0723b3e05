"""The attention of sampling: keys and values are read where they lie, never once per query head.

Where G query heads share a head of keys and values, transformers copies both G times before it
masks them, at every token and in every layer. The *fold* does without: one token's G queries stand
in the length, like G tokens that all see what the one token sees.

    code      shape                  meaning
    R, T                             rows; tokens of all rows, end to end
    H, K, D                          query heads, key-value heads, size of one; G = H / K
    query     (R, H, 1, D)           of one token for each row; (T, H, D) end to end
    key       (R, K, L, D)           value the same; (N, K, D) in a flat cache
    mask      (R, 1, 1, L)           what a row's token sees

`folded` is for padded rows, `varlen` for rows end to end (engine/flat.py). Where no heads are
shared, where more than one token is read, and where a layer adds to its scores, `folded` calls
transformers' own function as it would have been called.
"""
import contextlib

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

# Under this name transformers knows our function; masks it leaves to us.
NAME = "infuser"
# What a layer may want beside a mask: a cap on scores, sinks, a bias of positions.
EXTRAS = ("softcap", "s_aux", "position_bias")


@contextlib.contextmanager
def attending(model, function):
    """Within, the layers of the model call `function` in place of transformers' own.

    A model that cannot be told so (can_attend) goes on as it was.
    """
    if not can_attend(model):
        yield
        return
    before = model.config._attn_implementation
    AttentionInterface.register(NAME, function)
    model.config._attn_implementation = NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before


def can_attend(model):
    """Do its layers look their attention up by name? transformers finds out from their source."""
    return model._can_set_attn_implementation()


def heads_of(config):
    """A model's config -> H, K, D, as above."""
    c = config.get_text_config()
    H = c.num_attention_heads
    K = getattr(c, "num_key_value_heads", None) or H
    return H, K, getattr(c, "head_dim", None) or c.hidden_size // H


def extras(more):
    """What a layer wants beside a mask -> names."""
    return [name for name in EXTRAS if more.get(name) is not None]


def folded(module, query, key, value, attention_mask, scaling=None, **more):
    """An attention function as transformers calls them -> (R, 1, H, D), None."""
    R, H, L, D = query.shape
    K = key.shape[1]
    if L > 1 or H == K or extras(more):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **more)

    query = query.reshape(R, K, H // K, D)
    out = scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, scale=scaling)
    return out.reshape(R, 1, H, D), None


# ---------------------------------------------------------------- rows end to end

def varlen(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None,
           window_size=(-1, -1), enable_gqa=True, seqused_k=None):
    """torch's varlen_attn, one row after the other, for devices without its kernel -> (T, H, D).

    The queries of row i are those from cu_seq_q[i] on, up to the next row's; its keys begin at
    cu_seq_k[i], and seqused_k[i] of them count. The last query stands at the last key.
    window_size: how many keys to the left and right of its own a query sees; -1: all.
    """
    outs = []
    for i in range(len(cu_seq_q) - 1):
        q = query[cu_seq_q[i]:cu_seq_q[i + 1]]                                      # (L, H, D)
        end = cu_seq_k[i + 1] if seqused_k is None else cu_seq_k[i] + seqused_k[i]
        k, v = key[cu_seq_k[i]:end], value[cu_seq_k[i]:end]                         # (keys, K, D)
        outs.append(one_row(q, k, v, window_size, scale))
    return torch.cat(outs)


def one_row(q, k, v, window_size, scale):
    """(L, H, D), (keys, K, D) -> (L, H, D), by the fold."""
    L, H, D = q.shape
    n, K = k.shape[:2]
    place = torch.arange(n - L, n, device=q.device)[:, None]
    ahead = torch.arange(n, device=q.device) - place                                # (L, keys)
    left, right = window_size
    allowed = torch.ones_like(ahead, dtype=torch.bool)
    if left >= 0:
        allowed &= ahead >= -left
    if right >= 0:
        allowed &= ahead <= right

    # The queries of a key-value head, its first query head's tokens first.
    q = q.reshape(L, K, H // K, D).permute(1, 2, 0, 3).reshape(K, -1, D)
    out = scaled_dot_product_attention(
        q, k.transpose(0, 1), v.transpose(0, 1), attn_mask=allowed.repeat(H // K, 1), scale=scale)
    return out.reshape(K, H // K, L, D).permute(2, 0, 1, 3).reshape(L, H, D)
