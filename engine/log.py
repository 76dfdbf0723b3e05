"""What a run says and writes: aligned columns on the terminal, metrics.jsonl, questions.jsonl.

    metrics.jsonl      one line per iteration t = 1..T        engine/metrics.py, docs/metrics.md
    questions.jsonl    one line per draft                     iteration, slot, question, score ...
    at-T/              both roles of iteration T, with --save_every
    ended.json         the iteration whose models solver/ and generator/ are

Only the main rank writes and speaks. On the terminal "+-" is half of a 95 % interval, 1.96 standard
errors over the test questions.
"""
import hashlib
import json
import os
import shutil
import sys
import textwrap
import time
from dataclasses import replace

from tqdm import tqdm

from data import InputError, is_encodable
from engine import flags, ranks, run_folder, trackers
from engine.metrics import metrics, peak_memory_mb, question_rows
from engine.outputs import write_whole
from engine.speech import one_line

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


class Prefix:
    """A log up to where it was written: its size and the sha256 of its bytes."""

    def __init__(self):
        self.size, self.lines, self.hash = 0, 0, hashlib.sha256()

    @classmethod
    def read(cls, path, size, sha256):
        """The first bytes of a log. InputError if they are not those that were written."""
        prefix = cls()
        if os.path.isfile(path):
            with open(path, "rb") as f:
                while some := f.read(min(2 ** 20, size - prefix.size)):
                    prefix.add(some)
        if prefix.state() == {"size": size, "sha256": sha256}:
            return prefix
        found = f"has {prefix.size} of the {size} bytes" if prefix.size < size else (
            f"is another in its first {size} bytes than that")
        raise InputError(f"{path}: {found} that its checkpoint remembers, so the run cannot go on "
                         "without losing lines; put the file back, or start again with another "
                         "--output_dir")

    def add(self, some):
        self.size += len(some)
        self.lines += some.count(b"\n")
        self.hash.update(some)

    def cut(self, path):
        """The iterations after it are written once."""
        if os.path.exists(path):
            with open(path, "r+b") as f:
                f.truncate(self.size)

    def append(self, path, text):
        """On disk at the end."""
        some = text.encode("utf-8")
        with open(path, "ab") as f:
            f.write(some)
            f.flush()
            os.fsync(f.fileno())
        self.add(some)

    def state(self):
        return {"size": self.size, "sha256": self.hash.hexdigest()}


def as_line(row):
    """A row -> its line of JSON. A file name that is not UTF-8 stands there in JSON's own escapes.
    """
    line = json.dumps(row, ensure_ascii=False)
    return (line if is_encodable(line) else json.dumps(row)) + "\n"


