"""The planner against the code it plans for: schedules, FLOPs and bytes as they really are."""
import json
import re
from dataclasses import replace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import Qwen3Config, Qwen3ForCausalLM

import fakes
import sampling as sampling_module
from config import Config
from data import InputError, Rollout
from engine import flags, flat
from engine.attention import varlen
from engine.blocks import blocks
from engine.cache import ROWS, SHARE, Running, spare
from engine.flat import MOST
from engine.packing import Lengths, Rows, lengths_of, passes
from engine.presets import PAPER_8B
from engine.room import shape_of
from policy import Policy, pass_loss
from sampling import sample
from tools import formulas, house, plan, plan_check, remedies, samplers, setting, tables
from tools.formulas import sampling
from tools.plan_check import flop_counter, most_bytes
from tools.setting import Assumed, Machine, Rollouts, Setting


def shape_for(policy):
    return shape_of(policy.model.config, "fake")


def paper(gpus, **changes):
    cfg = replace(Config(**PAPER_8B, preset="paper-8b"), **changes)
    shapes = {"solver": QWEN3_8B, "generator": QWEN3_8B}
    return Setting(cfg, shapes, setting.rollouts_of(cfg, Assumed()), Machine(gpus=gpus))


QWEN3_8B = shape_of(setting.published("Qwen3-8B"), "Qwen3-8B")


def known(groups):
    """Groups of rollouts -> their Lengths."""
    return tuple(map(lengths_of, groups))


def sizes(trees):
    """The trees of a pass -> what a plan knows of it."""
    return len(trees), len(trees[0].ids), sum(len(tree.sources) for tree in trees)


def planned_sizes(groups, shape, limit):
    return [(x.rows, x.L, x.targets) for x in formulas.planned(groups, shape, limit)]


def test_roles_change_places_only_for_what_happens():
    """Of a fixed generator there is no update, so nothing comes in for it."""
    moved = {}
    for reward in ("influence", "fixed"):
        stages = plan.plan(paper(8, reward=reward, offload_idle=True))
        moved[reward] = {name for name, stage in stages.items() if stage.moved}
        assert all(stage.buffers for name, stage in stages.items() if name in moved[reward])
    assert "update_generator" in moved["influence"] and "update_generator" not in moved["fixed"]


# ---------------------------------------------------------------- the model

@pytest.mark.parametrize("name, billions", [
    ("Qwen3-4B", 4.02), ("Qwen3-8B", 8.19), ("Qwen3-14B", 14.77), ("Qwen3-32B", 32.76)])
def test_the_published_numbers_give_the_published_parameter_counts(name, billions):
    assert round(shape_of(setting.published(name), name).P / 1e9, 2) == billions


@pytest.mark.parametrize("kind", ["tied", "untied", "window"])
def test_parameters_are_those_of_the_policy(make_policy, kind):
    policy, _ = make_policy(kind)
    shape = shape_for(policy)
    numbers = [p.numel() for p in policy.params]
    assert (shape.P, shape.W) == (sum(numbers), policy.layer_weights)
    assert shape.N == max(numbers) and shape.tied == (kind == "tied")


def test_a_short_name_works_without_the_hub():
    assert setting.model_config("Qwen/Qwen3-8B-Base").hidden_size == 4096


def test_a_model_that_does_not_exist_is_one_line():
    with pytest.raises(InputError, match="no config.json could be read"):
        setting.model_config("/nowhere/at-all")


# ---------------------------------------------------------------- the schedules

