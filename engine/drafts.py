r"""Reads the JSON objects in what a generator wrote; the one place that says what is repaired.

    text --objects--> Read(fields, slips, reason), in order --judged--> (question, reason, slips)

A model writes JSON by hand, and makes the slips of REPAIRS. Each is mended where only one reading
is possible, and counted by its name (repaired_share, repairs in metrics.jsonl). Everything else is
refused with a reason: a missing comma, a quote inside a string, a value without quotes or cut off.

LaTeX is what raw JSON gets wrong without a word: it reads "\frac" as a form feed and "rac". A
backslash of a draft is LaTeX's where

    \b \f         a letter follows: a backspace or form feed before a letter never meant itself
    \t \n \r      the letters complete a command that exists: "\theta", "\neq", "\rho"
    \u            no four hexadecimal digits follow: "\underline"
    any other     JSON knows no such escape: "\(", "\sqrt", "\alpha", "\,"

and JSON's elsewhere. "\\" is one backslash, so a draft that escapes as it should is read by the
letter. One exception: behind a bare "\begin", "\\" ends the row of a matrix and stays.
"""
import functools
import json
import re
from string import ascii_uppercase
from typing import NamedTuple

REPAIRS = {
    "latex": r'a LaTeX backslash that is not doubled: "\frac{1}{2}"',
    "trailing_comma": '["a", "b",]',
    "missing_brace": "the last brace is missing, and nothing follows",
    "quotes": "single or curly quotes: {'question_text': ...}; an apostrophe behind a backslash",
    "bare_name": 'a name without quotes: {question_text: "..."}',
    "python_word": "None, True or False",
    "number": "options or a key that are numbers: [14, 15, 16, 17]",
    "lettered": 'options under their letters: {"A": "14", "B": "15", ...}',
    "other_name": "question, options or answer in place of the name asked for",
}

FIELDS = ("question_text", "choices", "ground_truth")
OTHER_NAMES = {"question_text": "question", "choices": "options", "ground_truth": "answer"}

# Brackets in brackets; a question needs 2. The limit keeps the search linear in the text.
MAX_DEPTH = 8
# Longer than any answer of 8,192 tokens. Of a longer text the end is read, where the question is.
MAX_CHARS = 400_000


class Read(NamedTuple):
    """An object of a text: a dict, or None and, where it was meant as a question, the reason."""
    fields: dict | None
    slips: list
    reason: str | None


class Number(str):
    """A JSON number as it was written: 1.50 stays 1.50."""


# ---------------------------------------------------------------- from a text to questions

def judged(text, check, needed=FIELDS):
    """Every object of a text that was meant as a question -> (question, reason, slips), in order.

    check: a dict with at least one of FIELDS -> (question, None) or (None, reason). Objects inside
    a question or an abstention belong to it; inside any other they are looked at too.
    """
    for read in objects(text):
        if read.fields is not None:
            yield from judged_inside(read.fields, read.slips, check, needed)
        elif read.reason:
            yield None, read.reason, read.slips


def judged_inside(value, slips, check, needed):
    """The same of one value of JSON."""
    inner = value
    if isinstance(value, dict):
        fields, more = tidied(value, needed)
        # a wrapper such as {"question": {...}} has none
        if any(name in fields for name in FIELDS):
            question, reason = check(fields)
            if question is None and "missing_brace" in slips:
                reason = "truncated"
            yield question, reason, slips + more
            if question or reason == "abstained":
                return
        inner = list(value.values())
    if isinstance(inner, list):
        for part in inner:
            yield from judged_inside(part, slips, check, needed)


def was_meant(text):
    """Does a text begin an object and name a field? It may have broken off before the first."""
    start = OBJECT_START.search(text[-MAX_CHARS:])
    return bool(start and MEANT.search(text[-MAX_CHARS:], start.start()))


def objects(text):
    """A text -> Read of its outermost objects, and of those that broke off."""
    text = text[-MAX_CHARS:]
    read_to = 0
    # no question begins behind the last of its names
    last = max(map(text.rfind, (*FIELDS, *OTHER_NAMES.values())))
    for match in OBJECT_START.finditer(text):
        if match.start() > last:
            break
        if match.start() < read_to:
            continue
        read, end = read_object(text, match.start())
        yield read
        # what stands in one that broke off is tried for itself
        if read.fields is not None:
            read_to = end


# ---------------------------------------------------------------- from a text to an object

# The braces of LaTeX and of prose do not look like this.
OBJECT_START = re.compile(
    r"""\{(?=\s*(?:"[^"\\]*"|'[^'\\]*'|“[^“”\\]*”|[A-Za-z_]\w*)\s*:)""")
MEANT = re.compile(rf"(?:{'|'.join(FIELDS)})[\"'”]?\s*:")

