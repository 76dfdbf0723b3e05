"""Before a run: does the model compute here what it computes by itself? One line for what differs.

A model on trial goes through the code that trains it and samples from it, and is held against its
own logits: on a few tokens, and at the lengths of the run.

    short    three answers that branch, as a tree; sampling behind prompts of two lengths
    far      a few tokens at the run's last positions, beside a few at the first
    long     one row as long as prompt + response may be: a tree, and sampling. Only where it is
             short, or where the config names a window or chunk that it goes beyond

Whatever is refused is refused in words: which part differs, and by what the config calls it. The
trial also finds out whether the model takes the flat cache: policy.flat, for flat.rows_for.
"""
import copy
import inspect
import math
import re

import torch

from data import InputError, Rollout
from engine import attention, varlen
from engine.cache import Running, token_bytes
from engine.flat import Flat
from engine.logps import TokenLogps, tree_logps
from engine.masks import masks_for
from engine.models import copy_with, layers_of
from engine.packing import Rows, attention_width, pack

# What a forward pass of a model that is not ours raises.
UNFIT = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError,
         NotImplementedError, RuntimeError, TypeError, ValueError)
# Log-probs are the same up to this, in fp32.
CLOSE = 1e-3
# A row of so many tokens is tried without a reason; with its first layers alone, where weights
# times tokens are more than this.
CHEAP, LARGE = 1024, 3e10
# Kinds of layers whose tokens meet in attention and nowhere else.
PACKED = ("full_attention", "sliding_attention")
# Fields of a config that list kinds of layers, or say that some are recurrent.
KINDS = re.compile(r"block_type|layers_block|layer_types|attn_type|hybrid|mamba|ssm|conv_kernel|"
                   r"linear_num|rwkv|lru_width")
REACH = re.compile(r"window|chunk|local|scaling_beta|floor_scale")


# ---------------------------------------------------------------- who is tried

def shortened(model):
    """A copy in fp32 of a model's first layers, so many that every kind is among them.

    What is checked before a model is cut does not depend on how many there are, and eight ranks
    have no room for eight whole copies.
    """
    layers, config = layers_of(model), model.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    n = max(2, *(kinds.index(kind) + 1 for kind in kinds))
    left_out = set()
    for layer in layers[n:]:
        left_out |= {id(p) for p in layer.parameters()}
    weights = []
    for p in model.parameters():
        weights.append(p.detach() if id(p) in left_out else p.detach().float())

    short = copy_with(model, weights)
    for module in short.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == len(layers):
            del module[n:]
    short.config.get_text_config().num_hidden_layers = min(n, len(layers))
    return short


def on_trial(policy, short=False):
    """The role as it is tried before it trains: in fp32, with the weights where they are before
    they are cut, and without most layers where they are in bf16, or short is asked for.
    """
    plain = copy.copy(policy)
    plain.bf16, plain.sharded = False, False
    if short or policy.model.dtype != torch.float32:
        plain.model = shortened(policy.model)
        plain.net = TokenLogps(plain.model)
        plain.recomputed = layers_of(plain.model) if policy.recomputed else []
    plain.device = plain.model.device
    return plain


# ---------------------------------------------------------------- what is refused

def check_model(policy, cfg):
    """Refuse what would silently compute something else, or stop in the middle of a run."""
    config = policy.model.config.get_text_config()
    why = refused(policy, cfg)
    if why:
        raise InputError(f"model {policy.model.name_or_path} ({config.model_type}): {why}; not "
                         "supported")


def refused(policy, cfg):
    """-> None, or what differs, in words."""
    if not policy.stop_ids:
        return "neither its tokenizer nor its generation config names a token that ends a response"
    longest = cfg.max_prompt_tokens + cfg.max_response_tokens
    try:
        one_size(policy.model.config)
        # layers of other kinds may carry state from one packed answer into the next
        why = layer_kinds(policy.model) or positions(policy.model, longest)
        return why or differs(policy, cfg, longest)
    except torch.OutOfMemoryError:
        raise
    except UNFIT as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        return f"its layers do not take trees and our cache ({reason})"


def one_size(config):
    """All layers have heads of one size: some configs raise where that is asked."""
    attention_width(config.get_text_config())
    token_bytes(config, 4)


def layer_kinds(model):
    """-> None, or which layers carry state from one packed answer into the next, whatever the mask
    says: by the config's lists of kinds, and by what the layers are made of.
    """
    config = model.config.get_text_config()
    odd = set(getattr(config, "layer_types", None) or ()) - set(PACKED)
    if odd:
        return f"layers of kind {', '.join(sorted(odd))} cannot be packed"

    made_of = set()
    for module in model.modules():
        name = type(module).__name__
        if isinstance(module, torch.nn.Conv1d) or re.search(r"Mamba|Recurrent|Rwkv|RgLru", name):
            made_of.add(name)
    if not made_of:
        return None
    named = sorted(name for name in config.to_dict() if KINDS.search(name))
    by = f"; config.json: {', '.join(named[:3])}" if named else ""
    return f"recurrent layers ({', '.join(sorted(made_of)[:2])}{by}) cannot be packed"


