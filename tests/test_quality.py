"""Generator quality: which checkpoints and documents, numbers by hand, the guest against a server.

And a small run from end to end.
"""
import json
import threading
import time
from argparse import Namespace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

import config
from engine import flags, log, presets
from tools import quality
import train
from data import Document, InputError, Question
from engine.readers import load_documents
from engine.models import load_model
from engine.verify import Verifier

# runs and processes of their own
pytestmark = pytest.mark.slow

ROOT = Path(train.__file__).resolve().parent
needs_anchor = pytest.mark.skipif(not (ROOT / "toy/anchor/config.json").exists(),
                                  reason="the toy anchor has not been made yet")


# ---------------------------------------------------------------- numbers

def written(t, per_document, n=4):
    """Questions about documents d0, d1, ...: per_document says how many each has."""
    question = {"question_text": "2?", "choices": ["1", "2"], "ground_truth": "2",
                "question_id": ""}
    documents = [f"d{d}" for d in range(len(per_document))]
    questions = []
    for document, count in zip(documents, per_document):
        questions += [{"document": document, **question}] * count
    return {"iteration": t, "documents": documents, "drafts": n * len(per_document),
            "questions": questions}


def test_accuracies_and_gaps_by_hand():
    x = {0: written(0, [2, 0, 1]), 5: written(5, [1, 1, 0])}
    right = {(0, "base"): [[1, 0], [0, 0], [1, None]],
             (0, "reference"): [[1, 1], [0, 1], [1, 1]],
             (5, "base"): [[0, 0], [1, 0]],
             (5, "reference"): [[1, 1], [1, 1]]}
    rows = quality.numbers(x, right, seed=0, truth_known=False)
    first, last = rows

    # the unknown answer is in no mean
    assert [row["accuracy"]["base"]["value"] for row in rows] == [2 / 5, 1 / 4]
    assert [row["unknown"] for row in rows] == [1, 0]
    assert [row["questions"] for row in rows] == [3, 2]

    gaps = [row["swg"]["reference"]["value"] for row in rows]
    assert gaps == pytest.approx([5 / 6 - 2 / 5, 3 / 4])
    assert first["swg_change"]["reference"] == {"value": 0.0, "interval": [0.0, 0.0]}
    change = last["swg_change"]["reference"]["value"]
    assert change == pytest.approx(3 / 4 - 5 / 6 + 2 / 5)


def test_no_valid_question_is_no_number():
    right = {(0, "base"): [], (0, "reference"): []}
    rows = quality.numbers({0: written(0, [0, 0])}, right, seed=0, truth_known=False)
    nothing = {"value": None, "interval": None}
    assert rows[0]["accuracy"]["base"] == rows[0]["swg"]["reference"] == nothing
    assert "-" in quality.table(rows)


def test_intervals_treat_the_questions_of_a_document_as_one_draw():
    """All eight questions of a document share their fate: the error is of D draws, not of 8 D."""
    D = 200
    fate = np.random.default_rng(0).integers(0, 2, D)
    counts = np.stack([np.full(D, 8), 8 * fate])
    accuracies = quality.resampled(counts, quality.draw_documents(D, seed=1))
    low, high = quality.estimate(accuracies)["interval"]

    # the plain formula over documents
    expected = 2 * 1.96 * fate.std(ddof=1) / D ** 0.5
    assert high - low == pytest.approx(expected, rel=0.1)


def test_a_change_is_resampled_document_by_document():
    """Where every document changes by the same amount, the change has no error."""
    hard = [d % 2 for d in range(50)]
    x = {}
    right = {}
    for t in (0, 1):
        x[t] = written(t, [1] * 50)
        right[t, "base"] = [[h, 0] for h in hard]
        right[t, "reference"] = [[h, t] for h in hard]
    rows = quality.numbers(x, right, seed=0, truth_known=False)
    change = rows[1]["swg_change"]["reference"]
    assert change["value"] == 0.5 and change["interval"] == pytest.approx([0.5, 0.5])


# ---------------------------------------------------------------- checkpoints and documents

