"""Checkers side by side: what each calls right of the same answers, a judge behind a server, the
whole command on the embedded world's anchor.
"""
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import evaluate
import solver
from data import InputError, Question, Rollout
from engine import checkers, endpoint, question_sets
from engine.checkers import Checkers, Judge
from engine.finished import Finished
from engine.math_verify_alone import MathVerify
from engine.verify import Verifier

ROOT = Path(__file__).resolve().parent.parent
ANCHOR = str(ROOT / "toy/anchor")
CHOICE = Question("Which is a gas?", ["ice", "steam"], "steam", "c")
FREE = Question("1 / 2 = ?", [], "0.5", "f")


def record(question, *texts):
    """Whole texts of answers -> their record, right as our own verifier has it."""
    group = [Rollout([], [1], [], True, text) for text in texts]
    with Verifier() as verifier:
        r = solver.rewards([question], [group], verifier)[0].tolist()
    return evaluate.record(question, group, r)


def check(names, question, *texts, judge=None, finished=None):
    with Checkers(names, solver.last_boxed, finished or Finished(None), judge) as found:
        return found.check([question], [record(question, *texts)])


def said(name, question, *texts):
    return check([name], question, *texts)[0][0]["right"]


# ---------------------------------------------------------------- each for itself

def test_letters_and_exact_on_choices():
    texts = (r"\boxed{B}", r"\boxed{\text{(b)}}", r"\boxed{steam}", "B", r"\boxed{A}")
    assert said("letters", CHOICE, *texts) == [1, 1, 1, 0, 0]
    assert said("exact", CHOICE, *texts) == [1, 0, 1, 0, 0]
    assert said("ours", CHOICE, *texts) == said("letters", CHOICE, *texts)


def test_exact_ours_and_math_verify_on_free_form_answers():
    texts = (r"\boxed{0.5}", r"\boxed{\frac{1}{2}}", "so it is $\\frac{1}{2}$.", r"\boxed{2}",
             r"\boxed{0.50001}")
    assert said("exact", FREE, *texts) == [1, 0, 0, 0, 0]
    assert said("ours", FREE, *texts) == [1, 1, 0, 0, 0]
    # it looks for an answer where there is no box
    assert said("math-verify", FREE, *texts) == [1, 1, 1, 0, 0]


def test_another_right_text_is_as_right():
    question = Question("Who?", [], "Ada Lovelace", "q", ("Augusta Ada King",))
    assert said("exact", question, r"\boxed{Augusta Ada King}", r"\boxed{Ada}") == [1, 0]


def test_math_verify_that_hangs_is_ended_and_unknown():
    with MathVerify(seconds=0.001) as checker:
        checker.start()
        assert checker.check([(r"\boxed{\frac{1}{3}}", "1/3")]) == [None]
        checker.seconds = 60
        assert checker.check([(r"\boxed{\frac{1}{3}}", "1/3")]) == [True]


def test_the_first_that_applies_decides_and_the_others_are_counted():
    questions = [CHOICE, FREE]
    records = [record(CHOICE, r"\boxed{A}", r"\boxed{(b)}"),
               record(FREE, r"\boxed{1/2}", r"\boxed{0.5}")]
    names = ["letters", "exact", "math-verify"]
    with Checkers(names, solver.last_boxed, Finished(None)) as found:
        decided, checked, differences = found.check(questions, records)
    assert [x["right"] for x in decided] == [[0, 1], [0, 1]]
    # what the file of answers holds is left alone
    assert records[1]["right"] == [1, 1]

    assert checked["letters"]["answers"] == 2 and checked["letters"]["right"] == 1
    assert checked["exact"]["answers"] == 4 and checked["exact"]["right"] == 1
    assert checked["exact"]["gained"] == 0 and checked["exact"]["lost"] == 1
    assert checked["math-verify"]["right"] == 2 and checked["math-verify"]["gained"] == 1
    assert [(x["question_id"], x["given"]) for x in differences] == [("c", "B"), ("f", "1/2")]
    assert differences[1]["right"] == {"exact": 0, "math-verify": 1}


def test_either_of_two_is_right_else_unknown_if_one_is():
    tables = [[[1, 0, None, 0], None], [[0, 0, 0, 1], None]]
    assert checkers.either(tables) == [[1, 0, None, 1], None]


# ---------------------------------------------------------------- the judge

