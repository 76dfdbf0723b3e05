"""Does the generator get better? Questions that generators of several iterations wrote on documents never trained on, answered by others.

    python train.py --iterations 30 --save_every 5 --run runs/NAME                          keeps runs/NAME/at-0, at-5, ..., at-30
    python quality.py runs/NAME --reference toy/anchor-clean --figure quality.svg           the embedded world, 1-2 minutes of a CPU core
    python quality.py runs/NAME --documents FILE --reference http://localhost:8000/v1 --json quality.json                   your own

    accuracy = right answers / answers, for each solver and iteration; right is what the generator gave as its key
    SWG      = accuracy of the reference - accuracy of the base solver                            the strong-against-weak gap

    code       symbol    shape     meaning
    documents            (D,)      the same at every iteration
    questions            (Q,)      the valid ones among n drafts from each document
    base       theta_0             the anchor: fewer right answers mean harder questions, or more wrong keys
    cotrained  theta_t             the solver of the same iteration
    reference                      a stronger model: more right answers mean fewer wrong keys and ill-posed questions
    right                (Q, N)    1, 0, or null where the check of a free-form answer timed out: counted, left out

A rising gap says that keys got better, or that what got harder for the base solver stayed right; the accuracies tell which. A reference
that shares the generator's mistakes flatters it: the embedded world's clean anchor cannot add, and agrees with 65 % of the keys of the
first "plus" questions, 5 % of which are right. Intervals are 95 %, by bootstrap over documents: questions from one document are not
independent, and since all iterations read the same documents, a change since the first is resampled as one number.

The reference is a model folder, a hub id, or the address of any OpenAI-compatible server (tried with vLLM 0.32 and transformers serve
5.19; llama.cpp and services offer the same two paths). It gets the solver's prompt as one user message, and a key from the environment
variable OPENAI_API_KEY if there is one. --endpoint_options is JSON laid over each request; null takes a field out: '{"max_tokens": null,
"max_completion_tokens": 4096, "temperature": null}'.

Without --documents, a run of the embedded world gets 60 fresh notes. There the truth is known, and the share of right keys stands beside
the other columns: it is the accuracy of a reference that knows everything. Drafts are sampled as in training, answers as in evaluate.py.

With --json FILE.json finished pieces go into FILE.work.jsonl, and after an interruption the same command goes on from there. --figure
needs matplotlib.

The three solvers and the gap are the authors'; their reference was GPT-5.4. Ours, where their text leaves it open: number of documents,
intervals, sampling, prompts.
"""
import argparse
import http.client
import json
import os
import random
import re
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import config
import generator as generator_role
import solver as solver_role
import toy
from data import Document, InputError, Question, Rollout, keep_fitting, load_documents, run_script, shorten
from evaluate import PIECE, Finished, columns, digest, given_answer, model_stamp, percent, sample_answers
from policy import Policy
from verify import Verifier


# ---------------------------------------------------------------- what is compared

def run_config(run):
    """The Config a run was trained with; fields it does not know yet have their defaults, since nothing here trains."""
    path = os.path.join(run, "config.json")
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        return config.Config(**{name: config.as_field(name, value) for name, value in values.items() if name in config.SETTINGS})
    except OSError:
        raise InputError(f"{run}: expected the folder of a run, but it has no config.json") from None
    except (ValueError, AttributeError, InputError) as error:
        raise InputError(f"{path}: expected the JSON that a run wrote, but {shorten(error)}") from None


def checkpoints(run, cfg, wanted=None):
    """A run -> {iteration: {"solver": folder, "generator": folder}}, in order: the anchor as 0, each at-ITERATION, the end of the run.

    wanted: only these iterations. InputError if one of them was not kept.
    """
    found = {0: {"solver": cfg.model, "generator": cfg.generator_anchor}}
    metrics = os.path.join(run, "metrics.jsonl")
    if os.path.exists(metrics) and os.path.isdir(os.path.join(run, "generator")):
        last = json.loads(Path(metrics).read_text(encoding="utf-8").splitlines()[-1])["iteration"]
        found[last] = {role: os.path.join(run, role) for role in ("solver", "generator")}
    for name in os.listdir(run):
        if match := re.fullmatch(r"at-(\d+)", name):
            found[int(match[1])] = {role: os.path.join(run, name, role) for role in ("solver", "generator")}
    missing = [t for t in wanted or () if t not in found]
    if missing:
        kept = ", ".join(map(str, sorted(found)))
        raise InputError(f"{run}: iteration {missing[0]} was not kept; there are {kept} (train.py --save_every K keeps more)")
    return {t: found[t] for t in sorted(set(wanted or found))}