@pytest.mark.slow
@pytest.mark.parametrize("rows, n, tokens", [(4, 2, 1000), (9, 3, 1000), (6, 2, 9), (2, 4, 1000)])
def test_sampling_is_played_through_as_it_happens(make_policy, rows, n, tokens):
    """FLOPs depend on every prefill's padding, on the rows of every step and on the cache's
    columns: equal FLOPs, equal schedule."""
    policy, cfg = make_policy(
        rows_at_once=rows, tokens_at_once=tokens, max_response_tokens=12, temperature=3.0)
    prompts = [list(range(5, 5 + length)) for length in (3, 9, 4, 4, 7, 3, 8)]
    with flop_counter() as counter:
        groups = sample(policy, prompts, n, ("plan",), cfg)
    lengths = [len(x.response) for x in formulas.joined(groups)]
    y = sampling(known(groups), rows, tokens)
    # ragged, or nothing is tested
    assert len(set(lengths)) > 3
    assert y.drawn == sum(lengths)
    assert counter.get_total_flops() == formulas.sampling_flops(shape_for(policy), y)


@pytest.mark.slow
@pytest.mark.parametrize("room", [60, 90, 1000])
def test_rows_end_to_end_are_played_through_as_they_happen(make_policy, monkeypatch, room):
    """Steps, rows and tokens of each, prefills, layouts: of the flat cache itself, which is small
    enough here that rows have to give way."""
    for module in (flat, samplers):
        monkeypatch.setattr(module, "FIRST", 2)
        monkeypatch.setattr(module, "MOST", 8)
    seen = formulas.Sampling()
    gave_way = []

    class Watched(flat.Flat):
        def lay_out(self, *new):
            super().lay_out(*new)
            seen.copied += sum(self.lengths)
            seen.most = max(seen.most, self.size)

        def give_way(self):
            gave_way.append(super().give_way())
            return gave_way[-1]

        def forward(self, ids, *more):
            if self.reading:
                seen.prefill += len(ids)
            else:
                seen.stride(len(ids), 1, sum(self.lengths) + len(ids))
            return super().forward(ids, *more)

    monkeypatch.setattr(sampling_module, "rows_for", lambda policy, model: Watched(
        model, policy.device, varlen, room))
    policy, cfg = make_policy(rows_at_once=0, max_response_tokens=24, temperature=3.0)
    prompts = [list(range(5, 5 + length)) for length in (3, 9, 4, 4, 7, 3, 8)]
    groups = sample(policy, prompts, 2, ("plan",), cfg)

    # in the order drawn, since the last rows are those that give way
    lengths = [tuple(len(x.response) for x in group) for group in groups]
    drawn = [Lengths(len(prompt), n, (0, 0)) for prompt, n in zip(prompts, lengths)]
    y = samplers.ours.__wrapped__(drawn, room, 0, cfg.tokens_at_once)
    assert any(gave_way) == (room < 1000)
    for name in ("prefill", "steps", "row_steps", "cells", "copied", "most"):
        assert getattr(y, name) == getattr(seen, name), name
    assert y.drawn == sum(len(x.response) for x in formulas.joined(groups))


def vllm_a_step_at_a_time(groups, room):
    """-> (steps, rows and tokens of all of them, tokens read, most that the cache held)"""
    waiting = [[g, group.prompt, n] for g, group in enumerate(groups) for n in group.responses]
    running, steps, rows, cells, read, most = [], 0, 0, 0, 0, 0

    def held():
        own = sum(tokens - groups[g].prompt for g, tokens, _ in running)
        return own + sum(groups[g].prompt for g in {g for g, *_ in running})

    while waiting or running:
        left_now = False
        while len(running) > 1 and held() + 16 * len(running) > room:
            waiting.insert(0, running.pop())
            left_now = True
        while waiting and not left_now and len(running) < ROWS:
            g, tokens, _ = waiting[0]
            shared = groups[g].prompt if g in [h for h, *_ in running] else 0
            if running and held() + 16 * len(running) + tokens - shared + 16 > room:
                break
            running.append(waiting.pop(0))
            read += tokens - shared
        running = [[g, tokens + 1, n - 1] for g, tokens, n in running if n > 1]
        steps += bool(running)
        rows += len(running)
        cells += sum(tokens for _, tokens, _ in running)
        most = max(most, held())
    return steps, rows, cells, read, most


