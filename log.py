"""What a run says: one dense line per iteration, example questions now and then, metrics.jsonl and questions.jsonl.

metrics.jsonl has one line per iteration t = 1..T. dev_accuracy and everything about questions describe the models before the updates of iteration t,
test_accuracy the solver after them. The README's glossary explains every key. A number that does not exist (no valid question, nothing evaluated) is null.

Departs from the usual: no averages over time. Each number is a mean over its own iteration.
"""
import json
import os
import resource
import shutil
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import torch
from tqdm import tqdm

import checkpoint
import ranks
import toy
import trackers
from data import InputError
from influence import has_gradient
from overlap import folded
from solver import last_boxed

STAGES = ("dev", "write", "answer", "influence", "update_generator", "update_solver", "evaluate", "checkpoint")


class Clock:
    """Seconds per stage of one iteration: with clock("dev"): ..."""

    def __init__(self):
        self.seconds, self.started = dict.fromkeys(STAGES, 0.0), time.time()

    @contextmanager
    def __call__(self, stage):
        before = time.time()
        yield
        self.seconds[stage] += time.time() - before

    def total(self):
        return time.time() - self.started


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


def peak_memory_mb():
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2 ** 20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2 ** 20 if sys.platform == "darwin" else 2 ** 10)


def short(x, form="{:.2f}"):
    return "-" if x is None else form.format(x)


