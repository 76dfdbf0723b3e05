r"""Writes the generated rows of tests/answer_pairs.jsonl: an answer, a truth, and are they equal?

    python -m tools.pairs      # seeded: the same rows again; rows from elsewhere stay as they are

    value --two spellings--> equal                 7/4 and 1\frac{3}{4}
    value, near miss      --> not equal            4-1 and 5-2: what a wrong reading calls equal

The truth of a row comes from how it was made, never from a checker. PER_KIND rows of each kind, as
many equal as different wherever both exist. A third of the new rows is held out, by a hash of the
pair alone: whoever writes rules for the verifier reads the other two thirds and not these.

Rows from elsewhere, with their source: the first table, public reports, by hand. known_wrong marks
what tools/verdicts.py found the verifier to get wrong; tests fail where that changes.
"""
import hashlib
import json
import random
from fractions import Fraction
from pathlib import Path

FILE = Path(__file__).resolve().parent.parent / "tests/answer_pairs.jsonl"
PER_KIND = 40
SEED = 19
# Rows that came after the generated ones and must not change them.
LATER = "by hand, after the rules"


def main():
    kept, seen, known_wrong = [], set(), set()
    for line in FILE.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row.get("known_wrong"):
            known_wrong.add((row["answer"], row["truth"]))
        if not row["source"].startswith("generated"):
            kept.append(row)
            if row["source"] != LATER:
                seen.add((row["answer"], row["truth"]))

    for kind, make in KINDS.items():
        kept += rows(kind, make, seen)
    for row in kept:
        if (row["answer"], row["truth"]) in known_wrong:
            row["known_wrong"] = True
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in kept]
    FILE.write_text("".join(lines), encoding="utf-8")
    print(f"{len(kept)} pairs in {FILE}")


def rows(kind, make, seen):
    """Up to PER_KIND rows of a kind, none of which is in seen: half of them equal."""
    rng = random.Random(f"answer pairs, seed {SEED}, {kind}")
    found = []
    for _ in range(50 * PER_KIND):
        equal = len(found) % 2 == 0
        answer, truth = make(rng, equal)
        if (answer, truth) in seen or answer == truth:
            continue
        if rng.random() < 0.5 and (truth, answer) not in seen and kind not in ONE_WAY:
            answer, truth = truth, answer
        seen.add((answer, truth))
        row = {"answer": answer, "truth": truth, "equal": equal, "kind": kind,
               "source": "generated"}
        if is_held_out(answer, truth):
            row["held_out"] = True
        found.append(row)
        if len(found) == PER_KIND:
            break
    return found


def is_held_out(answer, truth):
    digest = hashlib.sha256(f"{answer}\t{truth}".encode()).digest()
    return digest[0] % 3 == 0


def two(rng, spellings):
    """Two different ones."""
    return rng.sample(spellings, 2)


# ---------------------------------------------------------------- records: no mathematics

DASHES = ["-", "–", " - ", " to "]
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September",
          "October", "November", "December"]


def ranges(rng, equal):
    a = rng.choice([rng.randint(1, 60), rng.randint(1700, 1990)])
    b = a + rng.randint(1, 25)
    word = rng.choice(["", "", " hours", " people", " km", " years"])
    one, other = two(rng, DASHES)
    shift = rng.randint(1, 9)
    near = [f"{a + shift}{one}{b + shift}", f"{b}{one}{a}", f"{a}{one}{b + 1}", f"{a - b}",
            f"{b - a}", f"{b}", f"{a}"]
    return f"{a}{one}{b}{word}", (f"{a}{other}{b}" if equal else rng.choice(near)) + word


def dates(rng, equal):
    y, m, d = rng.randint(1650, 2030), rng.randint(2, 11), rng.randint(3, 27)
    name = MONTHS[m - 1]
    spellings = [f"{y}-{m:02}-{d:02}", f"{d} {name} {y}", f"{name} {d}, {y}",
                 f"{name[:3]} {d}, {y}"]
    if equal:
        return two(rng, spellings)
    near = [f"{y}-{m + 1:02}-{d - 1:02}", f"{y - m - d}", f"{d + 1} {name} {y}",
            f"{MONTHS[m]} {d}, {y}", f"{name} {d}, {y + 1}", f"{y - 1}-{m + 1:02}-{d:02}"]
    if rng.random() < 0.3:
        return f"{2 * m}/{2}/{y}", f"{m}/{1}/{y}"
    return rng.choice(spellings), rng.choice(near)


def clock_times(rng, equal):
    h, m = rng.randint(1, 11), rng.randint(0, 11) * 5
    if equal:
        half = rng.choice(["am", "pm"])
        full = h if half == "am" else h + 12
        dotted = f"{half[0]}.m."
        return two(rng, [f"{h}:{m:02} {half}", f"{h}:{m:02} {half.upper()}", f"{h}:{m:02}{half}",
                         f"{full:02}:{m:02}", f"{h}:{m:02} {dotted}"])
    h, m = rng.choice([(2, 20), (4, 20), (12, 45), (3, 30), (10, 50), (1, 10), (6, 15), (2, 30)])
    near = [f"{2 * h % 24}:{2 * m % 60:02}", f"{h}:{m + 5:02}", f"{h + 1}:{m:02}", f"{m}:{h:02}"]
    if rng.random() < 0.3:
        return f"{h}:{m:02} am", f"{h}:{m:02} pm"
    divisor = next(k for k in (5, 3, 2, 1)
                   if h % k == 0 and m % k == 0)
    if divisor > 1:
        near.append(f"{h // divisor}:{m // divisor:02}")
    return f"{h}:{m:02}", rng.choice(near)


def scores(rng, equal):
    a, b = rng.sample(range(0, 12), 2)
    one, other = two(rng, ["-", "–", " - "])
    near = [f"{a + 1}{one}{b + 1}", f"{b}{one}{a}", f"{a - b}", f"{a}", f"{a}{one}{b + 1}"]
    return f"{a}{one}{b}", f"{a}{other}{b}" if equal else rng.choice(near)


def phone_numbers(rng, equal):
    a, b = rng.randint(200, 989), rng.randint(1000, 9989)
    near = [f"{a + 1}-{b + 1}", f"{a - b}", f"{b}-{a}", f"{a}-{b + 1}"]
    return f"{a}-{b}", f"{a}–{b}" if equal else rng.choice(near)


def ratios(rng, equal):
    a, b = rng.sample(range(1, 9), 2)
    k = rng.randint(2, 5)
    c = rng.randint(1, 9)
    if rng.random() < 0.5:
        if equal:
            return f"{a}:{b}:{c}", f"{k * a}:{k * b}:{k * c}"
        return f"{a}:{b}:{c}", rng.choice([f"{a}:{b}:{c + 1}", f"{b}:{a}:{c}", f"{a}:{b}"])
    if equal:
        return f"{k * a} : {k * b}", rng.choice([f"{a}:{b}", f"{a} to {b}"])
    return f"{a}:{b}", rng.choice([f"{b}:{a}", f"{a}:{b + 1}", f"{a + 1}:{b}"])


