"""Generator quality: which checkpoints and documents, numbers by hand, the guest against a server, and a small run from end to end."""
import json
import threading
from argparse import Namespace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

import config
import log
import quality
import train
from data import Document, InputError, Question, load_documents
from policy import load_model
from verify import Verifier

ROOT = Path(train.__file__).resolve().parent
needs_anchor = pytest.mark.skipif(not (ROOT / "toy/anchor/config.json").exists(), reason="the toy anchor has not been made yet")


# ---------------------------------------------------------------- numbers

def written(t, per_document, n=4):
    """Questions about documents d0, d1, ...: per_document says how many each has."""
    question = {"question_text": "2?", "choices": ["1", "2"], "ground_truth": "2", "question_id": ""}
    documents = [f"d{d}" for d in range(len(per_document))]
    questions = [{"document": document, **question} for document, count in zip(documents, per_document) for _ in range(count)]
    return {"iteration": t, "documents": documents, "drafts": n * len(per_document), "questions": questions}


def test_accuracies_and_gaps_by_hand():
    x = {0: written(0, [2, 0, 1]), 5: written(5, [1, 1, 0])}
    right = {(0, "base"): [[1, 0], [0, 0], [1, None]], (0, "reference"): [[1, 1], [0, 1], [1, 1]],
             (5, "base"): [[0, 0], [1, 0]], (5, "reference"): [[1, 1], [1, 1]]}
    rows = quality.numbers(x, right, seed=0, truth_known=False)
    assert [row["accuracy"]["base"]["value"] for row in rows] == [2 / 5, 1 / 4]             # the unknown answer is in no mean
    assert [row["unknown"] for row in rows] == [1, 0] and [row["questions"] for row in rows] == [3, 2]
    assert [row["swg"]["reference"]["value"] for row in rows] == pytest.approx([5 / 6 - 2 / 5, 3 / 4])
    assert rows[0]["swg_change"]["reference"] == {"value": 0.0, "interval": [0.0, 0.0]}
    assert rows[1]["swg_change"]["reference"]["value"] == pytest.approx(3 / 4 - 5 / 6 + 2 / 5)


def test_no_valid_question_is_no_number():
    rows = quality.numbers({0: written(0, [0, 0])}, {(0, "base"): [], (0, "reference"): []}, seed=0, truth_known=False)
    assert rows[0]["accuracy"]["base"] == rows[0]["swg"]["reference"] == {"value": None, "interval": None}
    assert "-" in quality.table(rows)


def test_intervals_treat_the_questions_of_a_document_as_one_draw():
    """All eight questions of a document share their fate, so the error is that of D draws, not of 8 D."""
    D, rng = 200, np.random.default_rng(0)
    fate = rng.integers(0, 2, D)
    counts = np.stack([np.full(D, 8), 8 * fate])
    low, high = quality.estimate(quality.resampled(counts, quality.draw_documents(D, seed=1)))["interval"]
    expected = 2 * 1.96 * fate.std(ddof=1) / D ** 0.5                                       # the plain formula over documents
    assert high - low == pytest.approx(expected, rel=0.1)


def test_a_change_is_resampled_document_by_document():
    """Where every document changes by the same amount, documents differ but the change has no error."""
    x = {t: written(t, [1] * 50) for t in (0, 1)}
    hard = [d % 2 for d in range(50)]
    right = {(t, "base"): [[h, 0] for h in hard] for t in (0, 1)} | {(t, "reference"): [[h, t] for h in hard] for t in (0, 1)}
    change = quality.numbers(x, right, seed=0, truth_known=False)[1]["swg_change"]["reference"]
    assert change["value"] == 0.5 and change["interval"] == pytest.approx([0.5, 0.5])


# ---------------------------------------------------------------- checkpoints and documents

def test_checkpoints_are_the_kept_ones_the_anchor_and_the_end(tmp_path):
    cfg = config.Config(model="anchor", generator_model="other")
    for name in ("at-5", "at-10", "at-15.part", "generator", "solver"):
        (tmp_path / name).mkdir()
    (tmp_path / "metrics.jsonl").write_text('{"iteration": 1}\n{"iteration": 12}\n')
    found = quality.checkpoints(str(tmp_path), cfg)
    assert list(found) == [0, 5, 10, 12]
    assert found[0] == {"solver": "anchor", "generator": "other"} and found[12]["generator"] == str(tmp_path / "generator")
    (tmp_path / "at-0").mkdir()
    assert quality.checkpoints(str(tmp_path), cfg, [10, 0])[0]["solver"] == str(tmp_path / "at-0/solver")
    with pytest.raises(InputError, match="iteration 7 was not kept; there are 0, 5, 10, 12"):
        quality.checkpoints(str(tmp_path), cfg, [7])


