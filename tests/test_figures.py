"""The figures show the numbers of their files, and bad files are one line."""
import json
import math
import subprocess
import sys

import pytest

from data import InputError, Question
from studies import families, figures, pictures
from studies.style import LOOKS, look
from tools import house
from toy.truth import judge

plt = pytest.importorskip("matplotlib.pyplot")
RESULTS = house.ROOT / "docs/results"
SEEDS = [f"runs/toy-influence-seed{seed}/solver" for seed in range(3)]
METHOD = f"infuser={','.join(SEEDS)}"


def report_of(accuracies, samples=4, tokens=None):
    """{set: {model: accuracy}} -> a report like evaluate.py's."""
    sets = {}
    for name, models in accuracies.items():
        found = {}
        for model, x in models.items():
            found[model] = {"accuracy": x, "mean_tokens": (tokens or {}).get(model, 6.0),
                            "pass@1": x, "pass@2": x + 0.1, "pass@4": x + 0.2}
        sets[name] = {"samples": samples, "models": found}
    groups = {"in domain": {"sets": list(sets), "of": None} | {
        model: {"accuracy": sum(one[model] for one in accuracies.values()) / len(sets)}
        for model in next(iter(accuracies.values()))}}
    return {"sets": sets, "groups": groups}


TWO_SEEDS = {"base": ["b"], "infuser": ["s0", "s1"]}
ONE_SET = {"math.json": {"b": 0.4, "s0": 0.5, "s1": 0.6}}
THREE_SETS = {name: {"b": 0.2, "s0": 0.3, "s1": 0.5} for name in ("math", "code", "law")}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


# ---------------------------------------------------------------- a picture has its file's numbers

def test_a_bar_of_gains_is_the_mean_over_seeds_in_percent_of_the_base():
    ax, = pictures.gains(plt, report_of(ONE_SET), TWO_SEEDS).axes
    bar, = ax.patches
    # .55 is 37.5 % more than .4; the seeds 25 and 50 %
    assert bar.get_height() == pytest.approx(37.5)
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert list(dots[0].get_ydata()) == pytest.approx([25, 50])


def test_a_base_with_nothing_right_has_no_relative_gain():
    found = report_of({"x": {"b": 0.0, "s0": 0.5, "s1": 0.6}})
    bar, = pictures.gains(plt, found, TWO_SEEDS).axes[0].patches
    assert math.isnan(bar.get_height())


def test_the_category_table_has_means_and_gains_in_brackets():
    ax, = pictures.categories(plt, report_of(ONE_SET), TWO_SEEDS).axes
    cells = ax.tables[0].get_celld()
    row = [cells[1, column].get_text().get_text() for column in range(4)]
    assert row == ["in domain", "1", "40.0", "55.0 (+37.5 %)"]


def test_a_corner_of_the_radar_is_the_mean_over_seeds():
    ax, = pictures.radar(plt, report_of(THREE_SETS), TWO_SEEDS).axes
    assert list(ax.lines[1].get_ydata()) == pytest.approx([40] * 4)


def test_pass_at_k_is_drawn_at_its_k_with_a_line_a_seed():
    ax, = pictures.passk(plt, report_of(ONE_SET), TWO_SEEDS).axes
    base, one, two, middle = ax.lines
    assert list(middle.get_xdata()) == [1, 2, 4]
    assert list(base.get_ydata()) == pytest.approx([40, 50, 60])
    assert list(middle.get_ydata()) == pytest.approx([55, 65, 75])
    assert list(one.get_ydata()) == pytest.approx([50, 60, 70])


def test_a_mark_of_the_scatter_is_a_seed_at_its_length():
    tokens = {"b": 100.0, "s0": 200.0, "s1": 800.0}
    ax, = pictures.length(plt, report_of(ONE_SET, tokens=tokens), TWO_SEEDS).axes
    assert list(ax.lines[1].get_xdata()) == [200, 800]
    assert list(ax.lines[1].get_ydata()) == pytest.approx([50, 60])


