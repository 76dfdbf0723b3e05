r"""What looks like mathematics and is none: told before any algebra, and compared as it stands.

    record(text)   a range, date, score, clock time, ratio, number in parts, formula: a value that
                   equals a record of the same form and nothing else.   4-1 is not 5-2, nor 3
    collection     {a, b}, (a, b), "a, b", unions of intervals: element by element
    named(texts)   symbols that algebra drops or reorders become names of their own: g'(t), M^T,
                   PQ, \vec{a}.    P^{-1}Q and QP^{-1} are two names

What is left must be readable: built of numbers, single letters, known functions and operators.
Everything else is text, and equal to the same text only.
"""
import re
from fractions import Fraction

from engine.notation import exact

# ---------------------------------------------------------------- records

MONTHS = {name: i + 1 for i, name in enumerate(
    "jan feb mar apr may jun jul aug sep oct nov dec".split())}
MONTH = ("(jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
         r"|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?")
DATES = [re.compile(pattern) for pattern in (
    rf"(?P<d>\d{{1,2}})(?:st|nd|rd|th)? (?:of )?(?P<m>{MONTH}),?(?: (?P<y>\d{{1,4}}))?",
    rf"(?P<m>{MONTH}) (?P<d>\d{{1,2}})(?:st|nd|rd|th)?(?:,? (?P<y>\d{{3,4}}))?",
    r"(?P<y>\d{4})-(?P<m>\d\d)-(?P<d>\d\d)")]
TIME = re.compile(r"(\d{1,2}):([0-5]\d)(?::([0-5]\d))?(?: ?([ap])\.?m\.?)?"
                  r"|(\d{1,2}) ?([ap])\.?m\.?")
PART = r"\d(?:[\d.,:]*\d)?(?: ?[ap]\.?m\.?)?(?:/\d+)?(?:\\?%|\^\\circ)?"
PARTS = re.compile(rf"(?P<head>(?:[A-Za-z]+ )*)(?P<parts>{PART}(?: ?- ?{PART}| to {PART})+)"
                   r"(?P<tail>(?: |\\text ?\{|\\,|\\ )+(?!sin|cos|tan|log|ln|pi)"
                   r"[A-Za-z][A-Za-z /]+\}?)?")
SLASHES = re.compile(r"\d+(?:/\d+){2,}|\d+(?:\.\d+){2,}")
COLONS = re.compile(r"[\d.,]+(?: ?: ?[\d.,]+)+")
TO = re.compile(r"\d+ to \d+")
MAX_FORMULA = 100
# Possessive (++), so that a hostile text is read one way only.
# N2O4, Ca(OH)_2, SO_4^{2-}, Fe^{3+}, 5'-GCA-3', RrYy, 1s^22s^2, H5N1
FORMULA = re.compile(
    r"(?=[^a-z]*[A-Z]|.*\ds\^)[\[\]()\d]*(?:\^\{?\d+\}?)?(?:[A-Z][a-z]{0,2}+|[spdf](?=\^)"
    r"|[()\[\]\d]|_\{?+\d++\}?+|\^\{?+\d*+[+-]?+\}?+| |(?<=\d)'-|-(?=\d'|[A-Z]))+[+-]?'?")


def record(text):
    """-> (form, value) of a text that is no mathematics, or None."""
    text = text.strip()
    if text.startswith("(") and text.endswith(")") and is_inner(text[1:-1]):
        text = text[1:-1].strip()
    low = text.casefold()
    for pattern in DATES:
        if match := pattern.fullmatch(low):
            month = match["m"]
            number = MONTHS.get(month[:3]) or int(month)
            return "date", (int(match["y"] or 0), number, int(match["d"]))

    if match := TIME.fullmatch(low):
        return time_of_day(match)
    if SLASHES.fullmatch(text):
        return "parts", tuple(re.split("([/.])", text))
    if match := PARTS.fullmatch(text):
        return "parts", tuple(re.split(" ?- ?| to ", match["parts"]))
    bare = re.sub(r"\\(?:text|mathrm) ?\{([A-Za-z0-9]+)\}", r"\1", text)
    if is_formula(bare):
        return "formula", re.sub(r"[_{} ]", "", bare)
    return None


