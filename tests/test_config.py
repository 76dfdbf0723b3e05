"""The config: presets hold the paper's numbers, every wrong value is one clear line, and what is saved comes back."""
import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

import config
import dugrpo
from config import CHOICES, PRESETS, SETTINGS, Config, describe, parse
from data import InputError

ROOT = Path(config.__file__).resolve().parent


def small(tmp_path, *more):
    """Flags of a run with a model folder of one's own."""
    return ["--model", str(tmp_path), "--documents", "notes", "--dev", "dev.json", *more]


def message(*flags):
    """The one line that a bad command line answers with."""
    with pytest.raises(InputError) as caught:
        parse(flags)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------- presets

def test_no_flags_is_the_toy_world_wherever_the_command_is_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = parse([])
    assert (cfg.preset, cfg.docs_per_step, cfg.questions_per_doc, cfg.answers_per_question) == ("toy", 12, 8, 8)
    assert Path(cfg.model) == ROOT / "toy/anchor" and Path(cfg.documents) == ROOT / "toy/documents.json"
    assert cfg.run == "runs/toy-influence-seed0"


@pytest.mark.parametrize("name, hub_id, preset, generator_lr", [
    ("Qwen3-4B-Base", "Qwen/Qwen3-4B-Base", "paper-4b", 6e-6),
    ("Qwen3-8B-Base", "Qwen/Qwen3-8B-Base", "paper-8b", 4e-6),
    ("Qwen/Qwen3-8B-Base", "Qwen/Qwen3-8B-Base", "paper-8b", 4e-6),
    ("OLMo-3-7B-Instruct-SFT", "allenai/Olmo-3-7B-Instruct-SFT", "paper-8b", 4e-6)])
def test_a_short_name_alone_selects_the_papers_recipe(name, hub_id, preset, generator_lr):
    cfg = parse(["--model", name])
    assert (cfg.model, cfg.preset, cfg.generator_lr, cfg.solver_lr) == (hub_id, preset, generator_lr, 2e-6)
    assert cfg.documents == "hf://datasets/Siyuc/infuser_train/documents.json"
    assert cfg.dev == "hf://datasets/Siyuc/infuser_train/curriculum_pool/supergpqa_science_800.json"
    assert (cfg.docs_per_step, cfg.questions_per_doc, cfg.answers_per_question, cfg.iterations) == (128, 8, 8, 100)
    assert (cfg.max_prompt_tokens, cfg.max_response_tokens, cfg.minibatch_rows) == (4096, 8192, 256)
    assert cfg.drafts_per_step == 1024 and cfg.answers_per_step == 8192


@pytest.mark.parametrize("preset", ["paper-4b", "paper-8b"])
def test_the_paper_presets_agree_with_the_papers_column_of_the_table(preset):
    cfg = parse(["--preset", preset])
    for name, setting in SETTINGS.items():
        if isinstance(setting.metadata["paper"], (int, float)):
            assert getattr(cfg, name) == setting.metadata["paper"], name


def test_every_preset_only_sets_fields_that_exist():
    assert set(PRESETS) == set(CHOICES["preset"])
    assert all(name in SETTINGS for preset in PRESETS.values() for name in preset)


def test_a_folder_picks_preset_small_and_needs_data(tmp_path):
    assert parse(small(tmp_path)).preset == "small"
    assert parse(small(tmp_path, "--preset", "paper-8b")).solver_lr == 2e-6
    assert message("--model", str(tmp_path)).startswith("missing --documents FILE_OR_FOLDER and --dev FILE")
    assert message("--model", str(tmp_path), "--documents", "notes").startswith("missing --dev FILE")
    assert "--model PATH" in message("--preset", "small")


def test_paths_of_the_user_become_absolute_but_hub_files_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = parse(["--model", ".", "--documents", "notes", "--dev", "hf://datasets/a/b/dev.json"])
    assert (cfg.model, cfg.documents, cfg.dev) == (str(tmp_path), str(tmp_path / "notes"), "hf://datasets/a/b/dev.json")