class Handler(BaseHTTPRequestHandler):
    """Says yes where the student wrote "half", in an error everything it was sent; .seen."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][0]["content"]
        self.server.seen.append((prompt, self.headers.get("Authorization")))
        answer = prompt.split("End of the student's text:")[1]
        verdict = "I think: no. But yes" if "half" in answer else "No."
        reply = {"choices": [{"message": {"content": verdict}, "finish_reason": "stop"}]}
        status = self.server.status
        self.send_response(status)
        self.end_headers()
        refused = {"error": f"wrong key {self.headers.get('Authorization')}"}
        self.wfile.write(json.dumps(reply if status == 200 else refused).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv(endpoint.KEY, "sk-secret-1")
    instance = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    instance.seen, instance.status = [], 200
    threading.Thread(target=instance.serve_forever, daemon=True).start()
    instance.url = f"http://127.0.0.1:{instance.server_port}/v1"
    yield instance
    instance.shutdown()
    instance.server_close()


def test_a_judge_is_asked_once_for_equal_answers_and_never_again(server, tmp_path):
    path = tmp_path / "work.jsonl"
    texts = ("it is half", "it is half", "it is two")
    for _ in range(2):
        decided, checked, _ = check(["judge", "ours"], FREE, *texts, finished=Finished(path),
                                    judge=Judge(server.url, "m"))
        assert decided[0]["right"] == [1, 1, 0] and checked["ours"]["lost"] == 2
    assert len(server.seen) == 2
    prompt, authorization = server.seen[0]
    assert "1 / 2 = ?" in prompt and "0.5" in prompt and authorization == "Bearer sk-secret-1"
    assert "secret" not in path.read_text()


def test_a_judge_reads_options_and_key():
    prompt = checkers.judge_prompt(CHOICE, "x" * 5000)
    assert "A. ice\nB. steam" in prompt and "B. steam\n\nEnd" in prompt
    assert prompt.count("x") < checkers.TAIL + 100


def test_a_key_is_never_printed_even_if_the_server_repeats_it(server):
    server.status = 401
    with pytest.raises(InputError) as caught:
        check(["judge"], FREE, "half", judge=Judge(server.url, "m", wait=0.01))
    assert "401" in str(caught.value) and "secret" not in str(caught.value)


@pytest.mark.parametrize("reply, finished, verdict", [
    ("Yes", True, 1), ("no.", True, 0), ("**YES**", True, 1), ("", True, None),
    ("It is not known", True, None), ("Nothing says yes... so no", True, 0),
    ("let me think, yes or", False, None)])
def test_the_last_word_of_a_judge_counts(reply, finished, verdict):
    assert checkers.yes_or_no(reply, finished) == verdict


# ---------------------------------------------------------------- the command

@pytest.mark.parametrize("words, fragment", [
    (["--checker", "llm"], "--checker llm: expected"),
    (["--checker", "ours", "ours"], "at most once"),
    (["--checker", "exact+llm"], "--checker exact.llm"),
    (["--checker", "judge"], "--judge URL: expected both or neither"),
    (["--judge", "http://x"], "--judge URL: expected both or neither"),
    (["--checker", "ours", "judge", "--judge", "http://x", "--judge_options", "[]"], "JSON object"),
    (["--checker", "math-verify"], "none of them can check; add ours"),
])
def test_wrong_checkers_are_one_line_before_a_model_is_loaded(words, fragment):
    with pytest.raises(InputError, match=fragment) as caught:
        question_sets.asked([ANCHOR, "--questions", str(ROOT / "toy/test.json"), *words])
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.slow
def test_the_command_on_the_embedded_world_tells_checker_samples_and_seeds(
        server, tmp_path, capsys):
    questions = json.loads((ROOT / "toy/test.json").read_text())[:4]
    file = tmp_path / "gpqa.json"
    file.write_text(json.dumps(questions))
    out = tmp_path / "r.json"
    words = [ANCHOR, "--benchmarks", f"gpqa-diamond={file}", "--samples", "2", "--seed", "3",
             "--max_response_tokens", "24", "--checker", "letters", "exact", "judge", "--judge",
             server.url, "--judge_name", "m", "--json", str(out)]
    evaluate.main(words)
    printed = capsys.readouterr().out
    one = json.loads(out.read_text())["sets"]["gpqa-diamond"]
    assert one["checker"] == {"letters": 4} and one["samples"] == 2
    assert (one["seed"], one["option_seed"], one["bad_items"]) == (3, 3, 0)
    assert set(one["models"][ANCHOR]["checked"]) == {"letters", "exact", "judge"}
    assert one["models"][ANCHOR]["checked"]["judge"]["right"] == 0
    assert "right or wrong by: letters (4 questions)" in printed and "31.4 / 38.6 / 36.8" in printed
    assert "4 questions, the benchmark has 198" in printed

    # the key is nowhere, and neither an answer nor a verdict is asked for again
    assert "secret" not in out.read_text() + printed
    calls = len(server.seen)
    evaluate.main(words)
    assert len(server.seen) == calls and json.loads(out.read_text())["sets"] == {
        "gpqa-diamond": one}
