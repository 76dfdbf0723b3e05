"""Turns run folders into one web page: the curves, the curriculum, what the generator was paid for, and the questions themselves.

    python report.py runs/toy-influence-seed0                                           # writes report.html into the run folder
    python report.py runs/toy-influence-seed0 runs/toy-fixed-seed0 --out both.html      # overlaid
    python report.py runs/toy-influence-seed0 --figures figures                         # every chart as PNG and SVG too

Prints the size of the page, which opens in any browser and asks no network for anything. Nothing is learned or scored here. The one thing
recomputed is a question's advantage under all four normalisations:

    A_gen = dugrpo(s, mode)

    code      symbol   shape    meaning
    s         s        (D, n)   score of each draft of an iteration, as it was paid: a valid question's reward, else invalid_score
    A         A_gen    (D, n)   advantages, a table for each mode
    t                           iteration; 0 is the anchor, before training

A chart is {"x", "y"} with one entry for each iteration that has a value, perhaps with "bars" (half a 95 % interval) or "bands" (shaded
between pairs of columns), or {"x", "parts"} with a column for each part of a stack. report_template.html draws them. Of the questions only
the most and the least useful of each iteration travel into the page, and a few invalid drafts, with long texts cut: that keeps a run of 100
iterations of 1,024 drafts below 20 MB.

Our own choices: no smoothing; every axis includes 0; a metric without a value, or always 0, is named instead of drawn. The curriculum is
grouped by skill in the embedded world, elsewhere by the files or headings that the documents come from, or, where those do not tell
questions apart, by their first word. Documents come in a shuffled order that no generator chooses: their shares show what was read.
"""
import argparse
import json
import math
import os
import re
from collections import Counter, defaultdict
from pathlib import Path

import torch

import toy
from data import InputError, Question, is_text, load_documents, run_script
from dugrpo import MODES, dugrpo
from log import duration, duplicate_share

TEMPLATE = Path(__file__).resolve().with_name("report_template.html")
LIMIT = 15e6                                # bytes; above it fewer questions of each iteration are kept
COLOURS = ["#0072b2", "#c84c00", "#00805c", "#b5538c", "#9a6b00", "#3d9bd1", "#6b5bb5", "#8a8a86"]      # as the page's, for every eye
LONGEST = {"document": 3000, "question": 1200, "choice": 300, "answer": 1000, "draft": 1000}       # characters

