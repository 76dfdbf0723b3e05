"""A resume that would end in other numbers than the run had is refused in one line, and loses
nothing: another run's checkpoint, edited settings, changed logs, data and prompts.
"""
import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import fakes
import generator
import train
from engine import checkpoint, flags, run_folder

ROOT = Path(train.__file__).resolve().parent
pytestmark = [pytest.mark.slow,
              pytest.mark.skipif(not (ROOT / "toy/anchor/config.json").exists(),
                                 reason="the toy anchor has not been made yet")]
SIZES = dict(
    docs_per_step=2, questions_per_doc=4, answers_per_question=2, minibatch_rows=8, iterations=2,
    eval_every=9, show_every=0, threads=1, solver_lr=1e-3, generator_lr=1e-3,
    max_response_tokens=32)


def run_main(words):
    """train.py with these flags in this process -> its exit code."""
    try:
        return train.main(flags.from_command_line())
    except SystemExit as end:
        return end.code


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A function: seed -> a finished run of two small iterations, and its data beside it."""
    made = {}

    def make(seed):
        if seed not in made:
            folder = tmp_path_factory.mktemp("trained")
            words = fakes.small_world(folder, SIZES, documents=8, dev=6, test=3)
            run = folder / "run"
            assert train.main(flags.parse([*words, "--seed", seed, "--run", run])) == 0
            made[seed] = run
        return made[seed]

    return make


@pytest.fixture
def run(trained, tmp_path):
    """A copy of such a run, whose data is a copy too."""
    original = trained(0)
    shutil.copytree(original.parent, tmp_path / "copy")
    copy = tmp_path / "copy/run"
    config = copy / "config.json"
    config.write_text(config.read_text().replace(str(original.parent), str(copy.parent)))
    return copy


def contents(run):
    """All that may not be lost -> {name: bytes}."""
    files = [*run.glob("*.jsonl"), *run.glob("checkpoint*/*/*"), *run.glob("checkpoint*/*.json")]
    return {str(path): path.read_bytes() for path in files if path.is_file()}


def resume(run, monkeypatch, capfd, *words):
    """--resume -> (exit code, what was printed, what it said on stderr)."""
    command = ["train.py", "--resume", str(run), "--iterations", "3", *words]
    monkeypatch.setattr(sys, "argv", command)
    capfd.readouterr()
    code = run_main(command)
    out, err = capfd.readouterr()
    return code, out, err


def edit(path, change):
    """JSON in a file -> the same, changed."""
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def set_config(name, value):
    def damage(run):
        edit(run / "config.json", lambda values: values.update({name: value}))

    return damage


def flip(name):
    def damage(run):
        data = bytearray((run / name).read_bytes())
        data[20] ^= 1
        (run / name).write_bytes(data)

    return damage


def cut(name, size):
    def damage(run):
        os.truncate(run / name, size)

    return damage


def gone(*names):
    def damage(run):
        for name in names:
            checkpoint.remove(str(run / name))

    return damage


def nested(name):
    def damage(run):
        (run / name).write_text("[" * 100_000)

    return damage


def a_fifo(run):
    os.remove(run / "metrics.jsonl")
    os.mkfifo(run / "metrics.jsonl")


def a_file_in_place_of_the_checkpoint(run):
    shutil.rmtree(run / "checkpoint")
    (run / "checkpoint").write_text("")


def one_file_more(run):
    save_file({"weight.lm_head.weight": torch.ones(3)},
              run / "checkpoint/solver/shard-00009.safetensors")


def set_state(change):
    def damage(run):
        edit(run / "checkpoint/state.json", change)

    return damage


def forged(change):
    """The state changed and its checksum computed anew."""
    def damage(run):
        state = checkpoint.read_state(str(run / "checkpoint"))
        change(state)
        checkpoint.write_state(run / "checkpoint/state.json", state)

    return damage


def fewer(name):
    def damage(run):
        edit(run.parent / f"{name}.json", list.pop)

    return damage


NO_CHECKPOINT = "no whole checkpoint is left"
DAMAGES = {
    "metrics deleted": (gone("metrics.jsonl"), "metrics.jsonl: has 0 of the"),
    "metrics emptied": (cut("metrics.jsonl", 0), "metrics.jsonl: has 0 of the"),
    "metrics cut": (cut("metrics.jsonl", 100), "metrics.jsonl: has 100 of the"),
    "a bit of metrics": (flip("metrics.jsonl"), "metrics.jsonl: is another in its first"),
    "metrics a fifo": (a_fifo, "metrics.jsonl: has 0 of the"),
    "questions deleted": (gone("questions.jsonl"), "questions.jsonl: has 0 of the"),
    "questions cut": (cut("questions.jsonl", 100), "questions.jsonl: has 100 of the"),
    "a bit of questions": (flip("questions.jsonl"), "questions.jsonl: is another in its first"),
    "another iteration": (set_state(lambda x: x.update(iteration=3)), NO_CHECKPOINT),
    "another step of AdamW": (set_state(lambda x: x["steps"]["solver"].update(adam=9)),
                              NO_CHECKPOINT),
    "another study": (set_state(lambda x: x.update(study={"active": [0]})), NO_CHECKPOINT),
    "another log size": (set_state(lambda x: x["logs"]["metrics.jsonl"].update(size=3)),
                         NO_CHECKPOINT),
    "a key missing": (set_state(lambda x: x.pop("anchor")), NO_CHECKPOINT),
    "a forged iteration": (forged(lambda x: x.update(iteration=3)), "of iteration 3"),
    "a forged size": (forged(lambda x: x["logs"]["metrics.jsonl"].update(size="x")),
                      "is not what a run writes"),
    "a forged step": (forged(lambda x: x["steps"]["solver"].update(adam=-1)), NO_CHECKPOINT),
    "a forged lack": (forged(lambda x: x.pop("inputs")), "is not what a run writes"),
    "a nested state": (nested("checkpoint/state.json"), NO_CHECKPOINT),
    "a list for a state": (lambda run: (run / "checkpoint/state.json").write_text("[]"),
                           NO_CHECKPOINT),
    "a file for a checkpoint": (a_file_in_place_of_the_checkpoint, NO_CHECKPOINT),
    "a file more": (one_file_more, NO_CHECKPOINT),
    "checkpoints gone": (gone("checkpoint"), "logs hold 2 iterations, but its checkpoint is gone"),
    "checkpoints and lock gone": (gone("checkpoint", ".lock"), "its checkpoint is gone"),
    "seed": (set_config("seed", 1), "seed = 1, but the run was begun with 0"),
    "docs_per_step": (set_config("docs_per_step", 3), "docs_per_step = 3, but"),
    "dtype": (set_config("dtype", "bf16"), "dtype = 'bf16', but"),
    "run_id": (set_config("run_id", "0" * 16), "is not as the run wrote it"),
    "no run_id": (lambda run: edit(run / "config.json", lambda x: (x.pop("run_id"),
                                                                   x.pop("inputs"))),
                  "gave its runs no run_id"),
    "inputs": (set_config("inputs", {}), "is not as the run wrote it"),
    "inputs no object": (set_config("inputs", [1]), "run_id or inputs"),
    "a nested config": (nested("config.json"), "expected the JSON that a run wrote"),
    "an empty config": (cut("config.json", 0), "nothing is lost; start it again with --output_dir"),
    "fewer dev questions": (fewer("dev"), "dev changed since the run began"),
    "fewer test questions": (fewer("test"), "test changed since the run began"),
    "fewer documents": (fewer("documents"), "documents changed since the run began"),
}


@pytest.mark.parametrize("damage, says", DAMAGES.values(), ids=DAMAGES)
def test_a_run_that_was_changed_is_one_line_and_loses_nothing(
        run, monkeypatch, capfd, damage, says):
    damage(run)
    before = contents(run)
    code, _, err = resume(run, monkeypatch, capfd)
    assert code == 2, err
    assert says in err and err.startswith("error: ") and err.count("\n") == 1
    assert contents(run) == before


def test_another_runs_checkpoint_of_the_same_model_is_refused(run, trained, monkeypatch, capfd):
    shutil.rmtree(run / "checkpoint")
    shutil.copytree(trained(1) / "checkpoint", run / "checkpoint")
    code, _, err = resume(run, monkeypatch, capfd)
    assert code == 2 and "its checkpoint is of run" in err and err.count("\n") == 1


def test_an_edited_prompt_is_refused(run, monkeypatch, capfd):
    better = generator.PROMPT.replace("Read the document", "Read this document")
    monkeypatch.setattr(generator, "PROMPT", better)
    monkeypatch.setattr(train, "check_spelling", lambda *_: None)
    code, _, err = resume(run, monkeypatch, capfd)
    assert code == 2 and "prompts changed since the run began" in err


def test_what_may_change_may_also_be_changed_by_hand(run, monkeypatch, capfd):
    set_config("eval_every", 7)(run)
    assert resume(run, monkeypatch, capfd)[0] == 0


def test_changed_data_is_accepted_on_demand_noted_once_and_from_then_on_the_run_s_own(
        run, monkeypatch, capfd):
    fewer("dev")(run)
    code, out, _ = resume(run, monkeypatch, capfd, "--accept_changed_data")
    assert code == 0 and "accepted: dev changed since the run began" in out
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line.get("accepted_changes") for line in lines] == [None, None, ["dev"]]
    assert len({line["run_id"] for line in lines}) == 1
    assert resume(run, monkeypatch, capfd, "--iterations", "4")[0] == 0
    fewer("dev")(run)
    assert resume(run, monkeypatch, capfd, "--iterations", "5")[0] == 2


def test_the_same_command_is_the_same_run_and_any_other_is_another(trained):
    cfg = flags.load(trained(0) / "config.json")
    again = flags.load(trained(0) / "config.json")
    assert run_folder.id_of(again, again.inputs) == cfg.run_id
    other = flags.load(trained(1) / "config.json")
    assert other.inputs == cfg.inputs and other.run_id != cfg.run_id
    state = checkpoint.read_state(str(trained(0) / "checkpoint"))
    assert state["run_id"] == cfg.run_id


def test_a_folder_whose_run_was_stopped_before_it_began_is_taken(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("config.json", "config.json.part", ".lock"):
        (folder / name).write_text("")
    assert not run_folder.taken(folder)
    # but logs without a config are somebody's
    (folder / "metrics.jsonl").write_text("{}\n")
    assert run_folder.taken(folder)


def hold_and_wait(run, ready, seconds):
    lock = run_folder.Lock()
    lock.hold(run)
    Path(ready).write_text("")
    time.sleep(seconds)


def hold_after(run, seconds):
    lock = run_folder.Lock()
    try:
        lock.hold(run, seconds)
    except run_folder.InputError as error:
        assert "is at work in this folder" in str(error) and "process " in str(error)
        sys.exit(2)


def test_a_folder_has_one_writer_and_is_free_once_that_is_killed(tmp_path):
    run, ready = str(tmp_path / "run"), tmp_path / "ready"
    first = fakes.start_apart(hold_and_wait, run, str(ready), 60)
    while not ready.exists():
        assert first.is_alive()
    second = fakes.start_apart(hold_after, run, 0.5)
    second.join(30)
    assert second.exitcode == 2
    # as if it had been one of several ranks
    (tmp_path / "run/.lock").write_text('{"ranks": 2}')
    third = fakes.start_apart(hold_after, run, 60)
    time.sleep(2)
    assert third.is_alive()
    first.kill()
    third.join(30)
    assert third.exitcode == 0
