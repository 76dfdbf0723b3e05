"""The planner against the code it plans for: the same schedules on the same lengths, FLOPs and bytes as torch counts them."""
import json
import re
from dataclasses import replace

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

import fakes
import plan
from bench import peak_bytes
from config import PAPER_8B, Config
from data import InputError, Rollout
from plan import Assumed, Machine, Setting, flop_counter, passes, sampling, shape_of
from plan import known_lengths as lengths_of
from policy import Batch, Policy, batch_loss, common_starts, micro_batches, sample, spare, tree_order


def shape_for(policy):
    return shape_of(policy.model.config, "fake")


def paper(gpus, **changes):
    cfg, shape = replace(Config(**PAPER_8B, preset="paper-8b"), **changes), shape_of(plan.published("Qwen3-8B"), "Qwen3-8B")
    return Setting(cfg, {"solver": shape, "generator": shape}, plan.rollouts_of(cfg, Assumed()), Machine(gpus=gpus))


# ---------------------------------------------------------------- the model

@pytest.mark.parametrize("name, billions", [("Qwen3-4B", 4.02), ("Qwen3-8B", 8.19), ("Qwen3-14B", 14.77), ("Qwen3-32B", 32.76)])
def test_the_published_numbers_give_the_published_parameter_counts(name, billions):
    assert round(shape_of(plan.published(name), name).P / 1e9, 2) == billions


@pytest.mark.parametrize("kind", ["tied", "untied", "window"])
def test_parameters_are_those_of_the_policy(make_policy, kind):
    policy, _ = make_policy(kind)
    shape = shape_for(policy)
    assert (shape.P, shape.W) == (sum(p.numel() for p in policy.params), policy.layer_weights)
    assert shape.N == max(p.numel() for p in policy.params) and shape.tied == (kind == "tied")


def test_a_short_name_works_without_the_hub():
    assert plan.model_config("Qwen/Qwen3-8B-Base").hidden_size == 4096


def test_a_model_that_does_not_exist_is_one_line():
    with pytest.raises(InputError, match="no config.json could be read"):
        plan.model_config("/nowhere/at-all")


# ---------------------------------------------------------------- the schedules

@pytest.mark.parametrize("rows, n, tokens", [(4, 2, 1000), (9, 3, 1000), (6, 2, 9), (2, 4, 1000)])
def test_sampling_is_played_through_as_it_happens(make_policy, rows, n, tokens):
    """FLOPs depend on every prefill's padding, on the rows of every step and on the cache's columns: equal FLOPs, equal schedule."""
    policy, cfg = make_policy(rows_at_once=rows, tokens_at_once=tokens, max_response_tokens=12, temperature=3.0)
    prompts = [list(range(5, 5 + length)) for length in (3, 9, 4, 4, 7, 3, 8)]
    with flop_counter() as counter:
        groups = sample(policy, prompts, n, ("plan",), cfg)
    y = sampling(lengths_of(groups), rows, tokens)
    assert len({len(x.response) for group in groups for x in group}) > 3                    # ragged, or nothing is tested
    assert y.drawn == sum(len(x.response) for group in groups for x in group)
    assert counter.get_total_flops() == plan.sampling_flops(shape_for(policy), y)


@pytest.mark.parametrize("limit", [30, 60, 10_000])
def test_rows_and_passes_are_those_of_micro_batches(make_policy, limit):
    policy, cfg = make_policy(tokens_at_once=limit)
    groups = fakes.make_groups([[3, 9, 2], [5, 5, 5], [1, 7, 4], [8, 2, 2]], prompts=[20, 3, 11, 6])
    real = micro_batches(policy, list(enumerate(groups)), cfg)
    planned = [(x.rows, x.L, x.targets) for x in passes(lengths_of(groups), shape_for(policy), limit)]
    assert planned == [(len(rows), len(rows[0].ids), sum(len(row.sources) for row in rows)) for rows in real]


def test_what_answers_have_in_common_is_planned_once(make_policy):
    """Each of 40 groups: a prompt of 9, and four answers that share their first 6 tokens of 10. From means and deviations alone."""
    policy, cfg = make_policy(tokens_at_once=200)
    groups = [[Rollout([7] * 9, [8] * 6 + [9 + i] + [g % 20 + 5] * 3, [], True, "") for i in range(4)] for g in range(40)]
    facts = plan.Rollouts(40, 4, 40, *plan.lengths(groups))
    assert facts.trees == (9 + 4 * 10 - 3 * 6,) * 40
    real = micro_batches(policy, list(enumerate(groups)), cfg)
    planned = [(x.rows, x.L, x.targets) for x in passes(plan.groups_of(facts, 40, 100, 100), shape_for(policy), 200)]
    assert planned == [(len(rows), len(rows[0].ids), sum(len(row.sources) for row in rows)) for rows in real]


