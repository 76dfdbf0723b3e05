"""Memory and disk of a run: one formula, held against the plan, a checkpoint and what is free."""
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoConfig

import fakes
from config import Config
from engine.presets import PAPER_8B, SMALL
from data import InputError
from engine import checkpoint, flags, room
from tools import plan
from tools.setting import Assumed, Machine, Setting, rollouts_of

SMOL = AutoConfig.for_model(
    "llama", vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
    num_attention_heads=9, num_key_value_heads=3, head_dim=64, tie_word_embeddings=True)


def toy():
    cfg = flags.parse(["--device", "cpu"])
    return cfg, room.read_shape(cfg.model)


def small():
    cfg = Config(**SMALL, preset="small", model="x", documents="d", dev="e", device="cpu", run="r")
    return cfg, room.shape_of(SMOL, "smol")


def test_a_model_of_smollm2s_shape_has_its_134_million_parameters():
    assert small()[1].P == 134_515_008


@pytest.mark.parametrize("run", [toy, small])
def test_memory_is_within_a_quarter_of_the_plans(run):
    cfg, shape = run()
    shapes = {"solver": shape, "generator": shape}
    p = Setting(cfg, shapes, rollouts_of(cfg, Assumed()), Machine(gpus=1), cuda=False)
    planned = max(stage.peak for stage in plan.plan(p).values())
    # without BASE, which would hide a mistake in a small model
    assert 0.75 < (room.needs(shape.P, cfg, shape)[0] - room.BASE) / planned < 1.25


def test_a_measured_run_of_the_preset_small_stays_below():
    """SmolLM2-135M, one process: 7.2 GB of memory; models and two checkpoints are 7.1 GiB."""
    cfg, shape = small()
    assert 7.2e9 < room.needs(shape.P, cfg, shape)[0] < 1.6 * 7.2e9
    disk = room.needs(shape.P, replace(cfg, iterations=2), shape)[1]
    assert 7.0 * 2 ** 30 < disk < 7.1 * 2 ** 30


def test_recomputed_activations_and_fewer_tokens_take_less():
    cfg, shape = small()
    full = room.needs(shape.P, cfg, shape)[0]
    assert room.needs(shape.P, replace(cfg, grad_checkpoint=True), shape)[0] < 0.6 * full
    assert room.needs(shape.P, replace(cfg, tokens_at_once=1024), shape)[0] < 0.6 * full


def test_a_larger_generator_takes_12_bytes_a_parameter_more():
    cfg, shape = small()
    same, larger = (room.needs(shape.P, cfg, shape, shape.P + more)[0] for more in (0, 10 ** 6))
    assert larger - same == 12 * 10 ** 6


@pytest.mark.parametrize("changes, most, left", [
    # one checkpoint, and the models
    (dict(iterations=1), 16, 16),
    (dict(iterations=2), 28, 16),
    # three while one is written
    (dict(iterations=20), 36, 16),
    (dict(iterations=20, checkpoint_every=20), 16, 16),
    # three kept pairs beside them
    (dict(iterations=20, save_every=10), 48, 28),
    # half as large in bf16
    (dict(iterations=20, save_every=10, dtype="bf16"), 42, 22)])
def test_disk_counts_the_checkpoints_there_are_at_one_time(changes, most, left):
    cfg = replace(small()[0], **changes)
    assert room.on_disk(1, cfg) == (most, left)


def test_a_checkpoint_is_12_bytes_a_parameter(make_policy, tmp_path):
    policy, _ = make_policy()
    for p in policy.params:
        p.grad = p.detach().clone()
    policy.optimizer.step()
    checkpoint.save(str(tmp_path), {"solver": policy, "generator": policy}, {"iteration": 1})
    files = [path.stat().st_size for path in (tmp_path / "checkpoint").glob("*/*.safetensors")]
    P = sum(p.numel() for p in policy.params)
    # each tensor has a name, and something is written beside it
    assert 12 * 2 * P <= sum(files) < 12 * 2 * P + 400 * 2 * 3 * len(policy.params)


# ---------------------------------------------------------------- is there so much

@pytest.fixture
def run(tmp_path):
    fakes.make_model().save_pretrained(tmp_path / "model")
    model, folder = str(tmp_path / "model"), str(tmp_path / "a" / "run")
    return Config(model=model, documents="d", dev="e", device="cpu", run=folder)


def test_a_run_that_fits_is_let_through(run, monkeypatch):
    room.refuse(run)
    # where the system does not say what is free
    monkeypatch.setattr(room, "free_ram", lambda: None)
    room.refuse(run)


def test_too_little_memory_is_one_line_with_both_numbers_and_what_would_fit(run, monkeypatch):
    cfg = replace(run, tokens_at_once=10 ** 6)
    shape = room.read_shape(cfg.model)
    need = room.needs(shape.P, cfg, shape)[0]
    monkeypatch.setattr(room, "free_ram", lambda: 0.5 * need)
    with pytest.raises(InputError) as error:
        room.refuse(cfg)
    line = str(error.value)
    assert "\n" not in line and room.gb(need) in line and room.gb(0.5 * need) in line
    assert "--tokens_at_once 500000 --rows_at_once 128 may fit" in line
    # the advice, followed
    room.refuse(replace(cfg, tokens_at_once=500_000, rows_at_once=128))