class Log:
    """The run folder's text files and the terminal. Only the main rank writes and speaks."""

    def __init__(self, cfg):
        trackers.require(cfg.track)
        self.cfg, self.main = cfg, ranks.is_main()
        self.anchor_accuracy, self.last, self.verifier_counts = None, None, (0, 0)
        self.overlap = None                      # overlap.Overlap with the dev and test questions, once they are loaded
        self.checkpoint_seconds = 0.0            # of the save before this line: the line must be in the log when its checkpoint is made
        self.paths = [os.path.join(cfg.run, name) for name in ("metrics.jsonl", "questions.jsonl")]
        self.say(str(cfg))

    def open(self, state, dtype):
        """Create the run folder, once everything that was asked for has been found; after a resume, cut the logs back to the checkpoint.

        dtype: what is computed in. It goes into config.json in place of `auto`, so that a resumed run stays with it on another device.
        """
        if not ranks.from_main(not self.main or self.claim(dtype)):
            raise InputError(f"{self.cfg.run}: another run has just begun there; give this one a folder of its own by --run")
        if self.main:
            for path in self.paths:
                checkpoint.cut(path, state["sizes"][os.path.basename(path)] if state else 0)
        self.track, self.stop_tracking = trackers.start(self.cfg, self.paths[0])
        self.started, self.first = time.time(), state["iteration"] if state else 0      # what the time left is counted from
        if state:
            self.anchor_accuracy = state["anchor"]
            self.say(f"resumed after iteration {state['iteration']}")

    def claim(self, dtype):
        """Write config.json -> True; False if a run that started at the same time has the folder already."""
        os.makedirs(self.cfg.run, exist_ok=True)
        path = os.path.join(self.cfg.run, "config.json")
        if not self.cfg.resume:
            try:
                open(path, "x").close()
            except FileExistsError:
                return False
        replace(self.cfg, dtype=dtype).save(path)
        return True

    def say(self, text):
        if self.main:
            tqdm.write(text)
            sys.stdout.flush()

    def append(self, path, rows):
        if self.main:
            with open(path, "a", encoding="utf-8") as f:
                f.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                f.flush()
                os.fsync(f.fileno())

    def state(self):
        """What a checkpoint must remember of the logs."""
        return {"sizes": {os.path.basename(path): os.path.getsize(path) if os.path.exists(path) else 0 for path in self.paths},
                "anchor": self.anchor_accuracy}

    # ---------------------------------------------------------------- speaking

    def anchor(self, test):
        if test:
            self.anchor_accuracy = [test["accuracy"], test["standard_error"]]
            self.say(f"anchor: {percent(self.anchor_accuracy)} of the test questions right before training")

    def iteration(self, t, clock, drafts, slots, dev_answers, r_dev, A_dev, answers, r, A_sol, score, s_hat, own_share, g_dev_norm, A_gen,
                  generator_step, solver_step, test, verifier, skipped, kept=None, r_problems=None, replaced=None):
        """Write the iteration's lines and print its summary. Shapes as in train.py; answers, r, A_sol and kept are those of questions alone."""
        valid = [drafts[d][j] for d, j in slots]
        everything = [draft for row in drafts for draft in row]
        rollouts = {"dev": flatten(dev_answers), "draft": [draft.rollout for draft in everything], "answer": flatten(answers)}
        mixed = has_gradient(A_sol) if len(r) else torch.zeros(0, dtype=torch.bool)             # (Q,)
        invalid_paid = [float(A_gen[d, j]) > 0 for d, row in enumerate(drafts) for j, draft in enumerate(row) if draft.question is None]
        steps = [step for step in (generator_step, solver_step) if step]
        rows = question_rows(t, drafts, slots, answers, r, score, s_hat, own_share, A_gen, self.overlap)
        line = {
            "iteration": t,
            "dev_accuracy": known_mean(r_dev),
            "test_accuracy": test["accuracy"] if test else None,
            "test_standard_error": test["standard_error"] if test else None,
            "test_accuracy_anchor": self.anchor_accuracy[0] if self.anchor_accuracy else None,
            "valid_share": len(valid) / len(everything) if everything else None,
            "solved_share": known_mean(r),
            "mixed_share": float(mixed.float().mean()) if len(r) else None,
            "dev_mixed_share": mean_of(has_gradient(A_dev)) if len(r_dev) else None,
            "s_hat_mean": mean_of(s_hat),
            "s_hat_std": std_of(s_hat),
            "s_hat_positive_share": mean_of(s_hat > 0 if s_hat is not None else None),
            "score_mean": mean_of(score),
            "score_std": std_of(score),
            "own_share_mean": mean_of(own_share[mixed] if own_share is not None else None),
            "g_dev_norm": g_dev_norm,
            "invalid_paid_share": mean(invalid_paid) if score is not None else None,
            "overlap_dev_share": mean("dev" in row["overlap"] for row in rows if row["status"] == "valid"),
            "overlap_test_share": mean("test" in row["overlap"] for row in rows if row["status"] == "valid"),
            "duplicate_share": duplicate_share([draft.question.question_text for draft in valid]),
            "kept_share": mean_of(kept),
            "rlvr_solved_share": known_mean(r_problems) if r_problems is not None else None,
            "dev_replaced": replaced,
            "answer_unboxed_share": mean(last_boxed(x.text) is None for x in rollouts["answer"]),
            "invalid_reasons": dict(Counter(draft.reason for draft in everything if draft.question is None)),
            "generator_grad_norm": generator_step["grad_norm"] if generator_step else None,
            "solver_grad_norm": solver_step["grad_norm"] if solver_step else None,
            **{f"{name}_tokens_mean": mean(len(x.response) for x in xs) for name, xs in rollouts.items()},
            **{f"{name}_cut_share": mean(not x.finished for x in xs) for name, xs in rollouts.items()},
            **{f"{name}_entropy": mean(-lp for x in xs for lp in x.logp) for name, xs in rollouts.items()},
            "verifier_timeouts": verifier.timeouts - self.verifier_counts[0], "verifier_crashes": verifier.crashes - self.verifier_counts[1],
            "skipped_steps": skipped,
            "tokens_sampled": sum(len(x.response) for xs in rollouts.values() for x in xs) + (test["tokens"] if test else 0),
            "tokens_trained": sum(step["tokens"] for step in steps),
        }
        world = toy.world_of(self.cfg.documents)
        if world:
            line |= toy.truth(everything, world)                            # for the reader; nothing trains on it
        line |= {"seconds": {name: round(x, 3) for name, x in (clock.seconds | {"checkpoint": self.checkpoint_seconds}).items()},
                 "peak_memory_mb": round(peak_memory_mb(), 1)}
        self.verifier_counts = (verifier.timeouts, verifier.crashes)
        self.append(self.paths[1], rows)
        self.append(self.paths[0], [line])
        self.track(line)
        self.last = line
        self.say(self.summary(line, clock))
        for warning in warnings(line, self.cfg):
            self.say(f"    note: {warning}")
        if self.cfg.show_every and t % self.cfg.show_every == 0 and score is not None:
            self.examples(rows, drafts)

    def summary(self, x, clock):
        """One line that a tired person can read."""
        left = (time.time() - self.started) / (x["iteration"] - self.first) * (self.cfg.iterations - x["iteration"])
        toy_part = f"  keys {short(x['key_accuracy'])}  target {short(x['target_share'])}" if "key_accuracy" in x else ""
        test_part = f"  test {x['test_accuracy']:.3f}" if x["test_accuracy"] is not None else ""
        paid = "s_hat" if self.cfg.reward == "influence" else "score"
        return (f"{x['iteration']:4d}/{self.cfg.iterations}  dev {short(x['dev_accuracy'], '{:.3f}')}{test_part}  "
                f"valid {short(x['valid_share'])}  solved {short(x['solved_share'])}  mixed {short(x['mixed_share'])}  "
                f"{paid} {short(x['score_mean'], '{:+.3f}')} (std {short(x['score_std'], '{:.3f}')}){toy_part}  "
                f"grad {short(x['generator_grad_norm'])} {short(x['solver_grad_norm'])}  {clock.total():.1f} s  (left {duration(left)})")

    def examples(self, rows, drafts):
        """The question that earned most and the one that earned least, among those that earned anything."""
        name = "s_hat" if self.cfg.reward == "influence" else "score"
        scored = sorted((row for row in rows if row["status"] == "valid" and row["score"]), key=lambda row: row["score"])
        for word, x in [("most", scored[-1]), ("least", scored[0])] if len(scored) > 1 else []:
            document = drafts[x["slot"][0]][x["slot"][1]].document.content
            self.say(f"    liked {word}, {name} {x['score']:+.3f}, solved {x['solved']:.2f}: {clip(x['question'])}  "
                     f"options {' | '.join(clip(c, 40) for c in x['choices'])}  key {clip(x['answer'], 40)}\n"
                     f"        from {x['doc_id']}: {clip(document, 200)}")

    def keep(self, t, policies):
        """With --save_every K: both roles of iterations 0, K, 2 K, ... as RUN/at-ITERATION, which is there whole or not at all. On all ranks together."""
        if not self.cfg.save_every or t % self.cfg.save_every:
            return
        folder = os.path.join(self.cfg.run, f"at-{t}")
        if self.main:
            for unfinished in (f"{folder}.part", folder):                   # what a killed run left, and what a resumed one writes again
                shutil.rmtree(unfinished, ignore_errors=True)
        for role, policy in policies.items():
            policy.save(os.path.join(f"{folder}.part", role))
        if self.main:
            os.rename(f"{folder}.part", folder)
        ranks.barrier()

    def finish(self, policies):
        """Save both roles as plain Hugging Face folders and say where things are."""
        for role, policy in policies.items():
            policy.save(os.path.join(self.cfg.run, role))
        self.stop_tracking()
        if self.main:
            x, run = self.last or {}, self.cfg.run
            if self.anchor_accuracy and x.get("test_accuracy") is not None:
                after = percent([x["test_accuracy"], x["test_standard_error"]])
                self.say(f"\ntest accuracy: {percent(self.anchor_accuracy)} before, {after} after {x['iteration']} iterations")
            self.say(f"\n{run}/solver and {run}/generator load with from_pretrained; "
                     f"{run}/metrics.jsonl has a line per iteration, {run}/questions.jsonl every draft.\n"
                     f"Next: python report.py {run}; python evaluate.py {run}/solver --questions FILE; the same run with --reward fixed for comparison;\n"
                     f"or more of this one: python train.py --resume {run} --iterations {self.cfg.iterations * 2}")
        ranks.barrier()


