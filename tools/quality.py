"""Does the generator get better? Its questions at several iterations, answered by others.

    python train.py --iterations 30 --save_every 5 --run runs/NAME       # keeps at-0, at-5, ...
    python -m tools.quality runs/NAME --reference toy/anchor-clean --figure quality.svg
    python -m tools.quality runs/NAME --documents FILE --reference http://localhost:8000/v1

The second takes 1-2 minutes of a CPU core. The documents were never trained on.

    accuracy = right answers / answers, of each solver and iteration; right: as the generator's key
    SWG      = accuracy of the reference - accuracy of the base solver     strong-against-weak gap

    code       symbol   shape    meaning
    documents           (D,)     the same at every iteration
    questions           (Q,)     the valid ones among n drafts from each document
    base       theta_0           the anchor; fewer right: harder questions, or more wrong keys
    cotrained  theta_t           the solver of the same iteration
    reference                    a stronger model; more right: fewer wrong keys and ill-posed
                                 questions
    right               (Q, N)   1, 0, or null where the check of a free-form answer timed out:
                                 counted, left out

The three solvers and the gap are the authors'; their reference was GPT-5.4. Ours, where their text
leaves it open: number of documents, intervals (95 %, by bootstrap over documents), sampling,
prompts. How to read the gap, and servers as reference: docs/results/quality.md.
"""
import json
import math
import os
import random
import re
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import config
from engine import endpoint, flags, presets
import generator as generator_role
import solver as solver_role
from toy import truth, world
from data import Document, InputError, Question, Rollout, keep_fitting
from engine.arguments import Parser
from engine.readers import load_documents
from engine.finished import Finished, digest, model_stamp
from engine.outputs import file_to_write, pyplot
from engine.speech import run_script, shorten
from engine.tables import columns, percent
from evaluate import PIECE, sample_answers
from policy import Policy
from solver import given_answer
from engine.verify import Verifier


# ---------------------------------------------------------------- what is compared

def run_config(run):
    """The Config a run was trained with.

    Fields it does not know yet have their defaults.
    """
    path = os.path.join(run, "config.json")
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        known = {name: value for name, value in values.items() if name in config.SETTINGS}
        fields = {name: flags.as_field(name, value) for name, value in known.items()}
        return config.Config(**fields)
    except OSError:
        raise InputError(f"{run}: expected the folder of a run, "
                         "but it has no config.json") from None
    except (ValueError, AttributeError, InputError) as error:
        raise InputError(f"{path}: expected the JSON that a run wrote, "
                         f"but {shorten(error)}") from None


def checkpoints(run, cfg, wanted=None):
    """A run -> {iteration: {"solver": folder, "generator": folder}}, in order.

    The anchor as 0, each at-ITERATION, the end of the run.
    wanted: only these iterations. InputError if one of them was not kept.
    """
    def both_in(folder):
        return {role: os.path.join(folder, role) for role in ("solver", "generator")}

    found = {0: {"solver": cfg.model, "generator": cfg.generator_anchor}}

    metrics = os.path.join(run, "metrics.jsonl")
    if os.path.exists(metrics) and os.path.isdir(os.path.join(run, "generator")):
        # a run that went on and was stopped has the models of its earlier end
        ended = Path(run, "ended.json")
        text = (ended if ended.exists() else Path(metrics)).read_text(encoding="utf-8")
        found[json.loads(text.splitlines()[-1])["iteration"]] = both_in(run)

    for name in os.listdir(run):
        if match := re.fullmatch(r"at-(\d+)", name):
            found[int(match[1])] = both_in(os.path.join(run, name))

    missing = [t for t in wanted or () if t not in found]
    if missing:
        kept = ", ".join(map(str, sorted(found)))
        raise InputError(f"{run}: iteration {missing[0]} was not kept; there are {kept} "
                         "(train.py --save_every K keeps more)")
    return {t: found[t] for t in sorted(set(wanted or found))}


def fresh_notes(n, seed, known):
    """n notes of the embedded world whose text is none of the known ones; seeded.

    >>> fresh_notes(2, 0, known=set()) == fresh_notes(2, 0, known=set())
    True
    """
    rng = random.Random(f"quality, seed {seed}")
    notes = []
    while len(notes) < n:
        text = world.note(rng, world.draw_facts(rng))
        if text not in known:
            notes.append(Document(f"fresh-{len(notes)}", text))
    return notes


