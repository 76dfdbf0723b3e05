"""What a run needs, before anyone pays for it: bytes, tokens, FLOPs and minutes of each stage.

    python train.py --model MODEL --documents X --dev Y --plan           here, if without a GPU
    python train.py --model Qwen3-8B-Base --plan --gpus 8 --gpu_gb 80    on GPUs you do not have
    python -m tools.plan --model Qwen3-8B-Base --gpus 8 --mfu 0.3        with other assumptions
                                        (--help lists them); any field of train.py may stand there
    python -m tools.plan --tables > docs/plan.md          step by step; 4B to 32B, 1 to 64 GPUs
    python -m tools.plan --check toy/anchor --threads 1   beside a measurement of two iterations

    code      meaning
    p         Setting: config, shapes of both models, rollouts, machine (tools/setting.py)
    groups    Lengths of prompts and their answers, assumed
    found     passes, by tools/formulas.py, which asks the code that packs, deals and samples
    Stage     bytes of one rank at its worst moment; tokens, FLOPs, traffic, seconds

The formulas and the design planned for are in docs/planning.md. Not in it: fragmentation (a tenth
of a GPU is left free), loading, checks of answers, failures. Nothing here has run on a GPU:
rates are assumptions, printed with every plan. Bytes, tokens and FLOPs were measured on a CPU.
"""
import argparse
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial

import torch

from engine import flags, ranks, room
from engine.arguments import OneLine
from engine.speech import run_script
from tools import formulas, samplers, tables
from tools.remedies import remedies
from tools.setting import ABOUT, Assumed, Machine, here, machine_of, read, setting_of

# ---------------------------------------------------------------- stages

@dataclass
class Stage:
    name: str
    buffers: dict = field(default_factory=dict)     # {buffer: bytes} of one rank
    host: float = 0.0           # bytes of host memory, each rank
    tokens: int = 0             # response tokens drawn or trained on, all ranks
    through: int = 0            # tokens through the model, with prompts and padding, all ranks
    flops: float = 0.0          # all ranks
    moved: float = 0.0          # bytes between ranks, host or disk, each rank
    seconds: float = 0.0        # ranks wait for the slowest

    @property
    def peak(self):
        return sum(self.buffers.values())


def dealt(groups, k):
    """Groups -> those of each of k ranks, in turn."""
    return [tuple(groups[rank::k]) for rank in range(k)]


def longest_first(groups, k):
    """As packing.dealt_longest_first."""
    return ranks.evenly(sorted(groups, key=lambda group: -group.total), k)


def worst(moments):
    return max(moments, key=lambda buffers: sum(buffers.values()), default={})


def response_tokens(groups):
    return sum(sum(group.responses) for group in groups)


def sampling_stage(name, role, kind, p):
    if not p.rollouts[kind].prompts:
        return Stage(name)
    s, how = p.shapes[role], p.sampler
    if how == "padded":
        limits = p.rows(role), p.cfg.tokens_at_once
        each = [formulas.sampling(part, *limits) for part in dealt(p.groups(kind), p.ranks)]
        times = [padded_seconds(y, s, p) for y in each]
    else:
        each = [samplers.played(part, p, s) for part in dealt(p.groups(kind), p.ranks)]
        times = [samplers.seconds(y, s, p.b, p.machine, how) for y in each]

    moments, moved = [], p.b * s.P * (p.k - 1) / p.k
    for y in each:
        moments += formulas.sampling_moments(s, y, p.k, p.b, kind == "test", how, p.copies)
    return Stage(name, worst(moments), tokens=sum(y.drawn for y in each),
                 through=sum(y.prefill + y.row_steps for y in each),
                 flops=sum(formulas.sampling_flops(s, y) for y in each), moved=moved,
                 seconds=max(times) + moved / p.machine.link)


