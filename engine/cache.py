"""The rows that are being sampled, with their key-value cache: rows leave when finished, and others
join.

    code      shape                              meaning
    R, L                                      rows in the cache, its columns (padded on the left)
    keys      (R, kv heads, L, head size)     of one layer; values the same
    seen      (R, L)                          which columns hold a token of the row
    length    (R,)                            tokens so far, which is the position of the next one
    hidden    (R, H)                          last hidden state, from which the next token is drawn
"""
import torch
from torch.nn.functional import pad
from transformers.cache_utils import Cache, DynamicLayer

from engine.masks import masks_for


def spare(columns):
    """-> how many columns a key-value cache of so many gets for tokens to come."""
    return min(32, 4 + columns // 8)


def with_spare(x):
    return pad(x, (0, 0, 0, spare(x.shape[2])))


def padded_left(x, columns):
    """(R, heads, L, size) -> the same with `columns` empty ones before; none if that is negative.
    """
    return pad(x, (0, 0, max(0, columns), 0))


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
        # rows have come or gone, or the room is full
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

    def put(self, keys, values):
        """Other rows from here on."""
        self.keys, self.values = keys, values
        self.room, self.mine = (), None


def new_cache():
    return Cache(layer_class_to_replicate=GrowingLayer)


class Running:
    """The rows being sampled. `rows` names each: its (prompt, answer)."""

    def __init__(self, model, device):
        self.model, self.device = model, device
        self.cache = new_cache()
        self.seen = torch.zeros(0, 0, dtype=torch.bool, device=device)
        self.length = torch.zeros(0, dtype=torch.long, device=device)
        self.hidden = None
        self.rows = []

    def join(self, prompts, n, rows):
        """Prefill P prompts, one forward for all, and add n rows for each."""
        cache, seen, hidden = self.prefill(prompts)
        cache.batch_repeat_interleave(n)
        seen = seen.repeat_interleave(n, 0)
        hidden = hidden.repeat_interleave(n, 0)
        length = torch.tensor([len(p) for p in prompts], device=self.device).repeat_interleave(n)

        if self.rows:
            self.append(cache, seen, hidden, length)
        else:
            self.cache, self.seen, self.hidden, self.length = cache, seen, hidden, length
        self.rows = self.rows + rows

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
        cache = new_cache()
        out = self.model.base_model(
            input_ids=ids, attention_mask=masks_for(self.model, allowed, positions, positions),
            position_ids=positions, past_key_values=cache, use_cache=True)
        return cache, seen, out.last_hidden_state[:, -1]

    def append(self, cache, seen, hidden, length):
        """Other rows below these; both caches padded on the left to the longer one."""
        longer = cache.layers[0].keys.shape[2] - self.seen.shape[1]
        for mine, theirs in zip(self.cache.layers, cache.layers):
            keys = [padded_left(mine.keys, longer), padded_left(theirs.keys, -longer)]
            values = [padded_left(mine.values, longer), padded_left(theirs.values, -longer)]
            mine.put(torch.cat(keys), torch.cat(values))
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
        index = torch.tensor(index, device=self.device)
        self.seen = self.seen[index]
        self.length = self.length[index]
        self.hidden = self.hidden[index]
        first = int(self.seen.any(0).int().argmax())
        self.seen = self.seen[:, first:]
        for layer in self.cache.layers:
            layer.put(layer.keys.index_select(0, index)[:, :, first:],
                      layer.values.index_select(0, index)[:, :, first:])

    def step(self, tokens):
        """Feed one token to every row: (R,) tokens -> new hidden states."""
        self.seen = pad(self.seen, (0, 1), value=True)
        k_pos = (self.seen.cumsum(1) - 1).clamp(min=0)
        allowed = self.seen[:, None, None, :]
        masks = masks_for(self.model, allowed, self.length[:, None], k_pos)
        out = self.model.base_model(
            input_ids=tokens[:, None], attention_mask=masks, position_ids=self.length[:, None],
            past_key_values=self.cache, use_cache=True)
        self.hidden = out.last_hidden_state[:, -1]
        self.length = self.length + 1
