"""Turns run folders into one web page: curves, the curriculum, what the generator was paid for.

    python report.py runs/toy-influence-seed0       writes report.html into the run folder
    python report.py runs/toy-influence-seed0 runs/toy-fixed-seed0 --out both.html    overlaid
    python report.py runs/toy-influence-seed0 --figures figures      charts as PNG and SVG too

The page opens in any browser and asks no network for anything. Nothing is learned or scored here.
What the page says stands in this file, how it is made in engine/page.py.

Our own choices: no smoothing; every axis includes 0; a metric without a value, or always 0, is
named instead of drawn. Questions are grouped by skill in the embedded world, elsewhere by their
documents' files or headings, or, where those do not tell them apart, by their first word.
"""
import os
from collections import defaultdict
from itertools import chain

from data import Question
from engine import page
from engine.arguments import Parser
from engine.log import duration
from engine.page import measured, percent
from engine.speech import run_script
from toy import truth

# Section: title, what it is about, and its charts: metric, unit (% a share, s seconds, + signed),
# title, what it means when it moves.
SECTIONS = [
    ("Does the solver learn?",
     "Accuracy on questions that nobody trains on is the result of a run; everything below is "
     "about why it moves.", [
         ("test_accuracy", "%", "Test accuracy",
          "Held-out questions answered right, after the update. Up: what was learned carries over. "
          "Flat while dev rises: the gain stays inside the dev set. Down: something is unlearned. "
          "Bars: 95 % intervals over questions. Iteration 0: the anchor."),
         ("valid_accuracy", "%", "Validation accuracy",
          "Validation questions (--valid) answered right after the update, sampled as in training. "
          "Its highest point is partly luck: the card says it beside the last, not in its place."),
         ("dev_accuracy", "%", "Dev accuracy",
          "Dev questions answered right, before the update. Up: the solver gets better at what "
          "influence pays for. Far above test: the gain is the dev set's, not the skill's."),
         ("solved_share", "%", "Generated questions solved",
          "Answers that match the generator's own key. Up: questions get easier, or keys better. "
          "Near 100 %: little left to learn. Near what guessing gives: too hard, or bad keys.")]),
    ("What does the generator write?",
     "The mix of questions, how hard they are for the present solver, and whether they repeat.", [
         ("kinds", "%", "Questions by {by}", "What valid questions are about."),
         ("difficulty", "%", "Difficulty",
          "Valid questions by how many of their answers match the key. Only the middle band has a "
          "gradient: as it thins, fewer questions teach anything."),
         ("key_accuracy", "%", "Right answer keys",
          "Known in the embedded world only, hidden from training. Up: fewer errors are taught."),
         ("target_share", "%", "Questions of the dev set's skill",
          "Known in the embedded world only. Up: the generator finds what the dev set needs."),
         ("duplicate_share", "%", "Repeated questions",
          "Valid questions that say the same as an earlier one of the iteration, but for case, "
          "space and punctuation. Drafts of one document repeat each other where it holds few "
          "facts; where several documents get one question, the generator has stopped reading."),
         ("overlap_dev_share", "%", "Overlap with the dev set",
          "Valid questions that share eight words in a row with a dev question. Up: the generator "
          "may be copying what it is paid by."),
         ("overlap_test_share", "%", "Overlap with the test set",
          "Valid questions that share eight words in a row with a test question. The generator "
          "never sees that set: its documents hold the same facts, or it is chance. More than a "
          "few: look at them before trusting the test accuracy."),
         ("question_words", "", "Words in a question",
          "Mean over valid questions, without their choices. A drift without a gain in accuracy: "
          "length was found, not content."),
         ("draft_tokens_mean", "", "Tokens in a draft",
          "All that the generator wrote. Up to the length limit: drafts get cut, and invalid.")]),
    ("What is it paid for?",
     "The score of a question. Under the reward influence it is s_hat, the cosine between the step "
     "the solver would take on the question and the dev gradient: above 0, that step also lowers "
     "the dev loss. There, a question answered all right or all wrong scores exactly 0.", [
         ("score_quantiles", "+", "Scores of valid questions",
          "Line: median. Bands: the middle half, and 5 to 95 %. Up: the typical question is worth "
          "more. Narrow: little left to tell apart, so the generator follows noise."),
         ("score_mean", "+", "Mean score",
          "Up: the generator earns more. If accuracy stays, it is paid for something else."),
         ("score_std", "", "Spread of scores",
          "Standard deviation over valid questions. Near 0: nothing to choose between."),
         ("score_by_solved", "+", "Score against difficulty",
          "Mean score at each share solved, over all iterations; band: the middle half. Thin: a "
          "reward for difficulty. Wide: usefulness decides, or noise."),
         ("s_hat_positive_share", "%", "Questions with s_hat above 0",
          "Down over a run is normal: questions that become all right have s_hat 0."),
         ("g_dev_norm", "", "Norm of the dev gradient",
          "Down to nothing: dev questions are all solved, or all hopeless, and point nowhere."),
         ("own_share_mean", "%", "A question's own share in v'",
          "How much of the second moment in Gamma is the question's own g^2. Near 100 %: no "
          "history yet, so Gamma is like sign(g). Low: AdamW's history decides."),
         ("invalid_paid_share", "%", "Invalid drafts that are rewarded",
          "Invalid drafts with A_gen above 0: they outrank valid questions of negative influence. "
          "Harmless while valid drafts do not get fewer.")]),
    ("Are both models healthy?", "Signs of trouble that accuracy shows too late.", [
        ("valid_share", "%", "Valid drafts",
         "Drafts that hold a well-formed question. Down: the generator loses the format."),
        ("invalid", "%", "Why drafts are invalid",
         "Share of all drafts. One growing band: one habit to look at."),
        ("mixed_share", "%", "Questions with a gradient",
         "Both right and wrong answers. Down: the solver trains on fewer questions."),
        ("dev_mixed_share", "%", "Dev questions with a gradient",
         "Down: g_dev rests on fewer questions and is noisier."),
        ("draft_entropy", "", "Entropy of drafts",
         "Mean -log-prob of their tokens. A fast fall: exploration ends. A rise: it comes apart."),
        ("answer_entropy", "", "Entropy of answers",
         "The same for the solver's answers. Down: it becomes sure of itself, rightly or not."),
        ("generator_grad_norm", "", "Generator's gradient norm",
         "Before clipping. Spikes: a few drafts dominate an update."),
        ("solver_grad_norm", "", "Solver's gradient norm",
         "Before clipping. Spikes: a few answers dominate an update."),
        ("draft_cut_share", "%", "Drafts cut at the length limit",
         "Up: the generator rambles, or max_response_tokens is too small."),
        ("answer_cut_share", "%", "Answers cut at the length limit",
         "A cut answer has no box and counts as wrong. Up: accuracy measures length too."),
        ("answer_tokens_mean", "", "Tokens in an answer", "Up: longer reasoning, and more time."),
        ("skipped_steps", "", "Skipped steps",
         "Updates and scores left out so far since a gradient was not finite. Should stay 0."),
        ("verifier_timeouts", "", "Checks that timed out",
         "Free-form answers left out, neither right nor wrong. Should stay near 0.")]),
    ("Where does the time go?", "Wall-clock seconds of each stage, and memory of the process.", [
        ("seconds", "s", "Seconds of an iteration by stage",
         "The widest band is the first place to save time."),
        ("tokens_sampled", "", "Tokens sampled",
         "Response tokens of both roles. Spikes: iterations with an evaluation."),
        ("tokens_trained", "", "Tokens trained on",
         "In both updates. Down: fewer questions have a gradient."),
        ("peak_memory_mb", "", "Peak memory (MB)",
         "The most so far. Still rising after long: a leak.")]),
]


