"""How fast the expensive stages are, against the plain way of doing the same; and how cost grows.

    python -m tools.bench                                    # the toy anchor, on the toy world
    python -m tools.bench --size 20m --questions 6 --repeats 3 --json bench.json

    stage       what is compared                                                      target
    influence   influence_scores; the plain way; bare passes over the same trees      5x, 1.10
    random      the same for answers of random tokens, which have nothing in common   5x, 1.10
    decode      a sampling step at --columns columns: ours; copied keys and values    1.5x
    sampling    the three sampling stages of an iteration: ours; copied keys and values  -
    rollouts    sample; model.generate; transformers' continuous batching       2.5x, 1.5x
    update      an AdamW step: trees; padded rows; TRL's GRPOTrainer, if installed    -
    iteration   a whole one: ours; padded rows, generate and the plain influence      3x
    questions   influence: seconds per question when 8 to --most are scored at once   1.10
    answers     influence: seconds per answer, 2 to 32 answers to a question          -
    lengths     influence: seconds per response token, answers of 8 to 64 tokens      -
    sizes       influence and bare passes, 1 to 60 million random weights             1.10
    sums        influence; its sums in one compiled pass; without any; bare passes    1.10
    peers       influence; bergson; dattri, if installed: time, agreement of ranks    -
    ranks       train.py on 1 rank; 2, in shards; 2, whole copies (two idle cores)    1.7x
    memory      bytes of scoring beyond weights and AdamW, beside what must be held   at most

Targets: 5x, at least 5 times as fast as the plain way; 1.10, at most 1.10 of the bare passes, or
of the cheapest variant. A first, untimed round compares results: only what is equal may be compared
in speed. Then variants take turns; times are medians. More, and results: docs/results/speed.md.
"""
import copy
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate, chain
from statistics import median
from unittest.mock import patch

import torch
import transformers

import generator
import solver
from studies.reality import rank_correlation
from toy import make
from tools import fused, peers
from tools.baselines import (Copying, Skipped, World, bare_passes, centred, continuous,
                             first_moments, generate, groups_with_gradient, keeper, make_world,
                             padded_dev_gradient, padded_update, plain_scores, random_groups,
                             rollouts_of, trl_trainer, trl_update, with_own_logps)
from config import ROOT, Config
from engine.presets import TOY
from data import InputError
from engine import flags
from engine.arguments import MANY, Parser
from engine.cache import Running
from engine.readers import load_documents, load_questions
from engine.speech import run_script
from dugrpo import center
from influence import dev_gradient, influence_scores
from dugrpo import has_gradient
from policy import Policy, update
import sampling
from sampling import sample

# tokens, from and to
LENGTHS = {"toy": dict(prompt=(24, 28), answer=(5, 7)),
           "long": dict(prompt=(100, 140), answer=(20, 60))}

SHAPE = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
         "num_attention_heads", "num_key_value_heads", "head_dim")

# the first is nearly the anchor
SIZES = {"1m": (256, 128, 512, 4, 4, 4, 32),
         "5m": (4096, 256, 768, 6, 4, 2, 64),
         "20m": (16384, 384, 1024, 8, 6, 3, 64),
         "60m": (16384, 640, 1728, 10, 10, 5, 64)}


def random_policy(size, cfg):
    """One of SIZES -> a policy with random weights, through a folder as every model comes."""
    torch.manual_seed(0)
    shape = dict(zip(SHAPE, SIZES[size]))
    shape = transformers.Qwen3Config(
        **shape, max_position_embeddings=1024, tie_word_embeddings=True)

    with tempfile.TemporaryDirectory() as folder:
        transformers.Qwen3ForCausalLM(shape).save_pretrained(folder)
        make.make_tokenizer().save_pretrained(folder)
        return Policy("solver", folder, 1e-5, cfg)


# ---------------------------------------------------------------- a stage and its measurement

def nothing():
    pass


