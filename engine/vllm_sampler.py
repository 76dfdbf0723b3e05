"""Rollouts from vLLM, for --sampler vllm. A guest: nothing here is imported unless asked for.

    pip install vllm      beside the project's packages (it pins its torch: an environment of its
                          own), then train.py ... --sampler vllm

    code       shape     meaning
    prompts    (P,)      token ids, of this rank
    logp       (tokens,) log-probs of the drawn tokens at the temperature, in vLLM's own arithmetic

vLLM's kernels, precision and batching are not the trainer's, so its log-probs differ a little from
those of logps.tree_logps. That is what the truncated importance weight w in policy.token_loss is
for; with the plain sampler it is 1.

Each role has an engine of its own in this process, made at its first stage. Before a stage, if the
role has been trained since, its weights are handed over in memory, under their Hugging Face names.

Departs from sampling.plain: a row's draws depend on its seed as vLLM uses it, so a run repeats
itself only on the same vLLM and machine. What is not here: sharing a GPU's memory by putting the
engine to sleep while training (vLLM can; no GPU was at hand to try it).
"""
import os
import tempfile

from data import InputError
from engine import ranks
from engine.cache import ROWS

# {id of a policy: (policy, engine, AdamW's step count at the hand-over)}
engines = {}


def sample(policy, prompts, n, seeds, cfg, draw):
    """P prompts (token ids), a 64-bit seed each -> for each, n tuples (tokens, log-probs, finished,
    text).

    draw: (temperature, top_p, top_k). Temperature 0 is greedy.
    """
    SamplingParams, TokensPrompt = require("SamplingParams", "TokensPrompt")
    temperature, top_p, top_k = draw
    params = []
    for seed in seeds:
        params.append(SamplingParams(
            n=n, temperature=temperature, top_p=top_p, top_k=top_k or -1, logprobs=0,
            max_tokens=cfg.max_response_tokens, stop_token_ids=policy.stop_ids,
            seed=seed % 2 ** 31))
    inputs = [TokensPrompt(prompt_token_ids=prompt) for prompt in prompts]
    outputs = engine(policy, cfg).generate(inputs, params, use_tqdm=ranks.is_main())
    found = []
    for output in outputs:
        found.append([outcome(policy, answer) for answer in output.outputs])
    return found


def outcome(policy, answer):
    """One of vLLM's completions -> (tokens, log-probs, finished, text).

    The token that ended it is kept, as in sampling.plain.
    """
    tokens = list(answer.token_ids)
    logp = [float(place[token].logprob) for token, place in zip(tokens, answer.logprobs)]
    text = policy.tokenizer.decode(tokens, skip_special_tokens=True)
    return tokens, logp, tokens[-1] in policy.stop_ids, text


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
        # what it holds was computed with the old weights
        llm.reset_prefix_cache()
        engines[id(policy)] = (policy, llm, steps)
    return llm


def pack_head(model):
    """vLLM 0.32 on a CPU keeps a packed copy of the head, and where head and embedding are tied
    its reload leaves that copy as it was."""
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
    dispatch_cpu_unquantized_gemm(model.lm_head, remove_weight=False)


def require(*names):
    """Names of vLLM -> its classes; InputError if it cannot be imported."""
    # in this process, so that weights can be handed over in memory
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    try:
        import vllm
    except ImportError as error:
        raise InputError(f"--sampler vllm: vLLM cannot be imported ({error}); install it, or use "
                         "--sampler plain")
    return [getattr(vllm, name) for name in names]


def trained_steps(policy):
    state = policy.optimizer.state.get(policy.params[0])
    return int(state["step"]) if state else 0


def start(policy, cfg):
    """A new engine in this process, from a folder with the role's weights as they are.

    On a CPU no prompt is cut in two: after the first part of one vLLM 0.32 turns back its row's
    random generator, which a CPU's does not know how to.
    """
    LLM, = require("LLM")
    with tempfile.TemporaryDirectory() as folder, policy.sampling_model() as model:
        model.save_pretrained(folder)
        policy.tokenizer.save_pretrained(folder)
        length = cfg.max_prompt_tokens + cfg.max_response_tokens
        only_cpu = {}
        if policy.device.type == "cpu":
            only_cpu = dict(enforce_eager=True, enable_chunked_prefill=False,
                            max_num_batched_tokens=max(4096, length))
        return LLM(
            model=folder, dtype="bfloat16" if policy.bf16 else "float32", max_model_len=length,
            max_num_seqs=cfg.rows_at_once or ROWS, logprobs_mode="processed_logprobs",
            gpu_memory_utilization=cfg.vllm_memory, seed=cfg.seed, **only_cpu)
