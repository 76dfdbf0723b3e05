"""Plans beside each other: two samplers on two kinds of GPU, step by step, and other assumptions.

    code      meaning
    p         Setting (tools/setting.py)
    plan      p -> {stage: Stage}, and minutes: p, stages -> those of an average iteration; both of
              tools/plan.py, which passes them

`compared` ends every plan for GPUs. docs/plan.md is `python -m tools.plan --tables`.
"""
from dataclasses import replace

import config
from engine import presets, room
from tools import samplers
from tools.remedies import enough
from tools.setting import GPUS, PUBLISHED, Setting, published, rollouts_of

NAMES = {"ours": "our sampler", "vllm": "vLLM"}
SHOWN = ("dev", "write", "answer", "influence", "update_generator", "update_solver")


def with_sampler(p, how):
    return replace(p, padded=False, copies=False).changed(
        sampler="vllm" if how == "vllm" else "plain")


def on(p, name):
    """Setting -> the same on as many of one of GPUS."""
    gb, gbs = GPUS[name]
    return replace(p, machine=replace(p.machine, gpu_gb=gb, hbm_gbs=gbs))


def hours(p, stages, minutes):
    return minutes(p, stages) * p.cfg.iterations / 60


# ---------------------------------------------------------------- at the end of a plan

def compared(p, plan, minutes):
    """-> lines: minutes of each stage by both samplers, on these GPUs, an H100's and an H200's; and
    what is assumed of each sampler."""
    kinds = {name: on(p, name) for name in GPUS}
    if p.machine not in [other.machine for other in kinds.values()]:
        kinds = {f"{p.machine.gpu_gb:g} GB": p} | kinds
    names = [name.replace("update_", "upd_") for name in SHOWN]
    columns = [*names, "iteration", f"hours of {p.cfg.iterations}"]
    yield f"{'minutes':26}" + "".join(map("{:>14}".format, columns))
    for kind, other in kinds.items():
        for how, name in NAMES.items():
            q = with_sampler(other, how)
            stages = plan(q)
            cells = [f"{stages[stage].seconds / 60:.2f}" for stage in SHOWN]
            cells += [f"{minutes(q, stages):.1f}", f"{hours(q, stages, minutes):.1f}"]
            if any(stage.peak > q.usable for stage in stages.values()):
                cells = ["-"] * (len(cells) - 1) + ["does not fit"]
            place = f"{name}, {p.machine.gpus} x {kind}"
            yield f"{place:26}" + "".join(map("{:>14}".format, cells))
    yield from (samplers.assumed(p.machine, how) for how in NAMES)


# ---------------------------------------------------------------- step by step

# Before anybody's measurements were looked up: guesses.
GUESSED = {"mfu": 0.35, "hbm_share": 0.6}


def steps(p, plan, minutes):
    """-> rows of (what changed, minutes of sampling, of the rest, hours), from 3905702 on; each
    step keeps those before it."""
    old = replace(p, padded=True, copies=True, machine=replace(p.machine, **GUESSED))
    old = old.changed(rows_at_once=16, sampler="plain", end_to_end="false")
    measured = replace(old, machine=p.machine)
    folded = replace(measured, copies=False)
    flat = replace(folded, padded=False).changed(rows_at_once=0)
    rows = flat.changed(end_to_end="auto")
    return [step(what, q, plan, minutes) for what, q in (
        ("3905702: 16 padded rows, keys and values copied for each query head", old),
        ("shares of the peak as others measured them, where they were guessed", measured),
        ("query heads folded: keys and values are not copied", folded),
        ("rows end to end, as many as fit into memory", flat),
        ("passes end to end: no padding, and no mask where nothing is shared", rows),
        ("vLLM", rows.changed(sampler="vllm")),
        ("our sampler, on H200", on(rows, "H200")),
        ("vLLM, on H200", on(rows, "H200").changed(sampler="vllm")))]


def step(what, p, plan, minutes):
    stages = plan(p)
    sampling = sum(stages[name].seconds for name in ("dev", "write", "answer")) / 60
    each = minutes(p, stages)
    return what, f"{sampling:.1f}", f"{each - sampling:.1f}", f"{hours(p, stages, minutes):.1f}"