FORMULAS = ["N2O4", "SO2", "SO3", "H2O", "H2O2", "CO2", "NH3", "CH4", "C2H6", "C6H12O6", "Na2O",
            "Fe2O3", "Al2O3", "CaCl2", "H2SO4", "HNO3", "K2Cr2O7", "P4O10", "N2O", "NO2", "C2H4",
            "CaCO3", "Mg3N2", "NaHCO3", "KMnO4", "C3H8", "PbO2", "Cu2O", "CuO", "MnO2"]
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def chemical_formulas(rng, equal):
    formula = rng.choice(FORMULAS)
    indexed = "".join(f"_{{{c}}}" if c.isdigit() else c for c in formula.replace("12", "@").replace(
        "10", "#")).replace("@", "_{12}").replace("#", "_{10}")
    spellings = [formula, indexed, formula.translate(SUBSCRIPTS), rf"\mathrm{{{indexed}}}",
                 rf"\ce{{{formula}}}", rf"\text{{{formula}}}"]
    if equal:
        return two(rng, spellings)
    other = rng.choice([f for f in FORMULAS if f != formula])
    moved = formula[::-1] if formula[::-1][0].isalpha() else formula + "2"
    return rng.choice(spellings), rng.choice([other, formula + "2", "2" + formula, moved])


def sequences(rng, equal):
    letters = rng.choice(["ACGT", "ACGU"])
    bases = "".join(rng.choice(letters) for _ in range(rng.randint(3, 6)))
    # 3'-ACA-5' is 5'-ACA-3'
    if bases == bases[::-1]:
        bases = "AC" + bases
    acids = rng.sample(["Gly", "Ala", "Val", "Leu", "Ser", "Thr", "Lys", "His"], 3)
    steps = rng.sample("ABCDE", 3)
    if equal:
        return rng.choice([
            (f"5'-{bases}-3'", f"5′-{bases}-3′"), (bases, rf"\text{{{bases}}}"),
            ("-".join(acids), "–".join(acids)), (" → ".join(steps), r" \to ".join(steps)),
            (rf"\text{{5'-{bases}-3'}}", f"5'-{bases}-3'")])
    shuffled = bases[1:] + bases[0]
    return rng.choice([
        (f"5'-{bases}-3'", f"5'-{shuffled}-3'"), (bases, shuffled),
        (f"5'-{bases}-3'", f"3'-{bases}-5'"), ("-".join(acids), "-".join(acids[::-1])),
        (" → ".join(steps), " → ".join(steps[::-1])),
        (r" \to ".join(steps), r" \to ".join(steps[1:] + steps[:1]))])


def genotypes(rng, equal):
    x, y = rng.sample("RYABDTSG", 2)
    forms = [x + x, x + x.lower(), x.lower() * 2]
    others = [y + y, y + y.lower(), y.lower() * 2]
    one, two_ = rng.choice(forms), rng.choice(others)
    if equal:
        return one + two_, rng.choice([rf"\text{{{one + two_}}}", f"${one + two_}$",
                                       rf"\mathrm{{{one + two_}}}", f"{one}{two_}."])
    different = []
    for form in forms:
        different += [form + other for other in others]
    different.remove(one + two_)
    return one + two_, rng.choice(different)


def electron_shells(rng, equal):
    p, s = rng.randint(1, 6), rng.randint(1, 2)
    plain = f"1s^2 2s^{s} 2p^{p}"
    if equal:
        return plain, rng.choice([f"1s^{{2}}2s^{{{s}}}2p^{{{p}}}", f"1s^2 2s^{{{s}}} 2p^{{{p}}}"])
    near = [f"1s^2 2s^{3 - s} 2p^{p}", f"1s^2 2s^{s} 2p^{p % 6 + 1}", f"1s^{s} 2s^2 2p^{p + 7}"]
    return plain, rng.choice(near)


# ---------------------------------------------------------------- letters that do not commute

def primes(rng, equal):
    f, x = rng.choice("fghyu"), rng.choice("xt2")
    one, two_ = f"{f}'({x})", f"{f}''({x})"
    if equal:
        return rng.choice([(one, rf"{f}^{{\prime}}({x})"), (two_, rf"{f}^{{\prime\prime}}({x})"),
                           (one, rf"{f}^\prime({x})"), (one, f"{f}′({x})"), (two_, f"{f}″({x})")])
    return rng.choice([(one, f"{f}({x})"), (two_, one), (two_, f"{f}({x})"), (f"{f}'", f),
                       (f"3{f}'({x})", f"3{f}({x})"), (f"{f}'{x}", f"{f}{x}'"),
                       (f"{f}'''({x})", two_)])


def transposes(rng, equal):
    a, b = rng.sample("ABMPQX", 2)
    if equal:
        return rng.choice([(f"{a}^T", f"{a}^{{T}}"), (f"{a}^T", rf"{a}^\top"),
                           (f"{a}^T{b}", f"{a}^{{T}} {b}"), (rf"{a}^{{\top}}", rf"{a}^\top"),
                           (rf"{a}^\intercal", f"{a}^T"), (rf"\mathbf{{{a}}}^T", f"{a}^T")])
    return rng.choice([(f"{a}^T", a), (f"{a}^T{b}", f"{a}{b}"), (f"{a}^T{b}", f"{b}{a}^T"),
                       (f"{a}^T", f"{b}^T"), (f"{a}^*", a), (rf"{a}^\dagger", a),
                       (f"{a}^T{b}", f"{a}{b}^T"), (f"{a}^{{-1}}", f"{a}^T")])


def factor_orders(rng, equal):
    a, b, c = rng.sample("ABCDMPQR", 3)
    if equal:
        return rng.choice([(f"{a}{b}", f"{a} {b}"), (f"2{a}{b}", f"2 {a} {b}"),
                           (rf"{a} \cdot {b}", f"{a}{b}"), (f"{a}{b}^{{-1}}", f"{a} {b}^{{-1}}"),
                           (f"{a}{b}+{c}", f"{c}+{a}{b}"), (f"{a}{b}{c}", f"{a} {b} {c}")])
    return rng.choice([(f"{a}{b}", f"{b}{a}"), (f"{a}{b}^{{-1}}", f"{b}^{{-1}}{a}"),
                       (f"{a}{b}{c}", f"{c}{b}{a}"), (f"{a}^{{-1}}{b}{a}", b),
                       (f"{a}{b}+{c}", f"{b}{a}+{c}"), (rf"{a} \cdot {b}", rf"{b} \cdot {a}"),
                       (f"{a}{b}-{b}{a}", "0"), (f"{a}^2{b}", f"{a}{b}{a}")])


