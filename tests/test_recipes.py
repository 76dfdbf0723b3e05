"""The commands of docs/recipes.md are commands of this project, and were run on the embedded world.
"""
import json
import shlex

import pytest

import config
from config import ROOT
from data import InputError
from engine import flags, presets
from tools import recipes

TEXT = recipes.PAGE.read_text(encoding="utf-8")
FOUND = recipes.recipes(TEXT)
PUBLISHED = TEXT.split(recipes.MARK)[1].strip().splitlines()[2:]
each = pytest.mark.parametrize("name", FOUND)

# What the authors' studies change, beside the anchor, its presets and two more seeds.
STUDIES = [
    *({"preset": "paper-4b", "seed": seed} for seed in (42, 123, 456)),
    *({"preset": "paper-8b", "seed": seed} for seed in (42, 123, 456)),
    {"model": "allenai/Olmo-3-7B-Instruct-SFT"},
    {"reward": "fixed", "preset": "paper-4b"}, {"reward": "fixed", "preset": "paper-8b"},
    {"generator_model": "Qwen/Qwen3-32B", "reward": "fixed"}, {"train_on": "file"},
    {"train_on": "dev"}, {"seed_questions": 4, "generator_lr": 2e-6},
    {"similarity": "cosine"}, {"advantage": "group_std"}, {"advantage": "batch_std"},
    {"unboxed_penalty": 0.5, "documents": presets.HUB
     + "documents_with_putnam_aime_history_math10000.json"},
    {"rlvr_chunks": 10000}, {"rlvr_per_step": 256}, {"dev_refresh": 10}, {"gate_share": 0.2},
    {"solver_keep": "top", "keep_per_doc": 4}, {"solver_keep": "top", "keep_share": 0.25},
    {"reward": "influence + 0.5 spice:group_std"}, {"question_type": "free_form"}]


@each
def test_a_recipe_is_a_paper_preset_with_what_it_names_changed(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = FOUND[name]
    cfg = flags.parse(words)
    assert cfg.preset in ("paper-4b", "paper-8b") and cfg.docs_per_step == 128
    assert (cfg.valid_every, cfg.save_every, cfg.prompts) == (5, 5, "hard")

    plain = flags.parse(["--model", cfg.model])
    changed = {name for name in config.SETTINGS if getattr(cfg, name) != getattr(plain, name)}
    given = {word[2:] for word in words if word.startswith("--")} - {"model"}

    brought_along = set()
    if {"train_on", "reward"} & given:
        brought_along = {"reward", "invalid_score"}
    assert changed - {"run"} <= given | brought_along
    assert given <= changed


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES, ids=str)
def test_each_study_of_the_authors_is_a_recipe(study):
    cfgs = [flags.parse(words) for words in FOUND.values()]
    assert any(all(getattr(cfg, name) == value for name, value in study.items()) for cfg in cfgs)


def test_no_line_of_the_page_is_lost():
    """Whoever writes a command in another form would have a recipe that nobody runs."""
    assert len(FOUND) == TEXT.count("`torchrun ") >= 44


# ---------------------------------------------------------------- in small

@each
def test_in_small_the_same_fields_are_changed_and_they_are_a_config(name, tmp_path):
    small = recipes.in_small(FOUND[name], tmp_path, tmp_path)
    assert small.keys() == recipes.changed(FOUND[name]).keys()
    cfg = flags.from_flags(recipes.SMALL | small)
    assert cfg.preset == "toy-free" and cfg.iterations == recipes.ITERATIONS
    for field, value in small.items():
        assert getattr(cfg, field) == value


def test_a_rate_keeps_its_ratio_and_a_count_its_share(tmp_path):
    def small(name):
        return recipes.in_small(FOUND[name], tmp_path, tmp_path)

    # 2e-6 of 4e-6; 10,000 of 12,260 documents; 256 problems to 1,024 drafts
    rate = presets.PAPER_8B["generator_lr"]
    assert small("generator rate 2e-6, 8B")["generator_lr"] == 1.5e-4 * 2e-6 / rate
    assert small("RLVR with problems of your own")["rlvr_chunks"] == round(600 * 10000 / 12260)
    assert small("RLVR, direct path")["rlvr_per_step"] == 12


