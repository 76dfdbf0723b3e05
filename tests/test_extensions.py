"""The extensions: each changes what it says and nothing else, on questions small enough to count by
hand and in two iterations of the embedded world.
"""
import json
from engine import presets
from dataclasses import replace

import pytest
import torch

import config
import extensions
import fakes
import generator
import solver
import train
from config import Config
from data import Answered, Document, InputError, Question, Rollout
from engine.flags import from_flags, parse
from engine.pools import bundles, load_written, unlike
from engine.readers import load_documents, load_questions
from extensions import DevSet, Study, gate, kept
from policy import spread

MC = [
    Question(f"What is {i} plus {i}?", ["1", "2", "3", str(2 * i + 4)], str(2 * i + 4), f"q-{i}")
    for i in range(20)
]


# of the fake tokenizer: its EOS, and the token that ends a turn
EOS, END = fakes.EOS, fakes.END


def answer(text, last=EOS):
    return Rollout([1], [9, last], [0.0, 0.0], last in (EOS, END), text)


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


# ---------------------------------------------------------------- hybrid RLVR


def test_the_pool_leaves_out_dev_questions_whatever_their_case_and_punctuation():
    copy, new = Question("what is 3 PLUS 3", [], "6"), Question("What is 50 + 1?", [], "51")
    assert unlike(MC, [copy, new]) == [new]


def test_every_problem_comes_once_per_epoch_and_another_seed_another_order():
    rounds = []
    for seed in (0, 1):
        study = Study(Config(rlvr_per_step=2, seed=seed), [], [])
        study.rlvr = [Question(f"Name number {i}", [], str(i)) for i in range(6)]
        rounds.append([problem.ground_truth for t in (1, 2, 3) for problem in study.problems(t)])
    assert sorted(rounds[0]) == sorted("012345") and rounds[0] != rounds[1]


def solved(make_policy, monkeypatch, group, **changes):
    """A question whose key is A, with these answers -> Answered."""
    policy, cfg = make_policy(answers_per_question=len(group), **changes)
    monkeypatch.setattr(solver, "answer_questions", lambda *_, **__: [group])
    question = Question("2 + 2?", ["4", "5", "6", "7"], "4")
    return solver.solve(policy, [question], 1, "answer", cfg, None)


# right; gave up; cut before its box; ended its turn, not the text; boxed nonsense
GROUP = [answer(r"\boxed{A}"), answer("No idea."), answer("cut", last=9), answer("No.", last=END),
         answer(r"\boxed{?}")]


def test_only_an_answer_that_ends_with_eos_before_any_box_is_penalised(make_policy, monkeypatch):
    found = solved(make_policy, monkeypatch, GROUP, unboxed_penalty=0.5)
    assert torch.allclose(found.A_update, torch.tensor([[0.9, -0.6, -0.1, -0.1, -0.1]]))


def test_the_penalty_is_in_the_update_and_not_in_g_dev_or_g_q(make_policy, monkeypatch):
    found = solved(make_policy, monkeypatch, GROUP, unboxed_penalty=0.5)
    without = solved(make_policy, monkeypatch, GROUP)
    assert torch.equal(found.A, without.A) and torch.equal(without.A, without.A_update)
    assert torch.equal(found.r, without.r)
    assert torch.allclose(found.A, torch.tensor([[0.8, -0.2, -0.2, -0.2, -0.2]]))


def test_a_group_of_wrong_answers_trains_only_if_some_lack_a_box(make_policy, monkeypatch):
    wrong = [answer(r"\boxed{B}"), answer("")]
    found = solved(make_policy, monkeypatch, wrong, unboxed_penalty=0.5)
    assert torch.allclose(found.A_update, torch.tensor([[0.25, -0.25]]))
    # it has no influence: there is no g_q
    assert not found.A.any()
    assert not solved(make_policy, monkeypatch, wrong).A_update.any()


# ---------------------------------------------------------------- what the generator writes


