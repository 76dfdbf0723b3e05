"""The bytes and FLOPs of a sampling stage, of passes and of scoring, from lengths of groups alone.

    FLOPs     forward                 2 W X + 4 l A X2 + 2 H V targets
              forward and backward    6 W X + 14 l A X2 + 6 H V targets; more in docs/planning.md
    moment    {buffer: bytes} of one rank at a time when it may need most

    code      symbol   meaning
    groups             Lengths of each prompt with its answers (engine/packing.py)
    s                  Shape of a model (engine/room.py), which explains W, l, A, H, V and more
    x         X, X2    Pass: its tokens with padding, and the sum of its trees' squared lengths
    y                  Sampling: what one rank's sampling stage does
    k, b               ranks that hold a role in slices; bytes of a number in the compute dtype

Which trees share a pass, which questions a block, and which prompts join when, is asked of the
code that does it: packing, blocks and sampling.joining decide on lengths. tests/test_plan.py holds
all of this against what torch counts.
"""
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain

import numpy as np

from engine.blocks import in_blocks
from engine.cache import spare
from engine.packing import Rows, answers_per_tree, in_passes, tree_sizes
from engine.scoring import PIECE
from sampling import joining


# ---------------------------------------------------------------- what a sampling stage does

@dataclass
class Sampling:
    """Of one rank. Columns are those of the KV cache; a cell is a row's place in a column."""
    drawn: int = 0              # tokens
    prefill: int = 0            # tokens read, padding included
    squares: int = 0            # sum over prompts of columns^2
    row_steps: int = 0          # rows summed over decoding steps
    steps: int = 0
    cells: int = 0              # attended to, summed over steps
    rows: int = 0               # most at once
    most: int = 0               # most cells at once, spare ones included
    join: int = 0               # most cells while prompts join: the merged cache and the new part
    first: tuple = (0, 0, 0)    # (cells before, tokens, squares) of the largest prefill
    copied: int = 0             # cells that move when the cache is laid out anew
    strides: list = field(default_factory=list)     # (rows, steps, cells of each on average)

    def read(self, prompts, longest, before):
        """A prefill of so many prompts, beside `before` cells."""
        tokens = prompts * longest
        self.prefill += tokens
        self.squares += tokens * longest
        new = before, tokens, tokens * longest
        self.first = max(self.first, new, key=lambda x: x[0] / 2 + x[1])

    def step(self, rows, columns):
        """Every row reads a token, once for each entry of columns."""
        if len(columns):
            self.stride(rows, len(columns), rows * int(columns.sum()) / len(columns))

    def stride(self, rows, steps, cells):
        """The same, where `cells` are attended to in each step, on average."""
        self.steps += steps
        self.row_steps += rows * steps
        self.cells += round(cells * steps)
        if steps:
            self.strides.append((rows, steps, cells))


@lru_cache(maxsize=1024)
def sampling(groups, rows_at_once, tokens_at_once):
    """Groups of one rank -> Sampling. Nothing changes between two rows' ends: one stride."""
    y, n = Sampling(), len(groups[0].responses) if groups else 1
    waiting = sorted(groups, key=lambda group: -group.prompt)
    length = left = np.zeros(0, dtype=np.int64)     # (R,) tokens in the cache, tokens still to draw

    def room():
        longest = waiting[0].prompt if waiting else 0
        return joining(longest, len(length), n, rows_at_once, tokens_at_once)

    while waiting or len(length):
        joined = room()
        if joined:
            taken, waiting = waiting[:joined], waiting[joined:]
            before = len(length) * int(length.max(initial=0))
            y.read(len(taken), taken[0].prompt, before)
            length = np.append(length, np.repeat([group.prompt for group in taken], n))
            left = np.append(left, [group.responses for group in taken])
            new = len(taken) * n * taken[0].prompt
            columns = int(length.max())
            columns += spare(columns) if before else 0
            y.join = max(y.join, len(length) * columns + (new if before else 0))

        R, longest = len(length), int(length.max())
        stride = 1 if room() else int(left.min())
        y.drawn += R * stride
        y.rows = max(y.rows, R)
        y.step(R, longest + np.arange(1, stride))
        full = longest + stride - 1
        y.most = max(y.most, R * (full + spare(full)))

        # Those that end have drawn their last token, which nobody reads.
        going = left > stride
        length, left = length[going] + stride, left[going] - stride
        if len(length):
            y.step(len(length), length.max(keepdims=True))
    return y


# ---------------------------------------------------------------- what passes do

