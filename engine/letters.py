r"""Which option does a box name? What may stand around its letter, and what only looks like one.

    text --last_boxed--> box --letter_in--> the option's letter, or None

    \boxed{C}  \boxed{\text{(C)}}  \boxed{C. 27}  \boxed{Option C}     C
    \boxed{27}, where an option says 27                                that option
    \boxed{B)C)}  \boxed{A or B}  \boxed{C is wrong}                   none: no single one
    \boxed{C. botulinum}                                               the option that says so, and
                                                                       C only where that is its text

A box in thoughts, before </think> or behind an open <think>, is no answer.
"""
import re
from collections import deque
from string import ascii_uppercase

from engine.notation import clean

# Our own choice: the end of a text, where its answer is; a longer box is no answer; boxes in boxes.
MAX_TEXT = 300_000
MAX_BOX = 2_000
MAX_OPEN = 1_000

# Escaped braces are matched so that they do not count as braces.
BRACE = re.compile(r"\\(?:boxed|fbox|framebox)\s*\{|\\\\(?!boxed|fbox|framebox)|\\[{}]|[{}]")


def last_boxed(text):
    r"""Text -> the content of the last complete \boxed{...} that is not empty, or None.

    A box that never closes does not count; of nested boxes, the inner. "" if all are empty.

    >>> last_boxed(r"\boxed{1} then \boxed{\frac{1}{2}} and \boxed{3")
    '\\frac{1}{2}'
    """
    text = without_thoughts(text[-MAX_TEXT:])
    depth, last, empty = 0, (0, 0), False
    # (depth outside, start); the outermost are forgotten where there are too many
    opened = deque(maxlen=MAX_OPEN)
    for brace in BRACE.finditer(text):
        if brace[0] == "}":
            depth = max(0, depth - 1)
            if opened and opened[-1][0] == depth:
                start = opened.pop()[1]
                if text[start:brace.start()].isspace() or start == brace.start():
                    empty = True
                else:
                    last = max(last, (start, brace.start()))
        elif brace[0].endswith("{") and brace[0] != r"\{":
            if len(brace[0]) > 1:
                opened.append((depth, brace.end()))
            depth += 1
    if last[0]:
        return text[slice(*last)]
    return "" if empty else None


def without_thoughts(text):
    """The text behind the last </think> and before a <think> that stays open."""
    text = text[text.rfind("</think>") + len("</think>"):] if "</think>" in text else text
    return text.partition("<think>")[0]


# What may stand around the letter without changing what is meant: \text{C}, $C$, **C**, "C",
# \left( C \right), \textcolor{blue}{C}, and plain braces.
DRESS = re.compile(
    r"\\(?:textcolor|color)\s*\{[^{}]*\}"
    r"|\\(?:text(?:bf|it|rm|sf|tt|sc|normal)?|math(?:bf|it|rm|sf|tt|bb|cal)"
    r"|mbox|hbox|fbox|underline"
    r"|emph|boldsymbol|bm|left|right|bf|rm|it|q?quad|large|Large|huge|displaystyle|checkmark)"
    r"(?![A-Za-z])|\\[()\[\]\s,;!]|[{}$*~\"“”`✓✔✅]")
WIDE = str.maketrans("（）．：，［］" + "".join(chr(0xFF21 + i) for i in range(26)),
                     "().:,[]" + ascii_uppercase)
PREFIX = re.compile(r"\s*(?:(?:the\s+)?(?:final\s+|correct\s+)?(?:answer|option|choice)"
                    r"(?:\s+is)?\s*[:=]?\s*(?:option\s+|choice\s+)?(?=[(\[]?[A-Za-z](?![A-Za-z])))",
                    re.IGNORECASE)
