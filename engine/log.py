"""What a run says and writes: aligned columns on the terminal, metrics.jsonl, questions.jsonl.

    metrics.jsonl      one line per iteration t = 1..T        engine/metrics.py, docs/metrics.md
    questions.jsonl    one line per draft                     iteration, slot, question, score ...
    at-T/              both roles of iteration T, with --save_every

Only the main rank writes and speaks. On the terminal "+-" is half of a 95 % interval, 1.96 standard
errors over the test questions.
"""
import json
import os
import shutil
import sys
import textwrap
import time
from dataclasses import replace

from tqdm import tqdm

from data import InputError
from engine import checkpoint, flags, ranks, trackers
from engine.metrics import metrics, peak_memory_mb, question_rows

STAGES = ("dev", "write", "answer", "influence", "update_generator", "update_solver", "evaluate",
          "checkpoint")


class Clock:
    """Seconds per stage of one iteration: begin("dev") ends the stage before it."""

    def __init__(self):
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.started = time.time()
        self.stage, self.since = None, self.started

    def begin(self, stage):
        self.end()
        self.stage, self.since = stage, time.time()

    def end(self):
        if self.stage:
            self.seconds[self.stage] += time.time() - self.since
        self.stage = None

    def total(self):
        return time.time() - self.started


class Log:
    """The run folder's text files and the terminal."""

    def __init__(self, cfg, truth=None):
        """truth(drafts, documents) -> numbers only a world of ours knows; for the log alone."""
        trackers.require(cfg.track)
        self.cfg, self.main, self.truth = cfg, ranks.is_main(), truth
        self.anchor_accuracy, self.last, self.verifier_counts = None, None, (0, 0)
        # overlap.Overlap with the dev and test questions, once they are loaded
        self.overlap = None
        # of the save before this line: the line must be in the log when its checkpoint is made
        self.checkpoint_seconds = 0.0
        self.lines_said = 0
        self.paths = [os.path.join(cfg.run, name) for name in ("metrics.jsonl", "questions.jsonl")]
        self.say(flags.describe(cfg))

    def open(self, state, dtype):
        """Create the run folder, once everything that was asked for has been found; after a resume,
        cut the logs back to the checkpoint.

        dtype: what is computed in. It goes into config.json in place of `auto`, so that a resumed
        run stays with it on another device.
        """
        if not ranks.from_main(not self.main or self.claim(dtype)):
            raise InputError(f"{self.cfg.run}: another run has just begun there; give this one a "
                             "folder of its own by --run")
        if self.main:
            for path in self.paths:
                checkpoint.cut(path, state["sizes"][os.path.basename(path)] if state else 0)
        self.track, self.stop_tracking = trackers.start(self.cfg, self.paths[0])
        # what the time left is counted from
        self.started, self.first = time.time(), state["iteration"] if state else 0
        if state:
            self.anchor_accuracy = state["anchor"]
            self.say(f"resumed after iteration {state['iteration']}")

    def claim(self, dtype):
        """Write config.json -> True; False if a run that began at the same time has the folder."""
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
        """A line on the terminal; None says nothing."""
        if self.main and text is not None:
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
        sizes = {}
        for path in self.paths:
            sizes[os.path.basename(path)] = os.path.getsize(path) if os.path.exists(path) else 0
        return {"sizes": sizes, "anchor": self.anchor_accuracy}

    # ------------------------------------------------------------ an iteration

    def anchor(self, test):
        if test:
            self.anchor_accuracy = [test["accuracy"], test["standard_error"]]
            right = percent(self.anchor_accuracy)
            self.say(f"before training: {right} of the test questions right")

    def iteration(self, found, clock, verifier):
        """Write the iteration's lines and print its summary. found: data.Found."""
        rows = question_rows(found, self.overlap)
        counts = verifier.timeouts, verifier.crashes
        new = [now - before for now, before in zip(counts, self.verifier_counts)]
        self.verifier_counts = counts
        anchor = self.anchor_accuracy[0] if self.anchor_accuracy else None
        line = metrics(found, rows, anchor, new, self.judge if self.truth else None)
        seconds = clock.seconds | {"checkpoint": self.checkpoint_seconds}
        line |= {"seconds": {stage: round(x, 3) for stage, x in seconds.items()},
                 "peak_memory_mb": round(peak_memory_mb(), 1)}

        self.append(self.paths[1], rows)
        self.append(self.paths[0], [line])
        self.track(line)
        self.last = line
        self.say_line(line, clock)
        for warning in warnings(line, self.cfg):
            self.say(textwrap.fill(warning, 100, initial_indent="      note: ",
                                   subsequent_indent="        "))
        show = self.cfg.show_every and found.t % self.cfg.show_every == 0
        if show and found.score is not None:
            self.examples(rows, found.drafts)

    def judge(self, drafts):
        return self.truth(drafts, self.cfg.documents)

    def say_line(self, line, clock):
        """The columns of one iteration, under a header that comes back every screenful."""
        seconds_left = (time.time() - self.started) / (line["iteration"] - self.first)
        seconds_left *= self.cfg.iterations - line["iteration"]
        cells = columns(line, self.cfg, clock.total(), seconds_left)
        if self.lines_said % SCREENFUL == 0:
            self.say("\n" + header(cells))
        self.say("".join(cell for _, cell in cells))
        self.lines_said += 1

    def examples(self, rows, drafts):
        """The question that earned most and the one that earned least, of those that earned."""
        name = "s_hat" if self.cfg.reward == "influence" else "score"
        scored = [row for row in rows if row["status"] == "valid" and row["score"]]
        scored.sort(key=lambda row: row["score"])
        if len(scored) < 2:
            return
        for word, row in [("highest", scored[-1]), ("lowest", scored[0])]:
            d, j = row["slot"]
            document = drafts[d][j].document.content
            solved = f"{100 * row['solved']:.0f} % of the answers match its key"
            self.say(f"      {word} {name}, {row['score']:+.3f}; {solved}")
            self.say(f"        {clip(row['question'], 90)}")
            for choice in row["choices"]:
                mark = "*" if choice == row["answer"] else " "
                self.say(f"        {mark} {clip(choice, 86)}")
            self.say(f"        from {row['doc_id']}: {clip(document, 75)}")

    # ------------------------------------------------------------ models

    def keep(self, t, *policies):
        """With --save_every K: both roles of iterations 0, K, 2 K, ... as RUN/at-ITERATION.

        It is there whole or not at all. On all ranks together.
        """
        if not self.cfg.save_every or t % self.cfg.save_every:
            return
        folder = os.path.join(self.cfg.run, f"at-{t}")
        if self.main:
            # what a killed run left, and what a resumed one writes again
            for unfinished in (f"{folder}.part", folder):
                shutil.rmtree(unfinished, ignore_errors=True)
        for policy in policies:
            policy.save(os.path.join(f"{folder}.part", policy.role))
        if self.main:
            os.rename(f"{folder}.part", folder)
        ranks.barrier()

    def finish(self, *policies):
        """Save both roles as plain Hugging Face folders and say what came out and what to do next.
        """
        for policy in policies:
            policy.save(os.path.join(self.cfg.run, policy.role))
        self.stop_tracking()
        if self.main:
            self.say("\n" + "\n".join(last_words(self.cfg, self.last, self.anchor_accuracy)))
        ranks.barrier()