def held_out(args, cfg, tokenizer):
    """-> (documents, is the truth about their questions known?).

    InputError if one of them was read in training.
    """
    if not args.documents and cfg.preset != "toy":
        raise InputError("--documents is missing: expected a file or folder of documents that "
                         f"the run did not read; only preset toy has fresh notes, this run's is "
                         f"{cfg.preset}")

    def length(text):
        return len(tokenizer(text, add_special_tokens=False).input_ids)

    def load(path):
        return load_documents(path, cfg.max_chunk_tokens, length)

    if not args.documents:
        known = {document.content for document in load(presets.TOY["documents"])}
        return fresh_notes(args.limit or 60, args.seed, known), True

    documents = load(args.documents)[:args.limit]
    trained = set()
    try:
        if cfg.documents:
            trained = {document.content for document in load(cfg.documents)}
    except InputError as error:
        print("note: not checked that these documents are new to the run, "
              f"since its own cannot be read ({error})")

    read = [document.doc_id for document in documents if document.content in trained]
    if read:
        raise InputError(f"{args.documents}: {len(read)} of {len(documents)} documents were read "
                         f"in training, {read[0]} among them; expected held-out ones")
    return documents, False


# ---------------------------------------------------------------- questions and answers

def write(t, folder, base, documents, cfg, args, finished):
    """The generator of iteration t reads every document, sampling as in training.

    -> {"iteration", "documents", "drafts", "questions": [{"document", ...}, ...]}
    """
    fingerprint = digest(
        "write", model_stamp(folder), documents, args.seed, cfg.questions_per_doc,
        cfg.temperature, cfg.top_p, cfg.top_k, cfg.max_prompt_tokens, cfg.max_response_tokens,
        cfg.prompts, cfg.question_type, cfg.open_book, cfg.min_choices, cfg.max_choices)
    if finished.get(fingerprint):
        return finished.get(fingerprint)

    generator = Policy("generator", folder, 0.0, cfg)

    def length(document):
        asked = generator_role.prompt_text(document, cfg.question_type, cfg.prompts)
        return len(generator.prompt_ids(asked))

    documents, long = keep_fitting(documents, length, cfg.max_prompt_tokens, "documents")
    if long:
        print(f"{folder}: {long} documents left out as longer than {cfg.max_prompt_tokens} tokens "
              "in the prompt", flush=True)
    seed_words = (args.seed, "quality", "write")
    grid = generator_role.write_questions(
        generator, documents, seed_words, cfg, base.policy)             # (D, n)

    questions = []
    for drafts in grid:
        questions += [about(draft) for draft in drafts if draft.question]

    finished.add({fingerprint: {
        "iteration": t, "documents": [document.doc_id for document in documents],
        "drafts": len(grid) * cfg.questions_per_doc, "questions": questions}})
    return finished.get(fingerprint)


def about(draft):
    """A valid draft -> its question as a dict, with the document it is about."""
    return {"document": draft.document.doc_id, **asdict(draft.question)}


def questions_of(written):
    """What write() found -> (Q,) questions."""
    questions = []
    for x in written["questions"]:
        fields = {name: value for name, value in x.items() if name != "document"}
        # a list after JSON: another fingerprint than before, and all would be answered again
        fields["aliases"] = tuple(fields.get("aliases", ()))
        questions.append(Question(**fields))
    return questions


