"""The rows that are being sampled, end to end in a flat cache: no padding, no mask, no copies.

    code      shape        meaning
    R, T                   rows; tokens that are read at once, end to end
    N                      tokens that the cache has room for
    keys      (N, K, D)    of one layer: K key-value heads of size D; values the same
    start     (R,)         where each row's stretch of the cache begins
    length    (R,)         its tokens so far, which is the position of the next one
    spare                  tokens that every stretch still has room for
    hidden    (R, H)       last hidden state, from which the next token is drawn

Every row reads one token a step, so all stretches are full at the same step. Then, and when prompts
join, the cache is laid out anew, layer by layer, with twice the spare room, up to 256 tokens a row:
that costs one copy in 256 steps, and a row that has left keeps its stretch no longer than that.

Prompts and steps go through the model as one sequence of T tokens; varlen_attn is told by tensors
where each row's keys begin and how many there are. starts and lengths are known on the host too,
which never asks the device for them. Where the memory is full, the rows that came last give way:
they wait again with the tokens they have, and go on as if nothing had happened, since their random
numbers belong to them.

CUDA's path. On a CPU attention.varlen stands in for the kernel, and tests/test_flat.py holds all of
this against padded rows; on a GPU it has never run.
"""
from itertools import accumulate, chain

import torch
from torch.nn.functional import pad
from transformers.cache_utils import Cache, DynamicLayer

from engine.attention import attending, extras
from engine.cache import ROWS, SHARE, Running, free_memory, sent, token_bytes
from engine.masks import windows_of
from engine.varlen import kernel_fits

# Room for tokens to come, of each row: after the first prefill, and at most.
FIRST, MOST = 32, 256


# ---------------------------------------------------------------- who takes it

def rows_for(policy, model):
    """-> the rows of a sampling stage, none yet: end to end where there is a kernel for it."""
    if policy.flat and has_kernel(model, policy.device):
        # here, since a torch that comes with vLLM may not have it
        from torch.nn.attention.varlen import varlen_attn
        return Flat(model, policy.device, varlen_attn, tokens_that_fit(model, policy.device))
    return Running(model, policy.device)


def has_kernel(model, device):
    """torch's flash attention, which takes 16 bits."""
    return model.dtype in (torch.bfloat16, torch.float16) and kernel_fits(model, device)


def tokens_that_fit(model, device):
    """Tokens of all rows together for whose keys and values there is memory now."""
    return int(SHARE * free_memory(device)) // token_bytes(model.config, model.dtype.itemsize)


# ---------------------------------------------------------------- the cache

def places(starts, lengths):
    """Where the tokens of stretches lie, end to end.

    >>> places([0, 10], [3, 2])
    tensor([ 0,  1,  2, 10, 11])
    """
    found = [torch.arange(start, start + n) for start, n in zip(starts, lengths)]
    return torch.cat(found)


class FlatLayer(DynamicLayer):
    """One layer's keys and values. A prompt's wait in `read` until the stretches are laid out."""
    read = None

    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def update(self, keys, values, *args, **kwargs):
        """(1, K, T, D) -> what the T queries see: themselves in a prefill, else all of the cache.
        """
        new = [x[0].transpose(0, 1) for x in (keys, values)]                        # (T, K, D)
        if self.rows.reading:
            self.read = new
            return keys, values
        self.keys.index_copy_(0, self.rows.here, new[0])
        self.values.index_copy_(0, self.rows.here, new[1])
        return self.keys.transpose(0, 1)[None], self.values.transpose(0, 1)[None]

    def lay_out(self, old, new, source):
        """Old rows' tokens move with one read and one write; what was read goes to its rows.

        old: (N,) the place that each place is filled from; new, source: places of joining rows'
        tokens, and where in `read` they come from.
        """
        self.keys = moved(self.keys, self.read and self.read[0], old, new, source)
        self.values = moved(self.values, self.read and self.read[1], old, new, source)
        self.read = None


def moved(x, read, old, new, source):
    if x is None:
        x = read.new_zeros(len(old), *read.shape[1:])
    else:
        x = x.index_select(0, old)
    return x if read is None else x.index_copy_(0, new, read.index_select(0, source))