def vector_products(rng, equal):
    a, b = rng.sample(["u", "v", "w", "F", "G", "E", "B"], 2)
    bold_a, bold_b = rf"\mathbf{{{a}}}", rf"\mathbf{{{b}}}"
    vec_a, vec_b = rf"\vec{{{a}}}", rf"\vec{{{b}}}"
    if equal:
        return rng.choice([(rf"\nabla \cdot {bold_a}", rf"\nabla\cdot {bold_a}"),
                           (rf"\nabla \times {a}", rf"\nabla\times {a}"),
                           (rf"{vec_a} \cdot {vec_b}", rf"{vec_a}\cdot{vec_b}"),
                           (rf"{vec_a} \times {vec_b}", rf"{vec_a}×{vec_b}")])
    return rng.choice([(rf"\nabla \cdot {a}", rf"\nabla \times {a}"),
                       (rf"{vec_a} \cdot {vec_b}", rf"{vec_a} \times {vec_b}"),
                       (rf"{bold_a} \times {bold_b}", rf"{bold_b} \times {bold_a}"),
                       (rf"{vec_a} \times {vec_b}", rf"{vec_b} \times {vec_a}"),
                       (rf"\nabla \cdot {bold_a}", rf"\nabla {bold_a}"), (vec_a, vec_b)])


def names_of_figures(rng, equal):
    a, b, c = rng.sample("ABCDPQRXYZ", 3)
    if equal:
        return rng.choice([(rf"\angle {a}{b}{c}", rf"\angle {{{a}{b}{c}}}"),
                           (rf"\angle {a}{b}{c}", f"∠{a}{b}{c}"),
                           (rf"\triangle {a}{b}{c}", f"△{a}{b}{c}"),
                           (rf"\overline{{{a}{b}}}", rf"\overline{{{a}{b}}}\ ")])
    return rng.choice([(rf"\angle {a}{b}{c}", rf"\angle {a}{c}{b}"),
                       (rf"\angle {a}{b}{c}", rf"\angle {b}{a}{c}"),
                       (rf"\angle {a}{b}{c}", rf"\triangle {a}{b}{c}"),
                       (rf"\overline{{{a}{b}}}", rf"\overline{{{a}{c}}}"),
                       (rf"\overrightarrow{{{a}{b}}}", rf"\overrightarrow{{{b}{a}}}"),
                       (rf"\triangle {a}{b}{c}", rf"\triangle {a}{b}{a}")])


# ---------------------------------------------------------------- numbers

def frac(value):
    sign = "-" if value < 0 else ""
    return rf"{sign}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def close_values(rng, equal):
    n, k = rng.randint(60, 300), rng.randint(2, 9)
    m = rng.randint(20, 40)
    if equal:
        return rng.choice([
            (rf"\frac{{1}}{{{k}^{{{n}}}}}", f"{k}^{{-{n}}}"),
            (rf"\frac{{{m}!}}{{{m - 1}!}}", str(m)),
            (f"{k}^{{{n}}}", rf"{k} \cdot {k}^{{{n - 1}}}"),
            (rf"\frac{{{k} \times 10^{{-{m}}}}}{{2}}", rf"{k / 2} \times 10^{{-{m}}}"),
            (f"2^{{{n}}}+2^{{{n}}}", f"2^{{{n + 1}}}"),
            (rf"\sqrt{{10^{{{2 * m}}}}}", f"10^{{{m}}}")])
    return rng.choice([
        (rf"\frac{{1}}{{{k}^{{{n}}}}}", rf"\frac{{1}}{{{k}^{{{n + 1}}}}}"),
        (rf"\frac{{1}}{{{m}!}}", rf"\frac{{1}}{{{m - 1}!}}"),
        (rf"\frac{{1}}{{{m}!}}", "0"),
        (f"{k}^{{{n}}}+1", f"{k}^{{{n}}}"),
        (rf"1.0 \cdot {k}^{{{n}}}", rf"{k}^{{{n}}}-1"),
        (f"1+10^{{-{m}}}", "1"),
        (rf"\pi + 10^{{-{m}}}", r"\pi"),
        (rf"\sqrt{{10^{{{2 * m}}}+1}}", f"10^{{{m}}}"),
        (rf"\frac{{{k}.1 \times 10^{{-{m}}}}}{{2}}", rf"\frac{{{k}.1 \times 10^{{-{m}}}}}{{3}}"),
        (rf"\frac{{{k}^{{{n}}}+1}}{{3 \cdot {k}^{{{n}}}}}", r"\frac{1}{3}"),
        ("0." + "3" * m, r"\frac13"), ("0." + "9" * m, "1"),
        (rf"\cos(10^{{-{m}}})", "1"), (rf"\sqrt{{2}} + 10^{{-{m}}}", r"\sqrt{2}"),
        (rf"(1 + 10^{{-{m}}})x", "x"), (f"x + {k}^{{-{n}}}", "x")])


def in_base(value, base):
    digits = ""
    while value:
        digits = "0123456789ABCDEF"[value % base] + digits
        value //= base
    return digits


def bases(rng, equal):
    value, base = rng.randint(20, 900), rng.choice([2, 3, 4, 5, 6, 7, 8, 9])
    text = in_base(value, base)
    if equal:
        return rng.choice([(f"{text}_{base}", str(value)), (f"{text}_{{{base}}}", str(value)),
                           (f"{text}_{base}", f"{text}_{{{base}}}"),
                           (f"({text})_{{{base}}}", f"{text}_{base}"),
                           (rf"{text}_{{\text{{{NUMERALS[base]}}}}}", f"{text}_{base}"),
                           (f"{in_base(value, 16)}_{{16}}", str(value)),
                           (f"{in_base(value, 8)}_8", f"{in_base(value, 5)}_5")])
    return rng.choice([(f"{text}_{base}", f"{text}_{base + 1}"), (f"{text}_{base}", text),
                       (f"{text}_{{{base}}}", str(value + 1)),
                       (f"{text}_{base}", f"{text}1_{base}"),
                       (f"{in_base(value, 16)}_{{16}}", str(value + 16))])


NUMERALS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
            "eleven", "twelve"]


def dots(rng, equal):
    a, step = rng.randint(1, 9), rng.randint(1, 6)
    terms = [str(a + k * step) for k in range(3)]
    last = a + 9 * step
    listed = ", ".join(terms)
    if equal:
        one, other = two(rng, [r"\ldots", r"\dots", "...", "…", r"\cdots"])
        return rng.choice([(f"{listed}, {one}", f"{listed}, {other}"),
                           (rf"\{{{listed}, {one}\}}", rf"\{{{listed}, {other}\}}"),
                           (" + ".join(terms) + rf" + {one} + {last}",
                            " + ".join(terms) + rf" + {other} + {last}")])
    return rng.choice([(rf"\{{{listed}, \ldots\}}", rf"\{{{listed}\}}"),
                       (rf"{listed}, \ldots", listed),
                       (" + ".join(terms) + rf" + \ldots + {last}",
                        str(3 * a + 3 * step + last)),
                       (rf"{listed}, \ldots, {last}", f"{listed}, {last}"),
                       (rf"{listed}, \ldots, {last}", rf"{listed}, \ldots, {last + step}"),
                       ("1." + str(a) + "...", "1." + str(a))])