def test_lengths_have_the_mean_and_stay_below_the_limit():
    groups = plan.groups_of(plan.Rollouts(200, 8, 0, (300, 90), (2000, 1600), 0.5), 200, 4096, 4096)
    responses = torch.tensor([r for _, responses, _ in groups for r in responses], dtype=torch.float)
    assert abs(responses.mean() / 2000 - 1) < 1e-3 and 1 <= responses.min() and responses.max() <= 4096
    assert responses.view(200, 8).mean(1).std() > 2 * responses.std() / 8 ** 0.5            # the answers to one prompt are alike


# ---------------------------------------------------------------- FLOPs and bytes

@pytest.mark.parametrize("changes", [{}, {"grad_checkpoint": True}, {"logp_chunk": 4}, {"grad_checkpoint": True, "logp_chunk": 4}])
@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_the_flops_of_a_pass_are_what_torch_counts(make_policy, kind, changes):
    policy, cfg = make_policy(kind, **changes)
    groups = fakes.make_groups([[3, 9, 2], [5, 5, 5]], prompts=[20, 3])
    rows = micro_batches(policy, list(enumerate(groups)), cfg)[0]
    x = passes(lengths_of(groups), shape_for(policy), cfg.tokens_at_once)[0]
    with flop_counter() as counter:
        batch_loss(policy, rows, fakes.advantages(groups), 1.0, cfg)[0].backward()
    assert counter.get_total_flops() == plan.pass_flops(shape_for(policy), x, cfg)


def wide_policy(folder, tied, **changes):
    """A fake large enough for its matrices to outweigh its bookkeeping."""
    sizes = dict(vocab_size=fakes.V, hidden_size=128, intermediate_size=320, num_hidden_layers=6, num_attention_heads=4,
                 num_key_value_heads=2)
    Qwen3ForCausalLM(Qwen3Config(**sizes, head_dim=32, tie_word_embeddings=tied, eos_token_id=fakes.EOS)).save_pretrained(folder / "wide")
    fakes.make_tokenizer().save_pretrained(folder / "wide")
    cfg = replace(Config(device="cpu"), **changes)
    return Policy("solver", str(folder / "wide"), 1e-3, cfg), cfg


@pytest.mark.parametrize("tied, changes", [(True, {}), (False, {}), (True, {"grad_checkpoint": True})])
def test_the_bytes_of_a_pass_are_within_15_percent_of_the_profilers(tmp_path, tied, changes):
    policy, cfg = wide_policy(tmp_path, tied, **changes)
    shape, groups = shape_for(policy), fakes.make_groups([[12, 20, 9, 14]] * 6, prompts=[40, 30, 44, 38, 40, 41])
    rows, x = micro_batches(policy, list(enumerate(groups)), cfg)[0], passes(lengths_of(groups), shape, cfg.tokens_at_once)[0]
    for p in policy.params:                             # as while scoring: each gradient is dropped when it is complete
        p.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    used = peak_bytes(lambda: batch_loss(policy, rows, fakes.advantages(groups), 1.0, cfg)[0].backward())
    planned = max(sum(moment.values()) for moment in plan.backward_moments(shape, {}, x, cfg, 4, 4))
    assert abs(planned / used - 1) < 0.15


