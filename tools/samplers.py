"""How long GPUs sample, with rows end to end: by our own sampler (engine/flat.py), or by vLLM.

    code      meaning
    y         Sampling: what one rank's stage does, played through on lengths (tools/formulas.py)
    room      tokens of keys and values that fit beside the role at work
    R, T      rows of a step, and the tokens that they hold together

A step takes, b bytes a number, W and N weights of the layers and of the head (tools/formulas.py):

    host      l layer_us                                 Python starts the kernels of each layer
    device    the larger of b (W + N) / bandwidth and 2 (W + N) R / (peak x gemm_share)
              + (2 l K b T + 64 V R) / bandwidth         the cache, and R rows of logits in fp32
              + l small_us                               kernels too small for either
    seconds   the larger of host and device, + step_ms + R row_us

vLLM replays its steps from CUDA graphs and fuses small kernels: both are in its step_ms and in the
share of the bandwidth. Its requests carry a seed each, so that each row has a random generator and
a kernel of its own: row_us. docs/planning.md says where each number comes from; all are flags of
tools.plan, to be replaced by what is measured.
"""
from collections import Counter, deque
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from engine.cache import ROWS, SHARE
from engine.flat import FIRST, MOST
from sampling import joining
from tools.formulas import Sampling, forward_flops

# Of a GPU, what vLLM leaves free (engine/vllm_sampler.py: SPARE), and what its own graphs and the
# activations of a step of 8,192 tokens take, in bytes: assumed.
VLLM_SPARE, VLLM_OWN = 0.05, 3e9
# Tokens of a block of vLLM's cache.
BLOCK = 16
# Bytes that sampling.choose reads and writes for a logit: float, /, log_softmax, exp, cumsum, flip,
# >, int, argmax.
LOGIT = 64


@dataclass(frozen=True)
class Rates:
    """What one sampler reaches on a machine."""
    layer_us: float
    small_us: float
    step_ms: float
    row_us: float
    begin_s: float      # once a stage: going to sleep and waking up


def rates(m, how):
    """Machine, "ours" or "vllm" -> Rates."""
    if how == "vllm":
        return Rates(0, 0, m.vllm_step_ms, m.vllm_row_us, m.vllm_wake_s)
    return Rates(m.layer_us, m.small_us, m.step_ms, 0, 0)


def assumed(m, how):
    """Machine, "ours" or "vllm" -> one line: what is assumed of that sampler."""
    both = (f"{m.hbm_share:.0%} of the memory's bandwidth and {m.gemm_share:.0%} of {m.tflops:g} "
            "TFLOPs in a step")
    if how == "vllm":
        return (f"vLLM: {both}, {m.vllm_step_ms:g} ms between steps, {m.vllm_row_us:g} us a row "
                f"for its seed, {ROWS} sequences, {m.vllm_wake_s:g} s a stage to wake up and sleep")
    return (f"our sampler: {both}, {m.small_us:g} us of small kernels and at least {m.layer_us:g} "
            f"us of Python a layer, {m.step_ms:g} ms between steps, at most {ROWS} rows, "
            f"{SHARE:.0%} of free memory for keys and values")


def room(p, s, how):
    """Setting, Shape of the role at work -> tokens that its cache may hold on one rank.

    At least those of a prompt with all its answers: a plan that does not fit is said to, not played
    through a row at a time.
    """
    # AdamW and weights in slices; a copy to sample from, ours or vLLM's
    free = p.usable - 12 * s.P / p.k - p.b * s.P
    if how == "vllm":
        free -= VLLM_SPARE * 1e9 * p.machine.gpu_gb + VLLM_OWN
    else:
        free *= SHARE
    longest = p.cfg.max_prompt_tokens + p.cfg.max_response_tokens + MOST
    least = longest * max(p.cfg.answers_per_question, p.cfg.questions_per_doc)
    return max(least, int(free / (2 * s.layers * s.K * p.b)))


# ---------------------------------------------------------------- what a stage does

def played(groups, p, s):
    """Groups of one rank, Setting, Shape -> Sampling by the setting's sampler."""
    if p.sampler == "vllm":
        return by_vllm(groups, room(p, s, "vllm"))
    return ours(groups, room(p, s, "ours"), p.cfg.rows_at_once, p.cfg.tokens_at_once)


