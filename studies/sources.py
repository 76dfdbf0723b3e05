"""Does a score foretell what a real step does, on a pretrained model and questions of many kinds?

    python -m studies.sources RUN --from sciq=FILE arc=FILE sums=FILE --json FILE
    python -m studies.sources --summary --json FILE --page PAGE     no steps: the tables of FILE

    RUN          a run of train.py: its solver and AdamW, its dev set, its generator and documents
    NAME=FILE    a source: questions, read as any other file. The source `generated` is always
                 there: what the run's generator writes next, with the keys that it gives
    key          every second question of a file gets a wrong one: an answer that the solver gave
                 and that is not right
    question     taken if the solver's answers are mixed by that key; others have no gradient
    step         trainer: the run's own update on this question alone, less that of a zero gradient;
                 gamma: one AdamW step along g_q, without momentum or decay, as the score has it
    change       what the step did to the dev loss and to the dev accuracy (studies.reality);
                 positive: better

    prediction   those of studies.reality, and what a score has to beat:
    exact        the method's, with the gradient of the exact dev accuracy in place of g_dev
    often        the method's, with a g_dev of --often answers to each dev question
    norm, length    |g_q|; mean tokens of an answer
    solved       share of right answers, by the key
    mixed        4 p (1 - p) of that share: learnability

Spearman's rho with 95 % intervals, pooled and for each source; the method's less every other's.
FILE gets each question as it ends; the same command goes on from there.
"""
import random
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

import solver as solver_role
from config import SIMILARITIES
from data import InputError, Question
from dugrpo import has_gradient
from engine.arguments import Parser
from engine.finished import digest
from engine.outputs import file_to_write
from engine.readers import load_questions
from engine.speech import run_script
from engine.verify import Verifier
from influence import cosine, dev_gradient, norm, second_moment, similarity
from policy import mean_length
from rewards import learnability
from studies import reality
from studies.records import cpu, fill_page, read_json, write_json

GENERATED = "generated"
# of a step's change: positive is better
GAINS = {"loss": "fall of the dev loss", "accuracy": "rise of the dev accuracy"}
STEPS = ("trainer", "gamma")
AT_ONCE = 16            # questions asked together
MOST_ITERATIONS = 20    # of drafts, until enough are mixed


@dataclass
class Asked:
    """A question with a gradient."""
    source: str
    right: bool | None      # is its key right; None where nobody knows
    question: Question
    answers: list           # (m,) rollouts
    r: torch.Tensor         # (m,) 1 or 0, by its key


# ---------------------------------------------------------------- which questions

