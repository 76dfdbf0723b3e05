"""Whole runs on several ranks: they end like a run of one process, and a rank that dies ends them
with one line.
"""
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

import fakes
import policy
import train
from engine import flags
from test_ranks import free_port

ROOT = Path(train.__file__).resolve().parent
pytestmark = [pytest.mark.slow,
              pytest.mark.skipif(not (ROOT / "toy/anchor/config.json").exists(),
                                 reason="the toy anchor has not been made yet")]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Flags of a run of three iterations in which neither 2 nor 3 divides D, n, m or the number of
    dev questions.

    adam_eps is above the rounding of a gradient: AdamW and Gamma make a step of full size of a
    gradient that is pure rounding.
    """
    folder = tmp_path_factory.mktemp("world")
    sizes = dict(
        docs_per_step=1, questions_per_doc=5, answers_per_question=5, minibatch_rows=10,
        iterations=3, eval_every=2, show_every=0, threads=1, solver_lr=1e-4, generator_lr=1e-4,
        adam_eps=1e-5, dev_ema=0.5, max_response_tokens=64, tokens_at_once=300, shard="true")
    return fakes.small_world(folder, sizes, documents=20, dev=19, test=7)


def one_rank(words, run, rank, ranks, port, dies):
    """train.py as torchrun starts it.

    dies: killed without a word at the third pass of iteration 2, in the middle of g_dev.
    """
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks),
                      MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    with open(f"{run}.output", "a") as f:
        os.dup2(f.fileno(), 1)
        os.dup2(f.fileno(), 2)
    original = policy.tree_logps
    calls = []

    def deadly(*args):
        calls.append(dies and (run / "metrics.jsonl").exists())
        if sum(calls) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args)

    policy.tree_logps = deadly
    sys.argv = ["train.py", *words]
    sys.exit(train.main(flags.from_command_line()))


def run_on(ranks, words, run, last_dies=False):
    """The run on so many ranks -> their exit codes."""
    port = free_port()
    processes = []
    for rank in range(ranks):
        dies = last_dies and rank == ranks - 1
        processes.append(fakes.start_apart(one_rank, words, run, rank, ranks, port, dies))
    return fakes.wait_for(processes, 600)


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def ending(run):
    """-> (metrics without clock and memory, questions.jsonl, weights of both roles)."""
    metrics = lines_of(run / "metrics.jsonl")
    for line in metrics:
        del line["seconds"], line["peak_memory_mb"]
    weights = {}
    for role in ("solver", "generator"):
        weights[role] = load_file(run / role / "model.safetensors")
    return metrics, lines_of(run / "questions.jsonl"), weights


def near(a, b):
    """Equal, but for the rounding of numbers that are no whole ones."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(near(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(near, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return a == pytest.approx(b, rel=1e-4, abs=1e-5)
    return a == b


def same(run, other):
    metrics, questions, weights = ending(run)
    their_metrics, their_questions, their_weights = ending(other)
    assert near(metrics, their_metrics) and near(questions, their_questions)
    for role, ours in weights.items():
        theirs = their_weights[role]
        assert ours.keys() == theirs.keys()
        assert fakes.distance(ours.values(), [theirs[name] for name in ours]) < 1e-5
    return True


@pytest.fixture(scope="module")
def alone(world, tmp_path_factory):
    run = tmp_path_factory.mktemp("alone") / "run"
    assert run_on(1, [*world, "--run", str(run)], run) == [0]
    metrics, _, _ = ending(run)
    for name in ("generator_grad_norm", "solver_grad_norm", "s_hat_std"):
        assert any(line[name] for line in metrics[:-1]), (
            f"{name}: nothing happens in this run, so equal endings would prove nothing")
    return run


@pytest.mark.parametrize("scoring", ["alone", "together"])
def test_a_run_on_three_ranks_ends_like_one_of_one_process(world, alone, tmp_path, scoring):
    run = tmp_path / "run"
    codes = run_on(3, [*world, "--scoring", scoring, "--run", str(run)], run)
    assert codes == [0, 0, 0], Path(f"{run}.output").read_text()[-3000:]
    assert same(run, alone)


def test_a_killed_rank_ends_the_run_with_one_line_and_other_numbers_of_ranks_go_on(
        world, alone, tmp_path):
    run = tmp_path / "run"
    assert run_on(2, [*world, "--run", str(run)], run, last_dies=True) == [1, -signal.SIGKILL]
    output = Path(f"{run}.output").read_text()
    assert output.count("error: ") == 1 and "rank 1 of 2 died" in output
    assert f"--resume {run}" in output and "Traceback" not in output
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1

    assert run_on(3, ["--resume", str(run), "--iterations", "2"], run) == [0, 0, 0]
    assert run_on(1, ["--resume", str(run), "--iterations", "3"], run) == [0]
    assert same(run, alone)
