"""What bench.py measures on, and the plain ways of doing what the project does cleverly.

    ours               here                  how
    influence_scores   plain_scores          a padded row per answer, g_q whole, then Gamma of it
                       bare_passes           forward and backward over the same trees, nothing else
    dev_gradient       padded_dev_gradient   a padded row per answer, log-softmax of all logits
    update             padded_update         the same
                       trl_update            TRL's GRPOTrainer on the same tokens, if installed
    Running.step       Copying               transformers' attention in our rows
    sample             generate              left-padded batches, each ends with its longest row
                       continuous            transformers' continuous batching: a paged cache,
                                             rows come and go all the time

    code      shape      meaning
    groups    (G, m)     rollouts; the m of a group answer the same prompt
    A         (G, m)     their advantages; a row of zeros is a group without a gradient
    ends      (R,)       how many tokens each row is to have
    w                    a World: a model whose AdamW has a history, rollouts to be scored, g_dev

All compute the same numbers as ours; tests/test_bench.py holds them together. Nothing here is
meant to train with. What TRL does beyond ours: entropies for its log. What it lacks here: packing,
and the truncated importance weight (1 in what is compared, since the rollouts carry the model's
own log-probs). Its data loader and logging are left out.
"""
import copy
import math
import random
import tempfile
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from data import Rollout
from influence import Gamma, dev_gradient, norm, second_moment
from dugrpo import has_gradient
from policy import Policy, pass_loss, mean_length, old_logps, token_loss, update
from engine.cache import Running
from engine.packing import passes


class Skipped(Exception):
    """A way that cannot be run here: one line that says why."""


# ---------------------------------------------------------------- what is measured on

@dataclass
class World:
    policy: Policy              # its AdamW has moved, so v is not empty
    cfg: object
    answers: list               # (Q, m) rollouts of random tokens
    A: torch.Tensor             # (Q, m) advantages, no row of zeros
    g_dev: list                 # like policy.params
    asked: object = None        # bench.Asked, for the stages that score what was answered


def rollouts_of(groups):
    """(G, m) rollouts -> (R,) rollouts, group by group, R = G m."""
    return list(chain.from_iterable(groups))


def groups_with_gradient(A):
    """(G, m) advantages -> indices of the groups that have a gradient."""
    return has_gradient(A).nonzero()[:, 0].tolist()


def centred(G, m, rng):
    """-> (G, m) normal numbers less the mean of their row."""
    A = torch.tensor([rng.gauss(0, 1) for _ in range(G * m)]).view(G, m)
    return A - A.mean(dim=1, keepdim=True)


def with_own_logps(policy, groups, cfg):
    """The same (G, m) rollouts with the model's present log-probs. In place.

    They then are what the model would have just sampled at cfg.temperature.
    """
    logps = old_logps(policy, list(enumerate(groups)), cfg)
    for i, rollout in enumerate(rollouts_of(groups)):
        rollout.logp = logps[i].tolist()
    return groups


def random_tokens(policy, bounds, rng):
    """bounds: (from, to), in tokens -> a list of random tokens of random length."""
    n = rng.randint(*bounds)
    return [rng.randrange(policy.model.config.vocab_size) for _ in range(n)]


def random_groups(policy, cfg, G, m, lengths, rng):
    """-> (G, m) rollouts of random tokens with the model's own log-probs, and (G, m) advantages.

    lengths: {"prompt": (from, to), "answer": (from, to)}, in tokens.
    """
    def random_rollout(prompt):
        return Rollout(prompt, random_tokens(policy, lengths["answer"], rng), [], True, "")

    prompts = [random_tokens(policy, lengths["prompt"], rng) for _ in range(G)]

    groups = []
    for prompt in prompts:
        groups.append([random_rollout(prompt) for _ in range(m)])

    return with_own_logps(policy, groups, cfg), centred(G, m, rng)


def make_world(policy, cfg, Q, m, lengths, seed=0, updates=2):
    """Some updates and g_dev from other rollouts, then the Q questions to be scored."""
    cfg = replace(cfg, minibatch_rows=4 * m)
    rng = random.Random(seed)

    for _ in range(updates):
        update(policy, *random_groups(policy, cfg, 4, m, lengths, rng), cfg)

    g_dev = dev_gradient(policy, *random_groups(policy, cfg, 4, m, lengths, rng), cfg)
    answers, A = random_groups(policy, cfg, Q, m, lengths, rng)
    return World(policy, cfg, answers, A, g_dev)


