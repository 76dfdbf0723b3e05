"""Measures how readable the house is: file counts, widths, the loop, the README, imports.

    python -m tools.house               one table
    python -m tools.house --repo DIR    the same of another repository, where it has such files

    over 100            share of the lines of Python that are longer than 100 columns
    loop                the body of the training loop: lines, comment lines, mean width of a line
    nested              comprehensions inside comprehensions, or with two `for`
    named lambdas       `name = lambda ...`
    paragraphs          of the README, outside code and tables, with more than 80 words

tests/test_house.py holds the limits. Nothing is imported, files are only read.
"""
import argparse
import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FOLDERS = ("engine", "studies", "tools", "toy", "classroom")


# ---------------------------------------------------------------- Python

def python_files(root=ROOT, tests=False):
    """Paths of the files of the house, sorted; with tests those too."""
    skipped = {".git", "runs", "build", "__pycache__"}
    # virtual environments, whatever they are called
    skipped |= {mark.parent.name for mark in root.glob("*/pyvenv.cfg")}
    found = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if skipped.isdisjoint(parts) and (tests or parts[0] != "tests"):
            found.append(path)
    return found


def widths(paths):
    """Lengths of all lines of the files."""
    found = []
    for path in paths:
        found += map(len, path.read_text(encoding="utf-8").splitlines())
    return found


def over(limit, lengths):
    """Percent of the lengths that are over the limit."""
    return round(100 * sum(n > limit for n in lengths) / len(lengths), 1)


def count_nested(tree):
    """How many comprehensions hold another one or have two `for`."""
    n = 0
    for node in ast.walk(tree):
        if isinstance(node, COMPREHENSIONS):
            inside = [x for x in ast.walk(node) if isinstance(x, COMPREHENSIONS) and x is not node]
            n += bool(inside) or len(node.generators) > 1
    return n


def count_named_lambdas(tree):
    assigned = [node for node in ast.walk(tree) if isinstance(node, ast.Assign)]
    return sum(isinstance(node.value, ast.Lambda) for node in assigned)


def loop_of(path):
    """The longest loop of a file -> (lines with something on them, comment lines, mean width)."""
    text = path.read_text(encoding="utf-8")
    loops = [node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.For, ast.While))]
    longest = max(loops, key=lambda node: node.end_lineno - node.lineno)
    lines = text.splitlines()[longest.lineno - 1:longest.end_lineno]
    lines = [line for line in lines if line.strip()]
    comments = sum(line.strip().startswith("#") for line in lines)
    return len(lines), comments, round(sum(map(len, lines)) / len(lines))


# ---------------------------------------------------------------- who imports whom

def module_name(path, root=ROOT):
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(root=ROOT):
    """{module of the house: set of modules of the house that it imports anywhere in its text}."""
    names = {module_name(path, root): path for path in python_files(root)}
    graph = {}
    for name, path in names.items():
        found = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            found |= {word for word in imported(node) if word in names}
        graph[name] = found - {name} - set(FOLDERS)
    return graph


def imported(node):
    """An import statement -> the modules it may name."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module:
        return {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return set()


def reached(graph, start):
    """All modules that `start` imports, and those they import."""
    found, todo = set(), [start]
    while todo:
        for name in graph[todo.pop()] - found:
            found.add(name)
            todo.append(name)
    return found


# ---------------------------------------------------------------- the README

def prose(text):
    """Markdown -> its paragraphs, without code blocks, tables, headings and lists' marks."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    blocks = [block.strip() for block in re.split(r"\n\s*\n|\n(?=[-*] )", text)]
    return [block for block in blocks if block and block[0] not in "|#!<"]


def words(text):
    """Words of a Markdown text outside code blocks; a link counts by what is read of it."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"^[|:\s-]+$", "", text, flags=re.MULTILINE)
    return re.findall(r"[^\s|]*\w[^\s|]*", text)


def readme(root=ROOT):
    """-> {"words", "numbers", "long paragraphs", "longest table"}."""
    text = (root / "README.md").read_text(encoding="utf-8")
    all_words = words(text)
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    return {"words": len(all_words),
            "numbers": sum(bool(re.search(r"\d", word)) for word in all_words),
            "paragraphs over 80 words": sum(len(words(block)) > 80 for block in prose(text)),
            "longest paragraph": max(len(words(block)) for block in prose(text)),
            "longest table": max([table.count("\n") - 2 for table in tables], default=0)}


# ---------------------------------------------------------------- the table

def measure(root=ROOT, loop="train.py"):
    """A repository -> {what: number or tuple of numbers}."""
    paths = python_files(root)
    lengths = widths(paths)
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
    found = {
        "Python files": len(paths),
        "of them at the top": sum(path.parent == root for path in paths),
        "lines": len(lengths),
        "over 100, over 120 columns, %": (over(100, lengths), over(120, lengths)),
        "nested comprehensions": sum(map(count_nested, trees)),
        "named lambdas": sum(map(count_named_lambdas, trees)),
    }
    if (root / loop).exists():
        found["loop: lines, comment lines, mean width"] = loop_of(root / loop)
    if (root / "README.md").exists():
        found |= {f"README: {what}": n for what, n in readme(root).items()}
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", type=Path, default=ROOT)
    parser.add_argument("--loop", default="train.py", help="the file with the training loop")
    args = parser.parse_args()
    for what, value in measure(args.repo.resolve(), args.loop).items():
        numbers = value if isinstance(value, tuple) else (value,)
        print(f"{what:42}{', '.join(map(str, numbers))}")


if __name__ == "__main__":
    main()