@pytest.mark.parametrize("room, again", [(10_000, False), (700, True)])
def test_vllm_is_played_through_as_a_step_at_a_time(room, again):
    """Its strides end where rows do or the cache is full. A few tokens of room decide when a row
    gives way, so steps agree within a fiftieth; where none does, exactly."""
    r = Rollouts(20, 4, 0, (20, 6), (60, 40), 0.5)
    groups = setting.groups_of(r, 100, 200)
    steps, rows, cells, read, most = vllm_a_step_at_a_time(groups, room)
    y = samplers.by_vllm(groups, room)
    assert y.row_steps == rows and (read > 20 * 20) == again
    if not again:
        assert (y.steps, y.cells, y.prefill) == (steps, cells, read)
    assert y.steps == pytest.approx(steps, rel=0.02)
    assert y.prefill == pytest.approx(read, rel=0.1)
    assert most <= y.most <= room or not again


@pytest.mark.parametrize("end_to_end", ["false", "true"])
@pytest.mark.parametrize("limit", [30, 60, 10_000])
def test_trees_and_passes_are_those_of_the_real_packing(make_policy, limit, end_to_end):
    policy, cfg = make_policy(tokens_at_once=limit, end_to_end=end_to_end)
    groups = fakes.make_groups([[3, 9, 2], [5, 5, 5], [1, 7, 4], [8, 2, 2]], prompts=[20, 3, 11, 6])
    real = passes(policy, list(enumerate(groups)), cfg)
    shape = replace(shape_for(policy), end_to_end=policy.end_to_end)
    assert planned_sizes(known(groups), shape, limit) == list(map(sizes, real))
    # padding there is only side by side
    tokens = [sum(len(tree.ids) for tree in trees) for trees in real]
    planned = [x.tokens for x in formulas.planned(known(groups), shape, limit) if x.lengths]
    assert planned == [n for n, trees in zip(tokens, real) if isinstance(trees, Rows)]
    assert end_to_end == "true" or not planned


def test_passes_that_ranks_divide_are_those_of_the_real_packing(make_policy):
    policy, cfg = make_policy(tokens_at_once=40)
    groups = fakes.make_groups([[3, 9, 2, 4]], prompts=[20])
    for part in (0, 1, 2):
        real = passes(policy, list(enumerate(groups)), cfg, 3, part)
        planned = formulas.planned(known(groups), shape_for(policy), 40, 3, part)
        assert [(x.rows, x.L, x.targets) for x in planned] == list(map(sizes, real))


def test_blocks_of_questions_are_those_of_the_real_scoring(make_policy):
    """Prompts of 9 to 20 tokens; the longest question does not fit in one pass and goes alone."""
    policy, cfg = make_policy(tokens_at_once=60, logp_chunk=30)
    lengths = [[3, 9], [5, 5], [1, 7], [8, 2], [30, 30]]
    groups = fakes.make_groups(lengths, prompts=[20, 9, 11, 15, 20])
    real = [[tree for _, tree in pairs] for pairs in blocks(policy, range(5), groups, cfg)]
    shared, alone = formulas.blocks(known(groups), shape_for(policy), cfg, "cpu")
    assert [(x.rows, x.L, x.targets) for x in shared] == list(map(sizes, real))
    assert len(alone) == 1 and sum(x.rows for x in shared) == 4


def test_what_answers_have_in_common_is_planned_once(make_policy):
    """Each of 40 groups: a prompt of 9, and four answers that share their first 6 tokens of 10.
    From means and deviations alone."""
    policy, cfg = make_policy(tokens_at_once=200)

    def answer(g, i):
        return Rollout([7] * 9, [8] * 6 + [9 + i] + [g % 20 + 5] * 3, [], True, "")

    groups = [[answer(g, i) for i in range(4)] for g in range(40)]
    facts = plan_check.rollouts_of(groups, 40)
    assert [group.total for group in facts.groups] == [9 + 4 * 10 - 3 * 6] * 40
    cfg = replace(cfg, max_prompt_tokens=100, max_response_tokens=100)
    supposed = plan_check.from_means(facts, cfg)
    real = passes(policy, list(enumerate(groups)), cfg)
    assert planned_sizes(supposed.groups, shape_for(policy), 200) == list(map(sizes, real))