# Section: title, what it is about, and its charts: key, unit (% a share, s seconds, + signed), title, what it means when it moves.
SECTIONS = [
    ("Does the solver learn?", "Accuracy on questions that nobody trains on is the result of a run; everything below is about why it "
     "moves.", [
        ("test_accuracy", "%", "Test accuracy", "Held-out questions answered right, after the update. Up: what was learned carries over. "
         "Flat while dev rises: the gain stays inside the dev set. Down: something is unlearned. Bars: 95 % intervals over questions. "
         "Iteration 0: the anchor."),
        ("dev_accuracy", "%", "Dev accuracy", "Dev questions answered right, before the update. Up: the solver gets better at what "
         "influence pays for. Far above test: the generator has found the dev set rather than the skill."),
        ("solved_share", "%", "Generated questions solved", "Answers that match the generator's own key. Up: questions get easier for this "
         "solver, or their keys better. Near 100 %: little left to learn. Near chance: too hard, or wrongly keyed.")]),
    ("What does the generator write?", "The mix of questions, how hard they are for the present solver, and whether they repeat.", [
        ("groups", "%", "Questions by {by}", "A widening band: the generator moves towards it."),
        ("difficulty", "%", "Difficulty", "Valid questions by how many of their answers match the key. Only the middle band has a "
         "gradient: as it thins, fewer questions teach anything."),
        ("key_accuracy", "%", "Right answer keys", "Known in the embedded world only, and hidden from training. Up: fewer errors are "
         "taught."),
        ("target_share", "%", "Questions of the dev set's skill", "Known in the embedded world only. Up: the generator finds what the dev "
         "set needs."),
        ("duplicate_share", "%", "Repeated questions", "Valid questions that say the same as an earlier one of the iteration, but for "
         "case, space and punctuation. Up: less variety. Near 100 %: collapse."),
        ("overlap_dev_share", "%", "Overlap with the dev set", "Valid questions that share eight words in a row with a dev question. Up: "
         "the generator may be copying what it is paid by."),
        ("overlap_test_share", "%", "Overlap with the test set", "Valid questions that share eight words in a row with a test question. "
         "Above 0: look at them before trusting the test accuracy."),
        ("question_words", "", "Words in a question", "Mean over valid questions, without options. A drift without a gain in accuracy: "
         "length was found, not content."),
        ("draft_tokens_mean", "", "Tokens in a draft", "All that the generator wrote. Up to the length limit: drafts get cut and turn "
         "invalid.")]),
    ("What is it paid for?", "The score of a question. Under the reward influence it is s_hat, the cosine between the step the solver "
     "would take on the question and the dev gradient: above 0, that step also lowers the dev loss. There, a question answered all right "
     "or all wrong scores exactly 0.", [
        ("score_quantiles", "+", "Scores of valid questions", "Line: median. Bands: the middle half, and 5 to 95 %. Up: the typical "
         "question is worth more. Narrow: little left to tell apart, so the generator follows noise."),
        ("score_mean", "+", "Mean score", "Up: the generator earns more. If accuracy does not follow, it is paid for something else."),
        ("score_std", "", "Spread of scores", "Standard deviation over valid questions. Near 0: nothing to choose between."),
        ("score_by_solved", "+", "Score against difficulty", "Mean score at each share solved, over all iterations; band: the middle half. "
         "A difficulty reward would be a thin curve. A wide band: something else than difficulty decides, usefulness or noise."),
        ("s_hat_positive_share", "%", "Questions with s_hat above 0", "Down over a run is normal: questions that become all right have "
         "s_hat 0."),
        ("g_dev_norm", "", "Norm of the dev gradient", "Down to nothing: dev questions are nearly all solved, or all hopeless, and point "
         "nowhere."),
        ("own_share_mean", "%", "A question's own share in v'", "How much of the second moment in Gamma is the question's own g^2. Near "
         "100 %: no history yet, so Gamma is like sign(g). Low: AdamW's history decides."),
        ("invalid_paid_share", "%", "Invalid drafts that are rewarded", "Invalid drafts with A_gen above 0: they outrank valid questions "
         "of negative influence. Up: the generator is pushed towards nonsense.")]),
    ("Are both models healthy?", "Signs of trouble that accuracy shows too late.", [
        ("valid_share", "%", "Valid drafts", "Drafts that hold a well-formed question. Down: the generator loses the format."),
        ("invalid", "%", "Why drafts are invalid", "Share of all drafts. One growing band: one habit to look at."),
        ("mixed_share", "%", "Questions with a gradient", "Both right and wrong answers. Down: the solver trains on fewer questions."),
        ("dev_mixed_share", "%", "Dev questions with a gradient", "Down: g_dev rests on fewer questions and is noisier."),
        ("draft_entropy", "", "Entropy of drafts", "Mean -log-prob of the sampled tokens. A fast fall: exploration ends. A rise: it comes "
         "apart."),
        ("answer_entropy", "", "Entropy of answers", "The same for the solver's answers. Down: it becomes sure of itself, rightly or not."),
        ("generator_grad_norm", "", "Generator's gradient norm", "Before clipping. Spikes: a few drafts dominate an update."),
        ("solver_grad_norm", "", "Solver's gradient norm", "Before clipping. Spikes: a few answers dominate an update."),
        ("draft_cut_share", "%", "Drafts cut at the length limit", "Up: the generator rambles, or max_response_tokens is too small."),
        ("answer_cut_share", "%", "Answers cut at the length limit", "A cut answer has no box and counts as wrong. Up: accuracy measures "
         "length too."),
        ("answer_tokens_mean", "", "Tokens in an answer", "Up: longer reasoning, and more time."),
        ("skipped_steps", "", "Skipped steps", "Updates and scores left out so far since a gradient was not finite. Should stay 0."),
        ("verifier_timeouts", "", "Checks that timed out", "Free-form answers left out, neither right nor wrong. Should stay near 0.")]),
    ("Where does the time go?", "Wall-clock seconds of each stage, and memory of the process.", [
        ("seconds", "s", "Seconds of an iteration by stage", "The widest band is the first place to save time."),
        ("tokens_sampled", "", "Tokens sampled", "Response tokens of both roles. Spikes: iterations with an evaluation."),
        ("tokens_trained", "", "Tokens trained on", "In both updates. Down: fewer questions have a gradient."),
        ("peak_memory_mb", "", "Peak memory (MB)", "So far. A steady rise is a leak.")]),
]