def question_rows(t, drafts, slots, answers, r, score, s_hat, own_share, A_gen, overlap):
    """Every draft of the iteration as a line of questions.jsonl."""
    number = {slot: q for q, slot in enumerate(slots)}
    at = lambda values, q: float(values[q]) if q is not None and values is not None else None
    rows = []
    for d, row in enumerate(drafts):
        for j, draft in enumerate(row):
            q, question = number.get((d, j)), draft.question
            rows.append({"iteration": t, "slot": [d, j], "doc_id": draft.document.doc_id,
                         "question": question.question_text if question else None, "choices": question.choices if question else None,
                         "answer": question.ground_truth if question else None, "status": "valid" if question else draft.reason,
                         "text": None if question else draft.rollout.text[:1000], "tokens": len(draft.rollout.response),
                         "solved": known_mean(r[q]) if q is not None else None, "score": at(score, q), "s_hat": at(s_hat, q),
                         "own_share": at(own_share, q), "A_gen": float(A_gen[d, j]),
                         "overlap": overlap.of(question.question_text) if question else None,
                         "answers": sample_answers(answers[q], r[q]) if q is not None else None})
    return rows


def sample_answers(group, r):
    """The first answer that matched the key and the first that did not, as far as there are any; only the end of a long one."""
    firsts = [next((i for i in range(len(group)) if r[i] == value), None) for value in (1, 0)]
    return [{"text": group[i].text[-600:], "right": bool(r[i])} for i in firsts if i is not None]