def test_lengths_have_the_mean_and_stay_below_the_limit():
    groups = setting.groups_of(Rollouts(200, 8, 0, (300, 90), (2000, 1600), 0.5), 4096, 4096)
    responses = torch.tensor([group.responses for group in groups], dtype=torch.float)
    assert abs(responses.mean() / 2000 - 1) < 1e-3
    assert 1 <= responses.min() and responses.max() <= 4096
    # the answers to one prompt are alike
    assert responses.mean(1).std() > 2 * responses.std() / 8 ** 0.5


# ---------------------------------------------------------------- FLOPs and bytes

@pytest.mark.parametrize("changes", [
    {}, {"grad_checkpoint": True}, {"logp_chunk": 4}, {"grad_checkpoint": True, "logp_chunk": 4}])
@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_the_flops_of_a_pass_are_what_torch_counts(make_policy, kind, changes):
    policy, cfg = make_policy(kind, **changes)
    groups = fakes.make_groups([[3, 9, 2], [5, 5, 5]], prompts=[20, 3])
    rows = passes(policy, list(enumerate(groups)), cfg)[0]
    x = formulas.planned(known(groups), shape_for(policy), cfg.tokens_at_once)[0]
    with flop_counter() as counter:
        pass_loss(policy, rows, fakes.advantages(groups), 1.0, cfg)[0].backward()
    assert counter.get_total_flops() == formulas.pass_flops(shape_for(policy), x, cfg)


def wide_policy(folder, tied, **changes):
    """A fake large enough for its matrices to outweigh its bookkeeping."""
    model = Qwen3ForCausalLM(Qwen3Config(
        vocab_size=fakes.V, hidden_size=128, intermediate_size=320, num_hidden_layers=6,
        num_attention_heads=4, num_key_value_heads=2, head_dim=32, tie_word_embeddings=tied,
        eos_token_id=fakes.EOS))
    model.save_pretrained(folder / "wide")
    fakes.make_tokenizer().save_pretrained(folder / "wide")
    cfg = replace(Config(device="cpu"), **changes)
    return Policy("solver", str(folder / "wide"), 1e-3, cfg), cfg


@pytest.mark.slow
@pytest.mark.parametrize("tied, changes", [
    (True, {}), (False, {}), (True, {"grad_checkpoint": True})])
def test_the_bytes_of_a_pass_are_within_15_percent_of_the_profilers(tmp_path, tied, changes):
    policy, cfg = wide_policy(tmp_path, tied, **changes)
    shape = shape_for(policy)
    groups = fakes.make_groups([[12, 20, 9, 14]] * 6, prompts=[40, 30, 44, 38, 40, 41])
    trees = passes(policy, list(enumerate(groups)), cfg)[0]
    first = formulas.planned(known(groups), shape, cfg.tokens_at_once)[:1]
    # as while scoring: each gradient is dropped when it is complete
    for p in policy.params:
        p.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))

    def backward():
        pass_loss(policy, trees, fakes.advantages(groups), 1.0, cfg)[0].backward()

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        backward()
    moments = formulas.backward_moments(shape, {}, first, cfg, 4, 4)
    planned = max(sum(moment.values()) for moment in moments)
    assert abs(planned / most_bytes(profiler) - 1) < 0.15