# ---------------------------------------------------------------- texts

# Lines of a screen, after which the names of the columns come again.
SCREENFUL = 20


def columns(x, cfg, seconds, seconds_left):
    """A line of metrics.jsonl -> [(name, cell)], at most 100 columns in all. Shares in percent."""
    paid = "s_hat" if cfg.reward == "influence" else "score"
    truth = [("keys", share(x["key_accuracy"], 5)),
             ("target", share(x["target_share"], 7))] if "key_accuracy" in x else []
    return [("iter", f"{x['iteration']:4d}/{cfg.iterations:<3d}"),
            ("dev", share(x["dev_accuracy"], 6, 1)),
            ("test", share(x["test_accuracy"], 6, 1)),
            ("valid", share(x["valid_share"], 6)),
            ("solved", share(x["solved_share"], 7)),
            ("mixed", share(x["mixed_share"], 6)),
            (paid, number(x["score_mean"], "+.3f", 7)),
            ("std", number(x["score_std"], ".3f", 6)),
            *truth,
            ("grad gen", number(x["generator_grad_norm"], ".2f", 9)),
            ("grad sol", number(x["solver_grad_norm"], ".2f", 9)),
            ("time", f"{duration(seconds):>7}"),
            ("left", f"{duration(seconds_left):>7}")]