def words_of(text):
    """The words around a range -> (before, after), "" where there are none."""
    match = PARTS.fullmatch(text.strip())
    if not match:
        return "", ""
    head = re.sub("^from $", "", match["head"].casefold()).strip()
    tail = re.sub(r"\\text|[\\{},]", "", match["tail"] or "").strip()
    return head, tail


def time_of_day(match):
    hour, minute, second, half, bare_hour, bare_half = match.groups()
    half = half or bare_half or ""
    return "time", (int(hour or bare_hour), int(minute or 0), int(second or 0), half)


def same_record(one, other, arithmetic):
    """Two texts of which at least one may be a record -> True, False, or None: neither is.

    arithmetic: the first stands in an equation, so that 10 - 3 in "x = 10 - 3 = 7" is a number.
    """
    a, b = record(one), record(other)
    if a and b and a[0] == b[0] == "time":
        return same_time(a[1], b[1])
    if (ratio := same_ratio(one, other, a, b)) is not None:
        return ratio
    if a == b:
        if a is None:
            return None
        pairs = zip(words_of(one), words_of(other))
        return all(not x or not y or same_word(x, y) for x, y in pairs)
    if arithmetic and not b and a and a[0] == "parts" and "/" not in a[1]:
        return None
    # an interval in words, a formula that is a product of letters: only the same form will do
    return False


def same_word(x, y):
    from engine.units import one_spelling
    return x == y or one_spelling(x) == one_spelling(y) is not None


def same_time(a, b):
    """4:20 pm and 16:20; 4:20 says neither half."""
    if a[3] and b[3]:
        return a == b
    if not a[3] and not b[3]:
        return a == b
    with_half, bare = (a, b) if a[3] else (b, a)
    hour = with_half[0] % 12 + (12 if with_half[3] == "p" else 0)
    return bare[1:3] == with_half[1:3] and bare[0] in (hour, with_half[0])


def same_ratio(one, other, a, b):
    """2:3:5 and 4:6:10. Not where both could be clock times; None: neither is a ratio."""
    if a and b and a[0] == b[0] == "time":
        return None
    x, y = ratio(one), ratio(other)
    if TO.fullmatch(one) and y is not None and ":" in other:
        x = [Fraction(part) for part in one.split(" to ")]
    if TO.fullmatch(other) and x is not None and ":" in one:
        y = [Fraction(part) for part in other.split(" to ")]
    if x is None and y is None:
        return None
    if x is None or y is None:
        known = y if x is None else x
        value = exact(one if x is None else other)
        if a and a[0] == "time" and y is None or b and b[0] == "time" and x is None:
            return False
        return value is not None and len(known) == 2 and known[1] * value == known[0]
    if len(x) != len(y):
        return False
    crossed = zip(x[1:], y[1:])
    return all(p * y[0] == q * x[0] for p, q in crossed)


def ratio(text):
    if not COLONS.fullmatch(text):
        return None
    parts = [exact(part) for part in text.split(":")]
    return None if None in parts or 0 in parts else parts


HYBRID = re.compile(r"(?:d\^?\{?\d?\}?)?sp\^?\{?\d?\}?(?:d\^?\{?\d?\}?)?")


def is_formula(text):
    r"""N2O4, SO_4^{2-}, 5'-GCA-3', RrYy: letters that are no factors.

    >>> is_formula("N_2O"), is_formula("A^2"), is_formula("AB"), is_formula("NaCl")
    (True, False, False, True)
    """
    if len(text) > MAX_FORMULA:
        return False
    if HYBRID.fullmatch(text):
        return True
    if not FORMULA.fullmatch(text) or not re.search("[A-Z]|s\\^", text):
        return False
    capitals = len(re.findall("[A-Z]", text))
    return bool(re.search(r"[A-Za-z)]\d|[A-Z][a-z]|\^\{?\d*[+-]\}?$|\d'|[A-Z]-[A-Z]|\d[spdf]\^",
                          text)
                or capitals > 1 and re.search(r"_\{?\d", text))


# ---------------------------------------------------------------- collections

OPEN = {"(": ")", "[": "]", r"\{": r"\}"}
PIECE = re.compile(r"\\[{}]|\\[A-Za-z]+|\\.|.", re.DOTALL)


