"""The extensions: each changes what it says and nothing else, on questions small enough to count by
hand and in two iterations of the embedded world.
"""
import json
from dataclasses import replace

import pytest
import torch

import config
import extensions
import generator
import solver
import train
from config import Config
from data import Document, InputError, Question, Rollout
from engine.flags import from_flags, parse
from extensions import DevSet, Study, gate, kept, load_written, seeds, unlike

MC = [
    Question(f"What is {i} plus {i}?", ["1", "2", "3", str(2 * i + 4)], str(2 * i + 4), f"q-{i}")
    for i in range(20)
]


def answer(text, finished=True):
    return Rollout([1], [2], [0.0], finished, text)


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


def test_only_an_answer_that_ended_by_itself_without_a_box_is_penalised():
    answers = [
        [
            answer(r"\boxed{A}"),
            answer("No idea."),
            answer("cut before the box", finished=False),
            answer(r"\boxed{?}"),
        ]
    ]
    r = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    assert torch.allclose(
        solver.advantages(answers, r, Config(unboxed_penalty=0.5)),
        torch.tensor([[0.875, -0.625, -0.125, -0.125]]),
    )
    assert torch.allclose(
        solver.advantages(answers, r, Config()), torch.tensor([[0.75, -0.25, -0.25, -0.25]])
    )


def test_a_group_of_wrong_answers_has_a_gradient_only_if_some_lack_a_box():
    wrong = torch.zeros(1, 2)
    assert bool(
        solver.advantages(
            [[answer(r"\boxed{B}"), answer("")]], wrong, Config(unboxed_penalty=0.5)
        ).any()
    )
    assert not solver.advantages([[answer(r"\boxed{B}"), answer("")]], wrong, Config()).any()


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


def test_seeds_stand_where_the_document_would():
    document = seeds(MC, 2, 3, (0, 1))[1]
    text = generator.prompt_text(document)
    assert (
        len(document.seeds) == 3
        and "document" not in text.lower()
        and all(seed.question_text in text for seed in document.seeds)
    )
    assert [json.loads(line)["ground_truth"] for line in document.content.split("\n")] == [
        seed.ground_truth for seed in document.seeds
    ]
    assert seeds(MC, 2, 3, (0, 1)) == seeds(MC, 2, 3, (0, 1)) != seeds(MC, 2, 3, (0, 2))


def test_seeds_are_left_out_until_the_prompt_fits():
    for most, expected in ((2, [2, 2]), (0, [1, 1])):
        documents = seeds(MC, 2, 3, (0, 1), lambda document: len(document.seeds) <= most)
        assert [len(document.seeds) for document in documents] == expected


def test_a_copy_of_a_seed_is_invalid_and_another_question_is_not(make_policy, monkeypatch):
    policy, cfg = make_policy(max_prompt_tokens=4096)
    document = seeds(MC[:3], 1, 3, 0)[0]
    texts = [MC[0].question_text.upper().replace("?", " ?"), "What is 90 plus 1?"]
    drafts = [
        json.dumps({"question_text": text, "choices": ["1", "2", "3", "4"], "ground_truth": "4"})
        for text in texts
    ]
    monkeypatch.setattr(
        generator, "sample", lambda *args, **more: [[answer(draft) for draft in drafts]]
    )
    row = generator.write_questions(
        policy, [document], (0, 1), replace(cfg, questions_per_doc=2), policy
    )[0]
    assert [draft.reason for draft in row] == ["copies_seed", None]


def test_a_runs_questions_file_gives_its_valid_drafts(tmp_path):
    row = {"question": "2 + 2?", "choices": ["3", "4", "5", "6"], "answer": "4", "status": "valid"}
    assert [
        q.ground_truth
        for q in load_written(
            write(tmp_path / "q.jsonl", [row, {"status": "no_json", "question": None}, row])
        )
    ] == ["4", "4"]


# ---------------------------------------------------------------- which questions count


def test_the_gate_closes_on_questions_whose_answers_hardly_differ():
    r = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [float("nan"), 1.0, 0.0, 0.0]])
    assert gate(torch.ones(3), r, 0.55).tolist() == [0, 1, 0] and gate(
        torch.ones(3), r, 0.0
    ).tolist() == [1, 1, 1]


SLOTS, SCORE = (
    [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 3)],
    torch.tensor([0.1, 0.3, 0.2, 0.9, 0.8, -0.5]),
)


