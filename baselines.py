"""What bench.py measures on, and the plain ways of doing what the project does cleverly.

    ours                            here
    influence.influence_scores      plain_scores            one padded row per answer, g_q whole, then a pass over all parameters
                                    bare_passes             forward and backward over the same packed rows and nothing else
    influence.dev_gradient          padded_dev_gradient     one padded row per answer, log-softmax of all logits
    policy.update                   padded_update           the same
                                    trl_update              one step of TRL's GRPOTrainer on the same tokens (a guest: if trl is installed)
    policy.sample                   generate                model.generate on left-padded batches; a batch ends when its last row ends
                                    continuous              transformers' continuous batching: a paged cache, rows come and go all the time

    code      shape      meaning
    groups    (G, m)     rollouts; the m of a group answer the same prompt
    A         (G, m)     their advantages; a row of zeros is a group without a gradient
    ends      (R,)       how many tokens each row is to have
    w                    a World: a model whose AdamW has a history, rollouts to be scored, g_dev

All compute the same numbers as ours; tests/test_bench.py holds them together. Nothing here is meant to train with.

What TRL does beyond ours: entropies for its log. What it lacks here: packing, and the truncated importance weight (1 in what is compared,
since the rollouts carry the model's own log-probs). Its data loader and logging are left out.
"""
import copy
import math
import random
import tempfile
from dataclasses import dataclass, replace

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig

from data import Rollout
from influence import Gamma, dev_gradient, has_gradient, norm, second_moment
from policy import Policy, batch_loss, mean_length, micro_batches, old_logps, token_loss, update


class Skipped(Exception):
    """A way that cannot be run here: one line that says why."""


# ---------------------------------------------------------------- what is measured on

@dataclass
class World:
    policy: Policy      # its AdamW has moved, so v is not empty
    cfg: object
    answers: list       # (Q, m) rollouts of random tokens
    A: torch.Tensor     # (Q, m) advantages, no row of zeros
    g_dev: list         # like policy.params
    asked: object = None        # bench.Asked, for the stages that score what was answered


def centred(G, m, rng):
    """-> (G, m) normal numbers less the mean of their row."""
    A = torch.tensor([[rng.gauss(0, 1) for _ in range(m)] for _ in range(G)])
    return A - A.mean(dim=1, keepdim=True)


def with_own_logps(policy, groups, cfg):
    """The same (G, m) rollouts with the model's present log-probs, as if it had just sampled them at cfg.temperature. In place."""
    logps = old_logps(policy, list(enumerate(groups)), cfg)
    for i, rollout in enumerate(rollout for group in groups for rollout in group):
        rollout.logp = logps[i].tolist()
    return groups


def random_groups(policy, cfg, G, m, lengths, rng):
    """-> (G, m) rollouts of random tokens with the model's own log-probs, and (G, m) advantages.

    lengths: {"prompt": (from, to), "answer": (from, to)}, in tokens.
    """
    draw = lambda kind: [rng.randrange(policy.model.config.vocab_size) for _ in range(rng.randint(*lengths[kind]))]
    groups = [[Rollout(prompt, draw("answer"), [], True, "") for _ in range(m)] for prompt in [draw("prompt") for _ in range(G)]]
    return with_own_logps(policy, groups, cfg), centred(G, m, rng)


def make_world(policy, cfg, Q, m, lengths, seed=0):
    """Two updates and g_dev from other rollouts, then the Q questions to be scored."""
    cfg, rng = replace(cfg, minibatch_rows=4 * m), random.Random(seed)
    for _ in range(2):
        update(policy, *random_groups(policy, cfg, 4, m, lengths, rng), cfg)
    g_dev = dev_gradient(policy, *random_groups(policy, cfg, 4, m, lengths, rng), cfg)
    return World(policy, cfg, *random_groups(policy, cfg, Q, m, lengths, rng), g_dev)


def keeper(params, optimizer):
    """-> a function that puts weights and AdamW's state back to what they are now."""
    state = lambda: [x for p in params for x in (p.data, *(value for value in optimizer.state[p].values()))]
    before = [x.clone() for x in state()]

    def put_back():
        for x, old in zip(state(), before):
            x.copy_(old)
    return put_back


def first_moments(params, optimizer):
    """AdamW's exp_avg as one vector: linear in the gradients of an update, so equal gradients make it equal."""
    return torch.cat([optimizer.state[p]["exp_avg"].flatten() for p in params])


# ---------------------------------------------------------------- padded rows

def padded(rows, side="right"):
    """Lists of tokens -> (R, L) ids, (R, L) mask."""
    fill = lambda lists: pad_sequence([torch.tensor(x) for x in lists], batch_first=True, padding_side=side)
    return fill(rows), fill([[1] * len(row) for row in rows])