def answer(who, written, cfg, args, finished, verifier):
    """A Local or an Endpoint answers one iteration's questions -> (Q, N) right.

    1, 0, or None where the check timed out.
    """
    questions = questions_of(written)
    sampling = (args.samples, args.seed, cfg.eval_temperature, cfg.eval_top_p, cfg.eval_top_k,
                cfg.max_response_tokens, cfg.prompts)
    size = max(1, PIECE // args.samples)

    right = []
    for start in range(0, len(questions), size):
        piece = questions[start:start + size]
        fingerprint = digest("answer", who.stamp, sampling, start, piece)
        if not finished.get(fingerprint):
            seed_words = (args.seed, "quality", "answer", start)
            groups, r = who.answer(piece, args.samples, seed_words, cfg, verifier)
            finished.add({fingerprint: {
                "right": [verdicts(row) for row in r.tolist()],
                "given": [given_answers(q, group) for q, group in zip(piece, groups)]}})
        right += finished.get(fingerprint)["right"]
    return right


def verdicts(r):
    """(N,) r, nan where a check timed out -> 1, 0 or None each."""
    return [None if math.isnan(x) else int(x) for x in r]


def given_answers(question, group):
    return [given_answer(question, rollout.text) for rollout in group]


class Local:
    """A model that answers; read at its first use."""

    def __init__(self, path, cfg):
        self.path = path
        self.cfg = cfg
        self.stamp = model_stamp(path)

    @cached_property
    def policy(self):
        return Policy("solver", self.path, 0.0, self.cfg)

    def answer(self, questions, samples, key, cfg, verifier):
        """Q questions -> (Q, N) rollouts, (Q, N) r."""
        return sample_answers(self.policy, questions, samples, key, cfg, verifier, "answers")


# ---------------------------------------------------------------- a guest: a server's model

class Endpoint(endpoint.Endpoint):
    """http://HOST:PORT/v1 as a solver: any OpenAI-compatible server."""
    name_flag = "--reference_name"

    def answer(self, questions, samples, key, cfg, verifier):
        """Q questions -> (Q, N) rollouts without tokens, (Q, N) r.

        `key` is not used: the server draws its own random numbers.
        """
        prompts = []
        for question in questions:
            prompts += [solver_role.prompt_text(question, cfg.prompts)] * samples
        replies = self.chat_all(prompts, "reference", {
            "temperature": cfg.eval_temperature, "top_p": cfg.eval_top_p,
            "max_tokens": cfg.max_response_tokens})
        answers = [Rollout([], [], [], finished, text) for text, finished in replies]
        groups = [answers[i:i + samples] for i in range(0, len(answers), samples)]
        return groups, solver_role.rewards(questions, groups, verifier)


def reference(args, cfg):
    if re.match(r"https?://", args.reference):
        return Endpoint(args.reference, args.reference_name, args.endpoint_options)
    return Local(flags.find_model("reference", args.reference), cfg)


# ---------------------------------------------------------------- numbers

def per_document(written, right):
    """(Q, N) right -> (2, D): known answers, and right ones among them.

    A document without a valid question has zeros.
    """
    place = {doc_id: d for d, doc_id in enumerate(written["documents"])}
    counts = np.zeros((2, len(place)))
    for question, answers in zip(written["questions"], right):
        known = [r for r in answers if r is not None]
        counts[:, place[question["document"]]] += len(known), sum(known)
    return counts


def resampled(counts, weights):
    """(2, D) counts, (R, D) times each document is drawn -> (R,) accuracies.

    nan where no answer is known.
    """
    known = weights @ counts.T[:, 0]
    right = weights @ counts.T[:, 1]
    return np.divide(right, known, out=np.full(len(known), np.nan), where=known > 0)


def draw_documents(D, seed, R=2000):
    """-> (R + 1, D) whole numbers: how often each bootstrap sample holds each document.

    The first row is the documents themselves.
    """
    drawn = np.random.default_rng(seed).multinomial(D, np.full(D, 1 / D), size=R)
    return np.concatenate([np.ones((1, D), dtype=drawn.dtype), drawn])


def estimate(values):
    """(R + 1,) -> {"value", "interval"}: the first, and the middle 95 % of the others.

    None where nothing is known.
    """
    others = values[1:][~np.isnan(values[1:])]
    interval = None
    if len(others):
        interval = [float(x) for x in np.percentile(others, [2.5, 97.5])]
    return {"value": None if np.isnan(values[0]) else float(values[0]), "interval": interval}


def truths(written):
    """What write() found in the embedded world -> (Q, 1) right: are the generator's keys true?"""
    return [[int(truth.judge(question)[1])] for question in questions_of(written)]


def numbers(written, right, seed, truth_known):
    """{t: written}, {(t, role): (Q, N) right} -> a dict per iteration.

    Accuracy and swg of each role, swg_change since the first iteration. All iterations read the
    same documents, so a change is resampled as one number.
    """
    documents = next(iter(written.values()))["documents"]
    weights = draw_documents(len(documents), seed)                      # (R + 1, D)
    if truth_known:
        right = right | {(t, "truth"): truths(x) for t, x in written.items()}
    roles = list(dict.fromkeys(role for _, role in right))

    accuracy = {}
    for (t, role), answers in right.items():
        accuracy[t, role] = resampled(per_document(written[t], answers), weights)   # (R + 1,)

    gap = {}
    for (t, role), values in accuracy.items():
        if role in ("reference", "truth"):
            gap[t, role] = values - accuracy[t, "base"]                 # (R + 1,)

    first = min(written)
    rows = []
    for t, x in written.items():
        strong = [role for role in roles if (t, role) in gap]
        since = {role: gap[t, role] - gap[first, role] for role in strong}
        rows.append({
            "iteration": t, "drafts": x["drafts"], "questions": len(x["questions"]),
            "unknown": sum(unknown(right[t, role]) for role in roles),
            "accuracy": {role: estimate(accuracy[t, role]) for role in roles},
            "swg": {role: estimate(gap[t, role]) for role in strong},
            "swg_change": {role: estimate(since[role]) for role in strong}})
    return rows


def unknown(right):
    """(Q, N) right -> how many answers got no verdict."""
    return sum(answers.count(None) for answers in right)


# ---------------------------------------------------------------- table and figure

def shown(x, sign=""):
    """{"value", "interval"} -> "12.3 [9.1, 15.5]", in percent."""
    if x["value"] is None:
        return "-"
    value = f"{100 * x['value']:{sign}.1f}"
    if not x["interval"]:
        return value
    low, high = x["interval"]
    return f"{value} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def table(rows):
    """Two tables, a line per iteration: accuracies, and gaps.

    Percent and points, with 95 % intervals.
    """
    roles = list(rows[0]["accuracy"])
    strong = list(rows[0]["swg"])
    first = rows[0]["iteration"]

    accuracies = [["iteration", "questions", "valid", *roles]]
    for x in rows:
        valid = percent(x["questions"] / x["drafts"])
        values = [shown(x["accuracy"][role]) for role in roles]
        accuracies.append([str(x["iteration"]), str(x["questions"]), valid, *values])
    text = "accuracy, %\n" + columns(accuracies)
    if not strong:
        return text

    heads = ["iteration"]
    for role in strong:
        heads += [f"{role} - base", f"since {first}"]
    gaps = [heads]
    for x in rows:
        line = [str(x["iteration"])]
        for role in strong:
            line += [shown(x["swg"][role], "+"), shown(x["swg_change"][role], "+")]
        gaps.append(line)
    return text + "\n\nstrong-against-weak gap, points\n" + columns(gaps)


STYLES = {"base": ("base solver", "#475569", "-"),
          "cotrained": ("co-trained solver", "#c2410c", "-"),
          "reference": ("reference", "#1d4ed8", "-"),
          "truth": ("truth: share of right keys", "#15803d", "--")}

PANELS = {"accuracy": "answers that match the generator's key (%)",
          "swg": "gap to the base solver (points)"}


def draw(rows, path):
    """Two panels: accuracies, and the gaps, over iterations, with their intervals."""
    plt = pyplot("the numbers are kept; --figure", "svg" if path.endswith(".svg") else "agg")
    figure, axes = plt.subplots(1, 2, figsize=(8.2, 3.1))
    for ax, name in zip(axes, PANELS):
        draw_panel(ax, rows, name)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncols=4, frameon=False)
    figure.patch.set_facecolor("white")
    figure.tight_layout(rect=(0, 0.07, 1, 1))

    # without a date, the same numbers give the same file
    form = {"metadata": {"Date": None}} if path.endswith(".svg") else {"dpi": 150}
    figure.savefig(path, **form)


