"""A model with its AdamW, the one loss, and the update: what the generator and the solver have in
common.

g_dev, g_q, the solver update and the generator update are the same loss on different rollouts; they
differ in the rollouts, the advantages and the constant they divide by:

    l(token) = max(-A rho, -A clip(rho, 1-c, 1+c)),   where A < 0 at most -3 A
    rho      = exp(logp - logp_old)
    w(token) = min(exp(logp_old - logp_sampler), 2)         how far the sampler was from the trainer
    loss     = sum over tokens of l w / denominator

    denominator  B Tbar (an update);  N_dev Tbar_dev (g_dev);  m Tbar_gen (g_q)

    code    symbol   shape      meaning
    groups           (G, m)     lists of rollouts; the m of a group answer the same prompt
    A       A        (G, m)     advantages, one per rollout
    logp    log pi   (tokens,)  at the temperature sampled with
    Tbar    T bar               mean response length in tokens over the groups that have a gradient
    B       B                   nominal rows of a mini-batch; a short last one is still divided by B

Rollouts go through the model packed as trees (engine/packing.py). Passes, padding and ranks change
no gradient (tests/test_policy.py). The solver's mini-batches are spread over the documents, as in
the released code; the generator's keep the order of the batch. Missing on purpose, as in the paper:
a KL term, an entropy term, a value network, a second epoch.
"""
import contextlib
import copy
import functools
from collections import Counter
from itertools import chain
from types import SimpleNamespace

import torch

from data import InputError
from dugrpo import kept_groups
from engine import offload, ranks, shard, varlen
from engine.chat import chat_ids, stop_ids_of
from engine.device import prepare, release
from engine.logps import TokenLogps, response_lengths, tree_logps
from engine.models import copy_with, device_of, layer_weights, layers_of, load_model
from engine.packing import dealt_longest_first, even_passes, passes
from engine.progress import bar as progress_bar
from engine.trial import check_model, rows_agree


# ---------------------------------------------------------------- the loss

def token_loss(logp, logp_old, logp_sampler, A, clip=0.2, dual_clip=3.0, tis_cap=2.0):
    """Per-token loss l w, not yet aggregated; all arguments have one shape, (tokens,).

    Moving on past 1.2 earns nothing; 3.5 would cost 3.5, but for the dual clip:

    >>> logp, zero, one = torch.tensor([0.5, 1.0, 3.5]).log(), torch.zeros(3), torch.ones(3)
    >>> token_loss(logp, zero, zero, one)
    tensor([-0.5000, -1.0000, -1.2000])
    >>> token_loss(logp, zero, zero, -one)
    tensor([0.8000, 1.0000, 3.0000])
    """
    rho = (logp - logp_old).clamp(-20, 20).exp()
    loss = torch.maximum(-A * rho, -A * rho.clamp(1 - clip, 1 + clip))
    loss = torch.where(A < 0, torch.minimum(loss, -dual_clip * A), loss)
    w = (logp_old - logp_sampler).detach().clamp(-20, 20).exp().clamp(max=tis_cap)
    return loss * w


def pass_loss(policy, trees, A, denominator, cfg, logp_old=None):
    """One pass over trees -> (scalar loss: sum over their tokens of l w / denominator, number of
    tokens).

    A: (G, m). logp_old: {flat index: (tokens,)} of rollouts whose old log-probs are not the present
    ones; None in the first mini-batch, where rho = 1.
    """
    device = policy.device
    logp = tree_logps(policy, trees, cfg.temperature, cfg)                          # (tokens,)
    answers, sampler = [], []
    for tree in trees:
        answers += tree.answers
        for _, rollout in tree.answers:
            sampler += rollout.logp

    # One advantage per rollout, on each of its tokens.
    lengths = [len(rollout.response) for _, rollout in answers]
    index = torch.tensor([i for i, _ in answers], dtype=torch.long, device=device)
    A_token = A.to(device).flatten()[index].repeat_interleave(
        torch.tensor(lengths, dtype=torch.long, device=device))                     # (tokens,)

    old = logp.detach()
    if logp_old is not None and answers:
        old = torch.cat([logp_old[i] for i, _ in answers])
    loss = token_loss(logp, old, torch.tensor(sampler, device=device), A_token,
                      cfg.clip, cfg.dual_clip, cfg.tis_cap)
    return loss.sum() / denominator, len(sampler)


def mean_length(groups):
    """Tbar: mean response length in tokens over all rollouts of the groups."""
    lengths = [len(rollout.response) for rollout in chain.from_iterable(groups)]
    return sum(lengths) / len(lengths)


# ---------------------------------------------------------------- the update

