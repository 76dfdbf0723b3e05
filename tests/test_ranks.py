"""Two and three gloo ranks give the numbers of one process, also where they divide nothing and
where a rank gets no group.
"""
import contextlib
import doctest
import inspect
import os
import socket
import time
from dataclasses import replace

import pytest
import torch

import fakes
from config import Config
from engine import checkpoint, checks, ending, offload, ranks, shard
from fakes import advantages, make_groups, s_hat_of
from influence import dev_gradient, influence_scores
from policy import old_logps, take_turns, update
from sampling import sample

# runs and processes of their own
pytestmark = pytest.mark.slow

# 5: neither 2 nor 3 divides it
PROMPTS = [[7], [8, 9, 10], [11] * 9, [12, 13], [14, 15, 16]]
# M = 2: the third rank gets nothing
DEV = make_groups([[5, 3, 8, 1], [2, 6, 4, 4]], seed=1)
ANSWERS = make_groups([[4, 1, 9, 3], [1, 1, 2, 1], [6, 5, 2, 7], [3, 3, 3, 3], [8, 1, 1, 2]],
                      seed=2)


def one_iteration(folder, **changes):
    """Rollouts, g_dev, scores and an update of two steps, the last one of a single group ->
    everything that came out.
    """
    torch.set_num_threads(1)
    policy, cfg = fakes.make_policy(
        folder, lr=0.01, **{"shard": "true"} | changes, rows_at_once=4, minibatch_rows=12,
        adam_eps=1e-3, grad_clip=0.5)
    if cfg.scoring == "together":
        # nothing is gathered to score
        policy.whole = None
    rollouts = sample(policy, PROMPTS, 3, (0, 1, "solver", "dev"), cfg)
    # fewer prompts than ranks
    one = sample(policy, PROMPTS[:1], 2, (0, 1, "solver", "answer"), cfg)

    A = advantages(ANSWERS)
    A[3] = 0
    A_dev = advantages(DEV)
    g_dev = dev_gradient(policy, DEV, A_dev, cfg)
    s_hat = s_hat_of(policy, ANSWERS, A, g_dev, cfg)
    single = s_hat_of(policy, ANSWERS[:1], A[:1], g_dev, replace(cfg, similarity="dot"))
    step = update(policy, ANSWERS, A, cfg)
    flat = update(policy, ANSWERS, 0 * A, cfg)
    away_and_back(policy)
    warm = s_hat_of(policy, ANSWERS, A, g_dev, cfg)
    shares = influence_scores(policy, ANSWERS, A, g_dev, cfg)[1]
    old_logps(policy, list(enumerate(ANSWERS)), cfg)
    # no pass leaves weights gathered
    assert checkpoint.names(policy) == [name for name, _ in policy.outline.named_parameters()]

    return {"facts": [facts(group) for group in rollouts + one], "g_dev": whole(g_dev),
            "s_hat": s_hat, "single": single, "warm": warm, "shares": shares,
            "norm": torch.tensor(step.pop("grad_norm")), "counts": (step, flat),
            "weights": whole(policy.params), "sharded": policy.sharded,
            "judged": ranks.from_main(float(ranks.rank())), "checked": checked()}


class Counting:
    """Says of a pair how many ranks there are with it, and that each of its checks timed out."""

    def __init__(self):
        self.timeouts, self.crashes, self.seen = 0, 0, []

    def check(self, pairs):
        self.seen += pairs
        self.timeouts += len(pairs)
        return [f"{ranks.rank()}: {answer}" for answer, _ in pairs]


def checked():
    """-> verdicts, time-outs of all ranks, and how many pairs this rank has looked at."""
    verifier = Counting()
    pairs = [("a", "x"), ("b", "x"), ("a", "x"), ("c", "x"), ("a", "y")]
    verdicts = checks.Shared(verifier).check(pairs)
    return verdicts, verifier.timeouts, len(verifier.seen)


def away_and_back(policy):
    """The role leaves and comes back, as if host memory were another place than the device."""
    before = list(policy.params)
    policy.waiting.apart = True
    for _ in range(2):
        policy.move("cpu", awake=False)
        policy.move(policy.device, awake=True)
    assert all(a is b for a, b in zip(before, policy.params))


def facts(group):
    """A group of rollouts -> all of them but the log-probs."""
    return [(x.prompt, x.response, x.finished, x.text) for x in group]


def whole(tensors):
    return [shard.whole(t.detach()) for t in tensors]