def draw_panel(ax, rows, name):
    """name: "accuracy" or "swg", a curve and a band for each role that has it."""
    for role in rows[0][name]:
        label, colour, line = STYLES[role]
        known = [x for x in rows if x[name][role]["interval"]]
        t = [x["iteration"] for x in known]
        values = [100 * x[name][role]["value"] for x in known]
        low = [100 * x[name][role]["interval"][0] for x in known]
        high = [100 * x[name][role]["interval"][1] for x in known]
        ax.plot(t, values, line, color=colour, marker="o", markersize=3, label=label)
        ax.fill_between(t, low, high, color=colour, alpha=0.12, linewidth=0)

    ax.set_title(PANELS[name], fontsize=9)
    ax.set_xlabel("iteration of the generator")
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)


# ---------------------------------------------------------------- the command

def read_arguments(argv):
    parser = Parser("python -m tools.quality", __doc__)
    parser.add_argument("run", help="folder of a run; with --save_every it holds more than its "
                                    "two ends")
    parser.add_argument("--checkpoints", type=int, nargs="+", metavar="ITERATION",
                        help="only these (default: all that were kept)")
    parser.add_argument("--documents", help="documents the run did not read "
                                            "(default for preset toy: 60 fresh notes)")
    parser.add_argument("--limit", type=int, help="only the first so many documents, or so many "
                                                  "fresh notes (default all, and 60)")
    parser.add_argument("--reference", metavar="MODEL_OR_URL",
                        help="the stronger solver: model folder, hub id, or http://HOST:PORT/v1 "
                             "(its key, if it wants one, in OPENAI_API_KEY)")
    parser.add_argument("--reference_name",
                        help="the model's name at that URL (default: the first it lists)")
    parser.add_argument("--endpoint_options", default="{}",
                        help="JSON laid over the request to that URL; null takes a field out")
    parser.add_argument("--questions_per_doc", type=int,
                        help="n, drafts from each document (default: as in the run)")
    parser.add_argument("--samples", type=int, default=4,
                        help="N, answers of each solver to each question (default 4)")
    parser.add_argument("--max_response_tokens", type=int,
                        help="of drafts and answers (default: as in the run)")
    parser.add_argument("--seed", type=int, default=0,
                        help="of sampling, fresh notes and intervals (default 0)")
    parser.add_argument("--json", metavar="FILE",
                        help="write the numbers here, and finished pieces beside it as they come; "
                             "after an interruption the same command goes on from there")
    parser.add_argument("--figure", metavar="FILE",
                        help="draw accuracies and gap over iterations: .svg or .png")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: torch's default)")
    return check(parser.parse_args(argv))