@pytest.mark.parametrize(
    "changes, expected",
    [
        (dict(), [1, 1, 1, 1, 1, 1]),
        (dict(solver_keep="top", keep_per_doc=1), [0, 1, 0, 1, 0, 1]),
        (dict(solver_keep="top", keep_per_doc=2), [0, 1, 1, 1, 1, 1]),
        (dict(solver_keep="top", keep_share=0.5), [0, 1, 0, 1, 1, 0]),
        (dict(solver_keep="top", keep_share=0.01), [0, 0, 0, 1, 0, 0]),
    ],
)
def test_the_top_of_each_document_or_of_all(changes, expected):
    assert kept(SLOTS, SCORE, 6, Config(**changes), 0).int().tolist() == expected


def test_a_random_share_ignores_the_scores_and_follows_the_key():
    masks = [
        kept(SLOTS, SCORE, 6, Config(solver_keep="random", keep_share=0.5), key).tolist()
        for key in range(20)
    ]
    assert all(sum(mask) == 3 for mask in masks) and len(set(map(tuple, masks))) > 5
    assert all(any(mask[q] for mask in masks) for q in range(6))


def test_what_is_not_kept_drops_out_and_what_follows_the_questions_stays():
    A = torch.ones(3, 2)
    assert extensions.only(torch.tensor([True, False]), A).tolist() == [
        [1, 1],
        [0, 0],
        [1, 1],
    ] and bool((A == 1).all())


# ---------------------------------------------------------------- dev-set refresh


def test_the_hardest_and_the_easiest_tenth_leave_for_good():
    dev_set = DevSet(
        MC,
        [Question(f"New {i}", [], "1", f"n-{i}") for i in range(6)] + MC[:2],
        Config(dev_refresh=3),
    )
    solved = torch.linspace(0, 1, 20)[
        torch.randperm(20, generator=torch.Generator().manual_seed(0))
    ]
    before = dev_set.questions
    assert dev_set.refresh(solved[:, None].repeat(1, 4)) == 4
    gone = {question.question_id for question in before} - {
        question.question_id for question in dev_set.questions
    }
    order = solved.argsort().tolist()
    assert (
        gone == {before[i].question_id for i in order[:2] + order[-2:]}
        and len(dev_set.questions) == 20
    )
    seen = set(gone)
    for _ in range(5):
        dev_set.refresh(torch.rand(20, 4))
        assert not seen & {question.question_id for question in dev_set.questions}
    assert dev_set.next == 26, (
        "six new ones in all: the pool ran dry, and two of its items were dev questions already"
    )
    assert len(dev_set.questions) == 20


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
        (["--gate_std", "0.2", "--reward", "azr"], "gate_std = 0.2: expected 0"),
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
        with open(config.TOY[name]) as f:
            files[name] = write(tmp_path / f"{n}.jsonl", json.load(f)[:n])
    return files


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
        and plain[1]["dev_accuracy"] != hybrid[1]["dev_accuracy"]
    )


@pytest.mark.slow
def test_a_refreshed_dev_set_survives_a_resume(tmp_path, few):
    changes = {**few, "dev_refresh": 1, "dev_pool": config.TOY["dev"]}
    whole, _ = run_toy(tmp_path, "whole", **changes)
    run_toy(tmp_path, "halves", **changes | {"iterations": 1})
    train.train(parse(["--resume", str(tmp_path / "halves"), "--iterations", "2"]))
    halves = [json.loads(line) for line in open(tmp_path / "halves" / "metrics.jsonl")]
    assert [x["dev_replaced"] for x in whole] == [4, 4]
    aside = ("seconds", "peak_memory_mb", "test_accuracy", "test_standard_error", "tokens_sampled")
    for key in set(whole[1]) - set(aside):
        assert whole[1][key] == halves[1][key], key


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes, check",
    [
        (
            {"question_type": "free_form"},
            lambda m, q: any(x["status"] == "valid" and x["choices"] == [] for x in q),
        ),
        (
            {"seed_questions": 3},
            lambda m, q: (
                any(x["status"] == "valid" for x in q)
                and all(x["doc_id"].count("+") == 2 for x in q)
            ),
        ),
        ({"solver_keep": "top", "keep_per_doc": 1}, lambda m, q: m[0]["kept_share"] < 1),
        (
            {"gate_std": 0.55},
            lambda m, q: all(x["s_hat"] == 0 for x in q if x["solved"] in (0.25, 0.75)),
        ),
        (
            {"train_on": "file", "questions": config.TOY["test"]},
            lambda m, q: q == [] and m[0]["solver_grad_norm"] > 0,
        ),
    ],
)
def test_an_extension_runs_in_the_loop(tmp_path, few, changes, check):
    metrics, questions = run_toy(tmp_path, "x", **few, **changes)
    assert len(metrics) == 2 and check(metrics, questions)