def test_a_flag_wins_over_its_preset_and_is_recorded():
    cfg = parse(["--model", "Qwen3-8B-Base", "--generator-lr=1e-6", "--docs_per_step", "2", "--grad_checkpoint", "false"])
    assert (cfg.generator_lr, cfg.docs_per_step, cfg.grad_checkpoint) == (1e-6, 2, False)
    assert set(cfg.given) == {"model", "generator_lr", "docs_per_step", "grad_checkpoint"}


def test_the_other_generator_follows_model_unless_named():
    assert parse([]).generator_anchor == parse([]).model
    assert parse(["--generator_model", "Qwen3-4B-Base"]).generator_anchor == "Qwen/Qwen3-4B-Base"


# ---------------------------------------------------------------- the command line

@pytest.mark.parametrize("flags, name, value", [
    (["--docs-per-step", "3"], "docs_per_step", 3), (["--seed=7"], "seed", 7), (["--invalid_score", "-0.5"], "invalid_score", -0.5),
    (["--grad_checkpoint"], "grad_checkpoint", True), (["--grad-checkpoint", "True"], "grad_checkpoint", True),
    (["--test", "none"], "test", None), (["--solver_lr", "0"], "solver_lr", 0.0), (["--device", "cpu"], "device", "cpu")])
def test_flags_arrive_in_the_type_of_their_field(flags, name, value):
    got = getattr(parse(flags), name)
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize("flags, parts", [
    (["--docs_per_stp", "3"], ["docs_per_stp", "did you mean docs_per_step or rlvr_per_step?"]),
    (["--docs-per-stp=3"], ["docs_per_step"]),
    (["--lr", "1e-3"], ["solver_lr or generator_lr"]),
    (["--zzzqq", "1"], ["zzzqq", "--help"]),
    (["--doc", "x"], ["documents"]),                    # no silent abbreviations
    (["runs/a"], ["runs/a", "--field value"]),
    (["--seed"], ["seed", "expected one argument"]),
    (["--seed", "1.5"], ["seed = '1.5'", "whole number"]),
    (["--seed", "-1"], ["seed = -1", "0 or more"]),
    (["--solver_lr", "fast"], ["solver_lr = 'fast'", "a number"]),
    (["--solver_lr", "nan"], ["solver_lr = 'nan'", "a number"]),
    (["--grad_checkpoint", "maybe"], ["grad_checkpoint = 'maybe'", "true or false"]),
    (["--run", ""], ["run = ''", "text"]),
    (["--docs_per_step", "0"], ["docs_per_step = 0", "at least 1"]),
    (["--answers_per_question", "1"], ["answers_per_question = 1", "at least 2"]),
    (["--questions_per_doc", "1"], ["questions_per_doc = 1", "at least 2"]),
    (["--minibatch_rows", "100"], ["minibatch_rows = 100", "multiple of answers_per_question = 8"]),
    (["--top_p", "0"], ["top_p = 0.0", "above 0 and up to 1"]),
    (["--top_p", "1.1"], ["top_p = 1.1"]),
    (["--temperature", "0"], ["temperature = 0.0", "above 0"]),
    (["--dev_ema", "1"], ["dev_ema = 1.0", "below 1"]),
    (["--clip", "1"], ["clip = 1.0", "between 0 and 1"]),
    (["--min_choices", "9"], ["min_choices = 9", "max_choices = 8"]),
    (["--max_choices", "27"], ["max_choices = 27", "26"]),
    (["--max_chunk_tokens", "512"], ["max_chunk_tokens = 512", "max_prompt_tokens = 512"]),
    (["--reward", "spicy"], ["reward = 'spicy'", "influence"]),
    (["--similarity", "cos"], ["similarity = 'cos'", "preconditioned_cosine"]),
    (["--advantage", "grpo"], ["advantage = 'grpo'", "dugrpo, group_std, batch_std, none"]),
    (["--sampler", "vlm"], ["sampler = 'vlm'", "plain, vllm"]),
    (["--dtype", "fp16"], ["dtype = 'fp16'", "bf16"]),
    (["--device", "gpu"], ["device = 'gpu'", "cuda"]),
    (["--preset", "huge"], ["preset = 'huge'", "paper-8b"]),
    (["--model", "Qwen3-8B-Bse"], ["model = 'Qwen3-8B-Bse'", "Qwen3-8B-Base"]),
    (["--model", "./nowhere"], ["model = './nowhere'", "a local folder"]),
    (["--plan", "--gpus", "0"], ["gpus = 0", "at least 1"])])