def padded_seconds(y, s, p):
    """Of one rank, with padded rows: the cache once a step, and twice more every 32 columns."""
    m = p.machine
    again = 2 * s.A / s.K if p.copies and s.A != s.K else 0
    cache = 2 * s.layers * s.K * p.b * y.cells * (1 + 2 / 32 + again)
    read = y.steps * p.b * (s.W + s.N) + cache
    decode = max(y.steps * s.layers * m.layer_us / 1e6, read / (1e9 * m.hbm_gbs * m.hbm_share),
                 formulas.decode_flops(s, y) / m.flops)
    return formulas.forward_flops(s, y.prefill, y.squares, 0) / m.flops + decode


def spent(p, s, each, cost, sharded, whole):
    """Passes of each rank, FLOPs of a pass -> (FLOPs, bytes moved, seconds).

    Bytes: `sharded` for each parameter and pass, or `whole` once. FSDP overlaps them with FLOPs.
    """
    costs = [sum(map(cost, part)) for part in each]
    # ranks with fewer passes run empty ones
    moved = whole * (p.ranks - 1) / p.ranks
    if p.k > 1:
        moved = max(map(len, each)) * sharded * s.P * (p.k - 1) / p.k
    return sum(costs), moved, max(max(costs) / p.machine.flops, moved / p.machine.link)


def training(p, s, minibatches):
    """Mini-batches of groups -> (passes, most in a row, FLOPs, bytes moved, seconds).

    All but the first need old log-probs, in passes of their own.
    """
    def forward(x):
        return formulas.forward_flops(s, x.tokens, x.squares, x.targets)

    def both(x):
        return formulas.pass_flops(s, x, p.cfg)

    limit, later = p.cfg.tokens_at_once, [()] * p.ranks
    found, most, costs = [], 0, []
    for i, minibatch in enumerate(minibatches):
        parts = dealt(longest_first(minibatch, p.ranks), p.ranks)
        if i:
            later = [old + part for old, part in zip(later, parts)]
        each = [formulas.planned(part, s, limit) for part in parts]
        costs.append(spent(p, s, each, both, 2 * p.b + 4, 8 * s.P))
        found += formulas.joined(each)
        most = max(most, *map(len, each))
    old = [formulas.planned(part, s, limit) for part in later]
    costs.append(spent(p, s, old, forward, p.b, 0))
    return found, most, *map(sum, zip(*costs))


def update_stage(name, role, kind, p):
    s, groups = p.shapes[role], p.groups(kind, kept=True)
    if not groups:
        return Stage(name)
    size = p.cfg.minibatch_rows // p.rollouts[kind].answers
    minibatches = [groups[i:i + size] for i in range(0, len(groups), size)]
    found, most, flops, moved, seconds = training(p, s, minibatches)
    moments = formulas.update_moments(s, found, most, p.cfg, p.k, p.b, p.cuda)
    return Stage(name, worst(moments), tokens=response_tokens(groups),
                 through=sum(x.tokens for x in found), flops=flops, moved=moved, seconds=seconds)


def update_solver_stage(p):
    kind = "dev" if p.cfg.train_on == "dev" else "answer"
    return update_stage("update_solver", "solver", kind, p)


def influence_stage(p):
    if not p.cfg.by_influence:
        return Stage("influence")
    s, dev, groups = p.shapes["solver"], p.groups("dev", kept=True), p.groups("answer", kept=True)
    found, most, flops, moved, seconds = training(p, s, [dev] if dev else [])
    # RLVR problems earn nothing
    problems = p.cfg.rlvr_per_step / max(1, p.rollouts["answer"].prompts)
    groups = longest_first(groups[:len(groups) - round(len(groups) * problems)], p.ranks)

    score = scored_together if p.together else scored_alone
    shared, questions, slowest, traffic = score(p, s, groups)
    scored = shared + formulas.joined(questions)
    limit = slowest / p.machine.flops, traffic / p.machine.link
    moments = formulas.influence_moments(
        s, found, most, shared, questions, p.cfg, p.k, p.b, p.together, p.device)
    return Stage("influence", worst(moments), tokens=response_tokens(dev + tuple(groups)),
                 through=sum(x.tokens for x in found + scored),
                 flops=flops + flops_of(p, s, scored), moved=moved + traffic,
                 seconds=seconds + (max(limit) if p.together else sum(limit)))


