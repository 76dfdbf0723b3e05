"""What would make a stage fit: one setting at a time, then all together, then more GPUs.

    p       Setting (tools/setting.py)
    lever   p -> (flag, p with the flag), in growing steps; LEVERS has the cheapest first
    peak    (p, stage) -> bytes that the stage takes of one rank (tools/plan.py)
"""
from dataclasses import replace

# ---------------------------------------------------------------- levers

def halved(p, name, least):
    value = getattr(p.cfg, name) or p.rows("solver")
    while value // 2 >= least:
        value //= 2
        yield f"--{name} {value}", p.changed(**{name: value})


def shorter(p):
    """Half the response limit, a quarter, an eighth, and the mean length with it."""
    for i in range(1, 4):
        limit = p.cfg.max_response_tokens // 2 ** i
        share = limit / p.cfg.max_response_tokens
        rollouts = {kind: r.scaled(share) for kind, r in p.rollouts.items()}
        if limit:
            changed = p.changed(max_response_tokens=limit)
            yield f"--max_response_tokens {limit}", replace(changed, rollouts=rollouts)


def more_gpus(p):
    for gpus in (2 ** i for i in range(1, 10)):
        if gpus > p.machine.gpus and p.cuda:
            yield f"{gpus} GPUs", replace(p, machine=replace(p.machine, gpus=gpus))


def recomputed(p):
    if not p.cfg.grad_checkpoint:
        yield "--grad_checkpoint", p.changed(grad_checkpoint=True)


def in_slices(p):
    if p.k > 1 and not p.together:
        yield "--scoring together", p.changed(scoring="together")


LEVERS = (
    recomputed,
    lambda p: halved(p, "rows_at_once", p.cfg.answers_per_question),
    lambda p: halved(p, "tokens_at_once", 1024),
    lambda p: halved(p, "logp_chunk", 128),
    in_slices,
    shorter,
    more_gpus,
)


# ---------------------------------------------------------------- which help

def enough(p, stage, peak):
    """The single changes that make a stage fit, the least of each kind."""
    for lever in LEVERS:
        for name, changed in lever(p):
            if peak(changed, stage) <= p.usable:
                yield name
                break


def remedies(p, names, peak):
    """Stages that are too large -> lines: what makes each fit, one change or all together."""
    lines = {}
    for stage in names:
        found = ", ".join(enough(p, stage, peak))
        line = f"any of: {found}" if found else together(p, stage, peak)
        lines.setdefault(line, []).append(stage)
    return [f"{', '.join(stages)}: {line}" for line, stages in lines.items()]


def together(p, stage, peak):
    """Where no single change is enough: each as far as it helps, then more GPUs."""
    names, least = {}, peak(p, stage)
    for lever in LEVERS[:-1]:
        for name, changed in lever(p):
            if peak(changed, stage) < 0.99 * least:
                p, least = changed, peak(changed, stage)
                names[name.split()[0]] = name

    line = "no single change is enough"
    if names:
        line += f"; {', '.join(names.values())} together: {least / 1e9:.0f} GB"
    if least <= p.usable:
        return line + " (fits)"
    for name, changed in more_gpus(p):
        if peak(changed, stage) <= p.usable:
            return f"{line}, and with {name} it fits"
    return line + (", and no number of GPUs makes it fit" if p.cuda else "")