@dataclass
class Stage:
    """Variants, each a function of nothing, and how much work each does, counted in `unit`."""
    name: str
    unit: str
    work: dict                  # variant: number of units
    variants: dict              # variant: function -> its result; its seconds if `own_clock`
    targets: list = field(default_factory=list)     # see ratios()
    difference: object = None   # {variant: result} -> how far apart: 0, or rounding
    reset: object = nothing     # after every run, outside the clock
    skipped: dict = field(default_factory=dict)     # variant: why it does not run here
    own_clock: bool = False
    agreement: object = None    # {variant: result} -> {pair: Spearman's rho}


def measure(stage, repeats, clock=time.perf_counter):
    """Stage -> {"unit", "work", "difference", "seconds": {variant: list}, "ratios", "skipped",
    "agreement"}.
    """
    results, skipped = first_round(stage)
    difference = float(stage.difference(results)) if stage.difference else None
    agreement = stage.agreement(results) if stage.agreement else {}
    names = [name for name in stage.variants if name not in skipped]
    seconds = timed_rounds(stage, names, repeats, clock)
    return {"unit": stage.unit, "work": stage.work, "difference": difference, "seconds": seconds,
            "ratios": ratios(stage, seconds), "skipped": skipped, "agreement": agreement}


def first_round(stage):
    """Not timed -> {variant: result}, {variant: why it is skipped}."""
    results = {}
    skipped = dict(stage.skipped)
    for name, run in stage.variants.items():
        try:
            results[name] = run() if stage.difference else None
        except Skipped as why:
            skipped[name] = str(why)
        stage.reset()
    return results, skipped


def timed_rounds(stage, names, repeats, clock):
    """-> {variant: seconds of each round}.

    A different one goes first in each round, so that a machine that slows down slows all of them.
    """
    seconds = {name: [] for name in names}
    for i in range(repeats):
        first = i % len(names)
        for name in names[first:] + names[:first]:
            start = clock()
            result = stage.variants[name]()
            seconds[name].append(result if stage.own_clock else clock() - start)
            stage.reset()
    return seconds


def ratios(stage, seconds):
    """{variant: list of seconds} -> [{"ratio", "value", "target", "met"}], of seconds per unit.

    Stage.targets: (numerator, denominator, "at least" or "at most", number or None).
    dearest and cheapest stand for whichever variant is.
    """
    cost = {}
    for name, times in seconds.items():
        cost[name] = median(times) / stage.work[name]
    order = sorted(cost, key=cost.get)
    cost["cheapest"] = cost[order[0]]
    cost["dearest"] = cost[order[-1]]

    found = []
    for a, b, word, number in stage.targets:
        if a not in cost or b not in cost:
            continue
        value = cost[a] / cost[b]
        found.append({"ratio": f"{a} / {b}", "value": value,
                      "target": "" if number is None else f"{word} {number}",
                      "met": meets(value, word, number)})
    return found


def meets(value, word, number):
    """Is the value "at least" or "at most" the number? None where there is none."""
    if number is None:
        return None
    return value >= number if word == "at least" else value <= number


def show(stage, result):
    """Print a stage's table: seconds, units per second, ratios beside their targets."""
    differ = result["difference"]
    said = "" if differ is None else f", results differ by {differ:.1e}"
    print(f"\n{stage.name}{said}", flush=True)

    for name, seconds in result["seconds"].items():
        ms = 1000 * median(seconds)
        work = stage.work[name]
        speed = f"{1000 * work / ms:12.1f} {stage.unit}s/s"
        print(f"  {name:22}{ms:10.0f} ms{speed}{ms / work:12.3f} ms per {stage.unit}")

    for name, why in result["skipped"].items():
        print(f"  {name:22}skipped: {why}")

    for ratio in result["ratios"]:
        met = ""
        if ratio["met"] is not None:
            met = f"     target {ratio['target']}: {'met' if ratio['met'] else 'missed'}"
        print(f"  {ratio['ratio']:22}{ratio['value']:10.2f}{met}", flush=True)

    for pair, rho in result["agreement"].items():
        print(f"  {pair:22}{rho:10.2f}     agreement of ranks", flush=True)


# ---------------------------------------------------------------- ours against other ways

def prompts_of(groups):
    return [group[0].prompt for group in groups]


