"""Log-probs of the response tokens of trees: one pass through the model, the head only where it is
needed.

    trees --ids, positions, masks--> (B, L, H) --at the sources--> (T, H) --head--> (T,) log-probs

    code      shape    meaning
    ids       (B, L)   tokens, padded on the right; positions (B, L): their depth in the tree
    sources   (T,)     places to predict from, in the flattened (B, L); targets (T,): of which token
    chunk              positions whose full log-softmax is in memory at once
"""
from itertools import accumulate

import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from engine.masks import tree_masks


class TokenLogps(torch.nn.Module):
    """A model and its head in one forward call: FSDP has a module's weights in one place only while
    that module is called.
    """

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids, masks, positions, sources, targets, temperature, chunk):
        """Shapes as in the header -> (T,) log-probs at the temperature."""
        out = self.model.base_model(input_ids=ids, attention_mask=masks, position_ids=positions,
                                    use_cache=False)
        hidden = out.last_hidden_state.flatten(0, 1)[sources]                       # (T, H)
        head = self.model.get_output_embeddings()
        return head_logps(head, hidden, targets, temperature, chunk)


def head_logps(head, hidden, targets, temperature, chunk):
    """(T, H), (T,) -> (T,) log-probs.

    The full logits of a long row over 151,936 words do not fit: a chunk at a time, and once more
    in the backward pass.
    """
    def logps(h, y):
        return -cross_entropy(head(h).float() / temperature, y, reduction="none")

    if len(targets) <= chunk:
        return logps(hidden, targets)
    pieces = zip(hidden.split(chunk), targets.split(chunk))
    return torch.cat([checkpoint(logps, h, y, use_reentrant=False) for h, y in pieces])


def tree_logps(policy, trees, temperature, cfg):
    """B trees -> (tokens,) log-probs of all response tokens, tree after tree, answer after answer.

    What answers share is computed once.
    """
    device = policy.device
    L = max(len(tree.ids) for tree in trees)

    def padded(name, value):
        lists = [getattr(tree, name) for tree in trees]
        return torch.tensor([x + [value] * (L - len(x)) for x in lists], device=device)    # (B, L)

    def as_tensor(numbers):
        return torch.tensor(numbers, dtype=torch.long, device=device)

    ids = padded("ids", 0)
    positions = torch.arange(L, device=device).expand(len(trees), L)                # (B, L)
    # Trees without a branch: plain causal attention, padding stands behind what is read.
    masks = None
    if any(tree.positions[-1] < len(tree.ids) - 1 for tree in trees):
        positions = padded("positions", 0)
        dtype = torch.bfloat16 if policy.bf16 else torch.float32
        # padding sees padding: no NaN
        masks = tree_masks(policy.model, positions, padded("ends", L), dtype)

    # The B trees' own numbers, as places in the flattened (B, L) and among all predictions.
    first = [0, *accumulate(len(tree.targets) for tree in trees)]
    sources, targets, spread = [], [], []
    for b, tree in enumerate(trees):
        sources += [b * L + place for place in tree.sources]
        targets += tree.targets
        spread += [first[b] + prediction for prediction in tree.spread]

    with policy.autocast(), policy.recomputing():
        logp = policy.net(ids, masks, positions, as_tensor(sources), as_tensor(targets),
                          temperature, cfg.logp_chunk)
    if policy.sharded and not torch.is_grad_enabled():
        # FSDP would leave it to a backward pass, and there is none
        policy.net.reshard()
    return logp[as_tensor(spread)]                                                  # (tokens,)


def response_lengths(trees):
    """Trees -> (flat index, response length) of each answer in them, in the order of tree_logps."""
    found = []
    for tree in trees:
        found += [(i, len(rollout.response)) for i, rollout in tree.answers]
    return found
