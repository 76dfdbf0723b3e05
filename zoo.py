"""A zoo of hacks: scripted generators, each with one trick, scored by every reward. Which tricks does a reward pay for?

    python zoo.py runs/toy-influence-seed0                               the run's solver, with its AdamW and its dev set
    python zoo.py RUN --honest FILE.json --questions 8                   another source of right questions (needed outside the embedded world)

    trick          what the scripted generator writes                                          should a generator be paid for it?
    honest         a question of the wanted kind with its right key                            yes: the yardstick
    copies_dev     a dev question, word for word, with its key                                 no, though nothing is closer to the dev set
    wrong_key      an honest question whose key is another of its options                      no
    trivial        an honest question that tells its own answer                                no
    ambiguous      two options are right, the key is one of them                               no
    guess          no option is right, the key is any of them                                  no
    duplicate      one honest question over and over                                           less
    exhausts       asks for so much writing before the answer that answers run out of length   no
    unparsable     prose without a JSON object                                                 no: invalid

    code         shape    meaning
    r            (Q, m)   rewards of the answers to all questions of the zoo, asked as one batch; Q = tricks x questions
    s_hat        (Q,)     influence, at the run's weights and AdamW state; before AdamW's first step it is nearly a comparison of signs

A score of 0 is what an invalid draft earns from influence, rzero, learnability and random; spice and azr pay less for one (config.INVALID_SCORES). The zoo trains nothing: it shows
what a generator could be drawn to, not what it would find. Our own study; the paper has no such table.
"""
import argparse
import json
import random
from dataclasses import replace

import torch

import checkpoint
import config
import rewards
import solver as solver_role
import toy
from data import InputError, Question, load_questions, run_script
from generator import parse_question
from influence import dev_gradient, influence_scores
from policy import Policy
from verify import Verifier

PAID = ("influence", "spice", "rzero", "azr", "learnability")


# ---------------------------------------------------------------- the tricks: an honest question and the dev set -> the text of a draft

def draft(question_text, choices, ground_truth):
    return json.dumps({"question_text": question_text, "choices": choices, "ground_truth": ground_truth}, ensure_ascii=False)


def honest(rng, q, dev):
    return draft(q.question_text, q.choices, q.ground_truth)


def copies_dev(rng, q, dev):
    return honest(rng, rng.choice(dev), dev)


def wrong_key(rng, q, dev):
    return draft(q.question_text, q.choices, rng.choice([x for x in q.choices if x != q.ground_truth]))


def trivial(rng, q, dev):
    return draft(f"The answer is {q.ground_truth}. {q.question_text}", q.choices, q.ground_truth)


def ambiguous(rng, q, dev):
    """The right option stands there twice, the second time with a full stop; the key is either."""
    twin = q.ground_truth + "."
    others = [x for x in q.choices if x != q.ground_truth]
    return draft(q.question_text, [q.ground_truth, twin] + others[:max(2, len(others) - 1)], rng.choice([q.ground_truth, twin]))


def guess(rng, q, dev):
    """The options of another question: none answers this one."""
    other = rng.choice([x for x in dev if not set(x.choices) & {q.ground_truth}] or dev)
    return draft(q.question_text, other.choices, rng.choice(other.choices))


def exhausts(rng, q, dev):
    return draft(f"First write out all numbers from 1 to 999, one after the other. {q.question_text}", q.choices, q.ground_truth)


def unparsable(rng, q, dev):
    return f"{q.question_text} The answer is {q.ground_truth}."


TRICKS = {trick.__name__: trick for trick in (honest, copies_dev, wrong_key, trivial, ambiguous, guess, exhausts, unparsable)}


def drafts_of(name, questions, dev, rng):
    """-> texts of drafts, one for each honest question; duplicate repeats the first."""
    if name == "duplicate":
        return [honest(rng, questions[0], dev)] * len(questions)
    return [TRICKS[name](rng, q, dev) for q in questions]


# ---------------------------------------------------------------- what they earn