def lengths_of(groups):
    """(G, m) rollouts -> (R,) response lengths in tokens."""
    return [len(x.response) for x in rollouts_of(groups)]


def count(groups):
    """(G, m) rollouts -> response tokens."""
    return sum(lengths_of(groups))


def repeated(prompts, m):
    """Each prompt m times, one after the other."""
    every = []
    for prompt in prompts:
        every += [prompt] * m
    return every


def influence_stage(w, args):
    """On what was answered to the questions, where answers differ in reward."""
    kept = groups_with_gradient(w.asked.A[2])
    answers = [w.asked.groups[2][q] for q in kept]
    stage = random_stage(replace(w, answers=answers, A=w.asked.A[2][kept]), args)
    return replace(stage, name=f"influence, {len(kept)} of {args.questions} questions")


def random_stage(w, args):
    def ours():
        s_hat, _ = influence_scores(w.policy, w.answers, w.A, w.g_dev, w.cfg)
        return s_hat

    def difference(results):
        return (results["ours"] - results["plain"]).abs().max()

    variants = {"ours": ours, "plain": partial(plain_scores, w), "bare": partial(bare_passes, w)}
    targets = [("plain", "ours", "at least", 5.0), ("ours", "bare", "at most", 1.10)]
    work = dict.fromkeys(variants, count(w.answers))
    return Stage("random", "token", work, variants, targets, difference)


