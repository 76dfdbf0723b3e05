r"""One spelling for an answer: signs, dresses and labels that change no meaning, and exact numbers.

    clean(text)    5³ -> 5^{3}      \boxed{\text{Answer: } 7} -> 7      0.\dot{6} -> 0.\overline{6}
    exact(text)    -> Fraction, or None where the text is no rational number

No algebra, no floats: 2^{70}+1 is not 2^{70}, and 0.333 is not 1/3.
"""
import math
import re
import unicodedata
from fractions import Fraction

# ---------------------------------------------------------------- signs

SIGNS = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": r"\times ", "·": r"\cdot ",
    "⋅": r"\cdot ", "∙": r"\cdot ", "÷": r"\div ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ",
    "≈": r"\approx ", "±": r"\pm ", "∓": r"\mp ", "∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ",
    "∈": r"\in ", "∉": r"\notin ", "∅": r"\emptyset ", "⟨": r"\langle ", "⟩": r"\rangle ",
    "∠": r"\angle ", "△": r"\triangle ", "′": "'", "″": "''", "‴": "'''", "’": "'", "‘": "'",
    "“": '"', "”": '"', "…": r"\ldots ", "→": r"\to ", "⇒": r"\Rightarrow ", "∕": "/", "⁄": "/",
    "°": r"^\circ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}",
    "ℚ": r"\mathbb{Q}", "∧": r"\land ", "∨": r"\lor ", "¬": r"\neg ", "∀": r"\forall ",
    "∃": r"\exists ", "∇": r"\nabla ", "∂": r"\partial ", "∴": r"\therefore ", "∥": r"\parallel ",
    "⊥": r"\perp ", "≅": r"\cong ", "∘": r"\circ ", "⊗": r"\otimes ", "∑": r"\sum ",
    "∫": r"\int ", "∏": r"\prod ", "‰": r"\permille ", "\u00ad": "", "\u200b": "", "\ufeff": "",
}
GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta",
    "η": "eta", "θ": "theta", "κ": "kappa", "λ": "lambda", "μ": "mu", "µ": "mu", "ν": "nu",
    "ξ": "xi", "π": "pi", "ρ": "rho", "σ": "sigma", "τ": "tau", "φ": "phi", "χ": "chi",
    "ψ": "psi", "ω": "omega", "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Π": "Pi",
    "Σ": "Sigma", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega", "\u2126": "Omega",
}
SIGNS |= {letter: rf"\{name} " for letter, name in GREEK.items()}
HIGH = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ"
LOW = "₀₁₂₃₄₅₆₇₈₉₊₋"
HIGH_RUN = re.compile(rf"(?<=[^\s])([{HIGH}]+)(?!⁄)")
LOW_RUN = re.compile(f"([{LOW}]+)")
PLAIN = str.maketrans(HIGH + LOW, "0123456789+-n0123456789+-")
VULGAR = re.compile("[¼-¾⅐-⅞]")


def plain_signs(text):
    """Unicode's other signs in LaTeX: superscripts, fractions in one sign, wide and Greek."""
    if text.isascii():
        return text
    text = re.sub(f"([{HIGH}]+)⁄([{LOW}]+)", raised_fraction, text)
    text = HIGH_RUN.sub(raised, text)
    text = LOW_RUN.sub(lowered, text)
    text = VULGAR.sub(vulgar, text)
    text = "".join(SIGNS.get(sign) or wide(sign) for sign in text)
    return text


def raised_fraction(run):
    return rf"\frac{{{run[1].translate(PLAIN)}}}{{{run[2].translate(PLAIN)}}}"


def raised(run):
    return f"^{{{run[1].translate(PLAIN)}}}"


def lowered(run):
    return f"_{{{run[1].translate(PLAIN)}}}"


def vulgar(sign):
    value = Fraction(unicodedata.numeric(sign[0])).limit_denominator(100)
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def wide(sign):
    """Full-width forms and odd spaces as their plain ones; other signs stay."""
    if "\uff01" <= sign <= "\uff5e":
        return chr(ord(sign) - 0xFEE0)
    return " " if sign.isspace() else sign


# ---------------------------------------------------------------- dresses and labels

