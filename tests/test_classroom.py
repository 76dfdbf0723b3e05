"""The classroom: ours passes, a blank is said, and every planted mistake gets its own sentence."""
import sys

import pytest

from classroom import course, grader, judge, running, sources
from classroom.__main__ import main
from classroom.exercises import EXERCISES

pytestmark = pytest.mark.slow
NAMES = list(EXERCISES)
MISTAKES = [(name, i) for name in NAMES for i in range(len(EXERCISES[name].MISTAKES))]


@pytest.mark.parametrize("name", NAMES)
def test_our_own_function_passes(name):
    exercise = EXERCISES[name]
    verdict = judge.grade(exercise, course.reference(exercise.FILE))
    assert verdict == [("by_hand", True, "ok"), ("oracle", True, "ok")]


@pytest.mark.parametrize("name", NAMES)
def test_a_blank_is_said_and_keeps_signature_docstring_and_three_hints(name):
    exercise = EXERCISES[name]
    text = course.reference(exercise.FILE)
    for function in exercise.BLANKS:
        text = sources.blanked(text, function, exercise)
        blank = sources.source(text, function)
        ours = sources.source(course.reference(exercise.FILE), function)
        assert blank.split("\n")[0] == ours.split("\n")[0]
        hints = [f"Hint {i}. " in blank for i in (1, 2, 3, 4)]
        first = function == exercise.BLANKS[0]
        assert hints == [first, first, first, False]
    (what, right, sentence), = judge.grade(exercise, text)
    assert not right and "still blank" in sentence


@pytest.mark.parametrize("name, i", MISTAKES, ids=str)
def test_a_planted_mistake_fails_with_its_own_sentence(name, i):
    exercise = EXERCISES[name]
    sentence, text = list(judge.planted_mistakes(exercise))[i]
    what, right, said = judge.grade(exercise, text)[-1]
    assert not right and said == sentence


@pytest.mark.parametrize("name", NAMES)
def test_an_exercise_knows_at_least_four_mistakes(name):
    assert len(EXERCISES[name].MISTAKES) >= 4


@pytest.mark.parametrize("endless", ["while True: pass", "import time; time.sleep(99)"])
def test_code_without_an_end_is_ended_and_said(endless, monkeypatch):
    monkeypatch.setattr(grader, "SLACK", 5)
    assert "loop that never ends" in grader.apart([sys.executable, "-c", endless], 1)


# a student's center -> what is said of it
ENDINGS = {
    "while True: pass": "loop that never ends",
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": "killed by SIGKILL",
    "import os; os._exit(3)": "exit code 3",
    "import sys; sys.exit()": "it ended the program",
    "bytearray(2 ** 40)": "more than 6 GB of memory",
    "return r / 0": "shape (1, 4)|not finite",
    "return r.mean()": "has the shape ()",
    "return None": "gave nothing (None)",
    "return r.nonsense": "`return r.nonsense` of dugrpo.py: AttributeError",
}


# What is neither a usual mistake nor right: the numbers of the hand tell it.
FAULTS = [
    ("tree", "tree_of", "(g * len(group) + i, group[i])", "(i, group[i])"),
    ("tree", "tree_of", "group[i]) for i in chosen]", "group[i]) for i in sorted(chosen)]"),
    ("dugrpo", "dugrpo", "ADVANTAGES[mode]", 'ADVANTAGES["dugrpo"]'),
    ("s_hat", "similarity", '(cosine if cfg.similarity.endswith("cosine") else dot)', "cosine"),
    ("parse_question", "check_question", "len(choices) > max_choices", "False"),
    ("parse_question", "check_question", "if not text:", "if False:"),
    ("answers", "prompt_text", "if question.passage:", "if False:"),
    ("update", "update", "tokens += n", "pass"),
    ("token_loss", "token_loss", "max=tis_cap", "max=2.0"),
    ("token_loss", "token_loss", "-dual_clip * A", "-3 * A"),
    ("token_loss", "token_loss", "1 - clip, 1 + clip", "0.8, 1.2"),
    ("keyed", "choose", "token = torch.minimum(token, last)", "pass"),
    ("g_dev", "dev_gradient", "if math.isfinite(norm(g_dev)):", "if True:"),
    ("center", "center", 'checked(r, "rewards")', "pass"),
    ("center", "center", "like_input(A_sol.masked_fill(all_equal(r)[:, None], 0.0), r)", "A_sol"),
    ("dugrpo", "two_sigmas", " + eps", ""),
    ("dugrpo", "dugrpo", "sigma.mean()", "x.std(dim=1).mean()"),
    ("parse_question", "check_question", "if abstains(fields):", "if False:"),
    ("parse_question", "check_question", "if not all(map(is_encodable, strings)):", "if False:"),
    ("parse_question", "parse_draft", 'reason == "abstained" or ', ""),
    ("parse_question", "parse_draft", "found = question, reason, slips",
     "found = question, reason, []"),
    ("answers", "prompt_text", r'f"{question.passage}\n\n{text}"',
     r'f"{text}\n\n{question.passage}"'),
    ("answers", "rewards", "verdict is None and r[place] != 1", "verdict is None"),
    ("answers", "rewards", "given_answer(question, rollout.text)", "last_boxed(rollout.text)"),
    ("keyed", "choose", "if top_k or top_p < 1:", "if top_k:"),
    ("keyed", "choose", "truncated(p, top_p, top_k)", "truncated(p, 1.0, top_k)"),
    ("keyed", "choose", "right=True", "right=False"),
    ("s_hat", "similarity", 'cfg.similarity.startswith("preconditioned")',
     'cfg.similarity == "preconditioned_cosine"'),
    ("s_hat", "plain_scores", "g_dev is None or not kept", "not kept"),
    ("update", "update", "if cfg.minibatch_rows % m:", "if False:"),
    ("update", "update", "denominator = cfg.minibatch_rows *",
     "denominator = min(cfg.minibatch_rows, m * len(kept)) *"),
    ("token_loss", "token_loss", ".detach()", ""),
    ("token_loss", "token_loss", "(logp - logp_old).clamp(-20, 20)", "(logp - logp_old)"),
    ("loop", "train", "s_hat = study.s_hat(s_hat, slots)  # (Q,)", "pass"),
    ("loop", "train", "term.weight * dugrpo", "dugrpo"),
    ("loop", "train", "study.batch(kept, answered, dev)", "(answered.answers, answered.A_update)"),
]