@lru_cache(maxsize=1024)
def ours(groups, room, rows_at_once, tokens_at_once):
    """Groups of one rank -> Sampling, as sampling.plain and engine/flat.py do it.

    Nothing changes between two rows' ends, or until the spare room is used up: one stride.
    """
    y, n = Sampling(), len(groups[0].responses) if groups else 1
    waiting = longest_first([(group.prompt, group.responses) for group in groups])
    length = left = np.zeros(0, dtype=np.int64)     # (R,) tokens in the cache, tokens still to draw
    spare, next_spare = 0, FIRST

    def joined():
        longest, R = waiting[0][0] if waiting else 0, len(length)
        free = max(0, room - int(length.sum()) - R * MOST)
        most = min(rows_at_once or ROWS, R + free // (longest + MOST))
        return joining(longest, R, n, most, tokens_at_once)

    def lay_out(held):
        y.most = max(y.most, held + len(length) * next_spare)
        y.copied += held
        return next_spare

    while waiting or len(length):
        if not spare and length.sum() + len(length) * FIRST > room:
            staying = max(1, int((length.cumsum() + MOST * np.arange(1, len(length) + 1)
                                  <= room).sum()))
            waiting += [(int(a), (int(b),)) for a, b in zip(length[staying:], left[staying:])]
            waiting = longest_first(waiting)
            length, left = length[:staying], left[:staying]

        some = joined()
        if some:
            taken, waiting = waiting[:some], waiting[some:]
            y.first = max(y.first, (0, sum(prompt for prompt, _ in taken), 0))
            for prompt, responses in taken:
                y.prefill += prompt
                # causal: half of the square
                y.squares += prompt ** 2 / 2
                length = np.append(length, [prompt] * len(responses))
                left = np.append(left, responses)
            spare = lay_out(int(length.sum()))

        stride = 1 if joined() else int(min(left.min(), max(1, spare)))
        length, left = drawn(y, length, left, stride)
        if len(length) and not spare:
            next_spare = min(MOST, 2 * next_spare)
            # before the token that has no room
            spare = lay_out(int(length.sum()) - len(length))
        spare -= stride
        if not len(length):
            spare, next_spare = 0, FIRST
    return y


@lru_cache(maxsize=1024)
def by_vllm(groups, room):
    """Groups of one rank -> Sampling, in blocks of 16. Answers to a prompt share its blocks. A row
    joins as soon as it fits; where the cache is full the last one gives its place up, waits first
    in line, and what it drew is read again."""
    y, prompts = Sampling(), [group.prompt for group in groups]
    length = left = of = np.zeros(0, dtype=np.int64)    # (R,) tokens, tokens to draw, the group
    waiting = deque()
    for g, group in enumerate(groups):
        waiting += [(g, group.prompt, n) for n in group.responses]
    # rows of each group; tokens in the cache, with a block more for every row
    rows, held = Counter(), 0

    while waiting or len(length):
        gave_way = False
        while len(length) > 1 and held > room:
            g, tokens = int(of[-1]), int(length[-1])
            waiting.appendleft((g, tokens, int(left[-1])))
            length, left, of = length[:-1], left[:-1], of[:-1]
            rows[g] -= 1
            held -= tokens - prompts[g] * (rows[g] > 0) + BLOCK
            gave_way = True

        # none joins in a step in which one left
        joined = []
        while waiting and not gave_way and len(length) + len(joined) < ROWS:
            g, tokens, n = waiting[0]
            new = tokens - prompts[g] * (rows[g] > 0)
            if held and held + new + BLOCK > room:
                break
            y.prefill += new
            y.squares += (tokens ** 2 - (tokens - new) ** 2) / 2
            joined.append(waiting.popleft())
            rows[g] += 1
            held += new + BLOCK
        if joined:
            of, length, left = (
                np.append(old, new) for old, new in zip((of, length, left), zip(*joined)))

        # until a row ends, or there is no block more for each
        stride = int(min(left.min(), max(1, (room - held) // len(length) + 1)))
        held += len(length) * stride
        y.most = max(y.most, held - len(length) * BLOCK)
        for i in np.flatnonzero(left <= stride):
            g = int(of[i])
            rows[g] -= 1
            held -= int(length[i]) + stride - prompts[g] * (rows[g] > 0) + BLOCK
        of = of[left > stride]
        length, left = drawn(y, length, left, stride)
    return y


def longest_first(waiting):
    return sorted(waiting, key=lambda one: -one[0])


def drawn(y, length, left, stride):
    """So many tokens for every row; those that end leave before they would read their last.

    -> their lengths, and tokens still to draw.
    """
    R = len(length)
    y.drawn += R * stride
    y.rows = max(y.rows, R)
    y.stride(R, stride - 1, int(length.sum()) + R * stride / 2)
    going = left > stride
    length, left = length[going] + stride, left[going] - stride
    if len(length):
        y.stride(len(length), 1, int(length.sum()))
    return length, left


# ---------------------------------------------------------------- how long it takes

def seconds(y, s, b, m, how):
    """Sampling of one rank, Shape, bytes of a number, Machine -> seconds, without the gather."""
    r = rates(m, how)
    bandwidth, cell = 1e9 * m.hbm_gbs * m.hbm_share, 2 * s.layers * s.K * b
    total = r.begin_s + forward_flops(s, y.prefill, y.squares, 0) / m.flops
    total += 2 * cell * y.copied / bandwidth
    for R, steps, T in y.strides:
        weights = max(b * (s.W + s.N) / bandwidth,
                      forward_flops(s, R, 0, R) / (1e12 * m.tflops * m.gemm_share))
        device = weights + (cell * T + LOGIT * s.V * R) / bandwidth + s.layers * r.small_us / 1e6
        host = s.layers * r.layer_us / 1e6
        total += steps * (max(host, device) + r.step_ms / 1e3 + R * r.row_us / 1e6)
    return total
