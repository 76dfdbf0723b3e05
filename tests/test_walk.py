"""The walk's numbers are those a run writes, and those of the plain definitions."""
import json
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers

import classroom.walk
import train
from classroom import pages, steps
from classroom.walk import walk
from classroom.small import logps
from config import ROOT
from data import InputError
from dugrpo import dugrpo
from engine import flags
from fakes import small_world

pytestmark = pytest.mark.slow
SIZES = dict(docs_per_step=3, questions_per_doc=4, answers_per_question=4, iterations=1,
             minibatch_rows=16, seed=1)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The first iteration walked through, and the same one as a run writes it."""
    place = tmp_path_factory.mktemp("walk")
    words = small_world(place, SIZES, documents=20, dev=12)
    cfg = flags.parse(["--preset", "toy", *words, "--run", str(place / "run")])
    seen = {}

    class Watched(steps.Walk):
        def sections(self):
            seen["walk"] = self
            return super().sections()

    original, walked = steps.Walk, None
    try:
        classroom.walk.Walk = Watched
        walked = walk(cfg, None, None)
    finally:
        classroom.walk.Walk = original
    train.train(cfg)
    lines = (place / "run/questions.jsonl").read_text().splitlines()
    return walked, seen["walk"], [json.loads(line) for line in lines]


def test_scores_and_advantages_are_those_that_the_run_wrote(both):
    _, walked, written = both
    s_hat = [line["s_hat"] for line in written if line["status"] == "valid"]
    assert torch.allclose(walked.s_hat, torch.tensor(s_hat), atol=1e-7)
    A_gen = torch.tensor([line["A_gen"] for line in written]).view_as(walked.A_gen)
    assert torch.allclose(walked.A_gen, A_gen, atol=1e-6)


def test_the_three_sums_make_the_score(both):
    sections, walked, _ = both
    table = dict(block_of(sections, "three sums")[1:])
    numbers = {name: float(value) for name, value in table.items()}
    cosine = numbers["<g_dev, Gamma>"] / numbers["|g_dev|"] / numbers["|Gamma|"]
    assert cosine == pytest.approx(float(walked.s_hat[walked.q]), abs=2e-6)
    assert numbers["s_hat, the plain way"] == pytest.approx(
        numbers["s_hat, as in a run"], abs=2e-6)


def test_the_layers_shares_add_up_to_all(both):
    rows = block_of(both[0], "by layer")[1:]
    assert sum(float(row[-1].rstrip(" %")) for row in rows) == pytest.approx(100, abs=0.5)


def test_the_row_of_the_grid_follows_from_its_own_numbers(both):
    sections, walked, _ = both
    rows = block_of(sections, "the document's row of the grid")[1:]
    A_gen = dugrpo(walked.s)[walked.document]
    assert [row[3] for row in rows] == [f"{float(a):+.4f}" for a in A_gen]
    # by hand, from what the sentence says
    section = next(x for x in sections if "DuGRPO" in x.title)
    mu, sigma, sigma_B = [float(section.sentence.split(f"{name} = ")[1].split()[0].rstrip(","))
                          for name in ("mu_d", "sigma_d", "sigma_B")]
    for row in rows:
        assert (float(row[2]) - mu) / (sigma + sigma_B) == pytest.approx(float(row[3]), abs=0.02)


def test_an_answer_that_earned_more_became_more_likely(both):
    rows = block_of(both[0], "log-prob of the whole text")[1:]
    moved = [(float(row[1]), float(row[4])) for row in rows if row[0] != "draft"]
    assert all(A * change > 0 for A, change in moved if abs(A) > 0.3)


def test_log_probs_and_losses_are_those_of_one_plain_pass_each(both):
    """Before: by an anchor that was never trained. After: by the models that the run saved."""
    sections, walked, _ = both
    d, j = walked.slots[walked.q]
    texts = [walked.drafts[d][j].rollout, *walked.solved.answers[walked.q]]
    rows = block_of(sections, "log-prob of the whole text")[1:]
    for place, column in (("toy/anchor", 2), (f"{walked.cfg.run}/{{}}", 3)):
        roles = ["generator", *["solver"] * (len(texts) - 1)]
        for row, role, rollout in zip(rows, roles, texts):
            whole = plain_logps(place.format(role), rollout, walked.cfg).sum()
            assert float(row[column]) == pytest.approx(float(whole), abs=2e-3)

    # the answer told token by token: the first with A > 0; at rho = 1 its loss is -A w
    i = next(i for i, a in enumerate(walked.solved.A[walked.q]) if a > 0)
    A, rollout = float(walked.solved.A[walked.q, i]), texts[1 + i]
    logp = plain_logps("toy/anchor", rollout, walked.cfg)
    w = (logp - torch.tensor(rollout.logp)).exp().clamp(max=2.0)
    for k, row in enumerate(block_of(sections, "tokens")[1:]):
        numbers = [float(x) for x in row[1:]]
        expected = [float(logp[k]), rollout.logp[k], float(w[k]), -A * float(w[k])]
        assert numbers == pytest.approx(expected, abs=2e-4)


def plain_logps(folder, rollout, cfg):
    """One sequence through a model that transformers loads, without any of our code."""
    path = ROOT / folder
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    with torch.no_grad():
        return logps(SimpleNamespace(model=model), rollout, cfg)


def test_advantages_of_the_answers_and_dev_accuracy_by_counting(both):
    sections, walked, written = both
    rows = block_of(sections, "the answers")[1:]
    key = walked.questions[walked.q].letter
    right = [float(f"{{{key}}}" in row[4].split("boxed")[-1]) for row in rows]
    assert [float(row[2]) for row in rows] == right
    expected = [x - sum(right) / len(right) for x in right]
    assert [float(row[3]) for row in rows] == pytest.approx(expected, abs=6e-4)

    metrics = json.loads((Path(walked.cfg.run) / "metrics.jsonl").read_text().splitlines()[0])
    sentence = sections[-1].sentence
    assert f"{100 * metrics['dev_accuracy']:.1f} % before" in sentence


def test_the_page_holds_every_cell_of_every_table(both):
    reader = Cells()
    reader.feed(pages.as_html(both[0]))
    tables = []
    for section in both[0]:
        tables += [content for kind, _, content in section.blocks if kind == "table"]
    for rows, cells in zip(tables, reader.tables, strict=True):
        assert cells == [list(map(str, row)) for row in rows if any(row)]


class Cells(HTMLParser):
    """The texts of all tables of a page."""

    def __init__(self):
        super().__init__()
        self.tables, self.inside = [], False

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.inside = True
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside:
            self.tables[-1][-1][-1] += data


def test_every_line_of_code_named_is_there(both):
    for section in both[0]:
        for named in section.lines:
            file, number = named.split(":")
            assert 0 < int(number) <= len((ROOT / file).read_text().splitlines())


def test_text_keeps_to_the_terminal_and_a_page_needs_nothing_else(both):
    text = pages.as_text(both[0])
    assert max(map(len, text.split("\n"))) <= 130
    page = pages.as_html(both[0])
    assert "http" not in page and "<script" not in page and page.count("<section") == len(both[0])


def test_what_a_document_says_cannot_steer_page_or_terminal():
    section = steps.Section("t", "<b>", [], [("text", "\x1b[2J", "<script>alert(1)</script>")])
    assert "<script>" not in pages.as_html([section])
    assert "\x1b" not in pages.as_text([section])


def block_of(sections, caption):
    for section in sections:
        for kind, name, content in section.blocks:
            if name == caption:
                return content
    raise AssertionError(f"no {caption}")


@pytest.mark.parametrize("words", [
    ["--reward", "fixed"], ["--reward", "2 influence"], ["--similarity", "cosine"],
    ["--advantage", "none"], ["--reward", "fixed", "--train_on", "dev"]])
def test_a_run_of_another_recipe_is_refused_before_anything_is_sampled(words):
    cfg = flags.parse(["--preset", "toy", *words])
    with pytest.raises(InputError, match="as the main recipe has it"):
        steps.Walk(cfg, None, None, None, None, 1, None).sections()


def test_a_page_that_cannot_be_written_is_said_before_the_walk(tmp_path):
    with pytest.raises(InputError, match="its folder does not exist"):
        classroom.walk.main(["--output", str(tmp_path / "nowhere/walk.html")])
