"""Where results go is looked at before anything is computed, and what is written is whole; a hub
that is not there costs seconds.
"""
import os
import tempfile
import socket
import time

import pytest

from data import InputError
from engine import demonstrations, hub, question_sets
from engine.outputs import file_to_write, folder_to_write, whole

QUESTION = '{"question_text": "Which?", "choices": ["a", "b"], "ground_truth": "a"}\n'
DEMO = QUESTION.replace("{", '{"content": "a", ', 1)


@pytest.fixture
def place(tmp_path):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    return tmp_path


@pytest.mark.parametrize("name, says", [
    ("folder", "is a folder"), ("pipe", "is a pipe or a device"), ("nowhere/x", "does not exist"),
    ("file", "would be written over"), ("link", "would be written over")])
def test_a_file_of_results_is_looked_at_first(place, name, says):
    with pytest.raises(InputError, match=says):
        file_to_write("--json", str(place / name), [str(place / "file"), "hf://x"])
    file_to_write("--json", str(place / "new"), [str(place / "file")])


@pytest.mark.parametrize("name, says", [
    ("file", "is a file"), ("file/x/y", "file is a file"), ("pipe", "expected a folder"),
    ("folder", "would be written over")])
def test_a_folder_of_results_is_looked_at_first(place, name, says):
    with pytest.raises(InputError, match=says):
        folder_to_write("--out", str(place / name), [str(place / "folder")])
    folder_to_write("--out", str(place / "new/and/newer"), [str(place / "folder")])


def test_what_cannot_be_written_is_said_first(place, monkeypatch):
    # no mode stops root
    def read_only(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    with pytest.raises(InputError, match="folder cannot be written"):
        folder_to_write("--out", str(place / "folder/x"))
    with pytest.raises(InputError, match="folder cannot be written"):
        file_to_write("--json", str(place / "folder/x"))


def test_a_folder_is_replaced_once_all_of_it_is_there(tmp_path):
    out = tmp_path / "out"
    with whole(str(out)) as part:
        (tmp_path / "out.part/a").write_text("old")
        assert part == f"{out}.part" and not out.exists()
    with pytest.raises(OSError), whole(str(out)) as part:
        (tmp_path / "out.part/a").write_text("half")
        raise OSError(28, "No space left on device")
    assert (out / "a").read_text() == "old" and not (tmp_path / "out.part").exists()


@pytest.mark.parametrize("words", [
    ["--questions", "{tmp}/x.json", "--json", "{tmp}/x.json"],
    ["--in_domain", "{tmp}/x.json", "--json", "{tmp}/sub/../x.json"],
    ["--out_domain", "{tmp}/y.answers.jsonl", "--json", "{tmp}/y.json"]])
def test_evaluate_never_writes_over_a_file_of_questions(tmp_path, words):
    (tmp_path / "sub").mkdir()
    for name in ("x.json", "y.answers.jsonl"):
        (tmp_path / name).write_text(QUESTION)
    words = [word.format(tmp=tmp_path) for word in words]
    with pytest.raises(InputError, match="would be written over"):
        question_sets.asked([str(tmp_path / "sub"), *words])
    assert (tmp_path / "x.json").read_text() == QUESTION


def test_warmup_onto_a_file_or_onto_its_own_model_is_refused_before_it_trains(place):
    (place / "demos.jsonl").write_text(DEMO)
    for name in ("file", "folder"):
        with pytest.raises(InputError, match="--out"):
            demonstrations.asked([
                "--model", str(place / "folder"), "--demos", str(place / "demos.jsonl"),
                "--out", str(place / name)])
    assert (place / "file").read_text() == "precious"


def test_whether_a_host_is_there_is_known_in_seconds():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        assert hub.answers("127.0.0.1", server.getsockname()[1], 5)
    assert not hub.answers("127.0.0.1", 9, 5)
    before = time.monotonic()
    assert not hub.answers("no-such-host.invalid", 443, 0.5)
    assert time.monotonic() - before < 2


def test_without_a_hub_its_client_stays_with_its_cache(monkeypatch, capsys):
    from huggingface_hub import constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_HUB_OFFLINE", *hub.PROXIES):
        monkeypatch.delenv(name, raising=False)
    asked = []

    def answers(*address):
        asked.append(address)
        return False

    monkeypatch.setattr(hub, "answers", answers)
    hub.look.cache_clear()
    hub.look()
    hub.look()
    hub.look.cache_clear()
    assert constants.HF_HUB_OFFLINE and len(asked) == 1
    assert capsys.readouterr().out.count("cannot be reached") == 1