def rollouts_stage(w, args, temperature=1000.0, mean=24, limit=128):
    """Ragged rollouts: lengths are geometric, so most are short, and cut at the limit.

    At temperature 1000 all tokens are equally likely, whatever the weights. The other ways are
    told where each of our rows ended and end it there.
    """
    policy = copy.copy(w.policy)
    policy.stop_ids = list(range(policy.model.config.vocab_size // mean))
    cfg = replace(w.cfg, rows_at_once=args.rows, max_response_tokens=limit)
    prompts = prompts_of(w.answers)
    m = len(w.answers[0])

    def ours():
        groups = sample(policy, prompts, m, ("bench",), cfg, temperature, top_p=1.0, top_k=0)
        return [x.response for x in rollouts_of(groups)]

    # the same in every run
    ends = [len(response) for response in ours()]
    told = (policy, repeated(prompts, m), ends, args.rows, temperature)

    def difference(results):
        tokens = 0
        for rows in results.values():
            tokens += sum(abs(len(row) - n) for row, n in zip(rows, ends))
        return tokens

    variants = {"ours": ours, "generate": lambda: generate(*told),
                "continuous": lambda: continuous(*told)}
    targets = [("generate", "ours", "at least", 2.5), ("continuous", "ours", "at least", 1.5)]
    work = dict.fromkeys(variants, sum(ends))
    return Stage("rollouts", "token", work, variants, targets, difference)


def decode_stage(w, args, steps=5):
    """A token for each of --rows rows, which have --columns tokens so far.

    Where no heads are shared both ways are one, which shows how alike two times are.
    """
    g = torch.Generator().manual_seed(0)
    config = w.policy.model.config
    prompt = torch.randint(config.vocab_size, (args.columns,), generator=g).tolist()
    tokens = torch.randint(config.vocab_size, (steps, args.rows), generator=g)
    names = [[(0, j) for j in range(args.rows)]]
    ready = {}

    @torch.no_grad()
    def reset():
        for kind in (Running, Copying):
            if kind not in ready:
                ready[kind] = kind(w.policy.model, w.policy.device)
                ready[kind].join([prompt], names)

    @torch.no_grad()
    def run(kind):
        rows = ready.pop(kind)
        for token in tokens:
            rows.step(token)
        return rows.hidden

    def difference(results):
        return (results["ours"] - results["copied"]).abs().max()

    reset()
    shared = config.num_attention_heads != config.num_key_value_heads
    variants = {"ours": partial(run, Running), "copied": partial(run, Copying)}
    targets = [("copied", "ours", "at least", 1.5 if shared else 0.95)]
    work = dict.fromkeys(variants, steps * args.rows)
    return Stage("decode", "token", work, variants, targets, difference, reset)


def sampling_stage(w, args):
    """The three sampling stages of an iteration, ours and with copied keys and values.

    A row's random numbers are the same both ways; rounding may still turn a token, and a row ends
    elsewhere then.
    """
    policy, draws = draws_of(w.policy, args, w.cfg)
    cfg = replace(w.cfg, rows_at_once=args.rows)

    def run(kind):
        groups = []
        with patch.object(sampling, "rows_for", lambda _, model: kind(model, policy.device)):
            for i, prompts in enumerate(w.asked.prompts):
                groups += sample(policy, prompts, args.answers, ("bench", i), cfg, **draws)
        return [x.response for x in rollouts_of(groups)]

    def difference(results):
        pairs = list(zip(results["ours"], results["copied"]))
        return sum(ours != copied for ours, copied in pairs) / len(pairs)

    variants = {"ours": partial(run, Running), "copied": partial(run, Copying)}
    work = dict.fromkeys(variants, sum(map(count, w.asked.groups)))
    return Stage("sampling", "token", work, variants, [("copied", "ours", "", None)], difference)


def moments_after(step, params, optimizer):
    """-> a function that makes the step and returns the first moments after it."""
    def run():
        step()
        return first_moments(params, optimizer)
    return run


def update_stage(w, args):
    """One AdamW step over all rows. Results are first moments, which are linear in gradients."""
    policy = w.policy
    own = (policy.params, policy.optimizer)
    cfg = replace(w.cfg, minibatch_rows=len(w.answers) * len(w.answers[0]))

    ours = partial(update, policy, w.answers, w.A, cfg)
    by_rows = partial(padded_update, policy, w.answers, w.A, cfg)
    variants = {"ours": moments_after(ours, *own), "padded": moments_after(by_rows, *own)}
    keepers = [keeper(*own)]
    skipped = {}

    try:
        longest = max(lengths_of(w.answers))
        trainer = trl_trainer(policy, cfg, cfg.minibatch_rows, longest)
        theirs = (list(trainer.model.parameters()), trainer.optimizer)
        by_trl = partial(trl_update, trainer, w.answers, w.A, cfg)
        variants["trl"] = moments_after(by_trl, *theirs)
        keepers.append(keeper(*theirs))
    except Skipped as why:
        skipped["trl"] = str(why)

    def difference(results):
        right = results["ours"]
        return max((x - right).norm() / right.norm() for x in results.values())

    def reset():
        for put_back in keepers:
            put_back()

    work = dict.fromkeys(variants, count(w.answers))
    targets = [("padded", "ours", "", None), ("trl", "ours", "", None)]
    return Stage("update", "token", work, variants, targets, difference, reset, skipped)


@dataclass
class Asked:
    """What an iteration asks and gets, always the same: dev questions, documents, questions."""
    prompts: list       # three lists of prompts
    groups: list        # three tables of rollouts
    A: list             # three tables of advantages


def draws_of(policy, args, cfg):
    """-> (policy as it samples, what sample is told).

    With random weights every token is equally likely, and every 24th on average the last.
    """
    policy = copy.copy(policy)
    if not args.size:
        return policy, dict(temperature=cfg.temperature)
    policy.stop_ids = list(range(policy.model.config.vocab_size // 24))
    return policy, dict(temperature=1000.0, top_p=1.0, top_k=0)


def ask(policy, args, cfg, writer=None):
    """Documents and questions in the proportions of the toy preset, answered by the writer.

    That is 160 dev questions and 12 documents to 96 questions.
    """
    Q = args.questions
    m = args.answers
    dev = load_questions(args.dev)[:max(1, Q * 160 // 96)]
    documents = load_documents(args.documents)[:max(1, Q // 8)]
    questions = load_questions(args.test)[:Q]
    texts = [list(map(solver.prompt_text, dev)),
             list(map(generator.prompt_text, documents)),
             list(map(solver.prompt_text, questions))]

    who, draws = (writer, {}) if writer else draws_of(policy, args, cfg)
    groups = []
    for i, part in enumerate(texts):
        prompts = [who.prompt_ids(text) for text in part]
        groups.append(sample(who, prompts, m, ("bench", i), cfg, **draws))

    # the writer may know more words than the model
    V = policy.model.config.vocab_size
    for rollout in chain(*map(rollouts_of, groups)):
        rollout.prompt = [token % V for token in rollout.prompt]
        rollout.response = [token % V for token in rollout.response]
    groups = [with_own_logps(policy, part, cfg) for part in groups]
    prompts = [prompts_of(part) for part in groups]

    # where the model cannot answer, all advantages are random
    rng = random.Random(0)
    A = [center(solver.rewards(dev, groups[0], None)),
         centred(len(documents), m, rng),
         center(solver.rewards(questions, groups[2], None))]
    A = [a if has_gradient(a).any() else centred(*a.shape, rng) for a in A]
    return Asked(prompts, groups, A)


def iteration_stage(w, args):
    """Sampling for both roles, g_dev, influence, two updates.

    Verification and logs are left out of both ways.
    """
    x = w.asked
    m = args.answers
    cfg = replace(w.cfg, rows_at_once=args.rows, minibatch_rows=12 * m)
    policy, draws = draws_of(w.policy, args, cfg)
    ends = [lengths_of(part) for part in x.groups]
    kept = groups_with_gradient(x.A[2])

    def ours():
        for i, prompts in enumerate(x.prompts):
            sample(policy, prompts, m, ("bench", i), cfg, **draws)

        g_dev = dev_gradient(policy, x.groups[0], x.A[0], cfg)
        s_hat, _ = influence_scores(policy, x.groups[2], x.A[2], g_dev, cfg)

        for i in (1, 2):
            update(policy, x.groups[i], x.A[i], cfg)
        return torch.cat([s_hat[kept], first_moments(policy.params, policy.optimizer)])

    def plain():
        for prompts, end in zip(x.prompts, ends):
            generate(policy, repeated(prompts, m), end, args.rows, draws["temperature"])

        g_dev = padded_dev_gradient(policy, x.groups[0], x.A[0], cfg)
        answers = [x.groups[2][q] for q in kept]
        s_hat = plain_scores(World(policy, cfg, answers, x.A[2][kept], g_dev))

        for i in (1, 2):
            padded_update(policy, x.groups[i], x.A[i], cfg)
        return torch.cat([s_hat, first_moments(policy.params, policy.optimizer)])

    def difference(results):
        return (results["ours"] - results["plain"]).abs().max()

    variants = {"ours": ours, "plain": plain}
    work = dict.fromkeys(variants, sum(map(sum, ends)))
    targets = [("plain", "ours", "at least", 3.0)]
    reset = keeper(policy.params, policy.optimizer)
    return Stage("iteration", "token", work, variants, targets, difference, reset)


# ---------------------------------------------------------------- how the cost of influence grows

def scoring(w, answers, A, calls=1):
    """-> a function that scores the answers so many times."""
    def run():
        for _ in range(calls):
            influence_scores(w.policy, answers, A, w.g_dev, w.cfg)
    return run


def questions_stage(w, args):
    """The same 8 questions over and over, in calls of 8, 16, ... questions.

    Each variant makes so many calls that it scores 64 or more in all.
    """
    few = (w.answers * 8)[:8]
    A = w.A.repeat(8, 1)[:8]
    work = {}
    variants = {}

    Q = 8
    while Q <= args.most:
        calls = max(1, 64 // Q)
        variants[str(Q)] = scoring(w, few * (Q // 8), A.repeat(Q // 8, 1), calls)
        work[str(Q)] = calls * Q
        Q *= 2

    targets = [("dearest", "cheapest", "at most", 1.10)]
    return Stage("questions", "question", work, variants, targets)


def answers_stage(w, args, Q=8):
    rng = random.Random(0)
    work = {}
    variants = {}
    for m in (2, 4, 8, 16, 32):
        groups, A = random_groups(w.policy, w.cfg, Q, m, LENGTHS[args.lengths], rng)
        variants[str(m)] = scoring(w, groups, A)
        work[str(m)] = Q * m
    return Stage("answers", "answer", work, variants)


def lengths_stage(w, args, Q=4):
    rng = random.Random(0)
    work = {}
    variants = {}
    for T in (8, 16, 32, 64):
        lengths = LENGTHS[args.lengths] | {"answer": (T, T)}
        groups, A = random_groups(w.policy, w.cfg, Q, args.answers, lengths, rng)
        variants[str(T)] = scoring(w, groups, A)
        work[str(T)] = Q * args.answers * T
    return Stage("lengths", "token", work, variants)


def sizes_stage(w, args, Q=2):
    variants = {}
    for size in SIZES:
        policy = random_policy(size, w.cfg)
        at = make_world(policy, w.cfg, Q, args.answers, LENGTHS["long"])
        variants[f"{size} ours"] = scoring(at, at.answers, at.A)
        variants[f"{size} bare"] = partial(bare_passes, at)

    work = dict.fromkeys(variants, Q)
    targets = [(f"{size} ours", f"{size} bare", "at most", 1.10) for size in SIZES]
    return Stage("sizes", "question", work, variants, targets)


def sums_stage(w, args):
    """Where scoring's time beyond the bare passes goes, and what one fused pass makes of it."""
    def difference(results):
        if "compiled" not in results:
            return 0.0
        return (results["ours"] - results["compiled"]).abs().max()

    ours = partial(influence_scores, w.policy, w.answers, w.A, w.g_dev, w.cfg)
    variants = {"ours": lambda: ours()[0], "compiled": partial(fused.compiled_scores, w),
                "without": partial(fused.scores_by, fused.no_sums, w),
                "bare": partial(bare_passes, w)}
    targets = [("ours", "bare", "at most", 1.10), ("compiled", "bare", "at most", 1.10),
               ("ours", "compiled", "at least", 1.15), ("ours", "without", "", None)]
    work = dict.fromkeys(variants, len(w.answers))
    return Stage("sums", "question", work, variants, targets, difference)


# ---------------------------------------------------------------- other libraries

def peers_stage(w, args):
    """Ours and what two published libraries make of the same answers, of random tokens.

    Each is held against its own formula; ranks say how far apart the formulas are.
    """
    def ours():
        return influence_scores(w.policy, w.answers, w.A, w.g_dev, w.cfg)[0]

    def difference(results):
        right = {"dattri": results["ours, cosine"]}
        if "bergson" in results:
            right["bergson"] = peers.linear_scores(w)
        apart = [(results[name] - x).abs().max() for name, x in right.items() if name in results]
        return max(apart, default=0.0)

    def agreement(results):
        scores = {name: x.numpy() for name, x in results.items()}
        others = [name for name in scores if name != "ours"]
        return {f"{name} / ours": float(rank_correlation(scores[name], scores["ours"]))
                for name in others}

    variants = {"ours": ours, "ours, cosine": partial(peers.raw_cosine, w),
                "bergson": partial(peers.bergson_scores, w),
                "dattri": partial(peers.dattri_scores, w)}
    targets = [("bergson", "ours", "", None), ("dattri", "ours, cosine", "", None)]
    work = dict.fromkeys(variants, len(w.answers))
    return Stage("peers", "question", work, variants, targets, difference,
                 agreement=agreement)


# ---------------------------------------------------------------- 1 rank against 2

def seconds_of_training(ranks, flags):
    """train.py in processes of its own, one thread each -> mean seconds of an iteration.

    The first is left out, and so are evaluation and checkpoint. torchrun looks after its processes
    ten times a second unless told otherwise, which takes a tenth of a core.
    """
    launch = []
    if ranks > 1:
        launch = ["-m", "torch.distributed.run", "--standalone", "--monitor_interval", "2",
                  "--nproc_per_node", str(ranks), "--"]

    with tempfile.TemporaryDirectory() as folder:
        run = os.path.join(folder, "run")
        command = [sys.executable, *launch, str(ROOT / "train.py"), "--run", run,
                   "--iterations", "5", "--eval_every", "5", "--threads", "1",
                   "--device", "cpu", "--dtype", "fp32", *flags]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            last_words = " ".join(done.stderr.split())[-300:]
            what = " ".join(command[1:])
            raise InputError(f"{what}: exit code {done.returncode}: {last_words}")

        with open(os.path.join(run, "metrics.jsonl")) as lines:
            iterations = [json.loads(line) for line in lines][1:]

    seconds = []
    for line in iterations:
        stages = line["seconds"].items()
        seconds += [x for name, x in stages if name not in ("evaluate", "checkpoint")]
    return sum(seconds) / len(iterations)


def ranks_stage(w, args):
    flags = args.train.split()
    shards = flags + ["--shard", "true"]
    copies = flags + ["--shard", "false"]
    variants = {"1 rank": lambda: seconds_of_training(1, flags),
                "2 ranks, in shards": lambda: seconds_of_training(2, shards),
                "2 ranks, whole copies": lambda: seconds_of_training(2, copies)}

    work = dict.fromkeys(variants, 1)
    targets = [("1 rank", name, "at least", 1.7) for name in list(variants)[1:]]
    return Stage("ranks", "iteration", work, variants, targets, own_clock=True)


# ---------------------------------------------------------------- memory

def peak_bytes(run):
    """The most bytes in use at one time while `run` runs, beyond those before."""
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True) as profile:
        run()

    events = profile.profiler.kineto_results.events()
    events = [event for event in events if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in events))


def memory(w):
    """Bytes of scoring beyond weights and AdamW, for the question with the most tokens.

    allowed = g_dev + the largest tensor + passes that drop each gradient at once.
    """
    q = max(range(len(w.answers)), key=lambda q: count([w.answers[q]]))
    one = replace(w, answers=[w.answers[q]], A=w.A[q:q + 1])

    def score():
        return influence_scores(one.policy, one.answers, one.A, one.g_dev, one.cfg)

    def drop(p):
        p.grad = None

    scoring = peak_bytes(score)
    hooks = [p.register_post_accumulate_grad_hook(drop) for p in w.policy.params]
    passes = peak_bytes(lambda: bare_passes(one))
    for hook in hooks:
        hook.remove()

    sizes = [g.nbytes for g in w.g_dev]
    g_dev = sum(sizes)
    largest = max(sizes)
    return {"used": g_dev + scoring, "allowed": g_dev + largest + passes, "g_dev": g_dev,
            "largest tensor": largest, "passes": passes}


# ---------------------------------------------------------------- the command

# `memory` is of one question, and no matter of time
STAGES = {"influence": influence_stage, "random": random_stage, "decode": decode_stage,
          "sampling": sampling_stage, "rollouts": rollouts_stage, "update": update_stage,
          "iteration": iteration_stage, "questions": questions_stage, "answers": answers_stage,
          "lengths": lengths_stage, "sizes": sizes_stage, "sums": sums_stage, "peers": peers_stage,
          "ranks": ranks_stage, "memory": None}
DEFAULT = "influence,random,decode,rollouts,update,iteration,questions,answers,lengths,memory"


def machine():
    lines = open("/proc/cpuinfo").readlines() if os.path.exists("/proc/cpuinfo") else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    cpu = models[0] if models else platform.processor()
    return {"cpu": cpu, "cores": os.cpu_count(), "threads": torch.get_num_threads(),
            "load": os.getloadavg()[0], "torch": torch.__version__,
            "transformers": transformers.__version__, "python": platform.python_version()}


def read_args(argv):
    parser = Parser("python -m tools.bench", __doc__, most=(8, MANY))
    parser.add_argument("--stages", default=DEFAULT,
                        help=f"names separated by commas, of {', '.join(STAGES)} "
                             f"(default {DEFAULT})")
    parser.add_argument("--model", default=TOY["model"],
                        help="model folder or hub id (default toy/anchor)")
    parser.add_argument("--size", choices=SIZES, help="random weights of this size instead")
    parser.add_argument("--written_by", metavar="MODEL",
                        help="answers of another model; its tokens modulo the vocabulary")
    for name in ("documents", "dev", "test"):
        parser.add_argument(f"--{name}", default=TOY[name], metavar="FILE",
                            help="the embedded world's unless given")
    parser.add_argument("--max_response_tokens", type=int, default=128,
                        help="limit of answers and drafts; 128 unless given")
    parser.add_argument("--lengths", choices=LENGTHS,
                        help="toy, and long with --size, unless given")
    parser.add_argument("--questions", type=int, help="96, and 32 with --size, unless given")
    for name, default, what in [
            ("answers", 8, "answers to a question"), ("repeats", 5, "timed rounds"),
            ("threads", 1, "CPU threads"), ("rows", 64, "rows sampled side by side")]:
        parser.add_argument(f"--{name}", type=int, default=default,
                            help=f"{what} (default {default})")
    parser.add_argument("--columns", type=int, default=400,
                        help="of the key-value cache in the stage `decode`; 400 unless given")
    parser.add_argument("--updates", type=int, default=2,
                        help="AdamW steps before anything is measured: how long its history is; "
                             "2 unless given")
    parser.add_argument("--most", type=int,
                        help="questions of the stage `questions`; 512, and 32 with --size, "
                             "unless given")
    parser.add_argument("--train", default="", metavar="FLAGS",
                        help="further flags of train.py, for the stage `ranks`")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall",
                        help="cpu: the process's CPU time, for a machine that others use too "
                             "(one thread only)")
    parser.add_argument("--json", metavar="FILE", help="write the report here")
    return check(parser.parse_args(argv))


def check(args):
    """Arguments as typed -> the same with what follows from --size; InputError."""
    args.stages = args.stages.split(",")
    unknown = set(args.stages) - set(STAGES)
    if unknown:
        expected = ", ".join(STAGES)
        raise InputError(f"--stages {','.join(unknown)}: expected some of {expected}")
    if args.written_by and "iteration" in args.stages:
        raise InputError("--written_by: the stage iteration samples its own answers; give --stages "
                         "without it")

    if not args.size:
        args.model = flags.find_model("model", args.model)
    args.questions = args.questions or (32 if args.size else 96)
    args.lengths = args.lengths or ("long" if args.size else "toy")
    args.most = args.most or (32 if args.size else 512)
    return args


def prepare(args):
    """-> the World that all stages measure on."""
    cfg = Config(device="cpu", dtype="fp32", tokens_at_once=4096,
                 max_response_tokens=args.max_response_tokens)
    if args.size:
        policy = random_policy(args.size, cfg)
    else:
        policy = Policy("solver", args.model, 1e-5, cfg)
    w = make_world(policy, cfg, args.questions, args.answers, LENGTHS[args.lengths],
                   updates=args.updates)

    if {"influence", "iteration", "sampling"} & set(args.stages):
        writer = Policy("solver", args.written_by, 1e-5, cfg) if args.written_by else None
        w.asked = ask(policy, args, replace(cfg, rows_at_once=args.rows), writer)
    return w


def settings_of(args, policy):
    """What was measured, for the report: every argument but --json, the model and its size."""
    settings = vars(args) | {
        "model": args.size or os.path.basename(os.path.normpath(args.model)),
        "parameters": sum(p.numel() for p in policy.params)}
    del settings["json"]
    return settings


def main(argv=None):
    args = read_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    w = prepare(args)

    report = {"machine": machine(), "settings": settings_of(args, w.policy), "stages": {}}
    print(report["machine"], report["settings"], sep="\n")

    for name in args.stages:
        if name == "memory":
            continue
        stage = STAGES[name](w, args)
        result = measure(stage, args.repeats, clock)
        report["stages"][name] = result
        show(stage, result)

    if "memory" in args.stages:
        report["memory"] = memory(w)
        parts = ", ".join(f"{name} {n / 2 ** 20:.1f}" for name, n in report["memory"].items())
        print(f"\nmemory while scoring, MB beyond weights and Adam: {parts}")

    if args.json:
        with open(args.json, "w") as f:
            json.dump(report, f, indent=2)


if __name__ == "__main__":
    run_script(main)