@torch.no_grad()
def old_logps(policy, groups, cfg):
    """{flat index: (tokens,) log-probs at the present weights}.

    For mini-batches whose turn comes after the weights have moved.
    """
    old = {}
    for trees in even_passes(policy, passes(policy, groups, cfg)):
        answers = response_lengths(trees)
        logp = tree_logps(policy, trees, cfg.temperature, cfg)
        parts = logp.split([length for _, length in answers])
        old.update({i: part for (i, _), part in zip(answers, parts)})
    return old


def spread(documents):
    """(G,) the document of each group -> the G numbers of the groups in the order they train in.

    Question i of the n_d of document d has its place at (i + 1/2) / n_d, and all are sorted by
    place: a document's questions lie evenly over the whole order, so a mini-batch holds questions
    of as many documents as it can. Ties keep their order. Source: the released code.

    >>> "".join("AAAAAAAABBBBCC"[g] for g in spread("AAAAAAAABBBBCC"))
    'ABACABAABACABA'
    """
    n, seen, places = Counter(documents), Counter(), []
    for d in documents:
        places.append((seen[d] + 0.5) / n[d])
        seen[d] += 1
    return sorted(range(len(places)), key=places.__getitem__)


def update(policy, groups, A, cfg, documents=None):
    """One epoch of mini-batches of whole groups; moves the model. groups: (G, m) rollouts, A: (G,
    m).

    Groups without any advantage (all rewards equal) drop out, of Tbar too. The denominator B Tbar
    is one constant for the whole call. A non-finite gradient norm skips the step and is counted in
    policy.skipped. documents: (G,) what each group is spread by; None: the order stays.
    -> {"grad_norm", "tokens", "steps", "rows"}.
    """
    kept = kept_groups(groups, A)
    if documents is not None:
        # after the flat groups have gone: n_d counts what trains
        order = spread([documents[g] for g, _ in kept])
        kept = [kept[i] for i in order]
    if not kept:
        return {"grad_norm": None, "tokens": 0, "steps": 0, "rows": 0}
    m = len(groups[0])
    if cfg.minibatch_rows % m:
        raise InputError(f"minibatch_rows {cfg.minibatch_rows} does not hold whole groups of {m}")
    size = cfg.minibatch_rows // m
    denominator = cfg.minibatch_rows * mean_length([group for _, group in kept])
    policy.wake()

    # Each rank's share of each mini-batch; old log-probs of all but the first, before the model
    # moves.
    starts = range(0, len(kept), size)
    minibatches = [ranks.share(dealt_longest_first(kept[start:start + size])) for start in starts]
    later = []
    for minibatch in minibatches[1:]:
        later += minibatch
    later = old_logps(policy, later, cfg)

    norms, tokens = [], 0
    with progress_bar(total=sum(map(len, minibatches)), desc=f"update {policy.role}",
                      unit="group") as bar:
        for i, minibatch in enumerate(minibatches):
            policy.optimizer.zero_grad(set_to_none=True)
            for trees in even_passes(policy, passes(policy, minibatch, cfg)):
                loss, n = pass_loss(policy, trees, A, denominator, cfg, later if i else None)
                loss.backward()
                tokens += n
            norms += step(policy, cfg)
            bar.update(len(minibatch))
    # nothing of a finished update stays in memory
    policy.optimizer.zero_grad(set_to_none=True)
    return {"grad_norm": sum(norms) / len(norms) if norms else None,
            "tokens": sum(ranks.gather([tokens], ranks.world())),
            "steps": len(norms), "rows": len(kept) * m}


def step(policy, cfg):
    """Clip the gradient and let AdamW take its step -> [gradient norm].

    [] if the norm is not finite: then nothing moved.
    """
    if not policy.sharded:
        # shards were added up as they were made
        ranks.sum_gradients(policy.params)
    norm = shard.whole(torch.nn.utils.clip_grad_norm_(policy.params, cfg.grad_clip))
    if not bool(torch.isfinite(norm)):
        policy.skipped += 1
        return []
    policy.optimizer.step()
    return [float(norm)]


# ---------------------------------------------------------------- a model and its AdamW

