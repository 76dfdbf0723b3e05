"""Makes one web page of run folders: reads them, draws charts, chooses questions, fills page.html.

    A_gen = dugrpo(s, mode)          a draft's advantage, under every normalisation

    code      symbol   shape    meaning
    s         s        (D, n)   score of each draft of an iteration, as it was paid: a valid
                                question's reward, else invalid_score
    A         A_gen    (D, n)   advantages, a table for each mode
    t                           iteration; 0 is the anchor, before training

A run here is {"config", "metrics": its lines, "drafts": {t: lines of questions.jsonl}, "questions":
{t: the valid ones}, "texts": {doc_id: text}, "judge", "notes"}. A chart is {"x", "y"} with an entry
for each iteration that has a value, perhaps with "bars" (half a 95 % interval) or "bands" (shaded
between pairs of columns), or {"x", "parts"} with a column for each part of a stack.

Of the questions only the ends of each iteration's ranking travel into the page, and a few invalid
drafts, with long texts cut: 100 iterations of 1,024 drafts stay below 20 MB.
"""
import json
import math
import os
import re
from collections import Counter, defaultdict
from itertools import chain
from pathlib import Path

import torch

import rewards
from data import InputError
from dugrpo import MODES, dugrpo
from engine.metrics import duplicate_share
from engine.outputs import pyplot, write_whole
from engine.overlap import folded
from engine.pools import chunks
from engine.readers import load_documents, load_questions
from engine.texts import is_text

TEMPLATE = Path(__file__).resolve().with_name("page.html")
# Bytes; above it fewer questions of each iteration are kept.
LIMIT = 15e6
# Characters of each text.
LONGEST = {"document": 3000, "question": 1200, "choice": 300, "answer": 1000, "draft": 1000}
# Those of page.html, --c0 to --c7; colour-blind readers tell them apart, too.
COLOURS = ["#0072b2", "#c84c00", "#00805c", "#b5538c", "#9a6b00", "#3d9bd1", "#6b5bb5", "#8a8a86"]

DRAFT_FIELDS = ["iteration", "slot", "doc_id", "status", "question", "choices", "answer"]


# ---------------------------------------------------------------- reading a run folder

def read_text(path):
    try:
        return Path(path).read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), "
                         "expected a file in the folder of a run") from None


def read_lines(path, fields):
    """JSONL -> (list of objects, note or None).

    A last line cut short is left out and noted; any other broken line raises InputError.
    """
    lines = [(i, line) for i, line in enumerate(read_text(path).split("\n"), 1) if line.strip()]
    found = []
    for i, line in lines:
        try:
            item = json.loads(line)
        except (ValueError, RecursionError):
            if i == lines[-1][0]:
                name = os.path.basename(path)
                return found, f"the last line of {name} is cut short, as by a kill, and left out"
            raise InputError(f"{path}: line {i}: broken JSON, "
                             "expected one object per line") from None
        if not isinstance(item, dict) or not all(name in item for name in fields):
            raise InputError(f"{path}: line {i}: expected an object with {', '.join(fields)}")
        found.append(item)
    return found, None


