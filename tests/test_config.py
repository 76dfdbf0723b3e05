"""The config: presets hold the paper's numbers, sections hold every field, nothing ever changes."""
import re
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

import config
import dugrpo
import rewards
from config import CHOICES, SECTIONS, SETTINGS
from engine.presets import PRESETS
from engine import flags
from engine.flags import parse

ROOT = Path(config.__file__).resolve().parent


# ---------------------------------------------------------------- presets

def test_no_flags_is_the_toy_world_wherever_the_command_is_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = parse([])
    sizes = (cfg.docs_per_step, cfg.questions_per_doc, cfg.answers_per_question)
    assert (cfg.preset, *sizes) == ("toy", 12, 8, 8)
    assert Path(cfg.model) == ROOT / "toy/anchor"
    assert Path(cfg.documents) == ROOT / "toy/documents.json"
    assert cfg.run == "runs/toy-influence-seed0"


@pytest.mark.parametrize("name, hub_id, preset, generator_lr", [
    ("Qwen3-4B-Base", "Qwen/Qwen3-4B-Base", "paper-4b", 6e-6),
    ("Qwen3-8B-Base", "Qwen/Qwen3-8B-Base", "paper-8b", 4e-6),
    ("Qwen/Qwen3-8B-Base", "Qwen/Qwen3-8B-Base", "paper-8b", 4e-6),
    ("OLMo-3-7B-Instruct-SFT", "allenai/Olmo-3-7B-Instruct-SFT", "paper-8b", 4e-6)])
def test_a_short_name_alone_selects_the_papers_recipe(name, hub_id, preset, generator_lr):
    cfg = parse(["--model", name])
    assert (cfg.model, cfg.preset) == (hub_id, preset)
    assert (cfg.generator_lr, cfg.solver_lr) == (generator_lr, 2e-6)
    hub = "hf://datasets/Siyuc/infuser_train/"
    assert cfg.documents == hub + "documents.json"
    assert cfg.dev == hub + "curriculum_pool/supergpqa_science_800.json"
    sizes = (cfg.docs_per_step, cfg.questions_per_doc, cfg.answers_per_question, cfg.iterations)
    assert sizes == (128, 8, 8, 100)
    limits = (cfg.max_prompt_tokens, cfg.max_response_tokens, cfg.minibatch_rows)
    assert limits == (4096, 8192, 256)
    assert cfg.drafts_per_step == 1024 and cfg.answers_per_step == 8192


@pytest.mark.parametrize("preset", ["paper-4b", "paper-8b"])
def test_the_paper_presets_agree_with_the_papers_column_of_the_table(preset):
    cfg = parse(["--preset", preset])
    for name, setting in SETTINGS.items():
        if isinstance(setting.metadata["paper"], (int, float)):
            assert getattr(cfg, name) == setting.metadata["paper"], name


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_the_main_recipe_with_all_studies_off(preset):
    cfg = replace(parse([]), **{"preset": preset} | PRESETS[preset])
    off = dict(
        reward="influence", advantage="dugrpo", similarity="preconditioned_cosine",
        train_on="generated", question_type="multiple_choice", seed_questions=0, rlvr=None,
        unboxed_penalty=0.0, dev_ema=0.0, dev_refresh=0, gate_share=0.0, gate_tau=None,
        solver_keep="all")
    assert {name: getattr(cfg, name) for name in off} == off


def test_every_preset_only_sets_fields_that_exist():
    assert set(PRESETS) == set(CHOICES["preset"])
    for preset in PRESETS.values():
        assert all(name in SETTINGS for name in preset)


def test_the_files_of_the_toy_presets_are_there():
    for name in ("toy", "toy-hard", "toy-free"):
        flags.files_exist(parse(["--preset", name]))
        assert (Path(PRESETS[name]["model"]) / "config.json").exists()


def test_the_truth_is_known_of_the_embedded_worlds_alone(tmp_path):
    for name in ("toy", "toy-hard", "toy-free"):
        assert parse(["--preset", name]).truth == "toy.truth"
    for name in ("paper-4b", "paper-8b"):
        assert parse(["--preset", name]).truth is None
    own = ["--model", str(tmp_path), "--documents", "notes", "--dev", "dev.json"]
    assert parse(own).truth is None
    assert parse(["--truth", "none"]).truth is None


def test_the_other_generator_follows_model_unless_named():
    assert parse([]).generator_anchor == parse([]).model
    cfg = parse(["--generator_model", "Qwen3-4B-Base"])
    assert cfg.generator_anchor == "Qwen/Qwen3-4B-Base"


# ---------------------------------------------------------------- the table

def test_every_field_has_a_meaning_and_every_choice_is_a_field():
    assert all(setting.metadata["meaning"] for setting in SETTINGS.values())
    assert all(name in SETTINGS for name in CHOICES)
    assert CHOICES["advantage"] == dugrpo.MODES == tuple(dugrpo.ADVANTAGES)
    assert CHOICES["reward"] == tuple(rewards.REWARDS)


def test_every_default_that_has_choices_is_one_of_them():
    for name, choices in CHOICES.items():
        assert SETTINGS[name].default in choices


def test_the_sections_of_help_are_those_that_the_class_is_written_in():
    """A rule with a title in the source, then the fields up to the next rule."""
    source = Path(config.__file__).read_text(encoding="utf-8")
    body = source[source.index("class Config:"):source.index("given: tuple")]
    written = {}
    for rule, title, name in re.findall(r"^    (?:(# -+ )(.+)|(\w+): )", body, re.M):
        if rule:
            names = written[title] = []
        else:
            names.append(name)
    assert written == flags.sections() and list(written) == list(SECTIONS)


def test_a_config_never_changes():
    with pytest.raises(FrozenInstanceError):
        parse([]).seed = 1


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    cfg = parse([])
    cfg.save(path)

    def full(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(config.os, "replace", full)
    with pytest.raises(OSError):
        replace(cfg, seed=1).save(path)
    assert flags.load(path) == cfg