class Flat:
    """The rows being sampled. `rows` names each: its (prompt, answer).

    varlen: torch's varlen_attn, or attention.varlen. room: tokens that the cache may hold.
    """

    def __init__(self, model, device, varlen, room):
        self.model, self.device, self.varlen, self.room = model, device, varlen, room
        self.windows = windows_of(model)
        self.clear()

    def clear(self):
        self.cache = Cache(layers=[FlatLayer(self) for _ in self.windows])
        self.rows, self.starts, self.lengths = [], [], []
        self.spare, self.next_spare = 0, FIRST
        self.reading, self.hidden = False, None

    # ------------------------------------------------------------ how many

    def most_rows(self, cfg, longest):
        """How many rows may be sampled side by side now, if prompts of so many tokens join."""
        free = max(0, self.room - self.needs(len(self.rows), MOST))
        return min(cfg.rows_at_once or ROWS, len(self.rows) + free // (longest + MOST))

    def give_way(self):
        """Where the stretches are full and there is no room for longer ones: the names of the
        rows that came last, which leave. One row stays, whatever it takes.
        """
        if self.spare or self.needs(len(self.rows), FIRST) <= self.room:
            return []
        staying = len(self.rows)
        while staying > 1 and self.needs(staying, MOST) > self.room:
            staying -= 1
        leaving = self.rows[staying:]
        self.keep(list(range(staying)))
        return leaving

    def needs(self, rows, spare):
        return sum(self.lengths[:rows]) + rows * spare

    # ------------------------------------------------------------ rows come and go

    def join(self, prompts, rows):
        """Prefill P prompts, one forward for all, and add the rows of each: P lists of names."""
        sizes = [len(prompt) for prompt in prompts]
        ends = list(accumulate(sizes))
        counts = [len(of_prompt) for of_prompt in rows]
        ids = sent(list(chain.from_iterable(prompts)), self.device)
        positions = torch.cat([torch.arange(n) for n in sizes])
        cu_seq = sent([0, *ends], self.device).int()

        def seen(window):
            # a window of w tokens reaches w - 1 back
            left = -1 if window is None else window - 1
            return dict(cu_seq_q=cu_seq, cu_seq_k=cu_seq, max_q=max(sizes), max_k=max(sizes),
                        window_size=(left, 0))

        self.reading = True
        hidden = self.forward(ids, positions.to(self.device), seen)                 # (T, H)
        self.reading = False
        last = torch.tensor(ends).repeat_interleave(torch.tensor(counts)) - 1       # (new rows,)
        hidden = hidden[last.to(self.device)]
        self.hidden = torch.cat([self.hidden, hidden]) if self.rows else hidden

        # each row's prompt, as a stretch of what was read
        begins, lengths = [], []
        for end, n, count in zip(ends, sizes, counts):
            begins += [end - n] * count
            lengths += [n] * count
        self.rows = self.rows + list(chain.from_iterable(rows))
        self.lay_out(begins, lengths)

    def lay_out(self, begins=(), lengths=()):
        """Stretches for the rows that are here and, behind them, for those of new lengths, which
        begin in what was read.
        """
        old = len(self.lengths)
        everyone = self.lengths + list(lengths)
        self.spare = self.next_spare
        stretches = [n + self.spare for n in everyone]
        starts = [0, *accumulate(stretches)]

        # Places that no token has moved to are filled with the first, and not read before they are
        # written.
        source = torch.zeros(starts[-1], dtype=torch.long)
        if old:
            source[places(starts[:old], self.lengths)] = places(self.starts, self.lengths)
        new = places(starts[old:-1], lengths) if begins else torch.zeros(0, dtype=torch.long)
        read = places(begins, lengths) if begins else new
        moves = [x.to(self.device, non_blocking=True) for x in (source, new, read)]
        for layer in self.cache.layers:
            layer.lay_out(*moves)

        self.starts, self.lengths, self.size = starts[:-1], everyone, starts[-1]
        self.start, self.length = sent(self.starts, self.device), sent(everyone, self.device)

    def keep(self, index):
        """Drop all rows but those of `index` (a list). Their stretches stay until the next layout.
        """
        self.rows = [self.rows[i] for i in index]
        self.starts = [self.starts[i] for i in index]
        self.lengths = [self.lengths[i] for i in index]
        if not index:
            self.clear()
            return
        index = sent(index, self.device)
        self.start, self.length = self.start[index], self.length[index]
        self.hidden = self.hidden[index]

    # ------------------------------------------------------------ one token for each

    def step(self, tokens):
        """Feed one token to every row: (R,) tokens -> new hidden states."""
        if not self.spare:
            self.next_spare = min(MOST, 2 * self.next_spare)
            self.lay_out()
        R = len(self.rows)
        self.here = self.start + self.length                                        # (R,)
        each = torch.arange(R + 1, dtype=torch.int32, device=self.device)
        used = self.length + 1
        longest = max(self.lengths) + 1

        def seen(window):
            # the keys in the window end where all keys do
            n = used if window is None else used.clamp(max=window)
            begin = pad(self.start + used - n, (0, 1), value=self.size)             # (R + 1,)
            return dict(cu_seq_q=each, cu_seq_k=begin.int(), max_q=1, max_k=longest,
                        seqused_k=n.int())

        self.hidden = self.forward(tokens, self.length, seen)
        self.length = used
        self.lengths = [n + 1 for n in self.lengths]
        self.spare -= 1

    def forward(self, ids, positions, seen):
        """(T,) ids at their positions; window -> what varlen is told -> (T, H) hidden states."""
        told = {window: seen(window) for window in set(self.windows)}

        def attend(module, query, key, value, attention_mask, scaling=None, **more):
            if extras(more):
                raise NotImplementedError(f"attention with {', '.join(extras(more))}")
            # (1, heads, tokens, D) -> (tokens, heads, D)
            q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
            out = self.varlen(q, k, v, scale=scaling, enable_gqa=True,
                              **told[self.windows[module.layer_idx]])
            return out[None], None

        with attending(self.model, attend):
            out = self.model.base_model(
                input_ids=ids[None], position_ids=positions[None], past_key_values=self.cache,
                use_cache=True)
        return out.last_hidden_state[0]