def padded_logps(policy, groups, temperature):
    """(G, m) rollouts -> (tokens,) log-probs: one row per answer through the model's own logits."""
    rollouts = [rollout for group in groups for rollout in group]
    ids, mask = padded([x.prompt + x.response for x in rollouts])                                                   # (R, L)
    begins = torch.tensor([len(x.prompt) for x in rollouts])[:, None]                                               # (R, 1)
    logits = policy.model(input_ids=ids, attention_mask=mask, use_cache=False).logits                               # (R, L, V)
    logp = torch.log_softmax(logits[:, :-1] / temperature, dim=-1).gather(2, ids[:, 1:, None])[..., 0]              # (R, L-1)
    return logp[mask[:, 1:].bool() & (torch.arange(1, mask.shape[1]) >= begins)]


def padded_loss(policy, groups, A, denominator, cfg, logp_old=None):
    """(G, m) rollouts, (G, m) advantages -> scalar. logp_old: (tokens,), or None for the present log-probs."""
    logp = padded_logps(policy, groups, cfg.temperature)                                                            # (tokens,)
    rollouts = [x for group in groups for x in group]
    A_token = A.flatten().repeat_interleave(torch.tensor([len(x.response) for x in rollouts]))
    sampler = torch.tensor([lp for x in rollouts for lp in x.logp])
    old = logp.detach() if logp_old is None else logp_old
    return token_loss(logp, old, sampler, A_token, cfg.clip, cfg.dual_clip, cfg.tis_cap).sum() / denominator


def padded_passes(groups, kept, cfg):
    """Indices of groups -> lists of indices that go through the model together: at most cfg.tokens_at_once padded tokens."""
    passes, longest = [], 0
    for g in kept:
        length = max(len(x.prompt) + len(x.response) for x in groups[g])
        if not passes or (len(passes[-1]) + 1) * len(groups[g]) * max(longest, length) > cfg.tokens_at_once:
            passes, longest = passes + [[]], 0
        passes[-1].append(g)
        longest = max(longest, length)
    return passes


def padded_gradient(policy, groups, A, denominator, cfg, kept, later=None):
    """Add the gradient of the kept groups to .grad. later: {g: (tokens,)} old log-probs, where the weights have moved since."""
    for some in padded_passes(groups, kept, cfg):
        old = None if later is None else torch.cat([later[g] for g in some])
        padded_loss(policy, [groups[g] for g in some], A[some], denominator, cfg, old).backward()


def padded_dev_gradient(policy, groups, A, cfg):
    """(M, m) dev answers -> g_dev, the whole gradient of all kept groups."""
    kept = has_gradient(A).nonzero()[:, 0].tolist()
    rows = [groups[g] for g in kept]
    padded_gradient(policy, groups, A, len(rows) * len(rows[0]) * mean_length(rows), cfg, kept)
    g_dev = [p.grad for p in policy.params]
    policy.optimizer.zero_grad(set_to_none=True)
    return g_dev


def padded_update(policy, groups, A, cfg):
    """policy.update by padded rows: the same mini-batches, the same AdamW."""
    kept = has_gradient(A).nonzero()[:, 0].tolist()
    size, denominator = cfg.minibatch_rows // len(groups[0]), cfg.minibatch_rows * mean_length([groups[g] for g in kept])
    minibatches = [kept[i:i + size] for i in range(0, len(kept), size)]
    with torch.no_grad():                                                               # before the model moves
        later = {g: padded_logps(policy, [groups[g]], cfg.temperature) for minibatch in minibatches[1:] for g in minibatch}
    for i, minibatch in enumerate(minibatches):
        padded_gradient(policy, groups, A, denominator, cfg, minibatch, later if i else None)
        torch.nn.utils.clip_grad_norm_(policy.params, cfg.grad_clip)
        policy.optimizer.step()
        policy.optimizer.zero_grad(set_to_none=True)


# ---------------------------------------------------------------- influence

def plain_scores(w):
    """World -> (Q,) s_hat by the definition."""
    s_hat, norm_dev, Tbar = torch.zeros(len(w.answers)), norm(w.g_dev), mean_length(w.answers)
    for q, group in enumerate(w.answers):
        padded_loss(w.policy, [group], w.A[q:q + 1], len(group) * Tbar, w.cfg).backward()
        sums = torch.zeros(2)                                                           # <g_dev, Gamma>, |Gamma|^2
        for p, g in zip(w.policy.params, w.g_dev):
            direction = Gamma(p.grad, *second_moment(w.policy.optimizer, p), w.cfg.beta2, w.cfg.adam_eps).flatten()
            sums += torch.stack([torch.dot(g.flatten(), direction), torch.dot(direction, direction)])
            p.grad = None
        s_hat[q] = sums[0] / (norm_dev * sums[1].sqrt())
    return s_hat


def bare_passes(w):
    """Forward and backward of every question over its packed rows; the gradients are thrown away. No score can cost less."""
    Tbar = mean_length(w.answers)
    for q, group in enumerate(w.answers):
        for rows in micro_batches(w.policy, [(q, group)], w.cfg):
            batch_loss(w.policy, rows, w.A, len(group) * Tbar, w.cfg)[0].backward()
        for p in w.policy.params:
            p.grad = None


# ---------------------------------------------------------------- rollouts