def header(cells):
    """[(name, cell)] -> the names over their cells."""
    return "".join(name.rjust(len(cell)) for name, cell in cells)


def number(x, form, width):
    return ("-" if x is None else format(x, form)).rjust(width)


def share(x, width, digits=0):
    return number(None if x is None else 100 * x, f".{digits}f", width)


def last_words(cfg, last, anchor):
    """The last lines of a run: the result, and what to do next."""
    run, x = cfg.run, last or {}
    if anchor and x.get("test_accuracy") is not None:
        after = percent([x["test_accuracy"], x["test_standard_error"]])
        yield (f"test accuracy: {percent(anchor)} before, {after} after {x['iteration']} "
               "iterations (+-: 95 % interval)")
    yield f"written:     {run}/ with solver/, generator/ (from_pretrained) and its logs"
    yield f"see it:      python report.py {run}"
    other = "influence" if cfg.reward == "fixed" else "fixed"
    yield f"compare:     the same command with --reward {other}; report.py takes both runs"
    yield f"go on:       python train.py --resume {run} --iterations {cfg.iterations * 2}"


def warnings(x, cfg):
    """One sentence for each thing that is off, with what to try."""
    if cfg.train_on != "generated":
        return
    if x["valid_share"] == 0:
        yield ("no draft was a valid question, so nothing was trained; look at `text` in "
               "questions.jsonl. A small model needs warmup.py first; drafts cut at "
               "max_response_tokens need more of them.")
    elif x["valid_share"] < 0.1:
        yield (f"almost no draft was valid ({x['valid_share']:.0%}; reasons "
               f"{x['invalid_reasons']}); a small model needs warmup.py first.")
    if cfg.by_influence and x["g_dev_norm"] is None:
        yield ("no g_dev: every dev question was answered all right or all wrong, so all scores "
               "are 0 and the generator did not move; more answers_per_question or a dev set the "
               "solver sometimes solves would help.")
    for name in ("dev", "test"):
        overlap = x[f"overlap_{name}_share"]
        if overlap and overlap > 0.25:
            yield (f"{overlap:.0%} of the questions share eight words in a row with a {name} "
                   "question; see `overlap` in questions.jsonl.")
    if x["mixed_share"] == 0:
        yield ("every generated question was all right or all wrong, so the solver did not move; "
               "more answers_per_question may help.")
    if x["answer_cut_share"] and x["answer_cut_share"] > 0.2:
        yield (f"{x['answer_cut_share']:.0%} of the answers were cut at {cfg.max_response_tokens} "
               "tokens; raise max_response_tokens.")
    if x["verifier_timeouts"]:
        yield (f"{x['verifier_timeouts']} answer checks timed out; their questions are left out of "
               "the update, of g_dev or of the accuracy.")


def clip(text, width=160):
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 3] + "..."


def duration(seconds):
    if seconds > 5400:
        return f"{seconds / 3600:.1f} h"
    if seconds > 90:
        return f"{seconds / 60:.0f} min"
    return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{seconds:.0f} s"


def percent(accuracy):
    """[share, its standard error] -> "44.2 % (+- 4.9)", the second being half of a 95 % interval.
    """
    mean, error = accuracy
    if mean is None:
        return "an unknown share"
    return f"{100 * mean:.1f} %" + (f" (+- {196 * error:.1f})" if error is not None else "")
