"""What both roles share: a model with its AdamW, sampling, token log-probs over packed rows, the one loss, and the update.

g_dev, g_q, the solver update and the generator update are the same loss on different rollouts; they differ in the rows, the advantages and the
constant they divide by:

    l(token) = max(-A rho, -A clip(rho, 1-c, 1+c)),   and where A < 0 at most -3 A          rho = exp(logp - logp_old)
    w(token) = min(exp(logp_old - logp_sampler), 2)                                         how far the sampler was from the trainer
    loss     = sum over tokens of l w / denominator                                         update: B Tbar;  g_dev: N_dev Tbar_dev;  g_q: m Tbar_gen

    code          symbol    shape      meaning
    clip, rho, w  c                    ratio clip, importance ratio, truncated importance weight (TIS); L is a row's length in tokens
    groups                  (G, m)     lists of rollouts; the m of a group answer the same prompt
    A             A         (G, m)     advantages, one per rollout
    logp          log pi    (tokens,)  at the temperature sampled with
    Tbar          T bar                mean response length in tokens over the groups of an update that have a gradient
    B             B                    nominal mini-batch size in rows; a short last mini-batch is still divided by B

A row is a prompt and several of its answers, as a tree: the prompt stands in it once, and so does whatever several answers begin with. A token's
position is its depth, and a mask lets it see its ancestors. The numbers are those of one row per answer, for fewer tokens wherever the prompt is not
short or answers begin alike. Micro-batches, packing, padding and ranks change no gradient (tests/test_policy.py).

Ours, where the paper leaves it open: rows are packed as trees; mini-batches keep the order of the batch; the last token of an answer is never fed
to the model, since nothing is predicted from it; a response also ends at the token that ends a turn in the chat template. Missing on purpose, as
in the paper: a KL term, an entropy term, a value network, a second epoch.
"""
import contextlib
import copy
import ctypes
import functools
import hashlib
import math
import os
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import torch
from torch.nn.functional import cross_entropy, pad
from torch.utils.checkpoint import checkpoint
from tqdm import tqdm
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.cache_utils import Cache, DynamicLayer
from transformers.modeling_layers import GradientCheckpointingLayer

import ranks
import shard
from data import InputError, Rollout


# ---------------------------------------------------------------- model and tokenizer