@pytest.mark.parametrize(
    "fields, reason",
    [
        ({"question_text": "2 + 2?", "ground_truth": "4"}, None),
        ({"question_text": "2 + 2?", "ground_truth": 4}, None),
        ({"question_text": "2 + 2?", "ground_truth": "4", "choices": []}, None),
        ({"question_text": "Which?", "ground_truth": "4", "choices": ["3", "4"]}, "has_choices"),
        ({"question_text": "2 + 2?"}, "missing_field"),
        ({"question_text": "2 + 2?", "ground_truth": None}, "missing_field"),
        ({"question_text": "2 + 2?", "ground_truth": ["4"]}, "wrong_type"),
        ({"question_text": " ", "ground_truth": "4"}, "empty_question"),
        ({"question_text": "2 + 2?", "ground_truth": " "}, "empty_answer"),
        ({"question_text": "Why?", "ground_truth": "because " * 13}, "long_answer"),
        ({"question_text": "2 + 2?", "ground_truth": "\ud800"}, "not_unicode"),
    ],
)
def test_a_free_form_draft(fields, reason):
    question, why = generator.parse_question("So: " + json.dumps(fields), question_type="free_form")
    assert why == reason
    assert question is None or question == Question("2 + 2?", [], "4")


def test_the_default_prompt_is_the_one_the_anchors_were_warmed_on():
    assert generator.prompt_text(Document("d", "A note.")) == generator.PROMPT.format(
        document="A note."
    )


def shown(document):
    """The texts of the questions that stand in a document's place."""
    return [json.loads(line)["question_text"] for line in document.content.split("\n")]


def test_seeds_stand_where_the_document_would():
    document = bundles(MC, 4, 0)[1]
    text = generator.prompt_text(document)
    assert "document" not in text.lower()
    assert len(shown(document)) == 3
    assert all(seed in text for seed in shown(document))


def test_each_dev_question_is_once_the_anchor_of_a_bundle_which_never_shows_it():
    documents = bundles(MC, 4, 0)
    assert len(documents) == len(MC)
    for anchor, document in zip(MC, documents):
        ids = document.doc_id.split("+")
        assert ids[0] == anchor.question_id and len(set(ids)) == 4
        assert anchor.question_text not in shown(document)


def test_bundles_are_fixed_over_a_run_and_others_with_another_seed():
    cfg = Config(seed_questions=4, docs_per_step=10)
    study = extensions.study_of(cfg, [], MC, lambda *_, **__: [], lambda document: 0)
    first = study.documents(1) + study.documents(2)
    again = study.documents(3) + study.documents(4)
    # two epochs of the same bundles, in another order
    assert {x.doc_id: x.content for x in first} == {x.doc_id: x.content for x in again}
    assert [x.doc_id for x in first] != [x.doc_id for x in again] and len(first) == len(MC)
    assert bundles(MC, 4, 0) == bundles(MC, 4, 0) != bundles(MC, 4, 1)


def test_one_dev_question_makes_no_bundle():
    cfg = Config(seed_questions=4, dev="dev.json")
    with pytest.raises(InputError, match="dev.json: expected at least 2 questions"):
        extensions.study_of(cfg, [], MC[:1], None, len)


def test_seeds_are_left_out_until_the_prompt_fits():
    for most, expected in ((2, 2), (0, 1)):
        documents = bundles(MC, 4, 0, lambda document: len(shown(document)) <= most)
        assert {len(shown(document)) for document in documents} == {expected}


def test_a_bundle_that_does_not_fit_even_alone_is_left_out_and_counted():
    cfg, said = Config(seed_questions=4, max_prompt_tokens=10), []
    lengths = {x.doc_id: 5 + 6 * (i == 0) for i, x in enumerate(bundles(MC, 2, 0, len))}

    def length(document):
        return lengths.get(document.doc_id, 5 + 6 * document.doc_id.startswith(MC[0].question_id))

    study = extensions.study_of(cfg, [], MC, lambda *_, **__: [], length, said.append)
    assert len(study.pool) == len(MC) - 1
    assert said == ["1 bundles of seed questions are longer than 10 tokens in the prompt even with "
                    "one shown; left out"]


