"""Rollouts from vLLM, for --sampler vllm. A guest: nothing here is imported unless asked for.

    pip install vllm      beside the project's packages (it pins its torch: an environment of its
                          own), then train.py ... --sampler vllm, under torchrun or without

    code       shape     meaning
    prompts    (P,)      token ids, of this rank
    logp       (tokens,) log-probs of the drawn tokens at the temperature, in vLLM's own arithmetic

Each rank has one engine for both roles, since vLLM lets only one of a process sleep, and it sleeps
whenever nobody samples: weights and cache give their memory back to the updates. So every stage
begins with a hand-over of the role's present weights, a tensor at a time, gathered if it is cut.

vLLM's kernels, precision and batching are not the trainer's, so its log-probs differ a little from
those of logps.tree_logps; the truncated importance weight w in policy.token_loss is for that. It
would also hide an engine that computes nonsense, so each stage compares one response.

Departs from sampling.plain: a row's draws depend on its seed as vLLM uses it, so a run repeats
itself only on the same vLLM and machine. A CPU has no sleep, the rest is the same there.
"""
import copy
import inspect
import os
import sys
import tempfile

import torch
from transformers import AutoConfig

from data import InputError, Rollout
from engine import ranks, shard
from engine.cache import ROWS
from engine.logps import tree_logps
from engine.models import device_of
from engine.packing import even_passes, passes
from engine.room import shape_of

# Tokens of a step: prompts are read in pieces of it.
STEP_TOKENS = 8192
# Mean difference of log-probs, in nats, that no arithmetic explains: bf16 makes some 0.01.
NONSENSE = 0.5
# Of an engine's config, what two models may differ in.
NAMES = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "bos_token_id",
         "eos_token_id", "pad_token_id")
# Of a GPU's memory: what is left free of the engine.
SPARE = 0.05
# In this process, so that weights can be handed over in memory; quiet; nothing is reported home.
ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR",
               "VLLM_NO_USAGE_STATS": "1"}

# This process's engine, and the config it was made for.
engine, made_for = None, None


def sample(policy, prompts, n, seeds, cfg, draw):
    """P prompts (token ids), a 64-bit seed each -> for each, n tuples (tokens, log-probs, finished,
    text). On all ranks together.

    draw: (temperature, top_p, top_k). Temperature 0 is greedy.
    """
    SamplingParams, TokensPrompt = classes("SamplingParams", "TokensPrompt")
    temperature, top_p, top_k = draw
    params = []
    for seed in seeds:
        # ignore_eos: what ends a row are this role's stops, not the engine's
        params.append(SamplingParams(
            n=n, temperature=temperature, top_p=top_p, top_k=top_k or -1, logprobs=0,
            max_tokens=cfg.max_response_tokens, stop_token_ids=policy.stop_ids, ignore_eos=True,
            detokenize=False, seed=seed % 2 ** 31))
    inputs = [TokensPrompt(prompt_token_ids=prompt) for prompt in prompts]

    llm = awake(policy, cfg)
    outputs = alive(cfg, llm.generate, inputs, params, use_tqdm=ranks.is_main())
    if policy.device.type == "cuda":
        alive(cfg, llm.sleep, level=2)
    found = []
    for output in outputs:
        found.append([outcome(policy, answer) for answer in output.outputs])
    compare(policy, prompts, found, cfg, draw)
    return found


def outcome(policy, answer):
    """One of vLLM's completions -> (tokens, log-probs, finished, text).

    The token that ended it is kept, as in sampling.plain.
    """
    tokens = list(answer.token_ids)
    logp = [float(place[token].logprob) for token, place in zip(tokens, answer.logprobs)]
    text = policy.tokenizer.decode(tokens, skip_special_tokens=True)
    return tokens, logp, tokens[-1] in policy.stop_ids, text


# ---------------------------------------------------------------- the engine and its weights

