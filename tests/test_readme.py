"""What the README names exists: files, functions, flags, metrics, links."""
import ast
import os
import re

import config

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
README = open(os.path.join(ROOT, "README.md"), encoding="utf-8").read()
LINK = re.compile(r"\[[^\]]*\]\(([\w./-]+)\)")


def names_in(path):
    """Top-level functions, classes and constants of a Python file."""
    names = set()
    for node in ast.parse(open(os.path.join(ROOT, path), encoding="utf-8").read()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def test_every_link_leads_to_a_file():
    links = LINK.findall(README)
    assert len(links) > 20
    for link in links:
        assert os.path.exists(os.path.join(ROOT, link)), link


def test_every_name_beside_a_file_is_in_that_file():
    checked = 0
    for line in README.splitlines():
        files = [link for link in LINK.findall(line) if link.endswith(".py")]
        if not files or not line.startswith("|"):
            continue
        defined = set().union(*map(names_in, files))
        for name in re.findall(r"`(\w+)`", line):
            assert name in defined, f"{files}: {name}"
            checked += 1
    assert checked > 25


def test_every_flag_is_a_setting_or_a_scripts_argument():
    scripts = "".join(open(os.path.join(ROOT, f"{name}.py"), encoding="utf-8").read() for name in ("evaluate", "warmup", "bench", "toy", "race", "zoo", "report", "quality", "reality", "noise", "plan", "bench_memory"))
    for flag in set(re.findall(r"--([a-z][\w-]*)", README)) - {"nproc_per_node", "help"}:
        assert flag in config.SETTINGS or f'"--{flag}"' in scripts or f'("{flag}"' in scripts, flag


def test_the_glossary_explains_every_metric():
    """Every key that log.py writes into a line of metrics.jsonl stands in the README's glossary."""
    source = open(os.path.join(ROOT, "log.py"), encoding="utf-8").read()
    body = source[source.index("line = {"):source.index('line |= {"seconds"')]
    keys = set(re.findall(r'^\s+"(\w+)":', body, re.M)) | {"key_accuracy", "target_share", "seconds", "peak_memory_mb"}
    assert len(keys) > 20
    glossary = README[README.index("Glossary"):README.index("</details>")]
    for key in keys:
        assert f"`{key}`" in glossary, key
