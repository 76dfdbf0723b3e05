"""Log-probs of the response tokens of trees: one pass through the model, the head only where it is
needed.

    trees --ids, positions, masks--> (B, L, H) --at the sources--> (T, H) --head--> (T,) log-probs

    code      shape    meaning
    ids       (B, L)   tokens, padded on the right; positions (B, L): their depth in the tree;
                       of Rows (1, tokens of all) without padding
    sources   (T,)     places to predict from, in the flattened (B, L); targets (T,): of which token
    chunk              positions whose full log-softmax is in memory at once
"""
from itertools import accumulate

import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from engine.masks import tree_masks
from engine.packing import Rows
from engine.varlen import row_masks

# Lengths under a mask: the kernel for masks wants strides of 8 or 16, and copies what has others.
MULTIPLE = {"cpu": 1, "cuda": 16}


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
    def as_tensor(numbers):
        return torch.tensor(numbers, dtype=torch.long, device=policy.device)

    arrange = end_to_end if isinstance(trees, Rows) else side_by_side
    ids, masks, positions, starts = arrange(policy, trees)

    # The B trees' own numbers, as places in the flattened input and among all predictions.
    first = [0, *accumulate(len(tree.targets) for tree in trees)]
    sources, targets, spread = [], [], []
    for b, tree in enumerate(trees):
        sources += [starts[b] + place for place in tree.sources]
        targets += tree.targets
        spread += [first[b] + prediction for prediction in tree.spread]

    with policy.autocast(), policy.recomputing():
        logp = policy.net(ids, masks, positions, as_tensor(sources), as_tensor(targets),
                          temperature, cfg.logp_chunk)
    if policy.sharded and not torch.is_grad_enabled():
        # FSDP would leave it to a backward pass, and there is none
        policy.net.reshard()
    return logp[as_tensor(spread)]                                                  # (tokens,)


def side_by_side(policy, trees):
    """B trees -> (B, L) ids, masks, (B, L) positions, and where each tree starts in the flattened
    (B, L).
    """
    device = policy.device
    L = max(len(tree.ids) for tree in trees)
    branched = any(tree.branched for tree in trees)
    if branched:
        # of another length CUDA's kernel copies the mask in every layer
        L = multiple(L, MULTIPLE[device.type])

    def padded(name, value):
        lists = [getattr(tree, name) for tree in trees]
        return torch.tensor([x + [value] * (L - len(x)) for x in lists], device=device)    # (B, L)

    positions = torch.arange(L, device=device).expand(len(trees), L)                # (B, L)
    # Trees without a branch: plain causal attention, padding stands behind what is read.
    masks = None
    if branched:
        positions = padded("positions", 0)
        dtype = torch.bfloat16 if policy.bf16 else torch.float32
        # padding sees padding: no NaN
        masks = tree_masks(policy.model, positions, padded("ends", L), dtype)
    return padded("ids", 0), masks, positions, range(0, len(trees) * L, L)


def end_to_end(policy, trees):
    """R trees without a branch -> the same with (1, T) ids and positions."""
    lengths = [len(tree.ids) for tree in trees]
    ids, positions = [], []
    for tree in trees:
        ids += tree.ids
        positions += tree.positions
    ids, positions = torch.tensor([[ids], [positions]], device=policy.device)      # (1, T) each
    masks = row_masks(policy.model, lengths, policy.device)
    return ids, masks, positions, [0, *accumulate(lengths)]


def multiple(n, of):
    """The next multiple.

    >>> multiple(17, 16), multiple(32, 16)
    (32, 32)
    """
    return -(-n // of) * of


def response_lengths(trees):
    """Trees -> (flat index, response length) of each answer in them, in the order of tree_logps."""
    found = []
    for tree in trees:
        found += [(i, len(rollout.response)) for i, rollout in tree.answers]
    return found