def awake(policy, cfg):
    """The engine with the role's present weights. On all ranks together."""
    global engine, made_for
    config = architecture(policy.model.config)
    if engine is None:
        engine, made_for = start(policy, cfg), config
        if policy.device.type == "cuda":
            alive(cfg, engine.sleep, level=2)
    refuse_unequal(made_for, config)

    on_cuda = policy.device.type == "cuda"
    if on_cuda:
        # what torch keeps for later, vLLM could not take
        torch.cuda.empty_cache()
        alive(cfg, engine.wake_up, tags=["weights"])
    # without an iterator it would read the folder that the engine was started from
    alive(cfg, engine.collective_rpc, "reload_weights",
          kwargs={"weights_iterator": weights_of(policy)})
    if on_cuda:
        torch.cuda.empty_cache()
        alive(cfg, engine.wake_up, tags=["kv_cache"])
    else:
        engine.apply_model(pack_head)
    # what it holds was computed with other weights
    engine.reset_prefix_cache()
    return engine


def architecture(config):
    """transformers' config -> what has to be equal for one engine to serve two models."""
    return {name: value for name, value in config.to_dict().items() if name not in NAMES}


def refuse_unequal(first, second):
    """InputError that names what differs between two architectures, if anything does."""
    odd = [name for name in first | second if first.get(name) != second.get(name)]
    if odd:
        both = f"{odd[0]} is {first.get(odd[0])} and {second.get(odd[0])}"
        raise InputError("--sampler vllm: one engine serves both roles, so generator_model must "
                         f"have the architecture of model, but {both}; use --sampler plain")


def weights_of(policy):
    """Yields (Hugging Face name, tensor on this device), whole and in the compute dtype.

    One at a time is gathered, so no rank ever holds two models.
    """
    dtype = torch.bfloat16 if policy.bf16 else torch.float32
    for name, p in policy.model.named_parameters():
        yield name, shard.whole(p.detach().to(dtype))


def pack_head(model):
    """vLLM 0.32 on a CPU keeps a packed copy of the head, and where head and embedding are tied
    its reload leaves that copy as it was."""
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
    dispatch_cpu_unquantized_gemm(model.lm_head, remove_weight=False)


def start(policy, cfg):
    """A new engine in this process, without weights yet.

    On a CPU no prompt is cut in two: after the first part of one vLLM 0.32 turns back its row's
    random generator, which a CPU's does not know how to.
    """
    LLM, = classes("LLM")
    length = cfg.max_prompt_tokens + cfg.max_response_tokens
    if policy.device.type == "cuda":
        torch.cuda.empty_cache()
        machine = dict(enable_sleep_mode=True, gpu_memory_utilization=share_of_memory(policy, cfg),
                       max_num_batched_tokens=STEP_TOKENS)
    else:
        shape = shape_of(policy.model.config, policy.role)
        cell = 2 * shape.layers * shape.K * (2 if policy.bf16 else 4)
        machine = dict(enforce_eager=True, enable_chunked_prefill=False,
                       max_num_batched_tokens=max(4096, length),
                       kv_cache_memory_bytes=32 * length * cell)
    if ranks.world() > 1:
        # this rank's device; without it all would take the first
        machine["distributed_executor_backend"] = "external_launcher"

    # vLLM refuses more positions than the config names, which transformers does not mind
    config = copy.deepcopy(policy.model.config)
    config.max_position_embeddings = max(length, config.max_position_embeddings)

    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        policy.tokenizer.save_pretrained(folder)
        try:
            llm = LLM(
                model=folder, load_format="dummy", max_model_len=length,
                max_num_seqs=cfg.rows_at_once or ROWS,
                dtype="bfloat16" if policy.bf16 else "float32",
                logprobs_mode="processed_logprobs", seed=cfg.seed, **machine)
        except (ValueError, torch.OutOfMemoryError) as error:
            raise InputError(f"--sampler vllm: no engine could be made ({one_line(error)}); where "
                             "memory is short, more GPUs or a smaller --max_response_tokens help; "
                             "else use --sampler plain")
    # at the process's end it would destroy groups that ended with ours
    finalizer = getattr(llm.llm_engine.engine_core, "_finalizer", None)
    if finalizer:
        finalizer.atexit = False
    return llm


def share_of_memory(policy, cfg):
    """-> the share of a GPU that the engine may take, on every rank the same: cfg.vllm_memory, or
    what is free beside this role.

    Before the first update AdamW has no moments; the engine, which stays as large, has to leave
    room for them.
    """
    free, total = torch.cuda.mem_get_info(policy.device)
    if not policy.optimizer.state:
        free -= 2 * sum(shard.local(p).nbytes for p in policy.params)
    # of all ranks the one with least
    free_share = -ranks.most(-free / total)
    return share(free_share, cfg)


