"""The long prompts, `--prompts hard`: texts below prompts/hard, to be read and edited there.

    prompts/hard/solver.txt --sections--> {"system": ..., "multiple choice": ..., "free form": ...}

A line "[name]" begins a section; {document}, {question} and {options} are filled in, all other
braces are plain text. The section "system" is the system message, the others are user messages.
messages: any prompt, short or long -> the turns that a chat template or a server takes.
What the models are asked is ours, in our words; the released prompts served as a list of demands.
"""
import functools
import re

from config import ROOT
from data import InputError

FOLDER = "prompts/hard"


def long_prompt(file, section, **values):
    """prompts/hard/FILE, the name of a user message and what goes into it -> (system, user)."""
    texts = sections(file)
    for name in ("system", section):
        if name not in texts:
            raise InputError(f"{FOLDER}/{file}: no section [{name}], expected one line with it and "
                             "the text below")
    for name in values:
        if f"{{{name}}}" not in texts[section]:
            raise InputError(f"{FOLDER}/{file}: section [{section}] does not hold {{{name}}}, "
                             "expected the place where it goes in")
    return texts["system"], filled(texts[section], values)


@functools.cache
def sections(file):
    """prompts/hard/FILE -> {name: text}."""
    try:
        text = (ROOT / FOLDER / file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{FOLDER}/{file}: cannot be read ({error})")
    _, *parts = re.split(r"^\[([^\]\n]+)\][ \t]*$", text, flags=re.MULTILINE)
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2])}


def filled(text, values):
    """{name} becomes its value, in one pass: what goes in is not looked at again."""
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], found[0]), text)


def messages(prompt):
    """A user message, or (system message, user message) -> the turns a chat template takes."""
    texts = [prompt] if isinstance(prompt, str) else prompt
    return [{"role": role, "content": text}
            for role, text in zip(("system", "user")[-len(texts):], texts)]
