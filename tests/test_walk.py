"""The walk's numbers are those a run writes, and those of the plain definitions."""
import json

import pytest
import torch

import train
from classroom import pages, steps
from classroom.walk import walk
from config import ROOT
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
        import classroom.walk
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
        numbers["s_hat, streamed as in a run"], abs=2e-6)


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