def duplicate_share(texts):
    """Share of questions that say the same as an earlier one of the list, but for case, space and punctuation; None of an empty list.

    >>> duplicate_share(["What is 2 plus 3?", "what is 2 plus 3", "What is 23?", "Who?"])
    0.25
    """
    return 1 - len(set(map(folded, texts))) / len(texts) if texts else None


def warnings(x, cfg):
    """One sentence for each thing that is off, with what to try."""
    if cfg.train_on != "generated":
        return
    if x["valid_share"] == 0:
        yield ("no draft was a valid question, so nothing was trained; look at `text` in questions.jsonl. A small model needs warmup.py first; "
               "drafts cut at max_response_tokens need more of them.")
    elif x["valid_share"] < 0.1:
        yield f"almost no draft was valid ({x['valid_share']:.0%}; reasons {x['invalid_reasons']}); a small model needs warmup.py first."
    if cfg.reward == "influence" and x["g_dev_norm"] is None:
        yield ("no g_dev: every dev question was answered all right or all wrong, so all scores are 0 and the generator did not move; "
               "more answers_per_question or a dev set the solver sometimes solves would help.")
    for name in ("dev", "test"):
        if x[f"overlap_{name}_share"] and x[f"overlap_{name}_share"] > 0.25:
            yield f"{x[f'overlap_{name}_share']:.0%} of the questions share eight words in a row with a {name} question; see `overlap` in questions.jsonl."
    if x["mixed_share"] == 0:
        yield "every generated question was all right or all wrong, so the solver did not move; more answers_per_question may help."
    if x["answer_cut_share"] and x["answer_cut_share"] > 0.2:
        yield f"{x['answer_cut_share']:.0%} of the answers were cut at {cfg.max_response_tokens} tokens; raise max_response_tokens."
    if x["verifier_timeouts"]:
        yield f"{x['verifier_timeouts']} answer checks timed out; their questions are left out of the update, of g_dev or of the accuracy."


def flatten(groups):
    return [rollout for group in groups for rollout in group]


def clip(text, width=160):
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 3] + "..."


def duration(seconds):
    return f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"


def percent(accuracy):
    if accuracy[0] is None:
        return "an unknown share"
    return f"{100 * accuracy[0]:.1f} %" + (f" (+- {100 * accuracy[1]:.1f})" if accuracy[1] is not None else "")
