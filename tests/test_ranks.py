"""Two and three gloo ranks give the numbers of one process, also where they divide nothing and where a rank gets no row."""
import contextlib
import doctest
import os
import socket
from dataclasses import replace

import pytest
import torch

import checkpoint
import fakes
import ranks
import shard
from fakes import advantages, make_groups, s_hat_of
from influence import dev_gradient, influence_scores
from policy import old_logps, sample, take_turns, update

PROMPTS = [[7], [8, 9, 10], [11] * 9, [12, 13], [14, 15, 16]]                                   # 5: neither 2 nor 3 divides it
DEV = make_groups([[5, 3, 8, 1], [2, 6, 4, 4]], seed=1)                                         # M = 2: the third rank gets nothing
ANSWERS = make_groups([[4, 1, 9, 3], [1, 1, 2, 1], [6, 5, 2, 7], [3, 3, 3, 3], [8, 1, 1, 2]], seed=2)


def one_iteration(folder, **changes):
    """Rollouts, g_dev, scores and an update of two steps, the last one of a single group -> everything that came out."""
    torch.set_num_threads(1)
    policy, cfg = fakes.make_policy(folder, lr=0.01, **{"shard": "true"} | changes, rows_at_once=4, minibatch_rows=12, adam_eps=1e-3, grad_clip=0.5)
    if cfg.scoring == "together":
        policy.whole = None                                                                     # nothing is gathered to score
    rollouts = sample(policy, PROMPTS, 3, (0, 1, "solver", "dev"), cfg)
    one = sample(policy, PROMPTS[:1], 2, (0, 1, "solver", "answer"), cfg)                       # fewer prompts than ranks
    A, A_dev = advantages(ANSWERS), advantages(DEV)
    A[3] = 0
    g_dev = dev_gradient(policy, DEV, A_dev, cfg)
    s_hat = s_hat_of(policy, ANSWERS, A, g_dev, cfg)
    single = s_hat_of(policy, ANSWERS[:1], A[:1], g_dev, replace(cfg, similarity="dot"))
    step = update(policy, ANSWERS, A, cfg)
    flat = update(policy, ANSWERS, 0 * A, cfg)
    warm = s_hat_of(policy, ANSWERS, A, g_dev, cfg)
    shares = influence_scores(policy, ANSWERS, A, g_dev, cfg)[1]
    old_logps(policy, list(enumerate(ANSWERS)), cfg)
    assert checkpoint.names(policy) == [name for name, _ in policy.outline.named_parameters()]  # no pass leaves weights gathered
    whole = lambda tensors: [shard.whole(t.detach()) for t in tensors]
    return {"facts": [[(x.prompt, x.response, x.finished, x.text) for x in row] for row in rollouts + one], "g_dev": whole(g_dev),
            "s_hat": s_hat, "single": single, "warm": warm, "shares": shares, "norm": torch.tensor(step.pop("grad_norm")), "counts": (step, flat),
            "weights": whole(policy.params), "sharded": policy.sharded, "judged": ranks.from_main(float(ranks.rank()))}


def one_rank(folder, rank, world, port, changes):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
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
    processes = [fakes.start_apart(one_rank, folder, rank, world, port, changes) for rank in range(world)]
    assert fakes.wait_for(processes, 300) == [0] * world
    return [torch.load(folder / f"{world}-{rank}.pt", weights_only=False) for rank in range(world)]        # our own files, a moment old


MANY = {"grad_checkpoint": True, "tokens_at_once": 40, "logp_chunk": 5}


@pytest.mark.parametrize("world, changes", [(2, {}), (3, MANY), (2, {"kind": "untied"}), (3, {"shard": "false"}),
                                            (2, {"scoring": "together"}), (3, {"scoring": "together", "kind": "untied"} | MANY)],
                         ids=["2", "3, many passes", "untied", "3, whole copies", "2, together", "3, together, many passes"])
def test_ranks_are_invisible(tmp_path, world, changes):
    alone = one_iteration(tmp_path, **changes)
    for theirs in on_ranks(tmp_path, world, changes):
        assert theirs["facts"] == alone["facts"] and theirs["counts"] == alone["counts"] and theirs["judged"] == 0
        assert theirs["sharded"] == (changes.get("shard") != "false")
        for name in ("s_hat", "single", "warm", "shares", "norm"):
            assert alone[name].abs().max() > 0 and torch.allclose(theirs[name], alone[name], rtol=1e-5, atol=1e-6), name
        for name in ("g_dev", "weights"):
            assert fakes.distance(theirs[name], alone[name]) < 1e-6, name


