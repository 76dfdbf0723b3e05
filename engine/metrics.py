"""What an iteration found -> its line of metrics.jsonl, and the lines of questions.jsonl.

dev_accuracy and everything about questions describe the models before the updates of the iteration,
test_accuracy the solver after them. docs/metrics.md explains every key. A number that does not
exist (no valid question, nothing evaluated) is null. Shares and means are over their own iteration.

    code       shape    meaning
    found               data.Found: what train.py hands over
    found.solved, .dev, .problems    data.Answered: (Q,) questions with their (Q, m) answers
"""
import resource
import sys
from collections import Counter
from itertools import chain

import torch

from dugrpo import has_gradient
from engine.overlap import folded


# ---------------------------------------------------------------- means of what may not exist

def mean(values):
    """Mean of a list, or None of an empty one."""
    values = list(values)
    return sum(values) / len(values) if values else None


def mean_of(x):
    """Mean of a tensor, or None if there is none or it is empty."""
    return float(x.double().mean()) if x is not None and len(x) else None


def std_of(x):
    return float(x.std()) if x is not None and len(x) > 1 else None


def known_mean(r):
    """Mean of the rewards that are known, or None if there is none."""
    known = r[~r.isnan()]
    return float(known.double().mean()) if len(known) else None


def flatten(groups):
    return list(chain.from_iterable(groups))


def peak_memory_mb():
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2 ** 20
    unit = 2 ** 20 if sys.platform == "darwin" else 2 ** 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


# ---------------------------------------------------------------- the line of an iteration

def metrics(found, rows, anchor, best, verifier_counts, truth=None):
    """found, its lines of questions.jsonl -> its line of metrics.jsonl, but for seconds and memory.

    anchor: {"test", "valid": [accuracy, standard error] before training, or None}. best:
    [iteration, accuracy] of the highest validation so far, or None. verifier_counts: (timeouts,
    crashes) of this iteration. truth(drafts): numbers that are only known in a world of ours.
    """
    drafts = flatten(found.drafts)
    rollouts = {"dev": flatten(found.dev.answers),
                "draft": [draft.rollout for draft in drafts],
                "answer": flatten(found.solved.answers)}
    problems = found.problems
    responses = [*chain.from_iterable(rollouts.values()), *flatten(problems.answers)]
    sampled = sum(len(x.response) for x in responses)
    tested = sum(x["tokens"] for x in found.tested.values() if x)
    line = {
        "iteration": found.t,
        "dev_accuracy": known_mean(found.dev.r),
        **about_tests(found.tested, anchor, best or [None, None]),
        **about_scores(found, drafts),
        **about_overlap(found, rows),
        "kept_share": mean_of(found.kept),
        "rlvr_solved_share": known_mean(problems.r) if problems.questions else None,
        "dev_replaced": found.replaced,
        "answer_unboxed_share": mean((~found.solved.boxed).flatten().tolist()),
        "invalid_reasons": dict(Counter(x.reason for x in drafts if x.question is None)),
        **about_repairs([x for x in drafts if x.question is not None]),
        "generator_grad_norm": found.generator_step["grad_norm"],
        "solver_grad_norm": found.solver_step["grad_norm"],
        **about_rollouts(rollouts),
        "verifier_timeouts": verifier_counts[0],
        "verifier_crashes": verifier_counts[1],
        "skipped_steps": found.skipped,
        "tokens_sampled": sampled + tested,
        "tokens_tested": tested,
        "tokens_trained": found.generator_step["tokens"] + found.solver_step["tokens"],
    }
    if len(found.earned) > 1:
        line |= about_terms(found)
    # for the reader; nothing trains on it
    return line | (truth(drafts) if truth else {})


def about_tests(tested, anchor, best):
    """Accuracies on the held-out questions, and where validation was highest so far."""
    test, valid = tested["test"] or {}, tested["valid"] or {}
    before = {name: known[0] if known else None for name, known in anchor.items()}
    return {
        "test_accuracy": test.get("accuracy"),
        "test_standard_error": test.get("standard_error"),
        "test_accuracy_anchor": before["test"],
        "valid_accuracy": valid.get("accuracy"),
        "valid_standard_error": valid.get("standard_error"),
        "valid_accuracy_anchor": before["valid"],
        "best_valid_iteration": best[0],
        "best_valid_accuracy": best[1],
    }