def one_rank(folder, rank, world, port, changes):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world),
                      MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    ranks.start(torch.device("cpu"))
    torch.save(one_iteration(folder, **changes), folder / f"{world}-{rank}.pt")
    ranks.barrier()
    ranks.stop()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def on_ranks(folder, world, changes):
    """The same on several ranks -> what came out on each."""
    port = free_port()
    processes = []
    for rank in range(world):
        processes.append(fakes.start_apart(one_rank, folder, rank, world, port, changes))
    assert fakes.wait_for(processes, 300) == [0] * world
    # our own files, a moment old
    return [torch.load(folder / f"{world}-{rank}.pt", weights_only=False) for rank in range(world)]


MANY = {"grad_checkpoint": True, "tokens_at_once": 40, "logp_chunk": 5}
RUNS = {"2": (2, {}), "3, many passes": (3, MANY), "untied": (2, {"kind": "untied"}),
        "2, stored in bf16": (2, {"kind": "stored"}),
        "2, end to end": (2, {"end_to_end": "true"}),
        "3, whole copies": (3, {"shard": "false"}), "2, together": (2, {"scoring": "together"}),
        "3, together, many passes": (3, {"scoring": "together", "kind": "untied"} | MANY)}


@pytest.mark.parametrize("world, changes", RUNS.values(), ids=RUNS)
def test_ranks_are_invisible(tmp_path, world, changes):
    alone = one_iteration(tmp_path, **changes)
    for theirs in on_ranks(tmp_path, world, changes):
        for name in ("facts", "counts"):
            assert theirs[name] == alone[name], name
        assert theirs["judged"] == 0
        who = ["0: a", "1: b", "0: a", "2: c", "3: a"]
        dealt = [f"{int(x[0]) % world}{x[1:]}" for x in who]
        verdicts, timeouts, seen = theirs["checked"]
        assert verdicts == dealt and timeouts == 4 and seen < 4
        assert theirs["sharded"] == (changes.get("shard") != "false")
        for name in ("s_hat", "single", "warm", "shares", "norm"):
            assert alone[name].abs().max() > 0, name
            assert torch.allclose(theirs[name], alone[name], rtol=1e-5, atol=1e-6), name
        for name in ("g_dev", "weights"):
            assert fakes.distance(theirs[name], alone[name]) < 1e-6, name


@pytest.mark.parametrize("scoring", ["alone", "together"])
def test_shards_in_bf16_are_as_near_to_fp32_as_one_process_in_bf16(tmp_path, scoring):
    """One rounds at every operation, the other whole tensors, so they cannot agree with each other;
    fp32 says which error is normal.
    """
    exact = one_iteration(tmp_path)
    alone = one_iteration(tmp_path, dtype="bf16")
    for theirs in on_ranks(tmp_path, 2, {"dtype": "bf16", "scoring": scoring}):
        for name in ("s_hat", "warm", "g_dev", "weights"):
            normal = fakes.distance(list(alone[name]), list(exact[name]))
            ours = fakes.distance(list(theirs[name]), list(exact[name]))
            assert 0 < ours < 2 * normal, name
            assert theirs[name][0].dtype == torch.float32, name


def test_gather_is_the_inverse_of_share(monkeypatch):
    items = list(range(7))
    for world in (1, 2, 3, 8):
        parts = []
        for rank in range(world):
            monkeypatch.setattr(ranks, "world", lambda: world)
            monkeypatch.setattr(ranks, "rank", lambda: rank)
            parts.append(ranks.share(items))

        def gathered(out, part):
            out[:] = parts

        monkeypatch.setattr(ranks.dist, "all_gather_object", gathered)
        assert ranks.gather(parts[0], 7) == items
        # nobody waits for more than one item
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_no_rank_has_more_to_do_than_another_by_more_than_one_item():
    assert doctest.testmod(ranks).failed == 0
    many = list(range(40, 0, -3))
    for sizes in ([9, 7, 5, 4, 1], [100, 1, 1, 1, 1, 1], [8, 8, 8], [5], [], many):
        for R in (1, 2, 3, 5):
            order = ranks.evenly(sizes, R)
            sums = [sum(order[r::R]) for r in range(R)]
            assert sorted(order, reverse=True) == sizes
            assert max(sums) - min(sums) <= max(sizes, default=0)


