"""A zoo of hacks: scripted generators, each with one trick, scored by every reward. Which tricks
does a reward pay for?

    python -m studies.zoo runs/NAME         # the run's solver, with its AdamW and its dev set
    python -m studies.zoo RUN --honest FILE.json --questions 8    # outside the embedded world

    trick          what the scripted generator writes                       should it be paid?
    honest         a question of the wanted kind with its right key         yes: the yardstick
    copies_dev     a dev question, word for word, with its key              no, although close
    wrong_key      an honest question whose key is another of its choices   no
    trivial        an honest question that tells its own answer             no
    ambiguous      two choices are right, the key is one of them            no
    guess          no choice is right, the key is any of them               no
    duplicate      one honest question over and over                        less
    exhausts       asks for so much writing first that answers run out      no
    unparsable     prose without a JSON object                              no: invalid

    code         shape    meaning
    r            (Q, m)   rewards of the answers to all questions of the zoo, asked together
    s_hat        (Q,)     influence, at the run's weights and AdamW state; before AdamW's first
                          step it is nearly a comparison of signs

The zoo trains nothing: it shows what a generator could be drawn to, not what it would find. An
invalid draft earns 0 from influence, rzero and learnability, less from spice and azr. Our own
study; the paper has no such table.
"""
import json
import random
from dataclasses import replace

import torch

from engine import flags, presets
import rewards
import solver as solver_role
from studies import reality
from toy import world
from data import InputError, Question
from engine.readers import load_questions
from generator import parse_question
from influence import dev_gradient, influence_scores
from policy import Policy
from engine.speech import run_script
from engine.verify import Verifier

PAID = ("influence", "spice", "rzero", "azr", "learnability")


# ---------------------------------------------------------------- the tricks

# Each: an honest question and the dev set -> the text of a draft.

def draft(question_text, choices, ground_truth):
    fields = {"question_text": question_text, "choices": choices, "ground_truth": ground_truth}
    return json.dumps(fields, ensure_ascii=False)


def honest(rng, q, dev):
    return draft(q.question_text, q.choices, q.ground_truth)


def copies_dev(rng, q, dev):
    return honest(rng, rng.choice(dev), dev)


def wrong_key(rng, q, dev):
    wrong = [x for x in q.choices if x != q.ground_truth]
    return draft(q.question_text, q.choices, rng.choice(wrong))


def trivial(rng, q, dev):
    text = f"The answer is {q.ground_truth}. {q.question_text}"
    return draft(text, q.choices, q.ground_truth)


def ambiguous(rng, q, dev):
    """The right choice stands there twice, the second time with a full stop; the key is either."""
    right = [q.ground_truth, q.ground_truth + "."]
    others = [x for x in q.choices if x != q.ground_truth]
    others = others[:max(2, len(others) - 1)]
    return draft(q.question_text, right + others, rng.choice(right))


def guess(rng, q, dev):
    """The choices of another question: none answers this one."""
    asked = [x for x in dev if x.choices]
    others = [x for x in asked if q.ground_truth not in x.choices]
    other = rng.choice(others or asked)
    return draft(q.question_text, other.choices, rng.choice(other.choices))


def exhausts(rng, q, dev):
    text = f"First write out all numbers from 1 to 999, one after the other. {q.question_text}"
    return draft(text, q.choices, q.ground_truth)


def unparsable(rng, q, dev):
    return f"{q.question_text} The answer is {q.ground_truth}."


SCRIPTS = (honest, copies_dev, wrong_key, trivial, ambiguous, guess, exhausts, unparsable)
TRICKS = {trick.__name__: trick for trick in SCRIPTS}


def drafts_of(name, questions, dev, rng):
    """-> texts of drafts, one for each honest question; duplicate repeats the first."""
    if name == "duplicate":
        return [honest(rng, questions[0], dev)] * len(questions)
    return [TRICKS[name](rng, q, dev) for q in questions]


# ---------------------------------------------------------------- what they earn

def zoo(solver, dev, questions, cfg, verifier, seed_words):
    """-> {trick: {"valid", "solved", "cut", reward: list of what each draft earned}}.

    Nothing moves. questions: honest ones, all multiple choice. seed_words: what makes the draws
    unique. InputError if no dev question is mixed: then there is nothing to compare with.
    """
    drafted = parsed_drafts(questions, dev, cfg, random.Random(repr(seed_words)))
    valid = []
    for some in drafted.values():
        valid += [question for question in some if question is not None]    # Q

    # Dev set and zoo are answered as in an iteration.
    m = cfg.answers_per_question
    dev_answers = solver_role.answer_questions(
        solver, dev, m, (*seed_words, "dev"), cfg, what="dev answers")      # (M, m)
    answers = solver_role.answer_questions(
        solver, valid, m, (*seed_words, "answer"), cfg)                     # (Q, m)
    r_dev = solver_role.settled(solver_role.rewards(dev, dev_answers, verifier))
    r = solver_role.settled(solver_role.rewards(valid, answers, verifier))

    A_dev = solver_role.advantages(r_dev)
    g_dev = dev_gradient(solver, dev_answers, A_dev, cfg)
    if g_dev is None:
        raise InputError("every dev question was answered all right or all wrong, "
                         "so there is no g_dev; give a run at another stage")

    A_sol = solver_role.advantages(r)
    s_hat, _ = influence_scores(solver, answers, A_sol, g_dev, cfg)
    earned = {"influence": s_hat}                                           # (Q,) each
    given = solver_role.given(valid, answers)
    for name in PAID[1:]:
        earned[name] = rewards.scores(name, valid, given, r, seed_words)

    place = {id(question): q for q, question in enumerate(valid)}
    table = {}
    for trick, some in drafted.items():
        places = [place.get(id(question)) for question in some]
        table[trick] = of_trick(places, answers, r, earned)
    return table