def test_the_cache_is_as_large_as_its_tensors_and_their_spare_columns(make_policy, monkeypatch):
    policy, cfg = make_policy(rows_at_once=6, temperature=3.0)
    seen, held, step = [], [], Running.step

    def with_spare(x):
        columns = x.shape[2]
        return x.nbytes // columns * (columns + spare(columns))

    def watched(self, tokens):
        step(self, tokens)
        tensors = formulas.joined((layer.keys, layer.values) for layer in self.cache.layers)
        seen.append(sum(map(with_spare, tensors)))
        held.append(sum(x.untyped_storage().nbytes() for x in tensors))

    monkeypatch.setattr(Running, "step", watched)
    groups = sample(policy, [[5] * length for length in (3, 9, 4, 7)], 2, ("plan",), cfg)
    y = sampling(known(groups), 6, cfg.tokens_at_once)
    planned = formulas.sampling_moments(shape_for(policy), y, 1, 4, False)[0]["KV cache"]
    assert planned == max(seen) and 0.7 * planned < max(held) <= planned


def test_weights_and_adamw_are_16_bytes_less_gradients_over_the_ranks():
    p = paper(8)
    held = formulas.held(p.shapes["solver"], p.k)
    assert sum(held.values()) == pytest.approx(12 * p.shapes["solver"].P / 8)


def test_a_token_of_qwen3_8b_takes_147456_bytes_of_cache():
    """36 layers x 8 heads x 128 x key and value x 2 bytes."""
    y = sampling((Lengths(10, (2,), (0,)),), 1, 1000)
    cache = formulas.sampling_moments(QWEN3_8B, y, 8, 2, False)[0]["KV cache"]
    # the last token is never fed
    assert cache == 147456 * (11 + spare(11))


# ---------------------------------------------------------------- the plan

@pytest.mark.slow
def test_more_gpus_hold_less_each_and_take_less_time():
    small, large = (plan.plan(paper(gpus, scoring="alone")) for gpus in (8, 16))
    for name in ("influence", "update_solver"):
        assert large[name].peak < small[name].peak and large[name].seconds < small[name].seconds
    # the same work but for padding
    assert large["influence"].flops == pytest.approx(small["influence"].flops, rel=0.03)


@pytest.mark.slow
def test_scoring_together_holds_less_and_is_what_auto_means_for_8b():
    """It is not faster on more GPUs: 16 ranks cannot divide 8 answers, and two nodes are slow to
    gather from."""
    alone, together, auto = [plan.plan(paper(8, scoring=scoring))["influence"]
                             for scoring in ("alone", "together", "auto")]
    assert together.peak < alone.peak / 2 and auto == together
    assert plan.plan(paper(16))["influence"].peak < together.peak


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["answer", "update_solver"])
def test_what_is_said_to_help_does_help(stage):
    """Follow the advice, plan again: it fits."""
    p = replace(paper(8, rows_at_once=64, grad_checkpoint=stage == "answer"), padded=True)
    line = remedies.remedies(p, [stage], plan.peak)[0]
    assert "any of" in line
    flag, value = re.search(r"--(rows_at_once|grad_checkpoint) ?(\d*)", line).groups()
    changed = replace(p, cfg=replace(p.cfg, **{flag: int(value) if value else True}))
    assert plan.peak(p, stage) > p.usable >= plan.peak(changed, stage)


@pytest.mark.slow
def test_rows_at_once_is_what_the_cache_grows_with():
    def cache(rows):
        return plan.plan(paper(8, rows_at_once=rows))["answer"].buffers["KV cache"]

    assert 1.5 < cache(32) / cache(16) < 2.5


def test_a_cache_takes_at_most_its_share_of_what_is_free_and_the_last_spare_room():
    """Qwen3-8B on 8 GPUs: weights and AdamW in slices, a copy to sample from, the rest is free."""
    p = paper(8, rows_at_once=0)
    free = p.usable - 12 * QWEN3_8B.P / 8 - 2 * QWEN3_8B.P
    room = samplers.room(p, QWEN3_8B, "ours")
    assert room == int(SHARE * free / 147456)
    found = plan.plan(p)["answer"].buffers["KV cache"] / 147456
    assert 0.9 * room < found < room + ROWS * MOST


