"""A run that is killed, interrupted or damaged and then resumed ends bit for bit like one never stopped."""
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

import checkpoint
import config
import fakes
import log
import train
from data import InputError

ROOT = Path(train.__file__).resolve().parent
ITERATIONS = 3
pytestmark = pytest.mark.skipif(not (ROOT / "toy/anchor/config.json").exists(), reason="the toy anchor has not been made yet")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Flags of a run of three small iterations: few documents, few questions."""
    folder = tmp_path_factory.mktemp("world")
    for name, n in (("documents", 20), ("dev", 24), ("test", 10)):
        (folder / f"{name}.json").write_text(json.dumps(json.loads((ROOT / f"toy/{name}.json").read_text())[:n]))
    sizes = dict(docs_per_step=3, questions_per_doc=4, answers_per_question=4, minibatch_rows=8, iterations=ITERATIONS, eval_every=2,
                 show_every=0, threads=1, solver_lr=1e-3, generator_lr=1e-3, dev_ema=0.5, max_response_tokens=64)
    return [word for name in ("documents", "dev", "test") for word in (f"--{name}", str(folder / f"{name}.json"))] \
        + [word for name, value in sizes.items() for word in (f"--{name}", str(value))]


def main(flags, output, die=None):
    """train.py in this process; `die`: (module, function, n), where its n-th call kills the process instead."""
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
    sys.argv = ["train.py", *flags]
    sys.exit(train.main())


def start(flags, run, die=None):
    return fakes.start_apart(dying_main if die else main, *(flags, str(run) + ".output"), *((die,) if die else ()))


def dying_main(flags, output, die):
    modules = {"os": os, "log": log.Log}
    main(flags, output, (modules[die[0]], *die[1:]))


def begin(flags, run):
    """Start or resume the run, whichever its folder asks for."""
    return start(["--resume", str(run)] if (run / "config.json").exists() else [*flags, "--run", str(run)], run)


def finish(flags, run):
    """The same, to its end."""
    process = begin(flags, run)
    process.join(120)
    assert process.exitcode == 0, Path(f"{run}.output").read_text()[-2000:]


def ending(run):
    """All that a run leaves behind, but for the clock and the memory of the machine."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    metrics = [{key: value for key, value in line.items() if key not in ("seconds", "peak_memory_mb")} for line in lines]
    files = {name: (run / name).read_bytes() for name in ("questions.jsonl", "solver/model.safetensors", "generator/model.safetensors")}
    for path in sorted((run / "checkpoint").glob("*/*.safetensors")):       # by tensor: the order of a file's header is left to chance
        files |= {f"{path.parent.name} {name}": tensor.numpy().tobytes() for name, tensor in load_file(path).items()}
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
    fakes.start_apart(time.time).join()                 # the server of processes is up: from here on time is the run's own
    before = time.time()
    finish(world, run)
    return run, time.time() - before


def test_the_run_of_these_tests_moves_both_models(whole):
    """Otherwise equal endings would prove nothing."""
    metrics, files = ending(whole[0])
    assert [line["iteration"] for line in metrics] == list(range(1, ITERATIONS + 1))
    for name in ("generator_grad_norm", "solver_grad_norm"):
        assert any(line[name] for line in metrics[:-1]), f"{name}: nothing was learned before the last iteration"
    assert len(files["questions.jsonl"].splitlines()) == 12 * ITERATIONS
    assert [line["test_accuracy"] is not None for line in metrics] == [False, True, True]
    assert files["solver/model.safetensors"] != files["generator/model.safetensors"] != (ROOT / "toy/anchor/model.safetensors").read_bytes()


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


@pytest.mark.parametrize("die", [("os", "rename", 2), ("os", "rename", 3), ("log", "append", 4)],
                         ids=["before the old checkpoint is set aside", "while there is no newest checkpoint", "between the two logs"])
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


@pytest.mark.parametrize("name, damage", [("solver", cut), ("generator", flip), ("state.json", cut), ("g_dev_average", Path.unlink)],
                         ids=["cut", "one bit", "cut state", "a file gone"])
def test_a_damaged_checkpoint_is_recognised_and_the_one_before_it_used(world, whole, tmp_path, name, damage):
    run = tmp_path / "run"
    shutil.copytree(whole[0], run)
    damage(next((run / "checkpoint" / name).glob("*.safetensors"), run / "checkpoint" / name))
    folder, state = checkpoint.find(str(run))
    assert (folder, state["iteration"]) == (str(run / "checkpoint.previous"), ITERATIONS - 1)
    finish(world, run)
    assert name in Path(f"{run}.output").read_text()
    assert same(run, whole[0])


def test_a_damaged_checkpoint_never_takes_the_place_of_the_whole_one_before_it(world, whole, tmp_path):
    """Killed once more while the next checkpoint is being put in place, there must still be one to go on from."""
    run = tmp_path / "run"
    shutil.copytree(whole[0], run)
    flip(next((run / "checkpoint/solver").glob("*.safetensors")))
    process = start(["--resume", str(run)], run, ("os", "rename", 1))
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert checkpoint.find(str(run))[0] is not None
    finish(world, run)
    assert same(run, whole[0])


