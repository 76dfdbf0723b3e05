"""Samples n responses to each prompt, with random numbers that belong to rows.

    token = inverse of the cumulative distribution at u,     u = uniform(seed of the row, t)

    code         shape    meaning
    prompts      (P,)     token ids; n responses to each, so P n rows
    seed_words            (seed, iteration, role, stage): what tells a draw from all others, with
                          the row's number behind it
    t                     number of the token in the response, from 0
    u            (R,)     one uniform number for each row that is being sampled
    logits       (R, V)   over the V words of the vocabulary

A row's numbers depend on its seed words alone: the rows beside it, the number of ranks and a resume
change nothing. Prompts are read once, whatever n; finished rows leave the batch and its cache,
waiting prompts join (engine/cache.py; on CUDA engine/flat.py). A sampler of your own is a file
engine/NAME_sampler.py with `sample` (as vllm_sampler.sample: for each prompt n tuples, the stop
token kept) and `require`, and its name in config.py.

Ours, where the paper leaves it open: a response also ends at the token that ends a turn in the chat
template. top_p and top_k are for evaluation; the loss assumes all tokens.
"""
import hashlib
import importlib
import itertools

import torch

from data import Rollout
from engine import ranks
from engine.cache import sent
from engine.flat import rows_for
from engine.progress import bar as progress_bar


# ---------------------------------------------------------------- random numbers of rows