def periodic_decimals(rng, equal):
    start = rng.choice(["", "", "1", "4", "27"])
    period = rng.choice([str(rng.randint(1, 8)), f"{rng.randint(10, 98)}"])
    if len(set(period)) < len(period):
        period = "27"
    value = (Fraction(int(start or 0), 10 ** len(start))
             + Fraction(int(period), 10 ** len(start) * (10 ** len(period) - 1)))
    dotted = "".join(rf"\dot{{{c}}}" for c in period)
    spellings = [rf"0.{start}\overline{{{period}}}", rf"0.{start}\bar{{{period}}}",
                 rf"0.{start}{dotted}", f"0.{start}({period})"]
    fraction = frac(value)
    if equal:
        return rng.choice(spellings), rng.choice([fraction, rng.choice(spellings)])
    near = [frac(value + Fraction(1, 9)), f"0.{start}{period}", f"0.{start}{period * 6}",
            rf"0.{start}0\overline{{{period}}}", rf"1.{start}\overline{{{period}}}"]
    return rng.choice(spellings), rng.choice(near)


SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
WIDE = str.maketrans("0123456789", "０１２３４５６７８９")
VULGAR = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5",
          "⅗": "3/5", "⅙": "1/6", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8"}


def other_signs(rng, equal):
    a, b, n = rng.randint(2, 99), rng.randint(2, 9), rng.randint(3, 12)
    sign, value = rng.choice(list(VULGAR.items()))
    high = str(n).translate(SUPERSCRIPTS)
    if equal:
        return rng.choice([
            (f"x{high}", f"x^{{{n}}}"), (f"{b}{high}", str(b ** n)), (sign, value),
            (f"{b}{sign}", f"{b} {value}"), (str(a).translate(WIDE), str(a)),
            (f"{a}·{b}", str(a * b)), (f"{a} × {b}", str(a * b)), (f"{a * b} ÷ {b}", str(a)),
            (f"x ≤ {a}", rf"x \le {a}"), (f"x ≥ {a}", rf"x \ge {a}"), (f"−{a}", f"-{a}"),
            (f"√{a}", rf"\sqrt{{{a}}}"), (f"{b}π", rf"{b}\pi"), (f"x ≠ {a}", rf"x \ne {a}"),
            (f"{b}⁻²", rf"\frac{{1}}{{{b * b}}}"), (f"x ∈ [{b}, {a + 9}]", f"[{b},{a + 9}]"),
            (f"θ = {a}", str(a)), (f"{a}∕{a + 1}", f"{a}/{a + 1}"), (f"∛{b ** 3}", str(b))])
    return rng.choice([
        (f"x{high}", f"x^{{{n + 1}}}"), (f"{b}{high}", f"{b}{n}"), (f"{b}{sign}", value),
        (f"{a}·{b}", f"{a}.{b}"), (f"x ≤ {a}", f"x < {a}"), (f"−{a}", str(a)),
        (str(a).translate(WIDE), str(a + 1)), (f"√{a}", str(a)), (f"{b}π", str(b)),
        (f"{b}⁻²", str(b * b)), (f"x ≠ {a}", f"x = {a}"), (f"x{high}", f"x{n}"),
        ("x₂", "x²"), (f"{a} × {b}", f"{a}{b}")])


def powers_of_ten(rng, equal):
    n, m = rng.randint(2, 9), rng.randint(2, 9)
    small = "0." + "0" * (n - 1) + "1"
    if equal:
        return rng.choice([
            (f"10^-{n}", small), (f"{m}x10^{n}", str(m * 10 ** n)),
            (f"{m} x 10^{n}", str(m * 10 ** n)), (f"{m}×10^{{{n}}}", str(m * 10 ** n)),
            (f"{m}*10^{n}", str(m * 10 ** n)), (f"{m}.5e{n}", rf"{m}.5 \times 10^{{{n}}}"),
            (f"{m}.5E+{n:02}", rf"{m}.5 \cdot 10^{n}"), (f"{m}·10⁻³", f"0.00{m}"),
            (rf"10^{{-{n}}}", rf"\frac{{1}}{{10^{n}}}"), (f"{m} × 10^-{n}", rf"{m}e-{n}"),
            (rf"{m} \times 10^{{{n}}}", rf"{m}0 \times 10^{{{n - 1}}}")])
    return rng.choice([
        (f"10^-{n}", f"10^-{n + 1}"), (f"{m}x10^{n}", f"{m}x10^{n + 1}"), (f"10^-{n}", f"10-{n}"),
        (f"{m}x10^{n}", str(m)), (f"{m}.5e{n}", f"{m}.5e-{n}"), (f"{m}e{n}", f"{m}{n}"),
        (rf"{m} \times 10^{{{n}}}", rf"{m} \times 10^{{-{n}}}"), (f"{m}x10^{n}", f"{m + 1}x10^{n}"),
        (rf"{m} \times 10^{{{n}}}", rf"{m} + 10^{{{n}}}"), (f"10^-{n}", "0")])


WORDS = {"thousand": 10 ** 3, "million": 10 ** 6, "billion": 10 ** 9, "trillion": 10 ** 12}


def number_words(rng, equal):
    word, size = rng.choice(list(WORDS.items()))
    tenths = rng.randint(11, 99)
    value = size * tenths // 10
    text = f"{Fraction(tenths, 10) if tenths % 10 == 0 else tenths / 10} {word}"
    dressed = text.replace(" ", r" \text{ ") + "}"
    small = rng.randrange(len(NUMERALS))
    if equal:
        return rng.choice([(text, str(value)), (text, f"{value:,}"), (f"${text}", rf"\${value}"),
                           (NUMERALS[small], str(small)), (NUMERALS[small].title(), str(small)),
                           (dressed, str(value))])
    return rng.choice([(text, text.split()[0]), (text, str(value * 10)), (text, str(value + size)),
                       (NUMERALS[small], str(small + 1)), (f"{small} {word}", str(small + 1)),
                       (f"{tenths} million", f"{tenths} billion")])


def thousands(rng, equal):
    value = rng.randint(1000, 99_999_999)
    spaced = f"{value:,}"
    if equal:
        return rng.choice([
            (spaced, str(value)), (spaced.replace(",", "{,}"), str(value)),
            (spaced.replace(",", r"\,"), spaced), (spaced.replace(",", "\u202f"), str(value)),
            (spaced.replace(",", " "), spaced), (spaced.replace(",", r",\!"), str(value)),
            (f"{spaced}.50", f"{value}.5")])
    head = spaced.split(",")[0]
    return rng.choice([
        (spaced, str(value + 1)), (spaced, str(value * 10)), (spaced, head),
        (spaced, spaced.replace(",", ", ")), (spaced, spaced.replace(",", ".", 1)),
        (f"{value % 900 + 100},{value % 90 + 10}", f"{value % 900 + 100}{value % 90 + 10}"),
        (spaced.replace(",", ";"), str(value))])