def test_where_no_setting_helps_the_advice_is_another_model(run, monkeypatch):
    monkeypatch.setattr(room, "free_ram", lambda: 1e6)
    with pytest.raises(InputError, match="1 MB are free; give a smaller --model"):
        room.refuse(run)


def test_parameters_may_be_given(run, monkeypatch):
    monkeypatch.setattr(room, "free_ram", lambda: 100e9)
    with pytest.raises(InputError, match="give a smaller --model"):
        room.refuse(run, P=32 * 10 ** 9)


def test_too_little_disk_is_one_line_with_both_numbers_and_what_to_do(run, monkeypatch):
    P = room.read_shape(run.model).P
    monkeypatch.setattr(room, "free_disk", lambda folder: 60 * P)
    with pytest.raises(InputError) as error:
        room.refuse(run)
    line = str(error.value)
    assert "\n" not in line and room.gb(72 * P) in line and "--output_dir on another disk" in line
    assert f"--checkpoint_every {run.iterations}" in line
    room.refuse(replace(run, checkpoint_every=run.iterations))
    assert "--save_every" not in line


def test_kept_models_that_do_not_fit_are_named(run, monkeypatch):
    """A pair every iteration: 8 P each, beside 72 P of checkpoints."""
    P = room.read_shape(run.model).P
    monkeypatch.setattr(room, "free_disk", lambda folder: 80 * P)
    with pytest.raises(InputError, match="on another disk, or --save_every 0$"):
        room.refuse(replace(run, save_every=1))
    room.refuse(run)


def test_a_run_that_goes_on_has_the_room_of_its_own_checkpoints(tmp_path):
    before = room.free_disk(str(tmp_path / "not" / "there"))
    (tmp_path / "run" / "checkpoint" / "solver").mkdir(parents=True)
    (tmp_path / "run" / "checkpoint" / "solver" / "x").write_bytes(b"0" * 10 ** 6)
    (tmp_path / "run" / "metrics.jsonl").write_bytes(b"0")
    # other programs write, too
    assert abs(room.free_disk(str(tmp_path / "run")) - before) < 50e6


def test_a_model_that_cannot_be_read_is_left_to_whoever_loads_it(run):
    gone = replace(run, model="/nowhere/at-all")
    room.refuse(gone)
    assert room.takes(gone) is None


def test_what_a_run_takes_is_said_in_one_line(run):
    P = 10 ** 9
    line = room.takes(run, P)
    assert f"on disk up to {room.gb(72 * P)}, of which {room.gb(32 * P)} stay" in line


def test_free_ram_is_what_the_system_says(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda path: "MemTotal: 9 kB\nMemAvailable:   7 kB\n")
    assert room.free_ram() == 7 * 1024
    monkeypatch.setattr(Path, "read_text", lambda path: "MemTotal: 9 kB\n")
    assert room.free_ram() is None


# ---------------------------------------------------------------- on GPUs, of which none is here

QWEN3_8B = AutoConfig.for_model(
    "qwen3", vocab_size=151936, hidden_size=4096, intermediate_size=12288, num_hidden_layers=36,
    num_attention_heads=32, num_key_value_heads=8, head_dim=128, tie_word_embeddings=False)


def paper():
    cfg = Config(**PAPER_8B, preset="paper-8b", run="r")
    shape = room.shape_of(QWEN3_8B, "8b")
    return shape.P, cfg, shape, None


def test_the_papers_recipe_is_let_through_on_eight_gpus_of_80_gb_and_a_terabyte():
    room.refuse_gpu(*paper(), 8, 80e9, 1e12, 8)
    # two machines of eight share the slices that wait
    room.refuse_gpu(*paper(), 16, 80e9, 120e9, 8)


def test_too_small_a_gpu_is_one_line_with_both_numbers_and_what_would_fit():
    P, cfg, shape, _ = paper()
    with pytest.raises(InputError) as error:
        room.refuse_gpu(P, cfg, shape, None, 1, 80e9, None, 1)
    line = str(error.value)
    assert "\n" not in line and "on each of 1 GPUs, which have 80.0 GB" in line
    assert line.endswith("more GPUs, or a smaller --model")
    without = replace(cfg, grad_checkpoint=False)
    with pytest.raises(InputError, match="--tokens_at_once 16384 --grad_checkpoint true may fit"):
        room.refuse_gpu(P, without, shape, None, 8, 80e9, None, 8)


def test_a_role_at_rest_that_finds_no_room_is_one_line():
    with pytest.raises(InputError, match="the role that waits needs up to 196.6 GB of this "
                                         "machine's memory, 64.0 GB are free; --offload_idle"):
        room.refuse_gpu(*paper(), 8, 80e9, 64e9, 8)
    P, cfg, shape, _ = paper()
    room.refuse_gpu(P, replace(cfg, offload_idle=False), shape, None, 8, 80e9, 64e9, 8)


def test_what_is_counted_on_a_gpu_by_hand():
    """Weights and moments of one role over eight, and the whole copy that is sampled from."""
    P, cfg, shape, _ = paper()
    least, waiting = room.on_a_gpu(P, replace(cfg, tokens_at_once=1, logp_chunk=1), shape, P, 8)
    assert least == pytest.approx(12 * P / 8 + 2 * P, rel=1e-3) and waiting == 24 * P
    whole, _ = room.on_a_gpu(P, replace(cfg, shard="false", dtype="fp32", tokens_at_once=1), shape,
                             P, 8)
    assert whole == pytest.approx(16 * P, rel=1e-3)