def row_seed(*seed_words):
    """(seed, iteration, role, stage, row) -> a 64-bit number, the only source of the row's draws.
    """
    digest = hashlib.blake2b(repr(seed_words).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def uniforms(seeds, t):
    """(R,) seeds, (R,) token numbers, both int64 -> (R,) numbers in [0, 1), on their device.

    By splitmix64, which has no state. Its words of 64 bits have no sign; products and sums of
    signed ones have the same bits.
    """
    def mixed(z, shift, factor):
        return (z ^ shifted(z, shift)) * factor

    z = seeds + (t + 1) * signed(0x9E3779B97F4A7C15)
    z = mixed(z, 30, signed(0xBF58476D1CE4E5B9))
    z = mixed(z, 27, signed(0x94D049BB133111EB))
    z = z ^ shifted(z, 31)
    return shifted(z, 11).double() * 2.0 ** -53


def shifted(z, n):
    """z >> n, with zeros from the left."""
    return (z >> n) & (2 ** (64 - n) - 1)


def signed(word):
    """A number of 64 bits -> the int64 of the same bits."""
    return word - 2 ** 64 if word >= 2 ** 63 else word


# ---------------------------------------------------------------- one token for each row

def choose(logits, u, temperature, top_p, top_k):
    """(R, V) logits, (R,) uniforms -> (R,) tokens, (R,) log-probs at the temperature.

    Temperature 0 is greedy, with log-probs at temperature 1. The log-prob is that of the whole
    distribution, whatever top_p and top_k leave of it.
    """
    if temperature == 0:
        logp = torch.log_softmax(logits.float(), dim=-1)
        token = logp.argmax(dim=-1)
        return token, logp.gather(1, token[:, None])[:, 0]

    logp = torch.log_softmax(logits.float() / temperature, dim=-1)                  # (R, V)
    p = logp.exp()
    if top_k or top_p < 1:
        p = truncated(p, top_p, top_k)
    mass = p.cumsum(dim=-1)
    point = u.to(mass.dtype)[:, None] * mass[:, -1:]                                # (R, 1)
    token = torch.searchsorted(mass, point, right=True)[:, 0]
    # rounding must not pick a token of probability 0
    last = p.shape[1] - 1 - (p.flip(1) > 0).int().argmax(dim=1)
    token = torch.minimum(token, last)
    return token, logp.gather(1, token[:, None])[:, 0]


def truncated(p, top_p, top_k):
    """(R, V) probabilities -> the same with 0 outside top_k, and outside top_p of what that left.

    As in transformers and vLLM.
    """
    p_sorted, order = p.sort(dim=-1, descending=True)
    if top_k:
        p_sorted[:, top_k:] = 0
    mass = p_sorted.cumsum(dim=-1)
    p_sorted[mass - p_sorted >= top_p * mass[:, -1:]] = 0
    return torch.zeros_like(p).scatter_(1, order, p_sorted)


# ---------------------------------------------------------------- the loop

def sample(policy, prompts, n, seed_words, cfg, temperature=None, top_p=None, top_k=None,
           what="sample"):
    """P prompts (token ids) -> (P, n) rollouts.

    A response ends with a stop token, which is kept (EOS is trained), or at cfg.max_response_tokens
    (finished=False). temperature, top_p, top_k: where they differ from training's.
    """
    if not prompts:
        return []
    policy.wake()
    temperature = cfg.temperature if temperature is None else temperature
    top_p = cfg.top_p if top_p is None else top_p
    top_k = cfg.top_k if top_k is None else top_k
    mine = ranks.share(list(range(len(prompts))))
    draw = temperature, top_p, top_k
    # train.py settles auto; whoever else samples does it by our own loop
    if cfg.sampler in ("auto", "plain"):
        done = plain(policy, prompts, mine, n, seed_words, cfg, draw, what)
    else:
        # A guest, imported only when asked for: engine/NAME_sampler.py with a function `sample`.
        guest = importlib.import_module(f"engine.{cfg.sampler}_sampler")
        seeds = [row_seed(*seed_words, i * n) for i in mine]
        done = guest.sample(policy, [prompts[i] for i in mine], n, seeds, cfg, draw)

    # Rollouts travel without prompts, which every rank has.
    rollouts = []
    for prompt, rows in zip(prompts, ranks.gather(done, len(prompts))):
        rollouts.append([Rollout(prompt, *row) for row in rows])
    return rollouts


@torch.no_grad()
def plain(policy, prompts, mine, n, seed_words, cfg, draw, what):
    """The prompts numbered in `mine` -> for each, n tuples (tokens, log-probs, finished, text).

    The batch is kept at about as many rows as there is room for, never less than one prompt's n.
    Prompts are taken longest first, which keeps the padding short. draw: (temperature, top_p,
    top_k).
    """
    # What waits: tokens to read, and the rows that go on from there.
    waiting = longest_first([(prompts[i], names([i], n)) for i in mine])
    rows = names(mine, n)
    tokens = {row: [] for row in rows}
    logps = {row: [] for row in rows}
    seeds = {(i, j): signed(row_seed(*seed_words, i * n + j)) for i, j in rows}
    stops = set(policy.stop_ids)
    bar = progress_bar(total=len(rows), desc=what, unit="row")

    with policy.sampling_model() as model, bar:
        head, running = model.get_output_embeddings(), rows_for(policy, model)
        while waiting or running.rows:
            # Where memory is full, the last rows wait again, with the tokens they have.
            for i, j in running.give_way():
                waiting.append((prompts[i] + tokens[i, j], [(i, j)]))
                waiting = longest_first(waiting)

            # Waiting prompts join.
            longest = len(waiting[0][0]) if waiting else 0
            room = joining(longest, len(running.rows), n, running.most_rows(cfg, longest),
                           cfg.tokens_at_once)
            if room:
                taken, waiting = waiting[:room], waiting[room:]
                running.join([ids for ids, _ in taken], [theirs for _, theirs in taken])

            # One token for every row.
            now = running.rows
            t = sent([len(tokens[row]) for row in now], policy.device)
            u = uniforms(sent([seeds[row] for row in now], policy.device), t)
            token, logp = choose(head(running.hidden), u, *draw)                    # (R,), (R,)

            # Finished rows leave; the others read their token. The host waits for the device here
            # and nowhere else.
            drawn = torch.stack([token.double(), logp.double()]).tolist()
            going = []
            for r, (row, a, lp) in enumerate(zip(now, *drawn)):
                tokens[row].append(int(a))
                logps[row].append(lp)
                if int(a) not in stops and len(tokens[row]) < cfg.max_response_tokens:
                    going.append(r)
            if len(going) < len(now):
                bar.update(len(now) - len(going))
                token = token[sent(going, policy.device)]
                running.keep(going)
            if going:
                running.step(token)

    texts = policy.tokenizer.batch_decode(list(tokens.values()), skip_special_tokens=True)
    texts = dict(zip(tokens, texts))

    done = []
    for i in mine:
        rows = names([i], n)
        done.append([(tokens[row], logps[row], tokens[row][-1] in stops, texts[row])
                     for row in rows])
    return done


def longest_first(waiting):
    return sorted(waiting, key=lambda one: -len(one[0]))


def joining(longest, running, n, rows_at_once, tokens_at_once):
    """Tokens of the longest prompt that waits (0: none does), rows that run -> how many prompts
    may join now.

    They join a quarter of the batch at a time and not row by row. The longest comes first, and so
    it bounds the prefill.
    """
    room = (rows_at_once - running) // n
    if not longest or (running and room * n * 4 < rows_at_once):
        return 0
    return max(1, min(room, tokens_at_once // longest))


def names(prompts, n):
    """Numbers of prompts -> (prompt, answer) of their n rows each."""
    return list(itertools.product(prompts, range(n)))