def flops_of(p, s, found):
    return sum(formulas.pass_flops(s, x, p.cfg) for x in found)


def scored_together(p, s, groups):
    """All ranks divide a question's trees; each pass is as much traffic as in training.

    -> (passes that questions share, passes of each question, FLOPs of the slowest, bytes moved)
    """
    questions, slowest, most = [], 0, 0
    for group in groups:
        parts = [formulas.planned((group,), s, p.cfg.tokens_at_once, p.ranks, rank)
                 for rank in range(p.ranks)]
        questions.append(formulas.joined(parts))
        slowest += max(flops_of(p, s, part) for part in parts)
        most += max(map(len, parts))
    return [], questions, slowest, most * s.P * (p.k - 1) / p.k * (2 * p.b + 4)


def scored_alone(p, s, groups):
    """Each rank scores questions of its own, with weights, v and g_dev gathered. -> the same."""
    shared, questions, slowest = [], [], 0
    for part in dealt(groups, p.ranks):
        some, alone = formulas.blocks(part, s, p.cfg, p.device)
        shared, questions = shared + some, questions + alone
        slowest = max(slowest, flops_of(p, s, some + formulas.joined(alone)))
    return shared, questions, slowest, 3 * p.b * s.P * (p.k - 1) / p.k


def checkpoint_stage(p):
    written = 12 * (p.shapes["solver"].P + p.shapes["generator"].P)
    return Stage("checkpoint", formulas.held(p.shapes["solver"], p.k), moved=written / p.ranks,
                 seconds=written / (1e9 * p.machine.disk_gbs))


STAGES = {
    "dev": partial(sampling_stage, "dev", "solver", "dev"),
    "write": partial(sampling_stage, "write", "generator", "draft"),
    "answer": partial(sampling_stage, "answer", "solver", "answer"),
    "influence": influence_stage,
    "update_generator": partial(update_stage, "update_generator", "generator", "draft"),
    "update_solver": update_solver_stage,
    "evaluate": partial(sampling_stage, "evaluate", "solver", "test"),
    "validate": partial(sampling_stage, "validate", "solver", "valid"),
    "checkpoint": checkpoint_stage,
}


def plan(p):
    """-> {stage: Stage} of an iteration that has everything that the run has, evaluation and
    checkpoint too; the others are empty."""
    stages, before = {name: stage(p) for name, stage in STAGES.items()}, "solver"
    takes_turns = p.cuda and p.cfg.offload_idle
    both = sum(12 * s.P / p.k for s in p.shapes.values())
    for name, stage in stages.items():
        if not stage.buffers:
            continue
        role = "generator" if name in ("write", "update_generator") else "solver"
        idle = both - 12 * p.shapes[role].P / p.k
        if takes_turns:
            stage.host = idle
        else:
            stage.buffers["idle role"] = idle
        # one goes out, the other comes in
        if role != before and takes_turns:
            stage.moved += both
            stage.seconds += both / (1e9 * p.machine.host_gbs)
        before = role
    return stages


def minutes(p, stages):
    """Of an average iteration: some stages are not in each."""
    every = {"evaluate": p.cfg.eval_every, "validate": p.cfg.valid_every,
             "checkpoint": p.cfg.checkpoint_every}
    if not p.cfg.by_influence:
        every["dev"] = p.cfg.dev_every
    return sum(stage.seconds / every.get(stage.name, 1) for stage in stages.values()) / 60

def peak(p, name):
    """Bytes of a stage's worst moment, before the idle role is counted."""
    return STAGES[name](p).peak