def test_checkpoints_are_the_kept_ones_the_anchor_and_the_end(tmp_path):
    cfg = config.Config(model="anchor", generator_model="other")
    for name in ("at-5", "at-10", "at-15.part", "generator", "solver"):
        (tmp_path / name).mkdir()
    (tmp_path / "metrics.jsonl").write_text('{"iteration": 1}\n{"iteration": 12}\n')
    found = quality.checkpoints(str(tmp_path), cfg)
    assert list(found) == [0, 5, 10, 12]
    assert found[0] == {"solver": "anchor", "generator": "other"}
    assert found[12]["generator"] == str(tmp_path / "generator")

    # ended at 10, went on, and was stopped at 12
    (tmp_path / "ended.json").write_text('{"iteration": 10}')
    found = quality.checkpoints(str(tmp_path), cfg)
    assert list(found) == [0, 5, 10] and found[10]["solver"] == str(tmp_path / "at-10/solver")
    (tmp_path / "ended.json").write_text('{"iteration": 12}')

    (tmp_path / "at-0").mkdir()
    found = quality.checkpoints(str(tmp_path), cfg, [10, 0])
    assert found[0]["solver"] == str(tmp_path / "at-0/solver")
    with pytest.raises(InputError, match="iteration 7 was not kept; there are 0, 5, 10, 12"):
        quality.checkpoints(str(tmp_path), cfg, [7])


def test_fresh_notes_are_none_of_the_known_ones():
    first = quality.fresh_notes(5, seed=3, known=set())
    again = quality.fresh_notes(5, seed=3, known={first[1].content})
    assert [x.content for x in again][:4] == [x.content for x in first[:1] + first[2:]]
    trained = {d.content for d in load_documents(presets.TOY["documents"])}
    assert not trained & {x.content for x in quality.fresh_notes(60, 0, trained)}


def documents_file(folder, name, texts):
    documents = [{"id": f"{name}-{i}", "text": text} for i, text in enumerate(texts)]
    path = folder / f"{name}.json"
    path.write_text(json.dumps(documents))
    return str(path)


def held_out(tmp_path, own, given):
    cfg = config.Config(preset="small", documents=documents_file(tmp_path, "own", own))
    args = Namespace(documents=documents_file(tmp_path, "given", given), limit=None, seed=0)
    return quality.held_out(args, cfg, tokenizer=None)


def test_documents_that_were_trained_on_are_refused(tmp_path):
    assert held_out(tmp_path, ["a", "b"], ["c"]) == ([Document("given-0", "c")], False)
    said = "1 of 2 documents were read in training, given-1 among them"
    with pytest.raises(InputError, match=said):
        held_out(tmp_path, ["a", "b"], ["c", "b"])


def test_only_the_embedded_world_has_documents_of_its_own():
    small = config.Config(preset="small")
    with pytest.raises(InputError, match="--documents is missing"):
        quality.held_out(Namespace(documents=None), small, tokenizer=None)


# ---------------------------------------------------------------- the guest

class Handler(BaseHTTPRequestHandler):
    """Replies what its server's .script says, in order, then a boxed B; .seen has all requests."""

    def reply(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or "null")
        self.server.seen.append((self.path, body, self.headers.get("Authorization")))

        status, content = 200, r"It is \boxed{B}"
        if self.server.script:
            status, content = self.server.script.pop(0)
        text = json.dumps(good(content)) if status == 200 else content

        self.send_response(200 if status == "raw" else status)
        if status in (301, 302, 303, 307, 308):
            self.send_header("Location", content)
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = reply

    def log_message(self, *_):
        pass


def good(content):
    """One reply that will do for both paths."""
    return {"choices": [{"message": {"content": content}, "finish_reason": "stop"}],
            "data": [{"id": "first"}, {"id": "second"}]}


@pytest.fixture
def server():
    """Speaks just enough of the protocol."""
    instance = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    instance.script = []
    instance.seen = []
    threading.Thread(target=instance.serve_forever, daemon=True).start()
    instance.url = f"http://127.0.0.1:{instance.server_port}/v1"
    yield instance
    instance.shutdown()
    instance.server_close()


CFG = config.Config(max_response_tokens=77)
QUESTIONS = [Question("2 + 2 = ?", ["3", "4", "5", "6"], key) for key in ("4", "5")]