def test_without_any_whole_checkpoint_a_run_stops_and_keeps_its_logs(world, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole[0], run)
    shutil.rmtree(run / "checkpoint.previous")
    cut(run / "checkpoint/state.json")
    process = start(["--resume", str(run)], run)
    process.join(120)
    output = Path(f"{run}.output").read_text()
    assert process.exitcode == 2 and "no whole checkpoint is left" in output and "Traceback" not in output
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
    first.open(None, "fp32")
    with pytest.raises(InputError, match="another run"):
        second.open(None, "fp32")
    assert json.loads((tmp_path / "a/config.json").read_text())["dtype"] == "fp32"              # not auto: another device would go on in bf16


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
        time.sleep(0.005)                               # three iterations are soon over
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    output = Path(f"{run}.output").read_text()
    assert process.exitcode == 130 and "Traceback" not in output
    assert f"--resume {run}" in output                  # a line one can copy
    finish(world, run)
    assert same(run, whole[0])


def test_ctrl_c_in_the_middle_of_a_checkpoint_is_still_ctrl_c(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt
    monkeypatch.setattr(checkpoint.HuggingFaceStorageWriter, "write_data", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.write(str(tmp_path), {"x": torch.ones(3)})


# ---------------------------------------------------------------- what goes wrong before anything is trained

def refused(flags, monkeypatch, capsys):
    """train.py with these flags -> its one line of complaint."""
    monkeypatch.setattr(sys, "argv", ["train.py", *flags])
    assert train.main() == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    return errors[0]


@pytest.mark.parametrize("flags, says", [
    (["--documents", "{tmp}/missing.json"], "missing.json"),
    (["--dev", "{tmp}/broken.jsonl"], "broken.jsonl"),
    (["--test", "{tmp}/empty.json"], "empty.json"),
    (["--documents", "{tmp}/empty.json"], "empty.json"),
    (["--model", "{tmp}/nomodel", "--documents", "{tmp}/docs.jsonl", "--dev", "{tmp}/dev.jsonl"], "nomodel"),
    (["--max_prompt_tokens", "5", "--max_chunk_tokens", "4"], "5"),
    (["--minibatch_rows", "7"], "minibatch_rows"),
    (["--docs_per_stp", "7"], "docs_per_step"),
    (["--resume", "{tmp}/nowhere"], "nowhere")])
def test_bad_input_is_one_line_and_leaves_nothing_behind(tmp_path, monkeypatch, capsys, flags, says):
    (tmp_path / "broken.jsonl").write_text('{"question_text": "Which?", "choices": ["a", "b"], "ground_truth": "a"}\n{"question_text": \n')
    (tmp_path / "empty.json").write_text("")
    (tmp_path / "nomodel").mkdir()
    (tmp_path / "docs.jsonl").write_text('{"doc_id": "a", "content": "b"}\n')
    (tmp_path / "dev.jsonl").write_text('{"question_text": "Which?", "choices": ["a", "b"], "ground_truth": "a"}\n')
    run = tmp_path / "run"
    flags = [flag.format(tmp=tmp_path) for flag in flags] + ([] if "--resume" in flags else ["--run", str(run)])
    assert says in refused(flags, monkeypatch, capsys)
    assert not run.exists()


def test_a_finished_run_is_not_written_over(whole, world, monkeypatch, capsys):
    before = ending(whole[0])
    assert "--resume" in refused([*world, "--run", str(whole[0])], monkeypatch, capsys)
    assert ending(whole[0]) == before


def test_a_checkpoint_of_another_model_is_refused(whole, make_policy):
    policy, _ = make_policy("untied")
    with pytest.raises(InputError):
        checkpoint.load(*checkpoint.find(str(whole[0])), {"solver": policy})


def test_an_iteration_without_a_valid_question_trains_nothing_and_goes_on(tmp_path, world, monkeypatch, capsys):
    """An untaught model writes noise: the solver and the generator stay, and the run says what to try."""
    fakes.make_model().save_pretrained(tmp_path / "model")
    fakes.make_tokenizer().save_pretrained(tmp_path / "model")
    flags = [*world, "--model", str(tmp_path / "model"), "--run", str(tmp_path / "run"), "--iterations", "1", "--max_response_tokens", "8"]
    monkeypatch.setattr(sys, "argv", ["train.py", *flags])
    assert train.main() == 0
    line = json.loads((tmp_path / "run/metrics.jsonl").read_text())
    assert line["valid_share"] == 0
    assert [line[name] for name in ("solved_share", "solver_grad_norm", "generator_grad_norm")] == [None] * 3
    assert "no draft was a valid question" in capsys.readouterr().out