def test_a_copy_of_any_seed_is_invalid_and_another_question_is_not(make_policy, monkeypatch):
    policy, cfg = make_policy(max_prompt_tokens=4096)
    document = bundles(MC, 4, 0)[0]
    # the hidden anchor, one that is shown, and one of another bundle
    others = [seed.question_text for seed in MC if seed.question_text not in shown(document)]
    copies = [MC[0].question_text, shown(document)[0], others[-1]]
    texts = [text.upper().replace("?", " ?") for text in copies] + ["What is 90 plus 1?"]
    drafts = [
        json.dumps({"question_text": text, "choices": ["1", "2", "3", "4"], "ground_truth": "4"})
        for text in texts
    ]
    monkeypatch.setattr(
        generator, "sample", lambda *args, **more: [[answer(draft) for draft in drafts]]
    )
    row = generator.write_questions(
        policy, [document], (0, 1), replace(cfg, questions_per_doc=4), policy
    )[0]
    assert [draft.reason for draft in row] == ["copies_seed"] * 3 + [None]


def test_a_runs_questions_file_gives_its_valid_drafts(tmp_path):
    row = {"question": "2 + 2?", "choices": ["3", "4", "5", "6"], "answer": "4", "status": "valid"}
    assert [
        q.ground_truth
        for q in load_written(
            write(tmp_path / "q.jsonl", [row, {"status": "no_json", "question": None}, row])
        )
    ] == ["4", "4"]


# ---------------------------------------------------------------- which questions count


def scattered(rows):
    """Rows of scores, None for an invalid draft -> s_hat, slots, (D, n)."""
    slots, s_hat = [], []
    for d, row in enumerate(rows):
        for j, score in enumerate(row):
            if score is not None:
                slots.append((d, j))
                s_hat.append(score)
    return torch.tensor(s_hat), slots, (len(rows), len(rows[0]))


# Five documents of two drafts; sigma is half of what the two differ by: 0, .01, .02, .03, .04.
FIVE = scattered([[0.3, 0.3], [0.1, 0.12], [None, -0.04], [0.06, None], [0.04, -0.04]])


@pytest.mark.parametrize("settings, passing", [
    (dict(), {0, 1, 2, 3, 4}),
    # quantiles of the five sigmas: .032, .024, and the least, which does not exceed itself
    (dict(share=0.2), {4}),
    (dict(share=0.4), {3, 4}),
    (dict(share=1.0), {1, 2, 3, 4}),
    (dict(share=0.2, tau_max=0.025), {3, 4}),
    (dict(share=0.2, tau_max=0.5), {4}),
    (dict(tau=0.015), {2, 3, 4}),
    (dict(tau=0.5), set())])
def test_the_gate_is_over_a_documents_scores_with_invalid_drafts_as_0(settings, passing):
    s_hat, slots, shape = FIVE
    expected = [float(x) if d in passing else 0.0 for x, (d, _) in zip(s_hat, slots)]
    assert gate(s_hat, slots, shape, **settings).tolist() == expected


def test_a_gate_without_a_question_is_nothing():
    assert gate(torch.zeros(0), [], (5, 2), share=0.2).shape == (0,)


SLOTS, SCORE = (
    [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 3)],
    torch.tensor([0.1, 0.3, 0.2, 0.9, 0.8, -0.5]),
)
MIXED = torch.ones(6, dtype=torch.bool)


FLAT_FIRST = torch.tensor([True, True, True, False, True, True])