def test_a_group_of_gpus_is_told_its_device_and_one_of_cpus_is_not():
    """Without it a barrier guesses the device from the rank. The names are those of torch."""
    gpu = torch.device("cuda", 3)
    assert ranks.group_words(gpu) == {"backend": "nccl", "timeout": ranks.WAIT, "device_id": gpu}
    assert "device_id" not in ranks.group_words(torch.device("cpu"))
    inspect.signature(ranks.dist.init_process_group).bind(**ranks.group_words(gpu))


def test_one_process_needs_no_group():
    assert (ranks.world(), ranks.rank(), ranks.is_main()) == (1, 0, True)
    assert ranks.gather([1, 2], 2) == [1, 2] and ranks.from_main("x") == "x"
    ranks.barrier()
    ranks.stop()


def test_two_roles_take_turns_on_the_device(make_policy, monkeypatch):
    """One sleeps from the start; whoever works comes, once the other has left. The same role
    working again moves nothing.
    """
    roles = {kind: make_policy(kind) for kind in ("tied", "untied")}
    (first, cfg), (second, _) = roles.values()
    kinds = {policy.waiting: kind for kind, (policy, _) in roles.items()}
    moves = []

    def move(net, optimizer, place, waiting):
        moves.append((kinds[waiting], str(place)))

    monkeypatch.setattr(offload, "move", move)
    for policy, _ in roles.values():
        # a device that is not host memory, by name
        policy.device = torch.device("cpu", 0)
    take_turns(first, second)
    sample(first, PROMPTS, 1, (0,), cfg)
    assert moves == [("untied", "cpu")]
    update(second, ANSWERS, advantages(ANSWERS), cfg)
    sample(second, PROMPTS, 1, (0,), cfg)
    assert moves[1:] == [("tied", "cpu"), ("untied", "cpu:0")]
    dev_gradient(first, DEV, advantages(DEV), cfg)
    assert moves[3:] == [("untied", "cpu"), ("tied", "cpu:0")]


def run_out(folder, rank, world, port):
    """Rank 1 asks for more memory than there is, the others wait for it in a collective."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world),
                      MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    with open(folder / f"said-{rank}", "w") as f:
        os.dup2(f.fileno(), 2)
    ranks.start(torch.device("cpu"))
    try:
        if rank == 1:
            torch.empty(10 ** 14)
        ranks.barrier()
    except BaseException as error:
        ending.say(error, Config(device="cpu", run="runs/x", tokens_at_once=2048))
        # as train.main goes on with an error that is not its own
        ranks.silent(20)


@pytest.mark.parametrize("world", [2, 3])
def test_a_rank_that_runs_out_of_memory_ends_the_run_with_one_line(tmp_path, world):
    """The others' main threads stay in the collective: they end all the same, and at once."""
    port = free_port()
    processes = []
    for rank in range(world):
        processes.append(fakes.start_apart(run_out, tmp_path, rank, world, port))
    start = time.monotonic()
    codes = fakes.wait_for(processes, 60)
    assert codes == [2] * world and time.monotonic() - start < 30
    said = [(tmp_path / f"said-{rank}").read_text().strip() for rank in range(world)]
    assert said[0] == said[-1] * (world > 2) == ""
    line = said[1]
    assert "\n" not in line and line.startswith(f"error: rank 1 of {world} ran out of memory")
    # nothing was begun at runs/x
    assert line.endswith("start again with the same command and --tokens_at_once 1024 "
                         "--rows_at_once 128")


@pytest.mark.parametrize("gaps, ends", [
    ([0.5] * 300, True), ([0.5] * 3 + [600.0] + [0.5] * 3, False)])
def test_silence_of_two_minutes_ends_a_run_but_not_after_a_pause_of_one_s_own(
        monkeypatch, gaps, ends):
    """The other rank's count never moves: it is dead. Or the whole job was stopped for ten minutes
    and this rank is the first to go on.
    """
    clock = [0.0]
    left = list(gaps)

    class Beats:
        def wait(self, seconds):
            clock[0] += left.pop(0) if left else 0
            return not left

    def leave(code):
        raise SystemExit(code)

    def counts(mine=0):
        return [len(gaps) - len(left), 7]

    # without its own __init__, which would look for a store and start the thread
    pulse = ranks.Pulse.__new__(ranks.Pulse)
    pulse.rank = 0
    pulse.world = 2
    pulse.ended = Beats()
    pulse.counts = counts
    monkeypatch.setattr(ranks.Pulse, "own", pulse)
    monkeypatch.setattr(ranks.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(ranks.os, "_exit", leave)
    with pytest.raises(SystemExit) if ends else contextlib.nullcontext():
        pulse.run()