# A letter: in brackets of its own ("(C)", "(C) 27"), or followed by nothing or by what ends a label
# ("C", "C. 27", "C: 27", "C) 27", "C - 27", "C, 27", "C (27)").
LETTER = re.compile(
    r"\(+\s*([A-Za-z])\s*\)+(?![^\s.:,])"
    r"|\[\s*([A-Za-z])\s*\](?![^\s.:,])"
    r"|([A-Za-z])\s*(?:$|\)|[.:](?![A-Za-z])|,\s|\s[-–—]\s|[–—]|(?<=\s)\((?=[^()]*\)$))")
# "B)C)", "B)/C)", "(A) or (B)", "A, B", "A. B. C": a box that names no single letter.
MARKED = r"(?:\(\s*[A-Za-z]\s*\)|[A-Za-z]\s*\))"
SEVERAL = re.compile(
    rf"[\s.]*(?:(?:[\s,/&\\;]|and\b|or\b)*{MARKED})+[\s.]*$"
    r"|[\s,/&\\;]*(?:[A-Za-z]\s*[.:]\s*)*[A-Za-z]\s*[.:]?\s*$"
    r"|\s*(?:and|or|&|/|,)\s*[(\[]?[A-Za-z](?![A-Za-z])"
    r"|\s*[A-Za-z](?:[\s,/&;]+(?:and\s+|or\s+)?[A-Za-z])*\s*\.?$")
RULED_OUT = re.compile(r"\W*(?:is|was|seems|looks)\s+"
                       r"(?:not\s+(?:right|correct|true|it|the answer)|wrong|incorrect|false|out"
                       r"|eliminated|ruled out|impossible)\W*$|\W*(?:wrong|incorrect)\W*$")
# C. botulinum, B. Franklin: one word behind a letter and a dot
ONE_WORD = re.compile(r"[^\W\d_]{2,}(?:'s)?\s*\.?\s*")


def letter_in(box, n_choices, choices=()):
    """What a box holds -> the letter of one of n_choices, or None. choices: their texts."""
    if len(box) > MAX_BOX:
        return None
    plain = PREFIX.sub("", DRESS.sub(" ", box.translate(WIDE)).strip(), count=1).strip(" ?!\\")
    plain = plain[1:-1].strip() if plain[:1] + plain[-1:] in ("''", "<>") else plain
    match = LETTER.match(plain)
    rest = plain[match.end():] if match else ""
    letter = match[match.lastindex].upper() if match else None
    if match and not rest.strip(" .") and within(letter, n_choices):
        return letter

    same = option_that_says(box, choices) or option_that_says(plain, choices)
    if same or not match:
        return same
    own = choices[ascii_uppercase.index(letter)] if within(letter, len(choices)) else ""
    if own and spelled(rest) == spelled(own):
        return within(letter, n_choices)
    about_two = TEXT_OF_TWO.match(rest) and match[0].strip()[-1] in ".:)]"
    if SEVERAL.match(rest) and not about_two:
        return None
    if RULED_OUT.match(rest) or match[0].rstrip().endswith(".") and is_name(rest, own):
        return None
    return within(letter, n_choices)


# "D. B and C.": an option about options
TEXT_OF_TWO = re.compile(r"\s*[A-Za-z]\s+(?:and|or)\s+[A-Za-z]\s*\.?$")


def within(letter, n_choices):
    return letter if letter and letter in ascii_uppercase[:n_choices] else None


def is_name(rest, own):
    """botulinum behind "C.": a name, unless the option C begins so."""
    return bool(ONE_WORD.fullmatch(rest.strip())) and not spelled(own).startswith(spelled(rest))


def option_that_says(text, choices):
    """The letter of the one option with this text; without its case, if exactly one has it."""
    for same in (str, str.casefold):
        wanted = same(spelled(text))
        found = [i for i, choice in enumerate(choices) if same(spelled(choice)) == wanted]
        if wanted and len(found) == 1 and found[0] < len(ascii_uppercase):
            return ascii_uppercase[found[0]]
        if found:
            return None
    return None


def spelled(text):
    return clean(text[:MAX_BOX]).rstrip(". ").strip()