def check(args):
    read = list(filter(None, [args.documents]))
    for flag in ("json", "figure"):
        if getattr(args, flag):
            file_to_write(f"--{flag}", getattr(args, flag), read)
    try:
        args.endpoint_options = json.loads(args.endpoint_options)
        args.endpoint_options.items()
    except (ValueError, AttributeError):
        raise InputError(f"--endpoint_options {args.endpoint_options!r}: "
                         "expected a JSON object") from None
    return args


def measure(args):
    """-> one dict per iteration, see numbers()."""
    cfg = run_config(args.run)
    for name in ("questions_per_doc", "max_response_tokens"):
        if getattr(args, name):
            cfg = replace(cfg, **{name: getattr(args, name)})
    kept = checkpoints(args.run, cfg, args.checkpoints)
    anchor = checkpoints(args.run, cfg, [0])[0]["solver"]
    work = f"{os.path.splitext(args.json)[0]}.work.jsonl" if args.json else None
    finished = Finished(work)

    # a wrong address is found before anything is computed
    strong = reference(args, cfg) if args.reference else None
    base = Local(anchor, cfg)
    documents, truth_known = held_out(args, cfg, base.policy.tokenizer)
    iterations = ", ".join(map(str, kept))
    print(f"{len(documents)} held-out documents, generators of iterations {iterations}", flush=True)

    written = {}
    for t, folders in kept.items():
        written[t] = write(t, folders["generator"], base, documents, cfg, args, finished)

    # one large model at a time beside the base
    roles = ["base", "cotrained"] + ["reference"] * bool(strong)
    right = {}
    with Verifier() as verifier:
        for role in roles:
            for t, x in tqdm(written.items(), desc=role, unit="iteration"):
                who = {"base": base, "reference": strong}.get(role)
                who = who or Local(kept[t]["solver"], cfg)
                right[t, role] = answer(who, x, cfg, args, finished, verifier)
    return numbers(written, right, args.seed, truth_known)


def main(argv=None):
    args = read_arguments(argv)
    if args.threads:
        torch.set_num_threads(args.threads)

    rows = measure(args)
    print(table(rows))
    no_verdict = sum(row["unknown"] for row in rows)
    if no_verdict:
        print(f"{no_verdict} answer checks gave no verdict; those answers are left out")

    if args.json:
        settings = vars(args).copy()
        for name in ("json", "figure", "threads"):
            del settings[name]
        report = json.dumps({"settings": settings, "iterations": rows}, indent=1)
        Path(args.json).write_text(report + "\n", encoding="utf-8")
    if args.figure:
        draw(rows, args.figure)


if __name__ == "__main__":
    run_script(main, stopped="stopped; with --json the same command goes on from here")