def test_fresh_notes_are_none_of_the_known_ones():
    first = quality.fresh_notes(5, seed=3, known=set())
    again = quality.fresh_notes(5, seed=3, known={first[1].content})
    assert [x.content for x in again][:4] == [x.content for x in first[:1] + first[2:]]
    trained = {d.content for d in load_documents(config.TOY["documents"])}
    assert not trained & {x.content for x in quality.fresh_notes(60, 0, trained)}


def held_out(tmp_path, own, given, **fields):
    for name, texts in (("own", own), ("given", given)):
        (tmp_path / f"{name}.json").write_text(json.dumps([{"id": f"{name}-{i}", "text": text} for i, text in enumerate(texts)]))
    cfg = config.Config(preset="small", documents=str(tmp_path / "own.json"))
    return quality.held_out(Namespace(documents=str(tmp_path / "given.json"), limit=None, seed=0, **fields), cfg, tokenizer=None)


def test_documents_that_were_trained_on_are_refused(tmp_path):
    assert held_out(tmp_path, ["a", "b"], ["c"]) == ([Document("given-0", "c")], False)
    with pytest.raises(InputError, match="1 of 2 documents were read in training, given-1 among them"):
        held_out(tmp_path, ["a", "b"], ["c", "b"])


def test_only_the_embedded_world_has_documents_of_its_own():
    with pytest.raises(InputError, match="--documents is missing"):
        quality.held_out(Namespace(documents=None), config.Config(preset="small"), tokenizer=None)


# ---------------------------------------------------------------- the guest

@pytest.fixture
def server():
    """Speaks just enough of the protocol: replies what .script says, in order, then a boxed B; .seen has all requests."""
    class Handler(BaseHTTPRequestHandler):
        def reply(self):
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")
            instance.seen.append((self.path, body, self.headers.get("Authorization")))
            status, content = instance.script.pop(0) if instance.script else (200, r"It is \boxed{B}")
            good = {"choices": [{"message": {"content": content}, "finish_reason": "stop"}], "data": [{"id": "first"}, {"id": "second"}]}
            text = (json.dumps(good) if status == 200 else content).encode()
            self.send_response(200 if status == "raw" else status)
            self.end_headers()
            self.wfile.write(text)
        do_GET = do_POST = reply

        def log_message(self, *_):
            pass
    instance = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    instance.script, instance.seen = [], []
    threading.Thread(target=instance.serve_forever, daemon=True).start()
    instance.url = f"http://127.0.0.1:{instance.server_port}/v1"
    yield instance
    instance.shutdown()
    instance.server_close()


CFG = config.Config(max_response_tokens=77)
QUESTIONS = [Question("2 + 2 = ?", ["3", "4", "5", "6"], key) for key in ("4", "5")]


def ask(server, **arguments):
    with Verifier() as verifier:
        return quality.Endpoint(server.url + "/", wait=0.01, **arguments).answer(QUESTIONS, 3, (), CFG, verifier)


