"""The rows that are being sampled, padded, with their key-value cache: rows leave when finished,
and others join. (On CUDA they lie end to end: engine/flat.py.)

    code      shape                              meaning
    R, L                                      rows in the cache, its columns (padded on the left)
    keys      (R, kv heads, L, head size)     of one layer; values the same
    seen      (R, L)                          which columns hold a token of the row
    length    (R,)                            tokens so far, which is the position of the next one
    hidden    (R, H)                          last hidden state, from which the next token is drawn
"""
from itertools import chain

import torch
from torch.nn.functional import pad
from transformers.cache_utils import Cache, DynamicLayer

from engine.attention import attending, folded, heads_of
from engine.masks import masks_for


# Where --rows_at_once does not say how many rows are sampled side by side: at most so many, and so
# many as fit into
#   HELD bytes of keys and values on a CPU, so that numbers do not depend on what else runs there
#   SHARE of what is free on a GPU as a stage begins; the rest is for logits, prefills and copies
ROWS, HELD, SHARE = 256, 2 ** 31, 0.75


def sent(numbers, device):
    """A list of whole numbers -> a tensor on the device, which the host does not wait for."""
    return torch.tensor(numbers, dtype=torch.long).to(device, non_blocking=True)


def token_bytes(config, size):
    """A model's config, bytes of a number -> bytes of one token's keys and values, all layers."""
    _, K, D = heads_of(config)
    return 2 * config.get_text_config().num_hidden_layers * K * D * size