def ask(server, **arguments):
    endpoint = quality.Endpoint(server.url + "/", wait=0.01, **arguments)
    with Verifier() as verifier:
        return endpoint.answer(QUESTIONS, 3, (), CFG, verifier)


def test_an_endpoint_answers_like_a_model(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    groups, r = ask(server, options={"top_p": None, "top_k": 20})
    assert r.tolist() == [[1, 1, 1], [0, 0, 0]] and groups[0][0].finished

    paths = [path for path, *_ in server.seen]
    assert paths == ["/v1/models"] + 6 * ["/v1/chat/completions"]

    body = server.seen[1][1]
    message = body.pop("messages")[0]["content"]
    assert body == {"model": "first", "temperature": 0.7, "max_tokens": 77, "top_k": 20}
    assert "2 + 2 = ?" in message and "B. 4" in message
    assert all(authorization == "Bearer secret" for *_, authorization in server.seen)


def test_a_failure_that_may_pass_is_tried_again(server):
    server.script += [(503, "busy"), (429, "slow down"), ("raw", "not json")]
    _, r = ask(server, name="m", workers=1)
    assert r.tolist() == [[1, 1, 1], [0, 0, 0]] and len(server.seen) == 6 + 3


def test_ctrl_c_ends_all_tries(server, monkeypatch):
    """What was refused waits ten minutes for its next try when Ctrl-C comes."""
    server.script += [(500, "broken")] * 99
    endpoint = quality.Endpoint(server.url + "/", name="m", wait=600)

    def stopped(futures, **looks):
        while not server.seen:
            time.sleep(0.01)
        asking.extend(thread for thread in threading.enumerate() if thread.name.startswith("ask"))
        raise KeyboardInterrupt

    monkeypatch.setattr("engine.endpoint.tqdm", stopped)
    asking, began = [], time.time()
    with pytest.raises(KeyboardInterrupt):
        endpoint.chat_all(["a", "b"], "answers", {})
    for thread in asking:
        thread.join(20)
    assert asking and time.time() < began + 20


def test_an_empty_reply_is_an_answer_without_a_box(server):
    # content null: cut while thinking
    server.script += [(200, None)] * 6
    assert ask(server, name="m")[1].sum() == 0


@pytest.mark.parametrize("script, fragment, calls", [
    ([(400, "no\nsuch model")] * 9, "400 no such model", 1),
    ([(500, "broken")] * 99, "500 broken", 5),
    ([("raw", '{"choices": []}')] * 9, "expected choices", 1)])
def test_what_does_not_pass_is_one_line_and_stops(server, script, fragment, calls):
    server.script += script
    with pytest.raises(InputError, match=fragment) as caught:
        ask(server, name="m", workers=1)
    assert len(str(caught.value).splitlines()) == 1
    # one more may be under way; the other four are not asked
    assert calls <= len(server.seen) <= 2 * calls


KEY = "sk-SECRET-123"


@pytest.mark.parametrize("key", [KEY + "\r", KEY + "\n", " " + KEY])
def test_what_a_file_s_end_left_around_a_key_is_no_part_of_it(server, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    quality.Endpoint(server.url)
    assert server.seen[0][2] == f"Bearer {KEY}"


@pytest.mark.parametrize("letter", ["\r", "\n", " ", "\u00e9", "\u20ac", "\x7f"])
def test_a_key_with_a_stray_letter_is_one_line_that_does_not_show_it(server, monkeypatch, letter):
    monkeypatch.setenv("OPENAI_API_KEY", KEY[:5] + letter + KEY[5:])
    with pytest.raises(InputError, match="character 6 of 14") as caught:
        quality.Endpoint(server.url)
    assert "SECRET" not in str(caught.value) and KEY[5:] not in str(caught.value)
    assert server.seen == []


def test_a_key_that_the_server_repeats_is_not_shown(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.script += [(401, f"wrong key {KEY}, sorry")]
    with pytest.raises(InputError, match=r"401 wrong key \[the key\], sorry"):
        quality.Endpoint(server.url)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_takes_neither_the_key_nor_a_question_anywhere(server, monkeypatch, status):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.script += [(status, server.url.replace("127.0.0.1", "localhost") + "/elsewhere")]
    with pytest.raises(InputError, match="redirects to http://localhost"):
        ask(server, name="m", workers=1)
    assert {path for path, *_ in server.seen} == {"/v1/chat/completions"}


def test_no_server_is_one_line(server):
    with pytest.raises(InputError, match="--reference_name NAME"):
        quality.Endpoint("http://127.0.0.1:9/v1", wait=0.001)


# ---------------------------------------------------------------- a small run from end to end

SIZES = dict(docs_per_step=2, questions_per_doc=4, answers_per_question=4, minibatch_rows=8,
             iterations=3, eval_every=9, show_every=0, solver_lr=1e-3, generator_lr=1e-3,
             max_response_tokens=64, save_every=2, device="cpu")


def first_questions(name, n, folder):
    """The first n questions of one of the embedded world's files, as a file of their own."""
    questions = json.loads((ROOT / f"toy/{name}.json").read_text())[:n]
    path = folder / f"{name}.json"
    path.write_text(json.dumps(questions))
    return str(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    settings = SIZES | {"dev": first_questions("dev", 16, folder),
                        "test": first_questions("test", 4, folder),
                        "run": str(folder / "run")}
    return train.train(flags.from_flags(settings))


@needs_anchor
def test_save_every_keeps_the_anchor_and_every_second_iteration(run):
    assert sorted(path.name for path in Path(run).glob("at-*")) == ["at-0", "at-2"]

    def weights(folder):
        return load_model(folder)[0].state_dict()

    anchor = weights(presets.TOY["model"])

    def same_as_anchor(found):
        return all(torch.equal(found[name], anchor[name]) for name in anchor)

    assert same_as_anchor(weights(f"{run}/at-0/solver"))
    assert not same_as_anchor(weights(f"{run}/at-2/solver"))


def test_nothing_is_kept_without_save_every(make_policy, tmp_path):
    policy, cfg = make_policy(run=str(tmp_path / "run"))
    log.Log(cfg).keep(0, {"solver": policy})
    assert not (tmp_path / "run").exists()


@needs_anchor
def test_the_command_measures_all_checkpoints_and_goes_on_where_it_stopped(run, tmp_path,
                                                                           monkeypatch, capsys):
    out = tmp_path / "q.json"
    words = [run, "--limit", "4", "--samples", "2", "--reference", presets.TOY["model"],
             "--json", str(out)]
    quality.main(words)
    rows = json.loads(out.read_text())["iterations"]
    assert [row["iteration"] for row in rows] == [0, 2, 3]
    assert all(row["questions"] for row in rows)
    assert "strong-against-weak gap" in capsys.readouterr().out

    # at the start all are the anchor
    start = rows[0]["accuracy"]
    assert set(start) == {"base", "cotrained", "reference", "truth"}
    assert set(rows[0]["swg"]) == {"reference", "truth"}
    assert start["base"] == start["cotrained"] == start["reference"]
    assert rows[0]["swg"]["reference"] == {"value": 0.0, "interval": [0.0, 0.0]}
    assert rows[2]["accuracy"]["cotrained"] != rows[2]["accuracy"]["base"]

    # killed while writing the last piece
    work = tmp_path / "q.work.jsonl"
    lines = work.read_text().splitlines()
    work.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:20])

    sampled = []
    original = quality.sample_answers

    def counted(*args):
        sampled.append(1)
        return original(*args)

    monkeypatch.setattr(quality, "sample_answers", counted)
    quality.main(words)
    assert len(sampled) == 1
    assert json.loads(out.read_text())["iterations"] == rows


@needs_anchor
def test_the_figure_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    x = {t: written(t, [1, 2, 1]) for t in (0, 5)}
    right = {}
    for t in x:
        for role in ("base", "cotrained", "reference"):
            right[t, role] = [[1, 0]] * 4
    path = tmp_path / "q.svg"
    quality.draw(quality.numbers(x, right, 0, truth_known=True), str(path))
    text = path.read_text()
    assert text.startswith("<?xml") and "co-trained" in text
