"""Rollouts from vLLM: the same call as policy.sample, for --sampler vllm. A guest: nothing here is imported unless it is asked for.

    pip install vllm                 beside the project's own packages (it pins its torch; use an environment of its own)
    python train.py ... --sampler vllm

    code       shape     meaning
    prompts    (P,)      token ids
    logp       (tokens,) log-probs of the drawn tokens at the temperature, as vLLM's own arithmetic gives them

vLLM's kernels, precision and batching are not the trainer's, so its log-probs differ a little from those of policy.row_logps. That is what the truncated importance
weight w = min(exp(logp_train - logp_sampler), 2) in policy.token_loss is for; with the plain sampler it is 1.

Each role has an engine of its own in this process, made at its first stage. Before a stage, if the role has been trained since, its weights are handed over in memory,
under their Hugging Face names. Each rank samples its share of the prompts.

Departs from policy.sample: a row's draws depend on its seed as vLLM uses it, so a run repeats itself only on the same vLLM and machine. What is not here: sharing a GPU's
memory by putting the engine to sleep while training (vLLM can; no GPU was at hand to try it).
"""
import os
import tempfile

import ranks
from data import InputError, Rollout

engines = {}            # {id of a policy: (policy, engine, AdamW's step count at the hand-over)}


def sample(policy, prompts, n, key, cfg, temperature, top_p, top_k):
    """P prompts (token ids) -> (P, n) rollouts. Arguments as in policy.sample, all of them given. Temperature 0 is greedy."""
    from policy import row_key
    SamplingParams, TokensPrompt = require("SamplingParams", "TokensPrompt")
    llm = engine(policy, cfg)
    mine = ranks.share(list(range(len(prompts))))
    params = [SamplingParams(n=n, temperature=temperature, top_p=top_p, top_k=top_k or -1, max_tokens=cfg.max_response_tokens, logprobs=0,
                             stop_token_ids=policy.stop_ids, seed=row_key(*key, i * n) % 2 ** 31) for i in mine]
    outputs = llm.generate([TokensPrompt(prompt_token_ids=prompts[i]) for i in mine], params, use_tqdm=ranks.is_main())
    return ranks.gather([[rollout(policy, prompts[i], answer) for answer in output.outputs] for i, output in zip(mine, outputs)], len(prompts))


def rollout(policy, prompt, answer):
    """One of vLLM's completions as a Rollout: the token that ended it is kept, as in policy.sample."""
    tokens = list(answer.token_ids)
    logp = [float(position[token].logprob) for token, position in zip(tokens, answer.logprobs)]
    text = policy.tokenizer.decode(tokens, skip_special_tokens=True)
    return Rollout(prompt, tokens, logp, tokens[-1] in policy.stop_ids, text)


def engine(policy, cfg):
    """The role's engine with the role's present weights; InputError if vLLM is not installed."""
    steps = trained_steps(policy)
    if id(policy) not in engines:
        engines[id(policy)] = (policy, start(policy, cfg), steps)
    _, llm, handed_over = engines[id(policy)]
    if steps != handed_over:
        with policy.sampling_model() as model:
            weights = ((name, p.detach()) for name, p in model.named_parameters())
            llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        if policy.device.type == "cpu":
            llm.apply_model(pack_head)
        llm.reset_prefix_cache()                                            # what it holds was computed with the old weights
        engines[id(policy)] = (policy, llm, steps)
    return llm


def pack_head(model):
    """vLLM 0.32 on a CPU keeps a packed copy of the head, and where head and embedding are tied its reload leaves that copy as it was."""
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
    dispatch_cpu_unquantized_gemm(model.lm_head, remove_weight=False)


def require(*names):
    """Names of vLLM -> its classes; InputError if it cannot be imported."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")            # in this process, so that weights can be handed over in memory
    try:
        import vllm
    except ImportError as error:
        raise InputError(f"--sampler vllm: vLLM cannot be imported ({error}); install it, or use --sampler plain")
    return [getattr(vllm, name) for name in names]


def trained_steps(policy):
    state = policy.optimizer.state.get(policy.params[0])
    return int(state["step"]) if state else 0


def start(policy, cfg):
    """A new engine in this process, from a folder with the role's weights as they are.

    On a CPU no prompt is cut in two: after the first part of one vLLM 0.32 turns back its row's random generator, which a CPU's does not know how to.
    """
    LLM, = require("LLM")
    with tempfile.TemporaryDirectory() as folder, policy.sampling_model() as model:
        model.save_pretrained(folder)
        policy.tokenizer.save_pretrained(folder)
        length = cfg.max_prompt_tokens + cfg.max_response_tokens
        only_cpu = dict(enforce_eager=True, enable_chunked_prefill=False, max_num_batched_tokens=max(4096, length)) if policy.device.type == "cpu" else {}
        return LLM(model=folder, dtype="bfloat16" if policy.bf16 else "float32", max_model_len=length, max_num_seqs=cfg.rows_at_once,
                   logprobs_mode="processed_logprobs", gpu_memory_utilization=cfg.vllm_memory, seed=cfg.seed, **only_cpu)