def share(free_share, cfg):
    """-> cfg.vllm_memory, or what is free less a twentieth; InputError if that is not there."""
    most = free_share - SPARE
    if most <= 0 or cfg.vllm_memory > most:
        wanted = f"{cfg.vllm_memory:.0%}" if cfg.vllm_memory else "a part"
        raise InputError(f"--sampler vllm: its engine wants {wanted} of a GPU's memory, and "
                         f"{max(0, most):.0%} can be had; leave --vllm_memory out, take more GPUs, "
                         "or use --sampler plain")
    return cfg.vllm_memory or most


# ---------------------------------------------------------------- what may go wrong

def require(cfg):
    """InputError unless there is a vLLM that can serve a run of cfg; before anything is loaded."""
    classes()
    from vllm.platforms import current_platform
    device = device_of(cfg).type
    built_for = current_platform.device_type or "no device found here"
    if built_for != device:
        raise InputError(f"--sampler vllm: this vLLM is for {built_for} and the run is on {device};"
                         f" install that for {device}, or use --sampler plain")
    if cfg.generator_anchor != cfg.model:
        try:
            configs = [AutoConfig.from_pretrained(x, trust_remote_code=False)
                       for x in (cfg.model, cfg.generator_anchor)]
        except (OSError, ValueError):
            # whoever loads them says what is wrong
            return
        refuse_unequal(*map(architecture, configs))


def classes(*names):
    """Names of vLLM -> its classes; InputError if it is not there or too old."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import vllm
        from vllm.v1.worker.gpu_model_runner import GPUModelRunner
        found = [getattr(vllm, name) for name in names]
    except (ImportError, AttributeError, OSError) as error:
        raise InputError(f"--sampler vllm: vLLM cannot be imported ({one_line(error)}); install "
                         "it, or use --sampler plain")
    takes = inspect.signature(GPUModelRunner.reload_weights).parameters
    if "weights_iterator" not in takes:
        raise InputError(f"--sampler vllm: vLLM {vllm.__version__} is too old, it cannot be handed "
                         "weights while it runs; 0.32 can. Or use --sampler plain")
    return found


def one_line(error):
    return " ".join(str(error).split())[:240] or type(error).__name__


def alive(cfg, call, *args, **kwargs):
    """call(...); whatever ends the engine ends the run with one line, from the rank it happens on.
    """
    try:
        return call(*args, **kwargs)
    except Exception as error:
        ranks.refuse(f"vLLM's engine failed on rank {ranks.rank()} ({one_line(error)}), so the run "
                     "has ended. Go on from the newest checkpoint with: train.py --resume "
                     f"{cfg.run}, and --sampler plain if it fails again")
        if ranks.world() > 1:
            # a clean exit would wait for collectives that will not come
            os._exit(1)
        sys.exit(1)


@torch.no_grad()
def compare(policy, prompts, found, cfg, draw):
    """Are the log-probs of one response, the shortest, those that the trainer has for it?

    On all ranks together, since a model in slices runs on all. Where top_p or top_k cut, or
    greedily, vLLM's are those of another distribution.
    """
    temperature, top_p, top_k = draw
    if temperature == 0 or top_p < 1 or top_k:
        return
    rows = []
    for prompt, answers in zip(prompts, found):
        rows += [Rollout(prompt, *answer) for answer in answers]
    shortest = sorted(rows, key=lambda row: len(row.prompt) + len(row.response))[:1]

    ours = []
    groups = [(0, shortest)] if shortest else []
    for trees in even_passes(policy, passes(policy, groups, cfg)):
        ours += tree_logps(policy, trees, temperature, cfg).tolist()
    theirs = shortest[0].logp if shortest else []
    off = sum(abs(a - b) for a, b in zip(ours, theirs)) / max(1, len(theirs))
    off = ranks.most(off)
    if off > NONSENSE:
        raise InputError(f"--sampler vllm: log-probs of vLLM and of the trainer differ by {off:.2f}"
                         " on average over a response, so its weights are not the trainer's; go "
                         f"on by --resume {cfg.run} --sampler plain")