def write_run(folder):
    """A model, two documents and a dev question -> the flags of a run."""
    fakes.make_model().save_pretrained(folder / "model")
    fakes.make_tokenizer().save_pretrained(folder / "model")
    data = {"docs.json": [{"doc_id": "1", "content": "w1"}, {"doc_id": "2", "content": "w1 " * 30}],
            "dev.json": [{"question_text": "w2", "ground_truth": "1"}]}
    for name, content in data.items():
        (folder / name).write_text(json.dumps(content))
    files = {"model": "model", "documents": "docs.json", "dev": "dev.json"}
    return [word for name, file in files.items() for word in (f"--{name}", str(folder / file))]


@pytest.mark.slow
def test_the_command_prints_every_stage_and_whether_it_fits(capsys, tmp_path):
    flags = write_run(tmp_path)
    plan.main(["--gpus", "2", "--gpu_gb", "100", *flags])
    out = capsys.readouterr().out
    words = ("dev", "write", "answer", "influence", "upd_generator", "upd_solver", "checkpoint",
             "KV cache", "AdamW m, v", "fits: ")
    assert all(word in out for word in words)
    plan.main(["--gpus", "2", "--gpu_gb", "0.002", *flags])
    assert "does not fit" in capsys.readouterr().out


@pytest.mark.slow
def test_a_plan_for_gpus_ends_with_both_samplers_on_both_kinds_and_what_is_assumed():
    p = paper(8, rows_at_once=0)
    first, *rows, ours, vllm = tables.compared(p, plan.plan, plan.minutes)
    assert not any("fit" in row for row in rows)
    hours = {row[:26].strip(): float(row.split()[-1]) for row in rows}
    places = ["8 x H100", "8 x H200"]
    assert list(hours) == [f"{who}, {where}" for where in places for who in ("our sampler", "vLLM")]
    assert first.split()[-1] == "100" and ours.startswith("our sampler: 68% of the memory's")
    assert "256 sequences" in vllm
    for who in ("our sampler", "vLLM"):
        assert hours[f"{who}, 8 x H200"] < hours[f"{who}, 8 x H100"]
    # other GPUs stand beside these two
    other = replace(p, machine=replace(p.machine, gpu_gb=96))
    assert "vLLM, 8 x 96 GB" in "\n".join(tables.compared(other, plan.plan, plan.minutes))
    small = replace(p, machine=replace(p.machine, gpu_gb=24))
    rows = [row for row in tables.compared(small, plan.plan, plan.minutes) if "8 x 24 GB" in row]
    assert len(rows) == 2 and all(row.endswith("does not fit") for row in rows)


@pytest.mark.slow
def test_the_steps_of_the_page_are_those_that_are_computed_now():
    p = tables.paper(QWEN3_8B, Machine(), Assumed())
    rows = tables.steps(p, plan.plan, plan.minutes)
    page = (house.ROOT / "docs/plan.md").read_text(encoding="utf-8")
    assert all(f"| {' | '.join(row)} |" in page for row in rows)
    hours = [float(row[-1]) for row in rows]
    assert hours[:6] == sorted(hours[:6], reverse=True)


@pytest.mark.parametrize("gpu_gb, gbs", [(24, 3350), (80, 3350), (141, 4800), (180, 4800)])
def test_memory_names_the_gpu_whose_bandwidth_is_planned_with(gpu_gb, gbs):
    assert setting.machine_of(8, gpu_gb).hbm_gbs == gbs


@pytest.mark.parametrize("words, part", [
    ("--gpus 1000000000", "gpus = 1000000000: expected 1 to 4096"), ("--gpus 1e9", "1e9"),
    ("--mfu 0", "mfu = 0.0: expected a number above 0 up to 1"), ("--layer_us -1", "0 or more"),
    ("--hbm_share 2", "up to 1"), ("--gpu_gb nan", "gpu_gb = nan")])
