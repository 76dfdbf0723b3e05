"""The benchmark compares the speed of equal computations: that they are equal is shown here.

The models have two layers. No speed is tested.
"""
import json
import sys
from argparse import Namespace

import pytest
import torch

from tools import baselines, bench, fused, peers
from data import InputError
from fakes import gradients
from influence import dev_gradient
from policy import pass_loss, update
from engine.packing import passes

# runs and processes of their own
pytestmark = pytest.mark.slow

FILES = {name: bench.TOY[name] for name in ("documents", "dev", "test")}
ARGS = Namespace(rows=8, columns=20, questions=5, answers=4, size=None, lengths="toy", most=16,
                 train="", **FILES)
SHORT = dict(prompt=(3, 9), answer=(1, 8))


def prompt_ids(text):
    """The first twelve words, by their lengths."""
    return [7 + len(word) % 40 for word in text.split()[:12]]


def run_all(stage, names=None):
    """-> {variant: result}, of all variants or of those named."""
    return {name: stage.variants[name]() for name in names or stage.variants}


@pytest.fixture(params=["tied", "untied"])
def world(request, make_policy):
    policy, cfg = make_policy(request.param)
    return bench.make_world(policy, cfg, Q=5, m=4, lengths=SHORT)


def test_the_plain_scores_are_our_scores(world):
    stage = bench.random_stage(world, ARGS)
    ours = stage.variants["ours"]()
    plain = stage.variants["plain"]()
    assert ours.abs().min() > 0 and torch.allclose(ours, plain, atol=1e-5)
    assert stage.difference({"ours": ours, "plain": plain, "bare": None}) < 1e-5
    assert all(p.grad is None for p in world.policy.params)


def test_the_padded_loss_has_the_gradient_of_the_packed_one(world):
    policy = world.policy
    cfg = world.cfg
    packed = 0.0
    for trees in passes(policy, list(enumerate(world.answers)), cfg):
        loss, _ = pass_loss(policy, trees, world.A, 7.0, cfg)
        packed = packed + loss
    padded = baselines.padded_loss(policy, world.answers, world.A, 7.0, cfg)

    for a, b in zip(gradients(padded, policy.params), gradients(packed, policy.params)):
        assert torch.allclose(a, b, atol=1e-5)


def test_the_padded_dev_gradient_is_g_dev(world):
    # a flat group: of no weight, and not in the mean length
    world.A[1] = 0.0
    dev = (world.policy, world.answers, world.A, world.cfg)
    for a, b in zip(baselines.padded_dev_gradient(*dev), dev_gradient(*dev)):
        assert torch.allclose(a, b, atol=1e-5)


def test_the_padded_update_is_our_update_over_several_mini_batches(world):
    policy = world.policy
    adamw = (policy.params, policy.optimizer)
    # three mini-batches of several passes
    cfg = bench.replace(world.cfg, minibatch_rows=8, tokens_at_once=40)
    world.A[3] = 0.0
    put_back = baselines.keeper(*adamw)

    after = []
    for step in (update, baselines.padded_update):
        step(policy, world.answers, world.A, cfg)
        after.append(baselines.first_moments(*adamw))
        put_back()

    ours, padded = after
    before = baselines.first_moments(*adamw)
    assert (ours - padded).norm() < 1e-4 * (ours - before).norm()


def test_a_stage_that_moves_the_model_puts_it_back(world):
    params = world.policy.params
    before = [p.clone() for p in params]
    stage = bench.update_stage(world, ARGS)

    moments = stage.variants["ours"]()
    assert any(not torch.equal(p, old) for p, old in zip(params, before))

    stage.reset()
    assert all(torch.equal(p, old) for p, old in zip(params, before))
    # AdamW's state too
    assert torch.equal(stage.variants["ours"](), moments)


def test_trl_takes_the_same_step(world):
    pytest.importorskip("trl")
    results = run_all(bench.update_stage(world, ARGS))
    assert set(results) == {"ours", "padded", "trl"}
    assert (results["trl"] - results["ours"]).norm() < 1e-4 * results["ours"].norm()