def generate(policy, prompts, ends, rows_at_once, temperature):
    """R prompts, (R,) lengths to stop at -> R lists of tokens, from transformers' own loop. Decodes them too, as sample does."""
    draws = dict(do_sample=True, temperature=temperature, top_k=0, top_p=1.0) if temperature else dict(do_sample=False)
    responses = []
    for start in range(0, len(prompts), rows_at_once):
        ids, mask = padded(prompts[start:start + rows_at_once], side="left")                                        # (rows, L)
        end = torch.tensor(ends[start:start + rows_at_once])
        ended = lambda so_far, scores, **_: so_far.shape[1] - ids.shape[1] >= end                                   # (rows,)
        never = policy.model.config.vocab_size                                          # no such token
        out = policy.model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=int(end.max()), stopping_criteria=[ended],
                                    eos_token_id=never, pad_token_id=0, **draws)
        responses += [row[:n] for row, n in zip(out[:, ids.shape[1]:].tolist(), end.tolist())]
    policy.tokenizer.batch_decode(responses, skip_special_tokens=True)
    return responses


def continuous(policy, prompts, ends, rows_at_once, temperature, page=16):
    """The same by transformers' continuous batching. Its cache is what rows_at_once rows need: by default it would take most of the memory.

    Skipped where this version of transformers does not have it or it fails here.
    """
    try:
        from transformers import ContinuousBatchingConfig
        blocks = rows_at_once * math.ceil(max(len(p) + n for p, n in zip(prompts, ends)) / page)
        sizes = ContinuousBatchingConfig(page_size=page, num_blocks=blocks, max_batch_tokens=2048, max_requests_per_batch=rows_at_once)
        draws = dict(do_sample=True, temperature=temperature, top_k=0, top_p=1.0) if temperature else dict(do_sample=False)
        settings = GenerationConfig(eos_token_id=-1, pad_token_id=0, max_new_tokens=max(ends), **draws)
        responses = {}
        with policy.model.continuous_batching_context_manager(settings, continuous_batching_config=sizes, warmup=False) as manager:
            for i, (prompt, n) in enumerate(zip(prompts, ends)):
                manager.add_request(prompt, request_id=str(i), max_new_tokens=n)
            while len(responses) < len(prompts):
                result = manager.get_result(timeout=60)
                if result is None or result.error:
                    raise RuntimeError(result.error if result else "no token for a minute")
                if result.is_finished():
                    responses[int(result.request_id)] = result.generated_tokens
    except Exception as error:                              # a moving target: its failure is a line in the table, no more
        raise Skipped(f"transformers' continuous batching: {' '.join(str(error).split())[:150]}")
    responses = [responses[i] for i in range(len(prompts))]
    policy.tokenizer.batch_decode(responses, skip_special_tokens=True)
    return responses


# ---------------------------------------------------------------- TRL

def trl_trainer(policy, cfg, rows, longest):
    """-> TRL's GRPOTrainer around a copy of the model, with its AdamW in the same state, that takes given tokens; Skipped without trl."""
    try:
        from datasets import Dataset
        from trl import GRPOConfig, GRPOTrainer
    except ImportError as error:
        raise Skipped(f"trl is not installed ({error})")

    class GivenTokens(GRPOTrainer):
        def _prepare_inputs(self, inputs):                  # its own would sample them
            return inputs

    with tempfile.TemporaryDirectory() as folder:           # where it would write checkpoints
        args = GRPOConfig(folder, per_device_train_batch_size=rows, num_generations=2, max_completion_length=longest, loss_type="dapo",
                          beta=0.0, epsilon=cfg.clip, temperature=cfg.temperature, use_cpu=True, bf16=False, gradient_checkpointing=False,
                          report_to=[])
        no_reward = lambda completions, **_: [0.0] * len(completions)
        trainer = GivenTokens(copy.deepcopy(policy.model), no_reward, args, Dataset.from_dict({"prompt": ["x"] * rows}),
                              processing_class=policy.tokenizer)
    params = [p for p in trainer.model.parameters() if p.requires_grad]
    trainer.optimizer = torch.optim.AdamW(params)           # its settings come with the state
    trainer.optimizer.load_state_dict(copy.deepcopy(policy.optimizer.state_dict()))     # without the copy both move one state
    trainer.current_gradient_accumulation_steps = trainer.args.steps_per_generation = 1
    return trainer


def trl_update(trainer, groups, A, cfg):
    """One optimizer step over all rows: its own loss, backward pass and clipping. Tokens in, no sampling and no data loader."""
    rollouts = [x for group in groups for x in group]
    prompt_ids, prompt_mask = padded([x.prompt for x in rollouts], side="left")                                     # (R, P)
    completion_ids, completion_mask = padded([x.response for x in rollouts])                                        # (R, T)
    inputs = dict(prompt_ids=prompt_ids, prompt_mask=prompt_mask, completion_ids=completion_ids, completion_mask=completion_mask,
                  advantages=A.flatten(), num_items_in_batch=completion_mask.sum())
    trainer.training_step(trainer.model, inputs, None)
    torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), cfg.grad_clip)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad(set_to_none=True)