@pytest.mark.parametrize("changes, mixed, expected", [
    (dict(), MIXED, [1, 1, 1, 1, 1, 1]),
    (dict(solver_keep="top", keep_per_doc=1), MIXED, [0, 1, 0, 1, 0, 1]),
    (dict(solver_keep="top", keep_per_doc=2), MIXED, [0, 1, 1, 1, 1, 1]),
    (dict(solver_keep="top", keep_share=0.5), MIXED, [0, 1, 0, 1, 1, 0]),
    (dict(solver_keep="top", keep_share=0.01), MIXED, [0, 0, 0, 1, 0, 0]),
    # a flat question takes nobody's place, and a share counts it all the same: 3 of 6
    (dict(solver_keep="top", keep_per_doc=1), FLAT_FIRST, [0, 1, 0, 0, 1, 1]),
    (dict(solver_keep="top", keep_share=0.5), FLAT_FIRST, [0, 1, 1, 0, 1, 0]),
    # rounded up: 4 of 6, and exact where the product is whole
    (dict(solver_keep="top", keep_share=0.51), FLAT_FIRST, [1, 1, 1, 0, 1, 0]),
    (dict(solver_keep="top", keep_share=1.0), FLAT_FIRST, [1, 1, 1, 0, 1, 1]),
    (dict(solver_keep="random", keep_share=1.0), FLAT_FIRST, [1, 1, 1, 0, 1, 1])])
def test_the_top_of_each_document_or_of_all_among_those_with_a_gradient(changes, mixed, expected):
    assert kept(SLOTS, SCORE, mixed, Config(**changes), 0).int().tolist() == expected


def test_of_equal_scores_the_first_is_kept():
    cfg = Config(solver_keep="top", keep_share=0.5)
    assert kept(SLOTS, torch.zeros(6), MIXED, cfg, 0).int().tolist() == [1, 1, 1, 0, 0, 0]


def test_a_random_share_ignores_the_scores_and_follows_the_key():
    masks = [
        kept(SLOTS, SCORE, MIXED, Config(solver_keep="random", keep_share=0.5), key).tolist()
        for key in range(20)
    ]
    assert all(sum(mask) == 3 for mask in masks) and len(set(map(tuple, masks))) > 5
    assert all(any(mask[q] for mask in masks) for q in range(6))


def test_problems_are_kept_whatever_the_filter_says():
    """Two questions, of which the filter keeps the second, and two problems behind them."""
    answered = Answered([], [], None, None, None, torch.ones(4, 2))
    _, A = Study(Config(), [], []).batch(torch.tensor([False, True]), answered, None)
    assert A.tolist() == [[0, 0], [1, 1], [1, 1], [1, 1]]


def test_questions_are_spread_by_their_slot_and_problems_as_one_document():
    groups = list(range(7))
    documents = solver.documents_of([(0, 1), (0, 2), (1, 0)], groups)
    assert documents == [0, 0, 1, None, None, None, None]
    # places 1/4 3/4, 1/2, and 1/8 3/8 5/8 7/8
    assert spread(documents) == [3, 0, 4, 2, 5, 1, 6]


def test_what_is_not_kept_drops_out_and_what_follows_the_questions_stays():
    A = torch.ones(3, 2)
    assert extensions.only(torch.tensor([True, False]), A).tolist() == [
        [1, 1],
        [0, 0],
        [1, 1],
    ] and bool((A == 1).all())


# ---------------------------------------------------------------- dev-set refresh


POOL = [Question(f"New {i}", [], "1", f"n-{i}") for i in range(6)]


def ids_of(dev_set):
    return {question.question_id for question in dev_set.questions}


def test_the_hardest_and_the_easiest_tenth_leave_for_good():
    dev_set = DevSet(MC, POOL + MC[:2], Config(dev_refresh=3))
    solved = torch.linspace(0, 1, 20)[
        torch.randperm(20, generator=torch.Generator().manual_seed(0))
    ]
    before = dev_set.questions
    dev_set.remember(solved[:, None].repeat(1, 4))
    assert dev_set.refresh() == 4
    gone = {question.question_id for question in before} - ids_of(dev_set)
    order = solved.argsort().tolist()
    assert gone == {before[i].question_id for i in order[:2] + order[-2:]}
    assert len(dev_set.questions) == 20

    seen = set(gone)
    for _ in range(5):
        dev_set.remember(torch.rand(20, 4))
        dev_set.refresh()
        assert not seen & ids_of(dev_set)
    # six new ones in all: the pool ran dry, and two of its items were dev questions already
    assert dev_set.next == 26
    assert len(dev_set.questions) == 20