def split_top(text, *separators):
    """The parts of a text between separators that stand in no bracket."""
    depth, parts, start = 0, [], 0
    for match in PIECE.finditer(text):
        piece = match[0]
        if piece in ("(", "[", "{", r"\{"):
            depth += 1
        elif piece in (")", "]", "}", r"\}"):
            depth -= 1
        elif piece in separators and depth == 0:
            parts.append(text[start:match.start()].strip())
            start = match.end()
    parts.append(text[start:].strip())
    return parts


WORDED = re.compile(r"(?:,? ?\\(?:text|textrm|mathrm) ?\{ ?,? ?(?:and|or) ?\} ?|,? (?:and|or) )")


def collection(text):
    r"""-> (brackets, parts); brackets "" for a bare list. None for a single thing.

    >>> collection("(1, 2]"), collection(r"\{3\}"), collection("1 and 2"), collection("(5)")
    (('(]', ['1', '2']), ('{}', ['3']), ('', ['1', '2']), None)
    """
    if not re.search(r"[<>]|\\(?:le|ge|ne)(?![A-Za-z])", text):
        text = WORDED.sub(", ", text)
    parts = split_top(text, ",", ";")
    if len(parts) > 1 and all(re.search(r"[^\W_]", part) for part in parts):
        return "", parts
    for opening in [*OPEN, "{"]:
        if text.startswith(opening):
            for closing in [*OPEN.values(), "}"]:
                inner = text[len(opening):-len(closing)]
                if text.endswith(closing) and is_inner(inner):
                    brackets = opening[-1] + closing[-1]
                    parts = split_top(inner, ",", ";")
                    if len(parts) > 1 or opening == r"\{":
                        return brackets, parts if inner.strip() else []
    return None


def is_inner(text):
    """Whether the brackets around it belong together: not in (1, 2), (3, 4)."""
    depth = 0
    for piece in PIECE.findall(text):
        depth += {"(": 1, "[": 1, r"\{": 1, ")": -1, "]": -1, r"\}": -1}.get(piece, 0)
        if depth < 0:
            return False
    return depth == 0


def both_signs(text):
    """2 \\pm 3 -> 2 + 3, 2 - 3; a text without or with several signs stays."""
    signs = re.findall(r"\\pm(?![A-Za-z])|\\mp(?![A-Za-z])", text)
    if len(signs) != 1 or "," in text:
        return text
    plus, minus = text.replace(signs[0], "+"), text.replace(signs[0], "-")
    return f"{plus.removeprefix('+').strip()}, {minus}"


# ---------------------------------------------------------------- inequalities as intervals

VALUE = r"(?:[^<>=,\\]|\\(?:frac|sqrt|pi|infty|cdot)(?![A-Za-z]))+"
SIGN = r"(<|>|\\le(?![A-Za-z])|\\ge(?![A-Za-z]))"
ONE_SIDED = re.compile(rf"([a-z]) ?{SIGN} ?({VALUE})")
TWO_SIDED = re.compile(rf"({VALUE}?) ?{SIGN} ?([a-z]) ?{SIGN} ?({VALUE})")
MIRROR = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}
SUCH_THAT = re.compile(r"\\\{ ?[a-z](?: ?\\in ?\\mathbb ?\{R\})? ?(?:\||:) ?(.*?) ?\\\}")
LOW = r"(-\infty"
HIGH = r"\infty)"


def as_intervals(text):
    r"""x<-3 or x>3 -> ("x", r"(-\infty,-3)\cup (3,\infty)"); an interval has no letter; else None.

    >>> as_intervals("1 < x < 4"), as_intervals("(1, 4)"), as_intervals("x > y + 1 = 2")
    (('x', '(1,4)'), ('', '(1, 4)'), None)
    """
    such = SUCH_THAT.fullmatch(text)
    text = such[1] if such else text
    text = re.sub(r"^[a-z] ?\\in ?(?=[\[(])", "", text)
    if re.match(r"[\[(].*[\])]$", text) and "," in text:
        return "", text.replace("+\\infty", "\\infty")
    pieces = re.split(r" ?\\text ?\{ ?or ?\} ?| or ", text)
    intervals, letters = [], set()
    for piece in pieces:
        bounds = re.split(r" ?\\text ?\{ ?and ?\} ?| and |, ?", piece)
        found = bounded_by(bounds, letters)
        if found is None:
            return None
        intervals.append(found)
    return (letters.pop(), r"\cup ".join(intervals)) if len(letters) == 1 else None


