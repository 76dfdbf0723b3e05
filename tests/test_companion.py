"""The companion and the list of differences name only what is there, and leave nothing out."""
import ast
import random
import re
import shlex

import pytest

import config
from engine import flags
from engine.benchmarks import BENCHMARKS, PUBLISHED, published_means
from tools import house

ROOT = house.ROOT
PAGES = {name: (ROOT / f"docs/{name}.md").read_text(encoding="utf-8")
         for name in ("companion", "differences")}
KNOWN = (ROOT / "docs/results/claims.md").read_text(encoding="utf-8")
VERDICTS = {"holds here", "no difference here", "contradicted here", "not tested here"}
SCRIPTS = {path.name for path in house.python_files() if path.parent == ROOT}
# left behind by python -m toy.make
NOT_SHIPPED = {"toy/anchor-clean"}
GRAPH = house.imports()

# What the released recipe does otherwise than the text says: the subject, how its row begins, and
# words that the row has to have.
RELEASED = {
    "mini-batches by document": ("mini-batches of the solver", "(i + 1/2) / n_d"),
    "LaTeX in drafts": ("LaTeX in drafts", "doubled before any letter"),
    "prompts": ("generator's prompt", "1,280 words"),
    "documents that do not fit": ("documents that do not fit", "dropped inside the batch"),
    "hybrid RLVR": ("hybrid RLVR", "10,000 problem-and-answer chunks"),
    "mid-EOS penalty": ("mid-EOS penalty", "-0.5 in the solver's update"),
    "gate": ("group-std gate", "invalid ones 0"),
    "solver filters": ("solver filters", "mixed rewards"),
    "batch_std": ("`batch_std`", "1.2 times"),
    "dev refresh": ("dev refresh", "period 10"),
    "seeded generation": ("seeded generation", "3 shown"),
    "dev-only": ("dev-only", "stage 1"),
    "validation": ("validation while training", "2,000 questions"),
    "weighted sum": ("generator reward as a weighted sum", "divided by its std"),
    "evaluation": ("evaluation", "math-verify or a second judge"),
    "released faults": ("released faults", "stale g_dev"),
}

every_page = pytest.mark.parametrize("page", PAGES)


def rows(text):
    """Lines of tables -> their cells, without heads and rules."""
    found = []
    for line in text.splitlines():
        if line.startswith("| ") and not set(line) <= set("|-: "):
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            found.append([cell.strip() for cell in cells])
    return found


def claims():
    """{"2.4": its cells} of the companion."""
    return {cells[0]: cells for cells in rows(PAGES["companion"])
            if re.fullmatch(r"\d\.\d+", cells[0])}