def decimal_commas(rng, equal):
    a, b = rng.sample(range(1, 99), 2)
    if equal:
        return f"{a}.{b}0", rng.choice([f"{a}.{b}", f"+{a}.{b}", f"{a}.{b}00"])
    return rng.choice([(f"{a},{b}", f"{a}{b}"), (f"{a},{b}", f"{a}"), (f"{a}.{b}", f"{a}{b}"),
                       (f"{a}.{b:02}", f"{a}.{b + 1:02}"), (f"{a},{b}", f"{a},{b + 1}")])


def fractions(rng, equal):
    top, bottom = rng.randint(1, 60), rng.randint(2, 30)
    k = rng.randint(2, 6)
    value = Fraction(top, bottom)
    whole, rest = divmod(top, bottom)
    if equal:
        spellings = [f"{top}/{bottom}", frac(value), rf"\dfrac{{{top}}}{{{bottom}}}",
                     f"{k * top}/{k * bottom}", rf"{top} \div {bottom}", f"({top})/({bottom})",
                     rf"\frac {{{top}}} {{{bottom}}}", rf"{{{top} \over {bottom}}}",
                     rf"-\frac{{-{top}}}{{{bottom}}}",
                     rf"\left(\frac{{{bottom}}}{{{top}}}\right)^{{-1}}"]
        if whole and rest:
            spellings += [rf"{whole}\frac{{{rest}}}{{{bottom}}}", f"{whole} {rest}/{bottom}"]
        return two(rng, spellings)
    near = [f"{top + 1}/{bottom}", f"{bottom}/{top}", rf"-\frac{{{top}}}{{{bottom}}}",
            f"{top}{bottom}", str(round(float(value) + 1e-4, 3)) + "1", f"{top}/{bottom + 1}"]
    wrong = rng.choice([x for x in near if plain_fraction(x) != value])
    return rng.choice([f"{top}/{bottom}", frac(value)]), wrong


def plain_fraction(text):
    """A near miss of fractions(), read by Python: none of them may be the value itself."""
    bare = text.replace(r"\frac{", "").replace("}{", "/").replace("}", "")
    return Fraction(bare)


def percents(rng, equal):
    p = rng.randint(2, 99)
    if equal:
        return two(rng, [rf"{p}\%", f"{p}%", f"{p} percent", f"{p} %", rf"{p} \text{{ percent}}",
                         f"{p} per cent", rng.choice([str(p), f"{p / 100}", f"{p}/100"])])
    near = [f"{p / 10}", f"{p + 1}%", f"{p}0%", f"{p / 1000}", f"{p}^\\circ", f"0.{p:02}%"]
    return f"{p}%", rng.choice(near)


def money(rng, equal):
    dollars, cents = rng.randint(1, 2000), rng.randint(10, 99)
    if equal:
        return two(rng,
                   [rf"\${dollars}.{cents}", f"${dollars:,}.{cents}", f"{dollars}.{cents} dollars",
                         f"{dollars}.{cents}", rf"{dollars}.{cents} \text{{ USD}}",
                         f"USD {dollars}.{cents}", f"US${dollars}.{cents}"])
    near = [f"€{dollars}.{cents}", f"${dollars + 1}.{cents}", f"{dollars}.{cents} euros",
            f"£{dollars}.{cents}", f"-${dollars}.{cents}", f"${dollars}.{cents} million",
            f"{dollars}.{cents} cents"]
    return f"${dollars}.{cents}", rng.choice(near)


# long name, symbol
UNITS = [("meters", "m"), ("centimeters", "cm"), ("kilograms", "kg"), ("seconds", "s"),
         ("minutes", "min"), ("hours", "h"), ("newtons", "N"), ("joules", "J"), ("watts", "W"),
         ("volts", "V"), ("moles", "mol"), ("kelvin", "K"), ("pascals", "Pa"), ("hertz", "Hz"),
         ("amperes", "A"), ("ohms", r"\Omega"), ("liters", "L"), ("grams", "g"),
         ("miles per hour", "mph"), ("meters per second", "m/s"), ("square meters", "m^2"),
         ("kilometers", "km"), ("electronvolts", "eV"), ("coulombs", "C"), ("teslas", "T")]


def units(rng, equal):
    n = rng.choice([rng.randint(2, 500), f"{rng.randint(2, 99)}.5"])
    (name, symbol), (other_name, other) = rng.sample(UNITS, 2)
    upright = rf"{n} \text{{ {symbol}}}" if "Omega" not in symbol else rf"{n}\,\Omega"
    if equal:
        spellings = [f"{n} {name}", upright, rf"{n}\,\mathrm{{{symbol}}}", str(n)]
        return two(rng, spellings)
    return rng.choice([f"{n} {name}", upright]), rng.choice(
        [f"{n} {other_name}", rf"{n}\,\mathrm{{{other}}}", f"1{n} {name}", f"1{n}"])


CONVERSIONS = [("km", "m", 1000), ("m", "cm", 100), ("kg", "g", 1000), ("hours", "minutes", 60),
               ("minutes", "seconds", 60), ("cm", "mm", 10), ("L", "mL", 1000),
               ("days", "hours", 24),
               ("feet", "inches", 12), ("kJ", "J", 1000), ("yards", "feet", 3)]


def conversions(rng, equal):
    large, small, factor = rng.choice(CONVERSIONS)
    n = rng.randint(2, 40)
    if equal:
        return f"{n} {large}", f"{n * factor} {small}"
    return f"{n} {large}", rng.choice([f"{n} {small}", f"{n * factor + 1} {small}",
                                       f"{n * factor * 10} {small}"])


def temperatures(rng, equal):
    t = rng.randint(2, 400)
    if equal:
        return two(rng, [rf"{t}^\circ \text{{C}}", f"{t} °C", f"{t}°C", rf"{t}^\circ\mathrm{{C}}",
                         rf"{t}^{{\circ}}\text{{C}}", str(t), f"{t} degrees Celsius"])
    return rng.choice([(rf"{t}^\circ \text{{C}}", rf"{t}^\circ \text{{F}}"), (f"{t} K", f"{t} °C"),
                       (f"{t} °C", f"{t + 1} °C"), (f"{t}°F", f"{t} K"), (f"-{t} °C", f"{t} °C")])


THINGS = ["apples", "students", "books", "marbles", "people", "cats", "tickets", "ways", "coins"]


def counted_things(rng, equal):
    n = rng.randint(2, 300)
    thing, other = rng.sample(THINGS, 2)
    if equal:
        return two(rng, [f"{n} {thing}", str(n), rf"{n} \text{{ {thing}}}", f"{n} {thing}."])
    return f"{n} {thing}", rng.choice([f"{n} {other}", f"{n + 1} {thing}", str(n + 1),
                                       f"{n} million {thing}"])


# ---------------------------------------------------------------- algebra