def fresh_notes(n, seed, known):
    """n notes of the embedded world whose text is none of the known ones; seeded.

    >>> fresh_notes(2, 0, known=set()) == fresh_notes(2, 0, known=set())
    True
    """
    rng, notes = random.Random(f"quality, seed {seed}"), []
    while len(notes) < n:
        text = toy.note(rng, toy.draw_facts(rng))
        if text not in known:
            notes.append(Document(f"fresh-{len(notes)}", text))
    return notes


def held_out(args, cfg, tokenizer):
    """-> (documents, is the truth about their questions known?). InputError if one of them was read in training."""
    if not args.documents and cfg.preset != "toy":
        raise InputError("--documents is missing: expected a file or folder of documents that the run did not read")
    load = lambda path: load_documents(path, cfg.max_chunk_tokens, lambda text: len(tokenizer(text, add_special_tokens=False).input_ids))
    if not args.documents:
        return fresh_notes(args.limit or 60, args.seed, {document.content for document in load(config.TOY["documents"])}), True
    documents = load(args.documents)[:args.limit]
    try:
        trained = {document.content for document in load(cfg.documents)} if cfg.documents else set()
    except InputError as error:
        print(f"note: not checked that these documents are new to the run, since its own cannot be read ({error})")
        trained = set()
    read = [document.doc_id for document in documents if document.content in trained]
    if read:
        raise InputError(f"{args.documents}: {len(read)} of {len(documents)} documents were read in training, {read[0]} among them; "
                         "expected held-out ones")
    return documents, False


# ---------------------------------------------------------------- questions and answers

def write(t, folder, base, documents, cfg, args, finished):
    """The generator of iteration t reads every document -> {"iteration", "documents", "drafts", "questions": [{"document", ...}, ...]}."""
    key = digest("write", model_stamp(folder), documents, args.seed, cfg.questions_per_doc, cfg.temperature, cfg.top_p, cfg.top_k,
                 cfg.max_prompt_tokens, cfg.max_response_tokens)
    if not finished.get(key):
        generator = Policy("generator", folder, 0.0, cfg)
        length = lambda document: len(generator.prompt_ids(generator_role.prompt_text(document)))
        documents, _ = keep_fitting(documents, length, cfg.max_prompt_tokens, "documents")
        rows = generator_role.write_questions(generator, documents, (args.seed, "quality", "write"), cfg, base.policy)      # (D, n)
        questions = [{"document": draft.document.doc_id, **asdict(draft.question)} for row in rows for draft in row if draft.question]
        finished.add({key: {"iteration": t, "documents": [document.doc_id for document in documents],
                            "drafts": len(rows) * cfg.questions_per_doc, "questions": questions}})
    return finished.get(key)


def questions_of(written):
    return [Question(**{name: value for name, value in x.items() if name != "document"}) for x in written["questions"]]