@dataclass
class Pass:
    """One forward and backward pass over packed trees, side by side or end to end."""
    rows: int
    L: int                      # tokens of a tree, side by side padding included
    targets: int                # predictions
    lengths: tuple = ()         # of trees that lie end to end

    @property
    def tokens(self):
        return sum(self.lengths) if self.lengths else self.rows * self.L

    @property
    def squares(self):
        """End to end there is no mask, and the kernel skips what lies ahead: half of each."""
        if self.lengths:
            return sum(n ** 2 for n in self.lengths) / 2
        return self.rows * self.L ** 2

    @property
    def masked(self):
        """Numbers of the mask."""
        return 0 if self.lengths else self.squares


@lru_cache(maxsize=2 ** 16)
def trees(group, s, limit, parts):
    return tree_sizes(group, answers_per_tree(s, *group, limit, parts))


def passes(groups, s, limit, parts=1, part=0):
    """Groups -> lists of TreeSizes, as packing.passes makes lists of trees."""
    sizes = []
    for group in groups:
        sizes += trees(group, s, limit, parts)
    return in_passes(sizes, limit, parts, part, s.end_to_end)


def joined(lists):
    """[[a, b], [c]] -> [a, b, c]"""
    return list(chain.from_iterable(lists))


def as_pass(sizes):
    lengths = tuple(size.tokens for size in sizes) if isinstance(sizes, Rows) else ()
    return Pass(len(sizes), sizes[0].tokens, sum(size.predictions for size in sizes), lengths)


def planned(*args):
    """passes(...) -> list of Pass."""
    return [as_pass(sizes) for sizes in passes(*args)]


def blocks(groups, s, cfg, device):
    """Questions -> (passes that several share, the passes of each of the others)."""
    questions = [passes((group,), s, cfg.tokens_at_once) for group in groups]
    shared = [] if cfg.grad_checkpoint else in_blocks(list(enumerate(questions)), cfg, device)
    inside, found = set(), []
    for pairs in shared:
        inside.update(q for q, _ in pairs)
        found.append(as_pass([size for _, size in pairs]))
    alone = [question for q, question in enumerate(questions) if q not in inside]
    return found, [list(map(as_pass, question)) for question in alone]


# ---------------------------------------------------------------- FLOPs

def forward_flops(s, tokens, squares, targets):
    return 2 * s.W * tokens + 4 * s.layers * s.A * squares + 2 * s.H * s.V * targets


def decode_flops(s, y):
    return forward_flops(s, y.row_steps, y.cells, y.drawn)


def sampling_flops(s, y):
    return forward_flops(s, y.prefill, y.squares, 0) + decode_flops(s, y)


def pass_flops(s, x, cfg):
    """Forward and backward of one Pass, recomputation included."""
    flops = 6 * s.W * x.tokens + 14 * s.layers * s.A * x.squares + 6 * s.H * s.V * x.targets
    if cfg.grad_checkpoint:
        # torch stops before a layer's last matrix: nothing needs its product
        flops += 2 * (s.W - s.layers * s.H * s.I) * x.tokens + 4 * s.layers * s.A * x.squares
    if x.targets > cfg.logp_chunk:
        flops += 2 * s.H * s.V * x.targets
    return flops


# ---------------------------------------------------------------- bytes

def activations(s, x, cfg, b):
    """Bytes that a pass keeps for its backward pass, all layers."""
    norms = 4 * s.H if b == 2 else 0
    if s.qk_norm:
        norms += (3 if b == 2 else 2) * b * (s.A + s.K)
    layer = x.tokens * (b * (6 * s.H + 4 * s.A + 4 * s.I) + norms) + b * x.masked
    kept = s.layers * layer
    if cfg.grad_checkpoint:
        kept = s.layers * s.H * b * x.tokens + layer
    # last norm, what the head reads, and the mask
    return kept + b * s.H * (2 * x.tokens + x.targets) + x.masked


def logits(s, x, cfg, b):
    return (14 if b == 2 else 12) * s.V * min(x.targets, cfg.logp_chunk)


def held(s, k):
    return {"master weights": 4 * s.P / k, "AdamW m, v": 8 * s.P / k}