def roots(rng, equal):
    k, n = rng.randint(2, 9), rng.choice([2, 3, 5, 6, 7, 10, 11, 13, 15])
    spellings = [rf"{k}\sqrt{{{n}}}", rf"{k}\sqrt({n})", rf"\sqrt{{{k * k * n}}}", f"{k}√{n}",
                 f"{k}*sqrt({n})", rf"{k} \cdot \sqrt{{{n}}}", rf"\sqrt{{{n}}} \cdot {k}",
                 rf"{k}\cdot {n}^{{1/2}}", rf"\frac{{{k * n}}}{{\sqrt{{{n}}}}}"]
    if equal:
        return two(rng, spellings)
    near = [rf"\sqrt{{{k * n}}}", rf"{n}\sqrt{{{k}}}" if n != k else "1", rf"-{k}\sqrt{{{n}}}",
            rf"{k}\sqrt[3]{{{n}}}", rf"{k + 1}\sqrt{{{n}}}", str(round(k * n ** 0.5, 4)),
            rf"{k} + \sqrt{{{n}}}"]
    return rng.choice(spellings), rng.choice(near)


ANGLES = [(30, r"\frac{\pi}{6}", r"\frac12", r"\frac{\sqrt{3}}{2}"),
          (45, r"\frac{\pi}{4}", r"\frac{\sqrt{2}}{2}", r"\frac{\sqrt2}{2}"),
          (60, r"\frac{\pi}{3}", r"\frac{\sqrt{3}}{2}", "0.5")]


def trigonometry(rng, equal):
    degrees, radians, sine, cosine = rng.choice(ANGLES)
    n = rng.randint(1, 4)
    if equal:
        return rng.choice([(rf"\sin {degrees}^\circ", sine), (rf"\cos {degrees}^\circ", cosine),
                           (rf"\sin {radians}", sine), (rf"\cos\left({radians}\right)", cosine),
                           (f"{degrees}^\\circ", radians),
                           (rf"\sin({degrees}^\circ + {360 * n}^\circ)", sine),
                           (rf"\sin^2 ({n}x) + \cos^2 ({n}x)", "1"),
                           (rf"2\sin ({n}x) \cos ({n}x)", rf"\sin({2 * n}x)"),
                           (rf"\tan({n}x)", rf"\frac{{\sin({n}x)}}{{\cos({n}x)}}"),
                           (rf"{n}\tan 45^\circ", str(n))])
    return rng.choice([(rf"\sin {degrees}^\circ", rf"\sin {degrees}"),
                       (rf"\cos {degrees}^\circ", rf"-{cosine}"), (rf"\sin {radians}", r"\frac13"),
                       (rf"\sin({n}x)", rf"{n}\sin x" if n > 1 else r"\cos x"),
                       (rf"\sin^{n + 1} x", rf"\sin({n + 1}x)"),
                       (f"{degrees}^\\circ", r"\frac{\pi}{5}"),
                       (rf"\tan({n}x)", rf"\cot({n}x)"), (rf"\arcsin ({n}x)", rf"\sin ({n}x)"),
                       (rf"\sin({n}x) + \cos({n}x)", "1")])


def logarithms(rng, equal):
    b, k = rng.choice([2, 3, 5, 7, 10]), rng.randint(2, 6)
    m = rng.randint(2, 9)
    if equal:
        return rng.choice([(rf"\log_{{{b}}} {b ** k}", str(k)), (rf"\ln e^{{{k}}}", str(k)),
                           (rf"\ln {m} + \ln {k}", rf"\ln {m * k}"),
                           (rf"{k}\ln {m}", rf"\ln {m ** k}"),
                           (rf"e^{{{k}\ln {m}}}", str(m ** k)),
                           (rf"\log_{{{b}}}({b ** k})", str(k)),
                           (rf"\frac{{\ln {b ** k}}}{{\ln {b}}}", str(k)),
                           (rf"\log_{{{b}}} \frac{{1}}{{{b ** k}}}", f"-{k}")])
    return rng.choice([(rf"\log_{{{b}}} {b ** k}", str(k + 1)), (rf"\ln e^{{{k}}}", f"e^{{{k}}}"),
                       (rf"\ln ({m} + {k + 20})", rf"\ln {m} + \ln {k + 20}"),
                       (rf"\log_{{{b}}} {m + 20}", rf"\log_{{{b + 1}}} {m + 20}"),
                       (rf"\ln {m}", str(round(0.6931 * m, 4))),
                       (rf"{k}\ln {m}", rf"\ln {m * k + 1}"),
                       (rf"\ln x^{k}", r"\ln x")])


def polynomials(rng, equal):
    a, b = rng.randint(-6, 6), rng.randint(1, 7)
    p, q = a + b, a * b
    expanded = f"x^2 + {p}x + {q}".replace("+ -", "- ")
    factored = f"(x + {a})(x + {b})".replace("+ -", "- ")
    if equal:
        return rng.choice([(expanded, factored),
                           (expanded, f"{q} + {p}x + x^2".replace("+ -", "- ")),
                           (f"2({expanded})", f"2x^2 + {2 * p}x + {2 * q}".replace("+ -", "- ")),
                           (factored, f"(x + {b})(x + {a})".replace("+ -", "- "))])
    return rng.choice([(expanded, f"x^2 + {p + 1}x + {q}".replace("+ -", "- ")),
                       (expanded, f"x^2 + {p}x + {q + 1}".replace("+ -", "- ")),
                       (factored, f"(x + {a})(x - {b})".replace("+ -", "- ")),
                       (expanded, expanded.replace("x^2", "x^3")),
                       (expanded, expanded.replace("x", "y")),
                       (factored, f"(x + {a + 1})(x + {b})".replace("+ -", "- "))])


def equations(rng, equal):
    k, m = rng.randint(-20, 40), rng.randint(2, 9)
    x = rng.choice(["x", "y", "n", "k", r"\theta", "t", "x_1", "a_5", "f(2)", "P(A)"])
    if equal:
        return rng.choice([(f"{x} = {k}", str(k)), (str(k), f"{x}={k}"),
                           (f"{x}={k}", f"{x} = {k}.0"),
                           (f"y = {m}x + {k}".replace("+ -", "- "), f"y = {k} + {m}x"),
                           (f"{m}x + y = {k}", f"y = {k} - {m}x"),
                           (f"{x} = {m} + {k + 1} = {m + k + 1}",
                                                                    str(m + k + 1)),
                           (f"x^2 + y^2 = {m * m}", f"y^2 + x^2 - {m * m} = 0")])
    return rng.choice([(f"{x} = {k}", str(k + 1)), (f"{m}z = {m * m}", str(m * m)),
                       (f"x = {k}", f"y = {k}"), (f"y = {m}x + {k}", f"y = {m}x - {k + 50}"),
                       (f"{x} = {k}", f"{x} = {-k - 1}"), (f"{m} = {m + 1}", f"{m} = {m + 2}"),
                       (f"{x} = {k}, {k + 1}", str(k)), (f"z^2 = {m * m}", str(m * m)),
                       (f"{m} = {m}", "x = 1"), (rf"{x} \neq {k}", str(k))])