# ---------------------------------------------------------------- reading a run folder

def read_text(path):
    try:
        return Path(path).read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected a file in the folder of a run") from None


def read_lines(path, fields):
    """JSONL -> (list of objects, note or None). A last line cut short is left out and noted; any other broken line raises InputError."""
    lines, rows = [(i, line) for i, line in enumerate(read_text(path).split("\n"), 1) if line.strip()], []
    for i, line in lines:
        try:
            rows.append(json.loads(line))
            if not isinstance(rows[-1], dict) or not all(name in rows[-1] for name in fields):
                raise InputError(f"{path}: line {i}: expected an object with {', '.join(fields)}")
        except (ValueError, RecursionError):
            if i == lines[-1][0]:
                return rows, f"the last line of {os.path.basename(path)} is cut short, as by a kill, and left out"
            raise InputError(f"{path}: line {i}: broken JSON, expected one object per line") from None
    return rows, None


def load_run(folder):
    """A run folder -> {"config", "metrics": its lines, "rows": {t: drafts}, "texts": {doc_id: text}, "toy", "notes"}. Raises InputError."""
    try:
        config = dict(json.loads(read_text(f"{folder}/config.json")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{folder}/config.json: expected a JSON object ({error})") from None
    metrics, note = read_lines(f"{folder}/metrics.jsonl", ["iteration"])
    if not metrics:
        raise InputError(f"{folder}/metrics.jsonl: no finished iteration in it, expected at least one line")
    rows, notes = {line["iteration"]: [] for line in metrics}, [note]
    path, fields = f"{folder}/questions.jsonl", ["iteration", "slot", "doc_id", "status", "question", "choices", "answer"]
    drafts, note = read_lines(path, fields) if os.path.exists(path) else ([], "there is no questions.jsonl")
    unfinished = sum(row["iteration"] not in rows for row in drafts)                    # written before their line of metrics.jsonl
    for row in drafts:
        if row["iteration"] in rows:
            rows[row["iteration"]].append(row)
    texts, missing = load_texts(folder, config) if drafts else ({}, None)
    notes += [note, missing, f"{unfinished} drafts of an unfinished iteration are left out" if unfinished else None]
    return {"config": config, "metrics": metrics, "rows": rows, "texts": texts, "notes": [x for x in notes if x],
            "toy": "key_accuracy" in metrics[0]}                    # log.py writes it where documents are the embedded world's


def load_texts(folder, config):
    """-> ({doc_id: text} of the run's documents, None), or ({}, why there are none)."""
    path, cutting = str(config.get("documents")), {}
    try:
        if Path(path).is_dir() or is_text(path):                    # where such files are cut depends on the generator's tokenizer
            from transformers import AutoTokenizer
            own = os.path.join(folder, "generator")
            anchor = config.get("generator_model") or config.get("model")
            tokenizer = AutoTokenizer.from_pretrained(own if os.path.exists(own) else anchor, local_files_only=True)
            count = lambda text: len(tokenizer(text, add_special_tokens=False).input_ids)
            cutting = dict(max_tokens=config["max_chunk_tokens"], count_tokens=count)
        return {document.doc_id: document.content for document in load_documents(path, **cutting)}, None
    except (InputError, OSError, ValueError) as error:
        return {}, f"the documents cannot be shown: {shorten(' '.join(str(error).split()), 300)}"


# ---------------------------------------------------------------- from drafts to charts

def valid(row):
    return row.get("status") == "valid"


def score_of(row, config):
    """What the generator was paid for a draft; None for a question nothing was paid for (reward fixed, or no g_dev)."""
    if not valid(row):
        return config.get("invalid_score") or 0.0
    return row["score"] if "score" in row else row.get("s_hat")     # runs from before there were other rewards


def judged(row):
    """The embedded world's (skill, is the key right?) of a question."""
    return toy.judge(Question(row["question"], row["choices"], row["answer"]))


def mean(values):
    values = [x for x in values if x is not None]
    return sum(values) / len(values) if values else None


def grouping(run, questions):
    """-> (what groups the questions, a function from a row to its group, at most eight of them)."""
    heading = lambda row: re.match(r"\s*#+\s*(.*)", run["texts"].get(row["doc_id"], ""))
    ways = [("document", lambda row: re.sub(r"[-_.:# ]*\d+$", "", str(row["doc_id"]))),
            ("heading", lambda row: heading(row)[1] if heading(row) else "none"),
            ("first word", lambda row: (re.findall(r"\w+", row["question"].lower()) or ["none"])[0])]
    if run["toy"]:
        ways = [("skill", lambda row: judged(row)[0] or "another")]
    for by, group in ways:
        count = Counter(map(group, questions))
        if 2 <= len(count) <= 40:
            break
    kept = [name for name, _ in count.most_common(8 if len(count) <= 8 else 7)]
    return by, lambda row: group(row) if group(row) in kept else "others"


def line(x, y, **more):
    """Columns of equal length -> a chart of the places where y has a value; None where it has none."""
    rows = [row for row in zip(x, y, *more.values()) if isinstance(row[1], (int, float))]
    return dict(zip(["x", "y", *more], zip(*rows))) if rows else None


def stack(x, columns):
    """{name: column} -> a chart of parts."""
    return {"x": x, "parts": columns} if columns else None


def shares(names, order=None):
    """A list of names for each iteration -> {name: column of its share}, in alphabetical order unless one is given."""
    order = sorted({name for row in names for name in row}) if order is None else order
    return {name: [row.count(name) / max(1, len(row)) for row in names] for name in order}


def quantiles(values, at):
    return torch.tensor(values, dtype=torch.float64).quantile(torch.tensor(at, dtype=torch.float64)).tolist()


def charts_of(run, questions, group):
    """A loaded run and {t: valid questions} -> {key: chart} for every key of SECTIONS that has a value."""
    metrics, t = run["metrics"], list(questions)
    column = lambda key: [x.get(key) for x in metrics]
    charts = {key: line(t, column(key)) for _, _, panels in SECTIONS for key, *_ in panels}
    anchor, error = metrics[0].get("test_accuracy_anchor"), column("test_standard_error")
    charts["test_accuracy"] = line([0] + t, [anchor] + column("test_accuracy"), bars=[0] + [1.96 * (x or 0) for x in error])
    texts = [[row["question"] for row in questions[i]] for i in t]
    charts["duplicate_share"] = line(t, [duplicate_share(x) for x in texts])
    charts["question_words"] = line(t, [mean(len(text.split()) for text in x) for x in texts])
    charts["groups"] = stack(t, shares([[group(row) for row in questions[i]] for i in t]))
    words = ["all wrong", "some right", "all right"]
    word = lambda solved: words[0] if solved == 0 else words[2] if solved == 1 else words[1]
    solved = [[word(row["solved"]) for row in questions[i] if row.get("solved") is not None] for i in t]
    charts["difficulty"] = stack(t, shares(solved, words if any(solved) else []))
    status = shares([[row["status"].replace("_", " ") for row in run["rows"][i]] for i in t])
    charts["invalid"] = stack(t, {name: column for name, column in status.items() if name != "valid"})
    seconds = [x.get("seconds") or {} for x in metrics]
    charts["seconds"] = stack(t, {stage.replace("_", " "): [x.get(stage, 0) for x in seconds] for stage in seconds[0]})
    return charts | score_charts(run["config"], questions)


def score_charts(config, questions):
    """{t: valid questions} -> the charts of what they were paid; {} where nothing was."""
    scores, at_solved = defaultdict(list), defaultdict(list)
    for i, row in ((i, row) for i, rows in questions.items() for row in rows if score_of(row, config) is not None):
        scores[i].append(score_of(row, config))
        if row.get("solved") is not None:
            at_solved[round(row["solved"], 3)].append(score_of(row, config))
    if not any(s for values in scores.values() for s in values):
        return {"score_mean": None, "score_std": None, "score_quantiles": None}
    x, t = sorted(at_solved), list(scores)
    q = [list(column) for column in zip(*(quantiles(scores[i], [0.05, 0.25, 0.5, 0.75, 0.95]) for i in t))]
    middle = [list(column) for column in zip(*(quantiles(at_solved[i], [0.25, 0.75]) for i in x))]
    return {"score_mean": line(t, [mean(scores[i]) for i in t]),
            "score_std": line(t, [float(torch.tensor(scores[i]).std()) if len(scores[i]) > 1 else None for i in t]),
            "score_quantiles": line(t, q[2]) | {"bands": [[q[0], q[4]], [q[1], q[3]]]},
            "score_by_solved": line(x, [mean(at_solved[i]) for i in x]) | {"bands": [middle]} if x else None}       # x: shares solved


def group_table(run, questions, group):
    """A row for each group: name, number, share of the first and last fifth of the run, share solved, mean score, right keys (toy only)."""
    t, members = list(questions), defaultdict(list)
    fifth = max(1, len(t) // 5)
    ends = [[group(row) for i in some for row in questions[i]] for some in (t[:fifth], t[-fifth:])]
    for row in (row for rows in questions.values() for row in rows):
        members[group(row)].append(row)
    return [[name, len(rows), *(end.count(name) / max(1, len(end)) for end in ends), mean(row.get("solved") for row in rows),
             mean(score_of(row, run["config"]) for row in rows), mean(float(judged(row)[1]) for row in rows) if run["toy"] else None]
            for name, rows in sorted(members.items(), key=lambda item: -len(item[1]))]


def summary(run, name):
    """A loaded run -> what the page shows of it, all but the questions."""
    questions = {t: [row for row in rows if valid(row)] for t, rows in run["rows"].items()}
    by, group = grouping(run, [row for rows in questions.values() for row in rows])
    charts = charts_of(run, questions, group)
    return {"name": name, "by": by, "charts": charts, "groups": group_table(run, questions, group),
            "scored": bool(charts["score_quantiles"]), "advantage": run["config"].get("advantage"), "notes": run["notes"],
            "t": list(questions), **headline(run),
            "config": {key: "none" if value is None else str(value) for key, value in run["config"].items()}}


def headline(run):
    """-> {"result", "about"}: a sentence on what came out and one on what was run."""
    config, metrics, drafts = run["config"], run["metrics"], [row for rows in run["rows"].values() for row in rows]
    tested = [x for x in metrics if x.get("test_accuracy") is not None]
    percent = lambda x, error=None: "unknown" if x is None else f"{100 * x:.1f} %" + (f" ± {196 * error:.1f} (95 %)" if error else "")
    seconds = sum(sum((x.get("seconds") or {}).values()) for x in metrics)
    c = defaultdict(lambda: "?", config, model=os.path.basename(str(config.get("model")).rstrip("/")))
    result = "Test accuracy was not evaluated." if not tested else (
        f"Test accuracy {percent(metrics[0].get('test_accuracy_anchor'))} before training, "
        f"{percent(tested[-1]['test_accuracy'], tested[-1].get('test_standard_error'))} after {tested[-1]['iteration']} iterations.")
    about = (f"Reward {c['reward']}, advantage {c['advantage']}, seed {c['seed']}, model {c['model']}. {metrics[-1]['iteration']} of "
             f"{c['iterations']} iterations of {c['docs_per_step']} documents × {c['questions_per_doc']} drafts × "
             f"{c['answers_per_question']} answers: {len(drafts):,} drafts, {sum(map(valid, drafts)):,} of them valid questions, in "
             f"{duration(seconds)}.")
    return {"result": result, "about": about}


def aligned(summaries):
    """The same summaries, each stack with the parts of all runs, so that a part has one colour; a part is 0 where a run lacks it."""
    for key in {key for run in summaries for key, chart in run["charts"].items() if chart and "parts" in chart}:
        stacks = [run["charts"][key] for run in summaries if run["charts"].get(key)]
        names = list(dict.fromkeys(name for chart in stacks for name in chart["parts"]))
        for chart in stacks:
            chart["parts"] = {name: chart["parts"].get(name, [0] * len(chart["x"])) for name in names}
    return summaries


# ---------------------------------------------------------------- the questions that travel

def grid(rows, config):
    """The drafts of an iteration -> (D, n) s; None where no question was paid, or a draft is missing."""
    D, n = (1 + max((row["slot"][i] for row in rows), default=-1) for i in (0, 1))
    if len(rows) != D * n or all(score_of(row, config) is None for row in rows if valid(row)):
        return None
    s = torch.zeros(D, n, dtype=torch.float64)
    for row in rows:
        s[tuple(row["slot"])] = score_of(row, config) or 0.0
    return s


def extremes(run, k):
    """A loaded run -> {t: {"most": k questions, "least": k questions, "invalid": up to 3 drafts}}; without scores, by share solved."""
    chosen = {}
    for t, rows in run["rows"].items():
        s = grid(rows, run["config"])
        A = {mode: dugrpo(s, mode) for mode in MODES} if s is not None else {}
        rank = lambda row: (row.get("solved") if s is None else score_of(row, run["config"])) or 0.0
        ranked = sorted(filter(valid, rows), key=rank, reverse=True)
        half = -(-len(ranked) // 2)                                                     # no question stands in both lists
        invalid = [row for row in rows if not valid(row)]
        lists = {"most": ranked[:half][:k], "least": ranked[half:][::-1][:k], "invalid": invalid[:min(k, 3)]}
        chosen[t] = {name: [details(row, s, A, run) for row in some] for name, some in lists.items()}
    return chosen


def details(row, s, A, run):
    """One draft as the page shows it, with long texts cut."""
    cut = lambda text, what: None if text is None else shorten(str(text), LONGEST[what])
    choices, (d, j) = row.get("choices") or [], row["slot"]
    return {"document": row.get("doc_id"), "question": cut(row.get("question"), "question"), "choices": [cut(c, "choice") for c in choices],
            "key": choices.index(row["answer"]) if row.get("answer") in choices else None,
            "reason": None if valid(row) else row.get("status"), "draft": cut(row.get("text"), "draft"),
            "answers": [{"text": cut(a.get("text"), "answer"), "right": a.get("right")} for a in row.get("answers") or []][:2],
            "truth": judged(row) if run["toy"] and valid(row) else None, "score": score_of(row, run["config"]) if valid(row) or A else None,
            "scores": s[d].tolist() if s is not None else None, "place": j, "A": {mode: float(table[d, j]) for mode, table in A.items()},
            **{key: row.get(key) for key in ("s_hat", "solved", "tokens", "own_share", "overlap")}}


def shorten(text, limit):
    return text if len(text) <= limit else f"{text[:limit]} [... {len(text) - limit:,} more characters]"


# ---------------------------------------------------------------- the page

def clean(x):
    """Anything -> the same, fit for JSON: five digits, None for what is not finite, no halves of surrogate pairs."""
    if isinstance(x, dict):
        return {clean(str(key)): clean(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [clean(value) for value in x]
    if isinstance(x, str):
        return x.encode("utf-8", "replace").decode()
    return (float(f"{x:.5g}") if math.isfinite(x) else None) if isinstance(x, float) else x


def state(key, runs):
    """"draw"; or "zero", "missing": a chart without anything to see in any run is named in the page, not drawn."""
    charts = [run["charts"][key] for run in runs if run["charts"].get(key)]
    values = [value for chart in charts for column in chart.get("parts", {"": chart.get("y")}).values() for value in column]
    return "draw" if any(values) else "zero" if values else "missing"


def page(loaded, summaries):
    """Runs -> (HTML, k): with the k most and k least useful questions of each iteration, as many as stay below LIMIT."""
    drawn = lambda panels, kind: [panel for panel in panels if state(panel[0], summaries) == kind]
    sections = [{"title": title, "intro": intro, **{kind: drawn(panels, kind) for kind in ("draw", "zero", "missing")}}
                for title, intro, panels in SECTIONS]
    for k in (8, 4, 2, 1, 0):
        runs = []
        for run, about in zip(loaded, summaries):
            chosen = extremes(run, k)
            read = {x["document"] for lists in chosen.values() for items in lists.values() for x in items}
            texts = {name: shorten(text, LONGEST["document"]) for name, text in run["texts"].items() if name in read}
            runs.append(about | {"questions": chosen, "documents": texts})
        data = json.dumps(clean({"sections": sections, "runs": runs}), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        if len(data.encode()) < LIMIT:
            break
    before, after = TEMPLATE.read_text(encoding="utf-8").split("{{DATA}}")
    return before + data.replace("<", "\\u003c") + after, k         # without a "<" no text can close the script element it lies in


def write(text, path):
    """The whole file or none of it; InputError if it cannot be written."""
    try:
        Path(f"{path}.part").write_text(text, encoding="utf-8")
        os.replace(f"{path}.part", path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None


def names_of(folders):
    """Run folders -> short names, all different."""
    bases = [os.path.basename(os.path.abspath(folder)) for folder in folders]
    return [base if bases.count(base) == 1 else f"{i}: {os.path.normpath(folders[i - 1])}" for i, base in enumerate(bases, 1)]


# ---------------------------------------------------------------- figures

def draw_figures(summaries, folder):
    """Every chart of the page as folder/KEY.png and .svg (a stack: one for each run) -> their number."""
    try:
        import matplotlib                                           # a guest: only here
    except ImportError:
        raise InputError("--figures needs matplotlib: pip install matplotlib") from None
    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    plt.rcParams.update({"svg.hashsalt": "infuser", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
                         "axes.prop_cycle": plt.cycler(color=COLOURS)})
    jobs = []
    for key, unit, title, _ in (panel for _, _, panels in SECTIONS for panel in panels if state(panel[0], summaries) == "draw"):
        runs = [run for run in summaries if run["charts"].get(key)]
        jobs += [(f"{key}-{i}" if len(summaries) > 1 else key, key, unit, title, [run]) for i, run in enumerate(runs, 1)] \
            if "parts" in runs[0]["charts"][key] else [(key, key, unit, title, runs)]
    os.makedirs(folder, exist_ok=True)
    for name, key, unit, title, runs in jobs:
        figure, ax = plt.subplots(figsize=(5, 3), layout="constrained")
        for run in runs:
            draw(ax, run["charts"][key], 100 if unit == "%" else 1, run["name"], f"C{summaries.index(run)}")
        ax.set_title(title.format(by=runs[0]["by"]) + " (%)" * (unit == "%"))
        ax.set_xlabel("share solved" if key == "score_by_solved" else "iteration")
        ax.axhline(0, color="grey", linewidth=0.6)
        figure.legend(loc="outside right upper", frameon=False, fontsize=7)
        for kind in ("png", "svg"):
            figure.savefig(os.path.join(folder, f"{name}.{kind}"), dpi=150, metadata={"Date": None} if kind == "svg" else None)
        plt.close(figure)
    return len(jobs)


def draw(ax, chart, factor, name, colour):
    """One run's chart, its values times factor."""
    times = lambda column: [factor * x for x in column]
    if "parts" in chart:
        base = [0] * len(chart["x"])
        for part, column in chart["parts"].items():
            ax.bar(chart["x"], times(column), width=1, bottom=base, label=part)
            base = [a + b for a, b in zip(base, times(column))]
        return
    for low, high in chart.get("bands", []):
        ax.fill_between(chart["x"], times(low), times(high), color=colour, alpha=0.2, linewidth=0)
    ax.errorbar(chart["x"], times(chart["y"]), times(chart["bars"]) if "bars" in chart else None, color=colour, label=name,
                marker="o" if len(chart["x"]) < 25 else None, markersize=3, elinewidth=0.8)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run folder; several are overlaid")
    parser.add_argument("--out", metavar="FILE", help="the page to write; without it, report.html in the first run")
    parser.add_argument("--figures", metavar="DIR", help="also write every chart as PNG and SVG into this folder (needs matplotlib)")
    args = parser.parse_args(argv)
    loaded = [load_run(folder) for folder in args.runs]
    summaries = aligned([summary(run, name) for run, name in zip(loaded, names_of(args.runs))])
    html, k = page(loaded, summaries)
    out = args.out or os.path.join(args.runs[0], "report.html")
    write(html, out)
    for run in summaries:
        for note in run["notes"]:
            print(f"note: {run['name']}: {note}")
    print(f"{out}: {len(html.encode()) / 1e6:.1f} MB, with the {k} most and the {k} least useful questions of each iteration")
    if args.figures:
        print(f"{args.figures}: {draw_figures(summaries, args.figures)} charts, each as PNG and SVG")


if __name__ == "__main__":
    run_script(main)