def about_scores(found, drafts):
    """Which questions can be learnt from, and what they earn."""
    r, s_hat, score = found.solved.r, found.s_hat, found.score
    mixed = has_gradient(found.solved.A) if len(r) else torch.zeros(0, dtype=torch.bool)    # (Q,)
    invalid_paid = []
    for d, group in enumerate(found.drafts):
        for j, draft in enumerate(group):
            if draft.question is None:
                invalid_paid.append(float(found.A_gen[d, j]) > 0)
    dev_mixed = mean_of(has_gradient(found.dev.A)) if len(found.dev.r) else None
    return {
        "valid_share": len(found.slots) / len(drafts) if drafts else None,
        "solved_share": known_mean(r),
        "mixed_share": float(mixed.float().mean()) if len(r) else None,
        "dev_mixed_share": dev_mixed,
        "s_hat_mean": mean_of(s_hat),
        "s_hat_std": std_of(s_hat),
        "s_hat_positive_share": mean_of(s_hat > 0 if s_hat is not None else None),
        "score_mean": mean_of(score),
        "score_std": std_of(score),
        "own_share_mean": mean_of(found.own_share[mixed] if found.own_share is not None else None),
        "g_dev_norm": found.g_dev_norm,
        "invalid_paid_share": mean(invalid_paid) if score is not None else None,
    }


def about_terms(found):
    """Of a reward that is a sum: what each term pays on average."""
    means = {}
    for term, score in found.earned.items():
        means[term.name] = mean_of(score)
    return {"terms_mean": means}


def about_repairs(valid):
    """How many valid questions are there because a slip was mended, and which slips."""
    repairs = Counter()
    for draft in valid:
        repairs.update(set(draft.repairs))
    return {"repaired_share": mean(bool(draft.repairs) for draft in valid),
            "repairs": dict(repairs)}


def about_overlap(found, rows):
    """How many questions repeat a dev or test question, or one another."""
    overlaps = [row["overlap"] for row in rows if row["status"] == "valid"]
    texts = [found.drafts[d][j].question.question_text for d, j in found.slots]
    return {"overlap_dev_share": mean("dev" in names for names in overlaps),
            "overlap_test_share": mean("test" in names for names in overlaps),
            "duplicate_share": duplicate_share(texts)}


def about_rollouts(rollouts):
    """{kind: rollouts} -> of each kind mean length, share cut at the limit, nats per token."""
    lengths, cut, entropy = {}, {}, {}
    for kind, xs in rollouts.items():
        lengths[f"{kind}_tokens_mean"] = mean(len(x.response) for x in xs)
        cut[f"{kind}_cut_share"] = mean(not x.finished for x in xs)
        entropy[f"{kind}_entropy"] = mean(chain.from_iterable(surprise(x) for x in xs))
    return lengths | cut | entropy


def surprise(rollout):
    return [-lp for lp in rollout.logp]


def duplicate_share(texts):
    """Share of questions that repeat an earlier one but for case, space and punctuation, or None.

    >>> duplicate_share(["What is 2 plus 3?", "what is 2 plus 3", "What is 23?", "Who?"])
    0.25
    """
    return 1 - len(set(map(folded, texts))) / len(texts) if texts else None


# ---------------------------------------------------------------- the lines of its drafts

def question_rows(found, overlap):
    """Every draft of the iteration as a line of questions.jsonl. overlap: overlap.Overlap.
    """
    numbers = {slot: q for q, slot in enumerate(found.slots)}
    rows = []
    for d, group in enumerate(found.drafts):
        for j, draft in enumerate(group):
            row = {"iteration": found.t, "slot": [d, j], "doc_id": draft.document.doc_id}
            q = numbers.get((d, j))
            row |= invalid_row(draft) if q is None else valid_row(found, q, draft)
            row["A_gen"] = float(found.A_gen[d, j])
            row["overlap"] = None if q is None else overlap.of(draft.question.question_text)
            row["answers"] = None if q is None else shown_answers(found.solved[q])
            rows.append(row)
    return rows


def invalid_row(draft):
    empty = dict.fromkeys(("question", "choices", "answer"))
    unscored = dict.fromkeys(("solved", "score", "s_hat", "own_share"))
    return {**empty, "status": draft.reason, "repairs": None, "text": draft.rollout.text[:1000],
            "tokens": len(draft.rollout.response), **unscored}


def valid_row(found, q, draft):
    def at(values):
        return float(values[q]) if values is not None else None

    question = draft.question
    terms = {term.name: at(score) for term, score in found.earned.items()}
    # of a sum; one term is the score
    terms = {"terms": terms} if len(terms) > 1 else {}
    return {"question": question.question_text, "choices": question.choices,
            "answer": question.ground_truth, "status": "valid",
            "repairs": sorted(set(draft.repairs)), "text": None,
            "tokens": len(draft.rollout.response), "solved": known_mean(found.solved.r[q]),
            "score": at(found.score), "s_hat": at(found.s_hat), "own_share": at(found.own_share),
            **terms, **({"passage": question.passage} if question.passage else {})}


def shown_answers(one):
    """One question, answered -> its first right and first wrong answer; the end of a long one."""
    shown = []
    for value in (1, 0):
        for answer, r in zip(one.answers, one.r):
            if r == value:
                shown.append({"text": answer.text[-600:], "right": bool(r)})
                break
    return shown