def test_a_refresh_looks_at_all_iterations_since_a_question_came_not_at_the_last():
    """Ten questions, so one from either end: the first by .5, .1 and the last by .5, .9 on average;
    in the last iteration the third is the hardest and the fourth the easiest.
    """
    dev_set = DevSet(MC[:10], POOL, Config(dev_refresh=2))
    early, late = torch.full((10,), 0.5), torch.full((10,), 0.5)
    early[0], early[9], early[2], early[3] = 0.0, 1.0, 0.8, 0.2
    late[0], late[9], late[2], late[3] = 0.2, 0.8, 0.1, 0.9
    for r in (early, late):
        dev_set.remember(r[:, None].repeat(1, 4))
    dev_set.refresh()
    assert {f"q-{i}" for i in range(10)} - ids_of(dev_set) == {"q-0", "q-9"}
    # those that stay keep their history, those that come have none
    assert [times for _, times in dev_set.history] == [2] * 8 + [0] * 2
    assert sum(total for total, _ in dev_set.history) == pytest.approx(8 * 1.0 - 0.1 + 0.1)


def test_a_question_that_was_never_checked_stays():
    dev_set = DevSet(MC[:10], POOL, Config(dev_refresh=2))
    r = torch.rand(10, 4)
    r[4] = float("nan")
    dev_set.remember(r)
    # an iteration in which the dev questions were not asked
    dev_set.remember(torch.zeros(0, 0))
    assert dev_set.refresh() == 2 and "q-4" in ids_of(dev_set)


def test_the_history_goes_through_a_checkpoint():
    dev_set = DevSet(MC, POOL, Config(dev_refresh=2))
    dev_set.remember(torch.rand(20, 4))
    other = DevSet(MC, POOL, Config(dev_refresh=2))
    other.load(json.loads(json.dumps(dev_set.state())))
    r = torch.rand(20, 4)
    for one in (dev_set, other):
        one.remember(r)
        one.refresh()
    assert other.questions == dev_set.questions