def positions(model, longest):
    """-> None, or that its table of positions is too short."""
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(most, int) or most >= longest:
        return None
    tables = [name for name, p in [*model.named_parameters(), *model.named_buffers()]
              if re.search(r"pos|wpe", name) and most <= p.shape[0] <= most + 8]
    if not tables:
        return None
    return (f"prompt and response of up to {longest} tokens exceed its {most} positions (see "
            "--max_prompt_tokens and --max_response_tokens)")


# ---------------------------------------------------------------- held against its own logits

@torch.no_grad()
def differs(policy, cfg, longest):
    """-> None, or what differs first. Finds out, too, whether the model takes the flat cache:
    policy.flat.
    """
    trial = Trial(on_trial(policy), cfg)
    policy.flat = False
    why = trial.head() or trial.short() or trial.far(longest)
    if why:
        return why
    policy.flat = trial.takes_flat()

    # a run's solver of the same anchor has been tried at length
    twin = policy.role == "generator" and (
        policy.model.name_or_path == cfg.model == cfg.generator_anchor)
    reach = window_of(policy.model)
    if twin or (longest > CHEAP and not (reach and reach < longest)):
        return None
    large = policy.layer_weights * longest > LARGE
    return Trial(on_trial(policy, short=large), cfg).long(longest)


def window_of(model):
    """-> the shortest reach that the config names, or None."""
    found = []
    for name, value in model.config.get_text_config().to_dict().items():
        if REACH.search(name) and isinstance(value, (int, float)) and value > 0:
            found.append(value)
    return min(found, default=None)