class Policy:
    """One role: a model, its tokenizer and its own AdamW.

    model       a causal LM of transformers whose layers are full or sliding attention and that
                takes position_ids; all of it trains, in fp32
    params      the trainable parameters, tied ones once
    sharded     are the parameters, their gradients and moments slices, one on each rank? Then
                `outline` is the model without its weights
    skipped     updates, g_devs and scores left out because a gradient was not finite
    """

    def __init__(self, role, path, lr, cfg):
        self.role, self.lr = role, lr
        self.device = device_of(cfg)
        on_cuda = self.device.type == "cuda"
        prepare(self.device, cfg.sampler)
        self.bf16 = cfg.dtype == "bf16" or (cfg.dtype == "auto" and on_cuda)
        self.model, self.tokenizer = load_model(path, shard.possible(cfg))
        size = sum(p.numel() for p in self.model.parameters())
        self.sharded = shard.possible(cfg) and shard.wanted(cfg, size, on_cuda)
        if not self.sharded:
            self.model.float().to(self.device)
        self.stop_ids = stop_ids_of(self.model, self.tokenizer)
        # dev questions come every iteration
        ids = functools.partial(chat_ids, self.tokenizer)
        self.prompt_ids = functools.lru_cache(maxsize=4096)(ids)

        # the layers that drop their activations
        self.recomputed = layers_of(self.model) if cfg.grad_checkpoint else []
        if cfg.grad_checkpoint:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        self.net, self.outline = TokenLogps(self.model), self.model
        self.layer_weights = layer_weights(self.model)
        check_model(self, cfg)
        # does a pass without branches need no padding?
        self.end_to_end = varlen.wanted(cfg, self) and rows_agree(self, cfg)
        if self.sharded:
            empty = [torch.empty_like(p, device="meta") for p in self.model.parameters()]
            self.outline = copy_with(self.model, empty, trains=True)
            shard.split(self.net, layers_of(self.model), self.device, self.bf16)

        self.params = [p for p in self.model.parameters() if p.requires_grad]
        # fused: else torch updates slices one by one
        self.optimizer = torch.optim.AdamW(
            self.params, lr=lr, betas=(cfg.beta1, cfg.beta2), eps=cfg.adam_eps,
            weight_decay=cfg.weight_decay, fused=True)
        self.skipped, self.partner, self.awake = 0, None, True
        self.waiting = offload.Waiting(self.device)

    def autocast(self):
        """fp32 master weights, bf16 arithmetic where asked for; plain fp32 otherwise."""
        # FSDP casts by itself
        if self.bf16 and not self.sharded:
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def recomputing(self):
        """Layers drop their activations and compute them again in backward.

        transformers does so only in a layer that calls itself training; what is inside the layer
        does not, so there is no dropout.
        """
        for layer in self.recomputed:
            layer.training = True
        try:
            yield
        finally:
            for layer in self.recomputed:
                layer.training = False

    # ------------------------------------------------------------ where the weights are

    def wake(self):
        """Every stage begins with this: where two roles take turns, the other leaves the device."""
        # the last stage's cache, too: a pass has no use for blocks of its sizes
        release(self.device)
        if self.partner and not self.awake:
            self.partner.move("cpu", awake=False)
            self.move(self.device, awake=True)

    def move(self, place, awake):
        """Weights and moments, whole or in shards, to the device or to host memory.

        Parameters stay the same objects.
        """
        offload.move(self.net, self.optimizer, place, self.waiting)
        self.awake = awake

    def gathered(self, trains=False):
        """A plain copy of the model on this rank, all weights in one place.

        In bf16 where it computes so, else in fp32.
        """
        dtype = torch.bfloat16 if self.bf16 else torch.float32
        weights = [shard.whole(p.detach().to(dtype)) for p in self.model.parameters()]
        return copy_with(self.outline, weights, trains)

    @contextlib.contextmanager
    def sampling_model(self):
        """The model to sample from: itself, or a copy made once per stage.

        Casting or gathering weights at every token would cost more.
        """
        yield self.gathered() if self.bf16 or self.sharded else self.model

    def whole(self):
        """A stand-in for this sharded role on one rank, with whole weights and second moments.

        To differentiate with, not to train.
        """
        other = copy.copy(self)
        other.model, other.sharded = self.gathered(trains=True), False
        other.net = TokenLogps(other.model)
        other.params = [p for p in other.model.parameters() if p.requires_grad]
        other.recomputed = layers_of(other.model) if self.recomputed else []
        state = {}
        for p, theirs in zip(self.params, other.params):
            mine = self.optimizer.state.get(p)
            if mine:
                v = shard.whole(mine["exp_avg_sq"].to(theirs.dtype))
                state[theirs] = {"exp_avg_sq": v, "step": mine["step"]}
        other.optimizer = SimpleNamespace(state=state)
        return other

    def save(self, folder, rounded=False):
        """Write a plain Hugging Face folder; rounded: in the dtype it samples in. On all ranks
        together: each gives its slices, a tensor at a time, and the main one writes.
        """
        self.wake()
        model = self.model
        dtype = torch.bfloat16 if rounded and self.bf16 else torch.float32
        if self.sharded or dtype != torch.float32:
            weights = []
            for p in self.model.parameters():
                w = shard.whole(p.detach().to(dtype))
                weights.append(w.cpu() if ranks.is_main() else None)
            model = copy_with(self.outline, weights) if ranks.is_main() else None
        if ranks.is_main():
            model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)


def take_turns(first, second):
    """Two roles of which one is on the device at a time. On a CPU device and host are one place."""
    first.partner, second.partner = second, first
    second.move("cpu", awake=False)
