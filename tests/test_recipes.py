"""The commands of docs/recipes.md are commands of this project."""
import re
import shlex

import pytest

import config
from config import ROOT
from engine import flags

RECIPES = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"`torchrun --nproc_per_node 8 train\.py ([^`]*)`", RECIPES)


@pytest.mark.parametrize("words", COMMANDS)
def test_a_recipe_is_a_paper_preset_with_what_it_names_changed(words, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    cfg = flags.parse(shlex.split(words))
    assert cfg.preset in ("paper-4b", "paper-8b") and cfg.docs_per_step == 128

    plain = flags.parse(["--model", cfg.model])
    changed = {name for name in config.SETTINGS if getattr(cfg, name) != getattr(plain, name)}
    given = set(re.findall(r"--(\w+)", words)) - {"model"}

    brought_along = set()
    if "--train_on" in words or "--reward" in words:
        brought_along = {"reward", "invalid_score"}
    assert changed - {"run"} <= given | brought_along
    assert given <= changed


def test_there_are_as_many_as_the_authors_studies():
    assert len(COMMANDS) >= 16