# ---------------------------------------------------------------- one plan as text

def big(x):
    """1.5e12 -> 1.5 T"""
    for power, letter in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if x >= 10 ** power:
            return f"{x / 10 ** power:.3g} {letter}"
    return f"{x:.3g}"


def table(stages):
    """-> lines: buffers as rows, stages as columns, then tokens, FLOPs, traffic, minutes."""
    shown = [stage for stage in stages.values() if stage.buffers]
    small = max(stage.peak for stage in shown) < 1e9
    unit, size = ("MB", 1e6) if small else ("GB", 1e9)

    def gb(x):
        return f"{x / size:.2f}" if x else "-"

    rows = {f"{unit} of one rank": [stage.name.replace("update_", "upd_") for stage in shown]}
    for name in formulas.joined(stage.buffers for stage in shown):
        rows[name] = [gb(stage.buffers.get(name, 0)) for stage in shown]
    rows["peak"] = [gb(stage.peak) for stage in shown]
    rows["host memory, idle role"] = [gb(stage.host) for stage in shown]
    rows["response tokens"] = [big(stage.tokens) for stage in shown]
    rows["tokens through the model"] = [big(stage.through) for stage in shown]
    rows["FLOPs, all ranks"] = [big(stage.flops) for stage in shown]
    rows[f"{unit} moved, each rank"] = [gb(stage.moved) for stage in shown]
    rows["minutes"] = [f"{stage.seconds / 60:.2f}" for stage in shown]
    return [f"{name:26}{''.join(map('{:>14}'.format, cells))}" for name, cells in rows.items()]


def report(p, said=None, needed=None):
    """Setting -> the lines of its plan. Of this machine: what was read and measured, and one line
    on memory and disk."""
    s, m, stages = p.shapes["solver"], p.machine, plan(p)
    size = f"{s.P / 1e9:.2f} billion" if s.P >= 1e8 else f"{s.P / 1e6:.2f} million"
    where = f"{m.gpus} x {m.gpu_gb:g} GB" if said is None else "this machine"
    dtype, lies = "bf16" if p.b == 2 else "fp32", "sharded" if p.k > 1 else "whole"
    yield (f"{s.name}: {size} parameters, {s.layers} layers of {s.H}, on {where}, {dtype}, {lies}. "
           "Computed, not run.")
    yield from said or [f"rates assumed: {rates(m)}"]
    for kind, r in p.rollouts.items():
        if r.prompts:
            prompt, response = map("{0[0]:.0f} +- {0[1]:.0f}".format, (r.prompt, r.response))
            yield (f"{kind:7} assumed: {r.prompts} prompts of {prompt} tokens x {r.answers} "
                   f"responses of {response}, {r.kept} prompts with a gradient")
    yield from ["", *table(stages), ""]

    average, cfg = minutes(p, stages), p.cfg
    tested = f"evaluation every {cfg.eval_every}"
    if not p.rollouts["test"].prompts:
        tested = "no evaluation: tools.plan --test_questions N counts it"
        tested = "no test questions" if said else tested
    if p.rollouts["valid"].prompts:
        tested += f", validation every {cfg.valid_every}"
    hours = average * cfg.iterations / 60
    total = f", {hours * m.gpus:.0f} GPU hours" if said is None else ""
    each = f"{tested}, checkpoint every {cfg.checkpoint_every}"
    yield (f"an iteration: {average:.1f} minutes ({each}); {cfg.iterations} of them: "
           f"{hours:.1f} hours{total}")
    if needed:
        yield needed
    yield from verdict(p, stages)
    if p.cuda and said is None:
        yield ""
        yield from tables.compared(p, plan, minutes)


def rates(x, without=("gpus", "gpu_gb")):
    return ", ".join(f"{name} {value}" for name, value in asdict(x).items() if name not in without)