def test_fused_sums_are_our_sums(world):
    """Uncompiled, since that is the same formula; the bench compares the compiled ones."""
    ours = fused.influence_scores(world.policy, world.answers, world.A, world.g_dev, world.cfg)[0]
    theirs = fused.scores_by(fused.sums_by(fused.line_sums), world)
    assert ours.abs().min() > 0 and torch.allclose(theirs, ours, rtol=1e-5, atol=1e-7)
    assert fused.scores_by(fused.no_sums, world).abs().max() == 0


def test_without_a_compiler_compiled_sums_are_a_line(world, monkeypatch):
    monkeypatch.setattr(fused.shutil, "which", lambda name: None)
    result = bench.measure(bench.sums_stage(world, ARGS), 1)
    assert list(result["seconds"]) == ["ours", "without", "bare"]
    assert "g++ is not here" in result["skipped"]["compiled"]


def test_bergson_answers_the_same_question(world):
    pytest.importorskip("bergson")
    theirs = peers.bergson_scores(world)
    assert theirs.abs().min() > 0 and torch.allclose(theirs, peers.linear_scores(world), atol=1e-6)
    assert all(p.requires_grad and p.grad is None for p in world.policy.params)


def test_dattri_answers_the_same_question_without_adam(world):
    pytest.importorskip("dattri")
    theirs = peers.dattri_scores(world)
    assert theirs.abs().min() > 0 and torch.allclose(theirs, peers.raw_cosine(world), atol=1e-6)


def test_a_peer_that_is_not_installed_is_a_line_with_the_command(world, monkeypatch, capsys):
    for name in ("bergson", "dattri"):
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setitem(sys.modules, f"{name}.algorithm.tracin", None)
    stage = bench.peers_stage(world, ARGS)
    result = bench.measure(stage, 1)
    assert list(result["seconds"]) == ["ours", "ours, cosine"]
    bench.show(stage, result)
    printed = capsys.readouterr().out
    assert "bergson               skipped: not installed: pip install bergson (" in printed
    assert "dattri                skipped: not installed: pip install dattri (" in printed

    rho = result["agreement"]["ours, cosine / ours"]
    assert -1 <= rho < 1 and f"{rho:10.2f}     agreement of ranks" in printed


def test_the_linear_scores_are_our_scores_where_the_history_is_long(world):
    """Beside a long history a question's own square is nothing. With g_dev of the other weights
    at zero, products agree, and norms are taken over linear layers by hand.
    """
    linear = set(peers.linear_layers(world.policy).values())
    for i, g in enumerate(world.g_dev):
        if i not in linear:
            g.zero_()
    for p in world.policy.params:
        state = world.policy.optimizer.state[p]
        state["exp_avg_sq"].fill_(1.0)
        state["step"].fill_(10 ** 6)

    cfg = bench.replace(world.cfg, similarity="preconditioned_dot")
    ours = bench.influence_scores(world.policy, world.answers, world.A, world.g_dev, cfg)[0]
    dots, norms = [], []
    for q in range(len(world.answers)):
        g_q = baselines.question_gradient(world, q, peers.denominator(world))
        norms.append(baselines.norm([g_q[i] for i in linear]))
        dots.append(peers.linear_scores(world)[q] * norms[-1] * baselines.norm(world.g_dev))
    assert torch.allclose(torch.stack(dots), ours, rtol=1e-3)


def test_a_step_with_copied_keys_is_our_step(world):
    stage = bench.decode_stage(world, ARGS)
    first = run_all(stage)
    assert stage.work["ours"] == 5 * 8 and stage.difference(first) < 1e-5
    # the fakes share heads
    assert stage.targets == [("copied", "ours", "at least", 1.5)]
    stage.reset()
    assert torch.equal(run_all(stage)["ours"], first["ours"])


