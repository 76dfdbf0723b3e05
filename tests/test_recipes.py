"""The commands of docs/recipes.md are commands of this project."""
import re
import shlex

import pytest

import config
from config import ROOT

COMMANDS = re.findall(r"`torchrun --nproc_per_node 8 train\.py ([^`]*)`", (ROOT / "docs/recipes.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("flags", COMMANDS)
def test_a_recipe_is_a_paper_preset_with_what_it_names_changed(flags, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    cfg = config.parse(shlex.split(flags))
    assert cfg.preset in ("paper-4b", "paper-8b") and cfg.docs_per_step == 128
    changed = {name for name, setting in config.SETTINGS.items() if getattr(cfg, name) != getattr(config.parse(["--model", cfg.model]), name)}
    given = set(re.findall(r"--(\w+)", flags)) - {"model"}
    assert changed - {"run"} <= given | ({"reward", "invalid_score"} if "--train_on" in flags or "--reward" in flags else set())
    assert given <= changed


def test_there_are_as_many_as_the_authors_studies():
    assert len(COMMANDS) >= 16
