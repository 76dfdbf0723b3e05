"""What a draft's options say: labels that nobody asked for, which option the key means, and whether
their order matters.

    written    the options as the generator wrote them
    choices    the same without labels

The solver reads its own letters before the options, so labels go where they are labels for sure.
"A. Einstein" and "C. elegans" begin with an initial: such options stay whole.
"""
import re
from string import ascii_uppercase


def fold(text):
    """Runs of whitespace become one space. Case stays: X and x can be two variables."""
    return " ".join(text.split())


# ---------------------------------------------------------------- labels and initials

# (A) A) A. A:
LABEL = re.compile(r"\(?([A-Za-z])(?:\)\.?|[.:])\s*(?=\S)")
SPECIES = re.compile(r"[A-Z]\. [a-z]{3,}")
INITIAL = re.compile(r"[A-Z]\.\s*(?=[^\W\d_])")
# "J. R. R. Tolkien", "B. van der Waals"; what is longer is no name.
MAX_NAME_WORDS = 4


def strip_labels(written, key):
    """["A. 27", "B. 31", ...] -> ["27", "31", ...].

    Only if every option has a label and they run A, B, C, ...; not if they may be initials: "C.
    elegans" whatever the key, "C. Darwin" or any few words if the key is written like that.
    """
    if not labelled(written) or all(map(SPECIES.fullmatch, written)):
        return written
    whole = [without_stop(fold(choice)) for choice in written]
    if all(map(looks_like_a_name, written)) and without_stop(key) in whole:
        return written
    return [choice[LABEL.match(choice).end():] for choice in written]


def labelled(choices):
    """Has every option a label, and do they run A, B, C, ...?"""
    labels = [LABEL.match(choice) for choice in choices]
    if not all(labels):
        return False
    return "".join(label[1] for label in labels).upper() == ascii_uppercase[:len(choices)]


def looks_like_a_name(choice):
    return bool(INITIAL.match(choice)) and len(choice.split()) <= MAX_NAME_WORDS


# ---------------------------------------------------------------- the key

# "Option B", "The correct answer is (B)"
ANNOUNCED = re.compile(
    r"(?:(?:the\s+)?(?:(?:correct|right)\s+)?(?:answer|option|choice)(?:\s+is)?\s*:?\s+){1,2}",
    re.IGNORECASE)
BARE_LETTER = re.compile(r"[(\[]?([A-Za-z])[)\]]?[.:]?")


def without_stop(text):
    return text.casefold().rstrip(".")


def find_key(key, written, choices):
    """Index of the option that the key, folded already, means, or None.

    Text first, with and without labels; then without case and without a last full stop, if exactly
    one option is meant; only then a letter: "B", "(B)", "B.", "Option B", "B. 31".
    """
    for same in (fold, str.casefold, without_stop):
        for texts in (written, choices):
            alike = [i for i, text in enumerate(texts) if same(fold(text)) == same(key)]
            if len(alike) == 1:
                return alike[0]
    announced = ANNOUNCED.match(key)
    return by_letter(key[announced.end():] if announced else key, choices)


def by_letter(key, choices):
    """"B", or "B. 31" if that is what option B says -> its index, or None."""
    letter = BARE_LETTER.fullmatch(key) or LABEL.match(key)
    if not letter:
        return None
    index = ascii_uppercase.index(letter[1].upper())
    rest = key[letter.end():]
    if index >= len(choices):
        return None
    # "B. 27" is no key if 27 is option A
    agrees = not rest or without_stop(rest) == without_stop(fold(choices[index]))
    return index if agrees else None


# ---------------------------------------------------------------- the order

# Options that name others or their own place: "All of the above", "None of these", "Both A and B",
# "A, B and C", "Only (c)", "The first two". Where in doubt the order stays, which is never wrong.
WORDS = r"""(?ix:
    \b (?: the | of | all | none | any ) \s+
       (?: above | below | preceding | previous | foregoing ) \b
  | \b (?: above | previous | preceding ) [- ]
       (?: options? | choices? | answers? | mentioned ) \b
  | \b (?: all | none | any | both | neither | either | some | one | two | three | most ) \s+
       (?: of \s+ )? (?: the \s+ )? (?: other \s+ )?
       (?: options? | choices? | answers? | these | those | them | others | (?<= the \s ) other ) \b
  | \b (?: first | last | second | other ) \s+ (?: two | three | options? | choices? | answers? ) \b
  | ^ \s* (?: both | neither | all | none ) \s* \.? \s* $
  | \b (?: options? | choices? | answers? ) \s+ \(? [a-h1-8] \b )"""
LETTERS = r"""(?x:
    (?<! [\w\\] ) \(? [A-H] \)? \s* (?: , | & | / | \+ | and\b | or\b | nor\b | but\s+not\b ) \s*
       (?: and\s+ | or\s+ )? \(? [A-H] \)? (?! [\w'] )
  | ^ \s* (?: [Bb]oth | [Ee]ither | [Nn]either | [Oo]nly )? \s*
       \(? [a-h] \)? \s* (?: , | & | and\b | or\b | nor\b ) \s* \(? [a-h] \)? (?! \w )
  | \b (?: [Oo]nly | [Nn]ot | [Ee]xcept | [Nn]either | [Bb]oth ) \s+ \(? [A-H] \)? (?! [\w'] )
  | (?<! \w ) \(? [A-Ha-h] \)? \s+ (?: only | alone ) \b )"""
NAMES_OTHERS = re.compile(f"{WORDS}|{LETTERS}")


def order_matters(choices):
    """Would an option mean another thing if the options changed places?

    >>> order_matters(["tin", "zinc", "sulfur", "Both A and B"]), order_matters(["a", "b"])
    (True, False)
    """
    return labelled(choices) or any(NAMES_OTHERS.search(choice) for choice in choices)