def sampling_moments(s, y, k, b, narrow, how="padded", copies=False):
    """While tokens are drawn, while prompts join, in a prefill. narrow: with top_k or top_p.

    how: padded, or end to end by ours or vllm, where no prefill has a mask and the cache is laid
    out anew a layer at a time. copies: keys and values once more for each query head.
    """
    copy = {} if k == 1 and b == 4 else {"compute copy": b * s.P}
    base, kv = held(s, k) | copy, 2 * s.layers * s.K * b
    logits = (36 if narrow else 24) * s.V * y.rows
    before, tokens, squares = y.first
    prefill = b * (2 * s.H + 3 * s.I) * tokens
    if how != "padded":
        cache = base | {"KV cache": kv * y.most}
        return [cache | {"activations": kv * y.most / s.layers, "logits": logits},
                cache | {"activations": prefill}]

    repeated = 2 * s.A * b if copies and s.A != s.K else 0
    return [
        base | {"KV cache": kv * y.most, "activations": (repeated + s.K * b) * y.most,
                "logits": logits},
        base | {"KV cache": kv * y.join},
        base | {"KV cache": kv * (before + tokens), "activations": prefill + (1 + b) * squares}]


def backward_moments(s, base, found, cfg, b, gradient, scoring=0):
    """The heaviest pass: with its logits, the head's gradient, in its last layer's backward.

    gradient: bytes per element of one; scoring: bytes of what is made of it, a piece at a time.
    """
    def weight(x):
        return activations(s, x, cfg, b) + logits(s, x, cfg, b)

    x = max(found, key=weight)
    base, head = base | {"activations": activations(s, x, cfg, b)}, gradient * s.N
    # of the head: the gradient so far, and that of a chunk
    chunks = 2 if x.targets > cfg.logp_chunk else 1
    at_head = max(head * chunks, 0 if s.tied else head + scoring)
    # a tied one waits for the embedding's
    waits = head if s.tied else 0
    return [
        base | {"logits": logits(s, x, cfg, b)},
        base | {"logits": logits(s, x, cfg, b) / 3, "largest tensor": at_head},
        base | {"backward": 2 * s.I * b * x.tokens, "largest tensor": waits}]


def pass_moments(s, base, name, found, most, cfg, k, b):
    """The same for passes that accumulate gradients called `name`, and their end, when those
    outside the layers are added up.

    most: passes in a row, on one rank. Of a single one the gradients come as the activations go.
    """
    gradients = {name: 4 * s.P / k}
    copies = b * (2 * s.P_l + s.P_rest) if k > 1 else (b * s.P if b == 2 else 0)
    base = base | ({"compute copy": copies} if copies else {})
    gradient = b if k > 1 else 4
    end = s.N * gradient * ((2 if most == 1 else 3) if s.tied else 1)
    if k > 1:
        # whole in the compute dtype, and once more in fp32 to be summed over ranks
        end += gradient * (s.P_rest - s.N) + 4 * s.P_rest
    during = base | (gradients if most > 1 else {})
    return [*backward_moments(s, during, found, cfg, b, gradient),
            base | gradients | {"largest tensor": end}]


def update_moments(s, found, most, cfg, k, b, cuda):
    # on CUDA those of all tensors at once, on a CPU one fused pass
    step = {"gradients": 4 * s.P / k, "AdamW's temporaries": 4 * s.P / k if cuda else 0}
    passing = pass_moments(s, held(s, k), "gradients", found, most, cfg, k, b)
    return [*passing, held(s, k) | step]


def influence_moments(s, dev, most, shared, questions, cfg, k, b, slices, device):
    """dev: the passes of g_dev, at most `most` in a row; shared: blocks of questions; questions:
    the passes of each other one. slices: no copies are gathered."""
    moments = pass_moments(s, held(s, k), "g_dev", dev, most, cfg, k, b) if dev else []
    base = held(s, k) | {"g_dev": 4 * s.P / k}
    every = joined(questions)
    if slices:
        return moments + (pass_moments(s, base, "gradients", every, 2, cfg, k, b) if every else [])

    if k > 1:
        base |= {"gathered weights, v, g_dev": 3 * b * s.P}
    elif b == 2:
        base |= {"compute copy": b * s.P}
    gradient = b if k > 1 else 4
    piece = min(s.N, PIECE[device])
    # of bf16 tensors fp32 copies first
    scoring = piece * (16 if gradient == 2 else 4)

    if shared:
        # no gradient is ever whole: two pieces of one
        two = scoring + gradient * piece
        during = backward_moments(s, base, shared, cfg, b, 0, two)
        left = during[1]["logits"] if s.tied else 0
        moments += [*during, base | {"logits": left, "largest tensor": two}]
    if every:
        if max(map(len, questions)) > 1:
            base |= {"gradients": gradient * s.P}
        moments += backward_moments(s, base, every, cfg, b, gradient, scoring)
        moments += [base | {"largest tensor": (3 if s.tied else 1) * gradient * s.N + scoring}]
    return moments