def keeper(params, optimizer):
    """-> a function that puts weights and AdamW's state back to what they are now."""
    def state():
        tensors = []
        for p in params:
            tensors += [p.data, *optimizer.state[p].values()]
        return tensors

    before = [x.clone() for x in state()]

    def put_back():
        for x, old in zip(state(), before):
            x.copy_(old)
    return put_back


def first_moments(params, optimizer):
    """AdamW's exp_avg as one vector.

    It is linear in the gradients of an update, so equal gradients make it equal.
    """
    return torch.cat([optimizer.state[p]["exp_avg"].flatten() for p in params])


# ---------------------------------------------------------------- padded rows

def padded(rows, side="right"):
    """Lists of tokens -> (R, L) ids, (R, L) mask."""
    def fill(lists):
        tensors = [torch.tensor(x) for x in lists]
        return pad_sequence(tensors, batch_first=True, padding_side=side)

    ones = [[1] * len(row) for row in rows]
    return fill(rows), fill(ones)


def padded_logps(policy, groups, temperature):
    """(G, m) rollouts -> (tokens,) log-probs: one row per answer through the model's own logits."""
    rollouts = rollouts_of(groups)
    ids, mask = padded([x.prompt + x.response for x in rollouts])       # (R, L)
    begins = torch.tensor([len(x.prompt) for x in rollouts])[:, None]   # (R, 1)

    logits = policy.model(input_ids=ids, attention_mask=mask, use_cache=False).logits   # (R, L, V)
    logp = torch.log_softmax(logits[:, :-1] / temperature, dim=-1)
    logp = logp.gather(2, ids[:, 1:, None])[..., 0]                     # (R, L-1)

    in_response = torch.arange(1, mask.shape[1]) >= begins              # (R, L-1)
    return logp[mask[:, 1:].bool() & in_response]


def padded_loss(policy, groups, A, denominator, cfg, logp_old=None):
    """(G, m) rollouts, (G, m) advantages -> scalar.

    logp_old: (tokens,), or None for the present log-probs.
    """
    logp = padded_logps(policy, groups, cfg.temperature)                # (tokens,)
    rollouts = rollouts_of(groups)
    n_tokens = torch.tensor([len(x.response) for x in rollouts])        # (R,)
    A_token = A.flatten().repeat_interleave(n_tokens)                   # (tokens,)
    sampler = torch.tensor(list(chain.from_iterable(x.logp for x in rollouts)))
    old = logp.detach() if logp_old is None else logp_old

    loss = token_loss(logp, old, sampler, A_token, cfg.clip, cfg.dual_clip, cfg.tis_cap)
    return loss.sum() / denominator


def padded_passes(groups, kept, cfg):
    """Indices of groups -> lists of indices that go through the model together.

    A pass has at most cfg.tokens_at_once padded tokens, or one group.
    """
    passes = []
    longest = 0
    for g in kept:
        length = max(len(x.prompt) + len(x.response) for x in groups[g])
        rows = (len(passes[-1]) + 1) * len(groups[g]) if passes else 0
        if not passes or rows * max(longest, length) > cfg.tokens_at_once:
            passes.append([])
            longest = 0
        passes[-1].append(g)
        longest = max(longest, length)
    return passes


def padded_gradient(policy, groups, A, denominator, cfg, kept, later=None):
    """Add the gradient of the kept groups to .grad.

    later: {g: (tokens,)} old log-probs, where the weights have moved since.
    """
    for some in padded_passes(groups, kept, cfg):
        old = None if later is None else torch.cat([later[g] for g in some])
        rows = [groups[g] for g in some]
        padded_loss(policy, rows, A[some], denominator, cfg, old).backward()


def padded_dev_gradient(policy, groups, A, cfg):
    """(M, m) dev answers -> g_dev, the whole gradient of all kept groups."""
    kept = groups_with_gradient(A)
    mixed = [groups[g] for g in kept]
    denominator = len(mixed) * len(mixed[0]) * mean_length(mixed)       # N_dev Tbar_dev

    padded_gradient(policy, groups, A, denominator, cfg, kept)

    g_dev = [p.grad for p in policy.params]
    policy.optimizer.zero_grad(set_to_none=True)
    return g_dev