def bounded_by(bounds, letters):
    """One or two conditions on a letter -> the interval between them, or None."""
    low, high = LOW, HIGH
    for bound in bounds:
        bound = bound.strip()
        two = TWO_SIDED.fullmatch(bound)
        one = ONE_SIDED.fullmatch(bound)
        if two and two[1].strip() and same_direction(two[2], two[4]):
            conditions = [(MIRROR[two[2]], two[1]), (two[4], two[5])]
            letters.add(two[3])
        elif one:
            conditions = [(one[2], one[3])]
            letters.add(one[1])
        else:
            return None
        for sign, value in conditions:
            value = value.strip()
            if re.search("[a-z]", re.sub(r"\\[a-z]+", "", value)) or not value:
                return None
            if sign in ("<", r"\le"):
                if high != HIGH:
                    return None
                high = value + (")" if sign == "<" else "]")
            else:
                if low != LOW:
                    return None
                low = ("(" if sign == ">" else "[") + value
    ends = exact(low[1:]), exact(high[:-1])
    # x > 2 and x < 1: no interval, and so left to algebra
    return None if None not in ends and ends[0] >= ends[1] else f"{low},{high}"


def same_direction(one, other):
    return {one, other} <= {"<", r"\le"} or {one, other} <= {">", r"\ge"}


# ---------------------------------------------------------------- what algebra may read

COMMANDS = set("""
    frac sqrt cdot times div pm mp pi infty sin cos tan cot sec csc arcsin arccos arctan sinh cosh
    tanh log ln exp max min gcd binom sum prod int lim to le ge ne lt gt in cup cap setminus
    emptyset mathbb lfloor rfloor lceil rceil begin end alpha beta gamma delta epsilon varepsilon
    zeta eta theta kappa lambda mu nu xi rho sigma tau phi varphi chi psi omega Gamma Delta Theta
    Lambda Sigma Phi Psi Omega circ hline limits quad overline det""".split())
FUNCTIONS = {"sin", "cos", "tan", "log", "ln", "exp", "sqrt", "pi", "max", "min", "gcd", "dx", "dt",
             "dy", "array", "pmatrix", "bmatrix", "vmatrix", "matrix", "cc", "ccc", "cccc", "cases"}
COMMAND = re.compile(r"\\([A-Za-z]+)")
# a letter at once before a digit, unless an index or a command's argument
LABELLED = re.compile(r"(?<![\\A-Za-z])[A-HJ-Za-hj-z]\d")
CROSS = re.compile(r"(?:[A-Za-z]'*|\}) *\\times *(?:[A-Za-z]|\\(?:vec|hat|bar)(?![a-z]))")


UNREADABLE = re.compile(r"[\"`@#?;~$%]|\\ldots|\.\.|!!|'|\d_|(?:^|\s)\([a-z]\)\s")


def is_readable(text):
    """Whether algebra reads all of it as it is meant."""
    if not text.isascii() or UNREADABLE.search(text):
        return False
    if not COMMANDS.issuperset(COMMAND.findall(text)):
        return False
    if re.search(r"\\circ", re.sub(r"\^ ?\\circ", "", text)):
        return False
    bare = COMMAND.sub(" ", text)
    # dy/dx is no quotient of products
    if re.search("(?<![A-Za-z])d[a-z](?![A-Za-z])", bare) and "\\int" not in text:
        return False
    if LABELLED.search(bare) or re.search(r"\d'|\d\.\d+\.", bare):
        return False
    for run in re.findall("[A-Za-z]{2,}", bare):
        if run in FUNCTIONS or re.fullmatch("[a-z]{1,2}[A-Z]", run):
            continue
        if len(run) > 3 or not run.islower() or run in ("not", "and", "or", "if", "no"):
            return False
    return True


FACTOR = (r"[A-Za-z](?:_\{[^{}]*\}|_\w)?"
          r"(?:\^(?:\{[^{}]*\}|\\dagger|[-+]?[\w*]))?")
