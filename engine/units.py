r"""The unit or the counted things behind a number: split off, in one spelling, converted exactly.

    split_unit("5 metres")  -> ("5", "m")          split_unit("12 apples") -> ("12", "apple")

A unit or a word counts only where both sides have one: 290 K is 290, and 5 apples are 5; 290 K is
not 290 °C, and 5 apples are not 5 pears. A word that changes the value is no unit: 5 squared,
5 or more, 5 below zero, 5 out of 7.
"""
import re
from fractions import Fraction

from engine.notation import exact

# symbol: other spellings
SPELLINGS = {
    "mm": "millimeter millimetre", "cm": "centimeter centimetre", "m": "meter metre",
    "km": "kilometer kilometre", "in": "inch inches", "ft": "foot feet", "yd": "yard", "mi": "mile",
    "nm": "nanometer nanometre", "g": "gram gramme", "kg": "kilogram kilogramme",
    "mg": "milligram", "s": "second sec", "ms": "millisecond", "min": "minute", "h": "hour hr",
    "day": "", "week": "", "month": "", "year": "yr", "L": "liter litre l", "mL": "milliliter ml",
    "$": "dollar USD US$ usd buck", "cent": "¢", "€": "euro EUR", "£": "pound-sterling GBP",
    "¥": "yen JPY", "CAD": "", "%": "percent", "mi/h": "mph", "km/h": "kph kmh", "N": "newton",
    "J": "joule",
    "kJ": "kilojoule", "W": "watt", "kW": "kilowatt", "MW": "megawatt", "mW": "milliwatt",
    "V": "volt", "A": "ampere amp", "mol": "mole", "K": "kelvin", "Pa": "pascal",
    "kPa": "kilopascal", "atm": "atmosphere", "Hz": "hertz", "kHz": "kilohertz",
    "Omega": "ohm", "eV": "electronvolt", "C": "coulomb", "T": "tesla", "F": "farad", "H": "henry",
    "lb": "pound", "oz": "ounce", "cal": "calorie", "kcal": "", "AU": "", "ly": "lightyear",
    "rad": "radian", "unit": "", "^\\circ": "", "^\\circ C": "degC celsius", "^\\circ F": "",
    "mol/L": "M molar", "u": "amu", "dB": "decibel", "rpm": "", "ha": "hectare", "acre": "",
    "mum": "micrometer micron", "N*m": "", "kWh": "", "bit": "", "byte": "",
}
# any spelling of a unit -> its symbol
UNITS = {}
for symbol, names in SPELLINGS.items():
    UNITS |= dict.fromkeys([symbol, *names.split()], symbol)
del UNITS["pound-sterling"]

# symbol: (what it is counted in, how many of them)
FACTORS = {
    "mm": ("m", Fraction(1, 1000)), "cm": ("m", Fraction(1, 100)), "m": ("m", Fraction(1)),
    "km": ("m", Fraction(1000)), "nm": ("m", Fraction(1, 10 ** 9)),
    "mum": ("m", Fraction(1, 10 ** 6)),
    "in": ("in", Fraction(1)), "ft": ("in", Fraction(12)), "yd": ("in", Fraction(36)),
    "mi": ("in", Fraction(63360)), "mg": ("g", Fraction(1, 1000)), "g": ("g", Fraction(1)),
    "kg": ("g", Fraction(1000)), "ms": ("s", Fraction(1, 1000)), "s": ("s", Fraction(1)),
    "min": ("s", Fraction(60)), "h": ("s", Fraction(3600)), "day": ("s", Fraction(86400)),
    "week": ("s", Fraction(604800)), "mL": ("L", Fraction(1, 1000)), "L": ("L", Fraction(1)),
    "cent": ("$", Fraction(1, 100)), "$": ("$", Fraction(1)), "J": ("J", Fraction(1)),
    "kJ": ("J", Fraction(1000)), "W": ("W", Fraction(1)), "kW": ("W", Fraction(1000)),
    "mW": ("W", Fraction(1, 1000)), "MW": ("W", Fraction(10 ** 6)), "Pa": ("Pa", Fraction(1)),
    "kPa": ("Pa", Fraction(1000)), "Hz": ("Hz", Fraction(1)), "kHz": ("Hz", Fraction(1000)),
    "lb": ("oz", Fraction(16)), "oz": ("oz", Fraction(1)),
}