def padded_update(policy, groups, A, cfg):
    """policy.update by padded rows: the same mini-batches, the same AdamW."""
    kept = groups_with_gradient(A)
    size = cfg.minibatch_rows // len(groups[0])
    denominator = cfg.minibatch_rows * mean_length([groups[g] for g in kept])

    # before the model moves
    later = {}
    with torch.no_grad():
        for g in kept[size:]:
            later[g] = padded_logps(policy, [groups[g]], cfg.temperature)

    for start in range(0, len(kept), size):
        minibatch = kept[start:start + size]
        old = later if start else None
        padded_gradient(policy, groups, A, denominator, cfg, minibatch, old)
        torch.nn.utils.clip_grad_norm_(policy.params, cfg.grad_clip)
        policy.optimizer.step()
        policy.optimizer.zero_grad(set_to_none=True)


# ---------------------------------------------------------------- influence

def plain_scores(w):
    """World -> (Q,) s_hat by the definition."""
    norm_dev = norm(w.g_dev)
    denominator = len(w.answers[0]) * mean_length(w.answers)            # m Tbar_gen
    s_hat = torch.zeros(len(w.answers))
    for q in range(len(w.answers)):
        g_q = question_gradient(w, q, denominator)
        s_hat[q] = plain_score(w.policy, g_q, w.g_dev, norm_dev, w.cfg)
    return s_hat


def question_gradient(w, q, denominator):
    """-> g_q, the whole gradient of question q by padded rows, as a list like policy.params."""
    padded_loss(w.policy, [w.answers[q]], w.A[q:q + 1], denominator, w.cfg).backward()
    g_q = [p.grad for p in w.policy.params]
    for p in w.policy.params:
        p.grad = None
    return g_q


def plain_score(policy, g_q, g_dev, norm_dev, cfg):
    """g_q, g_dev as lists like policy.params -> s_hat = <g_dev, Gamma> / (|g_dev| |Gamma|).

    The definition is influence.similarity. Here it goes tensor by tensor, and |g_dev| is known, so
    that what is timed is as fast as the plain way can be.
    """
    sums = torch.zeros(2)                                               # <g_dev, Gamma>, |Gamma|^2
    for p, g, dev in zip(policy.params, g_q, g_dev):
        v, k = second_moment(policy.optimizer, p)
        direction = Gamma(g, v, k, cfg.beta2, cfg.adam_eps).flatten()
        dot = torch.dot(dev.flatten(), direction)
        sums += torch.stack([dot, torch.dot(direction, direction)])
    return sums[0] / (norm_dev * sums[1].sqrt())


def bare_passes(w):
    """Forward and backward of every question over its trees; the gradients are thrown away.

    No score can cost less.
    """
    Tbar = mean_length(w.answers)
    for q, group in enumerate(w.answers):
        for trees in passes(w.policy, [(q, group)], w.cfg):
            loss, _ = pass_loss(w.policy, trees, w.A, len(group) * Tbar, w.cfg)
            loss.backward()
        for p in w.policy.params:
            p.grad = None


# ---------------------------------------------------------------- rollouts

class Copying(Running):
    """Our rows with transformers' attention, which copies keys and values once for each of the
    query heads that share them.
    """
    attend = staticmethod(sdpa_attention_forward)


def drawing(temperature):
    """-> what transformers is told: draw from the whole softmax, or, at temperature 0, greedily."""
    if not temperature:
        return dict(do_sample=False)
    return dict(do_sample=True, temperature=temperature, top_k=0, top_p=1.0)


def generate(policy, prompts, ends, rows_at_once, temperature):
    """R prompts, (R,) lengths to stop at -> R lists of tokens, from transformers' own loop.

    Decodes them too, as sample does.
    """
    responses = []
    for start in range(0, len(prompts), rows_at_once):
        side_by_side = slice(start, start + rows_at_once)
        responses += generate_batch(policy, prompts[side_by_side], ends[side_by_side], temperature)

    policy.tokenizer.batch_decode(responses, skip_special_tokens=True)
    return responses


def generate_batch(policy, prompts, ends, temperature):
    """Some prompts, side by side -> their lists of tokens, each cut at its end."""
    ids, mask = padded(prompts, side="left")                            # (rows, L)
    L = ids.shape[1]
    end = torch.tensor(ends)
    no_such_token = policy.model.config.vocab_size

    def ended(so_far, scores, **_):
        return so_far.shape[1] - L >= end                               # (rows,)

    out = policy.model.generate(
        input_ids=ids, attention_mask=mask,
        max_new_tokens=int(end.max()), stopping_criteria=[ended],
        eos_token_id=no_such_token, pad_token_id=0, **drawing(temperature))

    return [row[:n] for row, n in zip(out[:, L:].tolist(), ends)]