def verdict(p, stages):
    """Does it fit? If not, what would help."""
    top = max(stages.values(), key=lambda stage: stage.peak)
    of = f"{p.usable / 1e9:.0f} of {p.machine.gpu_gb:.3g} GB that are planned with"
    if top.peak <= p.usable:
        yield f"fits: at most {top.peak / 1e9:.1f} GB, in {top.name}, of the {of}"
        return
    largest = max(top.buffers, key=top.buffers.get)
    most = f"most of it {largest}, {top.buffers[largest] / 1e9:.1f} GB"
    needs = f"{top.name} needs {top.peak / 1e9:.1f} GB"
    yield f"does not fit: {needs} of the {of}; {most}. What would help:"
    over = [stage.name for stage in stages.values() if stage.peak > p.usable]
    yield from (f"  {line}" for line in remedies(p, over, peak))
    if p.cuda:
        less = top.buffers.get("AdamW m, v", 0) / 1e9
        yield f"  not built: AdamW's m, v in host memory meanwhile, {less:.0f} GB less"


# ---------------------------------------------------------------- the command

def plan_of_run(cfg):
    """What `train.py --plan` prints: for GPUs that were named, or for this machine without one."""
    if torch.cuda.is_available() or {"gpus", "gpu_gb"} & set(cfg.given):
        lines = report(setting_of(cfg, machine_of(cfg.gpus, cfg.gpu_gb), Assumed()))
    else:
        lines = report_here(cfg)
    if ranks.is_main():
        print("\n".join(lines))
    return 0


def report_here(cfg):
    """The plan of a run as one process on this machine's CPU, with the run's own data."""
    assumed, found = read(cfg, Assumed())
    p = setting_of(replace(cfg, device="cpu"), here(cfg.threads), assumed)
    m, both = p.machine, sum(s.P for s in p.shapes.values())
    memory = room.gb(max(stage.peak for stage in plan(p).values()) + room.BASE)
    most, left = map(room.gb, room.on_disk(both, cfg))
    said = [f"measured: {1e3 * m.tflops:.0f} GFLOPs a second in a matrix product, "
            f"{m.hbm_gbs:.0f} GB/s in a copy; planned: {m.mfu:.0%} and {m.hbm_share:.0%} of them",
            found,
            "assumed: responses of a quarter of their limit; "
            f"{assumed.valid_share:.0%} of the drafts valid; "
            f"{assumed.mixed_share:.0%} of questions and documents with a gradient"]
    free = room.gb(room.free_disk(cfg.run))
    return report(p, said, f"memory: at most {memory} with Python and torch. Disk: at most {most}, "
                           f"{left} when it has ended, {free} are free")


def main(argv=None):
    parser = OneLine(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="Every other flag is a field of config.py. Defaults stand in brackets.")
    parser.add_argument("--tables", action="store_true", help="print docs/plan.md")
    parser.add_argument("--check", metavar="MODEL",
                        help="run two iterations of it on this CPU beside their plan; takes no "
                             "rates")
    for kind in (Machine, Assumed):
        for x in fields(kind):
            number = int if x.type is int else float
            parser.add_argument(f"--{x.name}", type=number, default=argparse.SUPPRESS,
                                metavar=number.__name__, help=f"{ABOUT[x.name]} ({x.default})")
    args, rest = parser.parse_known_args(argv)

    def pick(kind):
        names = {x.name for x in fields(kind)}
        return kind(**{name: value for name, value in vars(args).items() if name in names})

    if args.check:
        # here, since it imports train.py, which may be the script that imports this file
        from tools import plan_check
        plan_check.main(flags.parse(["--model", args.check, *rest]), plan)
    elif args.tables:
        lines = tables.tables(pick(Machine), pick(Assumed), plan, minutes, peak, report, rates)
        print("\n".join(lines))
    else:
        print("\n".join(report(setting_of(flags.parse(rest), pick(Machine), pick(Assumed)))))


if __name__ == "__main__":
    run_script(main)