# A word behind a number that changes what it says.
CHANGING = set("""
    or and not no nor but except maybe perhaps if unless than to through plus minus times over under
    below above less more fewer short point root choose mod modulo remainder r out of in per
    squared cubed factorial half halve third quarter fourth fifth sixth seventh eighth ninth tenth
    hundredth thousandth hundred thousand million billion trillion dozen pair score wrong incorrect
    false negative approximately approx about roughly around so minimum maximum least most at max
    min up down pi sin cos tan log ln exp sqrt cis degree percent percentage is isn are was power
    base divided multiplied added subtracted off x bc ad bce ce am pm st nd rd th either between
    both other another only until before after ago from with without deep cannot zero dim
    too many much enough each fold
    doubled tripled gross grand lakh crore loss debt deficit behind late early inverse reciprocal
    conjugate cot sec csc arcsin arccos arctan sinh cosh tanh det arg mean std versus vs""".split())
MONEY = re.compile(r"(-?)(?:US)?(\\?\$|[€£¥]|USD ) ?(?=[\d.])")
DRESSED = r"\\(?:text|textrm|mathrm|mbox|rm) ?\{[^{}]*\}"
JOINT = r"(?:\\[,; ]| |~|\\cdot|/)*"
GAP = r"(?:\\[,; ]| |~|\\q?quad)*"
WORD = r"(?:\^\\circ ?[CFcf]?|\\?[A-Za-zµ$€£¢%]+|\\Omega|\\mu)"
NAME = rf"{WORD}(?: ?\^ ?\{{?-?\d\}}?)?"
UNIT = re.compile(
    rf"(?:(?<=[\d)}}])|(?<=\\pi))\.?(?P<gap>{GAP})"
    r"(?:(?P<symbol>\\?[%¢]|\^\\circ ?(?:\\(?:text|mathrm) ?"
    r"\{ ?(?:[CF]|[Cc]elsius|[Ff]ahrenheit) ?\}"
    r"|[CF](?![A-Za-z])| ?[Cc]elsius| ?[Ff]ahrenheit)?|\\Omega)"
    rf"|(?P<bare>[A-Za-z]+(?:(?:/| |\\cdot )[A-Za-z]+)*)"
    rf"|(?P<dressed>(?:\\mu ?)?{DRESSED}(?:(?: ?\^ ?\{{?-?\d\}}?)?{JOINT}{DRESSED})*|\\mu ?m))"
    r"(?P<power> ?\^ ?\{?-?[1-4]\}?)?$")


SEVERAL = re.compile(r", |;| (?:and|or) |\\text ?\{ ?(?:and|or)")


def split_unit(text):
    r"""-> (text, None), or the value and its unit in one spelling.

    >>> split_unit("5 metres"), split_unit(r"3 \text{ square feet}"), split_unit("2x")
    (('5', 'm'), ('3', 'ft^2'), ('2x', None))
    """
    money, match = MONEY.match(text), UNIT.search(text)
    if money:
        return money[1] + text[money.end():], in_one_spelling(money[2].strip().removeprefix("\\"))
    if not match:
        return text, None
    value = text[:match.start()]
    # 2 boys and 3 girls
    if SEVERAL.search(value):
        return text, None
    if match["bare"] and is_product(value, match["gap"], match["bare"]):
        return text, None

    name = match["symbol"] or match["bare"] or undressed(match["dressed"])
    unit = one_spelling(name + re.sub(r"[ {}]", "", match["power"] or ""))
    return (value, unit) if unit else (text, None)


def changes(word):
    return (word in CHANGING or singular(word) in CHANGING
            or re.fullmatch(".*illionths?|.*illions?|.*illiards?|.{3,}(?:ly|ed|fold)",
                            word) is not None)