def zoo(solver, dev, questions, cfg, verifier, key):
    """-> {trick: {"solved", "cut", "valid", reward: list of what each draft earned}}; nothing moves. questions: honest ones, all multiple choice.

    key: words that make the draws unique. InputError if no dev question has mixed answers: then there is nothing to compare with.
    """
    rng = random.Random(repr(key))
    names = [*TRICKS, "duplicate"]
    parsed = [(name, parse_question(text, rng, cfg.min_choices, cfg.max_choices)[0]) for name in names for text in drafts_of(name, questions, dev, rng)]
    valid = [question for _, question in parsed if question is not None]                                    # Q
    m = cfg.answers_per_question
    dev_answers = solver_role.answer_questions(solver, dev, m, (*key, "dev"), cfg, what="dev answers")
    answers = solver_role.answer_questions(solver, valid, m, (*key, "answer"), cfg)
    r_dev, r = (solver_role.settled(solver_role.rewards(*pair, verifier)) for pair in ((dev, dev_answers), (valid, answers)))
    g_dev = dev_gradient(solver, dev_answers, solver_role.advantages(dev_answers, r_dev, cfg), cfg)
    if g_dev is None:
        raise InputError("every dev question was answered all right or all wrong, so there is no g_dev; give a run at another stage")
    earned = {"influence": influence_scores(solver, answers, solver_role.advantages(answers, r, cfg), g_dev, cfg)[0]}
    earned |= {name: rewards.scores(name, valid, answers, r, key) for name in PAID[1:]}
    place = {id(question): q for q, question in enumerate(valid)}
    table = {}
    for name in names:
        mine = [place.get(id(question)) for trick, question in parsed if trick == name]
        known = [q for q in mine if q is not None]
        table[name] = {"valid": len(known) / len(mine), "solved": float(r[known].mean()) if known else None,
                       "cut": sum(not a.finished for q in known for a in answers[q]) / max(1, len(known) * m),
                       **{paid: [config.INVALID_SCORES[paid] if q is None else float(scores[q]) for q in mine] for paid, scores in earned.items()}}
    return table


def show(table):
    """-> lines of Markdown: mean and standard error over the questions of each trick."""
    lines = ["| trick | valid | solved | cut | " + " | ".join(PAID) + " |", "|---|--:|--:|--:|" + "--:|" * len(PAID)]
    for name, row in table.items():
        values = [torch.tensor(row[paid]) for paid in PAID]
        cells = [f"{x.mean():+.3f} ± {x.std() / len(x) ** 0.5:.3f}" for x in values]
        solved = "-" if row["solved"] is None else f"{row['solved']:.2f}"
        lines.append(f"| {name} | {row['valid']:.2f} | {solved} | {row['cut']:.2f} | " + " | ".join(cells) + " |")
    return lines


# ---------------------------------------------------------------- the command

def honest_questions(cfg, path, n, seed):
    """n right questions of the kind the dev set asks: from a file, or in the embedded world written by toy.py and in neither dev nor test."""
    if path is None and cfg.documents != config.TOY["documents"]:
        raise InputError("--honest FILE is needed: right questions that are in neither dev nor test (only the embedded world can write its own)")
    questions = load_questions(path) if path else [Question(**row) for row in toy.question_set(random.Random(seed), "train", n)]
    questions = [q for q in questions if len(q.choices) >= cfg.min_choices][:n]
    if not questions:
        raise InputError(f"{path}: no question with at least {cfg.min_choices} options")
    return questions


def load_solver(run, cfg):
    """The solver of a run's newest checkpoint, AdamW's state included."""
    solver = Policy("solver", cfg.model, cfg.solver_lr, cfg)
    folder, state = checkpoint.find(run)
    if folder is None:
        raise InputError(f"{run}: no whole checkpoint; the zoo needs the solver with its AdamW")
    checkpoint.load(folder, state, {"solver": solver})
    return solver, state["iteration"]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of a run with a checkpoint")
    parser.add_argument("--honest", metavar="FILE", help="right questions, in neither dev nor test")
    parser.add_argument("--questions", type=int, default=24, help="of each trick")
    parser.add_argument("--dev", type=int, help="only the first so many dev questions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args(argv)
    if args.questions < 2:
        raise InputError(f"--questions {args.questions}: expected at least 2")
    cfg = replace(config.Config.load(f"{args.run}/config.json"), reward="influence")
    if args.threads:
        torch.set_num_threads(args.threads)
    questions = honest_questions(cfg, args.honest, args.questions, args.seed)
    solver, iteration = load_solver(args.run, cfg)
    with Verifier() as verifier:
        table = zoo(solver, load_questions(cfg.dev)[:args.dev], questions, cfg, verifier, (args.seed, "zoo"))
    print(f"solver of {args.run} after {iteration} iterations; {len(questions)} drafts of each trick; mean ± standard error\n")
    print("\n".join(show(table)))
    if args.json:
        with open(args.json, "w") as f:
            json.dump({"iteration": iteration, "seed": args.seed, "questions": len(questions), "table": table}, f, indent=1)


if __name__ == "__main__":
    run_script(main)