def test_numbers_that_no_plan_can_be_made_with_are_one_line(words, part):
    with pytest.raises(InputError) as refused:
        plan.main(["--model", "Qwen3-8B-Base", *words.split()])
    assert part in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.slow
def test_a_model_that_is_far_too_large_is_said_not_to_fit():
    lines = list(plan.verdict(p := paper(1, rows_at_once=0), plan.plan(p)))
    assert lines[0].startswith("does not fit")


# ---------------------------------------------------------------- of this machine

def test_without_gpus_a_run_is_planned_for_this_machine_with_its_own_data(capsys, tmp_path):
    """One dev question of which the prompt is counted, two documents, of which one is long."""
    assert plan.plan_of_run(flags.parse(write_run(tmp_path))) == 0
    out = capsys.readouterr().out
    assert "on this machine, fp32, whole" in out and "GPU" not in out.split("minutes")[-1]
    assert re.search(r"read: 1 dev questions, prompts of \d+ tokens; 2 documents, prompts of", out)
    assert re.search(r"dev +assumed: 1 prompts of", out)
    assert re.search(r"assumed: responses of a quarter", out)
    assert re.search(r"memory: at most \d.* GB.* Disk: at most \d.* GB", out) and "fits: " in out


def test_gpus_that_were_named_are_planned_for(capsys, tmp_path):
    plan.plan_of_run(flags.parse([*write_run(tmp_path), "--gpus", "8"]))
    out = capsys.readouterr().out
    assert "on 8 x 80 GB, bf16, sharded" in out and "800 prompts" in out


def test_data_that_is_elsewhere_is_assumed(tmp_path):
    cfg = flags.parse(write_run(tmp_path))
    assumed, said = setting.read(replace(cfg, model="NOBODY/nothing"), Assumed())
    assert assumed == Assumed() and "tokenizer is not on this machine" in said
    elsewhere = replace(cfg, documents="hf://a/b.json", dev="gone.json")
    assumed, said = setting.read(elsewhere, Assumed())
    assert assumed == Assumed() and "nothing" in said


# ---------------------------------------------------------------- what a run does not do

def test_only_stages_that_happen_are_planned():
    def shown(**changes):
        stages = plan.plan(paper(8, **changes))
        return {name for name, stage in stages.items() if stage.buffers}

    everything = {"dev", "write", "answer", "influence", "update_generator", "update_solver",
                  "checkpoint"}
    assert shown() == everything
    assert shown(reward="spice") == everything - {"influence"}
    assert shown(reward="fixed") == everything - {"influence", "update_generator"}
    no_drafts = everything - {"influence", "update_generator", "write"}
    # its update takes the answers of the first stage
    assert shown(reward="fixed", train_on="dev") == no_drafts - {"answer"}


def test_rlvr_problems_are_answered_and_learned_from_but_not_scored():
    base, more = (plan.plan(paper(8, rlvr_per_step=n)) for n in (0, 256))
    for name in ("answer", "update_solver"):
        assert more[name].tokens > base[name].tokens
    assert more["influence"].tokens == pytest.approx(base["influence"].tokens, rel=0.02)


def test_known_lengths_are_planned_with_as_they_are():
    groups = Lengths(10, (3, 4), (0, 1)), Lengths(20, (5, 6), (0, 0))
    rollouts = Rollouts(2, 2, 2, (15, 5), (4.5, 1), groups=groups)
    assert replace(paper(1), rollouts={"dev": rollouts}).groups("dev") == groups


# ---------------------------------------------------------------- plan against measurement

@pytest.mark.slow
def test_a_whole_iteration_is_planned_as_it_is_measured():
    """The toy's dev questions, three documents."""
    cfg = flags.parse(["--docs_per_step", "3", "--questions_per_doc", "4"])
    errors = plan_check.errors(plan_check.check(cfg, plan.plan), 2)
    assert errors["tokens"] == 0 and errors["FLOPs"] < 0.01 and errors["bytes"] < 0.2