def test_an_endpoint_answers_like_a_model(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    groups, r = ask(server, options={"top_p": None, "top_k": 20})
    assert r.tolist() == [[1, 1, 1], [0, 0, 0]] and groups[0][0].finished
    assert server.seen[0][0] == "/v1/models"
    assert len(server.seen) == 7 and {path for path, *_ in server.seen[1:]} == {"/v1/chat/completions"}
    body = server.seen[1][1]
    assert body | {"messages": 0} == {"model": "first", "messages": 0, "temperature": 0.7, "max_tokens": 77, "top_k": 20}
    assert "2 + 2 = ?" in body["messages"][0]["content"] and "B. 4" in body["messages"][0]["content"]
    assert all(authorization == "Bearer secret" for *_, authorization in server.seen)


def test_a_failure_that_may_pass_is_tried_again(server):
    server.script += [(503, "busy"), (429, "slow down"), ("raw", "not json")]
    _, r = ask(server, name="m", workers=1)
    assert r.tolist() == [[1, 1, 1], [0, 0, 0]] and len(server.seen) == 6 + 3


def test_an_empty_reply_is_an_answer_without_a_box(server):
    server.script += [(200, None)] * 6                                      # content null: cut while thinking
    assert ask(server, name="m")[1].sum() == 0


@pytest.mark.parametrize("script, fragment, calls", [
    ([(400, "no\nsuch model")] * 9, "400 no such model", 1), ([(500, "broken")] * 99, "500 broken", 5),
    ([("raw", '{"choices": []}')] * 9, "expected choices", 1)])
def test_what_does_not_pass_is_one_line_and_stops(server, script, fragment, calls):
    server.script += script
    with pytest.raises(InputError, match=fragment) as caught:
        ask(server, name="m", workers=1)
    assert len(str(caught.value).splitlines()) == 1
    assert calls <= len(server.seen) <= 2 * calls                           # one more may be under way; the other four are not asked


def test_no_server_is_one_line(server):
    with pytest.raises(InputError, match="--reference_name NAME"):
        quality.Endpoint("http://127.0.0.1:9/v1", wait=0.001)


# ---------------------------------------------------------------- a small run from end to end

SIZES = dict(docs_per_step=2, questions_per_doc=4, answers_per_question=4, minibatch_rows=8, iterations=3, eval_every=9, show_every=0,
             solver_lr=1e-3, generator_lr=1e-3, max_response_tokens=64, save_every=2, device="cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    for name, n in (("dev", 16), ("test", 4)):
        (folder / f"{name}.json").write_text(json.dumps(json.loads((ROOT / f"toy/{name}.json").read_text())[:n]))
    files = {name: str(folder / f"{name}.json") for name in ("dev", "test")}
    return train.train(config.from_flags(files | SIZES | {"run": str(folder / "run")}))


@needs_anchor
def test_save_every_keeps_the_anchor_and_every_second_iteration(run):
    assert sorted(path.name for path in Path(run).glob("at-*")) == ["at-0", "at-2"]
    weights = {name: load_model(f"{run}/{name}/solver")[0].state_dict() for name in ("at-0", "at-2")} | {
        "anchor": load_model(config.TOY["model"])[0].state_dict()}
    same = lambda a, b: all(torch.equal(weights[a][name], weights[b][name]) for name in weights["anchor"])
    assert same("at-0", "anchor") and not same("at-2", "anchor")


def test_nothing_is_kept_without_save_every(make_policy, tmp_path):
    policy, cfg = make_policy(run=str(tmp_path / "run"))
    log.Log(cfg).keep(0, {"solver": policy})
    assert not (tmp_path / "run").exists()


@needs_anchor
def test_the_command_measures_all_checkpoints_and_goes_on_where_it_stopped(run, tmp_path, monkeypatch, capsys):
    words = [run, "--limit", "4", "--samples", "2", "--reference", config.TOY["model"], "--json", str(tmp_path / "q.json")]
    quality.main(words)
    rows, printed = json.loads((tmp_path / "q.json").read_text())["iterations"], capsys.readouterr().out
    assert [row["iteration"] for row in rows] == [0, 2, 3] and all(row["questions"] for row in rows)
    assert set(rows[0]["accuracy"]) == {"base", "cotrained", "reference", "truth"} and set(rows[0]["swg"]) == {"reference", "truth"}
    assert rows[0]["accuracy"]["base"] == rows[0]["accuracy"]["cotrained"] == rows[0]["accuracy"]["reference"]      # all are the anchor
    assert rows[0]["swg"]["reference"] == {"value": 0.0, "interval": [0.0, 0.0]}
    assert rows[2]["accuracy"]["cotrained"] != rows[2]["accuracy"]["base"] and "strong-against-weak gap" in printed
    work = tmp_path / "q.work.jsonl"
    lines = work.read_text().splitlines()
    work.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:20])          # killed while writing the last piece
    sampled = []
    original = quality.sample_answers
    monkeypatch.setattr(quality, "sample_answers", lambda *args: sampled.append(1) or original(*args))
    quality.main(words)
    assert len(sampled) == 1 and json.loads((tmp_path / "q.json").read_text())["iterations"] == rows


@needs_anchor
def test_the_figure_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    x = {t: written(t, [1, 2, 1]) for t in (0, 5)}
    right = {(t, role): [[1, 0]] * 4 for t in x for role in ("base", "cotrained", "reference")}
    quality.draw(quality.numbers(x, right, 0, truth_known=True), str(tmp_path / "q.svg"))
    text = (tmp_path / "q.svg").read_text()
    assert text.startswith("<?xml") and "co-trained" in text