def test_a_set_without_lengths_is_left_out_of_the_scatter():
    report = report_of(THREE_SETS)
    coding = next(iter(report["sets"].values()))
    for one in coding["models"].values():
        one["mean_tokens"] = None
    others = list(report["sets"].values())[1:]
    ax, = pictures.length(plt, report, TWO_SEEDS).axes
    expected = [sum(x["models"]["s0"]["accuracy"] for x in others) / len(others) * 100]
    assert list(ax.lines[1].get_ydata())[:1] == pytest.approx(expected)
    with pytest.raises(InputError, match="no set has both"):
        pictures.length(plt, {"sets": {"coding": coding}}, TWO_SEEDS)


def test_the_ablation_bars_are_the_races_and_a_missing_arm_is_said():
    race = json.loads((RESULTS / "race-first.json").read_text())
    axes = pictures.ablations(plt, race).axes
    heights = [[bar.get_height() for bar in ax.patches] for ax in axes]
    final = {arm: 100 * found["final"]["mean"] for arm, found in race["arms"].items()}
    assert heights == [[final[arm] for arm in arms] for arms in (
        ("fixed", "dev_only", "influence"), ("influence", "group_std", "batch_std", "none"),
        ("influence", "cosine"))]
    assert [text.get_text() for text in axes[0].texts].count("not run") == 1


def test_the_gap_is_the_reference_less_the_base():
    rows = json.loads((RESULTS / "quality.json").read_text())["iterations"]
    left, right = pictures.quality(plt, rows).axes
    drawn = {line.get_label(): line.get_ydata() for line in left.lines}
    gap = [a - b for a, b in zip(drawn["reference"], drawn["base solver"])]
    assert list(right.lines[0].get_ydata()) == pytest.approx(gap)