def continuous(policy, prompts, ends, rows_at_once, temperature, page=16):
    """The same by transformers' continuous batching.

    Skipped where this version of transformers does not have it or it fails here: it is a moving
    target, and its failure is a line in the table, no more.
    """
    try:
        responses = continuous_responses(policy, prompts, ends, rows_at_once, temperature, page)
    except Exception as error:
        why = " ".join(str(error).split())[:150]
        raise Skipped(f"transformers' continuous batching: {why}")

    policy.tokenizer.batch_decode(responses, skip_special_tokens=True)
    return responses


def continuous_responses(policy, prompts, ends, rows_at_once, temperature, page):
    """As generate, not decoded; any exception where it fails.

    The cache is what rows_at_once rows need: by default it would take most of the memory.
    """
    from transformers import ContinuousBatchingConfig
    longest = max(len(prompt) + n for prompt, n in zip(prompts, ends))
    sizes = ContinuousBatchingConfig(
        page_size=page, num_blocks=rows_at_once * math.ceil(longest / page),
        max_batch_tokens=2048, max_requests_per_batch=rows_at_once)
    settings = GenerationConfig(
        eos_token_id=-1, pad_token_id=0, max_new_tokens=max(ends), **drawing(temperature))

    responses = {}
    with policy.model.continuous_batching_context_manager(
            settings, continuous_batching_config=sizes, warmup=False) as manager:
        for i, (prompt, n) in enumerate(zip(prompts, ends)):
            manager.add_request(prompt, request_id=str(i), max_new_tokens=n)

        while len(responses) < len(prompts):
            result = manager.get_result(timeout=60)
            if result is None or result.error:
                raise RuntimeError(result.error if result else "no token for a minute")
            if result.is_finished():
                responses[int(result.request_id)] = result.generated_tokens
    return [responses[i] for i in range(len(prompts))]


# ---------------------------------------------------------------- TRL

def no_reward(completions, **_):
    return [0.0] * len(completions)


def trl_trainer(policy, cfg, rows, longest):
    """-> TRL's GRPOTrainer around a copy of the model, that takes given tokens.

    Its AdamW is in the same state. Skipped without trl.
    """
    try:
        from datasets import Dataset
        from trl import GRPOConfig, GRPOTrainer
    except ImportError as error:
        raise Skipped(f"trl is not installed ({error})")

    class GivenTokens(GRPOTrainer):
        def _prepare_inputs(self, inputs):
            """Its own would sample them."""
            return inputs

    # a folder, since it would write checkpoints
    with tempfile.TemporaryDirectory() as folder:
        args = GRPOConfig(
            folder, per_device_train_batch_size=rows, num_generations=2,
            max_completion_length=longest, loss_type="dapo", beta=0.0, epsilon=cfg.clip,
            temperature=cfg.temperature, use_cpu=True, bf16=False, gradient_checkpointing=False,
            report_to=[])
        prompts = Dataset.from_dict({"prompt": ["x"] * rows})
        trainer = GivenTokens(copy.deepcopy(policy.model), no_reward, args, prompts,
                              processing_class=policy.tokenizer)

    # AdamW's settings come with the state; without the copy both would move one state
    params = [p for p in trainer.model.parameters() if p.requires_grad]
    trainer.optimizer = torch.optim.AdamW(params)
    trainer.optimizer.load_state_dict(copy.deepcopy(policy.optimizer.state_dict()))

    trainer.args.steps_per_generation = 1
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def trl_update(trainer, groups, A, cfg):
    """One optimizer step over all rows: its own loss, backward pass and clipping.

    Tokens in, no sampling and no data loader.
    """
    rollouts = rollouts_of(groups)
    prompt_ids, prompt_mask = padded([x.prompt for x in rollouts], side="left")     # (R, P)
    completion_ids, completion_mask = padded([x.response for x in rollouts])        # (R, T)
    inputs = dict(
        prompt_ids=prompt_ids, prompt_mask=prompt_mask,
        completion_ids=completion_ids, completion_mask=completion_mask,
        advantages=A.flatten(), num_items_in_batch=completion_mask.sum())

    trainer.training_step(trainer.model, inputs, None)
    torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), cfg.grad_clip)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad(set_to_none=True)