def rows_that_fit(cfg, token_bytes, held=HELD):
    """Rows of which `held` bytes hold the cache if all prompts and responses are as long as they
    may be: a power of 2, at most ROWS.
    """
    row = token_bytes * (cfg.max_prompt_tokens + cfg.max_response_tokens)
    fit = max(1, min(ROWS, held // row))
    return 2 ** (int(fit).bit_length() - 1)


def free_memory(device):
    """Bytes of a GPU that torch could still give."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def spare(columns):
    """-> how many columns a key-value cache of so many gets for tokens to come."""
    return min(32, 4 + columns // 8)


def with_spare(x):
    return pad(x, (0, 0, 0, spare(x.shape[2])))


def chosen(x, index, first):
    """(R, heads, L, size) -> the rows of `index` from column `first` on, and spare columns.

    With one copy: rows leave at nearly every step of a large batch.
    """
    L = x.shape[2] - first
    room = x.new_empty(len(index), x.shape[1], L + spare(L), x.shape[3])
    torch.index_select(x[:, :, first:], 0, index, out=room[:, :, :L])
    return room


def below(x, y):
    """y's rows below x's, the shorter ones padded on the left, and spare columns."""
    L = max(x.shape[2], y.shape[2])
    room = x.new_zeros(len(x) + len(y), x.shape[1], L + spare(L), x.shape[3])
    room[:len(x), :, L - x.shape[2]:L] = x
    room[len(x):, :, L - y.shape[2]:L] = y
    return room


class GrowingLayer(DynamicLayer):
    """One layer's keys and values, with room for the columns to come: transformers' own copies
    everything at every token.
    """
    # keys and values with their spare columns; the view of those keys that is in use
    room, mine = (), None

    def update(self, keys, values, *args, **kwargs):
        if not self.is_initialized or keys.shape[2] > 1:
            return super().update(keys, values, *args, **kwargs)
        L = self.keys.shape[2]
        # the first step after a prefill, or the room is full
        if self.keys is not self.mine or L == self.room[0].shape[2]:
            self.make_room()
        for room, new in zip(self.room, (keys, values)):
            room[:, :, L] = new[:, :, 0]
        self.keys, self.values = (room[:, :, :L + 1] for room in self.room)
        self.mine = self.keys
        return self.keys, self.values

    def make_room(self):
        """Keys, then values: the old ones are free before the next are copied."""
        self.room, self.mine = (), None
        self.keys = with_spare(self.keys)
        self.values = with_spare(self.values)
        self.room = self.keys, self.values

    def put(self, keys, values, columns):
        """Other rows from here on, with spare columns behind those in use."""
        self.room = keys, values
        self.keys, self.values = keys[:, :, :columns], values[:, :, :columns]
        self.mine = self.keys


def new_cache():
    return Cache(layer_class_to_replicate=GrowingLayer)


class Running:
    """The rows being sampled. `rows` names each: its (prompt, answer)."""
    attend = staticmethod(folded)

    def __init__(self, model, device):
        self.model, self.device = model, device
        self.held = SHARE * free_memory(device) if device.type == "cuda" else HELD
        self.token_bytes = token_bytes(model.config, model.dtype.itemsize)
        self.cache = new_cache()
        self.seen = torch.zeros(0, 0, dtype=torch.bool, device=device)
        self.length = torch.zeros(0, dtype=torch.long, device=device)
        self.hidden = None
        self.rows = []

    def join(self, prompts, rows):
        """Prefill P prompts, one forward for all, and add the rows of each: P lists of names."""
        n = sent([len(of_prompt) for of_prompt in rows], self.device)
        cache, seen, hidden = self.prefill(prompts)
        cache.batch_repeat_interleave(n)
        seen = seen.repeat_interleave(n, 0)
        hidden = hidden.repeat_interleave(n, 0)
        length = sent([len(p) for p in prompts], self.device).repeat_interleave(n)

        if self.rows:
            self.append(cache, seen, hidden, length)
        else:
            self.cache, self.seen, self.hidden, self.length = cache, seen, hidden, length
        self.rows = self.rows + list(chain.from_iterable(rows))

    def prefill(self, prompts):
        """P prompts -> a cache of their own, (P, L) seen, (P, H) hidden."""
        longest = max(len(p) for p in prompts)
        missing = [longest - len(p) for p in prompts]
        ids = torch.tensor([[0] * gap + p for gap, p in zip(missing, prompts)],
                           device=self.device)                                      # (P, L)
        seen = torch.tensor([[False] * gap + [True] * len(p) for gap, p in zip(missing, prompts)],
                            device=self.device)                                     # (P, L)
        positions = (seen.cumsum(1) - 1).clamp(min=0)
        causal = torch.ones(longest, longest, dtype=torch.bool, device=self.device).tril()
        # padding sees itself: no NaN
        itself = torch.eye(longest, dtype=torch.bool, device=self.device)
        allowed = causal & seen[:, None, None, :] | itself                          # (P, 1, L, L)
        masks = masks_for(self.model, allowed, positions, positions)
        cache = new_cache()
        return cache, seen, self.forward(ids, masks, positions, cache)

    def most_rows(self, cfg, longest):
        """How many rows may be sampled side by side now, if prompts of so many tokens join."""
        return cfg.rows_at_once or rows_that_fit(cfg, self.token_bytes, self.held)

    def give_way(self):
        """Names of rows that leave where the memory is full. Padded rows were counted before."""
        return []

    def append(self, cache, seen, hidden, length):
        """Other rows below these; both caches padded on the left to the longer one."""
        longer = seen.shape[1] - self.seen.shape[1]
        columns = max(seen.shape[1], self.seen.shape[1])
        for mine, theirs in zip(self.cache.layers, cache.layers):
            mine.put(below(mine.keys, theirs.keys), below(mine.values, theirs.values), columns)
        self.seen = torch.cat([pad(self.seen, (max(0, longer), 0)),
                               pad(seen, (max(0, -longer), 0))])
        self.length = torch.cat([self.length, length])
        self.hidden = torch.cat([self.hidden, hidden])

    def keep(self, index):
        """Drop all rows but those of `index` (a list), and the columns that none of them uses."""
        self.rows = [self.rows[i] for i in index]
        if not index:
            self.cache = new_cache()
            return
        index = sent(index, self.device)
        self.seen = self.seen[index]
        self.length = self.length[index]
        self.hidden = self.hidden[index]
        first = int(self.seen.any(0).int().argmax())
        self.seen = self.seen[:, first:]
        for layer in self.cache.layers:
            layer.put(chosen(layer.keys, index, first), chosen(layer.values, index, first),
                      self.seen.shape[1])

    def step(self, tokens):
        """Feed one token to every row: (R,) tokens -> new hidden states."""
        self.seen = pad(self.seen, (0, 1), value=True)
        k_pos = (self.seen.cumsum(1) - 1).clamp(min=0)
        allowed = self.seen[:, None, None, :]
        masks = masks_for(self.model, allowed, self.length[:, None], k_pos)
        self.hidden = self.forward(tokens[:, None], masks, self.length[:, None], self.cache)
        self.length = self.length + 1

    def forward(self, ids, masks, positions, cache):
        """(R, L) ids, which the cache takes in -> (R, H) hidden states of the last column."""
        with attending(self.model, self.attend):
            out = self.model.base_model(
                input_ids=ids, attention_mask=masks, position_ids=positions,
                past_key_values=cache, use_cache=True)
        return out.last_hidden_state[:, -1]