def from_file(world, name, questions, wanted, verifier):
    """Ask a file's questions in random order until so many are mixed, half of them by a wrong key
    -> list of Asked."""
    rng = random.Random(f"{name}, seed {world.cfg.seed}")
    order = rng.sample(questions, len(questions))
    found = {True: [], False: []}
    for begin in range(0, len(order), AT_ONCE):
        some = order[begin:begin + AT_ONCE]
        answers = ask(world, some, f"{name} {begin}")
        for i, (question, group) in enumerate(zip(some, answers)):
            right = i % 2 == 0
            keyed = question if right else wrong_key(question, group, verifier)
            if keyed:
                found[right] += mixed(name, right, [keyed], [group], verifier)
        if min(map(len, found.values())) >= (wanted + 1) // 2:
            break
    return found[True][:(wanted + 1) // 2] + found[False][:wanted // 2]


def wrong_key(question, group, verifier):
    """The question with the most frequent wrong answer of the group as its key; None without one.

    The letters of choices are read as their texts.
    """
    r = solver_role.rewards([question], [group], verifier)[0]               # (m,)
    said = Counter()
    for rollout, right in zip(group, r.tolist()):
        given = solver_role.given_answer(question, rollout.text)
        if given and right == 0:
            said[given] += 1
    if not said:
        return None
    key = said.most_common(1)[0][0]
    if question.choices:
        key = question.choices[ord(key) - ord("A")]
    return replace(question, ground_truth=key, aliases=())


def from_generator(world, wanted, verifier):
    """What the generator writes next, until so many are mixed -> list of Asked."""
    found = []
    t = world.iteration + 1
    for later in range(t, t + MOST_ITERATIONS):
        questions = [question for _, question in reality.valid_questions(world, later)]
        if questions:
            answers = ask(world, questions, f"{GENERATED} {later}")
            found += mixed(GENERATED, None, questions, answers, verifier)
        if len(found) >= wanted:
            break
    return found[:wanted]


def ask(world, questions, what):
    """-> (Q, m) answers; the random numbers are those of `what`."""
    seed_words = (world.cfg.seed, world.iteration + 1, "solver", what)
    return solver_role.answer_questions(
        world.solver, questions, world.cfg.answers_per_question, seed_words, world.cfg, what=what)


def mixed(source, right, questions, answers, verifier):
    """(Q,) questions, (Q, m) answers -> those whose answers have a gradient, as Asked."""
    r = solver_role.rewards(questions, answers, verifier)                   # (Q, m)
    keep = has_gradient(solver_role.advantages(r)).nonzero()[:, 0].tolist()
    return [Asked(source, right, questions[q], answers[q], r[q]) for q in keep]


# ---------------------------------------------------------------- one question

def predictions(world, sample, q, g_dev, others):
    """-> {name: number}, of the q-th question of the sample.

    others: {name: what the method's score has in place of g_dev}.
    """
    cfg, solver = world.cfg, world.solver
    g = reality.gradient(solver, sample.answers, sample.A_sol, [q],
                         reality.question_denominator(sample), cfg)
    moments = [second_moment(solver.optimizer, p) for p in solver.params]
    predicted = {}
    for name in SIMILARITIES:
        predicted[name] = float(similarity(g_dev, g, moments, replace(cfg, similarity=name)))
    predicted |= reality.other_predictions(solver, g, g_dev, cfg)
    method = replace(cfg, similarity=reality.METHOD)
    for name, g_other in others.items():
        predicted[name] = float(similarity(g_other, g, moments, method))

    group = sample.answers[q]
    # above the mean of its group: right
    p = float((sample.A_sol[q] > 0).float().mean())
    return predicted | {"norm": norm(g), "length": mean_length([group]), "solved": p,
                        "mixed": learnability(p)}


def steps(measure, q, names):
    """-> {step: {goal: change}}, of the q-th question."""
    cfg = measure.world.cfg
    taken = {}
    for name in names:
        if name == "trainer":
            taken[name] = measure.trainer(q, cfg.solver_lr)
        else:
            alone = reality.question_denominator(measure.sample)
            taken[name] = measure.along([q], alone, cfg.solver_lr)
    return taken


def sample_of(world, asked, verifier):
    """Asked questions, and answers to the dev set -> reality.Sample."""
    t = world.iteration + 1
    dev_answers, A_dev = reality.answered(
        world, world.dev, world.cfg.answers_per_question, (world.cfg.seed, t, "solver", "dev"),
        verifier)
    if not has_gradient(A_dev).any():
        raise InputError(f"none of {len(world.dev)} dev questions has mixed answers, so there is "
                         "nothing to foretell")
    A_sol = solver_role.advantages(torch.stack([one.r for one in asked]))   # (Q, m)
    return reality.Sample(
        dev_answers, A_dev, [one.question for one in asked], [0] * len(asked),
        [one.answers for one in asked], A_sol, list(range(len(asked))), 0)


def run(args, found):
    """Step on every question that the file does not hold yet."""
    world = reality.load(args.run, dev=args.dev, threads=args.threads)
    with Verifier() as verifier:
        asked = []
        for name, file in args.files.items():
            asked += from_file(world, name, load_questions(file), args.each, verifier)
        asked += from_generator(world, args.each, verifier)
        counts = Counter(one.source for one in asked)
        said = [f"{counts[name]} of {name}" for name in (*args.files, GENERATED)]
        print("mixed: " + ", ".join(said), flush=True)
        if not asked:
            raise InputError("no question of any source has mixed answers, so nothing has a "
                             "gradient")
        sample = sample_of(world, asked, verifier)
    refuse_changed(world, asked, args, found)

    g_dev = dev_gradient(world.solver, sample.dev_answers, sample.A_dev, world.cfg)
    measure = reality.Measure(world, sample, reality.Objective(world, sample))
    found |= {"run": reality.run_name(args.run), "iteration": world.iteration,
              "dev_questions": len(world.dev), "before": measure.before, "cpu": cpu()}

    others = other_dev_gradients(world, measure, args.often)
    if "exact" in others:
        gradients = {"g_dev": g_dev} | others
        found["with_exact"] = {name: float(cosine(g, others["exact"]))
                               for name, g in gradients.items() if name != "exact"}

    for q in reality.bar(range(len(asked)), "questions"):
        one, key = asked[q], key_of(asked, q)
        if key in found["questions"]:
            continue
        found["questions"][key] = {
            "source": one.source, "right": one.right, "question": fingerprint(one.question),
            "predicted": predictions(world, sample, q, g_dev, others),
            "real": steps(measure, q, args.steps)}
        write_json(args.json, reality.rounded(found))


def other_dev_gradients(world, measure, often):
    """-> {"exact", "often"}: gradient of minus the exact dev accuracy, unless it cannot be counted;
    g_dev of so many answers to each dev question, unless 0.
    """
    found = {"exact": measure.objective.exact_gradient(world.solver, world.cfg)}
    if often:
        answers, A = reality.second_answers(world, "often", often)
        found["often"] = dev_gradient(world.solver, answers, A, world.cfg)
    return {name: g for name, g in found.items() if g is not None}


def key_of(asked, q):
    return f"{asked[q].source}/{q}"


def fingerprint(question):
    """What tells it from others without its text, which may not be ours to publish."""
    return digest(question.question_text, question.choices, question.ground_truth)


def refuse_changed(world, asked, args, found):
    """InputError if the run or a source is another than when the file was begun."""
    same = found.get("iteration", world.iteration) == world.iteration
    for q, one in enumerate(asked):
        known = found["questions"].get(key_of(asked, q))
        same = same and (not known or known["question"] == fingerprint(one.question))
    if not same:
        raise InputError(f"{args.json}: the run or a file of questions has changed since it was "
                         "begun; give another --json")


# ---------------------------------------------------------------- what came out

def groups_of(records):
    """List of records -> {title: records}: all of them, each source, each kind of key."""
    found = {"all": records}
    for name in dict.fromkeys(x["source"] for x in records):
        found[name] = [x for x in records if x["source"] == name]
    return found | {"right keys": [x for x in records if x["right"]],
                    "wrong keys": [x for x in records if x["right"] is False]}


def correlations(records, step, goal):
    """-> {prediction: {"spearman": [value, low, high], "lead": the method's less it, likewise}}.
    """
    real = [x["real"][step][goal] for x in records]
    method = [x["predicted"][reality.METHOD] for x in records]
    found = {}
    for name in records[0]["predicted"]:
        x = [record["predicted"][name] for record in records]
        found[name] = {"spearman": reality.agreement(x, real)["spearman"],
                       "lead": reality.lead(method, x, real)}
    return found


def tables(found):
    """The file's content -> Markdown."""
    records = list(found["questions"].values())
    if len(records) < 3:
        raise InputError(f"{len(records)} questions are measured, expected at least 3 to order; "
                         "run it again, it goes on")
    taken = records[0]["real"]
    accuracy = found["before"].get("accuracy")
    text = [f"{len(records)} questions, run {found['run']} after iteration {found['iteration']}, "
            f"{found['dev_questions']} dev questions; {found['cpu']}, commit "
            f"{found['commit']}."
            + (f" Expected dev accuracy before: {accuracy:.3f}." if accuracy else "")]
    for name, alike in found.get("with_exact", {}).items():
        text[0] += f" Cosine of {name} and the gradient of the exact dev accuracy: {alike:.2f}."
    for step, changes in taken.items():
        for goal in reality.goals(changes):
            text += ["", f"Step {step}, {GAINS[goal]}:", ""]
            text += table(groups_of(records), step, goal)
    return "\n".join(text + [""] + by_key(records))


def table(groups, step, goal):
    """{title: records} -> lines: with intervals for all questions, values alone for some."""
    groups = {name: some for name, some in groups.items() if len(some) >= 3}
    columns = {name: correlations(some, step, goal) for name, some in groups.items()}
    pooled = columns.pop("all")
    head = [f"{name} ({len(groups[name])})" for name in columns]
    lines = [f"| prediction | Spearman, all ({len(groups['all'])}) | the method minus this | "
             + " | ".join(head) + " |", "|---|" + "--:|" * (2 + len(columns))]
    for name, both in pooled.items():
        lead = "-" if name == reality.METHOD else with_interval(both["lead"], "+")
        cells = [value(column[name]["spearman"][0]) for column in columns.values()]
        spearman = with_interval(both["spearman"])
        lines.append(f"| {name} | {spearman} | {lead} | {' | '.join(cells)} |")
    return lines


def with_interval(numbers, sign=""):
    """-> text.

    >>> with_interval([0.5, -0.25, float("nan")], "+")
    '+0.50 [-0.25, -]'
    """
    middle, low, high = [value(x, sign) for x in numbers]
    return f"{middle} [{low}, {high}]"


def value(x, sign=""):
    return "-" if np.isnan(x) else f"{x:{sign}.2f}"


def by_key(records):
    """-> lines: what the method's score is for right and wrong keys, and what they do."""
    taken = records[0]["real"]
    columns = []
    for step, changes in taken.items():
        columns += [(step, goal) for goal in reality.goals(changes)]
    head = " | ".join(f"{step}, {GAINS[goal]}" for step, goal in columns)
    lines = [f"| key (± two standard errors) | questions | the method's score | {head} |",
             "|---|" + "--:|" * (2 + len(columns))]
    for title, right in (("right", True), ("wrong", False), ("the generator's", None)):
        some = [x for x in records if x["right"] is right]
        if some:
            cells = [mean_of([x["predicted"][reality.METHOD] for x in some], ".3f")]
            for step, goal in columns:
                cells.append(mean_of([x["real"][step][goal] for x in some]))
            lines.append(f"| {title} | {len(some)} | {' | '.join(cells)} |")
    return lines


def mean_of(values, form=".1e"):
    """-> mean and twice its standard error, as text.

    >>> mean_of([1.0, 3.0], ".1f")
    '+2.0 ± 2.0'
    """
    error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{np.mean(values):+{form}} ± {2 * error:{form}}"


# ---------------------------------------------------------------- the command

def read_flags(argv):
    parser = Parser("python -m studies.sources", __doc__)
    parser.add_argument("run", nargs="?", metavar="RUN", help="folder of a run")
    parser.add_argument("--from", dest="files", nargs="+", default=[], metavar="NAME=FILE",
                        help="sources")
    parser.add_argument("--each", type=int, default=22, help="questions of each source")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--dev", type=int, help="only the first so many dev questions")
    parser.add_argument("--often", type=int, default=0, help="answers to each dev question, for a "
                        "second g_dev; 0: none")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", required=True, help="the results; it resumes")
    parser.add_argument("--summary", action="store_true", help="no steps, only the tables")
    parser.add_argument("--page", metavar="FILE", help="a page to fill in, at <!-- PLACE -->")
    parser.add_argument("--place", default="results", help="where: from <!-- PLACE --> to "
                        "<!-- end of PLACE -->")
    args = parser.parse_args(argv)

    files = {}
    for word in args.files:
        name, equals, file = word.partition("=")
        if not equals or not name or not file or name in (*files, GENERATED):
            raise InputError(f"--from {word}: expected NAME=FILE, each name once, and none called "
                             f"{GENERATED}")
        files[name] = file
    args.files = files
    if not args.summary and not args.run:
        raise InputError("expected the folder of a run, or --summary")
    if args.each < 1:
        raise InputError(f"--each {args.each}: expected at least 1")
    if args.often < 0 or args.often == 1:
        raise InputError(f"--often {args.often}: expected at least 2 answers to compare, or 0")
    if args.page:
        file_to_write("--page", args.page, files.values())
    return args


def plan(args):
    """What must be equal where a file is gone on with."""
    sources = {name: Path(file).name for name, file in args.files.items()}
    return {"run": reality.run_name(args.run), "each": args.each, "steps": args.steps,
            "dev": args.dev, "often": args.often, "sources": sources}


def main(argv=None):
    args = read_flags(argv)
    found = read_json(args.json)
    if not args.summary:
        found = found or reality.heading("studies.sources", argv) | {
            "plan": plan(args), "questions": {}}
        if found.get("plan") != plan(args):
            raise InputError(f"{args.json}: holds another study ({found.get('plan')}); give "
                             "another --json")
        run(args, found)
    if not found or not found.get("questions"):
        raise InputError(f"{args.json}: holds no question yet")
    text = tables(found)
    print(text)
    if args.page and not fill_page(args.page, args.place, text):
        raise InputError(f"{args.page}: has no place for the results, expected "
                         f"<!-- {args.place} --> and <!-- end of {args.place} -->")


if __name__ == "__main__":
    run_script(main, "stopped. The same command goes on from here.")