def undressed(name):
    r"""\mu\text{m} -> mum"""
    name = re.sub(r"(?<=[}\w]) ?(?:\\[,;]|\\cdot|(?<=\}) ?(?=\\(?:text|mathrm))) ?", "*", name)
    return re.sub(r"\\(?:text|textrm|mathrm|mbox|rm) ?|[{}\\]|\.$", "", name).strip()


# min, in: units, though words of CHANGING
INCHES = re.compile(r"min|in(?:\^\d)?|.*/in(?:\^\d)?")


def one_spelling(name):
    """A unit in words or symbols -> its symbols; None if a word in it changes the value."""
    if name.startswith("^\\circ"):
        scale = re.search("[CFcf](?=[elsiuahrnt]*[ }]*$)", name.removeprefix("^\\circ"))
        return "^\\circ" + (f" {scale[0].upper()}" if scale else "")
    name = name.removeprefix("\\").strip()
    name = re.sub(r"\bcubic (\w+)", r"\1^3", name)
    name = re.sub(r"\b(?:square|sq\.?) (\w+)", r"\1^2", name)
    name = re.sub(r" per | ?/ ?", "/", name)
    name = re.sub(r" ?\\?cdot ?|\*", "*", name).replace("mu m", "mum")
    words = re.findall(r"[A-Za-z]+", name)
    if not words and not re.fullmatch("[%$€£¥¢]", name):
        return None
    if any(changes(word.casefold()) for word in words) and not INCHES.fullmatch(name):
        return None
    if re.search(r"[^A-Za-z0-9^/* %$€£¥¢-]", name):
        return None
    return re.sub("[A-Za-z]+|[¢]", spelling, name)


def spelling(word):
    return in_one_spelling(word[0])


def in_one_spelling(word):
    """The symbol of that unit, or the word without the s of a plural."""
    found = UNITS.get(word) or UNITS.get(singular(word))
    if not found and len(word) > 3:
        found = UNITS.get(singular(word.lower()))
    return found or singular(word)


def singular(word):
    return word.removesuffix("s") if len(word) > 2 else word


SHORT = set("cup man men box egg way car dog cat boy pen hat bag bus cow pig".split())


def is_product(value, gap, letters):
    """2x, 2 x, 2ab, 2m and 2 xyz are products; 5 m, 5cm and 5 apples have a unit."""
    # \pi r^2 h
    if letters in UNITS:
        return len(letters) == 1 and (not gap or exact(value) is None)
    if not value or not (value[-1].isdigit() or value[-1] in "})"):
        return True
    words = re.findall("[A-Za-z]+", re.sub(r"\b(?:square|sq\.?|cubic) ", "", letters))
    if all(in_one_spelling(word) in SPELLINGS for word in words):
        return False
    last = words[-1]
    # xyz, abc, sin
    if singular(last) in SHORT:
        return not gap
    if len(last) < 4 or not re.search("[aeiouy]", last[1:]):
        return True
    return not gap


def converted(x, unit_x, y, unit_y):
    """Two numbers with different units: is it the same quantity? 3 km and 3000 m; exactly.

    None where the units have nothing in common.
    """
    x_base, y_base = in_base_units(unit_x), in_base_units(unit_y)
    if x is None or y is None or x_base is None or y_base is None or x_base[0] != y_base[0]:
        return None
    return x * x_base[1] == y * y_base[1]


def in_base_units(unit):
    """km/h -> ((("m", 1), ("s", -1)), 5/18), None for a unit without a factor."""
    total = Fraction(1)
    powers = {}
    for i, part in enumerate(unit.split("/")):
        for factor in part.split("*"):
            name, _, power = factor.strip().partition("^")
            if name not in FACTORS or not re.fullmatch("-?[1-4]?", power):
                return None
            base, size = FACTORS[name]
            n = int(power or 1) * (-1 if i else 1)
            total *= size ** n
            powers[base] = powers.get(base, 0) + n
    return tuple(sorted(powers.items())), total