# What stands in an object. A string ends at its quote or, cut off, with the text; in single quotes
# an apostrophe between letters ends none.
TOKEN = re.compile(r"""
    (?P<space>   \s+ )
  | (?P<mark>    [{}\[\],:] )
  | (?P<string>  " [^"\\]* (?: \\. [^"\\]* )* (?: " | (?P<cut1> \\?\Z ) ) )
  | (?P<single>  ' [^'\\]* (?: (?: \\. | (?<=[^\W\d_]) ' (?=[^\W\d_]) ) [^'\\]* )*
                 (?: ' | (?P<cut2> \\?\Z ) ) )
  | (?P<curly>   “ [^“”\\]* (?: \\. [^“”\\]* )* (?: ” | (?P<cut3> \\?\Z ) ) )
  | (?P<number>  -?\d{1,999} (?: \.\d+ )? (?: [eE][+-]?\d+ )? )
  | (?P<word>    [A-Za-z_]\w* )
  | (?P<other>   . )
""", re.VERBOSE | re.DOTALL)
COLON = re.compile(r"\s*:")
JSON_WORDS = ("null", "true", "false", "NaN", "Infinity")
PYTHON_WORDS = {"None": "null", "True": "true", "False": "false"}
# What ends a value, by kind of token or as a mark, and what may follow. Where the text ends, a
# number or a word may have been cut.
WHOLE = ("string", "single", "curly", "}", "]")
VALUE_ENDS = (*WHOLE, "number", "word")
BEHIND_VALUE = (",", ":", "}", "]")
# What may follow an object without its last brace: nothing, or the end of a fence.
NOTHING = re.compile(r"\s*(?:```\s*)?\Z")


def read_object(text, start):
    """The object that opens at text[start] -> (Read, one past where reading ended).

    Two readings of one character nest, at most MAX_DEPTH deep, or disagree on whether it stands in
    a string and in which quotes. So no character is read more than a few dozen times, whatever the
    text.
    """
    written, slips, end = as_json(text, start)
    if written is None:
        reason = "truncated" if end == len(text) else "bad_json"
    else:
        try:
            # strict=False: a line break inside a string is a line break
            fields = json.loads(written, strict=False, parse_int=Number, parse_float=Number)
            return Read(fields, slips, None), end
        except ValueError:
            reason = "truncated" if "missing_brace" in slips else "bad_json"
    return Read(None, [], reason if MEANT.search(text, start, end) else None), end


def as_json(text, start):
    """The object that opens at text[start] -> (JSON without slips or None, their names, end)."""
    parts, slips, depth = [], [], 0
    last, end = "", start
    for token in TOKEN.finditer(text, start):
        kind, piece = token.lastgroup, token[0]
        end = token.end()
        if kind == "space":
            continue
        # a comma or a colon is missing
        if last in VALUE_ENDS and piece not in BEHIND_VALUE:
            end = token.start()
            break

        if kind == "mark":
            depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(piece, 0)
            if piece in "}]" and parts[-1] == ",":
                parts.pop()
                slips.append("trailing_comma")
        elif kind in ("string", "single", "curly"):
            if end == len(text) and cut_off(token):
                return None, [], end
            piece, more = as_string(piece, kind)
            slips += more
        elif kind == "word":
            named = COLON.match(text, end)
            if named:
                slips.append("bare_name")
            elif piece in PYTHON_WORDS:
                slips.append("python_word")
            elif piece not in JSON_WORDS:
                return None, [], end
            piece = f'"{piece}"' if named else PYTHON_WORDS.get(piece, piece)
        elif kind == "other":
            end = token.start()
            break

        parts.append(piece)
        if depth == 0:
            return " ".join(parts), slips, end
        if depth > MAX_DEPTH:
            return None, [], end
        last = kind if kind != "mark" else piece

    if depth == 1 and last in WHOLE and NOTHING.match(text, end):
        return " ".join([*parts, "}"]), [*slips, "missing_brace"], len(text)
    return None, [], end


def cut_off(token):
    return any(token[name] is not None for name in ("cut1", "cut2", "cut3"))


# ---------------------------------------------------------------- backslashes

# What completes a command behind \t, \n and \r. "\n" is a line break before anything else.
T_COMMANDS = (
    "an|anh|au|ag|o|op|imes|iny|ilde|heta|herefore|hicksim|hickapprox|hinspace|hickspace|frac"
    "|binom|ext[a-z]*|riangle[a-z]*|woheadrightarrow|woheadleftarrow")
N_COMMANDS = (
    "u|e|eq|eg|abla|ot|otin|otag|i|mid|leq|geq|leqq|geqq|leqslant|geqslant|less|gtr|cong|sim"
    "|parallel|exists|subset|supset|subseteq|supseteq|prec|succ|preceq|succeq|vdash|vDash|Vdash"
    "|VDash|earrow|warrow|(?:left|right|leftright)arrow|(?:Left|Right|Leftright)arrow"
    "|triangle(?:left|right)(?:eq)?|shortmid|shortparallel|orm|ormalsize|ewline|ewcommand|oindent"
    "|olimits|onumber|obreak|atural|egthinspace|egmedspace|egthickspace")
R_COMMANDS = (
    "ho|angle|ight[a-z]*|m|oot|floor|ceil|brace|brack|Vert|vert|group|moustache|ef|ank|times"
    "|isingdotseq|lap|aise|aisebox|elax|enewcommand|ule")