def test_greedy_rollouts_are_the_same_tokens(world):
    variants = bench.rollouts_stage(world, ARGS, temperature=0, mean=6, limit=12).variants
    ours = variants["ours"]()
    ragged = len({len(response) for response in ours}) > 1
    assert ragged and variants["generate"]() == ours
    try:
        assert variants["continuous"]() == ours
    except bench.Skipped as why:
        # another release of transformers
        assert "continuous batching" in str(why)


def test_drawn_rollouts_have_the_same_ragged_lengths(world):
    stage = bench.rollouts_stage(world, ARGS, mean=6, limit=12)
    results = run_all(stage, ["ours", "generate"])
    lengths = [len(response) for response in results["ours"]]
    assert stage.difference(results) == 0 and sum(lengths) == stage.work["ours"]
    assert min(lengths) < 4 and max(lengths) > 8


def test_a_way_that_cannot_run_is_a_line_and_not_the_end(world, monkeypatch, capsys):
    def broken(*_, **__):
        raise RuntimeError("no paged\nattention here")

    model = type(world.policy.model)
    monkeypatch.setattr(model, "continuous_batching_context_manager", broken)
    stage = bench.rollouts_stage(world, ARGS, mean=6, limit=12)
    result = bench.measure(stage, 1)
    assert list(result["seconds"]) == ["ours", "generate"]
    assert [ratio["ratio"] for ratio in result["ratios"]] == ["generate / ours"]

    bench.show(stage, result)
    line = "skipped: transformers' continuous batching: no paged attention here\n"
    assert line in capsys.readouterr().out


def test_an_iteration_composed_of_plain_parts_ends_where_ours_does(make_policy):
    policy, cfg = make_policy()
    policy.prompt_ids = prompt_ids
    args = Namespace(**vars(ARGS) | {"questions": 2})
    w = bench.make_world(policy, cfg, Q=2, m=4, lengths=SHORT)
    w.asked = bench.ask(policy, args, cfg)
    stage = bench.iteration_stage(w, args)

    results = {}
    for name in ("ours", "plain"):
        results[name] = stage.variants[name]()
        stage.reset()

    # scores come first
    assert results["ours"][:2].abs().min() > 0
    assert torch.allclose(results["ours"], results["plain"], atol=1e-4)


def test_sampling_with_copied_keys_draws_the_same_tokens(make_policy):
    policy, cfg = make_policy()
    policy.prompt_ids = prompt_ids
    w = bench.make_world(policy, cfg, Q=2, m=4, lengths=SHORT)
    w.asked = bench.ask(policy, ARGS, cfg)
    stage = bench.sampling_stage(w, ARGS)
    results = run_all(stage)
    assert stage.difference(results) == 0
    assert sum(map(len, results["ours"])) == stage.work["ours"] > 0


def test_what_another_model_wrote_is_scored_where_rewards_differ(make_policy):
    """The writer's words are taken modulo the model's.

    Only groups with an advantage are scored, by both ways alike.
    """
    policy, cfg = make_policy()
    writer, _ = make_policy("untied")
    for who in (policy, writer):
        who.prompt_ids = prompt_ids
    writer.stop_ids = list(range(5, 20))
    w = bench.make_world(policy, cfg, Q=2, m=4, lengths=SHORT)
    w.asked = bench.ask(policy, ARGS, cfg, writer)

    vocabulary = policy.model.config.vocab_size
    for part in w.asked.groups:
        for x in bench.rollouts_of(part):
            assert all(token < vocabulary for token in x.prompt + x.response)

    w.asked.A[2][1] = 0.0
    stage = bench.influence_stage(w, ARGS)
    results = run_all(stage)
    assert len(results["ours"]) == 4
    assert stage.difference(results) < 1e-5 < results["ours"].abs().min()


def one(group):
    return 1


def tokens(group):
    return sum(len(x.response) for x in group)


@pytest.mark.parametrize("name, work, units", [
    ("questions", {"8": 64, "16": 64}, one),
    ("answers", {str(m): 8 * m for m in (2, 4, 8, 16, 32)}, len),
    ("lengths", {str(T): 16 * T for T in (8, 16, 32, 64)}, tokens)])