def names_in(path):
    """Top-level functions, classes and constants of a Python file."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def known_tests():
    names = set()
    for path in (ROOT / "tests").glob("test_*.py"):
        names |= names_in(path)
    return names


# ---------------------------------------------------------------- what is named is there

def named_functions(text):
    """[(file, names)] of what stands as  file.py: `name`, `name`  with or without a link."""
    found = []
    for file, names in re.findall(r"([\w/]+\.py)(?:\]\([^)]*\))?: ((?:`\w+`(?:, )?)+)", text):
        found.append((file, re.findall(r"`(\w+)`", names)))
    return found


@every_page
def test_every_function_named_beside_a_file_is_in_it(page):
    found = named_functions(PAGES[page])
    assert len(found) > {"companion": 50, "differences": 3}[page]
    for file, names in found:
        assert (ROOT / file).exists(), file
        assert set(names) <= names_in(ROOT / file), (file, names)


@every_page
def test_every_test_named_is_there(page):
    named = set(re.findall(r"\btest_\w+(?!\w*\.py)", PAGES[page]))
    files = {name for name in named if (ROOT / f"tests/{name}.py").exists()}
    assert len(named - files) > 8
    assert named - files - known_tests() == set()


@every_page
def test_every_flag_named_is_one(page):
    sources = "".join(path.read_text(encoding="utf-8") for path in house.python_files())
    named = set(re.findall(r"--([a-z]\w*)", PAGES[page])) - {"nproc_per_node"}
    assert len(named) > 10
    for flag in named:
        assert flag in config.SETTINGS or f'"--{flag}"' in sources, flag


def commands(text):
    """What stands in backticks and begins like a command."""
    return re.findall(r"`((?:python|pytest|torchrun) [^`]*)`", text)


@pytest.mark.parametrize("text, least", [(PAGES["companion"], 40), (KNOWN, 20)])
def test_every_command_is_one(monkeypatch, text, least):
    monkeypatch.chdir(ROOT)
    found = commands(text)
    assert len(found) > least
    for command in found:
        words = shlex.split(command)
        if words[0] == "pytest":
            assert all((ROOT / file).exists() for file in words[1:]), command
        elif "train.py" in words:
            flags.parse(words[words.index("train.py") + 1:])
        elif words[1] == "-m":
            module = ROOT / words[2].replace(".", "/")
            is_package = (module / "__main__.py").exists()
            check_words(words[3:], module / "__main__.py" if is_package
                        else module.with_suffix(".py"))
        else:
            assert words[1] in SCRIPTS, command
            check_words(words[2:], ROOT / words[1])


def check_words(words, script):
    """Flags that the script or what it imports knows, and files that are there."""
    assert script.exists(), script
    imported = GRAPH.get(house.module_name(script), ())     # of tests/ none
    read = [script] + [ROOT / f"{other.replace('.', '/')}.py" for other in imported]
    source = "".join(path.read_text(encoding="utf-8") for path in read if path.exists())
    for word in words:
        if word.startswith("--"):
            assert f'"{word}"' in source, word
        elif "/" in word and not word.startswith(("RUN", "runs/")):
            assert (ROOT / word).exists() or word in NOT_SHIPPED, word


# ---------------------------------------------------------------- the companion

def test_every_claim_has_a_function_a_command_and_one_of_four_verdicts():
    found = claims()
    assert {number.split(".")[0] for number in found} == set("012345678")
    for number, (_, says, code, command, came_out, verdict) in found.items():
        assert re.match(r"L\d+", says), number
        assert "](" in code and came_out, number
        assert command == "the same" or command.startswith("`"), number
        assert verdict in VERDICTS, (number, verdict)


def test_the_first_paragraph_counts_the_verdicts_right():
    contradicted = [number for number, cells in claims().items()
                    if cells[-1] == "contradicted here"]
    assert contradicted == ["3.7", "5.5", "5.8"]
    assert "three are contradicted" in PAGES["companion"].split("**")[1]


def test_the_ten_lines_at_random_are_those_that_the_seed_draws_and_agree_with_their_rows():
    listed = {}
    for cells in rows(PAGES["companion"]):
        if re.fullmatch(r"L\d+", cells[0]):
            listed[int(cells[0][1:])] = cells[1:]
    # lines of prose of the authors' page saved as text
    prose = [12, 14, 16, 19, 23, 25, 27, 29, 35, 36, 37, 39, 41, 43, 45, 47, 53, 55, 59, 63, 65, 69,
             73, 75, 77, 81, 85, 87, 91, 99, 103, 104, 105, 106, 109, 111, 113, 117, 118, 122, 124,
             125, 126, 128, 130, 136, 138, 139, 143, 147, 152, 154, 158, 160]
    assert sorted(listed) == sorted(random.Random(16).sample(prose, 10))
    for line, (number, command, verdict) in listed.items():
        says, row_command, row_verdict = (claims()[number][i] for i in (1, 3, 5))
        assert line in lines_of(says)
        assert row_verdict == verdict
        assert row_command in (command, "the same")

    covered = set()
    for cells in claims().values():
        covered |= lines_of(cells[1])
    assert set(prose) <= covered


def lines_of(says):
    """"L35-L37, L39: ..." -> {35, 36, 37, 39}."""
    lines = set()
    for first, last in re.findall(r"L(\d+)(?:-L(\d+))?", says.split(":")[0]):
        lines |= set(range(int(first), int(last or first) + 1))
    return lines


def test_the_gains_that_the_text_prints_follow_from_its_numbers():
    printed = {"math500": (25.2, 8.8), "olympiadbench-math": (20.0, 24.5), "mmlu-pro": (13.6, 10.5),
               "supergpqa": (29.4, 23.4)}
    for name, gains in printed.items():
        for (base, _, infuser), gain in zip(PUBLISHED[name], gains):
            assert 100 * (infuser / base - 1) == pytest.approx(gain, abs=0.06), name

    categories = {"general reasoning": (20.3, 18.0), "math & physics": (20.6, 20.7),
                  "medical": (6.1, 3.0), "coding": (6.9, 5.3),
                  "mean of four categories": (12.0, 10.3)}
    for anchor in (0, 1):
        base, infuser = (published_means(anchor, method) for method in (0, 2))
        for name, gains in categories.items():
            gain = 100 * (infuser[name] / base[name] - 1)
            assert gain == pytest.approx(gains[anchor], abs=0.06), name


def test_the_instruction_tuned_anchor_leads_on_ten_by_the_authors_numbers():
    ahead, equal = [], []
    for name in BENCHMARKS:
        base, fixed, infuser = PUBLISHED[name][2]
        if infuser > max(base, fixed):
            ahead.append(name)
        elif infuser == max(base, fixed):
            equal.append(name)
    assert len(ahead) == 10 and equal == ["olympiadbench-phys"]


# ---------------------------------------------------------------- the differences

def differences():
    """{subject: its cells} of the one table."""
    return {cells[0]: cells for cells in rows(PAGES["differences"]) if len(cells) == 5}


@pytest.mark.parametrize("subject", RELEASED)
def test_what_the_released_recipe_does_otherwise_has_its_row(subject):
    title, words = RELEASED[subject]
    row, = [cells for name, cells in differences().items() if name.startswith(title)
            and (name == title or name[len(title)] == " ")]
    assert words in " ".join(row)


def test_every_difference_has_a_flag_or_a_test():
    found = differences()
    assert len(found) > 35
    for subject, (_, paper, released, ours, held_by) in found.items():
        if subject.startswith("**") or not subject:
            continue
        assert paper and released and ours, subject
        assert "--" in held_by or "test" in held_by, subject
        for file in re.findall(r"tests/\w+\.py", held_by):
            assert (ROOT / file).exists(), file


def test_results_name_no_folder_of_a_machine():
    for file in (ROOT / "docs/results").glob("*.json"):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r'"/(tmp|home|root|work|Users)/', text), file.name


# ---------------------------------------------------------------- what we know

def test_what_we_know_agrees_with_the_companion_and_counts_its_verdicts_right():
    theirs = [cells for cells in rows(KNOWN) if re.fullmatch(r"\d\.\d+", cells[0])]
    ours = [cells for cells in rows(KNOWN) if len(cells) == 5 and cells[0] != "claim"]
    for cells in theirs:
        assert len(cells) == 7 and cells[4] == claims()[cells[0]][-1], cells[0]
    for cells in ours:
        assert cells[2] in VERDICTS, cells[0]

    not_shown = {number for number, cells in claims().items()
                 if cells[-1] in ("no difference here", "contradicted here")}
    # 0.6 is 5.9 and 5.10 together
    assert not_shown - {"0.6"} <= {cells[0] for cells in theirs}

    def counted(verdicts):
        return [verdicts.count(x) for x in ("holds here", "no difference here",
                                            "contradicted here", "not tested here")]

    first = KNOWN.split("\n\n")[1]
    numbers = [int(n) for n in re.findall(r"\b\d+\b", first.split("No claim about")[0])]
    of_theirs = counted([cells[4] for cells in theirs])
    of_ours = counted([cells[2] for cells in ours])
    assert of_ours[2] == 0
    assert numbers == [len(theirs), *of_theirs, len(ours), of_ours[0], of_ours[1], of_ours[3]]