def test_every_file_of_a_recipe_is_written(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "questions.jsonl").write_text("{}\n")
    recipes.write_files(tmp_path / "files", run)
    written = {path.name for path in (tmp_path / "files").iterdir()}
    assert written == {*recipes.FILES.values(), "valid.json"}
    # half of the questions that are neither dev nor test validate, the others refresh the dev set
    pool, valid = (json.loads((tmp_path / f"files/{name}.json").read_text())
                   for name in ("pool", "valid"))
    assert not {x["question_text"] for x in pool[:10]} & {x["question_text"] for x in valid[:10]}


# ---------------------------------------------------------------- what was run

def test_every_recipe_was_run_with_these_flags_and_was_ok(tmp_path):
    rows = {}
    for line in PUBLISHED:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows[cells[0]] = cells
    assert list(rows) == list(FOUND)
    for name, words in FOUND.items():
        said = recipes.told(recipes.in_small(words, tmp_path, tmp_path))
        assert rows[name][1] == said and rows[name][-1] == "ok", name
        paid = "fixed" not in said and "train_on" not in said
        assert rows[name][-2] == ("both" if paid else "solver"), name


@pytest.mark.parametrize("still, verdict", [("solver", "LOOK"), ("generator", "LOOK"), ("", "ok")])
def test_a_role_that_does_not_move_though_it_should_is_seen(tmp_path, monkeypatch, still, verdict):
    monkeypatch.setattr(recipes, "moved", lambda run, role, anchor: role != still)
    flags.from_flags(recipes.SMALL).save(tmp_path / "config.json")
    names = ("valid_share", "mixed_share", "generator_grad_norm", "solver_grad_norm",
             "valid_accuracy_anchor", "valid_accuracy")
    cells, ok = recipes.row_of("x", {}, tmp_path, [dict.fromkeys(names, 0.5)])
    assert cells[-1] == verdict and ok == (verdict == "ok")


def test_a_fixed_generator_that_moves_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "moved", lambda *_: True)
    flags.from_flags(recipes.SMALL | {"reward": "fixed"}).save(tmp_path / "config.json")
    names = ("valid_share", "mixed_share", "generator_grad_norm", "solver_grad_norm",
             "valid_accuracy_anchor", "valid_accuracy")
    assert not recipes.row_of("x", {}, tmp_path, [dict.fromkeys(names)])[1]


@pytest.mark.parametrize("words, complaint", [
    (["--only", "GPT"], "no recipe of recipes.md has it in its name"),
    (["--only", "RLVR", "--write"], "expected no --only beside it")])
def test_what_cannot_be_run_is_one_line(tmp_path, words, complaint):
    with pytest.raises(InputError, match=complaint):
        recipes.main(["--out", str(tmp_path / "out"), *words])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_script_runs_a_recipe_and_does_not_run_it_twice(tmp_path, capsys):
    words = ["--out", str(tmp_path), "--only", "32B, live",
             "--generator", str(ROOT / "toy/hard/anchor")]
    assert recipes.main(words) == 0
    table = capsys.readouterr().out
    assert "| fixed 32B, live | `--generator_model BETTER --reward fixed` |" in table
    log = tmp_path / "fixed-32b-live.log"
    before = log.stat().st_mtime_ns
    assert recipes.main(words) == 0 and capsys.readouterr().out == table
    assert log.stat().st_mtime_ns == before


def test_the_words_behind_a_command_are_those_of_a_shell():
    words = FOUND["a sum of rewards"]
    assert words == shlex.split('--model Qwen3-8B-Base --reward "influence + 0.5 spice:group_std"')
