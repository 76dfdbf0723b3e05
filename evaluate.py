"""How often is a model right? Mean accuracy over a question file, with its standard error.

    python evaluate.py runs/toy-influence-seed0/solver --questions toy/test.json --samples 4

    accuracy = mean over questions of (right answers / N);   standard error = std over questions of that share / sqrt(number of questions)

Answers are sampled at temperature 0.7, top_p 0.8, top_k 20, as the authors evaluate; an answer with nothing in a box counts as wrong. The error bar is over
questions, since answers to one question are not independent. Free-form answers whose check timed out are left out of the mean and counted.
"""
import argparse
import sys

import config
import solver as solver_role
from data import InputError, keep_fitting, load_questions
from policy import Policy
from verify import Verifier


def accuracy(policy, questions, samples, key, cfg, verifier, what="evaluate"):
    """-> {"accuracy", "standard_error", "unboxed", "cut", "timeouts", "tokens"}; samples N answers for each question. key as in policy.sample."""
    answers = solver_role.answer_questions(policy, questions, samples, key, cfg, what=what,
                                           temperature=cfg.eval_temperature, top_p=cfg.eval_top_p, top_k=cfg.eval_top_k)
    r = solver_role.shared_rewards(questions, answers, verifier)                                           # (Q, N), nan where a check timed out
    share = r.double().nanmean(dim=1)                                                                        # (Q,)
    share = share[~share.isnan()]
    rollouts = [rollout for group in answers for rollout in group]
    return {"accuracy": float(share.mean()) if len(share) else None, "standard_error": float(share.std() / len(share) ** 0.5) if len(share) > 1 else None,
            "unboxed": solver_role.unboxed_share(questions, answers), "cut": sum(not rollout.finished for rollout in rollouts) / len(rollouts),
            "timeouts": int(r.isnan().sum()), "tokens": sum(len(rollout.response) for rollout in rollouts)}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="model folder or hub id")
    parser.add_argument("--questions", required=True, help="JSON or JSONL of questions")
    parser.add_argument("--samples", type=int, default=1, help="N, answers per question")
    parser.add_argument("--limit", type=int, help="only the first so many questions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max_response_tokens", type=int, default=256)
    args = parser.parse_args(argv)
    if args.samples < 1:
        raise InputError(f"--samples {args.samples}: expected at least 1")
    cfg = config.Config(max_response_tokens=args.max_response_tokens, max_prompt_tokens=4096)
    policy = Policy("solver", args.model, 0.0, cfg)
    questions = load_questions(args.questions)[:args.limit]
    questions, skipped = keep_fitting(questions, lambda q: len(policy.prompt_ids(solver_role.prompt_text(q))), cfg.max_prompt_tokens, "questions")
    with Verifier() as verifier:
        result = accuracy(policy, questions, args.samples, (args.seed, "evaluate"), cfg, verifier)
    error = f" +- {100 * result['standard_error']:.1f}" if result["standard_error"] is not None else ""
    right = "no answer could be checked" if result["accuracy"] is None else f"{100 * result['accuracy']:.1f}{error} % right"
    print(f"{args.questions}: {right}, {len(questions)} questions x {args.samples} ({skipped} too long, {100 * result['unboxed']:.0f} % of answers without a "
          f"box, {100 * result['cut']:.0f} % cut at {args.max_response_tokens} tokens, {result['timeouts']} checks timed out)")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
