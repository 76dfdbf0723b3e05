"""The command line: every wrong value is one clear line, at once, and what is saved comes back."""
import doctest
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import config
from config import SETTINGS
from data import InputError
from engine import flags
from engine.flags import describe, load, parse

ROOT = Path(config.__file__).resolve().parent


def small(tmp_path, *more):
    """Flags of a run with a model folder of one's own."""
    return ["--model", str(tmp_path), "--documents", "notes", "--dev", "dev.json", *more]


def message(*words):
    """The one line that a bad command line answers with."""
    with pytest.raises(InputError) as caught:
        parse(words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_doctests():
    assert doctest.testmod(flags).failed == 0


# ---------------------------------------------------------------- models, files, presets

def test_a_folder_picks_preset_small_and_needs_data(tmp_path):
    assert parse(small(tmp_path)).preset == "small"
    assert parse(small(tmp_path, "--preset", "paper-8b")).solver_lr == 2e-6
    both = "missing --documents FILE_OR_FOLDER and --dev FILE"
    assert message("--model", str(tmp_path)).startswith(both)
    one = message("--model", str(tmp_path), "--documents", "notes")
    assert one.startswith("missing --dev FILE")
    assert "--model PATH" in message("--preset", "small")


def test_paths_of_the_user_become_absolute_but_hub_files_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = parse(["--model", ".", "--documents", "notes", "--dev", "hf://datasets/a/b/dev.json"])
    assert (cfg.model, cfg.documents) == (str(tmp_path), str(tmp_path / "notes"))
    assert cfg.dev == "hf://datasets/a/b/dev.json"


def test_a_flag_wins_over_its_preset_and_is_recorded():
    cfg = parse(["--model", "Qwen3-8B-Base", "--generator-lr=1e-6", "--docs_per_step", "2",
                 "--grad_checkpoint", "false"])
    assert (cfg.generator_lr, cfg.docs_per_step, cfg.grad_checkpoint) == (1e-6, 2, False)
    assert set(cfg.given) == {"model", "generator_lr", "docs_per_step", "grad_checkpoint"}


@pytest.mark.parametrize("name, role", [("model", "solver"), ("generator_model", "generator")])
def test_the_folder_of_a_run_is_no_model_and_the_line_says_which_folder_is(tmp_path, name, role):
    _, folder = saved(tmp_path)
    assert "has not written its" in message(f"--{name}", folder)
    (folder / role).mkdir()
    line = message(f"--{name}", folder)
    assert line == f"{name} = {str(folder)!r}: is a run; did you mean {folder}/{role}?"
    assert flags.find_model(name, f"{folder}/{role}") == f"{folder}/{role}"


def test_the_folder_of_a_model_is_one_even_if_its_config_cannot_be_read(tmp_path):
    assert flags.find_model("model", str(tmp_path)) == str(tmp_path)
    for text in ('{"model_type": "qwen3"}', "[1]", "{"):
        (tmp_path / "config.json").write_text(text)
        assert flags.find_model("model", str(tmp_path)) == str(tmp_path)


# ---------------------------------------------------------------- the command line

@pytest.mark.parametrize("words, name, value", [
    (["--docs-per-step", "3"], "docs_per_step", 3),
    (["--seed=7"], "seed", 7),
    (["--invalid_score", "-0.5"], "invalid_score", -0.5),
    (["--grad_checkpoint"], "grad_checkpoint", True),
    (["--grad-checkpoint", "True"], "grad_checkpoint", True),
    (["--test", "none"], "test", None),
    (["--solver_lr", "0"], "solver_lr", 0.0),
    (["--output_dir", "a"], "run", "a"),
    (["--output-dir=a"], "run", "a"),
    (["--run", "a"], "run", "a"),
    (["--run", "a", "--output_dir", "a"], "run", "a"),
    (["--device", "cpu"], "device", "cpu")])
def test_flags_arrive_in_the_type_of_their_field(words, name, value):
    cfg = parse(words)
    got = getattr(cfg, name)
    assert got == value and type(got) is type(value)
    assert cfg.given == (name,)


@pytest.mark.parametrize("words, parts", [
    (["--docs_per_stp", "3"], ["docs_per_stp", "did you mean docs_per_step or rlvr_per_step?"]),
    (["--docs-per-stp=3"], ["docs_per_step"]),
    (["--lr", "1e-3"], ["solver_lr or generator_lr"]),
    (["--learning_rat", "1e-3"], ["did you mean solver_lr or generator_lr?"]),
    (["--learning-rate=1e-3"], ["did you mean solver_lr or generator_lr?"]),
    (["--output", "a"], ["did you mean output_dir?"]),
    (["--zzzqq", "1"], ["zzzqq", "--help"]),
    # no silent abbreviations
    (["--doc", "x"], ["documents"]),
    (["runs/a"], ["runs/a", "--field value"]),
    (["--seed"], ["seed", "expected one argument"]),
    (["--seed", "1.5"], ["seed = '1.5'", "whole number"]),
    (["--seed", "-1"], ["seed = -1", "0 or more"]),
    (["--solver_lr", "fast"], ["solver_lr = 'fast'", "a number"]),
    (["--solver_lr", "nan"], ["solver_lr = 'nan'", "a number"]),
    (["--grad_checkpoint", "maybe"], ["grad_checkpoint = 'maybe'", "true or false"]),
    (["--run", ""], ["run = ''", "text"]),
    (["--output_dir", ""], ["run = ''", "text"]),
    (["--run", "a", "--output_dir", "b"], ["--run a", "--output_dir b", "give one of them"]),
    (["--truth", "toy truth"], ["truth = 'toy truth'", "the name of a module"]),
    (["--docs_per_step", "0"], ["docs_per_step = 0", "at least 1"]),
    (["--answers_per_question", "1"], ["answers_per_question = 1", "at least 2"]),
    (["--questions_per_doc", "1"], ["questions_per_doc = 1", "at least 2"]),
    (["--minibatch_rows", "100"], ["minibatch_rows = 100",
                                   "multiple of answers_per_question = 8"]),
    (["--top_p", "0"], ["top_p = 0.0", "above 0 and up to 1"]),
    (["--top_p", "1.1"], ["top_p = 1.1"]),
    (["--temperature", "0"], ["temperature = 0.0", "0.001 to 1000"]),
    (["--dev_ema", "1"], ["dev_ema = 1.0", "below 1"]),
    (["--clip", "1"], ["clip = 1.0", "between 0 and 1"]),
    (["--min_choices", "9"], ["min_choices = 9", "max_choices = 8"]),
    (["--max_choices", "27"], ["max_choices = 27", "26"]),
    (["--max_chunk_tokens", "512"], ["max_chunk_tokens = 512", "max_prompt_tokens = 512"]),
    (["--reward", "spicy"], ["reward = 'spicy'", "influence"]),
    (["--reward", "influence + spicy"], ["reward = 'influence + spicy'", "'spicy' is no reward"]),
    (["--reward", "spice:grpo"], ["reward = 'spice:grpo'", "colon one of dugrpo", "'grpo'"]),
    (["--similarity", "cos"], ["similarity = 'cos'", "preconditioned_cosine"]),
    (["--advantage", "grpo"], ["advantage = 'grpo'", "dugrpo, group_std, batch_std, none"]),
    (["--sampler", "vlm"], ["sampler = 'vlm'", "auto, plain, vllm"]),
    (["--dtype", "fp16"], ["dtype = 'fp16'", "bf16"]),
    (["--device", "gpu"], ["device = 'gpu'", "cuda"]),
    (["--preset", "huge"], ["preset = 'huge'", "paper-8b"]),
    (["--model", "Qwen3-8B-Bse"], ["model = 'Qwen3-8B-Bse'", "Qwen3-8B-Base"]),
    (["--model", "./nowhere"], ["model = './nowhere'", "a local folder"]),
    (["--plan", "--gpus", "0"], ["gpus = 0", "1 to 4096"]),
    (["--plan", "--gpus", "1000000000"], ["gpus = 1000000000", "1 to 4096"]),
    (["--plan", "--gpus", "1e9"], ["gpus = '1e9'", "a whole number"])])
def test_a_wrong_flag_is_one_line_that_says_what_was_expected(words, parts):
    line = message(*words)
    assert all(part in line for part in parts), line


def test_a_fixed_generator_may_write_one_question_per_document():
    assert parse(["--reward", "fixed", "--questions_per_doc", "1"]).questions_per_doc == 1


# ---------------------------------------------------------------- help

def help_lines(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as stopped:
        parse(["--help"])
    assert stopped.value.code == 0
    return capsys.readouterr().out.splitlines()


def test_help_lists_every_field_with_its_meaning(capsys, monkeypatch):
    text = " ".join(" ".join(help_lines(capsys, monkeypatch, 80)).split())
    assert all(f"--{name} " in text for name in [*SETTINGS, "output_dir"])
    assert "[D] (default 12; paper 128)" in text


@pytest.mark.parametrize("columns", [70, 100, 250])
def test_help_fits_the_terminal_and_a_hundred_columns(capsys, monkeypatch, columns):
    lines = help_lines(capsys, monkeypatch, columns)
    assert max(map(len, lines)) <= min(columns, 100)


def test_help_begins_with_the_five_that_matter_then_section_by_section(capsys, monkeypatch):
    groups = {}
    for line in help_lines(capsys, monkeypatch, 100):
        if line.endswith(":") and not line.startswith(" "):
            names = groups[line[:-1]] = []
        elif line.startswith("  --"):
            names.append(line.split()[0][2:])
    first = groups.pop("what matters first")
    assert first == ["model", "documents", "dev", "test", "output_dir"]
    del groups["options"]
    expected = {title: [name for name in names if name not in first]
                for title, names in flags.sections().items()}
    assert groups == expected and list(groups) == list(config.SECTIONS)


# ---------------------------------------------------------------- answered before torch is imported

def script(*words, tmp_path, rank=None):
    """`train.py words`, with a torch that must not be imported -> the finished process."""
    for name in ("torch", "transformers"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} was imported')")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    if rank is not None:
        environment["LOCAL_RANK"] = str(rank)
    return subprocess.run([sys.executable, str(ROOT / "train.py"), *words], env=environment,
                          cwd=tmp_path, capture_output=True, text=True)


@pytest.mark.parametrize("words, says", [
    (["--learning_rat", "1"], "did you mean solver_lr or generator_lr?"),
    (["--documents", "nowhere"], "nowhere: no such file or folder"),
    (["--dev", "nowhere.json"], "nowhere.json: no such file or folder"),
    (["--test", "nowhere.json"], "nowhere.json: no such file or folder"),
    (["--rlvr", "nowhere.json", "--rlvr_per_step", "1"], "nowhere.json: no such file or folder"),
    (["--resume", "nowhere"], "no config.json")])
def test_what_is_wrong_is_one_line_and_exit_code_2_without_torch(tmp_path, words, says):
    done = script(*words, tmp_path=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert says in done.stderr
    assert not (tmp_path / "runs").exists()


def test_help_is_there_without_torch_in_under_two_seconds(tmp_path):
    before = time.perf_counter()
    done = script("--help", tmp_path=tmp_path)
    seconds = time.perf_counter() - before
    assert done.returncode == 0 and done.stdout.startswith("usage: train.py")
    assert seconds < 2


def test_a_right_command_line_goes_on_to_import_torch(tmp_path):
    assert script("--seed", "1", tmp_path=tmp_path).stderr == "torch was imported\n"


def test_one_rank_of_a_machine_speaks_and_all_end(tmp_path):
    first, second = (script("--seed", "x", tmp_path=tmp_path, rank=rank) for rank in (0, 1))
    assert (first.returncode, second.returncode) == (2, 2)
    assert "whole number" in first.stderr and second.stderr == ""


def test_files_that_are_not_read_need_not_be_there(tmp_path):
    own = ["--documents", str(tmp_path / "nowhere.json")]
    with pytest.raises(InputError, match="nowhere.json: no such file or folder"):
        flags.files_exist(parse(own))
    flags.files_exist(parse([*own, "--train_on", "dev"]))
    flags.files_exist(parse([*own, "--seed_questions", "2"]))
    flags.files_exist(parse(["--preset", "paper-8b"]))
    # a plan may be made where the data is not
    plan = script(*own, "--plan", tmp_path=tmp_path)
    assert plan.stderr == "torch was imported\n"


def test_flags_alone_do_not_wait_for_torch():
    loaded = ("import sys; from engine import flags; flags.parse([]); "
              "print('torch' in sys.modules, 'transformers' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True,
                          check=True)
    assert done.stdout == "False False\n"


@pytest.mark.parametrize("table, entry, flag", [
    ("rewards.REWARDS", "(lambda p, *_: p, -0.25)", "--reward"),
    ("dugrpo.ADVANTAGES", "lambda centred, *_: centred", "--advantage")])
def test_a_name_added_to_its_table_is_a_choice_everywhere(table, entry, flag):
    """One line in one file: the flag takes it, --help and the complaint list it."""
    module = table.split(".")[0]
    code = f"""if True:
        import {module}
        {table}["mine"] = {entry}
        from data import InputError
        from engine import flags
        cfg = flags.parse(["{flag}", "mine"])
        print(cfg.{flag[2:]}, cfg.invalid_score, "none, mine" in flags.help_text("{flag[2:]}"),
              "fixed, mine" in flags.help_text("{flag[2:]}"))
        try:
            flags.parse(["{flag}", "yours"])
        except InputError as error:
            print(error)"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                          check=True)
    first, second = done.stdout.splitlines()
    assert first == ("mine -0.25 False True" if flag == "--reward" else "mine 0.0 True False")
    assert second.endswith(", mine")


# ---------------------------------------------------------------- saving and resuming

def saved(tmp_path, *words):
    folder = tmp_path / "run"
    folder.mkdir()
    cfg = parse(["--run", folder, *words])
    cfg.save(folder / "config.json")
    return cfg, folder


def test_what_is_saved_comes_back(tmp_path):
    changes = ["--docs_per_step", "3", "--test", "none", "--solver_lr", "3e-5"]
    cfg, folder = saved(tmp_path, *changes)
    assert load(folder / "config.json") == cfg
    assert [p.name for p in folder.iterdir()] == ["config.json"]
    assert set(json.loads((folder / "config.json").read_text())) == set(SETTINGS)


@pytest.mark.parametrize("change, part", [
    (dict(docs_per_stp=3), "docs_per_step"),
    (dict(clip="x"), "clip = 'x'"),
    (dict(seed=1.5), "seed = 1.5"),
    (dict(seed=True), "seed = True"),
    (dict(minibatch_rows=100), "minibatch_rows = 100"),
    (dict(run=3), "run = 3: expected text")])
def test_a_bad_config_file_is_named_with_what_is_wrong(tmp_path, change, part):
    _, folder = saved(tmp_path)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError) as caught:
        load(path)
    assert part in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("text, part", [
    ('{"seed": 1}', "no value for model"),
    ('{"seed": ', "expected the JSON"),
    ("[]", "JSON object")])
def test_a_config_file_that_is_cut_short_or_incomplete_is_refused(tmp_path, text, part):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(InputError, match=part):
        load(path)


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
    line = message("--resume", folder, "--seed", "3", "--solver_lr", "1")
    assert line.startswith("seed, solver_lr cannot be set beside --resume")
    line = message("--resume", folder, "--output_dir", "x")
    assert line.startswith("run cannot be set beside --resume")
    assert "no config.json" in message("--resume", tmp_path)
    assert "iterations = 0" in message("--resume", folder, "--iterations", "0")


# ---------------------------------------------------------------- what is printed

def test_describe_lists_what_differs_from_the_preset():
    lines = describe(parse(["--docs_per_step", "4", "--solver_lr", "2e-5"])).splitlines()
    assert lines[0].startswith("preset toy")
    assert "4 documents x 8 questions x 8 answers" in lines[1]
    assert [line.split()[0] for line in lines[2:]] == ["docs_per_step", "solver_lr"]
    assert "preset 12, paper 128" in lines[2]
    assert len(describe(parse([])).splitlines()) == 2