def test_the_cache_is_as_large_as_its_tensors_and_their_spare_columns(make_policy, monkeypatch):
    policy, cfg = make_policy(rows_at_once=6, temperature=3.0)
    seen, held, step = [], [], Batch.step

    def watched(self, tokens):
        step(self, tokens)
        tensors = [x for layer in self.cache.layers for x in (layer.keys, layer.values)]
        seen.append(sum(x.nbytes // x.shape[2] * (x.shape[2] + spare(x.shape[2])) for x in tensors))
        held.append(sum(x.untyped_storage().nbytes() for x in tensors))
    monkeypatch.setattr(Batch, "step", watched)
    groups = sample(policy, [[5] * length for length in (3, 9, 4, 7)], 2, ("plan",), cfg)
    y = sampling(lengths_of(groups), 6, cfg.tokens_at_once)
    planned = plan.sampling_moments(shape_for(policy), y, 1, 4, False)[0]["KV cache"]
    assert planned == max(seen) and 0.7 * planned < max(held) <= planned


def test_weights_and_adamw_are_16_bytes_less_gradients_over_the_ranks():
    p = paper(8)
    held = plan.held(p.shapes["solver"], p.k)
    assert sum(held.values()) == pytest.approx(12 * p.shapes["solver"].P / 8)


def test_a_token_of_qwen3_8b_takes_147456_bytes_of_cache():
    """36 layers x 8 heads x 128 x key and value x 2 bytes."""
    shape = shape_of(plan.published("Qwen3-8B"), "")
    y = sampling(((10, (2,), (0,)),), 1, 1000)
    assert plan.sampling_moments(shape, y, 8, 2, False)[0]["KV cache"] == 147456 * (11 + spare(11))       # the last token is never fed


# ---------------------------------------------------------------- the plan

def test_more_gpus_hold_less_each_and_take_less_time():
    small, large = (plan.plan(paper(gpus, scoring="alone")) for gpus in (8, 16))
    for name in ("influence", "update_solver"):
        assert large[name].peak < small[name].peak and large[name].seconds < small[name].seconds
    assert large["influence"].flops == pytest.approx(small["influence"].flops, rel=0.03)    # the same work but for padding


def test_scoring_together_holds_less_and_is_what_auto_means_for_8b():
    """It is not faster on more GPUs: 16 ranks cannot divide 8 answers, and two nodes are slow to gather from."""
    alone, together, auto = (plan.plan(paper(8, scoring=scoring))["influence"] for scoring in ("alone", "together", "auto"))
    assert together.peak < alone.peak / 2 and auto == together
    assert plan.plan(paper(16))["influence"].peak < together.peak


@pytest.mark.parametrize("stage", ["answer", "update_solver"])
def test_what_is_said_to_help_does_help(stage):
    """Follow the advice, plan again: it fits."""
    p = paper(8, rows_at_once=64, grad_checkpoint=stage == "answer")
    line = plan.remedies(p, [stage])[0]
    assert "any of" in line
    flag, value = re.search(r"--(rows_at_once|grad_checkpoint) ?(\d*)", line).groups()
    changed = replace(p, cfg=replace(p.cfg, **{flag: int(value) if value else True}))
    assert plan.STAGES[stage](p).peak > plan.room(p) >= plan.STAGES[stage](changed).peak


def test_rows_at_once_is_what_the_cache_grows_with():
    cache = lambda rows: plan.plan(paper(8, rows_at_once=rows))["answer"].buffers["KV cache"]
    assert 1.5 < cache(32) / cache(16) < 2.5


def test_the_command_prints_every_stage_and_whether_it_fits(capsys, tmp_path):
    model = fakes.make_model()
    model.save_pretrained(tmp_path / "model")
    for name, content in [("docs.json", [{"doc_id": "1", "content": "x"}]), ("dev.json", [{"question_text": "x", "ground_truth": "1"}])]:
        (tmp_path / name).write_text(json.dumps(content))
    flags = ["--model", str(tmp_path / "model"), "--documents", str(tmp_path / "docs.json"), "--dev", str(tmp_path / "dev.json")]
    plan.main(["--gpus", "2", "--gpu_gb", "100", *flags])
    out = capsys.readouterr().out
    words = ("dev", "write", "answer", "influence", "upd_generator", "upd_solver", "checkpoint", "KV cache", "AdamW m, v", "fits: ")
    assert all(word in out for word in words)
    plan.main(["--gpus", "2", "--gpu_gb", "0.002", *flags])
    assert "does not fit" in capsys.readouterr().out


# ---------------------------------------------------------------- what a run does not do is not planned

def test_only_stages_that_happen_are_planned():
    shown = lambda **changes: {name for name, stage in plan.plan(paper(8, **changes)).items() if stage.buffers}
    everything = {"dev", "write", "answer", "influence", "update_generator", "update_solver", "checkpoint"}
    assert shown() == everything
    assert shown(reward="spice") == everything - {"influence"}
    assert shown(reward="fixed") == everything - {"influence", "update_generator"}
    assert shown(reward="fixed", train_on="dev") == everything - {"influence", "update_generator", "write"}


def test_rlvr_problems_are_answered_and_learned_from_but_not_scored():
    base, more = (plan.plan(paper(8, rlvr_per_step=n)) for n in (0, 256))
    assert more["answer"].tokens > base["answer"].tokens and more["update_solver"].tokens > base["update_solver"].tokens
    assert more["influence"].tokens == pytest.approx(base["influence"].tokens, rel=0.02)


def test_known_lengths_are_planned_with_as_they_are():
    known = ((10, (3, 4), (0, 1)), (20, (5, 6), (0, 0)))
    rollouts = plan.Rollouts(2, 2, 2, (15, 5), (4.5, 1), groups=known)
    assert replace(paper(1), rollouts={"dev": rollouts}).groups("dev") == known