def run_folder(path, tests, valid=None):
    path.mkdir()
    lines = []
    for t, x in enumerate(tests, 1):
        line = {"iteration": t, "test_accuracy": x, "test_accuracy_anchor": 0.4,
                "key_accuracy": 0.5}
        if valid:
            line |= {"valid_accuracy": valid[t - 1], "valid_accuracy_anchor": 0.3}
        lines.append(json.dumps(line))
    (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return str(path)


def test_curves_are_the_mean_of_the_seeds_from_the_anchor_on(tmp_path):
    seeds = [run_folder(tmp_path / "a", [None, 0.5]), run_folder(tmp_path / "b", [None, 0.7])]
    label, found = figures.sources(f"infuser={','.join(seeds)}")
    figure = figures.draw_curves(plt, {label: found})
    middle = figure.axes[0].lines[2]
    assert list(middle.get_xdata()) == [0, 2]
    assert list(middle.get_ydata()) == pytest.approx([40, 60])


def test_validation_is_drawn_where_all_runs_have_it_else_the_test(tmp_path):
    both = figures.sources(f"a={run_folder(tmp_path / 'a', [0.5], [0.45])}")
    test = figures.sources(f"b={run_folder(tmp_path / 'b', [0.5])}")
    titles = [figures.draw_curves(plt, dict(methods)).axes[0].get_title()
              for methods in ([both], [both, test])]
    assert "validation" in titles[0] and "test" in titles[1]


def test_an_arm_of_the_race_is_as_good_as_its_runs():
    label, found = figures.sources(f"us={RESULTS / 'race-first.json'}:influence")
    assert label == "us" and len(found["test_accuracy"]) == 8
    assert found["test_accuracy"][0] == (
        [0, 5, 10, 15, 20, 25, 30], pytest.approx([47.5, 62.25, 75.75, 77.25, 82.75, 85, 85]))


def test_a_method_looks_alike_in_every_figure():
    assert look("infuser", 3) == LOOKS["influence"]
    assert look("fixed", 0) == LOOKS["fixed"]
    assert len({look(f"model {i}", i) for i in range(6)}) == 6


# ---------------------------------------------------------------- the command

@pytest.mark.slow
def test_every_figure_is_written_twice_the_same_as_svg_and_png(tmp_path):
    words = {"race": [RESULTS / "race-first.json"], "ablations": [RESULTS / "race-first.json"],
             "quality": [RESULTS / "quality.json"],
             "curves": [f"a={RESULTS / 'race-first.json'}:influence"]}
    words |= {name: [RESULTS / "families.json", METHOD] for name in figures.OF_REPORTS}
    # of regimes test_regimes has a file
    assert set(words) == set(figures.DRAWN) - {"regimes"}
    for name in set(words) - {"race"}:
        for time in "12":
            out = str(tmp_path / f"{name}{time}")
            assert figures.main([name, *map(str, words[name]), "--out", out]) == 0
        one, two = ((tmp_path / f"{name}{time}.svg").read_bytes() for time in "12")
        assert one == two and len(one) > 5000, name
        assert (tmp_path / f"{name}1.png").stat().st_size > 5000, name


@pytest.mark.parametrize("what, first, base", [
    ("gains", "out/report.json", "out/report-gains"),
    ("curves", "infuser=runs/a/,runs/b", "runs/a-curves"),
    ("curves", "us=out/race.json:influence", "out/race-curves"),
])
def test_without_out_a_figure_goes_beside_its_first_file(what, first, base):
    assert figures.base_of(what, first) == base


BAD = [
    ("gains missing.json", "missing.json: No such file"),
    ("gains README.md", "README.md: is not JSON"),
    ("gains docs/results/race-first.json", "has no sets"),
    ("gains docs/results/families.json infuser=other", "has no model 'other'"),
    ("gains docs/results/families.json infuser", "expected LABEL=MODEL,MODEL"),
    ("gains docs/results/families.json base=toy/anchor", "stands for other models already"),
    ("gains docs/results/families.json --out nowhere/x", "its folder does not exist"),
    ("categories docs/results/passk.json", "no categories"),
    ("radar docs/results/passk.json", "at least 3 question sets"),
    ("curves a=docs/none", "no such file, expected a run folder"),
    ("curves a=docs/results/race-first.json:none_such", "has no arm 'none_such'"),
    ("curves docs", "expected LABEL=RUN,RUN"),
    ("ablations docs/results/quality.json", "has no arms"),
    ("quality docs/results/race-first.json", "iterations is not a list"),
    ("quality docs/results/quality.json more.json", "expected one file"),
    ("race docs/results/families.json", "has no arms"),
]


@pytest.mark.parametrize("words, says", BAD, ids=[words for words, _ in BAD])
def test_bad_input_is_one_line(words, says, monkeypatch):
    monkeypatch.chdir(house.ROOT)
    with pytest.raises(InputError) as raised:
        figures.main(words.split())
    assert says in str(raised.value) and "\n" not in str(raised.value)


def test_broken_files_are_told_too(tmp_path):
    files = {
        "report": ("gains", {"sets": {"x": {"models": {"b": {}}}}}, "without its models'"),
        "alone": ("gains", report_of({"x": {"b": 0.4}}), "has one model"),
        "once": ("passk", report_of(ONE_SET, samples=1), "one answer to a question"),
        "rows": ("quality", {"iterations": [{"iteration": 0}]}, "without accuracy or swg"),
        "gap": ("quality", {"iterations": [{"iteration": 0, "accuracy": {}, "swg": {}}]},
                "no gap between a strong"),
        "arm": ("ablations", {"arms": {"fixed": {"final": None}}}, "has no final accuracy"),
    }
    for name, (what, found, says) in files.items():
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(found))
        with pytest.raises(InputError, match=says):
            figures.main([what, str(path), "--out", str(tmp_path / "x")])
    assert not (tmp_path / "x.svg").exists()


@pytest.mark.slow
def test_the_command_ends_with_exit_code_2_and_its_line():
    command = [sys.executable, "-m", "studies.figures", "gains", "missing.json"]
    ended = subprocess.run(command, cwd=house.ROOT, capture_output=True, text=True)
    assert ended.returncode == 2 and len(ended.stderr.splitlines()) == 1


# ---------------------------------------------------------------- questions of each skill

@pytest.mark.parametrize("skill", families.SKILLS)
def test_questions_of_a_skill_are_of_it_and_keyed_right(skill):
    questions = families.questions_of(skill, 60, seed=0)
    assert len(questions) == (35 if skill == "day" else 60)
    assert len({x["question_text"] for x in questions}) == len(questions)
    for x in questions:
        question = Question(x["question_text"], x["choices"], x["ground_truth"])
        assert judge(question) == (skill, True), x