def load_model(path):
    """A model folder or hub id -> (model in fp32 in host memory, tokenizer). Weights are read from safetensors only: a pickle can run code."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        model, info = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, use_safetensors=True, attn_implementation="sdpa",
                                                           output_loading_info=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(f"model {path}: cannot be loaded as a Hugging Face model folder or hub id ({' '.join(str(error).split())[:200]})")
    if info["missing_keys"]:                                                # transformers would fill them with noise
        raise InputError(f"model {path}: {len(info['missing_keys'])} weights are missing, {sorted(info['missing_keys'])[0]} among them")
    return model.eval(), tokenizer                                          # eval: dropout would make logp differ from the sampler's


def chat_text(tokenizer, text):
    """A user message -> the text the model continues: its own chat template, or a plain frame where a base tokenizer has none."""
    if tokenizer.chat_template:
        return tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True)
    return f"{text}\n\nAnswer:\n"


def chat_ids(tokenizer, text):
    """A user message -> prompt token ids. The template writes its own special tokens; only the plain frame lets the tokenizer add them."""
    return tokenizer(chat_text(tokenizer, text), add_special_tokens=not tokenizer.chat_template).input_ids


def chat_stop_ids(tokenizer):
    """The tokens that end a response, first the one that ends a turn in the chat template. Qwen3-Base names <|endoftext|> as EOS but its template
    ends turns with <|im_end|>: a sampler that knows only one of them runs on to the length limit."""
    stops = [tokenizer.eos_token_id]
    if tokenizer.chat_template:
        marker = "INFUSER"
        turn = tokenizer.apply_chat_template([{"role": "user", "content": "x"}, {"role": "assistant", "content": marker}], tokenize=False)
        after = tokenizer(turn[turn.rindex(marker) + len(marker):], add_special_tokens=False).input_ids
        stops = [i for i in after if i in tokenizer.all_special_ids][:1] + stops
    return list(dict.fromkeys(i for i in stops if i is not None))


def device_of(cfg):
    """cpu, or this rank's GPU."""
    if cfg.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no GPU; leave it out, or install the CUDA build of torch")
    if cfg.device == "cpu" or (cfg.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def keep_memory():
    """Let freed memory stay with the process, where the C library is glibc: it would give large tensors back to the system and fault them in again.

    Fresh memory costs more than what is computed in it, and two ranks that ask for it at once wait for each other (LOG.md). Peaks stay as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    for option, value in [(-1, -1), (-4, 0)] if mallopt else []:            # malloc.h: M_TRIM_THRESHOLD never; M_MMAP_MAX none
        mallopt(option, value)


class Policy:
    """One role: a model, its tokenizer and its own AdamW.

    model       a causal LM of transformers whose layers are full or sliding attention and that takes position_ids; all of it trains, in fp32
    params      the trainable parameters, tied ones once; layer_weights: how many of them are matrices of the layers, for counting FLOPs
    sharded     are the parameters, their gradients and moments slices, one on each rank? Then `outline` is the model without its weights
    skipped     updates not taken because the gradient norm was not finite
    """

    def __init__(self, role, path, lr, cfg):
        self.role, self.lr = role, lr
        self.device = device_of(cfg)
        if self.device.type == "cpu":
            keep_memory()
        self.bf16 = cfg.dtype == "bf16" or (cfg.dtype == "auto" and self.device.type == "cuda")
        self.model, self.tokenizer = load_model(path)
        self.sharded = ranks.world() > 1 and shard.wanted(cfg, sum(p.numel() for p in self.model.parameters()), self.device.type == "cuda")
        if not self.sharded:
            self.model.to(self.device)
        self.stop_ids = chat_stop_ids(self.tokenizer)
        extra = self.model.generation_config.eos_token_id
        self.stop_ids += [i for i in (extra if isinstance(extra, list) else [extra]) if i is not None and i not in self.stop_ids]
        self.recomputed = layers_of(self.model) if cfg.grad_checkpoint else []             # the layers that drop their activations
        if cfg.grad_checkpoint:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        self.net, self.outline = TokenLogps(self.model), self.model
        self.layer_weights = sum(p.numel() for name, p in self.model.named_parameters() if p.dim() == 2 and "embed" not in name and "lm_head" not in name)
        self.check_model(cfg)
        if self.sharded:
            self.outline = copy_with(self.model, [torch.empty_like(p, device="meta") for p in self.model.parameters()], trains=True)
            shard.split(self.net, layers_of(self.model), self.device, self.bf16)
        self.params = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.params, lr=lr, betas=(cfg.beta1, cfg.beta2), eps=cfg.adam_eps, weight_decay=cfg.weight_decay,
                                           fused=True if self.device.type == "cpu" else None)          # on CUDA torch's own choice is as good
        self.prompt_ids = functools.lru_cache(maxsize=4096)(functools.partial(chat_ids, self.tokenizer))       # dev questions come every iteration
        self.skipped, self.partner, self.awake = 0, None, True

    def autocast(self):
        """fp32 master weights, bf16 arithmetic where asked for; plain fp32 otherwise."""
        if self.bf16 and not self.sharded:                  # FSDP casts by itself
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def recomputing(self):
        """Layers drop their activations and compute them again in backward. transformers does so only in a layer that calls itself training; what is
        inside the layer does not, so there is no dropout."""
        for layer in self.recomputed:
            layer.training = True
        try:
            yield
        finally:
            for layer in self.recomputed:
                layer.training = False

    def wake(self):
        """Every stage begins with this: the other role leaves the device, if the two take turns, and this one comes."""
        if self.partner and not self.awake:
            self.partner.move("cpu", awake=False)
            self.move(self.device, awake=True)

    def move(self, place, awake):
        """Weights and moments, whole or in shards, to the device or to host memory. Parameters stay the same objects."""
        self.net.to(place)
        for state in self.optimizer.state.values():
            state |= {name: state[name].to(place) for name in ("exp_avg", "exp_avg_sq")}
        self.awake = awake

    def gathered(self, trains=False):
        """A plain copy of the model on this rank, all weights in one place: in bf16 where that is computed in, in fp32 otherwise."""
        dtype = torch.bfloat16 if self.bf16 else torch.float32
        return copy_with(self.outline, [shard.whole(p.detach().to(dtype)) for p in self.model.parameters()], trains)

    @contextlib.contextmanager
    def sampling_model(self):
        """The model to sample from: itself, or a copy made once per stage: casting or gathering weights at every token would cost more."""
        yield self.gathered() if self.bf16 or self.sharded else self.model

    def whole(self):
        """A stand-in for this sharded role on one rank, with whole weights and second moments: to differentiate with, not to train."""
        other = copy.copy(self)
        other.model, other.sharded = self.gathered(trains=True), False
        other.net, other.params = TokenLogps(other.model), [p for p in other.model.parameters() if p.requires_grad]
        other.recomputed = layers_of(other.model) if self.recomputed else []
        state = {}
        for p, theirs in zip(self.params, other.params):
            if self.optimizer.state.get(p):
                v = self.optimizer.state[p]["exp_avg_sq"].to(theirs.dtype)
                state[theirs] = {"exp_avg_sq": shard.whole(v), "step": self.optimizer.state[p]["step"]}
        other.optimizer = SimpleNamespace(state=state)
        return other

    def save(self, folder):
        """Write a plain Hugging Face folder. On all ranks together: each gives its slices, a tensor at a time, and the main one writes."""
        self.wake()
        model = self.model
        if self.sharded:
            weights = [w.cpu() if ranks.is_main() else None for w in (shard.whole(p.detach()) for p in self.model.parameters())]
            model = copy_with(self.outline, weights) if ranks.is_main() else None
        if ranks.is_main():
            model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)

    def check_model(self, cfg):
        """Refuse what would silently compute something else, or stop in the middle of a run."""
        config = self.model.config.get_text_config()
        odd = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
        if odd:                 # linear layers carry state from one packed answer into the next, whatever the mask says
            raise InputError(f"--model {config.model_type}: layers of kind {', '.join(sorted(odd))} cannot be packed; not supported")
        if not self.stop_ids:
            raise InputError(f"--model {config.model_type}: neither its tokenizer nor its generation config names a token that ends a response")
        hint = " (dropout, which --grad_checkpoint turns on in its layers?)" if self.recomputed else ""
        try:
            why = "" if self.agrees(cfg) else f"with packed rows and our cache its log-probs are not its own{hint}"
        except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            why = f"its layers do not take packed rows and our cache ({' '.join(str(error).split())[:120]})"
        if why:
            raise InputError(f"--model {config.model_type}: {why}; not supported")

    @torch.no_grad()
    def agrees(self, cfg):
        """Are the log-probs of a packed row (its masks, positions, head), and of a sampling step behind a padded prompt, those of the model's own logits?

        On a few tokens, in fp32, with the weights where they are before they are cut into shards.
        """
        plain, first = copy.copy(self), self.stop_ids[0]
        plain.bf16, plain.sharded, plain.device = False, False, self.model.device
        tensor = functools.partial(torch.tensor, device=plain.device)
        own = lambda ids: self.model(tensor([ids]), use_cache=False).logits[0].float().log_softmax(-1)                     # (L, V)
        prompt, answers = [first, 0], [[1, 0, 2], [1, 2, 0]]                # a common beginning, then a branch
        row, = pack([Rollout(prompt, answer, [], True, "") for answer in answers], 0, 2)
        batch = Batch(self.model, plain.device)
        batch.join([[first, 0, 1], [first]], 1, [(0, 0), (1, 0)])
        batch.step(tensor([2, 2]))
        ours = [row_logps(plain, [row], 1.0, cfg), *self.model.get_output_embeddings()(batch.hidden).float().log_softmax(-1)]
        theirs = [own(prompt + answer)[1:-1].gather(1, tensor(answer)[:, None])[:, 0] for answer in answers]
        return torch.allclose(torch.cat(ours), torch.cat([*theirs, own([first, 0, 1, 2])[-1], own([first, 2])[-1]]), atol=1e-3)


def take_turns(first, second):
    """Two roles of which one is on the device at a time. On a CPU device and host are one place, and everything else is the same."""
    first.partner, second.partner = second, first
    second.move("cpu", awake=False)


def layers_of(model):
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def copy_with(model, weights, trains=False):
    """A copy of a model around other tensors, in the order of its parameters; with `trains` those require gradients that do in the model.

    model.to() would round the rotary frequencies too.
    """
    return copy.deepcopy(model, {id(p): torch.nn.Parameter(w, requires_grad=trains and p.requires_grad) for p, w in zip(model.parameters(), weights)})


# ---------------------------------------------------------------- random numbers that belong to rows

def row_key(*words):
    """(seed, iteration, role, stage, row) -> a 64-bit key. Nothing else feeds the sampler: batch, rank and resume cannot change the numbers a row gets."""
    return int.from_bytes(hashlib.blake2b(repr(words).encode(), digest_size=8).digest(), "little")


def uniforms(keys, t):
    """(R,) uint64 keys and (R,) token numbers -> (R,) numbers in [0, 1): splitmix64, a counter-based generator without any state."""
    with np.errstate(over="ignore"):
        z = keys + (t.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0 ** -53


# ---------------------------------------------------------------- sampling

def spare(columns):
    """-> how many columns a key-value cache of so many gets for tokens to come."""
    return min(32, 4 + columns // 8)


def choose(logits, u, temperature, top_p, top_k):
    """(R, V) logits, (R,) uniforms -> (R,) tokens, (R,) log-probs at the temperature. Temperature 0 is greedy, with log-probs at temperature 1.

    Inverse of the cumulative distribution. The log-prob is the untruncated one: top_p and top_k are for evaluation, where nothing trains on it.
    """
    if temperature == 0:
        logp = torch.log_softmax(logits.float(), dim=-1)
        token = logp.argmax(dim=-1)
        return token, logp.gather(1, token[:, None])[:, 0]
    logp = torch.log_softmax(logits.float() / temperature, dim=-1)          # (R, V)
    p = logp.exp()
    if top_k or top_p < 1:
        p_sorted, order = p.sort(dim=-1, descending=True)
        if top_k:
            p_sorted[:, top_k:] = 0
        mass = p_sorted.cumsum(dim=-1)
        p_sorted[mass - p_sorted >= top_p * mass[:, -1:]] = 0               # top_p of what top_k left, as in transformers and vLLM
        p = torch.zeros_like(p).scatter_(1, order, p_sorted)
    mass = p.cumsum(dim=-1)
    token = torch.searchsorted(mass, u.to(mass.dtype)[:, None] * mass[:, -1:], right=True)[:, 0]
    last = p.shape[1] - 1 - (p.flip(1) > 0).int().argmax(dim=1)             # rounding must not pick a token of probability 0
    token = torch.minimum(token, last)
    return token, logp.gather(1, token[:, None])[:, 0]


def masks_for(model, allowed, q_pos, k_pos):
    """(B, 1, q, k) booleans -> what `attention_mask` takes. Models with sliding layers (OLMo-3) get one mask per kind of layer.

    q_pos (B, q), k_pos (B, k): positions. A window counts positions, not columns: in a packed row the second answer stands behind the first.
    """
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    if not getattr(config, "sliding_window", None) or (kinds and "sliding_attention" not in kinds):
        return allowed
    near = (q_pos[:, None, :, None] - k_pos[:, None, None, :]) < config.sliding_window
    return {"full_attention": allowed, "sliding_attention": allowed & near} if kinds else allowed & near


class GrowingLayer(DynamicLayer):
    """One layer's keys and values, (R, kv heads, columns, head size), with room for the columns to come.

    transformers' own layer copies everything at every token.
    """
    room, mine = (), None                                       # keys and values with spare columns; the view of those keys that is in use

    def update(self, keys, values, *args, **kwargs):
        if not self.is_initialized or keys.shape[2] > 1:
            return super().update(keys, values, *args, **kwargs)
        L = self.keys.shape[2]
        if self.keys is not self.mine or L == self.room[0].shape[2]:        # rows have come or gone, or the room is full
            self.room, self.mine, self.keys = (), None, pad(self.keys, (0, 0, 0, spare(L)))     # one after the other: the old ones are free before the next are copied
            self.values = pad(self.values, (0, 0, 0, spare(L)))
            self.room = self.keys, self.values
        for room, new in zip(self.room, (keys, values)):
            room[:, :, L] = new[:, :, 0]
        self.keys, self.values = (room[:, :, :L + 1] for room in self.room)
        self.mine = self.keys
        return self.keys, self.values

    def put(self, keys, values):
        """Other rows from here on."""
        self.keys, self.values, self.room, self.mine = keys, values, (), None


def new_cache():
    return Cache(layer_class_to_replicate=GrowingLayer)


class Batch:
    """The rows being sampled: a key-value cache, left-padded, with what is known of each row. Rows leave when finished and join from the queue."""

    def __init__(self, model, device):
        self.model, self.device = model, device
        self.cache = new_cache()
        self.seen = torch.zeros(0, 0, dtype=torch.bool, device=device)      # (R, L) which columns of the cache hold a token of the row
        self.length = torch.zeros(0, dtype=torch.long, device=device)       # (R,) tokens so far = position of the next one
        self.hidden = None                                                  # (R, H) last hidden state, from which the next token is drawn
        self.rows = []                                                      # (R,) which (prompt, answer) each row is

    def join(self, prompts, n, rows):
        """Prefill prompts, one forward for all, and add n rows for each to the batch."""
        longest = max(len(p) for p in prompts)
        ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts], device=self.device)                  # (P, L)
        seen = torch.tensor([[False] * (longest - len(p)) + [True] * len(p) for p in prompts], device=self.device)
        positions = (seen.cumsum(1) - 1).clamp(min=0)
        causal = torch.ones(longest, longest, dtype=torch.bool, device=self.device).tril()
        allowed = causal & seen[:, None, None, :] | torch.eye(longest, dtype=torch.bool, device=self.device)     # padding sees itself: no NaN
        cache = new_cache()
        hidden = self.model.base_model(input_ids=ids, attention_mask=masks_for(self.model, allowed, positions, positions),
                                       position_ids=positions, past_key_values=cache, use_cache=True).last_hidden_state[:, -1]
        cache.batch_repeat_interleave(n)
        seen, hidden = seen.repeat_interleave(n, 0), hidden.repeat_interleave(n, 0)
        length = torch.tensor([len(p) for p in prompts], device=self.device).repeat_interleave(n)
        if self.rows:                                                       # both caches padded on the left to the longer one
            new, old = cache.layers[0].keys.shape[2], self.seen.shape[1]
            for mine, theirs in zip(self.cache.layers, cache.layers):
                mine.put(*(torch.cat([pad(x, (0, 0, max(0, new - old), 0)), pad(y, (0, 0, max(0, old - new), 0))])
                           for x, y in ((mine.keys, theirs.keys), (mine.values, theirs.values))))
            self.seen = torch.cat([pad(self.seen, (max(0, new - old), 0)), pad(seen, (max(0, old - new), 0))])
            self.length, self.hidden = torch.cat([self.length, length]), torch.cat([self.hidden, hidden])
        else:
            self.cache, self.seen, self.length, self.hidden = cache, seen, length, hidden
        self.rows = self.rows + rows

    def keep(self, index):
        """Drop all rows but those of `index` (a list), and the columns that none of them uses."""
        self.rows = [self.rows[i] for i in index]
        if not index:
            self.cache = new_cache()
            return
        index = torch.tensor(index, device=self.device)
        self.seen, self.length, self.hidden = self.seen[index], self.length[index], self.hidden[index]
        first = int(self.seen.any(0).int().argmax())
        self.seen = self.seen[:, first:]
        for layer in self.cache.layers:
            layer.put(*(x.index_select(0, index)[:, :, first:] for x in (layer.keys, layer.values)))

    def step(self, tokens):
        """Feed one token to every row."""
        self.seen = pad(self.seen, (0, 1), value=True)
        k_pos = (self.seen.cumsum(1) - 1).clamp(min=0)
        masks = masks_for(self.model, self.seen[:, None, None, :], self.length[:, None], k_pos)
        self.hidden = self.model.base_model(input_ids=tokens[:, None], attention_mask=masks, position_ids=self.length[:, None],
                                            past_key_values=self.cache, use_cache=True).last_hidden_state[:, -1]
        self.length = self.length + 1


@torch.no_grad()
def sample(policy, prompts, n, key, cfg, temperature=None, top_p=None, top_k=None, what="sample"):
    """P prompts (token ids) -> (P, n) rollouts, each prompt read once.

    key: words that make the draws unique, e.g. (seed, iteration, role, stage); the row number is added here. The batch is kept at about cfg.rows_at_once rows,
    never less than one prompt's n: finished rows leave it and its cache, waiting prompts are prefilled and join. Prompts are taken longest first,
    which keeps the padding short.
    A response ends with a stop token (kept: EOS is trained) or at cfg.max_response_tokens (finished=False).
    """
    if not prompts:
        return []
    policy.wake()
    temperature = cfg.temperature if temperature is None else temperature
    top_p, top_k = cfg.top_p if top_p is None else top_p, cfg.top_k if top_k is None else top_k
    if cfg.sampler == "vllm":
        import vllm_sampler                                                 # a guest: imported only when asked for
        return vllm_sampler.sample(policy, prompts, n, key, cfg, temperature, top_p, top_k)
    mine = ranks.share(list(range(len(prompts))))
    queue = sorted(mine, key=lambda i: -len(prompts[i]))
    tokens = {(i, j): [] for i in mine for j in range(n)}
    logps = {row: [] for row in tokens}
    keys = {(i, j): row_key(*key, i * n + j) for i, j in tokens}
    stops = set(policy.stop_ids)
    bar = tqdm(total=len(tokens), desc=what, unit="row", leave=False, disable=not ranks.is_main())
    with policy.sampling_model() as model, bar:
        head, batch = model.get_output_embeddings(), Batch(model, policy.device)
        while queue or batch.rows:
            room = (cfg.rows_at_once - len(batch.rows)) // n
            if queue and (not batch.rows or room * n * 4 >= cfg.rows_at_once):              # refill a quarter at a time, not row by row
                room = max(1, min(room, cfg.tokens_at_once // len(prompts[queue[0]])))     # the longest first: a bound on the prefill
                taken, queue = queue[:room], queue[room:]
                batch.join([prompts[i] for i in taken], n, [(i, j) for i in taken for j in range(n)])
            t = np.array([len(tokens[row]) for row in batch.rows])
            u = torch.from_numpy(uniforms(np.array([keys[row] for row in batch.rows], dtype=np.uint64), t)).to(policy.device)
            token, logp = choose(head(batch.hidden), u, temperature, top_p, top_k)          # (R,)
            going = []
            for r, (row, a, lp) in enumerate(zip(batch.rows, token.tolist(), logp.tolist())):
                tokens[row].append(a)
                logps[row].append(lp)
                if a not in stops and len(tokens[row]) < cfg.max_response_tokens:
                    going.append(r)
            if len(going) < len(batch.rows):
                bar.update(len(batch.rows) - len(going))
                token = token[going]
                batch.keep(going)
            if going:
                batch.step(token)
    texts = policy.tokenizer.batch_decode(list(tokens.values()), skip_special_tokens=True)
    done = {row: (tokens[row], logps[row], tokens[row][-1] in stops, text) for row, text in zip(tokens, texts)}
    done = ranks.gather([[done[i, j] for j in range(n)] for i in mine], len(prompts))              # without prompts, which every rank has
    return [[Rollout(prompt, *row) for row in rows] for prompt, rows in zip(prompts, done)]


# ---------------------------------------------------------------- packed rows

@dataclass
class Row:
    """A prompt and some of its answers as a tree, depth first, ready for one forward pass. The first three lists have one entry per input token."""
    ids: list
    positions: list         # depth: the prompt counts from 0, every answer goes on from there
    ends: list              # a token's descendants stand behind it, up to here; nothing else sees it
    sources: list           # one per prediction: where it is made (an index into ids) ...
    targets: list           # ... and of which token
    spread: list            # one per response token, answer after answer: which prediction it is
    answers: list           # (flat index g * m + i, rollout) of the answers inside


def tree_order(group):
    """Answers of one prompt -> their indices, sorted by tokens: sorted lists are a tree read depth first."""
    return sorted(range(len(group)), key=lambda i: group[i].response)


def common_starts(group):
    """(m,) how many input tokens each answer has in common with the one before, both in tree order."""
    inputs = [group[i].response[:-1] for i in tree_order(group)]
    alike = lambda a, b: next((t for t, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    return [0] + [alike(a, b) for a, b in pairwise(inputs)]


def answers_per_row(policy, prompt, lengths, common, limit, parts=1):
    """How many answers should share one reading of the prompt: the number with the fewest FLOPs, of those that make at least `parts` rows.

    prompt: its length; lengths, common: (m,) of the answers in tree order: response lengths, and how much of each the one before has brought.
    A row of L tokens costs about 2 P_layers L + 4 W L^2 (P_layers weights in the layers; W = layers x heads x head size). Packing saves tokens and
    pays for attention between answers that the mask then throws away, so long answers to a short prompt go one to a row.
    """
    config = policy.model.config.get_text_config()
    width = config.num_hidden_layers * config.num_attention_heads * (getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)

    def flops(k):
        rows = [prompt + sum(lengths[i:i + k]) - sum(common[i + 1:i + k]) for i in range(0, len(lengths), k)]
        return sum(2 * policy.layer_weights * L + 4 * width * L * L for L in rows) if k == 1 or max(rows) <= limit else math.inf
    return min(range(1, math.ceil(len(lengths) / parts) + 1), key=flops)


def pack(group, g, k):
    """One group -> its rows of at most k answers. The last token of a response is a target only: nothing is predicted from it."""
    prompt, order, rows = group[0].prompt, tree_order(group), []
    for start in range(0, len(order), k):
        chosen = order[start:start + k]
        ids, parents = list(prompt), list(range(-1, len(prompt) - 1))
        positions, places, predictions, spread = list(range(len(prompt))), {}, {}, []       # places, predictions: of (parent, token)
        for i in chosen:
            response, at = group[i].response, len(prompt) - 1
            for t, token in enumerate(response):
                spread.append(predictions.setdefault((at, token), len(predictions)))
                if t < len(response) - 1:
                    if (at, token) not in places:
                        places[at, token] = len(ids)
                        ids.append(token)
                        positions.append(len(prompt) + t)
                        parents.append(at)
                    at = places[at, token]
        ends = list(range(1, len(ids) + 1))
        for i in range(len(ids) - 1, 0, -1):
            ends[parents[i]] = max(ends[parents[i]], ends[i])
        sources, targets = map(list, zip(*predictions))
        rows.append(Row(ids, positions, ends, sources, targets, spread, [(g * len(group) + i, group[i]) for i in chosen]))
    return rows


def packed(policy, group, g, limit, parts):
    """One group -> its rows, for the fewest FLOPs, at least `parts` of them where there are so many answers."""
    lengths = [len(group[i].response) for i in tree_order(group)]
    return pack(group, g, answers_per_row(policy, len(group[0].prompt), lengths, common_starts(group), limit, parts))


def micro_batches(policy, groups, cfg, parts=1, part=0):
    """Groups -> lists of rows that go through the model together: similar lengths, at most cfg.tokens_at_once padded tokens.

    With parts > 1 only part `part` of the rows: so many ranks divide a group's answers.
    """
    rows = [row for g, group in groups for row in packed(policy, group, g, cfg.tokens_at_once, parts)]
    rows.sort(key=lambda row: -len(row.ids))
    batches = []
    for row in rows[part::parts]:
        if not batches or (len(batches[-1]) + 1) * len(batches[-1][0].ids) > cfg.tokens_at_once:
            batches.append([])
        batches[-1].append(row)
    return batches


def tree_size(group):
    """How many tokens a prompt and its answers are, what they have in common counted once."""
    return len(group[0].prompt) + sum(len(rollout.response) for rollout in group) - sum(common_starts(group))


def longest_first(pairs):
    """(g, group) pairs in the order in which ranks take them in turn, so that all have about as many tokens."""
    return ranks.evenly(sorted(pairs, key=lambda pair: -tree_size(pair[1])))


EMPTY = Row([0], [0], [1], [], [], [], [])      # a token without an answer: no loss, gradients of exact zeros


def even_passes(policy, batches):
    """This rank's micro-batches, and empty ones until every rank has as many: a pass through a sharded model needs all ranks (shard.py)."""
    return batches + [[EMPTY]] * (ranks.most(len(batches)) - len(batches)) if policy.sharded else batches


class TokenLogps(torch.nn.Module):
    """A model and its head in one forward call: FSDP has a module's weights in one place only while that module is called."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids, masks, positions, sources, targets, temperature, chunk):
        """(B, L) ids and positions, (T,) places to predict from (in the flattened B L), (T,) targets -> (T,) log-probs."""
        out = self.model.base_model(input_ids=ids, attention_mask=masks, position_ids=positions, use_cache=False)
        hidden = out.last_hidden_state.flatten(0, 1)[sources]                                                   # (T, H)
        return head_logps(self.model.get_output_embeddings(), hidden, targets, temperature, chunk)


def packed_masks(policy, positions, ends):
    """(B, L) positions, (B, L) ends -> what `attention_mask` takes: every token sees itself and its ancestors.

    0 and -inf in the type of the queries: of booleans torch would make such a mask in every layer and keep them all until the backward pass.
    """
    places = torch.arange(ends.shape[1], device=ends.device)
    allowed = (places[:, None] < ends[:, None, :]).tril_()[:, None]                                             # (B, 1, L, L)
    masks = masks_for(policy.model, allowed, positions, positions)
    dtype = torch.bfloat16 if policy.bf16 else torch.float32
    as_numbers = lambda mask: torch.zeros(mask.shape, dtype=dtype, device=policy.device).masked_fill_(mask.logical_not(), -math.inf)
    return {kind: as_numbers(mask) for kind, mask in masks.items()} if isinstance(masks, dict) else as_numbers(masks)


def row_logps(policy, rows, temperature, cfg):
    """B packed rows -> (tokens,) log-probs of all response tokens, row after row, answer after answer. What answers share is computed once."""
    L = max(len(row.ids) for row in rows)
    fill = lambda name, value: torch.tensor([getattr(row, name) + [value] * (L - len(row.ids)) for row in rows], device=policy.device)     # (B, L)
    ids, positions = fill("ids", 0), torch.arange(L, device=policy.device).expand(len(rows), L)                                            # (B, L)
    masks = None                                            # trees without a branch: plain causal attention, padding stands behind what is read
    if any(row.positions[-1] < len(row.ids) - 1 for row in rows):
        positions = fill("positions", 0)
        masks = packed_masks(policy, positions, fill("ends", L))                                                # padding sees padding: no NaN
    as_tensor = lambda numbers: torch.tensor(numbers, dtype=torch.long, device=policy.device)
    sources = as_tensor([b * L + s for b, row in enumerate(rows) for s in row.sources])
    targets = as_tensor([token for row in rows for token in row.targets])
    first = np.cumsum([0] + [len(row.targets) for row in rows]).tolist()
    spread = as_tensor([first[b] + s for b, row in enumerate(rows) for s in row.spread])
    with policy.autocast(), policy.recomputing():
        logp = policy.net(ids, masks, positions, sources, targets, temperature, cfg.logp_chunk)
    if policy.sharded and not torch.is_grad_enabled():
        policy.net.reshard()                                # FSDP would leave it to a backward pass, and there is none
    return logp[spread]


def head_logps(head, hidden, targets, temperature, chunk):
    """(T, H), (T,) -> (T,) log-probs. The full logits of a long row over 151,936 words do not fit: a chunk at a time, again in backward."""
    def logps(h, y):
        return -cross_entropy(head(h).float() / temperature, y, reduction="none")
    if len(targets) <= chunk:
        return logps(hidden, targets)
    return torch.cat([checkpoint(logps, h, y, use_reentrant=False) for h, y in zip(hidden.split(chunk), targets.split(chunk))])


# ---------------------------------------------------------------- the loss

def token_loss(logp, logp_old, logp_sampler, A, clip=0.2, dual_clip=3.0, tis_cap=2.0):
    """Per-token loss l w, not yet aggregated; all arguments have one shape, (tokens,).

    >>> zero = torch.zeros(3)
    >>> token_loss(torch.tensor([0.5, 1.0, 3.5]).log(), zero, zero, torch.tensor([1.0, 1.0, 1.0]))        # moving on past 1.2 earns nothing
    tensor([-0.5000, -1.0000, -1.2000])
    >>> token_loss(torch.tensor([0.5, 1.0, 3.5]).log(), zero, zero, torch.tensor([-1.0, -1.0, -1.0]))     # 3.5 would be 3.5: the dual clip
    tensor([0.8000, 1.0000, 3.0000])
    """
    rho = (logp - logp_old).clamp(-20, 20).exp()
    loss = torch.maximum(-A * rho, -A * rho.clamp(1 - clip, 1 + clip))
    loss = torch.where(A < 0, torch.minimum(loss, -dual_clip * A), loss)
    w = (logp_old - logp_sampler).detach().clamp(-20, 20).exp().clamp(max=tis_cap)
    return loss * w


def batch_loss(policy, rows, A, denominator, cfg, logp_old=None):
    """B packed rows -> (scalar loss: sum over their tokens of l w / denominator, number of tokens).

    A: (G, m). logp_old: {flat index: (tokens,)} of rollouts whose old log-probs are not the present ones; None on the first pass, where rho = 1.
    """
    logp = row_logps(policy, rows, cfg.temperature, cfg)
    answers = [answer for row in rows for answer in row.answers]
    lengths = torch.tensor([len(rollout.response) for _, rollout in answers], dtype=torch.long, device=policy.device)
    index = torch.tensor([i for i, _ in answers], dtype=torch.long, device=policy.device)
    A_token = A.to(policy.device).flatten()[index].repeat_interleave(lengths)                       # one advantage per rollout, on each of its tokens
    sampler = torch.tensor([lp for _, rollout in answers for lp in rollout.logp], device=policy.device)
    old = logp.detach() if logp_old is None or not answers else torch.cat([logp_old[i] for i, _ in answers])
    loss = token_loss(logp, old, sampler, A_token, cfg.clip, cfg.dual_clip, cfg.tis_cap)
    return loss.sum() / denominator, len(sampler)


def mean_length(groups):
    """Tbar: mean response length in tokens over all rollouts of the groups."""
    lengths = [len(rollout.response) for group in groups for rollout in group]
    return sum(lengths) / len(lengths)


# ---------------------------------------------------------------- the update

@torch.no_grad()
def old_logps(policy, groups, cfg):
    """{flat index: (tokens,) log-probs at the present weights}, for mini-batches whose turn comes after the weights have moved."""
    old = {}
    for rows in even_passes(policy, micro_batches(policy, groups, cfg)):
        answers = [answer for row in rows for answer in row.answers]
        parts = row_logps(policy, rows, cfg.temperature, cfg).split([len(rollout.response) for _, rollout in answers])
        old.update({i: part for (i, _), part in zip(answers, parts)})
    return old


def update(policy, groups, A, cfg, what="update"):
    """One epoch of mini-batches of whole groups. groups: (G, m) rollouts, A: (G, m). Moves the model. -> {"grad_norm", "tokens", "steps", "rows"}.

    Groups without any advantage (all rewards equal) drop out, of Tbar too. The denominator B Tbar is one constant for the whole call.
    A non-finite gradient norm skips the step and is counted in policy.skipped.
    """
    kept = [(g, group) for g, group in enumerate(groups) if bool((A[g] != 0).any())]
    if not kept:
        return {"grad_norm": None, "tokens": 0, "steps": 0, "rows": 0}
    m = len(groups[0])
    if cfg.minibatch_rows % m:
        raise InputError(f"minibatch_rows {cfg.minibatch_rows} does not hold whole groups of {m}")
    size = cfg.minibatch_rows // m
    denominator = cfg.minibatch_rows * mean_length([group for _, group in kept])
    policy.wake()
    minibatches = [ranks.share(longest_first(kept[i:i + size])) for i in range(0, len(kept), size)]
    later = old_logps(policy, [pair for minibatch in minibatches[1:] for pair in minibatch], cfg)       # before the model moves
    norms, tokens = [], 0
    with tqdm(total=sum(map(len, minibatches)), desc=what, unit="group", leave=False, disable=not ranks.is_main()) as bar:
        for i, minibatch in enumerate(minibatches):
            policy.optimizer.zero_grad(set_to_none=True)
            for rows in even_passes(policy, micro_batches(policy, minibatch, cfg)):
                loss, n = batch_loss(policy, rows, A, denominator, cfg, later if i else None)
                loss.backward()
                tokens += n
            if not policy.sharded:
                ranks.sum_gradients(policy.params)                          # shards were added up as they were made
            norm = shard.whole(torch.nn.utils.clip_grad_norm_(policy.params, cfg.grad_clip))
            if bool(torch.isfinite(norm)):
                policy.optimizer.step()
                norms.append(float(norm))
            else:
                policy.skipped += 1
            bar.update(len(minibatch))
    policy.optimizer.zero_grad(set_to_none=True)                            # nothing of a finished update stays in memory
    tokens = sum(ranks.gather([tokens], ranks.world()))
    return {"grad_norm": sum(norms) / len(norms) if norms else None, "tokens": tokens, "steps": len(norms), "rows": len(kept) * m}