CAPITAL = re.compile(r"[A-Z](?:_\{[^{}]*\}|_\w)?|[a-z](?:_\{[^{}]*[A-Z][^{}]*\}|_[A-Z])")
GREEK_CAPITAL = re.compile(
    r"\\(?:Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Phi|Psi|Omega)(?![A-Za-z])")
RUN = re.compile(rf"(?<!\\mathbb\{{)(?<!\\mathbb \{{)(?<![\\A-Za-z])"
                 rf"{FACTOR}(?: ?(?:\\cdot )? ?{FACTOR})*(?![A-Za-z])")
TRANSPOSED = re.compile(r"\^(?:T|H|\*|\\dagger|\{(?:T|H|\*|\\dagger)\})")
ACCENT = re.compile(
    r"\\(?:vec|hat|bar|tilde|dot|ddot|widehat|overrightarrow|mathcal|overline) ?"
    r"(?:\{[A-Za-z]+\}|[A-Za-z])")
APPLIED = re.compile(r"(?<![\\A-Za-z])(?:[fghFGHPCEV]'*|[A-Za-z]'+)"
                     r"(?:\^\{\(\d\)\})?(?:_\w|_\{\w+\})?\([^()]*(?:\([^()]*\)[^()]*)*\)")
SPREAD = re.compile(r"[A-Z]\([^()]*[A-Z][^()]*\)|\([^()]*[A-Z][^()]*\)[A-Z]")
PRIMED = re.compile(r"(?<![\\A-Za-z])[A-Za-z](?:_\w)?'+")


def named(texts):
    r"""Texts -> the same with a name of its own for each symbol that algebra drops or reorders.

    >>> named(["2PQ + 1", "1 + QP"]), named(["g'(t)", "g(t)"])
    (['2 n_{900}  + 1', '1 +  n_{901} '], [' n_{900} ', ' n_{901} '])
    """
    found = {}

    def name(match):
        key = re.sub(r" |\\cdot|[{}]", "", match[0])
        number = found.setdefault(key, 900 + len(found))
        return f" n_{{{number}}} "

    def product(match):
        text = match[0]
        if TRANSPOSED.search(text):
            return name(match)
        capitals = len(re.findall(r"(?<![\^_{\\a-z])[A-Z]", text.replace("\\cdot", "")))
        factors = len(re.findall("[A-Za-z]", re.sub(r"\\[a-z]+|[_^]\{?\w\}?", "", text)))
        if capitals > 1 and factors > 1:
            return name(match)
        # math-verify knows no difference between x^a and x^A
        return CAPITAL.sub(name, text)

    result = []
    for text in texts:
        for pattern in (APPLIED, PRIMED, ACCENT, SPREAD, GREEK_CAPITAL):
            text = pattern.sub(name, text)
        text = re.sub(r" ?\\cdot ?(?=[A-Z](?![A-Za-z]))", r"\\cdot ", text)
        result.append(RUN.sub(product, text))
    return result


def folded(text):
    """Texts without what tells no answers apart: space, "the", and capitals where they say nothing.

    They do in x and X, NaCl, RrYy, aabb; they do not in Blue, BLUE, blue.
    """
    text = re.sub(r"\\(?:text|mathrm) ?|[{}]|\\[,;: ]", "", text)
    bare = re.sub(r"\s", "", text)
    if len(bare) < 3 and bare.casefold() != "no" or re.search(r"[\\^_=+]", bare):
        return bare
    text = re.sub("^(?:[Tt]he|[Aa]n?) (?=[A-Za-z]{3})", "", text)
    return "".join(word if is_cased(word) else word.casefold() for word in text.split())


def is_cased(word):
    """NaCl, tRNA, H1N1, AABB: not blue, Blue or BLUE."""
    ordinary = word.lower(), word.upper(), word.capitalize()
    return (word not in ordinary and word != word.title() or re.search(r"\d", word) is not None
            or len(word) > 3 and PAIRED.fullmatch(word) is not None)


PAIRED = re.compile(r"(?:([a-z])\1)+", re.IGNORECASE)


def is_words(text):
    return all(character.isalpha() or character in " '-" for character in text)