def test_a_stage_of_growth_counts_its_work(world, monkeypatch, name, work, units):
    stage = bench.STAGES[name](world, ARGS)
    assert stage.work == work

    scored = []
    monkeypatch.setattr(bench, "influence_scores",
                        lambda policy, answers, *_: scored.extend(answers))
    for variant, run in stage.variants.items():
        scored.clear()
        run()
        assert sum(map(units, scored)) == work[variant]


def test_ratios_are_of_cost_per_unit():
    targets = [("a", "b", "at least", 2.0), ("dearest", "cheapest", "at most", 1.1),
               ("a", "c", "at least", 1.0)]
    stage = bench.Stage("x", "token", {"a": 10, "b": 20}, {}, targets)
    # 0.2 and 0.05 seconds per token
    found = bench.ratios(stage, {"a": [1.0, 2.0, 9.0], "b": [1.0]})
    assert [(round(x["value"], 6), x["met"]) for x in found] == [(4.0, True), (4.0, False)]


def first_four(path, target):
    """The first four entries of a JSON list, as a file of their own -> its path."""
    with open(path) as f:
        target.write_text(json.dumps(json.load(f)[:4]))
    return str(target)


def test_the_clock_of_two_ranks_is_train_pys_own(tmp_path, monkeypatch):
    """Five iterations of train.py, tiny, on one rank.

    The mean of all lines but the first, without evaluation and checkpoint.
    """
    flags = ["--dev", first_four(bench.TOY["dev"], tmp_path / "dev.json"),
             "--test", first_four(bench.TOY["test"], tmp_path / "test.json")]
    flags += ("--docs_per_step 1 --questions_per_doc 2 --answers_per_question 2 "
              "--minibatch_rows 4 --max_response_tokens 8").split()

    kept = []

    def loads(text):
        kept.append(json.JSONDecoder().decode(text))
        return kept[-1]

    monkeypatch.setattr(bench.json, "loads", loads)
    seconds = bench.seconds_of_training(1, flags)
    assert [line["iteration"] for line in kept[-5:]] == [1, 2, 3, 4, 5]

    each = []
    for line in kept[-4:]:
        stages = line["seconds"].items()
        each += [x for name, x in stages if name not in ("evaluate", "checkpoint")]
    assert seconds == pytest.approx(sum(each) / 4) and 0 < seconds < 60


def test_a_training_that_fails_is_said_with_its_last_words(monkeypatch):
    done = Namespace(returncode=2, stderr="error: no\nsuch model")
    monkeypatch.setattr(bench.subprocess, "run", lambda command, **_: done)
    said = ("nproc_per_node 2 -- .*train.py .*--shard false: "
            "exit code 2: error: no such model")
    with pytest.raises(InputError, match=said):
        bench.seconds_of_training(2, ["--shard", "false"])


def test_peak_bytes_counts_what_is_alive_together():
    def run():
        a = torch.zeros(1000)
        del a
        b = torch.zeros(500)
        return b + 1

    # two of 2,000 bytes live, after one of 4,000
    assert 4000 <= bench.peak_bytes(run) < 4200


def test_the_command_writes_every_number_it_prints(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "Policy", lambda *_: world.policy)
    out = tmp_path / "bench.json"
    sizes = ["--questions", "3", "--answers", "4", "--repeats", "2", "--rows", "8"]
    bench.main(["--stages", "random,update,memory", *sizes, "--json", str(out)])

    report = json.loads(out.read_text())
    assert list(report) == ["machine", "settings", "stages", "memory"]
    assert list(report["stages"]) == ["random", "update"]
    printed = capsys.readouterr().out
    for stage in report["stages"].values():
        assert all(len(seconds) == 2 for seconds in stage["seconds"].values())
        assert all(f"{ratio['value']:.2f}" in printed for ratio in stage["ratios"])


def test_an_unknown_stage_is_named():
    with pytest.raises(InputError, match="--stages speed: expected some of influence, random"):
        bench.main(["--stages", "influence,speed"])