# What the mix of questions means depends on what tells them apart.
READ = ("Documents come in a shuffled order that nobody chooses: the bands say which were read and "
        "gave valid questions.")
MIX = {"skill": "A widening band: the generator moves towards it.", "document": READ,
       "heading": READ, "first word": "A widening band: more questions begin so."}

# Metric, least, most: outside, the card warns. Our own limits, not tuned.
SIGNS = [
    ("valid_share", 0.5, 1, "only {} of the drafts are valid"),
    ("mixed_share", 0.2, 1, "only {} of the questions have a gradient"),
    ("dev_mixed_share", 0.1, 1, "only {} of the dev questions have a gradient"),
    ("overlap_dev_share", 0, 0.25, "{} of the questions overlap with the dev set"),
    ("overlap_test_share", 0, 0.05, "{} of the questions overlap with the test set"),
    ("draft_cut_share", 0, 0.2, "{} of the drafts are cut at the length limit"),
    ("answer_cut_share", 0, 0.2, "{} of the answers are cut at the length limit"),
]

GLOSSARY = [
    ("anchor", "the model that both roles start from, before training: iteration 0"),
    ("dev", "the dev set: questions that say what is useful, by their answers' gradient g_dev"),
    ("draft", "what the generator writes about a document, once"),
    ("valid", "a draft that holds a well-formed question"),
    ("key", "a question's answer key: what the generator says is right, rightly or wrongly"),
    ("mixed", "a question with both right and wrong answers; only such a question has a gradient"),
    ("target", "in the embedded world: a question that asks for the skill of dev and test set"),
    ("v'", "AdamW's v after a step on a question's gradient g: beta2 v + (1 - beta2) g^2"),
    ("Gamma", "that step: g / (sqrt(v' / (1 - beta2^t)) + epsilon)"),
    ("s_hat", "influence, the cosine of g_dev and Gamma: would that step also help on dev?"),
    ("A_gen", "a draft's advantage: its score less the mean score of its document's drafts, "
              "divided as the normalisation says; the generator's update multiplies by it"),
]