@pytest.mark.parametrize("name, function, right, wrong", FAULTS)
def test_a_fault_that_nobody_foresaw_does_not_pass(name, function, right, wrong):
    exercise = EXERCISES[name]
    text = sources.changed(course.reference(exercise.FILE), function, right, wrong)
    verdict = judge.grade(exercise, text)
    assert not verdict.passed and verdict[-1][2] != "ok", verdict


def test_a_file_that_is_no_python_is_not_run(tmp_path, capsys):
    folder = tmp_path / "course"
    main(["start", str(folder), "center"])
    (folder / "dugrpo.py").write_text("def center(:", encoding="utf-8")
    assert main(["check", "center", "--run", "--dir", str(folder)]) == 1
    assert "is not Python" in capsys.readouterr().out


@pytest.mark.parametrize("place", ["a file", "/proc/nowhere"])
def test_a_course_begins_in_a_folder_that_can_be_made(tmp_path, capsys, place):
    (tmp_path / "a file").write_text("")
    assert main(["start", str(tmp_path / place)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("body", ENDINGS)
def test_whatever_a_students_code_does_a_sentence_comes_back(body, tmp_path):
    exercise = EXERCISES["center"]
    text = course.reference(exercise.FILE)
    text = sources.with_body(text, "center", [f"    {body}\n"])
    (tmp_path / exercise.FILE).write_text(text, encoding="utf-8")
    (_, right, sentence), = grader.check(tmp_path, exercise, seconds=2)
    assert not right
    assert any(part in sentence for part in ENDINGS[body].split("|")), sentence


def run_only(monkeypatch, **few):
    few = {f"--{name}": str(n) for name, n in few.items()}
    shorter = [few.get(before, word) for before, word in zip(["", *running.FLAGS], running.FLAGS)]
    monkeypatch.setattr(running, "FLAGS", shorter)


def test_the_run_of_a_right_function_is_ours(tmp_path, capsys, monkeypatch):
    # not ten of eight: two minutes less
    run_only(monkeypatch, iterations=3, docs_per_step=4)
    folder = tmp_path / "course"
    main(["start", str(folder), "center"])
    (folder / "dugrpo.py").write_text(course.reference("dugrpo.py"), encoding="utf-8")
    assert main(["check", "center", "--dir", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "the same curve as ours" in said and "1 of 1 passed" in said
    yours, ours = [line.split()[1:] for line in said.splitlines()
                   if line.split()[:1] in (["yours"], ["ours"])]
    # the anchor, and the end: a number and a % each
    assert yours == ours and len(ours) == 4


@pytest.mark.parametrize("name", ["Gamma", "streamed"])
def test_the_run_of_an_exercise_calls_its_functions(name, monkeypatch):
    """Training has a faster way past both; IN_RUN closes it."""
    run_only(monkeypatch, iterations=1, docs_per_step=2)
    exercise = EXERCISES[name]
    text = course.reference(exercise.FILE)
    for function in exercise.BLANKS:
        blank = sources.blanked(text, function, exercise)
        metrics, problem = running.run(blank, exercise)
        assert metrics is None and name in problem, function


def test_an_exercise_without_a_run_says_so(tmp_path, capsys):
    folder = tmp_path / "course"
    main(["start", str(folder), "learnability"])
    assert "from this folder" in capsys.readouterr().out
    (folder / "rewards.py").write_text(course.reference("rewards.py"), encoding="utf-8")
    assert main(["check", "learnability", "--run", "--dir", str(folder)]) == 0
    assert "none: the main recipe does not call it" in capsys.readouterr().out


def test_a_run_may_end_a_little_below_ours_and_no_further():
    expected = [(0, .442), (5, .478), (10, .600)]
    assert running.judged(expected, expected) == (True, "the same curve as ours")
    near = [(0, .442), (5, .470), (10, .565)]
    assert running.judged(near, expected) == (True, "it learns as ours does")
    right, sentence = running.judged([(0, .442), (5, .452), (10, .400)], expected)
    assert not right and "ends at 40.0 %" in sentence and "ours at 60.0 %" in sentence


def test_show_and_reset_of_a_file_that_is_no_python_or_not_there_say_so(tmp_path, capsys):
    file = tmp_path / "dugrpo.py"
    (tmp_path / "course.json").write_text('{"exercises": ["center"]}', encoding="utf-8")
    for command in ("show", "reset"):
        file.write_text("def center(r:\n", encoding="utf-8")
        assert main([command, "center", "--dir", str(tmp_path)]) == 2
        assert "your dugrpo.py is not Python" in capsys.readouterr().err
        file.unlink()
        assert main([command, "center", "--dir", str(tmp_path)]) == 2
        assert "is not there any more" in capsys.readouterr().err
