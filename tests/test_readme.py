"""README and docs: short, in order, and what they name is there: files, names, flags, metrics."""
import ast
import re
import shlex
from pathlib import Path

import pytest

import config
from engine import flags, presets
from engine.demonstrations import load_demos
from engine.overlap import Overlap
from engine.readers import load_documents, load_questions
from tools import house

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SOURCES = "".join(path.read_text(encoding="utf-8") for path in house.python_files(ROOT))
PAGES = sorted([ROOT / "README.md", ROOT / "LOG.md", *(ROOT / "docs").rglob("*.md")])
FINDINGS = sorted(ROOT.glob("docs/results/*.md"))
TABLES_OF_RACE = {"race-tables.md", "race-first-tables.md",
                  "race-first-hard-tables.md", "regimes-tables.md"}

# [text](file#heading), not of the web
LINK = re.compile(r"\[[^\]]*\]\((?!https?:)([^)#\s]*)(#[\w-]+)?\)")
SECTIONS = ["Run it", "One iteration", "Four equations", "The files, in reading order", "Results",
            "Your own data", "From one machine to many", "To teach, to learn",
            "Where this differs, and what has not been run", "Changes to try tonight", "Cite"]
# of torchrun and lm-evaluation-harness
FOREIGN_FLAGS = {"nproc_per_node", "monitor_interval", "model_args", "device", "include_path",
                 "tasks", "apply_chat_template"}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def text_of(page):
    return page.read_text(encoding="utf-8")


def source(path):
    return (ROOT / path).read_text(encoding="utf-8")


def code_blocks(text):
    return re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)


# ---------------------------------------------------------------- the README is short, and in order

def test_the_readme_is_read_in_ten_minutes():
    measured = house.readme(ROOT)
    assert measured["words"] <= 1600
    assert measured["numbers"] < 140
    assert measured["longest table"] <= 8


def test_no_paragraph_of_the_readme_has_more_than_60_words():
    for paragraph in house.prose(README):
        assert len(house.words(paragraph)) <= 60, paragraph


def test_the_sections_of_the_readme_are_in_order():
    assert re.findall(r"^## (.*)", README, re.M) == SECTIONS


def test_the_readme_begins_with_one_sentence_and_a_picture():
    title, sentence, picture, *_ = README.split("\n\n")
    assert title.startswith("# ")
    assert sentence.count(". ") == 0 and sentence.endswith(".")
    assert re.fullmatch(r"!\[[^\]]*\]\(docs/results/race\.svg\)", picture)


def test_the_six_steps_in_the_readme_are_lines_of_the_loop():
    block, = [block for block in code_blocks(README) if "# 1. " in block]
    quoted = [" ".join(line.split()) for line in block.splitlines() if line.strip()]
    numbered = [line for line in quoted if re.match(r"# \d\. ", line)]
    assert [line[2] for line in numbered] == list("123456")

    # in the same order; the loop may have more lines in between
    loop = iter([" ".join(line.split()) for line in source("train.py").splitlines()])
    for line in quoted:
        assert line in loop, line


# ---------------------------------------------------------------- what is named is there

@every_page
def test_every_link_leads_to_a_file_and_a_heading(page):
    for path, heading in LINK.findall(text_of(page)):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        if heading:
            assert heading[1:] in headings(target), heading


def headings(page):
    """The anchors that a Markdown page gives its headings."""
    found = set()
    for title in re.findall(r"^#+ (.*)", text_of(page), re.M):
        kept = re.sub(r"[^\w\s-]", "", title.lower())
        found.add(kept.replace(" ", "-"))
    return found


@every_page
def test_every_file_of_the_house_that_is_named_is_there(page):
    named = re.findall(r"\b(?:engine|studies|tools|toy|tests|docs)/[\w/.-]*\.\w+", text_of(page))
    for name in named:
        assert "NAME" in name or (ROOT / name).exists() or (page.parent / name).exists(), name


@every_page
def test_every_module_that_is_run_is_there(page):
    for module in re.findall(r"-m ((?:studies|tools|toy)\.\w+)", text_of(page)):
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module


def names_in(path):
    """Top-level functions, classes and constants of a Python file."""
    names = set()
    for node in ast.parse(text_of(path)).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def lines_with_files(text):
    """(files, names) of each table line or list item that links a Python file."""
    items = re.split(r"\n(?=[-|] ?)|\n\n", re.sub(r"```.*?```", "", text, flags=re.S))
    for item in items:
        files = [path for path, _ in LINK.findall(item) if path.endswith(".py")]
        if files and item[0] in "-|":
            yield files, re.findall(r"`(\w+)`", item)