def judge(draft):
    """The embedded world's (skill, is the key right?) of a question."""
    return truth.judge(Question(draft["question"], draft["choices"], draft["answer"]))


# ---------------------------------------------------------------- the card of a run

def card(run, other=None):
    """-> {"facts": [[what, value, about it]], "verdicts": three sentences}.

    other: (name, run), a baseline beside the anchor.
    """
    after = page.last_test(run)
    baselines = {"the anchor": page.anchor_test(run)}
    if other:
        baselines[other[0]] = page.last_test(other[1])

    value, when = measured(after)
    facts = [["Result", value, f"of the test questions right, {when}. ± is half of a 95 % "
              "interval: 1.96 standard errors, here over questions"]]
    for name, before in baselines.items():
        value, when = measured(before)
        facts.append(["Baseline", value, f"{name}, {when}"])

    if found := page.validation(run):
        facts.append(["Validation", *found])
    facts.append(["Cost", duration(page.seconds_of(run)), page.tokens(run)])
    facts.append(["Machine", *page.machine(run)])
    return {"facts": facts, "verdicts": [gain(after, baselines), earned(run), health(run)]}


def explained(change, half, of_what):
    if half is None:
        return "how much of that is chance is not known"
    return f"{'no ' * (abs(change) <= half)}more than chance in the {of_what} explains"


def gain(after, baselines):
    """Verdict 1: did the solver learn something that carries over?"""
    found = []
    for name, before in baselines.items():
        if after and before:
            change, half = page.difference(after, before)
            margin = f" ± {100 * half:.1f}" if half is not None else ""
            side = "below" if change < 0 else "above"
            found.append(f"{100 * abs(change):.1f}{margin} points {side} {name}, "
                         f"{explained(change, half, 'test questions')}")
    if not found:
        return "Nothing was tested, so nothing says whether what the solver learned carries over."
    return f"The result is {'; and '.join(found)}. Another seed may differ by more."


def earned(run):
    """Verdict 2: does the generator earn more than at first?"""
    config = run["config"]
    trained_on = {"dev": "its answers to the dev questions", "file": "the questions of a file"}
    if config.get("train_on", "generated") in trained_on:
        return f"No generator was asked: the solver trained on {trained_on[config['train_on']]}."
    if config.get("reward") == "fixed":
        return "The generator was not paid and did not move: only the solver changed."
    first, last = page.pay(run)
    if first is None or last is None or len(run["metrics"]) == 1:
        return "Too few scores to say whether the generator earns more than at first."
    change, half = page.difference(last, first)
    margin = f" ± {half:.3f}" if half is not None else ""
    return (f"The generator's mean score is {last[0]:+.3f} in the last fifth of the run and "
            f"{first[0]:+.3f} in the first, a change of {change:+.3f}{margin}: "
            f"{explained(change, half, 'documents')}.").replace("-", "−")


def health(run):
    """Verdict 3: the warning signs of the last iteration, or that there is none."""
    x = run["metrics"][-1]
    signs = []
    for metric, least, most, text in SIGNS:
        if x.get(metric) is not None and not least <= x[metric] <= most:
            signs.append(text.format(percent(x[metric])))
    if x.get("skipped_steps"):
        signs.append(f"{x['skipped_steps']} steps were skipped")
    found = page.repeats(run)
    if found and found["share"] > found["expected"]:
        signs.append("different documents get the same questions")
    if signs:
        return f"To look at in iteration {x['iteration']}: {'; '.join(signs)}."
    return (f"No warning sign in iteration {x['iteration']}: {percent(x.get('valid_share'))} of "
            f"drafts are valid, {percent(x.get('mixed_share'))} of questions have a gradient.")