def test_the_period_is_exact():
    dev_set = DevSet(MC, [], Config(dev_refresh=3))
    assert [t for t in range(1, 10) if dev_set.due(t)] == [3, 6, 9] and not DevSet(
        MC, [], Config()
    ).due(3)


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "flags, complaint",
    [
        (["--train_on", "file"], "questions = None: expected a file beside train_on"),
        (["--questions", "x.json"], "expected none beside train_on = 'generated'"),
        (["--rlvr", "x.json"], "expected none beside rlvr_per_step = 0"),
        (["--rlvr_per_step", "4"], "rlvr = None: expected a file"),
        (["--dev_refresh", "5"], "dev_pool = None: expected a file"),
        (["--solver_keep", "top", "--reward", "fixed"], "gives no scores"),
        (["--solver_keep", "random", "--train_on", "dev"], "nothing is drafted"),
        (["--gate_share", "0.2", "--reward", "azr"], "gate_share = 0.2: expected 0"),
        (["--gate_share", "1.2"], "gate_share = 1.2: expected at most 1"),
        (["--gate_tau", "0.2", "--reward", "azr"], "gate_tau = 0.2: expected none"),
        (["--gate_tau", "0.2", "--gate_share", "0.2"], "expected none beside gate_share"),
        (["--gate_tau", "-1"], "gate_tau = -1.0: expected 0 or more"),
        (["--gate_tau_max", "0.2"], "gate_tau_max = 0.2: expected none unless"),
        (["--seed_questions", "1"], "seed_questions = 1: expected 0, or at least 2"),
        (["--seed_questions", "2", "--open_book", "true"], "open_book = True: expected false, or"),
        (["--train_on", "dev", "--reward", "fixed", "--open_book", "true"], "open_book = True"),
        (["--keep_share", "0"], "keep_share = 0.0: expected a number above 0"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(flags, complaint):
    with pytest.raises(InputError) as caught:
        parse(flags)
    assert complaint in str(caught.value)


def test_seeded_generation_needs_no_documents(tmp_path):
    cfg = parse(["--model", str(tmp_path), "--dev", "dev.json", "--seed_questions", "2"])
    assert cfg.documents is None
    with pytest.raises(InputError):
        parse(["--model", str(tmp_path), "--dev", "dev.json"])


# ---------------------------------------------------------------- in the loop


def run_toy(tmp_path, name, **changes):
    """Two small iterations of the embedded world's free anchor -> (metrics, questions)."""
    flags = {
        "preset": "toy-free",
        "iterations": 2,
        "docs_per_step": 2,
        "questions_per_doc": 4,
        "answers_per_question": 4,
        "minibatch_rows": 16,
        "eval_every": 9,
        "threads": 1,
        "show_every": 0,
        "device": "cpu",
        "run": str(tmp_path / name),
        **changes,
    }
    train.train(from_flags({key: str(value) for key, value in flags.items()}))
    return tuple(
        [json.loads(line) for line in open(tmp_path / name / file)]
        for file in ("metrics.jsonl", "questions.jsonl")
    )


@pytest.fixture
def few(tmp_path):
    """A few of the embedded world's dev and test questions: {flag: file}."""
    files = {}
    for name, n in (("dev", 24), ("test", 4)):
        with open(presets.TOY[name]) as f:
            files[name] = write(tmp_path / f"{n}.jsonl", json.load(f)[:n])
    return files


def both_terms_are_logged(metrics, questions):
    """And the score is their weighted sum."""
    for x in questions:
        if x["status"] == "valid":
            total = x["terms"]["influence"] + 0.5 * x["terms"]["spice"]
            assert x["score"] == pytest.approx(total, abs=1e-6)
            assert x["terms"]["influence"] == x["s_hat"]
    assert any(line["generator_grad_norm"] for line in metrics)
    return all(set(line["terms_mean"]) == {"influence", "spice"} for line in metrics)


def test_a_changed_dev_set_begins_without_the_old_ones_mean_gradient():
    study = Study(Config(dev_ema=0.9), [], MC)
    state, _ = study.state()
    study.load(state, [torch.ones(2)])
    assert study.average is not None
    study.load(None, [torch.ones(2)])
    assert study.average is None


def paid_documents(rows, t):
    """In how many documents of iteration t did a question earn anything."""
    return len({x["slot"][0] for x in rows if x["iteration"] == t and x["s_hat"]})


@pytest.mark.slow
def test_dev_only_trains_on_the_answers_that_are_there_and_samples_nothing_twice(tmp_path, few):
    metrics, questions = run_toy(tmp_path, "x", **few, train_on="dev")
    assert questions == []
    for line in metrics:
        # of the 24 x 4 dev answers those of mixed questions
        dev_tokens = 24 * 4 * line["dev_tokens_mean"]
        share = line["tokens_trained"] / dev_tokens
        assert 0 < share < 1 and abs(share - line["dev_mixed_share"]) < 0.1
        assert line["solver_grad_norm"] > 0 and line["generator_grad_norm"] is None
    # the last one is tested, too
    assert metrics[0]["tokens_sampled"] == round(24 * 4 * metrics[0]["dev_tokens_mean"])


@pytest.mark.slow
def test_rlvr_changes_the_solver_and_not_what_is_drafted_scored_or_paid_in_the_same_iteration(
    tmp_path, few
):
    pool = str(config.ROOT / "toy/free/rlvr.json")
    (plain, plain_questions), (hybrid, hybrid_questions) = (
        run_toy(tmp_path, name, **few, **more)
        for name, more in (("plain", {}), ("hybrid", {"rlvr": pool, "rlvr_per_step": 6}))
    )
    first = [[row for row in rows if row["iteration"] == 1]
             for rows in (plain_questions, hybrid_questions)]
    assert first[0] == first[1]
    assert plain[0]["rlvr_solved_share"] is None and 0 < hybrid[0]["rlvr_solved_share"] < 1
    assert (
        plain[0]["tokens_trained"] < hybrid[0]["tokens_trained"]
        and plain[1]["dev_entropy"] != hybrid[1]["dev_entropy"]
    )
    plainly, beside = (line["tokens_sampled"] - line["tokens_tested"]
                       for line in (plain[0], hybrid[0]))
    assert plainly < beside


@pytest.mark.slow
def test_a_refreshed_dev_set_survives_a_resume(tmp_path, few):
    changes = {**few, "dev_refresh": 2, "dev_pool": presets.TOY["dev"]}
    whole, _ = run_toy(tmp_path, "whole", **changes | {"iterations": 3})
    run_toy(tmp_path, "halves", **changes | {"iterations": 1})
    # what iteration 1 saw decides who leaves after iteration 2
    train.train(parse(["--resume", str(tmp_path / "halves"), "--iterations", "3"]))
    halves = [json.loads(line) for line in open(tmp_path / "halves" / "metrics.jsonl")]
    assert [x["dev_replaced"] for x in whole] == [None, 4, None]
    aside = ("seconds", "peak_memory_mb", "test_accuracy", "test_standard_error", "tokens_sampled")
    for key in set(whole[2]) - set(aside):
        assert whole[2][key] == halves[2][key], key


def carries_its_passage(metrics, questions):
    """Every valid question the whole note it was written from, as a question file would."""
    texts = {x.doc_id: x.content for x in load_documents(presets.TOY["documents"])}
    valid = [row for row in questions if row["status"] == "valid"]
    return valid and all(row["passage"] == texts[row["doc_id"]] for row in valid)


def test_a_question_asked_with_its_book_open_is_asked_so_again_from_the_log(tmp_path):
    choices = ["iron", "gold", "tin", "glass"]
    question = Question("What rusts?", choices, "iron", passage="Iron rusts.")
    row = {"question": question.question_text, "choices": question.choices,
           "answer": "iron", "status": "valid", "passage": question.passage}
    (tmp_path / "questions.jsonl").write_text(json.dumps(row) + "\n")
    again, = load_questions(str(tmp_path / "questions.jsonl"))
    assert solver.prompt_text(again) == solver.prompt_text(question)
    assert solver.prompt_text(question).startswith("Iron rusts.\n\nWhat rusts?\n\nA. iron")
    assert solver.prompt_text(question, "hard")[1].count("Iron rusts.\n\nWhat rusts?") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes, check",
    [
        (
            {"question_type": "free_form"},
            lambda m, q: any(x["status"] == "valid" and x["choices"] == [] for x in q),
        ),
        (
            {"seed_questions": 4},
            lambda m, q: (
                any(x["status"] == "valid" for x in q)
                and all(x["doc_id"].count("+") == 3 for x in q)
            ),
        ),
        ({"open_book": True}, carries_its_passage),
        ({"reward": "influence + 0.5 spice:group_std"}, both_terms_are_logged),
        ({"solver_keep": "top", "keep_per_doc": 1}, lambda m, q: m[0]["kept_share"] < 1),
        (
            # of two documents the one whose scores differ less
            {"gate_share": 0.5},
            lambda m, q: all(paid_documents(q, t) == 1 for t in (1, 2)),
        ),
        (
            {"train_on": "file", "questions": presets.TOY["test"]},
            lambda m, q: q == [] and m[0]["solver_grad_norm"] > 0,
        ),
    ],
)
def test_an_extension_runs_in_the_loop(tmp_path, few, changes, check):
    metrics, questions = run_toy(tmp_path, "x", **few, **changes)
    assert len(metrics) == 2 and check(metrics, questions)