# "i)" and "e." number the lines of a list; no relation stands before a bracket that closes.
LISTED = r"n[ei]\s*[).:]"
COMMAND = (
    rf"(?:[bf][A-Za-z]|(?:t(?:{T_COMMANDS})|(?!{LISTED})n(?:{N_COMMANDS})|r(?:{R_COMMANDS}))"
    r"(?![A-Za-z]))")
# A whole escape of JSON, or a backslash alone.
BACKSLASH = re.compile(rf'\\(?:(?!{COMMAND})(?:["\\/bfnrt]|u[0-9a-fA-F]{{4}}))?')
BARE_BEGIN = re.compile(r"(?<!\\)(?:\\\\)*\\begin\b")
# "What\'s left", "f\'(x)"; in "Poincar\'e" it is an accent.
APOSTROPHE = re.compile(r"\\'(?=(?:s|t|re|ve|ll|d|m)\b|[^A-Za-z{\\]|\Z)")


def as_string(piece, kind="string"):
    r"""A string in any quotes -> (a JSON string, names of its slips).

    >>> print(*as_string(r'"x\nis \theta, \(\frac{1}{2}\)"'))
    "x\nis \\theta, \\(\\frac{1}{2}\\)" ['latex']
    >>> print(*as_string(r'"x\nis \\theta"'))
    "x\nis \\theta" []
    """
    inside, slips = piece[1:-1], []
    if kind != "string":
        slips.append("quotes")
        # what JSON has to escape, and what it need not
        inside = re.sub(r'\\(.)|"', unquoted, inside, flags=re.DOTALL)

    bare = [escape for escape in BACKSLASH.finditer(inside) if escape[0] == "\\"]
    if bare:
        apostrophes = [escape for escape in bare if APOSTROPHE.match(inside, escape.start())]
        slips += ["quotes"] * bool(apostrophes) + ["latex"] * (len(apostrophes) < len(bare))
        in_matrix = BARE_BEGIN.search(inside) is not None
        inside = BACKSLASH.sub(functools.partial(doubled, in_matrix=in_matrix), inside)
    return f'"{inside}"', slips


def doubled(escape, in_matrix):
    """A lone backslash becomes two, as does the end of a matrix's row; one before an apostrophe
    goes; any other escape stays."""
    text, end = escape.string, escape.end()
    if escape[0] == "\\":
        return "" if APOSTROPHE.match(text, escape.start()) else r"\\"
    ends_row = in_matrix and escape[0] == r"\\" and not text[end:end + 1].isalpha()
    return escape[0] * 2 if ends_row else escape[0]


def unquoted(found):
    r"""In single or curly quotes: \' is an apostrophe, and " has to be escaped."""
    if found[0] == '"':
        return r'\"'
    return found[1] if found[1] in "'“”" else found[0]


# ---------------------------------------------------------------- what stands in the fields

def tidied(fields, needed=FIELDS):
    """A dict as it was written -> (a dict whose options and key are texts, names of the slips).

    Whatever has more than one reading stays as it is.
    """
    fields, slips = dict(fields), []
    renamed = {name: fields[other] for name, other in OTHER_NAMES.items()
               if name not in fields and other in fields}
    whole = all(name in fields or name in renamed for name in needed)
    if renamed and whole and isinstance((fields | renamed)["question_text"], str):
        fields |= renamed
        slips.append("other_name")

    lettered = in_letter_order(fields.get("choices"))
    if lettered:
        fields["choices"] = lettered
        slips.append("lettered")

    choices, key = fields.get("choices"), fields.get("ground_truth")
    numbers = [*choices, key] if isinstance(choices, list) else [key]
    if any(isinstance(number, Number) for number in numbers):
        fields["ground_truth"] = plain(key)
        if isinstance(choices, list):
            fields["choices"] = list(map(plain, choices))
        slips.append("number")
    # Number is a str; as a float the check calls it wrong_type
    if isinstance(fields.get("question_text"), Number):
        fields["question_text"] = float(fields["question_text"])
    return fields, slips


def plain(value):
    return str(value) if isinstance(value, Number) else value


LETTER = re.compile(r"\(?([A-Za-z])\)?[.:]?")


def in_letter_order(choices):
    """{"A": "14", "B": "15", ...} -> ["14", "15", ...], or None for anything else.

    Also [{"A": "14"}, ...] and [{"label": "A", "text": "14"}, ...], with the letters in any order.
    """
    pairs = []
    if isinstance(choices, dict):
        pairs += choices.items()
    elif isinstance(choices, list) and all(isinstance(choice, dict) for choice in choices):
        for choice in choices:
            named = set(choice) == {"label", "text"}
            pairs += [(choice["label"], choice["text"])] if named else choice.items()
    if not all(isinstance(name, str) and LETTER.fullmatch(name) for name, _ in pairs):
        return None
    by_letter = {LETTER.fullmatch(name)[1].upper(): text for name, text in pairs}
    letters = sorted(by_letter)
    if not pairs or len(letters) < len(pairs) or letters != list(ascii_uppercase[:len(pairs)]):
        return None
    return [by_letter[letter] for letter in letters]