def load_run(folder, judge=None):
    """A run folder -> a run, as the header says. Raises InputError.

    judge: a draft of the embedded world -> (skill, is the key right?); kept where the run was
    logged with the world's truth.
    """
    try:
        config = dict(json.loads(read_text(f"{folder}/config.json")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{folder}/config.json: expected a JSON object ({error})") from None

    metrics, cut_metrics = read_lines(f"{folder}/metrics.jsonl", ["iteration"])
    if not metrics:
        raise InputError(f"{folder}/metrics.jsonl: no finished iteration in it, "
                         "expected at least one line")

    written, cut_drafts = [], "there is no questions.jsonl"
    if os.path.exists(f"{folder}/questions.jsonl"):
        written, cut_drafts = read_lines(f"{folder}/questions.jsonl", DRAFT_FIELDS)
    drafts = {line["iteration"]: [] for line in metrics}
    for draft in written:
        if draft["iteration"] in drafts:
            drafts[draft["iteration"]].append(draft)

    texts, missing = load_texts(folder, config) if written else ({}, None)
    # written before their line of metrics.jsonl
    early = len(written) - sum(map(len, drafts.values()))
    unfinished = f"{early} drafts of an unfinished iteration are left out" if early else None
    notes = [note for note in (cut_metrics, cut_drafts, missing, unfinished) if note]

    return {"config": config, "metrics": metrics, "drafts": drafts, "texts": texts, "notes": notes,
            "questions": {t: list(filter(valid, some)) for t, some in drafts.items()},
            "judge": judge if "key_accuracy" in metrics[0] else None}


def load_texts(folder, config):
    """-> ({doc_id: text} of the run's documents, None), or ({}, why there are none)."""
    path = str(config.get("documents"))
    cutting = {}
    try:
        if Path(path).is_dir() or is_text(path):
            # where such files are cut depends on the generator's tokenizer
            cutting = {"max_tokens": config["max_chunk_tokens"],
                       "count_tokens": token_counter(folder, config)}
        documents = load_documents(path, **cutting)
        if config.get("rlvr_documents"):
            problems = load_questions(config["rlvr_documents"], say=lambda note: None)
            documents += chunks(problems, config["rlvr_chunks"], config["rlvr_per_chunk"])
        return {document.doc_id: document.content for document in documents}, None
    except (InputError, OSError, ValueError) as error:
        reason = cut(" ".join(str(error).split()), 300)
        return {}, f"the documents cannot be shown: {reason}"


def token_counter(folder, config):
    """A run -> function from a text to its number of tokens, by the generator's tokenizer."""
    from transformers import AutoTokenizer
    own = os.path.join(folder, "generator")
    anchor = config.get("generator_model") or config.get("model")
    model = own if os.path.exists(own) else anchor
    tokenizer = AutoTokenizer.from_pretrained(
        model, local_files_only=True, trust_remote_code=False)

    def count(text):
        return len(tokenizer(text, add_special_tokens=False).input_ids)

    return count


def names_of(folders):
    """Run folders -> short names, all different."""
    bases = [os.path.basename(os.path.abspath(folder)) for folder in folders]
    names = []
    for i, base in enumerate(bases):
        alone = bases.count(base) == 1
        names.append(base if alone else f"{i + 1}: {os.path.normpath(folders[i])}")
    return names


# ---------------------------------------------------------------- facts about drafts

def valid(draft):
    return draft.get("status") == "valid"


def score_of(draft, config):
    """What the generator was paid for a draft.

    None for a question that nothing was paid for (reward fixed, or no g_dev).
    """
    if not valid(draft):
        same = config.get("invalid_score")
        if same is None and "+" in config.get("reward", ""):
            # each term of a sum has its own
            terms = rewards.terms_of(config["reward"], None, None)
            return sum(term.weight * term.invalid for term in terms)
        return same or 0.0
    # runs from before there were other rewards
    return draft["score"] if "score" in draft else draft.get("s_hat")


def mean(values):
    """Mean of the values that are not None; None if there is none."""
    known = [x for x in values if x is not None]
    return sum(known) / len(known) if known else None


def column(lines, name):
    """Lines of a log -> the values of one of their fields, None where there is none."""
    return [line.get(name) for line in lines]


def skill(run, draft):
    return run["judge"](draft)[0] or "another"


def source(run, draft):
    """The file that a document comes from: its id without the number."""
    return re.sub(r"[-_.:# ]*\d+$", "", str(draft["doc_id"]))


def heading(run, draft):
    found = re.match(r"\s*#+\s*(.*)", run["texts"].get(draft["doc_id"], ""))
    return found[1] if found else "none"


def first_word(run, draft):
    words = re.findall(r"\w+", draft["question"].lower())
    return words[0] if words else "none"


def kinds(run):
    """-> (what tells a run's questions apart, function from a draft to its kind).

    By skill in the embedded world; elsewhere by the first of three ways that makes 2 to 40 kinds.
    At most eight kinds, the last of them "others".
    """
    ways = {"document": source, "heading": heading, "first word": first_word}
    if run["judge"]:
        ways = {"skill": skill}
    questions = list(chain.from_iterable(run["questions"].values()))
    for by, way in ways.items():
        count = Counter(way(run, draft) for draft in questions)
        if 2 <= len(count) <= 40:
            break
    kept = {name for name, _ in count.most_common(8 if len(count) <= 8 else 7)}

    def kind_of(draft):
        name = way(run, draft)
        return name if name in kept else "others"

    return by, kind_of


# ---------------------------------------------------------------- results with their errors

def last_test(run):
    """-> (accuracy, standard error or None, iteration) of the last evaluation; None without any."""
    for x in reversed(run["metrics"]):
        if x.get("test_accuracy") is not None:
            return x["test_accuracy"], x.get("test_standard_error"), x["iteration"]
    return None


def anchor_test(run):
    """The same of the anchor, before training.

    metrics.jsonl holds no standard error for it. With one answer to each of Q questions that is
    sqrt(p (1 - p) / (Q - 1)), so it follows from the one after training; else it is None.
    """
    p = run["metrics"][0].get("test_accuracy_anchor")
    if p is None:
        return None
    error = None
    after = last_test(run)
    if after and after[1] and run["config"].get("eval_samples", 1) == 1:
        error = after[1] * math.sqrt(p * (1 - p) / (after[0] * (1 - after[0])))
    return p, error, 0


def percent(x, error=None):
    """A share, its standard error -> "48.5 % ± 4.9": half of a 95 % interval."""
    if x is None:
        return "an unknown share"
    return f"{100 * x:.1f} %" + (f" ± {196 * error:.1f}" if error else "")


def measured(test):
    """A test accuracy, or None -> (its value, when it was measured)."""
    if test is None:
        return "unknown", "not tested"
    accuracy, error, t = test
    return percent(accuracy, error), f"after {t} iterations" if t else "before training"


def validation(run):
    """-> (last accuracy on the validation questions, what beside it), or None without any."""
    lines = [x for x in run["metrics"] if x.get("valid_accuracy") is not None]
    if not lines:
        return None
    x = lines[-1]
    before, best = x["valid_accuracy_anchor"], x["best_valid_accuracy"]
    about = (f"after {x['iteration']} iterations, {percent(before)} before training; highest "
             f"{percent(best)} after {x['best_valid_iteration']}, which is partly luck")
    return percent(x["valid_accuracy"], x["valid_standard_error"]), about


def difference(after, before):
    """Two (mean, standard error, ...), independent -> (difference, half its 95 % interval).

    The half is None where no error is known; where one is, the other counts as large.

    >>> difference((0.5, 0.03), (0.25, 0.04))
    (0.25, 0.098)
    """
    known = [x[1] for x in (after, before) if x[1] is not None]
    if not known:
        return after[0] - before[0], None
    errors = [known[0] if x[1] is None else x[1] for x in (after, before)]
    return after[0] - before[0], 1.96 * math.hypot(*errors)


def pay(run):
    """-> (mean score, its standard error over documents) in the run's first and last fifth.

    The drafts of one document repeat each other, so a document of an iteration counts as one draw:
    error^2 = G / (G - 1) sum over the G documents of (sum of score - mean)^2 / Q^2. None for a
    fifth without scores.
    """
    ends = []
    for questions in fifths(run):
        scores = defaultdict(list)
        for draft in questions:
            score = score_of(draft, run["config"])
            if score is not None:
                scores[draft["iteration"], draft["slot"][0]].append(score)
        ends.append(clustered(list(scores.values())))
    return ends


def clustered(groups):
    """Lists of values -> (mean of all, its standard error over lists, None of one); None of none.

    >>> clustered([[1.0, 1.0], [0.0, 0.0]])
    (0.5, 0.5)
    """
    if not groups:
        return None
    values = list(chain.from_iterable(groups))
    centre = sum(values) / len(values)
    if len(groups) == 1:
        return centre, None
    squares = sum((sum(some) - len(some) * centre) ** 2 for some in groups)
    G = len(groups)
    return centre, math.sqrt(squares * G / (G - 1)) / len(values)


def tokens(run):
    """-> a phrase on the tokens of all iterations; older runs did not count them."""
    sampled = [x for x in column(run["metrics"], "tokens_sampled") if x is not None]
    trained = [x for x in column(run["metrics"], "tokens_trained") if x is not None]
    if not sampled:
        return "tokens were not counted"
    return f"{sum(sampled):,} tokens sampled, {sum(trained):,} trained on"


def seconds_of(run):
    return sum(sum((x.get("seconds") or {}).values()) for x in run["metrics"])


def machine(run):
    """-> (hardware if the run recorded it, else threads; what it computed in)."""
    config = run["config"]
    threads = config.get("threads")
    named = {None: "unknown", 0: "all cores", 1: "1 thread"}
    counted = named.get(threads, f"{threads} threads")
    about = f"{config.get('dtype', '?')}, device {config.get('device', '?')}"
    memory = max(x.get("peak_memory_mb") or 0 for x in run["metrics"])
    if memory:
        about += f", {memory:,.0f} MB at most"
    return config.get("hardware") or counted, about


def repeats(run):
    """The repeated questions of the last iteration that has valid ones; None without any.

    share, and expected: the share if every document gave one question, said by all its drafts.
    """
    asked = [(t, some) for t, some in run["questions"].items() if some]
    if not asked:
        return None
    t, questions = asked[-1]
    texts = [draft["question"] for draft in questions]
    documents = len({draft["slot"][0] for draft in questions})
    return {"iteration": t, "questions": len(texts), "distinct": len(set(map(folded, texts))),
            "documents": documents, "share": duplicate_share(texts),
            "expected": 1 - documents / len(texts)}


# ---------------------------------------------------------------- charts

def line(x, y, **more):
    """Columns of equal length -> a chart of the places where y has a value; None without any."""
    places = [place for place in zip(x, y, *more.values()) if isinstance(place[1], (int, float))]
    return dict(zip(["x", "y", *more], zip(*places))) if places else None


def stack(x, parts):
    """{name: column} -> a chart of parts."""
    return {"x": x, "parts": parts} if parts else None


def shares(lists, order=None):
    """A list of names for each iteration -> {name: column of its share}.

    In alphabetical order unless one is given.

    >>> shares([["a", "b"], ["b", "b"]])
    {'a': [0.5, 0.0], 'b': [0.5, 1.0]}
    """
    if order is None:
        order = sorted(set(chain.from_iterable(lists)))
    return {name: share_of(name, lists) for name in order}


def share_of(name, lists):
    return [names.count(name) / max(1, len(names)) for names in lists]


def quantiles(values, at):
    at = torch.tensor(at, dtype=torch.float64)
    return torch.tensor(values, dtype=torch.float64).quantile(at).tolist()


def columns(lines):
    """A table's lines -> its columns."""
    return [list(one) for one in zip(*lines)]


def charts_of(run, kind_of, names):
    """A run -> {name: chart, or None} for the metrics `names`, and for what its drafts say."""
    metrics = run["metrics"]
    t = list(run["questions"])
    questions = list(run["questions"].values())
    charts = {name: line(t, column(metrics, name)) for name in names}

    for name in ("test", "valid"):
        accuracy = [metrics[0].get(f"{name}_accuracy_anchor")] + column(metrics, f"{name}_accuracy")
        errors = column(metrics, f"{name}_standard_error")
        bars = [0] + [1.96 * (error or 0) for error in errors]
        charts[f"{name}_accuracy"] = line([0] + t, accuracy, bars=bars)

    texts = [column(some, "question") for some in questions]
    charts["duplicate_share"] = line(t, list(map(duplicate_share, texts)))
    charts["question_words"] = line(t, list(map(mean_words, texts)))

    charts["kinds"] = stack(t, shares([list(map(kind_of, some)) for some in questions]))
    charts["difficulty"] = difficulty_chart(t, questions)
    charts["invalid"] = invalid_chart(run["drafts"])
    charts["seconds"] = seconds_chart(t, metrics)
    return charts | score_charts(run["config"], run["questions"])


def mean_words(texts):
    return mean([len(text.split()) for text in texts])


def difficulty_chart(t, questions):
    words = ["all wrong", "some right", "all right"]
    found = [list(filter(None, map(difficulty, some))) for some in questions]
    return stack(t, shares(found, words if any(found) else []))


def difficulty(draft):
    solved = draft.get("solved")
    if solved is None:
        return None
    if solved == 0:
        return "all wrong"
    return "all right" if solved == 1 else "some right"


def invalid_chart(drafts):
    """{t: drafts} -> a stack of the reasons for which drafts are invalid."""
    parts = shares([column(some, "status") for some in drafts.values()])
    parts.pop("valid", None)
    return stack(list(drafts), {name.replace("_", " "): part for name, part in parts.items()})


def seconds_chart(t, metrics):
    seconds = [x.get("seconds") or {} for x in metrics]
    parts = {}
    for stage in seconds[0]:
        parts[stage.replace("_", " ")] = [x.get(stage, 0) for x in seconds]
    return stack(t, parts)


def score_charts(config, questions):
    """{t: valid questions} -> the charts of what they were paid; empty ones where nothing was."""
    scores = defaultdict(list)
    at_solved = defaultdict(list)
    for t, some in questions.items():
        for draft in some:
            score = score_of(draft, config)
            if score is None:
                continue
            scores[t].append(score)
            if draft.get("solved") is not None:
                at_solved[round(draft["solved"], 3)].append(score)
    if not any(map(any, scores.values())):
        return {"score_mean": None, "score_std": None, "score_quantiles": None}

    t = list(scores)
    values = list(scores.values())
    q = columns([quantiles(some, [0.05, 0.25, 0.5, 0.75, 0.95]) for some in values])
    charts = {"score_mean": line(t, list(map(mean, values))),
              "score_std": line(t, list(map(spread, values))),
              "score_quantiles": line(t, q[2]) | {"bands": [[q[0], q[4]], [q[1], q[3]]]},
              "score_by_solved": None}

    if at_solved:
        x = sorted(at_solved)
        middle = columns([quantiles(at_solved[share], [0.25, 0.75]) for share in x])
        means = [mean(at_solved[share]) for share in x]
        charts["score_by_solved"] = line(x, means) | {"bands": [middle]}
    return charts


def spread(values):
    return float(torch.tensor(values).std()) if len(values) > 1 else None


def kind_table(run, kind_of):
    """A row of the page's table for each kind of question, the most frequent first.

    [name, number, its share of the first fifth and of the last fifth of the run, share solved, mean
    score, share of right keys or None where nobody knows].
    """
    first, last = fifths(run)
    members = defaultdict(list)
    for draft in chain.from_iterable(run["questions"].values()):
        members[kind_of(draft)].append(draft)

    table = []
    for name, drafts in sorted(members.items(), key=lambda item: -len(item[1])):
        ends = share_of(name, [list(map(kind_of, first)), list(map(kind_of, last))])
        scores = [score_of(draft, run["config"]) for draft in drafts]
        keys = [float(run["judge"](draft)[1]) for draft in drafts] if run["judge"] else []
        table.append([name, len(drafts), *ends, mean(column(drafts, "solved")), mean(scores),
                      mean(keys)])
    return table


def fifths(run):
    """A run -> (valid questions of its first fifth of iterations, those of its last fifth)."""
    lists = list(run["questions"].values())
    fifth = max(1, len(lists) // 5)
    return [list(chain.from_iterable(some)) for some in (lists[:fifth], lists[-fifth:])]


def aligned(summaries):
    """The same summaries, each stack with the parts of all runs, so that a part has one colour.

    A part is 0 where a run lacks it.
    """
    for name in set(chain.from_iterable(run["charts"] for run in summaries)):
        charts = [run["charts"].get(name) for run in summaries]
        stacks = [chart for chart in charts if chart and "parts" in chart]
        parts = list(dict.fromkeys(chain.from_iterable(chart["parts"] for chart in stacks)))
        for chart in stacks:
            nothing = [0] * len(chart["x"])
            chart["parts"] = {part: chart["parts"].get(part, nothing) for part in parts}
    return summaries


# ---------------------------------------------------------------- the questions that travel

def grid(drafts, config):
    """The drafts of an iteration -> (D, n) s.

    None where no question was paid, or a draft is missing.
    """
    D = 1 + max([draft["slot"][0] for draft in drafts], default=-1)
    n = 1 + max([draft["slot"][1] for draft in drafts], default=-1)
    paid = [score_of(draft, config) for draft in drafts if valid(draft)]
    if len(drafts) != D * n or all(score is None for score in paid):
        return None
    s = torch.zeros(D, n, dtype=torch.float64)
    for draft in drafts:
        s[tuple(draft["slot"])] = score_of(draft, config) or 0.0
    return s


def extremes(run, k):
    """A run -> {t: {"most": k questions, "least": k questions, "invalid": up to 3 drafts}}.

    Ranked by score, or by share solved where nothing was paid.
    """
    chosen = {}
    for t, drafts in run["drafts"].items():
        s = grid(drafts, run["config"])
        # the terms of a sum become advantages each by itself, which their total does not show
        one = s is not None and str(run["config"].get("reward")).isidentifier()
        A = {mode: dugrpo(s, mode) for mode in MODES} if one else {}

        def rank(draft):
            found = draft.get("solved") if s is None else score_of(draft, run["config"])
            return found or 0.0

        ranked = sorted(run["questions"][t], key=rank, reverse=True)
        times = defaultdict(list)
        for draft in ranked:
            times[folded(draft["question"])].append(rank(draft))

        # no draft stands in both lists
        half = -(-len(ranked) // 2)
        invalid = [draft for draft in drafts if not valid(draft)]
        lists = {"most": distinct(ranked[:half])[:k],
                 "least": distinct(ranked[half:][::-1])[:k],
                 "invalid": invalid[:min(k, 3)]}
        chosen[t] = {}
        for name, some in lists.items():
            chosen[t][name] = [details(draft, s, A, run, times) for draft in some]
    return chosen


def distinct(questions):
    """Questions in order -> the first of each text, but for case, space and punctuation."""
    first = {}
    for draft in questions:
        first.setdefault(folded(draft["question"]), draft)
    return list(first.values())


def details(draft, s, A, run, times):
    """One draft as the page shows it, with long texts cut.

    times: {text of a question: what each draft that says it ranks by, the best first}.
    """
    d, j = draft["slot"]
    choices = draft.get("choices") or []
    key = choices.index(draft["answer"]) if draft.get("answer") in choices else None
    answers = []
    for answer in (draft.get("answers") or [])[:2]:
        answers.append({"text": shown(answer, "text", "answer"), "right": answer.get("right")})
    asked = valid(draft)
    score = score_of(draft, run["config"]) if asked or A else None
    same_text = times[folded(draft["question"])] if asked else []
    recorded = ("s_hat", "solved", "tokens", "own_share", "overlap")
    return {"document": draft.get("doc_id"),
            "question": shown(draft, "question", "question"),
            "choices": [cut(str(choice), LONGEST["choice"]) for choice in choices],
            "key": key,
            "reason": None if asked else draft.get("status"),
            "draft": shown(draft, "text", "draft"),
            "answers": answers,
            "times": len(same_text),
            "range": [same_text[-1], same_text[0]] if asked else None,
            "truth": run["judge"](draft) if run["judge"] and asked else None,
            "score": score,
            "scores": s[d].tolist() if s is not None else None,
            "place": j,
            "A": {mode: float(table[d, j]) for mode, table in A.items()},
            **{name: draft.get(name) for name in recorded}}


def shown(item, name, what):
    """The text item[name], cut as a text of that sort is; None if there is none."""
    text = item.get(name)
    return None if text is None else cut(str(text), LONGEST[what])


def cut(text, limit):
    if len(text) <= limit:
        return text
    return f"{text[:limit]} [... {len(text) - limit:,} more characters]"


# ---------------------------------------------------------------- the page

def clean(x):
    """Anything -> the same, fit for JSON.

    Five digits, None for what is not finite, no halves of surrogate pairs.
    """
    if isinstance(x, dict):
        return {clean(str(name)): clean(value) for name, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [clean(value) for value in x]
    if isinstance(x, str):
        return x.encode("utf-8", "replace").decode()
    if isinstance(x, float):
        return float(f"{x:.5g}") if math.isfinite(x) else None
    return x


def state(name, summaries):
    """"draw"; or "zero", "missing": a chart without anything to see in any run is named in the
    page, not drawn.
    """
    values = []
    for run in summaries:
        chart = run["charts"].get(name) or {}
        values += chain(chart.get("y", ()), *chart.get("parts", {}).values())
    if any(values):
        return "draw"
    return "zero" if values else "missing"


def in_state(wanted, panels, summaries):
    return [panel for panel in panels if state(panel[0], summaries) == wanted]


def fill(runs, summaries, sections, glossary):
    """Runs and what is said of them -> (HTML, k).

    With the k most and k least useful questions of each iteration, as many as stay below LIMIT.
    """
    data = {"sections": [], "glossary": glossary}
    for title, intro, panels in sections:
        states = {name: in_state(name, panels, summaries) for name in ("draw", "zero", "missing")}
        data["sections"].append({"title": title, "intro": intro, **states})

    for k in (8, 4, 2, 1, 0):
        data["runs"] = [about | travelling(run, k) for run, about in zip(runs, summaries)]
        text = json.dumps(clean(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        if len(text.encode()) < LIMIT:
            break
    before, after = TEMPLATE.read_text(encoding="utf-8").split("{{DATA}}")
    # without a "<" no text can close the script element it lies in
    return before + text.replace("<", "\\u003c") + after, k


def travelling(run, k):
    """A run -> its questions that go into the page, and the documents they were written from."""
    chosen = extremes(run, k)
    read = set()
    for lists in chosen.values():
        read |= {x["document"] for x in chain.from_iterable(lists.values())}
    texts = {name: cut(text, LONGEST["document"])
             for name, text in run["texts"].items() if name in read}
    return {"questions": chosen, "documents": texts}


def write(text, path):
    """The whole file or none of it; InputError if it cannot be written."""
    try:
        write_whole(path, text)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None


# ---------------------------------------------------------------- figures

def draw_figures(summaries, sections, folder):
    """Every chart of the page as folder/NAME.png and .svg -> their number.

    A stack gives one for each run.
    """
    plt = pyplot("--figures", "agg", **{"axes.spines.top": False, "axes.spines.right": False})
    plt.rcParams["axes.prop_cycle"] = plt.cycler(color=COLOURS)
    os.makedirs(folder, exist_ok=True)
    jobs = figures_of(summaries, sections)
    for file, panel, runs in jobs:
        figure = draw_figure(plt, panel, runs, summaries)
        for form in ("png", "svg"):
            metadata = {"Date": None} if form == "svg" else None
            figure.savefig(os.path.join(folder, f"{file}.{form}"), dpi=150, metadata=metadata)
        plt.close(figure)
    return len(jobs)


def figures_of(summaries, sections):
    """-> [(name of the file, panel, the runs in it)]."""
    jobs = []
    for panel in chain.from_iterable(panels for _, _, panels in sections):
        name = panel[0]
        if state(name, summaries) != "draw":
            continue
        runs = [run for run in summaries if run["charts"].get(name)]
        if "parts" not in runs[0]["charts"][name]:
            jobs.append((name, panel, runs))
            continue
        for i, run in enumerate(runs, 1):
            jobs.append((f"{name}-{i}" if len(summaries) > 1 else name, panel, [run]))
    return jobs


def draw_figure(plt, panel, runs, summaries):
    name, unit, title = panel[:3]
    figure, ax = plt.subplots(figsize=(5, 3), layout="constrained")
    for run in runs:
        factor = 100 if unit == "%" else 1
        draw(ax, run["charts"][name], factor, run["name"], f"C{summaries.index(run)}")
    ax.set_title(title.format(by=runs[0]["by"]) + " (%)" * (unit == "%"))
    ax.set_xlabel("share solved" if name == "score_by_solved" else "iteration")
    ax.axhline(0, color="grey", linewidth=0.6)
    figure.legend(loc="outside right upper", frameon=False, fontsize=7)
    return figure


def draw(ax, chart, factor, name, colour):
    """One run's chart, its values times factor."""
    def times(values):
        return [factor * x for x in values]

    x = chart["x"]
    if "parts" in chart:
        base = [0] * len(x)
        for part, values in chart["parts"].items():
            ax.bar(x, times(values), width=1, bottom=base, label=part)
            base = [a + b for a, b in zip(base, times(values))]
        return
    for low, high in chart.get("bands", []):
        ax.fill_between(x, times(low), times(high), color=colour, alpha=0.2, linewidth=0)
    bars = times(chart["bars"]) if "bars" in chart else None
    marker = "o" if len(x) < 25 else None
    ax.errorbar(x, times(chart["y"]), bars, color=colour, label=name, marker=marker, markersize=3,
                elinewidth=0.8)