def parsed_drafts(questions, dev, cfg, rng):
    """-> {trick: list of questions, None where the draft is invalid}."""
    parsed = {}
    for name in [*TRICKS, "duplicate"]:
        texts = drafts_of(name, questions, dev, rng)
        # parsing shuffles the choices
        parsed[name] = [parse_question(text, rng, cfg.min_choices, cfg.max_choices)[0]
                        for text in texts]
    return parsed


def of_trick(places, answers, r, earned):
    """Places of a trick's drafts among the Q questions, None if invalid -> its line of the table.
    """
    known = [q for q in places if q is not None]
    cut = 0
    for q in known:
        cut += sum(not answer.finished for answer in answers[q])
    line = {"valid": len(known) / len(places),
            "solved": float(r[known].mean()) if known else None,
            "cut": cut / max(1, len(known) * r.shape[1])}
    for name, scores in earned.items():
        invalid = rewards.REWARDS[name][1]
        line[name] = [invalid if q is None else float(scores[q]) for q in places]
    return line


def show(table):
    """-> lines of Markdown: mean and standard error over the questions of each trick."""
    lines = ["| trick | valid | solved | cut | " + " | ".join(PAID) + " |",
             "|---|--:|--:|--:|" + "--:|" * len(PAID)]
    for trick, line in table.items():
        values = [torch.tensor(line[name]) for name in PAID]
        cells = [f"{x.mean():+.3f} ± {x.std() / len(x) ** 0.5:.3f}" for x in values]
        solved = "-" if line["solved"] is None else f"{line['solved']:.2f}"
        lines.append(f"| {trick} | {line['valid']:.2f} | {solved} | {line['cut']:.2f} | "
                     + " | ".join(cells) + " |")
    return lines


# ---------------------------------------------------------------- the command

def honest_questions(cfg, path, n, seed):
    """n right questions of the kind the dev set asks, in neither dev nor test.

    From a file, or in the embedded world written by toy/world.py. InputError if there are none.
    """
    if path is None and cfg.documents != presets.TOY["documents"]:
        raise InputError("--honest FILE is needed: right questions that are in neither dev nor "
                         "test (only the embedded world can write its own)")
    if path:
        questions = load_questions(path)
    else:
        written = world.question_set(random.Random(seed), "train", n)
        questions = [Question(**fields) for fields in written]
    questions = [q for q in questions if len(q.choices) >= cfg.min_choices][:n]
    if not questions:
        raise InputError(f"{path}: no question with at least {cfg.min_choices} choices")
    return questions


def read_arguments(argv):
    parser = reality.parser_of("studies.zoo", __doc__)
    parser.add_argument("run", help="folder of a run with a checkpoint")
    parser.add_argument("--honest", metavar="FILE",
                        help="right questions, in neither dev nor test")
    parser.add_argument("--questions", type=int, default=24, help="of each trick")
    parser.add_argument("--dev", type=int, help="only the first so many dev questions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args(argv)
    if args.questions < 2:
        raise InputError(f"--questions {args.questions}: expected at least 2")
    return args


def main(argv=None):
    args = read_arguments(argv)
    cfg = replace(flags.load(f"{args.run}/config.json"), reward="influence")
    if args.threads:
        torch.set_num_threads(args.threads)
    questions = honest_questions(cfg, args.honest, args.questions, args.seed)
    solver = Policy("solver", cfg.model, cfg.solver_lr, cfg)
    iteration = reality.restore(args.run, {"solver": solver})[0]["iteration"]
    dev = load_questions(cfg.dev)[:args.dev]
    if not any(question.choices for question in dev):
        raise InputError(f"{cfg.dev}: none of its first questions has choices, expected some that "
                         "guess can take them from")
    with Verifier() as verifier:
        table = zoo(solver, dev, questions, cfg, verifier, (args.seed, "zoo"))

    print(f"solver of {args.run} after {iteration} iterations; {len(questions)} drafts of each "
          "trick; mean ± standard error\n")
    print("\n".join(show(table)))
    if args.json:
        report = {"iteration": iteration, "seed": args.seed, "questions": len(questions),
                  "table": table}
        with open(args.json, "w") as f:
            json.dump(report, f, indent=1)


if __name__ == "__main__":
    run_script(main)