def answer(who, written, cfg, args, finished, verifier):
    """A Local or an Endpoint answers one iteration's questions -> (Q, N) right: 1, 0, or None where the check timed out."""
    right, questions, size = [], questions_of(written), max(1, PIECE // args.samples)
    sampling = (args.samples, args.seed, cfg.eval_temperature, cfg.eval_top_p, cfg.eval_top_k, cfg.max_response_tokens)
    for start in range(0, len(questions), size):
        piece = questions[start:start + size]
        key = digest("answer", who.stamp, sampling, start, piece)
        if not finished.get(key):
            answers, r = who.answer(piece, args.samples, (args.seed, "quality", "answer", start), cfg, verifier)
            finished.add({key: {"right": [[None if x != x else int(x) for x in row] for row in r.tolist()],                 # x != x: nan
                                "given": [[given_answer(q, x.text) for x in group] for q, group in zip(piece, answers)]}})
        right += finished.get(key)["right"]
    return right


class Local:
    """A model that answers; read at its first use."""

    def __init__(self, path, cfg):
        self.path, self.cfg, self.stamp = path, cfg, model_stamp(path)

    @cached_property
    def policy(self):
        return Policy("solver", self.path, 0.0, self.cfg)

    def answer(self, questions, samples, key, cfg, verifier):
        """Q questions -> (Q, N) rollouts, (Q, N) r."""
        return sample_answers(self.policy, questions, samples, key, cfg, verifier, "answers")


# ---------------------------------------------------------------- a guest: any OpenAI-compatible server

PASSING = (408, 409, 425, 429)      # HTTP errors worth another try; so is any from 500 on


class Endpoint:
    """http://HOST:PORT/v1 as a solver. A failure that may pass is tried again, any other is one line of InputError."""

    def __init__(self, url, name=None, options=None, workers=8, wait=2.0, seconds=600):
        self.url, self.options, self.workers, self.wait, self.seconds = url.rstrip("/"), options or {}, workers, wait, seconds
        self.name = name or self.first_model()
        self.stamp = (self.url, self.name, self.options)

    def first_model(self):
        try:
            return self.request("/models")["data"][0]["id"]
        except (KeyError, IndexError, TypeError):
            raise InputError(f"{self.url}/models names no model; give its name with --reference_name") from None
        except InputError as error:                         # transformers serve fails here when its machine has no hub cache
            raise InputError(f"{error}; with --reference_name NAME the server is not asked for its models") from None

    def answer(self, questions, samples, key, cfg, verifier):
        """Q questions -> (Q, N) rollouts without tokens, (Q, N) r. `key` is not used: the server draws its own random numbers."""
        prompts = [solver_role.prompt_text(question) for question in questions for _ in range(samples)]
        pool = ThreadPoolExecutor(self.workers)
        try:
            answers = list(tqdm(pool.map(lambda text: self.chat(text, cfg), prompts), total=len(prompts), desc="reference", leave=False))
        finally:
            pool.shutdown(cancel_futures=True)              # after a failure: do not ask the rest
        groups = [answers[i:i + samples] for i in range(0, len(answers), samples)]
        return groups, solver_role.rewards(questions, groups, verifier)

    def chat(self, text, cfg):
        """A user message -> one sampled answer."""
        body = {"model": self.name, "messages": [{"role": "user", "content": text}], "temperature": cfg.eval_temperature,
                "top_p": cfg.eval_top_p, "max_tokens": cfg.max_response_tokens} | self.options
        reply = self.request("/chat/completions", {name: value for name, value in body.items() if value is not None})
        try:
            choice = reply["choices"][0]
            content = choice["message"].get("content") or ""                # null where a model was cut while thinking
            return Rollout([], [], [], choice.get("finish_reason") != "length", content)
        except (KeyError, IndexError, TypeError, AttributeError):
            got = shorten(json.dumps(reply), 200)
            raise InputError(f"{self.url}/chat/completions: expected choices[0].message.content, got {got}") from None

    def request(self, path, body=None, tries=5):
        """GET, or POST of a JSON body -> the JSON reply."""
        headers = {"Content-Type": "application/json"}
        if os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {os.environ['OPENAI_API_KEY']}"
        request = urllib.request.Request(self.url + path, json.dumps(body).encode() if body is not None else None, headers)
        for attempt in range(tries):
            try:
                with urllib.request.urlopen(request, timeout=self.seconds) as reply:
                    return json.loads(reply.read())
            except urllib.error.HTTPError as error:
                problem = f"{error.code} {shorten(error.read().decode('utf-8', 'replace'), 200)}"
                passing = error.code in PASSING or error.code >= 500
            except (OSError, ValueError, http.client.HTTPException) as error:       # no server, a broken connection, no JSON
                problem, passing = shorten(error, 200), True
            if not passing or attempt == tries - 1:
                raise InputError(f"{self.url}{path}: {problem}")
            time.sleep(self.wait * 2 ** attempt)            # 2, 4, 8, 16 seconds


def reference(args, cfg):
    if re.match(r"https?://", args.reference):
        return Endpoint(args.reference, args.reference_name, args.endpoint_options)
    return Local(config.find_model("reference", args.reference), cfg)


# ---------------------------------------------------------------- numbers

def per_document(written, right):
    """(Q, N) right -> (2, D): known answers, and right ones among them; a document without a valid question has zeros."""
    place = {doc_id: d for d, doc_id in enumerate(written["documents"])}
    counts = np.zeros((2, len(place)))
    for question, answers in zip(written["questions"], right):
        known = [r for r in answers if r is not None]
        counts[:, place[question["document"]]] += len(known), sum(known)
    return counts


def resampled(counts, weights):
    """(2, D) counts, (R, D) times each document is drawn -> (R,) accuracies; nan where no answer is known."""
    known, right = weights @ counts.T[:, 0], weights @ counts.T[:, 1]
    return np.divide(right, known, out=np.full(len(known), np.nan), where=known > 0)


def draw_documents(D, seed, R=2000):
    """-> (R + 1, D) whole numbers: how often each bootstrap sample holds each document. The first row is the documents themselves."""
    drawn = np.random.default_rng(seed).multinomial(D, np.full(D, 1 / D), size=R)
    return np.concatenate([np.ones((1, D), dtype=drawn.dtype), drawn])


def estimate(values):
    """(R + 1,) -> {"value", "interval"}: the first, and the middle 95 % of the others; None where nothing is known."""
    others = values[1:][~np.isnan(values[1:])]
    return {"value": None if np.isnan(values[0]) else float(values[0]),
            "interval": [float(x) for x in np.percentile(others, [2.5, 97.5])] if len(others) else None}


def numbers(written, right, seed, truth_known):
    """{t: written}, {(t, role): (Q, N) right} -> a dict per iteration: accuracy and swg of each role, swg_change since the first."""
    weights = draw_documents(len(next(iter(written.values()))["documents"]), seed)                                          # (R + 1, D)
    if truth_known:
        right = right | {(t, "truth"): [[int(toy.judge(question)[1])] for question in questions_of(x)] for t, x in written.items()}
    roles = list(dict.fromkeys(role for _, role in right))
    accuracy = {(t, role): resampled(per_document(written[t], answers), weights) for (t, role), answers in right.items()}   # (R + 1,)
    gap = {(t, role): x - accuracy[t, "base"] for (t, role), x in accuracy.items() if role in ("reference", "truth")}       # (R + 1,)
    first, rows = min(written), []
    for t, x in written.items():
        strong = [role for role in roles if (t, role) in gap]
        rows.append({"iteration": t, "drafts": x["drafts"], "questions": len(x["questions"]),
                     "unknown": sum(r is None for role in roles for answers in right[t, role] for r in answers),
                     "accuracy": {role: estimate(accuracy[t, role]) for role in roles},
                     "swg": {role: estimate(gap[t, role]) for role in strong},
                     "swg_change": {role: estimate(gap[t, role] - gap[first, role]) for role in strong}})
    return rows


# ---------------------------------------------------------------- table and figure

def shown(x, sign=""):
    """{"value", "interval"} -> "12.3 [9.1, 15.5]", in percent."""
    if x["value"] is None:
        return "-"
    between = " [{:{sign}.1f}, {:{sign}.1f}]".format(*(100 * end for end in x["interval"]), sign=sign) if x["interval"] else ""
    return f"{100 * x['value']:{sign}.1f}{between}"


def table(rows):
    """Two tables, a line per iteration: accuracies, and gaps; percent and points, with 95 % intervals."""
    roles, strong, first = list(rows[0]["accuracy"]), list(rows[0]["swg"]), rows[0]["iteration"]
    accuracies = [["iteration", "questions", "valid", *roles]]
    gaps = [["iteration", *(head for role in strong for head in (f"{role} - base", f"since {first}"))]]
    for x in rows:
        accuracies.append([str(x["iteration"]), str(x["questions"]), percent(x["questions"] / x["drafts"])]
                          + [shown(x["accuracy"][role]) for role in roles])
        gaps.append([str(x["iteration"])] + [shown(x[key][role], "+") for role in strong for key in ("swg", "swg_change")])
    return "accuracy, %\n" + columns(accuracies) + ("\n\nstrong-against-weak gap, points\n" + columns(gaps) if strong else "")


STYLES = {"base": ("base solver", "#475569", "-"), "cotrained": ("co-trained solver", "#c2410c", "-"),
          "reference": ("reference", "#1d4ed8", "-"), "truth": ("truth: share of right keys", "#15803d", "--")}


def draw(rows, path):
    """Two panels: accuracies, and the gaps, over iterations, with their intervals."""
    try:
        import matplotlib
    except ImportError:
        raise InputError("--figure needs matplotlib: pip install matplotlib; the numbers are kept") from None
    matplotlib.use("svg" if path.endswith(".svg") else "agg")
    import matplotlib.pyplot as plt
    plt.rcParams.update({"svg.hashsalt": "infuser", "font.size": 9})
    figure, axes = plt.subplots(1, 2, figsize=(8.2, 3.1))
    for ax, key, title in zip(axes, ("accuracy", "swg"), ("answers that match the generator's key (%)", "gap to the base solver (points)")):
        for role in rows[0][key]:
            label, colour, line = STYLES[role]
            known = [(x["iteration"], x[key][role]) for x in rows if x[key][role]["interval"]]
            t, ends = [t for t, _ in known], [[100 * x["interval"][end] for _, x in known] for end in (0, 1)]
            ax.plot(t, [100 * x["value"] for _, x in known], line, color=colour, marker="o", markersize=3, label=label)
            ax.fill_between(t, *ends, color=colour, alpha=0.12, linewidth=0)
        ax.set_title(title, fontsize=9)
        ax.set_xlabel("iteration of the generator")
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncols=4, frameon=False)
    figure.patch.set_facecolor("white")
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.savefig(path, **({"metadata": {"Date": None}} if path.endswith(".svg") else {"dpi": 150}))