def otherwise(p, plan, minutes):
    """-> rows of (another assumption, hours by our sampler, by vLLM)."""
    m = p.machine

    def changed(**fields):
        return replace(p, machine=replace(m, **fields))

    longer = {kind: r.scaled(1.5) for kind, r in p.rollouts.items()}
    found = []
    for what, q in (
            ("as above", p),
            ("responses half as long again", replace(p, rollouts=longer)),
            (f"layer_us {2 * m.layer_us:g}: Python half as fast",
             changed(layer_us=2 * m.layer_us)),
            (f"small_us {2 * m.small_us:g}, step_ms {2 * m.step_ms:g}, vllm_step_ms "
             f"{2 * m.vllm_step_ms:g}", changed(small_us=2 * m.small_us, step_ms=2 * m.step_ms,
                                               vllm_step_ms=2 * m.vllm_step_ms)),
            ("hbm_share 0.5", changed(hbm_share=0.5)),
            ("mfu 0.3", changed(mfu=0.3))):
        row = [what]
        for how in NAMES:
            other = with_sampler(q, how)
            row.append(f"{hours(other, plan(other), minutes):.1f}")
        found.append(row)
    return found


# ---------------------------------------------------------------- docs/plan.md

HEAD = """# What the paper's recipe would need

**By the plan Qwen3-8B on 8 H100 takes {ours} hours with our sampler and {vllm} with vLLM, where
commit 3905702 would take {old}; computed by `python -m tools.plan --tables`, not run.** How to
read these tables, the formulas behind them and where each assumption comes from is in
[planning.md](planning.md).

Recipe: preset paper-8b, bf16, no evaluation.

Assumed: {assumed}.

Rates: {rates}.

## Qwen3-8B on 8 GPUs, step by step

Minutes of an iteration on H100 but for the last two rows; each of the first six keeps what
is above it.

{steps}

The same, where an assumption is wrong; hours of 100 iterations on H100:

{otherwise}"""
COLUMNS = ("GPUs", "sampling, GB", "influence, GB", "updates, GB", "host, GB", "PFLOPs", "TB moved",
           "minutes", "hours of 100 iterations", "fits, or what would help")
KINDS = {"sampling": ("dev", "write", "answer"), "influence": ("influence",),
         "updates": ("update_generator", "update_solver")}


def paper(shape, machine, assumed):
    cfg = config.Config(**presets.PAPER_8B, preset="paper-8b", sampler="plain")
    return Setting(cfg, {"solver": shape, "generator": shape}, rollouts_of(cfg, assumed), machine)


def markdown(columns, rows):
    yield f"| {' | '.join(columns)} |"
    yield "|---|" + "--:|" * (len(columns) - 1)
    yield from (f"| {' | '.join(map(str, row))} |" for row in rows)


def table_row(p, plan, minutes, peak):
    """-> the cells of one line of the tables by GPUs."""
    stages, cells, wanting = plan(p), [p.machine.gpus], []
    for kind, names in KINDS.items():
        largest = max((stages[name] for name in names), key=lambda stage: stage.peak)
        cells.append(f"{largest.peak / 1e9:.0f}")
        if largest.peak > p.usable:
            wanting.append(f"{kind}: {next(enough(p, largest.name, peak), 'no setting')}")
    return cells + [
        f"{stages['dev'].host / 1e9:.0f}", f"{sum(x.flops for x in stages.values()) / 1e15:.0f}",
        f"{sum(x.moved for x in stages.values()) / 1e12:.1f}", f"{minutes(p, stages):.0f}",
        f"{hours(p, stages, minutes):.0f}", "; ".join(wanting) or "fits"]


def tables(machine, assumed, plan, minutes, peak, report, rates):
    """-> the lines of docs/plan.md; the functions are those of tools/plan.py."""
    machine = replace(machine, gpus=8)
    p = paper(room.shape_of(published("Qwen3-8B"), "Qwen3-8B"), machine, assumed)
    found = steps(p, plan, minutes)
    said = {what: last for what, *_, last in found}
    columns = "what changed", "sampling, minutes", "all else", "hours of 100 iterations"
    lines = {"steps": markdown(columns, found), "otherwise": markdown(
        ("assumption", "our sampler", "vLLM"), otherwise(p, plan, minutes))}
    yield HEAD.format(
        assumed=rates(assumed), rates=rates(machine), old=f"{float(found[0][-1]):.0f}",
        ours=found[4][-1], vllm=said["vLLM"],
        **{name: "\n".join(some) for name, some in lines.items()})
    yield "\n## Qwen3-8B on 8 GPUs in full, with our sampler\n\n```"
    yield from report(p)
    yield "```"
    for name in PUBLISHED:
        shape = room.shape_of(published(name), name)
        yield f"\n## {name}: {shape.P / 1e9:.2f} billion parameters, our sampler\n"
        rows = []
        for gpus in (1, 2, 4, 8, 16, 32, 64):
            q = paper(shape, replace(machine, gpus=gpus), assumed)
            rows.append(table_row(q, plan, minutes, peak))
        yield f"| {' | '.join(COLUMNS)} |"
        yield f"|{'--:|' * (len(COLUMNS) - 1)}---|"
        yield from (f"| {' | '.join(map(str, row))} |" for row in rows)
