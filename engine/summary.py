"""What was loaded, in a line; and three examples of it, for --show_data.

    documents, questions --of_documents, of_questions--> one line each, said at the start of a run
    train.py --show_data --show--> the same with three examples of every file; needs no model

Here documents are cut and counted in words, since a run cuts them in tokens of its generator.
"""
import os
import sys
from collections import Counter
from string import ascii_uppercase

from config import FILES
from data import count_words
from engine import pools, readers
from engine.files import printable
from engine.overlap import folded

LONGEST = 600


# ---------------------------------------------------------------- in a line

def line(items, what, path, too_long, copies=""):
    """Questions or documents that were loaded -> what a run says of them."""
    about = (of_documents if items and hasattr(items[0], "content") else of_questions)(items)
    return (f"{len(items)} {what} from {printable(path)}, {too_long} left out as too long{copies}; "
            f"{about}")


def asked_twice(test, asked, path):
    """Test questions, those that a run trains on or measures by -> a warning, or None."""
    twice = len(test) - len(pools.unlike(asked, test))
    if twice:
        return (f"{printable(path)}: {twice} of {len(test)} test questions are dev questions or "
                "trained on, so they do not test what was learned")


def of_questions(questions):
    """-> how many choices they have, the share of each key, the longest, how many are there twice.

    >>> from data import Question
    >>> of_questions([Question("Which is a gas?", ["ice", "steam"], "steam")])
    'choices: 2 (1 question); keys: A 0 %, B 100 %; longest: 6 words; duplicates: 0'
    """
    counts = Counter(len(question.choices) for question in questions)
    told = [f"{n or 'none, free-form'} ({many(counts[n], 'question')})" for n in sorted(counts)]
    parts = [f"choices: {', '.join(told) or 'no question'}"]

    keys = Counter(question.letter for question in questions if question.choices)
    if keys:
        letters = ascii_uppercase[:max(counts)]
        total = keys.total()
        shares = [f"{letter} {100 * keys[letter] / total:.0f} %" for letter in letters]
        parts.append(f"keys: {', '.join(shares)}")
    aliases = sum(bool(question.aliases) for question in questions)
    if aliases:
        parts.append(f"several right answers: {many(aliases, 'question')}")
    texts = [" ".join([question.question_text, *question.choices]) for question in questions]
    return "; ".join([*parts, *length_and_twice(texts)])


def of_documents(documents):
    """-> the longest, and how many are there twice."""
    return "; ".join(length_and_twice([document.content for document in documents]))


def length_and_twice(texts):
    longest = max(map(count_words, texts), default=0)
    twice = len(texts) - len(set(map(folded, texts)))
    return [f"longest: {longest} words", f"duplicates: {twice}"]


def many(n, what):
    return f"{n} {what}" + "s" * (n != 1)


# ---------------------------------------------------------------- with examples

def show(cfg):
    """Prints every file of a run with three of its items. Raises InputError."""
    # a terminal may lack a letter that a document has
    sys.stdout.reconfigure(errors="backslashreplace")
    try:
        show_files(cfg)
        sys.stdout.flush()
    except BrokenPipeError:
        # `| head` has seen enough; nothing may be written at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show_files(cfg):
    for name in FILES:
        path = getattr(cfg, name)
        if not path or name == "documents" and not cfg.reads_documents:
            continue
        if name == "documents":
            items = readers.load_documents(path, cfg.max_chunk_tokens)
            about = of_documents(items)
        else:
            load = pools.load_written if name == "questions" else readers.load_questions
            items = load(path)
            about = of_questions(items)
        print(f"{name}: {len(items)} from {printable(path)}; {about}\n")
        for i in sorted({0, len(items) // 2, len(items) - 1}):
            print(as_shown(items[i]) + "\n")


def as_shown(item):
    """A document or a question -> its text, indented; nothing in it moves the cursor."""
    if hasattr(item, "content"):
        lines = [f"[{item.doc_id}]", *item.content.split("\n")]
    else:
        lines = [f"[{item.question_id}]", *item.question_text.split("\n")]
        for letter, choice in zip(ascii_uppercase, item.choices):
            mark = "   <- the key" if choice == item.ground_truth else ""
            lines.append(f"{letter}: {choice}{mark}")
        if not item.choices:
            lines.append("answer: " + " or ".join([item.ground_truth, *item.aliases]))
    text = "\n".join(lines)
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]} [... {len(text) - LONGEST} more characters]"
    return "\n".join("    " + printable(line) for line in text.split("\n"))