def test_a_wrong_flag_is_one_line_that_says_what_was_expected(flags, parts):
    line = message(*flags)
    assert all(part in line for part in parts), line


def test_a_fixed_generator_may_write_one_question_per_document():
    assert parse(["--reward", "fixed", "--questions_per_doc", "1"]).questions_per_doc == 1


def test_help_lists_every_field_with_its_meaning(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert stopped.value.code == 0
    assert all(f"--{name} " in text for name in SETTINGS)
    assert "[D] (default 12; paper 128)" in text


def test_every_field_has_a_meaning_and_every_choice_is_a_field():
    assert all(setting.metadata["meaning"] for setting in SETTINGS.values())
    assert all(name in SETTINGS for name in CHOICES)
    assert config.ADVANTAGES == dugrpo.MODES


def test_config_alone_does_not_wait_for_torch():
    loaded = "import sys, config; config.parse([]); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True, check=True).stdout == "False\n"


# ---------------------------------------------------------------- saving and resuming

def saved(tmp_path, *flags):
    folder = tmp_path / "run"
    folder.mkdir()
    cfg = parse(["--run", folder, *flags])
    cfg.save(folder / "config.json")
    return cfg, folder


def test_what_is_saved_comes_back(tmp_path):
    cfg, folder = saved(tmp_path, "--docs_per_step", "3", "--test", "none", "--solver_lr", "3e-5")
    assert Config.load(folder / "config.json") == cfg
    assert [p.name for p in folder.iterdir()] == ["config.json"]
    assert set(json.loads((folder / "config.json").read_text())) == set(SETTINGS)


@pytest.mark.parametrize("change, part", [
    (dict(docs_per_stp=3), "docs_per_step"), (dict(clip="x"), "clip = 'x'"), (dict(seed=1.5), "seed = 1.5"),
    (dict(seed=True), "seed = True"), (dict(minibatch_rows=100), "minibatch_rows = 100"), (dict(run=3), "run = 3: expected text")])
def test_a_bad_config_file_is_named_with_what_is_wrong(tmp_path, change, part):
    _, folder = saved(tmp_path)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError) as caught:
        Config.load(path)
    assert part in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("text, part", [('{"seed": 1}', "no value for model"), ('{"seed": ', "expected the JSON"), ("[]", "JSON object")])
def test_a_config_file_that_is_cut_short_or_incomplete_is_refused(tmp_path, text, part):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(InputError, match=part):
        Config.load(path)


def test_resume_takes_the_runs_own_config_and_few_changes(tmp_path):
    cfg, folder = saved(tmp_path, "--docs_per_step", "3", "--iterations", "4")
    again = parse(["--resume", folder, "--iterations", "9", "--threads", "1"])
    assert again == replace(cfg, iterations=9, threads=1, resume=str(folder))
    assert set(again.given) == {"resume", "iterations", "threads"}


def test_a_run_that_was_moved_resumes_where_it_is_now(tmp_path):
    _, folder = saved(tmp_path)
    moved = folder.rename(tmp_path / "elsewhere")
    assert parse(["--resume", moved]).run == str(moved)


def test_resume_names_what_it_cannot_change(tmp_path):
    _, folder = saved(tmp_path)
    assert message("--resume", folder, "--seed", "3", "--solver_lr", "1").startswith("seed, solver_lr cannot be set beside --resume")
    assert "no config.json" in message("--resume", tmp_path)
    assert "iterations = 0" in message("--resume", folder, "--iterations", "0")


def test_a_config_never_changes():
    with pytest.raises(FrozenInstanceError):
        parse([]).seed = 1


# ---------------------------------------------------------------- what is printed

def test_describe_lists_what_differs_from_the_preset():
    lines = describe(parse(["--docs_per_step", "4", "--solver_lr", "2e-5"])).splitlines()
    assert lines[0].startswith("preset toy") and "4 documents x 8 questions x 8 answers" in lines[1]
    assert [line.split()[0] for line in lines[2:]] == ["docs_per_step", "solver_lr"]
    assert "preset 12, paper 128" in lines[2]
    assert str(parse([])) == describe(parse([])) and len(describe(parse([])).splitlines()) == 2