@pytest.mark.parametrize("page", ["README.md", "docs/files.md"])
def test_every_name_beside_a_file_is_in_that_file(page):
    checked = 0
    for files, names in lines_with_files(source(page)):
        defined = set()
        for path in files:
            defined |= names_in((ROOT / page).parent / path)
        for name in names:
            assert name in defined, f"{files}: {name}"
            checked += 1
    assert checked > 15


@every_page
def test_every_flag_is_a_setting_or_a_scripts_argument(page):
    for flag in set(re.findall(r"--([a-z][\w-]*)", text_of(page))) - FOREIGN_FLAGS - {"help"}:
        # tools/plan.py makes flags of the fields of its dataclasses
        argument = rf'"(--)?{flag}"|^    {flag}: \w+ ='
        assert flag in config.SETTINGS or re.search(argument, SOURCES, re.M), flag


# ---------------------------------------------------------------- the commands are commands

def commands(text):
    """Command lines in the code blocks of a page: whole, without comments, variables filled in."""
    for block in code_blocks(text):
        block = re.sub(r"\\\n", " ", block)
        values = dict(re.findall(r"^(\w)=(\S+)", block, re.M))
        for line in block.splitlines():
            line = re.sub(r"\s+# .*", "", line)
            line = re.sub(r"\$(\w)", lambda found: values[found[1]], line)
            yield from line.split(" && ")


@every_page
def test_every_train_command_is_accepted(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for command in commands(text_of(page)):
        if "train.py" in command and re.match("python |torchrun ", command):
            words = shlex.split(command.split("train.py", 1)[1])
            if "--resume" not in words:
                flags.parse(with_some_model(words))


def with_some_model(words):
    """The models of the examples are folders that a reader will have made, and are not here."""
    for i, word in enumerate(words):
        if word == "--model" and words[i + 1] not in presets.SHORT_NAMES:
            # of no preset of its own: neither brings the other's files
            preset = [] if "--preset" in words else ["--preset", "small"]
            words = words[:i + 1] + [presets.TOY["model"], *preset] + words[i + 2:]
    return words


def test_there_is_one_warm_up_command_for_the_example():
    """But for small-model.md, which says how its numbers were made."""
    found = set()
    for page in (ROOT / "README.md", ROOT / "docs/own-data.md"):
        found |= {line for line in commands(text_of(page))
                  if "warmup.py" in line and "docs/example" in line}
    assert len(found) == 1


# ---------------------------------------------------------------- pages

@pytest.mark.parametrize("page", FINDINGS, ids=lambda page: page.name)
def test_a_page_of_results_opens_with_its_finding(page):
    if page.name in TABLES_OF_RACE | {"README.md"}:
        return
    title, finding, *_ = text_of(page).split("\n\n")
    assert title.startswith("# ")
    assert re.fullmatch(r"\*\*[^*]*\.\*\*", finding, re.S), finding


def test_every_page_of_results_is_in_their_list():
    listed = text_of(ROOT / "docs/results/README.md")
    for page in FINDINGS:
        if page.name not in TABLES_OF_RACE | {"README.md"}:
            assert f"({page.name})" in listed, page.name


def test_every_metric_is_explained():
    """Every key that engine/metrics.py writes into a line of metrics.jsonl."""
    keys = {"key_accuracy", "target_share", "unread_share", "seconds", "peak_memory_mb"}
    for node in ast.parse(source("engine/metrics.py")).body:
        if isinstance(node, ast.FunctionDef) and re.match("metrics|about_", node.name):
            keys |= written_by(node)
    assert len(keys) > 20
    page = text_of(ROOT / "docs/metrics.md")
    for key in keys - {"dev", "draft", "answer"}:
        assert f"`{key}`" in page, key


def written_by(function):
    """The words that are keys of a dict in a function."""
    keys = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Dict):
            keys |= {key.value for key in node.keys if isinstance(key, ast.Constant)}
    return keys


def test_the_example_demonstrations_are_about_the_notes_and_repeat_no_question():
    example = ROOT / "docs/example"
    demos = load_demos(str(example / "demos.jsonl"))
    assert len(demos) == 10

    notes = [document.content for document in load_documents(str(example / "notes"))]
    sets = {name: load_questions(str(example / f"{name}.jsonl")) for name in ("dev", "test")}
    overlap = Overlap(sets)
    for demo in demos:
        assert demo["content"] in notes
        assert 4 <= len(set(demo["choices"])) <= 8
        assert not overlap.of(demo["question_text"])


def test_the_demonstration_that_own_data_shows_is_in_the_file():
    page = text_of(ROOT / "docs/own-data.md")
    shown = re.search(r'"question_text": "(Earthworms[^"]*)"', page)[1]
    assert shown in source("docs/example/demos.jsonl")