def intervals(rng, equal):
    a = rng.randint(-9, 5)
    b = a + rng.randint(1, 9)
    if equal:
        return rng.choice([
            (f"({a}, {b})", f"{a} < x < {b}"), (f"[{a},{b}]", rf"{a} \le x \le {b}"),
            (rf"x > {a} \text{{ and }} x < {b}", f"{a}<x<{b}"),
            (f"x > {a} and x < {b}", f"({a},{b})"),
            (rf"x<{a} \text{{ or }} x>{b}", rf"(-\infty,{a})\cup({b},\infty)"),
            (f"x < {a} or x > {b}", rf"(-\infty,{a})\cup({b},\infty)"),
            (f"x > {a}", rf"({a}, \infty)"), (rf"x \le {b}", rf"(-\infty, {b}]"),
            (rf"x \in ({a}, {b})", f"({a}, {b})"), (f"({a}, ∞)", rf"({a}, \infty)"),
            (rf"x \le {a} \text{{ or }} x \ge {b}", rf"(-\infty,{a}]\cup[{b},\infty)"),
            (rf"(-\infty, {a}) ∪ ({b}, \infty)", rf"({b}, \infty) \cup (-\infty, {a})")])
    return rng.choice([
        (f"({a}, {b})", f"[{a}, {b}]"), (f"({a}, {b})", f"{a} < x < {b + 1}"),
        (rf"x<{a} \text{{ or }} x>{b}", f"({a}, {b})"), (f"x > {a}", rf"[{a}, \infty)"),
        (rf"x > {a} \text{{ and }} x < {b}", f"x > {a}"), (f"x < {a} or x > {b}", f"x < {a}"),
        (rf"(-\infty,{a})\cup({b},\infty)", rf"(-\infty,{b})\cup({a},\infty)"),
        (f"[{a}, {b})", f"({a}, {b}]"), (rf"x \le {b}", rf"({b}, \infty)"),
        (f"({a}, {b})", str(b)), (f"{a} < x < {b}", rf"{a} \le x < {b}")])


def collections(rng, equal):
    a, b, c = rng.sample(range(-9, 20), 3)
    if equal:
        return rng.choice([
            (rf"\langle {a}, {b}, {c} \rangle", f"({a},{b},{c})"), (f"⟨{a}, {b}⟩", f"({a}, {b})"),
            (rf"\{{{a}, {b}, {c}\}}", rf"\{{{c}, {a}, {b}\}}"), (f"{a}, {b}", f"{b}, {a}"),
            (rf"\left({a}, {b}\right)", f"({a},{b})"), (f"{a} and {b}", f"{b}, {a}"),
            (rf"(x, y) = ({a}, {b})", f"({a}, {b})"), (f"{a}; {b}", f"{a}, {b}"),
            (rf"\lbrace {a}, {b} \rbrace", rf"\{{{a}, {b}\}}"),
            (f"x = {a} or x = {b}", f"{b}, {a}")])
    return rng.choice([
        (f"({a}, {b})", f"({b}, {a})"), (rf"\{{{a}, {b}\}}", f"({a}, {b})"),
        (rf"\{{{a}, {b}, {c}\}}", rf"\{{{a}, {b}\}}"), (f"{a}, {b}", f"{a}"),
        (rf"\langle {a}, {b} \rangle", f"({a}, {b}, {c})"), (f"({a}, {b})", f"({a}, {b + 30})"),
        (rf"\langle {a}, {b} \rangle", rf"\langle {b}, {a} \rangle"), (f"{a} or {b}", f"{b}"),
        (rf"\{{\{{{a}\}}\}}", rf"\{{{a}\}}"), (f"{a}, {b}, {c}", f"{a}, {b}"),
        (f"({a}, {b})", f"{b - a}")])


def matrices(rng, equal):
    a, b, c, d = (rng.randint(-5, 9) for _ in range(4))
    one, other = two(rng, ["pmatrix", "bmatrix"])
    body = rf"{a} & {b} \\ {c} & {d}"
    if equal:
        return (rf"\begin{{{one}}}{body}\end{{{one}}}",
                rf"\begin{{{other}}} {a}&{b}\\{c}&{d} \end{{{other}}}")
    near = [rf"{a} & {b} \\ {c} & {d + 1}", rf"{a} & {b + 1} \\ {c} & {d}", f"{a} & {b}",
            rf"{a} & {b} & 0 \\ {c} & {d} & 0"]
    if b != c:
        near.append(rf"{a} & {c} \\ {b} & {d}")
    wrong = rng.choice(near)
    return rf"\begin{{{one}}}{body}\end{{{one}}}", rf"\begin{{{one}}}{wrong}\end{{{one}}}"


def complex_numbers(rng, equal):
    a, b = rng.randint(1, 9), rng.randint(2, 9)
    if equal:
        return rng.choice([(f"{a}+{b}i", f"{b}i+{a}"), (f"{a} - {b}i", f"-{b}i + {a}"),
                           (f"({a}+{b}i)({a}-{b}i)", str(a * a + b * b)),
                           (f"{b}i \\cdot i", f"-{b}"),
                           (f"{a}+i{b}", f"{a}+{b}i"), (f"|{3 * a}+{4 * a}i|", str(5 * a)),
                           (rf"\frac{{{a}+{b}i}}{{i}}", f"{b}-{a}i")])
    return rng.choice([(f"{a}+{b}i", f"{a}-{b}i"), (f"{a}+{b}i", f"{b}+{a}i" if a != b else "0"),
                       (f"{a}+{b}i", str(a + b)), (f"{b}i", str(b)),
                       (f"|{3 * a}+{4 * a}i|", str(7 * a)),
                       (f"{a}+{b}i", f"-{a}+{b}i")])


def functions(rng, equal):
    a, b = rng.sample(range(2, 16), 2)
    big = max(a, b)
    small = min(a, b)
    gcd = next(k for k in range(small, 0, -1) if a % k == b % k == 0)
    lcm = a * b // gcd
    if equal:
        return rng.choice([
            (rf"\max\{{{a},{b}\}}", str(big)), (rf"\min({a}, {b})", str(small)),
            (rf"\text{{lcm}}({a},{b})", str(lcm)), (rf"\operatorname{{lcm}}({a}, {b})", str(lcm)),
            (rf"\gcd({a},{b})", str(gcd)), (rf"\text{{gcd}}({a}, {b})", str(gcd)),
            (f"max({a}, {b})", str(big)), (rf"\lfloor {a}.{b} \rfloor", str(a)),
            (rf"\lceil {a}.{b} \rceil", str(a + 1)), (f"|{-a}|", str(a)),
            (rf"\binom{{{big}}}{{1}}", str(big)),
            (rf"\operatorname{{max}}({a}, {b})", str(big)), (rf"\lvert -{a} \rvert", str(a))])
    return rng.choice([
        (rf"\max\{{{a},{b}\}}", str(small)), (rf"\text{{lcm}}({a},{b})", str(lcm + 1)),
        (rf"\gcd({a},{b})", str(lcm)), (rf"\lfloor {a}.{b} \rfloor", str(a + 1)),
        (f"min({a}, {b})", str(big)),
        (rf"\text{{lcm}}({a},{b})", str(gcd)), (f"|{-a}|", f"-{a}"),
        (rf"\max({a}, {b})", f"({a}, {b})")])