# ---------------------------------------------------------------- the command

def read_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of a run; with --save_every it holds more than its two ends")
    parser.add_argument("--checkpoints", type=int, nargs="+", metavar="ITERATION", help="only these (default: all that were kept)")
    parser.add_argument("--documents", help="documents the run did not read (default in the embedded world: 60 fresh notes)")
    parser.add_argument("--limit", type=int, help="only the first so many documents; the number of fresh notes")
    parser.add_argument("--reference", metavar="MODEL_OR_URL", help="the stronger solver: model folder, hub id, or http://HOST:PORT/v1")
    parser.add_argument("--reference_name", help="the model's name at that URL (default: the first it lists)")
    parser.add_argument("--endpoint_options", default="{}", help="JSON laid over the request to that URL")
    parser.add_argument("--questions_per_doc", type=int, help="n, drafts from each document (default: as in the run)")
    parser.add_argument("--samples", type=int, default=4, help="N, answers of each solver to each question (default 4)")
    parser.add_argument("--max_response_tokens", type=int, help="of drafts and answers (default: as in the run)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", metavar="FILE", help="write the numbers here, and finished pieces beside it as they come")
    parser.add_argument("--figure", metavar="FILE", help="draw accuracies and gap over iterations: .svg or .png")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: torch's default)")
    return check(parser.parse_args(argv))