# ---------------------------------------------------------------- what is said of a run

def remarks(run, by):
    """-> {metric: what its chart means in this run}."""
    questions = list(chain.from_iterable(run["questions"].values()))
    said = {"kinds": MIX[by]}
    guessed = page.mean([1 / len(x["choices"]) for x in questions if x["choices"]])
    if guessed:
        said["solved_share"] = f"Guessing among the choices would give {percent(guessed)}."
    copied = sum("test" in (x.get("overlap") or []) for x in questions)
    said["overlap_test_share"] = f"Here {copied:,} of {len(questions):,} questions in all."
    if found := page.repeats(run):
        said["duplicate_share"] = (
            f"In iteration {found['iteration']}, {found['questions']} questions say "
            f"{found['distinct']} different things: {percent(found['share'])} repeat. With one "
            f"question for each of the {found['documents']} documents it would be "
            f"{percent(found['expected'])}; more than that would be collapse.")

    first, last = (run["metrics"][i].get("valid_share") for i in (0, -1))
    said["invalid_paid_share"] = f"Valid here: {percent(first)} at first, {percent(last)} at last."
    return said


def summary(run, name, other=None):
    """A run -> what the page shows of it, all but the questions. other: (name, run) beside it."""
    by, kind_of = page.kinds(run)
    panels = chain.from_iterable(panels for _, _, panels in SECTIONS)
    charts = page.charts_of(run, kind_of, [panel[0] for panel in panels])
    config = {field: "none" if x is None else str(x) for field, x in run["config"].items()}
    return {"name": name, "by": by, "charts": charts, "kinds": page.kind_table(run, kind_of),
            "scored": bool(charts["score_quantiles"]), "t": list(run["questions"]),
            "advantage": run["config"].get("advantage"), "notes": run["notes"], "config": config,
            "card": card(run, other), "about": about(run), "remarks": remarks(run, by)}


def about(run):
    """A sentence on what was run."""
    model = os.path.basename(str(run["config"].get("model")).rstrip("/"))
    c = defaultdict(lambda: "?", run["config"], model=model)
    drafts = sum(map(len, run["drafts"].values()))
    questions = sum(map(len, run["questions"].values()))
    return (f"Reward {c['reward']}, advantage {c['advantage']}, seed {c['seed']}, model "
            f"{c['model']}. {run['metrics'][-1]['iteration']} of {c['iterations']} iterations of "
            f"{c['docs_per_step']} documents × {c['questions_per_doc']} drafts × "
            f"{c['answers_per_question']} answers: {drafts:,} drafts, {questions:,} are valid.")


def make(folders, names=None):
    """Run folders -> (HTML, questions kept at each end of a ranking, what is said of each run).

    Raises InputError.
    """
    runs = [page.load_run(folder, judge) for folder in folders]
    named = list(zip(names or page.names_of(folders), runs))
    # the first run is compared with the second, every other one with the first
    others = named[1:2] + named[:1] * (len(named) - 1) + [None]
    summaries = [summary(run, name, other) for (name, run), other in zip(named, others)]
    html, k = page.fill(runs, page.aligned(summaries), SECTIONS, GLOSSARY)
    return html, k, summaries


def main(argv=None):
    parser = Parser("report.py", __doc__)
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run folder; several are overlaid")
    parser.add_argument("--out", metavar="FILE",
                        help="the page; else RUN/report.html, of several compare.html in the first")
    parser.add_argument("--figures", metavar="DIR",
                        help="also write every chart as PNG and SVG there (needs matplotlib)")
    args = parser.parse_args(argv)

    html, k, summaries = make(args.runs)
    # several runs do not take the place of the first one's own page
    name = "report.html" if len(args.runs) == 1 else "compare.html"
    out = args.out or os.path.join(args.runs[0], name)
    page.write(html, out)

    for run in summaries:
        for note in run["notes"]:
            print(f"note: {run['name']}: {note}")
    print(f"open {out} in a browser: {len(html.encode()) / 1e3:.0f} kB, "
          f"with the {k} most and the {k} least useful questions of each iteration")
    if args.figures:
        drawn = page.draw_figures(summaries, SECTIONS, args.figures)
        print(f"{args.figures}: {drawn} charts, each as PNG and SVG")


if __name__ == "__main__":
    run_script(main)