def qualifiers(rng, equal):
    k, n = rng.randint(2, 30), rng.choice("nkmt")
    x = rng.choice(["x", "t"])
    formula = f"{k}{n}"
    if equal:
        return rng.choice([
            (rf"f({x})={k}{x} \text{{ for all real }} {x}", f"f({x})={k}{x}"),
            (rf"x = {formula} \text{{ for any integer }} {n}", f"x={formula}"),
            (rf"{formula} \text{{ where }} {n} \in \mathbb{{Z}}", formula),
            (rf"{formula}, \text{{ where }} {n} \text{{ is an integer}}", formula),
            (rf"x = {formula}, {n} \in \mathbb{{Z}}", rf"x = {formula}"),
            (f"f({x}) = {k}{x} for all {x}", f"{k}{x}"), (rf"\text{{Answer: }}{k}", str(k)),
            (rf"\text{{The answer is }} {k}", str(k)), (f"Final answer: {k}", str(k)),
            (rf"\text{{The final answer is }} {k}.", str(k)), (f"answer = {k}", str(k)),
            (f"The answer is: {k}", str(k)), (rf"\textbf{{Answer: }} {k}", str(k))])
    return rng.choice([
        (rf"f({x})={k}{x} \text{{ for all real }} {x}", f"f({x})={k + 1}{x}"),
        (rf"{formula} \text{{ where }} {n} \in \mathbb{{Z}}", f"{k}"),
        (rf"\text{{Answer: }}{k}", str(k + 1)), (f"The answer is not {k}", str(k)),
        (f"{k} is wrong", str(k)), (f"{k} or {k + 1}", str(k)), (f"not {k}", str(k)),
        (f"either {k} or {k + 2}", str(k)), (f"at least {k}", str(k)), (f"{k} at most", str(k)),
        (f"Answer: {k}, or {k + 1}", str(k)), (rf"{k} \text{{ or }} {k + 1}", str(k + 1)),
        (f"more than {k}", str(k)), (rf"\approx {k}", str(k)), (f"{k} is not the answer", str(k)),
        (f"{k} squared", str(k)), (f"{k} times 2", str(k)), (f"half of {k}", str(k))])


# ---------------------------------------------------------------- words and dresses

ANSWERS = ["photosynthesis", "Isaac Newton", "the Pacific Ocean", "sodium chloride", "oxygen",
           "Marie Curie", "blue", "Paris", "mitochondrion", "a right angle", "World War II",
           "Jupiter", "natural selection", "the Treaty of Versailles", "potential energy", "left",
           "igneous rock", "Mount Everest", "covalent bond", "Charles Darwin", "increases", "prime"]


def words(rng, equal):
    text, other = rng.sample(ANSWERS, 2)
    bare = text.removeprefix("the ")
    if equal:
        return two(rng, [text, bare.capitalize(), rf"\text{{{text}}}", f"{bare}.", bare.upper(),
                         rf"\textbf{{{bare}}}", f"**{bare}**", bare.replace(" ", "  ")])
    near = [other, f"not {bare}", f"{bare} or {other}", bare[::-1], f"{bare} {other}",
            f"no {bare}", bare[1:] + bare[0], f"{bare} and {other}", bare[:-1]]
    return text, rng.choice(near)


def yes_or_no(rng, equal):
    pairs = [("yes", "no"), ("true", "false"), ("Yes", "No"), ("True", "False"), ("even", "odd"),
             ("converges", "diverges"), ("positive", "negative"), ("always", "never")]
    one, other = rng.choice(pairs)
    if equal:
        return one, rng.choice([one.upper(), rf"\text{{{one}}}", f"{one}.", f"**{one}**",
                                rf"\mathrm{{{one}}}", one.capitalize()])
    return one, rng.choice([other, f"not {one}", rf"\text{{{other}}}", f"{one} and {other}",
                            f"{one} or {other}", f"{other}."])


def letters(rng, equal):
    a, b = rng.sample("ABCDEFGH", 2)
    if equal:
        return two(rng, [a, f"({a})", rf"\text{{{a}}}", f"{a}.", rf"\textbf{{({a})}}", f"**{a}**",
                         rf"\mathrm{{{a}}}", f"${a}$"])
    return a, rng.choice([b, f"({b})", a + b, f"{a} or {b}", f"{a}, {b}", f"not {a}",
                          rf"\text{{{b}}}",
                          f"({a})({b})"])


DRESSES = [r"\boxed{@}", r"\text{@}", r"\mathrm{@}", r"\mathbf{@}", "$@$", "$$@$$", r"\(@\)",
           r"\[@\]", "**@**", r"\displaystyle @", "{@}", "@.", r"\left(@\right)", r"\,@\,",
           r"@\quad", r"\textbf{@}", r"{\bf @}", r"\fbox{@}", r"\boldsymbol{@}", r"\color{red}{@}",
           r"\textcolor{blue}{@}", r"\underline{@}", r"\mbox{@}", r"\textit{@}", r"\ @", "`@`",
           r"\boxed{\boxed{@}}", r"$\boxed{@}$", r"@ \checkmark", r"\mathsf{@}", r"\texttt{@}",
           r"\bf{@}", r"\Large @", r"\bm{@}", r"\;@", r"@\\", r"\hbox{@}", r"\framebox{@}"]


def dresses(rng, equal):
    n = rng.randint(2, 400)
    value = rng.choice([str(n), f"-{n}", f"{n}.5"])
    dress = rng.choice(DRESSES)
    other = value if equal else rng.choice([f"{n}1", str(n + 1), f"-{n + 1}", "1"])
    return dress.replace("@", value), other


ONE_WAY = {"dress", "qualifier"}
KINDS = {
    "range": ranges, "date": dates, "clock time": clock_times, "score": scores,
    "phone number": phone_numbers, "ratio": ratios, "chemical formula": chemical_formulas,
    "sequence": sequences, "genotype": genotypes, "electron shell": electron_shells,
    "prime": primes, "transpose": transposes, "order of factors": factor_orders,
    "vector product": vector_products, "name of a figure": names_of_figures,
    "close values": close_values, "base": bases, "dots": dots,
    "periodic decimal": periodic_decimals,
    "other signs": other_signs, "scientific": powers_of_ten, "number word": number_words,
    "thousands": thousands, "decimal": decimal_commas, "fraction": fractions, "percent": percents,
    "money": money, "unit": units, "conversion": conversions, "temperature": temperatures,
    "counted things": counted_things, "root": roots, "trigonometry": trigonometry,
    "logarithm": logarithms, "algebra": polynomials, "equation": equations, "interval": intervals,
    "collection": collections, "matrix": matrices, "complex": complex_numbers,
    "function": functions, "qualifier": qualifiers, "text": words, "yes or no": yes_or_no,
    "choice": letters, "wrapper": dresses,
}

if __name__ == "__main__":
    main()