class Trial:
    """A role on trial. Each test returns None, or what differs, in words."""

    def __init__(self, plain, cfg):
        self.plain, self.model, self.cfg = plain, plain.model, cfg
        self.rows = self.model.get_input_embeddings().weight.shape[0]
        self.first = plain.stop_ids[0]

    def tensor(self, numbers):
        return torch.tensor(numbers, device=self.plain.device)

    def text(self, n, start=1):
        """n tokens, from all over the vocabulary."""
        return [self.first] + [(start + 31 * i) % self.rows for i in range(n - 1)]

    def own(self, ids, last=0):
        """A row by itself -> (L, V) log-probs, of the last tokens alone where it can say so."""
        logits = self.model(self.tensor([ids]), use_cache=False, **self.kept(last)).logits[0]
        return logits[-last:].float().log_softmax(-1)

    def kept(self, last):
        known = "logits_to_keep" in inspect.signature(self.model.forward).parameters
        return {"logits_to_keep": last} if last and known else {}

    def by_head(self, hidden):
        return self.model.get_output_embeddings()(hidden).float()

    def same(self, found, right):
        return torch.allclose(found, right, atol=CLOSE)

    # ------------------------------------------------------------ the head alone

    def head(self):
        """Are logits what the head makes of the last hidden states? We compute no others."""
        ids = self.tensor([self.text(8)])
        own = self.model(ids, use_cache=False).logits.float()
        ours = self.by_head(self.model.base_model(ids, use_cache=False).last_hidden_state)
        if not own.isfinite().all():
            return "its logits are not finite"
        if self.same(ours, own):
            return None

        scale = (own * ours).sum() / ours.square().sum()
        if self.same(scale * ours, own):
            return f"it scales its logits, by {float(scale):.4g} behind its head"
        cap = getattr(self.model.config.get_text_config(), "final_logit_softcapping", None)
        if cap and self.same(cap * (ours / cap).tanh(), own):
            return f"it caps its logits, at {cap:g} (final_logit_softcapping)"
        return "its logits are not what its head makes of its last hidden states"

    # ------------------------------------------------------------ a few tokens

    def short(self):
        """Masks, positions and cache, on a few tokens."""
        prompt, answers = self.text(3), [self.text(n, n)[1:] for n in (8, 5, 9)]
        answers.append(answers[0][:4] + [self.first])
        if not self.same(self.in_tree(prompt, answers), self.alone(prompt, answers)):
            return self.why_not_in_tree()
        prompts = [self.text(7, 2), self.text(2, 3)]
        if not self.same(*self.sampled(prompts, self.running())):
            return "with our cache its log-probs are not its own"
        return None

    def in_tree(self, prompt, answers):
        tree, = pack([Rollout(prompt, answer, [], True, "") for answer in answers], 0, len(answers))
        found = tree_logps(self.plain, [tree], 1.0, self.cfg)
        by_answer = found.split([len(rollout.response) for _, rollout in tree.answers])
        order = [i for i, _ in tree.answers]
        return torch.cat([by_answer[order.index(i)] for i in range(len(answers))])

    def alone(self, prompt, answers):
        found = []
        for answer in answers:
            logp = self.own(prompt + answer, len(answer) + 1)[:-1]
            found.append(logp.gather(1, self.tensor([answer]).T)[:, 0])
        return torch.cat(found)

    def why_not_in_tree(self):
        ids = self.tensor([self.text(6)])

        def at(places):
            return self.model.base_model(ids, position_ids=self.tensor([places]),
                                         use_cache=False).last_hidden_state

        if torch.equal(at([0, 1, 2, 3, 4, 5]), at([0, 1, 5, 9, 10, 20])):
            return "it does not take positions: it has none, or counts places (ALiBi?)"
        hint = ""
        if self.plain.recomputed:
            hint = " (dropout, which --grad_checkpoint turns on in its layers?)"
        return f"with trees its log-probs are not its own{hint}"

    def running(self):
        return Running(self.model, self.plain.device)

    def flat(self):
        return Flat(self.model, self.plain.device, attention.varlen, math.inf)

    def sampled(self, prompts, running):
        """Prompts that join one after the other, and two tokens more -> (P, V), and what is right.
        """
        for i, prompt in enumerate(prompts):
            running.join([prompt], [[(i, 0)]])
        more = [2 % self.rows, 1 % self.rows]
        for token in more:
            running.step(self.tensor([token] * len(prompts)))
        right = torch.cat([self.own(prompt + more, 1) for prompt in prompts])
        return self.by_head(running.hidden).log_softmax(-1), right

    def takes_flat(self):
        """One that does not is sampled from with padded rows."""
        if not attention.can_attend(self.model):
            return False
        try:
            return self.same(*self.sampled([self.text(7, 2), self.text(2, 3)], self.flat()))
        except UNFIT:
            return False

    # ------------------------------------------------------------ the lengths of the run

    def far(self, longest):
        """Two rows, of which one stands at the last positions: the other must not feel it."""
        ids = self.text(4)
        places = self.tensor([list(range(4)), list(range(longest - 4, longest))])
        allowed = torch.ones(4, 4, dtype=torch.bool, device=self.plain.device).tril()
        masks = masks_for(self.model, allowed.expand(2, 1, 4, 4), places, places)
        hidden = self.model.base_model(self.tensor([ids, ids]), attention_mask=masks,
                                       position_ids=places, use_cache=False).last_hidden_state
        if not hidden.isfinite().all():
            return f"at position {longest} what it computes is not finite"
        if not self.same(self.by_head(hidden[0]).log_softmax(-1), self.own(ids)):
            return (f"its rotary frequencies depend on length{self.rope()}, and a prompt and "
                    f"response of up to {longest} tokens cross the length where they change (see "
                    "--max_prompt_tokens and --max_response_tokens)")
        return None

    def rope(self):
        """-> " (longrope from 4096 on)", or nothing."""
        config = self.model.config.get_text_config()
        rope = getattr(config, "rope_parameters", None) or {}
        kind = rope.get("rope_type")
        start = (rope.get("original_max_position_embeddings")
                 or getattr(config, "original_max_position_embeddings", None)
                 or getattr(config, "max_position_embeddings", None))
        return f" ({kind} from {start} on)" if kind else ""

    def long(self, longest):
        """One row as long as the run's may be, in a tree and behind a short one in the cache."""
        response = min(8, longest // 2)
        prompt = self.text(longest - response)
        answer, other = self.text(response + 1, 5)[1:], self.text(response + 1, 6)[1:]
        own = self.own(prompt + answer, response + 1)                               # (., V)

        beyond = f"in rows of up to {longest} tokens its log-probs are not its own"
        right = own[:-1].gather(1, self.tensor([answer]).T)[:, 0]
        if not self.same(self.in_tree(prompt, [answer, other])[:response], right):
            return f"{beyond}{self.names()}"

        running = self.running()
        running.join([self.text(2, 3)], [[(0, 0)]])
        running.join([prompt + answer[:-1]], [[(1, 0)]])
        running.step(self.tensor([0, answer[-1]]))
        if not self.same(self.by_head(running.hidden[1]).log_softmax(-1), own[-1]):
            return f"{beyond}, with our cache{self.names()}"
        return None

    def names(self):
        """What the config says of windows, to be named."""
        known = self.model.config.get_text_config().to_dict().items()
        found = [f"{name} {value}" for name, value in known
                 if REACH.search(name) and isinstance(value, int) and value]
        return f" ({', '.join(found[:3])}?)" if found else ""


# ---------------------------------------------------------------- rows that lie end to end

@torch.no_grad()
def rows_agree(policy, cfg):
    """Are log-probs the same, in fp32, of answers that lie end to end and of answers side by side?

    The model's attention takes such rows from here on. A model that cannot is padded, which costs
    time and nothing else; where --end_to_end true asked for it, InputError.
    """
    before, first = policy.model.config._attn_implementation, policy.stop_ids[0]
    answers = [Rollout([first, 0], answer, [], True, "") for answer in ([1, 0, 2, 1], [2, 0])]
    trees = pack(answers, 0, 1)
    try:
        fine = varlen.accept(policy.model)
        plain = on_trial(policy)
        if fine:
            found = tree_logps(plain, Rows(trees), 1.0, cfg)
            fine = torch.allclose(found, tree_logps(plain, trees, 1.0, cfg), atol=CLOSE)
    except UNFIT:
        fine = False
    if not fine:
        policy.model.set_attn_implementation(before)
        if cfg.end_to_end == "true":
            name = policy.model.config.get_text_config().model_type
            raise InputError(f"--end_to_end true: {name} does not take rows that lie end to end")
    return fine