@pytest.mark.parametrize("scoring", ["alone", "together"])
def test_shards_in_bf16_are_as_near_to_fp32_as_one_process_in_bf16(tmp_path, scoring):
    """One rounds at every operation, the other whole tensors, so they cannot agree with each other; fp32 says which error is normal."""
    exact, alone = one_iteration(tmp_path), one_iteration(tmp_path, dtype="bf16")
    for theirs in on_ranks(tmp_path, 2, {"dtype": "bf16", "scoring": scoring}):
        for name in ("s_hat", "warm", "g_dev", "weights"):
            normal, ours = (fakes.distance(list(x[name]), list(exact[name])) for x in (alone, theirs))
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
        monkeypatch.setattr(ranks.dist, "all_gather_object", lambda out, part: out.__setitem__(slice(None), parts))
        assert ranks.gather(parts[0], 7) == items
        assert max(map(len, parts)) - min(map(len, parts)) <= 1                                 # nobody waits for more than one item


def test_no_rank_has_more_to_do_than_another_by_more_than_one_item():
    assert doctest.testmod(ranks).failed == 0
    for sizes in ([9, 7, 5, 4, 1], [100, 1, 1, 1, 1, 1], [8, 8, 8], [5], [], list(range(40, 0, -3))):
        for k in (1, 2, 3, 5):
            order = ranks.evenly(sizes, k)
            sums = [sum(order[r::k]) for r in range(k)]
            assert sorted(order, reverse=True) == sizes and max(sums) - min(sums) <= max(sizes, default=0)


def test_one_process_needs_no_group():
    assert (ranks.world(), ranks.rank(), ranks.is_main()) == (1, 0, True)
    assert ranks.gather([1, 2], 2) == [1, 2] and ranks.from_main("x") == "x"
    ranks.barrier()
    ranks.stop()


def test_two_roles_take_turns_on_the_device(make_policy, monkeypatch):
    """One sleeps from the start; whoever works comes, once the other has left. The same role working again moves nothing."""
    roles = {kind: make_policy(kind) for kind in ("tied", "untied")}
    (first, cfg), (second, _) = roles.values()
    moves = []
    for kind, (policy, _) in roles.items():
        monkeypatch.setattr(policy.net, "to", lambda place, kind=kind: moves.append((kind, str(place))))
        policy.device = torch.device("cpu", 0)                                                  # a device that is not host memory, by name
    take_turns(first, second)
    sample(first, PROMPTS, 1, (0,), cfg)
    assert moves == [("untied", "cpu")]
    update(second, ANSWERS, advantages(ANSWERS), cfg)
    sample(second, PROMPTS, 1, (0,), cfg)
    assert moves[1:] == [("tied", "cpu"), ("untied", "cpu:0")]
    dev_gradient(first, DEV, advantages(DEV), cfg)
    assert moves[3:] == [("untied", "cpu"), ("tied", "cpu:0")]


@pytest.mark.parametrize("gaps, ends", [([0.5] * 300, True), ([0.5] * 3 + [600.0] + [0.5] * 3, False)])
def test_silence_of_two_minutes_ends_a_run_but_not_after_a_pause_of_one_s_own(monkeypatch, gaps, ends):
    """The other rank's count never moves: it is dead. Or the whole job was stopped for ten minutes and this rank is the first to go on."""
    pulse, clock, left = ranks.Pulse.__new__(ranks.Pulse), [0.0], list(gaps)

    class Beats:
        def wait(self, seconds):
            clock[0] += left.pop(0) if left else 0
            return not left

    def leave(code):
        raise SystemExit(code)

    pulse.rank, pulse.world, pulse.ended, pulse.counts = 0, 2, Beats(), lambda mine=0: [len(gaps) - len(left), 7]
    monkeypatch.setattr(ranks.Pulse, "own", pulse)
    monkeypatch.setattr(ranks.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(ranks.os, "_exit", leave)
    with pytest.raises(SystemExit) if ends else contextlib.nullcontext():
        pulse.run()
