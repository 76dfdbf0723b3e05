"""A run that is killed, interrupted or damaged and then resumed ends bit for bit like one never
stopped.
"""
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import config
import fakes
import train
from data import InputError
from engine import checkpoint, flags, log, run_folder

ROOT = Path(train.__file__).resolve().parent
ITERATIONS = 3
pytestmark = [pytest.mark.slow,
              pytest.mark.skipif(not (ROOT / "toy/anchor/config.json").exists(),
                                 reason="the toy anchor has not been made yet")]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Flags of a run of three small iterations: few documents, few questions."""
    folder = tmp_path_factory.mktemp("world")
    sizes = dict(
        docs_per_step=3, questions_per_doc=4, answers_per_question=4, minibatch_rows=8,
        iterations=ITERATIONS, eval_every=2, show_every=0, threads=1, solver_lr=1e-3,
        generator_lr=1e-3, dev_ema=0.5, max_response_tokens=64)
    return fakes.small_world(folder, sizes, documents=20, dev=24, test=10)


def main(words, output, die=None):
    """train.py in this process; `die`: (module, function, n), where its n-th call kills the process
    instead.
    """
    with open(output, "a") as f:
        os.dup2(f.fileno(), 1)
        os.dup2(f.fileno(), 2)
    if die:
        module, function, n = die
        original, calls = getattr(module, function), []

        def deadly(*args, **kwargs):
            calls.append(1)
            if len(calls) == n:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        setattr(module, function, deadly)
    sys.argv = ["train.py", *words]
    sys.exit(train.main(flags.from_command_line()))


def start(words, run, die=None):
    output = f"{run}.output"
    if die:
        return fakes.start_apart(dying_main, words, output, die)
    return fakes.start_apart(main, words, output)


def dying_main(words, output, die):
    modules = {"os": os, "log": log.Log, "checkpoint": checkpoint}
    main(words, output, (modules[die[0]], *die[1:]))


def begin(words, run):
    """Start or resume the run, whichever its folder asks for."""
    resumed = (run / "config.json").exists()
    return start(["--resume", str(run)] if resumed else [*words, "--run", str(run)], run)


def finish(words, run):
    """The same, to its end."""
    process = begin(words, run)
    process.join(120)
    assert process.exitcode == 0, Path(f"{run}.output").read_text()[-2000:]


def ending(run):
    """All that a run leaves behind, but for the clock and the memory of the machine."""
    metrics = []
    for text in (run / "metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        del line["seconds"], line["peak_memory_mb"]
        metrics.append(line)

    files = {}
    for name in ("questions.jsonl", "solver/model.safetensors", "generator/model.safetensors"):
        files[name] = (run / name).read_bytes()
    # by tensor: the order of a file's header is left to chance
    for path in sorted((run / "checkpoint").glob("*/*.safetensors")):
        for name, tensor in load_file(path).items():
            files[f"{path.parent.name} {name}"] = tensor.numpy().tobytes()
    return metrics, files


def same(run, other):
    (metrics, files), (theirs, their_files) = ending(run), ending(other)
    assert metrics == theirs
    assert files.keys() == their_files.keys()
    assert [name for name in files if files[name] != their_files[name]] == []
    return True


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """The run that was never stopped, and how long it took."""
    run = tmp_path_factory.mktemp("whole") / "run"
    # the server of processes is up: from here on time is the run's own
    fakes.start_apart(time.time).join()
    before = time.time()
    finish(world, run)
    return run, time.time() - before


@pytest.fixture(scope="module")
def two_checkpoints(world, tmp_path_factory):
    """The same run, killed at its very end: the checkpoint before the last is still there."""
    run = tmp_path_factory.mktemp("two") / "run"
    process = start([*world, "--run", str(run)], run, ("checkpoint", "drop_previous", 1))
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    return run


def test_the_run_of_these_tests_moves_both_models(whole):
    """Otherwise equal endings would prove nothing."""
    metrics, files = ending(whole[0])
    assert [line["iteration"] for line in metrics] == list(range(1, ITERATIONS + 1))
    for name in ("generator_grad_norm", "solver_grad_norm"):
        assert any(line[name] for line in metrics[:-1]), (
            f"{name}: nothing was learned before the last iteration")
    assert len(files["questions.jsonl"].splitlines()) == 12 * ITERATIONS
    assert [line["test_accuracy"] is not None for line in metrics] == [False, True, True]
    anchor = (ROOT / "toy/anchor/model.safetensors").read_bytes()
    assert files["solver/model.safetensors"] != files["generator/model.safetensors"] != anchor


def test_a_finished_run_keeps_one_checkpoint_and_that_is_enough(whole):
    assert not (whole[0] / "checkpoint.previous").exists()
    folder, state = checkpoint.find(str(whole[0]))
    assert (folder, state["iteration"]) == (str(whole[0] / "checkpoint"), ITERATIONS)


@pytest.mark.parametrize("seed", range(2))
def test_a_run_killed_at_random_moments_ends_like_one_never_stopped(world, whole, tmp_path, seed):
    moments, run = random.Random(seed), tmp_path / "run"
    for _ in range(2):
        process = begin(world, run)
        process.join(moments.uniform(0.2, 0.9) * whole[1])
        process.kill()
        process.join()
    finish(world, run)
    assert same(run, whole[0])


WORST = {"before the old checkpoint is set aside": ("os", "rename", 2),
         "while there is no newest checkpoint": ("os", "rename", 3),
         "between the two logs": ("log", "append", 4),
         "before the last checkpoint but one is dropped": ("checkpoint", "drop_previous", 1)}


@pytest.mark.parametrize("die", WORST.values(), ids=WORST)
def test_a_run_killed_at_the_worst_moments_ends_like_one_never_stopped(world, whole, tmp_path, die):
    run = tmp_path / "run"
    process = start([*world, "--run", str(run)], run, die)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    finish(world, run)
    assert same(run, whole[0])


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = {"cut": ("solver", cut), "one bit": ("generator", flip), "cut state": ("state.json", cut),
           "a file gone": ("g_dev_average", Path.unlink)}


@pytest.mark.parametrize("name, damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_recognised_and_the_one_before_it_used(
        world, whole, two_checkpoints, tmp_path, name, damage):
    run = tmp_path / "run"
    shutil.copytree(two_checkpoints, run)
    damaged = run / "checkpoint" / name
    damage(next(damaged.glob("*.safetensors"), damaged))
    folder, state = checkpoint.find(str(run))
    assert (folder, state["iteration"]) == (str(run / "checkpoint.previous"), ITERATIONS - 1)
    finish(world, run)
    assert name in Path(f"{run}.output").read_text()
    assert same(run, whole[0])


def test_a_damaged_checkpoint_never_takes_the_place_of_the_whole_one_before_it(
        world, whole, two_checkpoints, tmp_path):
    """Killed once more while the next checkpoint is being put in place, there must still be one to
    go on from.
    """
    run = tmp_path / "run"
    shutil.copytree(two_checkpoints, run)
    flip(next((run / "checkpoint/solver").glob("*.safetensors")))
    process = start(["--resume", str(run)], run, ("os", "rename", 1))
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert checkpoint.find(str(run))[0] is not None
    finish(world, run)
    assert same(run, whole[0])


def test_without_any_whole_checkpoint_a_run_stops_and_keeps_its_logs(whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole[0], run)
    cut(run / "checkpoint/state.json")
    process = start(["--resume", str(run)], run)
    process.join(120)
    output = Path(f"{run}.output").read_text()
    assert process.exitcode == 2
    assert "no whole checkpoint is left" in output and "Traceback" not in output
    assert (run / "metrics.jsonl").read_text() == (whole[0] / "metrics.jsonl").read_text()


def test_two_default_runs_never_share_a_folder(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/config.json").write_text("{}")
    cfg = config.Config(run=str(tmp_path / "a"))
    assert train.own_folder(cfg).run == str(tmp_path / "a-2")
    with pytest.raises(InputError, match="holds a run already"):
        train.own_folder(config.Config(run=str(tmp_path / "a"), given=("run",)))


def test_of_two_runs_that_begin_together_the_later_one_is_refused(tmp_path):
    first, second = (log.Log(config.Config(run=str(tmp_path / "a"))) for _ in range(2))
    first.open("fp32")
    with pytest.raises(InputError, match="another run"):
        second.open("fp32")
    run_folder.LOCK.release()
    # not auto: another device would go on in bf16
    assert json.loads((tmp_path / "a/config.json").read_text())["dtype"] == "fp32"


def test_a_run_made_longer_ends_like_a_long_one(world, whole, tmp_path):
    run = tmp_path / "run"
    finish([*world, "--iterations", "2"], run)
    process = start(["--resume", str(run), "--iterations", str(ITERATIONS)], run)
    process.join(120)
    assert same(run, whole[0])


def test_ctrl_c_exits_130_and_the_run_goes_on_later(world, whole, tmp_path):
    run = tmp_path / "run"
    process = start([*world, "--run", str(run)], run)
    while not (run / "metrics.jsonl").exists() and process.is_alive():
        # three iterations are soon over
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    output = Path(f"{run}.output").read_text()
    assert process.exitcode == 130 and "Traceback" not in output
    # a line one can copy
    assert f"--resume {run}" in output
    finish(world, run)
    assert same(run, whole[0])


def test_ctrl_c_in_the_middle_of_a_checkpoint_is_still_ctrl_c(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.HuggingFaceStorageWriter, "write_data", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.write(str(tmp_path), {"x": torch.ones(3)})


# ---------------------------------------------------------------- before anything is trained

def refused(words, monkeypatch, capsys):
    """train.py with these flags -> its one line of complaint."""
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    with pytest.raises(SystemExit) as end:
        sys.exit(train.main(flags.from_command_line()))
    assert end.value.code == 2
    said = capsys.readouterr().err.splitlines()
    errors = [line for line in said if line.startswith("error: ")]
    assert len(errors) == 1
    return errors[0]


@pytest.mark.parametrize("words, says", [
    (["--documents", "{tmp}/missing.json"], "missing.json"),
    (["--dev", "{tmp}/broken.jsonl"], "broken.jsonl"),
    (["--test", "{tmp}/empty.json"], "empty.json"),
    (["--documents", "{tmp}/empty.json"], "empty.json"),
    (["--model", "{tmp}/nomodel", "--documents", "{tmp}/docs.jsonl", "--dev", "{tmp}/dev.jsonl"],
     "nomodel"),
    (["--max_prompt_tokens", "5", "--max_chunk_tokens", "4"], "5"),
    (["--minibatch_rows", "7"], "minibatch_rows"),
    (["--docs_per_stp", "7"], "docs_per_step"),
    (["--resume", "{tmp}/nowhere"], "nowhere")])
def test_bad_input_is_one_line_and_leaves_nothing_behind(
        tmp_path, monkeypatch, capsys, words, says):
    question = '{"question_text": "Which?", "choices": ["a", "b"], "ground_truth": "a"}\n'
    (tmp_path / "broken.jsonl").write_text(question + '{"question_text": \n')
    (tmp_path / "empty.json").write_text("")
    (tmp_path / "nomodel").mkdir()
    (tmp_path / "docs.jsonl").write_text('{"doc_id": "a", "content": "b"}\n')
    (tmp_path / "dev.jsonl").write_text(question)
    run = tmp_path / "run"
    words = [word.format(tmp=tmp_path) for word in words]
    if "--resume" not in words:
        words += ["--run", str(run)]
    assert says in refused(words, monkeypatch, capsys)
    assert not run.exists()


def test_a_finished_run_is_not_written_over(whole, world, monkeypatch, capsys):
    before = ending(whole[0])
    assert "--resume" in refused([*world, "--run", str(whole[0])], monkeypatch, capsys)
    assert ending(whole[0]) == before


def test_a_checkpoint_of_another_model_is_refused(whole, make_policy):
    policy, _ = make_policy("untied")
    with pytest.raises(InputError):
        checkpoint.load(*checkpoint.find(str(whole[0])), {"solver": policy})


def test_an_iteration_without_a_valid_question_trains_nothing_and_goes_on(
        tmp_path, world, monkeypatch, capsys):
    """An untaught model writes noise: the solver and the generator stay, and the run says what to
    try.
    """
    model, run = tmp_path / "model", tmp_path / "run"
    fakes.make_model().save_pretrained(model)
    fakes.make_tokenizer().save_pretrained(model)
    words = [*world, "--model", str(model), "--run", str(run), "--iterations", "1",
             "--max_response_tokens", "8"]
    # its 50 words spell no prompt
    monkeypatch.setattr(train, "check_spelling", lambda *_: None)
    assert train.main(flags.parse(words)) == 0
    line = json.loads((run / "metrics.jsonl").read_text())
    assert line["valid_share"] == 0
    for name in ("solved_share", "solver_grad_norm", "generator_grad_norm"):
        assert line[name] is None
    assert "no draft was a valid question" in capsys.readouterr().out