def check(args):
    for name in ("limit", "questions_per_doc", "samples", "max_response_tokens"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise InputError(f"--{name} {getattr(args, name)}: expected at least 1")
    for path in filter(None, (args.json, args.figure)):
        if not os.path.isdir(os.path.dirname(os.path.abspath(path))):
            raise InputError(f"{path}: its folder does not exist")
    try:
        args.endpoint_options = json.loads(args.endpoint_options)
        args.endpoint_options.items()
    except (ValueError, AttributeError):
        raise InputError(f"--endpoint_options {args.endpoint_options!r}: expected a JSON object") from None
    return args


def measure(args):
    """-> one dict per iteration, see numbers()."""
    cfg = run_config(args.run)
    cfg = replace(cfg, **{name: value for name in ("questions_per_doc", "max_response_tokens") if (value := getattr(args, name))})
    kept, anchor = checkpoints(args.run, cfg, args.checkpoints), checkpoints(args.run, cfg, [0])[0]["solver"]
    finished = Finished(f"{os.path.splitext(args.json)[0]}.work.jsonl" if args.json else None)
    strong = reference(args, cfg) if args.reference else None           # a wrong address is found before anything is computed
    base = Local(anchor, cfg)
    documents, truth_known = held_out(args, cfg, base.policy.tokenizer)
    print(f"{len(documents)} held-out documents, generators of iterations {', '.join(map(str, kept))}", flush=True)
    written = {t: write(t, folders["generator"], base, documents, cfg, args, finished) for t, folders in kept.items()}
    right = {}
    with Verifier() as verifier:
        for role in ("base", "cotrained") + ("reference",) * bool(strong):          # one large model at a time beside the base
            for t, x in tqdm(written.items(), desc=role, unit="iteration"):
                who = {"base": base, "reference": strong}.get(role) or Local(kept[t]["solver"], cfg)
                right[t, role] = answer(who, x, cfg, args, finished, verifier)
    return numbers(written, right, args.seed, truth_known)


def main(argv=None):
    args = read_arguments(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    rows = measure(args)
    print(table(rows))
    unknown = sum(row["unknown"] for row in rows)
    if unknown:
        print(f"{unknown} answer checks gave no verdict; those answers are left out")
    if args.json:
        settings = {name: value for name, value in vars(args).items() if name not in ("json", "figure", "threads")}
        Path(args.json).write_text(json.dumps({"settings": settings, "iterations": rows}, indent=1) + "\n", encoding="utf-8")
    if args.figure:
        draw(rows, args.figure)


if __name__ == "__main__":
    run_script(main, stopped="stopped; with --json the same command goes on from here")