class Log:
    """The run folder's text files and the terminal."""

    def __init__(self, cfg, truth=None):
        """truth(drafts, documents) -> numbers only a world of ours knows; for the log alone."""
        trackers.require(cfg.track)
        self.cfg, self.main, self.truth = cfg, ranks.is_main(), truth
        self.last, self.verifier_counts = None, (0, 0)
        # [accuracy, standard error] before training; [iteration, accuracy] of the highest
        # validation so far
        self.anchor_accuracy, self.best = {"test": None, "valid": None}, None
        # overlap.Overlap with the dev and test questions, once they are loaded
        self.overlap = None
        # of the save before this line: the line must be in the log when its checkpoint is made
        self.checkpoint_seconds = 0.0
        self.lines_said = 0
        # {name: sha256 of what was loaded under it}; those that changed since the run began, which
        # was accepted; those of them that no line of metrics.jsonl tells yet
        self.inputs, self.accepted, self.untold = {}, [], []
        # {path of a log: its Prefix}
        self.logs = {os.path.join(cfg.run, name): Prefix() for name in run_folder.LOGS}
        self.metrics_path, self.questions_path = self.logs
        self.say(flags.describe(cfg))

    def open(self, dtype):
        """Take the run folder, once everything that was asked for has been found. A resumed run's
        logs are cut back to its newest checkpoint. -> that checkpoint's folder and state, or
        (None, None).

        dtype: what is computed in. It goes into config.json in place of `auto`, so that a resumed
        run stays with it on another device. On all ranks together.
        """
        ranks.same(self.inputs, "loaded other {} than")
        run_folder.LOCK.hold(self.cfg.run)
        if not self.cfg.resume and ranks.from_main(run_folder.taken(self.cfg.run)):
            raise InputError(f"{self.cfg.run}: another run has just begun there; give this one a "
                             "folder of its own by --output_dir")
        folder, state, self.accepted = run_folder.find(self.cfg, self.inputs, self.check_logs)
        self.untold = self.accepted
        self.cfg = run_folder.named(replace(self.cfg, dtype=dtype), self.inputs, state)
        if self.main:
            self.cfg.save(os.path.join(self.cfg.run, "config.json"))
            run_folder.LOCK.note_checkpoint(bool(state))
            for path, prefix in self.logs.items():
                prefix.cut(path)
        self.track, self.stop_tracking = trackers.start(self.cfg, self.metrics_path)
        # what the time left is counted from
        self.started, self.first = time.time(), state["iteration"] if state else 0
        if state:
            self.anchor_accuracy, self.best = state["anchor"], state["best"]
            self.say(f"resumed after iteration {state['iteration']}")
        if self.accepted:
            self.say(f"accepted: {', '.join(self.accepted)} changed since the run began")
        return folder, state

    def check_logs(self, state):
        """InputError unless each log begins with what a checkpoint remembers of it."""
        for path in self.logs if self.main else ():
            self.logs[path] = Prefix.read(path, **state["logs"][os.path.basename(path)])
        lines = self.logs[self.metrics_path].lines
        if self.main and lines != state["iteration"]:
            raise InputError(f"{self.metrics_path}: {lines} iterations up to a checkpoint that is "
                             f"of iteration {state['iteration']}; start again with another "
                             "--output_dir")

    def say(self, text):
        """A line on the terminal; None says nothing. What a document holds moves no cursor."""
        if self.main and text is not None:
            tqdm.write("\n".join(map(one_line, text.split("\n"))))
            sys.stdout.flush()

    def append(self, path, rows):
        if self.main:
            self.logs[path].append(path, "".join(as_line(row) for row in rows))

    def state(self):
        """What a checkpoint must remember of the run and its logs."""
        logs = {os.path.basename(path): prefix.state() for path, prefix in self.logs.items()}
        return {"run_id": self.cfg.run_id, "settings": run_folder.settings(self.cfg),
                "inputs": self.inputs, "logs": logs, "anchor": self.anchor_accuracy,
                "best": self.best}

    # ------------------------------------------------------------ an iteration

    def anchor(self, tested):
        """tested: what train.evaluate finds before training."""
        self.see_best(0, tested["valid"])
        for name, what in [("test", "test"), ("valid", "validation")]:
            if x := tested[name]:
                known = self.anchor_accuracy[name] = [x["accuracy"], x["standard_error"]]
                self.say(f"before training: {percent(known)} of the {what} questions right")

    def see_best(self, t, valid):
        """Of equal accuracies the first counts."""
        accuracy = valid and valid["accuracy"]
        if accuracy is not None and (self.best is None or accuracy > self.best[1]):
            self.best = [t, accuracy]

    def iteration(self, found, clock, verifier):
        """Write the iteration's lines and print its summary. found: data.Found."""
        rows = question_rows(found, self.overlap)
        counts = verifier.timeouts, verifier.crashes
        new = [now - before for now, before in zip(counts, self.verifier_counts)]
        self.verifier_counts = counts
        self.see_best(found.t, found.tested["valid"])
        line = metrics(found, rows, self.anchor_accuracy, self.best, new,
                       self.judge if self.truth else None)
        seconds = clock.seconds | {"checkpoint": self.checkpoint_seconds}
        line |= {"seconds": {stage: round(x, 3) for stage, x in seconds.items()},
                 "peak_memory_mb": round(peak_memory_mb(), 1), "run_id": self.cfg.run_id}
        if self.untold:
            line["accepted_changes"], self.untold = self.untold, []

        self.append(self.questions_path, rows)
        self.append(self.metrics_path, [line])
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
        """With --save_every K: both roles of iterations 0, K, 2 K, ... as RUN/at-ITERATION, in the
        dtype they sample in.

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
            policy.save(os.path.join(f"{folder}.part", policy.role), rounded=True)
        if self.main:
            os.rename(f"{folder}.part", folder)
        ranks.barrier()

    def finish(self, *policies):
        """Save both roles as plain Hugging Face folders and say what came out and what to do next.
        """
        for policy in policies:
            policy.save(os.path.join(self.cfg.run, policy.role))
        if self.main:
            # whose they are, should the run go on later and be stopped
            ended = {"iteration": self.last["iteration"] if self.last else self.first}
            write_whole(os.path.join(self.cfg.run, "ended.json"), json.dumps(ended) + "\n")
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
    # only with --valid
    valid = [("val", share(x["valid_accuracy"], 6, 1))] if cfg.valid else []
    return [("iter", f"{x['iteration']:3d}/{cfg.iterations:<3d}"),
            ("dev", share(x["dev_accuracy"], 6, 1)),
            ("test", share(x["test_accuracy"], 6, 1)),
            *valid,
            ("valid", share(x["valid_share"], 6)),
            ("solved", share(x["solved_share"], 7)),
            ("mixed", share(x["mixed_share"], 6)),
            (paid, number(x["score_mean"], "+.3f", 7)),
            ("std", number(x["score_std"], ".3f", 6)),
            *truth,
            ("grad gen", number(x["generator_grad_norm"], ".2f", 9)),
            ("solver", number(x["solver_grad_norm"], ".2f", 7)),
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
    if anchor["test"] and x.get("test_accuracy") is not None:
        after = percent([x["test_accuracy"], x["test_standard_error"]])
        yield (f"test accuracy: {percent(anchor['test'])} before, {after} after {x['iteration']} "
               "iterations (+-: 95 % interval)")
    if anchor["valid"] and x.get("valid_accuracy") is not None:
        after = percent([x["valid_accuracy"], x["valid_standard_error"]])
        yield (f"validation:    {percent(anchor['valid'])} before, {after} after {x['iteration']} "
               "iterations")
        yield f"best by validation: {best_words(cfg, x)}"
    yield f"written:     {run}/ with solver/, generator/ (from_pretrained) and its logs"
    yield f"see it:      python report.py {run}"
    if cfg.train_on == "generated":
        other = "influence" if cfg.reward == "fixed" else "fixed"
        place = " --output_dir OTHER" if "run" in cfg.given else ""
        yield (f"compare:     the same command with --reward {other}{place}; report.py takes both "
               "runs")
    yield f"go on:       python train.py --resume {run} --iterations {cfg.iterations * 2}"


def best_words(cfg, x):
    """The iteration of the highest validation accuracy, and where its models are.

    Said beside the last, never in its place: the highest of many looks is partly luck.
    """
    t = x["best_valid_iteration"]
    if t == x["iteration"]:
        return f"the last, {cfg.run}/solver"
    best = f"{100 * x['best_valid_accuracy']:.1f} %"
    if t == 0:
        return f"{best} before training, {cfg.model}"
    where = f"{cfg.run}/at-{t}/solver"
    if not os.path.isdir(where):
        where = "not kept (--save_every)"
    return f"{best} after {t} iterations, {where}"


def warnings(x, cfg):
    """One sentence for each thing that is off, with what to try."""
    if cfg.train_on != "generated":
        return
    still = x["generator_grad_norm"] is None
    nothing = ", so nothing was trained" if still and x["solver_grad_norm"] is None else ""
    if x["valid_share"] == 0:
        yield (f"no draft was a valid question{nothing}; look at `text` in questions.jsonl. A "
               "small model needs warmup.py first; where drafts are cut, raise "
               "--max_response_tokens.")
    elif x["valid_share"] < 0.1:
        yield (f"almost no draft was valid ({x['valid_share']:.0%}; reasons "
               f"{x['invalid_reasons']}); a small model needs warmup.py first.")
    if cfg.by_influence and x["g_dev_norm"] is None:
        yield ("no g_dev: every dev question was answered all right or all wrong, so influence "
               f"pays nobody{' and the generator did not move' if still else ''}; more "
               "answers_per_question or a dev set the solver sometimes solves would help.")
    for name in ("dev", "test"):
        overlap = x[f"overlap_{name}_share"]
        if overlap and overlap > 0.25:
            yield (f"{overlap:.0%} of the questions share eight words in a row with a {name} "
                   "question; see `overlap` in questions.jsonl.")
    if x["mixed_share"] == 0:
        yield ("every generated question was all right or all wrong, so the solver learned "
               "nothing from them; more answers_per_question may help.")
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