SIZES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
NUMERALS = dict(zip(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty".split(), range(21)))
TENS = dict(zip("thirty forty fifty sixty seventy eighty ninety".split(), range(30, 100, 10)))
END = "(?![A-Za-z])"


def fraction_arguments(match):
    r"""\frac12, \frac1{12} -> with braces."""
    second = "{" if match[2] == "{" else f"{{{match[2]}}}"
    return rf"\frac{{{match[1]}}}{second}"



def unit_fraction(match):
    r"""\frac{\text{m}}{\text{s}^2} -> \text{m/s^2}"""
    power = f"^{match[3]}" if match[3] else ""
    return rf"\text{{{match[1]}/{match[2]}{power}}}"


REWRITES = [(re.compile(pattern), new) for pattern, new in [
    (r"\s+", " "),
    (rf"\\(?:left|right|displaystyle|textstyle|boldsymbol|bm|emph|[Ll]arge|LARGE|small){END}|\\!",
     ""),
    (r"\\phantom ?\{[^{}]*\}|\\(?:checkmark|blacksquare|square|qed|therefore)" + END, ""),
    (r"</?(?:b|i|u|em|strong|sub|sup)>", ""),
    (r"√ ?(\d+|[a-z])", r"\\sqrt{\1}"),
    (r"∛ ?(\d+|[a-z])", r"\\sqrt[3]{\1}"),
    (r"(?<![\\A-Za-z])(?:inf|infinity)" + END, r"\\infty "),
    (r"\\(?:varnothing|O)" + END, r"\\emptyset"),
    (r"\\[dtc]frac" + END, r"\\frac"),
    (r"\\frac ?(\d) ?(\d|\{)", fraction_arguments),
    (r"(\\frac ?\{[^{}]*\}) ?(\d)", r"\1{\2}"),
    (r"\\(?:dots|cdots|dotsc|dotsb)" + END + r"|(?<![.\d])\.\.\.(?!\.)|(?<=\d)\.\.\.(?!\.)",
     r"\\ldots "),
    (r"\^ ?\{ ?\\circ ?\}|\^ ?\\circ" + END + r"|\\degree" + END, r"^\\circ"),
    (r"(?<=\d) ?(?:\\text\{ ?degrees? ?\}|degrees?" + END + ")", r"^\\circ"),
    # g^{\prime}(x)
    (r"\^ ?(?:\{ ?\\prime ?\}|\\prime" + END + ")", "'"),
    (r"\^ ?\{ ?\\prime ?\\prime ?\}", "''"),
    (r"\^ ?\{? ?(?:\\top|\\intercal|T|\\mathsf ?\{?T\}?|\\mathrm ?\{T\}) ?\}?" + END, "^T"),
    (r"\\lbrace" + END, r"\\{"),
    (r"\\rbrace" + END, r"\\}"),
    (r"\\langle" + END, "("),
    (r"\\rangle" + END, ")"),
    (r"\\[lr]vert" + END + r"|\\mid" + END, "|"),
    (r"\\(?:operatorname|text|mathrm) ?\{ ?(max|min|gcd|lcm|sin|cos|tan|log|ln|exp) ?\}",
     r"\\\1 "),
    (r"\\(?:operatorname|text|mathrm) ?\{ ?GCD ?\}", r"\\gcd "),
    (r"\\(?:operatorname|text|mathrm) ?\{ ?LCM ?\}", r"\\lcm "),
    (r"(?<![\\A-Za-z])(max|min|gcd|lcm)(?= ?(?:\(|\\\{))", r"\\\1 "),
    (r"\\(?:mathbf|boldsymbol) ?\{([A-Za-z])\}", r" \1"),
    (r"\\(?:color|textcolor) ?\{[a-z]*\} ?(?=\{)", ""),
    (r"\\(?:leqslant|leq)" + END, r"\\le"),
    (r"\\(?:geqslant|geq)" + END, r"\\ge"),
    (r"\\neq" + END, r"\\ne"),
    (r"<=", r"\\le "),
    (r">=", r"\\ge "),
    (r"\\(?:ce|pu) ?\{([^{}]*)\}", r"\1"),
    # 10{,}000 and 10\,000: not 1,\,200, which is a list
    (r"(?<=\d)(?:\{,\}|\\,|\\ |,\\!|\\!|')(?=\d{3}(?!\d))", ","),
    (r"(?<=\d)\{,\}(?=\d)", ","),
    # [0,1] U [2,3]
    (r"(?<=[\])]) ?U ?(?=[\[(])", r"\\cup "),
    # 0.\dot{6}, 0.\dot{1}2\dot{3}, 0.\bar{6}, 0.1(6)
    (r"(?<=\d\.)(\d*)\\dot ?\{?(\d)\}?(\d*)\\dot ?\{?(\d)\}?$", r"\1\\overline{\2\3\4}"),
    (r"(?<=\d\.)(\d*)\\dot ?\{?(\d)\}?$", r"\1\\overline{\2}"),
    (r"(?<=[\d.])\\bar ?\{(\d+)\}", r"\\overline{\1}"),
    (r"(?<=\d\.)(\d*)\((\d+)\)$", r"\1\\overline{\2}"),
    (r"^(-?\d+)\.(\d*?)(\d)\3\3+ ?\\ldots ?$", r"\1.\2\\overline{\3}"),
    # 10^-4, 6x10^4
    (r"\^ ?(-\d+)(?![\d.])", r"^{\1}"),
    (r"\^ ?(\d\d+)(?![\d.])", r"^{\1}"),
    (r"(?<=\d) ?x ?(?=10 ?\^)", r" \\times "),
    (r"(?<!\\)sqrt ?\(([^()]*)\)|\\sqrt ?\(([^()]*)\)", r"\\sqrt{\1\2}"),
    (r"(?<=\d) ?%", r"\\%"),
    (r"(?<=\d)( ?)(?:\\text ?\{)? ?per ?cent(?:age)? ?\}?$", r"\1\\%"),
    (r"^\{ ?(-?\w+) ?\\over ?(\w+) ?\}$", r"\\frac{\1}{\2}"),
    (r"(?<=\d)(?: |\\ |~|\\,)*(?:\\(?:text|mathrm) ?\{)? ?dozen ?\}?" + END, r" \\cdot 12"),
    (r"^\\(?:text(?:bf|it)?|mathrm) ?\{ ?((?i:(?:the )?(?:final )?ans(?:wer)? ?(?:is)? ?:?)) ?\}",
     r"\1 "),
    (r"^(?i:(?:the )?(?:final )?ans(?:wer)? ?(?:(?:is)? ?[:=]|is)) ?(?!not )(?=\S)", ""),
    (r"^<([^<>]*,[^<>]*)>$", r"(\1)"),
    (r"\\frac ?\{\\(?:text|mathrm) ?\{([^{}]*)\}\}\{\\(?:text|mathrm) ?\{([^{}]*)\}"
     r"(?:\^\{?(\d)\}?)?\}$", unit_fraction),
    (r"^(?:\\text ?\{ ?)?(?i:all real numbers|all reals|the real numbers)\.?\}?$",
     r"\\mathbb{R}"),
    # space around it, and one full stop: 0.333... is not 0.333
    (r"^(?:\\[,;: ]|\\q?quad| )+|(?:\\[,;: ]|\\\\|\\q?quad|~| )+$|(?<!\.)\.$", ""),
]]
SIZED = re.compile(
    r"(?<=[\d}])(?: |\\ |~|\\,)*(?:\\(?:text|mathrm) ?\{)? ?"
    r"(thousand|million|billion|trillion) ?\}?"
    + END)
WRAPPER = re.compile(
    r"\\\((.*)\\\)|\\\[(.*)\\\]|\$\$?([^$]*)\$\$?|\*\*([^*]*)\*\*|`([^`]*)`|\"([^\"]*)\""
    r"|\\(?:[fm]?box|boxed|framebox|hbox|underline|text(?:bf|it|rm|sf|tt|sc|normal)?"
    r"|math(?:bf|it|rm|sf|tt)|bf|it|rm) ?\{([^{}]*)\}|\{ ?\\(?:bf|it|rm) ([^{}]*)\}")
OPENED = re.compile(r"\\(?:boxed|underline|fbox|text|mathbf|mathrm) ?\{(.*)\}")
# f(x) = 5x for all real x
QUALIFIER = re.compile(
    r"(?:\\text ?\{ ?,? ?(?:for (?:all|any|every|each|some)|where|with|\(?since|as long as)\b.*"
    r"| (?:for (?:all|any|every)|where)\b.*"
    r"|(?:, ?|\\q?quad ?| )[a-z] ?\\in ?\\mathbb ?\{?[ZNQRC]\}?(?:\^\+)?)$")
SEPARATORS = re.compile(r"(?:,| |\\[,;: ]|\\q?quad|~)$")


def clean(text):
    """The text without what changes no meaning, in one spelling."""
    text = plain_signs(text)
    # wrappers within wrappers
    for _ in range(4):
        before = text
        for pattern, new in REWRITES:
            text = pattern.sub(new, text)
        text = SIZED.sub(sized, text)
        match = WRAPPER.fullmatch(text) or OPENED.fullmatch(text)
        if match and is_balanced(match[match.lastindex]):
            text = match[match.lastindex]
        elif text == before:
            break
    return spelled(unqualified(text).strip())


def unqualified(text):
    match = QUALIFIER.search(text)
    if not match or not text[:match.start()].strip():
        return text
    bare = text[:match.start()]
    while separator := SEPARATORS.search(bare):
        bare = bare[:separator.start()]
    return bare or text


def sized(word):
    r"""5 million -> 5 \times 10^{6}"""
    return rf" \times 10^{{{SIZES[word[1]]}}}"


def is_balanced(text):
    depth = 0
    for brace in re.findall(r"\\.|[{}]", text):
        depth += {"{": 1, "}": -1}.get(brace, 0)
        if depth < 0:
            return False
    return depth == 0


def spelled(text):
    """seven -> 7, twenty-one -> 21; other texts stay."""
    words = text.casefold().replace("-", " ").split()
    if len(words) == 1 and words[0] in NUMERALS | TENS:
        return str((NUMERALS | TENS)[words[0]])
    tens = TENS | {"twenty": 20}
    if len(words) == 2 and words[0] in tens and 0 < NUMERALS.get(words[1], 0) < 10:
        return str(tens[words[0]] + NUMERALS[words[1]])
    return text


# ---------------------------------------------------------------- exact numbers

DIGITS = r"(?:[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d{0,2}(?: \d{3})+|\d+)(?:\.\d*)?|\.\d+"
TOKEN = re.compile(
    r" *(?:(?P<repeating>\d*\.\d*)\\overline ?\{(?P<period>\d+)\}"
    r"|\(?(?P<digits>[0-9A-F]+)\)?_(?:(?P<b>\d)(?!\d)|\{ ?(?:\\text ?\{)?(?P<base>\w+)\}?\})"
    r"|0(?P<prefix>[bx])(?P<coded>[0-9A-F]+)"
    rf"|(?P<number>{DIGITS})(?:[eE](?P<e>[+-]?\d{{1,4}})(?![\d.]))?"
    r"|(?P<op>\\(?:cdot|times|div|frac|binom|max|min|gcd|lcm|bmod|lfloor|rfloor|lceil|rceil|[{}])"
    r"(?![A-Za-z])|[-+*/^!|(){},\[\]]))", re.ASCII)
# Bits of a number that is worth computing exactly.
MAX_BITS = 40_000
MAX_DEPTH = 40


class NotExact(Exception):
    """Not a rational number that this file can tell."""


def exact(text):
    r"""A rational number, with its arithmetic, as an exact Fraction; otherwise None.

    >>> exact(r"-2\frac{1}{3}"), exact("1.5e3"), exact(r"0.1\overline{6}"), exact("110_2")
    (Fraction(-7, 3), Fraction(1500, 1), Fraction(1, 6), Fraction(6, 1))
    >>> exact(r"\frac{1}{25!} + 2^{-3}") == exact("1/8"), exact("1, 234"), exact("2x")
    (False, None, None)
    """
    if not any(character.isdigit() for character in text) or len(text) > 1000:
        return None
    tokens, place = [], 0
    text = text.rstrip()
    while place < len(text):
        match = TOKEN.match(text, place)
        if not match:
            return None
        tokens.append(match)
        place = match.end()
    try:
        reader = Arithmetic(tokens)
        value = reader.sum()
        return value if reader.done() else None
    except (NotExact, ZeroDivisionError, ValueError, OverflowError):
        return None


class Arithmetic:
    """Reads tokens by descent: sum, product, power, atom. Every step bounds what it computes."""

    def __init__(self, tokens):
        self.tokens = tokens
        self.place = 0
        self.depth = 0

    def done(self):
        return self.place == len(self.tokens)

    def peek(self):
        return None if self.done() else self.tokens[self.place]["op"]

    def take(self, *ops):
        if not self.done() and self.peek() in ops:
            self.place += 1
            return self.tokens[self.place - 1]["op"]
        return None

    def need(self, op):
        if not self.take(op):
            raise NotExact

    def sum(self):
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotExact
        value = self.product()
        while op := self.take("+", "-"):
            other = self.product()
            value = bounded(value + other if op == "+" else value - other)
        self.depth -= 1
        return value

    def product(self):
        value = self.signed()
        divided = False
        while not self.done():
            if self.take("*", r"\cdot", r"\times"):
                value *= self.signed()
            elif self.take("/", r"\div"):
                value /= self.signed()
                divided = True
            elif self.take(r"\bmod"):
                value %= self.signed()
            elif self.peek() in ("(", r"\binom") and not divided:
                value *= self.power()
            else:
                break
            bounded(value)
        return value

    def signed(self):
        if self.take("-"):
            return -self.signed_again()
        if self.take("+"):
            return self.signed_again()
        return self.power()

    def signed_again(self):
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotExact
        value = self.signed()
        self.depth -= 1
        return value

    def power(self):
        value = self.atom()
        while self.take("!"):
            if self.peek() == "!" or value.denominator != 1 or not 0 <= value <= 2000:
                raise NotExact
            value = Fraction(math.factorial(int(value)))
        if self.take("^"):
            braced = self.take("{")
            exponent = self.sum() if braced else self.atom()
            if braced:
                self.need("}")
            value = raise_to(value, exponent)
        return value

    def atom(self):
        if self.done():
            raise NotExact
        token = self.tokens[self.place]
        self.place += 1
        if token["op"] is None:
            return self.mixed(literal(token))
        op = token["op"]
        if op in PAIRS:
            value = self.sum()
            self.need(PAIRS[op])
            return {"|": abs, r"\lfloor": whole_below, r"\lceil": whole_above}.get(op, same)(value)
        if op in (r"\frac", r"\binom"):
            return self.two_of(op)
        if op in (r"\max", r"\min", r"\gcd", r"\lcm"):
            return self.listed(op)
        raise NotExact

    def mixed(self, value):
        r"""2\frac{1}{3} and 2 1/3 are 7/3."""
        if value.denominator != 1:
            return value
        if self.take(r"\frac"):
            return value + self.two_of(r"\frac")
        rest = self.tokens[self.place:self.place + 3]
        if len(rest) == 3 and rest[0]["number"] and rest[0][0].startswith(" "):
            if rest[1]["op"] == "/" and rest[2]["number"]:
                self.place += 3
                return value + literal(rest[0]) / literal(rest[2])
        return value

    def two_of(self, op):
        top = self.argument()
        bottom = self.argument()
        if op == r"\frac":
            return top / bottom
        if top.denominator != 1 or bottom.denominator != 1 or not 0 <= bottom <= top <= 2000:
            raise NotExact
        return Fraction(math.comb(int(top), int(bottom)))

    def argument(self):
        self.need("{")
        value = self.sum()
        self.need("}")
        return value

    def listed(self, op):
        closing = {"(": ")", r"\{": r"\}", "{": "}"}.get(self.take("(", r"\{", "{"))
        if not closing:
            raise NotExact
        values = [self.sum()]
        while self.take(","):
            values.append(self.sum())
        self.need(closing)
        if op in (r"\max", r"\min"):
            return max(values) if op == r"\max" else min(values)
        if any(value.denominator != 1 for value in values):
            raise NotExact
        function = math.gcd if op == r"\gcd" else math.lcm
        return bounded(Fraction(function(*map(int, values))))


PAIRS = {"(": ")", "{": "}", "|": "|", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}


def same(value):
    return value


def whole_below(value):
    return Fraction(math.floor(value))


def whole_above(value):
    return Fraction(math.ceil(value))


def bounded(value):
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise NotExact
    return value


def raise_to(value, exponent):
    if exponent.denominator != 1:
        raise NotExact
    bits = max(value.numerator.bit_length(), value.denominator.bit_length())
    if abs(exponent) * bits > MAX_BITS:
        raise NotExact
    return value ** int(exponent)


def literal(token):
    """A number's token -> Fraction."""
    if token["period"]:
        start = token["repeating"]
        places = len(start.split(".")[1])
        nines = 10 ** len(token["period"]) - 1
        repeated = Fraction(int(token["period"]), 10 ** places * nines)
        return Fraction("0" + start) + repeated
    if token["digits"]:
        base = token["b"] or token["base"]
        base = NUMERALS.get(base) or int(base)
        return Fraction(int(token["digits"], base))
    if token["coded"]:
        return Fraction(int(token["coded"], {"b": 2, "x": 16}[token["prefix"]]))
    if not token["number"]:
        raise NotExact
    value = Fraction(re.sub("[, ]", "", token["number"]))
    return value * Fraction(10) ** int(token["e"] or 0)
