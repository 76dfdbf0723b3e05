r"""One rule for questions, whoever laid them out: an item becomes a Question, or one clear line.

    item --read_item--> ItemRead: text, choices, what is said of the key --settle--> Question

An item says its question, perhaps its choices, and its key; it says them under the names below,
whatever their case and punctuation ("Correct Answer" is correct_answer). docs/own-data.md shows
what that makes of MMLU, GPQA, ARC, GSM8K, rows of TRL and verl, and others.

    choices   a list; an object of letters; {"text": [...], "label": [...]}; a column for each; the
              right one and its distractors, which have no order: they are shuffled by the question
    key       the text of a choice, its letter or label, or its index; where an item says it twice,
              both have to mean the same choice
    index     from 0 or from 1, as the file shows: some index is 0, or as large as the number of
              choices, or stands beside a letter. A file that does not show it is refused, as is a
              number that is the text of one choice and the index of another
    answer    without choices: the text; of a worked solution what follows #### or stands in its
              last \boxed{}. Anything else as long as a solution is refused

What looks like choices and is not understood is refused: dropped in silence, it would turn a
question of A to D into a free-form one whose answer is "C".
"""
import json
import math
import random
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from string import ascii_lowercase, ascii_uppercase

from data import InputError, Question, is_encodable, is_number
from engine.files import Cell, kind
from engine.speech import shorten

QUESTION = ("question_text", "question", "problem", "query", "question_stem", "prompt", "messages")
PASSAGE = ("article", "passage", "context", "premise", "paragraph", "story", "scenario")
CHOICES = ("choices", "options", "answer_choices", "answer_options", "candidates", "endings",
           "alternatives", "possible_answers")
# The key as a text, a letter or a number; without choices the answer.
ANSWER = ("ground_truth", "answer", "correct_answer", "final_answer", "expected_answer",
          "reference_answer", "gold_answer", "right_answer")
# The key as a letter, label or number alone: it makes no sense without choices.
POINTER = ("answer_index", "answer_idx", "answer_letter", "answer_key", "answer_label", "answer_id",
           "correct_index", "correct_idx", "correct_letter", "correct_option", "correct_choice",
           "correct_label", "correct_answer_index", "correct_answer_idx", "correct_answer_letter",
           "answer_choice", "answer_option", "cop")      # cop: MedMCQA's
# The same, but also a name for other things.
MAYBE_POINTER = ("label", "gold", "target", "correct")
ID = ("question_id", "id")
# Not always different: RACE's is that of the article.
OTHER_ID = ("uuid", "unique_id", "example_id", "record_id", "_id")
TEXT_OF_CHOICE = ("text", "value", "content", "choice", "option", "answer")
LABEL_OF_CHOICE = ("label", "key", "letter", "id")

COLUMN = re.compile(r"(|option|choice|op|opt|answer|ending|response|sol)(\d{1,2}|[a-z])")
DISTRACTOR = re.compile(r"(distractor|(incorrect|wrong)(answer|option|choice)?)s?\d*")
LIKE_CHOICES = re.compile(r"option|choice|distractor|incorrect|wrong|candidate|alternativ|ending|"
                          r"mc\d?target|^op[a-z]$")
INDEX = re.compile(r"-?\d{1,4}(\.0)?")
LETTER = re.compile(r"\(?[A-J]\)?")
# Ours: what has more words, and sentences, is a solution and no answer that could be compared.
LONGEST_ANSWER = 30


@dataclass
class ItemRead:
    """What one item says, before it is known how the file counts its choices."""
    where: str
    question_id: str
    text: str
    choices: list = field(default_factory=list)
    labels: list | None = None
    keys: list = field(default_factory=list)     # Key, the most telling first
    truth: str | None = None                     # without choices
    aliases: tuple = ()
    notes: list = field(default_factory=list)
    zero: bool = False                           # its layout is known to count from 0


@dataclass
class Key:
    """A field that says which choice is right: places it may mean by text or letter, and the
    number in it, if it is one."""
    name: str
    value: str
    texts: list
    number: int | None
    typed: bool      # a number, not digits in a string


# ---------------------------------------------------------------- fields

class Item(dict):
    """An item by its own names, and by the same without case and punctuation."""

    def __init__(self, item, where):
        super().__init__({name: v for name, v in item.items() if v is not None})
        self.where = where
        self.names = {}
        for name in self:
            known = self.names.setdefault(folded_name(name), name)
            if known != name and self[known] != self[name] and folded_name(name) in KNOWN:
                raise InputError(f"{where}: both {known!r} and {name!r}, expected one of them")

    def name(self, names):
        """The first of names that the item has a value for, as it spells it; or None."""
        for name in names:
            spelt = self.spelt(name)
            if spelt is not None:
                return spelt
        return None

    def every(self, names):
        found = map(self.spelt, names)
        return [name for name in found if name is not None]

    def spelt(self, name):
        return name if name in self else self.names.get(folded_name(name))


# A file has few names and many items.
@lru_cache(4096)
def folded_name(name):
    """A name without case and punctuation.

    >>> folded_name("Correct Answer"), folded_name("correct_answer"), folded_name("correctAnswer")
    ('correctanswer', 'correctanswer', 'correctanswer')
    """
    return re.sub(r"[^a-z0-9]", "", str(name).lower())


@lru_cache(4096)
def as_column(name):
    """The name of a field that may be one of several choices -> (prefix, is it counted by digits,
    its number); or None.

    >>> as_column("option_2"), as_column("C"), as_column("options")
    (('option', True, 2), ('', False, 3), None)
    """
    # "options" is no option called s
    match = None if folded_name(name) in KNOWN else COLUMN.fullmatch(folded_name(name))
    if not match:
        return None
    prefix, place = match[1], match[2]
    number = int(place) if place.isdigit() else ascii_lowercase.index(place) + 1
    return prefix, place.isdigit(), number


@lru_cache(4096)
def is_distractor(name):
    return DISTRACTOR.fullmatch(folded_name(name)) is not None


KNOWN = set(map(folded_name, (*QUESTION, *CHOICES, *ANSWER, *POINTER, "solution")))


def read_string(item, names, where, numbers=False):
    """The text under the first of names that is there. With numbers=True a number also counts."""
    name = item.name(names)
    if name is None:
        found = shorten(", ".join(map(str, item))) or "none"
        raise InputError(f"{where}: missing field '{names[0]}' (or '{names[1]}'), "
                         f"found the fields: {found}")
    return as_text(item[name], name, where, numbers)


def as_text(value, name, where, numbers=False):
    """A string, or with numbers=True a number as it is written -> its text. Raises InputError."""
    if numbers and is_number(value):
        if math.isnan(value):
            raise InputError(f"{where}: '{name}' is NaN, which stands for a missing value, "
                             "expected a string or a number")
        if math.isinf(value):
            raise InputError(f"{where}: '{name}' is {value}, beyond the largest number, "
                             "expected a smaller one, or a string")
        return str(value)
    if not isinstance(value, str):
        expected = "a string" + " or a number" * numbers
        raise InputError(f"{where}: '{name}' is {kind(value)}, expected {expected}")
    check_text(value, f"'{name}'", where)
    return str(value)


def read_id(item, names, where, default):
    """The id as a string; default if there is none."""
    if item.name(names) is None:
        return default
    return read_string(item, names, where, numbers=True)


def check_text(value, what, where):
    if not value.strip():
        raise InputError(f"{where}: {what} is empty, expected some text")
    if not is_encodable(value):
        raise InputError(f"{where}: {what} holds half of a surrogate pair (\\ud800 to \\udfff), "
                         "expected valid Unicode")
    if "\0" in value:
        raise InputError(f"{where}: {what} holds a NUL character, expected text")


# ---------------------------------------------------------------- one item

def read_item(item, question_id, where):
    """An object of a question file -> ItemRead. Raises InputError."""
    item = Item(unfolded(item, where), where)
    if item.name(ID) is None:
        name = item.name(OTHER_ID)
        if name is not None and isinstance(item[name], str):
            question_id = as_text(item[name], name, where)
    found = ItemRead(where, question_id, "")
    found.text = question_of(item, found)
    found.choices, found.labels = choices_of(item, found)
    if found.choices:
        found.keys = keys_of(item, found)
        found.zero = counts_from_zero(item)
    else:
        refuse_lost_choices(item)
        found.truth = truth_of(item, found)
    return found


def unfolded(item, where):
    """A copy of an item whose question or key was packed in an object, unpacked."""
    item = dict(item)
    reward = item.get("reward_model")
    if isinstance(reward, dict) and item.get("ground_truth") is None:
        item["ground_truth"] = reward.get("ground_truth")
        if str(item.get("ability")).lower() in ("code", "coding"):
            raise InputError(f"{where}: a row of verl for code, whose answers are run, expected an "
                             "answer that can be compared")
    # the files of ARC and OpenBookQA as first released
    question = item.get("question")
    if isinstance(question, dict) and "stem" in question:
        item["question"] = question["stem"]
        item.setdefault("choices", question.get("choices"))
    return item


def question_of(item, found):
    """The question; the passages it is about stand above it."""
    name = item.name(QUESTION)
    if name is not None and isinstance(item[name], list):
        text = user_turn(item[name], name, found)
    else:
        text = read_string(item, QUESTION, found.where)
    text = text.strip()

    # verl keeps the question without the instructions of its prompt
    extra = item.get("extra_info")
    bare = extra.get("question") if isinstance(extra, dict) else None
    if isinstance(bare, str) and bare.strip() and text.startswith(bare.strip()):
        if text != bare.strip():
            found.notes.append("stand without the instructions that follow them in the prompt")
        text = bare.strip()

    passages = [(name, item[name]) for name in item.every(PASSAGE)]
    # LogiQA 2.0
    if isinstance(item.get("type"), dict) and "text" in item:
        passages.append(("text", item["text"]))
    above = []
    for name, passage in passages:
        if isinstance(passage, str) and re.search(r"\w", passage):
            check_text(passage, f"'{name}'", found.where)
            found.notes.append(f"stand below their {name!r}")
            above.append(passage.strip())
        elif isinstance(passage, (list, dict)) and passage:
            found.notes.append(f"have a {name!r} that is {kind(passage)} and is not shown")
    # one text under two names is shown once
    return "\n\n".join([*dict.fromkeys(above), text])


def user_turn(turns, name, found):
    """Messages of a chat -> the text of the one user turn. Raises InputError."""
    said = []
    for turn in turns:
        if not isinstance(turn, dict) or "role" not in turn or "content" not in turn:
            raise InputError(f"{found.where}: '{name}' is a list, expected a string, or messages "
                             "with 'role' and 'content'")
        said.append((turn["role"], turn["content"]))
    roles = [role for role, _ in said]
    first = roles.index("user") if "user" in roles else 0
    after = set(roles[first + 1:])
    if roles.count("user") != 1 or "assistant" in roles[:first] or after and name == "prompt":
        turns = shorten(", ".join(map(str, roles)))
        raise InputError(f"{found.where}: '{name}' has the turns {turns}, expected one user turn")
    if "system" in roles:
        found.notes.append("have a system message, which is left out")
    content = said[first][1]
    if isinstance(content, list) and all(
            isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "\n".join(str(part.get("text", "")) for part in content)
    return as_text(content, f"{name}: content", found.where)


# ---------------------------------------------------------------- choices

def choices_of(item, found):
    """-> (choices, their labels or None); [] for a free-form question. Raises InputError."""
    sources = []
    for name in item.every(CHOICES):
        if item[name] not in ([], {}):
            sources.append((name, *choices_in(item[name], name, found.where)))
    sources += columns_of(item, found.where)

    wrong = distractors_of(item, found.where)
    if wrong and not sources:
        right = read_string(item, ("correct_answer", *ANSWER), found.where, numbers=True)
        choices = check_choices([right, *wrong], found.where)
        random.Random(f"choices of {found.text}").shuffle(choices)
        found.notes.append("have no order of choices: the right one and its distractors are "
                           "shuffled, always alike")
        return choices, None

    for name, choices, _ in sources[1:]:
        if choices != sources[0][1]:
            raise InputError(f"{found.where}: {sources[0][0]!r} and {name!r} both hold choices, "
                             "and not the same, expected one of them")
    if sources and not set(wrong) <= set(sources[0][1]):
        raise InputError(f"{found.where}: distractors that are not among {sources[0][0]!r}, "
                         "expected all choices in one place")
    return sources[0][1:] if sources else ([], None)


def choices_in(value, name, where):
    """A field of choices -> (choices, labels or None)."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            # a cell of a table
            value = json.loads(value)
        except ValueError:
            raise InputError(f"{where}: '{name}' is a list written as a string that is no JSON, "
                             "expected a list of strings, or a column for each choice") from None
    if isinstance(value, dict):
        return choices_in_object(value, name, where)
    if not isinstance(value, list):
        raise InputError(f"{where}: '{name}' is {kind(value)}, expected a list of strings")
    if value and all(isinstance(choice, dict) for choice in value):
        pairs = [text_and_label(choice, number, where) for number, choice in enumerate(value, 1)]
        return labelled([text for text, _ in pairs], [label for _, label in pairs], name, where)
    return check_choices(value, where), None


def choices_in_object(value, name, where):
    """{"text": [...], "label": [...]} of ARC, or {"A": ..., "B": ...} of MedQA."""
    if isinstance(value.get("text"), list) and isinstance(value.get("label"), list):
        return labelled(value["text"], value["label"], name, where)
    # where items of a file have four and five choices, Parquet fills up with null
    pairs = [(label, text) for label, text in value.items() if text is not None]
    letters = [str(label).strip().upper() for label, _ in pairs]
    if sorted(letters) != list(ascii_uppercase[:len(letters)]):
        raise InputError(f"{where}: '{name}' is an object with the keys "
                         f"{shorten(', '.join(map(str, value)))}, expected a list of strings, or "
                         "the letters from A on")
    pairs.sort(key=lambda pair: str(pair[0]).strip().upper())
    return labelled([text for _, text in pairs], sorted(letters), name, where)


def text_and_label(choice, number, where):
    """An object that is one choice -> its text, and its label or None."""
    parts = Item(choice, where)
    texts, labels = parts.every(TEXT_OF_CHOICE), parts.every(LABEL_OF_CHOICE)
    if len(texts) != 1 or len(labels) > 1 or len(parts) > 1 + len(labels):
        names = shorten(", ".join(map(str, choice)))
        raise InputError(f"{where}: choice {number} is an object with {names}, expected a string, "
                         "or a text and its label")
    return parts[texts[0]], parts[labels[0]] if labels else None


def labelled(texts, labels, name, where):
    """Texts and their labels -> (choices, labels as texts, or None if none has one)."""
    choices = check_choices(texts, where)
    if not any(label is not None for label in labels):
        return choices, None
    labels = [str(label).strip() for label in labels]
    if len(labels) != len(choices) or len(set(labels)) < len(labels):
        raise InputError(f"{where}: '{name}' has {len(choices)} texts and the labels "
                         f"{shorten(', '.join(labels))}, expected a label of its own for each")
    return choices, labels


def columns_of(item, where):
    """Choices in fields of their own, A, B, C ... or option1, option2 ... -> sources."""
    groups = {}
    for name in item:
        column = as_column(name)
        if column:
            prefix, digits, number = column
            groups.setdefault((prefix, digits), {})[number] = name

    sources = []
    for (prefix, digits), group in groups.items():
        if not are_choices(item, prefix, digits, group):
            continue
        first = min(group)
        if first > 1 or sorted(group) != list(range(first, first + len(group))):
            raise InputError(f"{where}: the choices {', '.join(sorted(group.values()))} leave a "
                             "gap, expected one in each")
        names = [group[number] for number in sorted(group)]
        texts = [as_text(item[name], name, where, numbers=True) for name in names]
        sources.append((names[0], check_choices(texts, where), None))
    return sources


def are_choices(item, prefix, digits, group):
    """Do fields that are called so, {number: name}, hold choices? A lone "b" may be anything."""
    if prefix in ("option", "choice", "ending"):
        return True
    strings = sum(isinstance(item[name], str) for name in group.values())
    if not prefix:
        capital = all(name.strip().isupper() for name in group.values())
        return not digits and strings >= (2 if capital else 3)
    return strings >= 2 and min(group) <= 1


def distractors_of(item, where):
    """The wrong choices beside the right one, in one list or a field each."""
    wrong = []
    for name in item:
        if is_distractor(name):
            values = item[name] if isinstance(item[name], list) else [item[name]]
            wrong += [as_text(value, name, where, numbers=True).strip() for value in values]
    return wrong


def check_choices(choices, where):
    """A list of values -> the choices, stripped. Raises InputError."""
    for number, choice in enumerate(choices, 1):
        if not isinstance(choice, str):
            raise InputError(f"{where}: choice {number} is {kind(choice)}, expected a string")
        check_text(choice, f"choice {number}", where)

    choices = [str(choice).strip() for choice in choices]
    if not 2 <= len(choices) <= 26:
        counted = f"{len(choices)} choice{'s' * (len(choices) != 1)}"
        raise InputError(f"{where}: {counted}, "
                         "expected 2 to 26 (or none for a free-form question)")
    for number, choice in enumerate(choices, 1):
        if choice in choices[:number - 1]:
            first = choices.index(choice) + 1
            raise InputError(f"{where}: choices {first} and {number} are both "
                             f"{shorten(choice)!r}, expected different ones")
    return choices


def refuse_lost_choices(item):
    """Raises InputError where a question without choices speaks of some."""
    for name, value in item.items():
        short = folded_name(name)
        empty = value in ("", [], {}) or is_number(value) or isinstance(value, bool)
        if short in POINTERS and value != "":
            raise InputError(f"{item.where}: {name!r} points at a choice, and there are none under "
                             "'choices' or 'options', expected a list of strings there")
        if not empty and LIKE_CHOICES.search(short) and not INDEX.fullmatch(str(value)):
            raise InputError(f"{item.where}: {name!r} speaks of choices and is {kind(value)} that "
                             "is not understood, expected 'choices' with a list of strings")
    answers = {str(item[name]) for name in item.every(ANSWER)}
    for name, value in item.items():
        texts = among(value)
        if len(texts) >= 2 and answers & set(texts) and "alias" not in folded_name(name):
            raise InputError(f"{item.where}: {name!r} holds the answer among others, as choices "
                             "do, expected choices under 'choices' or 'options'")


def among(value):
    """The texts of a list, or of an object whose keys are letters or digits."""
    if isinstance(value, dict) and all(len(str(key)) == 1 for key in value):
        value = list(value.values())
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


POINTERS = set(map(folded_name, POINTER))


# ---------------------------------------------------------------- the key

def keys_of(item, found):
    """-> Keys, at least one: every field that says which choice is right."""
    keys = []
    for name in item.every((*ANSWER, *POINTER, *MAYBE_POINTER)):
        pointer = folded_name(name) not in ANSWERS
        try:
            keys.append(key_of(item[name], name, pointer, found))
        except InputError:
            # something else may bear such a name, beside a key
            if not keys and not pointer or folded_name(name) in POINTERS:
                raise
    if not keys:
        read_string(item, ANSWER, found.where, numbers=True)
    return keys


ANSWERS = set(map(folded_name, ANSWER))


def key_of(value, name, pointer, found):
    text = as_text(value, name, found.where, numbers=True).strip()
    number = int(float(text)) if INDEX.fullmatch(text) else None
    typed = is_number(value) or isinstance(value, Cell)
    by_label = [found.labels.index(text)] if text in (found.labels or ()) else []
    by_text = matching(text, found.choices)
    by_letter = []
    letters = ascii_uppercase[:len(found.choices)]
    if not found.labels and len(text) == 1 and (text.upper() if pointer else text) in letters:
        by_letter = [letters.index(text.upper())]

    if by_label or found.labels and number is not None and not by_text:
        number = None
    places = by_label + by_letter + by_text if pointer else by_text + by_label + by_letter
    # the index in answer_index is never a text
    if pointer and number is not None:
        places = []
    return Key(name, text, list(dict.fromkeys(places)), number, typed)


def matching(text, choices):
    """A text -> [place of the choice that it is], or of the only one that it is but for case."""
    if text in choices:
        return [choices.index(text)]
    alike = [i for i, choice in enumerate(choices) if choice.casefold() == text.casefold()]
    return alike if len(alike) == 1 and len(text) > 1 else []


def counts_from_zero(item):
    """Do the published schemas of MMLU and LogiQA, which count from 0, know this item?"""
    if {"question", "subject", "choices", "answer"} <= set(item):
        return is_number(item["answer"])
    logiqa = {"context", "query", "options", "correct_option"} <= set(item)
    return logiqa or {"text", "type", "question", "options"} <= set(item)


@dataclass
class Counting:
    """What the items of a file show of the numbers in one of its fields."""
    from_zero: int = 0
    from_one: int = 0
    indices: int = 0     # numbers that are no choice's text
    texts: int = 0       # numbers that are a text and can be no index

    def base(self, n):
        """0, 1 or None. One item in a hundred may be wrong."""
        if self.from_zero and self.from_one <= n // 100:
            return 0
        if self.from_one and self.from_zero <= n // 100:
            return 1
        return None

    def mixed(self, n):
        return self.from_zero > n // 100 and self.from_one > n // 100


def counting(founds):
    """All that a file holds -> {name of a field: Counting}."""
    seen = {}
    for found in founds:
        n = len(found.choices)
        for key in found.keys:
            if key.number is None:
                continue
            count = seen.setdefault(key.name, Counting())
            others = set()
            for other in found.keys:
                others |= set(other.texts) if other is not key else set()
            zero, one = key.number in others, key.number - 1 in others
            if zero != one:
                count.from_zero += zero
                count.from_one += one
            elif not key.texts:
                count.from_zero += key.number == 0
                count.from_one += key.number == n
            count.indices += not key.texts and 0 <= key.number <= n
            count.texts += bool(key.texts) and not 0 <= key.number < n
    return seen


def meanings(key, found, seen, total):
    """A key -> (places it may mean, the likeliest first; what to say if that stays open)."""
    n = len(found.choices)
    if key.number is None:
        return key.texts, None
    count = seen[key.name]
    if count.mixed(total) and not key.texts:
        raise InputError(f"{found.where}: {key.name!r} is the index {key.value}, and the file "
                         "counts from 0 in some items and from 1 in others, expected texts or "
                         "letters")
    base = 0 if found.zero else count.base(total)
    bases = (0, 1) if base is None else (base,)
    indices = [key.number - b for b in bases if 0 <= key.number - b < n]
    wanted = f"expected the text of a choice or a letter from A to {ascii_uppercase[n - 1]}"

    if key.texts:
        as_index = found.zero or count.indices > total // 100
        as_text = count.texts > total // 100
        if not as_index and (not key.typed or as_text or key.number >= n):
            return key.texts, None
        if as_index and not as_text and key.typed and base is not None:
            return indices, None
        why = (f"{key.name!r} is {key.value}, the text of one choice and perhaps the index of "
               f"another, {wanted}")
        return list(dict.fromkeys(key.texts + indices)), why
    if count.texts > total // 100 and not found.zero:
        return [], None
    why = (f"{key.name!r} is {key.value}, and nothing in the file shows whether such an index "
           f"counts from 0 or from 1, {wanted}")
    return indices, why if base is None else None


def place_of(found, seen, total):
    """-> which of the choices is right. Raises InputError."""
    places, open_question = None, None
    for key in found.keys:
        may_be, why = meanings(key, found, seen, total)
        if not may_be and (places is None or folded_name(key.name) in POINTERS):
            letters = ascii_uppercase[:len(found.choices)]
            labels = f" or a label: {', '.join(found.labels)}" if found.labels else (
                f" or a letter from A to {letters[-1]}")
            what = "the answer" if folded_name(key.name) in ANSWERS else f"{key.name!r}"
            raise InputError(f"{found.where}: {what} {shorten(key.value)!r} is not among the "
                             f"choices, expected the text of one of them{labels}")
        if places is None:
            places, open_question = may_be, why
        elif may_be:
            both = [place for place in places if place in may_be]
            if not both:
                first = found.keys[0]
                raise InputError(
                    f"{found.where}: {first.name!r} is {shorten(first.value, 40)!r} and "
                    f"{key.name!r} is {shorten(key.value, 40)!r}, which is another choice, "
                    "expected the same")
            places = both
    if open_question and len(places) > 1:
        raise InputError(f"{found.where}: {open_question}")
    return places[0]


def settle(founds, bad=None):
    """All that a file holds -> Questions; what is wrong goes to `bad`, or is raised."""
    seen = counting(founds)
    with_choices = sum(bool(found.choices) for found in founds)
    questions = []
    for found in founds:
        try:
            truth = found.truth
            if found.choices:
                truth = found.choices[place_of(found, seen, len(founds))]
            elif LETTER.fullmatch(truth) and with_choices > len(founds) / 2:
                raise InputError(f"{found.where}: a letter as the answer and no choices, where "
                                 "most items have some, expected choices")
        except InputError as error:
            if bad is None:
                raise
            bad.append(error)
            continue
        questions.append(
            Question(found.text, found.choices, truth, found.question_id, found.aliases))
    return questions


def notes_on(founds):
    """-> [what was done to some questions, with how many]."""
    counts = Counter()
    for found in founds:
        counts.update(dict.fromkeys(found.notes, 1))
    return [f"{count} of {len(founds)} questions {note}" for note, count in counts.items()]


# ---------------------------------------------------------------- without choices

def truth_of(item, found):
    """The answer that others are compared with. Raises InputError."""
    name = item.name(ANSWER)
    if name is None and item.name(("solution",)) is not None:
        name = item.name(("solution",))
    if name is None:
        read_string(item, ANSWER, found.where, numbers=True)
    value = item[name]
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        # OlympiadBench's final_answer
        value = value[0]
    if isinstance(value, dict):
        value = Item(value, found.where)
        inner = value.name(("value",))
        if inner is None:
            raise InputError(f"{found.where}: '{name}' is an object, expected a string or a number")
        found.aliases = aliases_of(value, found.where)
        value = value[inner]
    else:
        found.aliases = aliases_of(item, found.where)

    text = as_text(value, name, found.where, numbers=True).strip()
    truth = final(text, name, found.where)
    if LETTER.fullmatch(truth):
        found.notes.append("have no choices and a bare letter as their answer: only that letter "
                           "will count as right")
    found.aliases = tuple(alias for alias in found.aliases if alias != truth)
    return truth


def aliases_of(item, where):
    """Other texts that are as right: TriviaQA has some for most of its answers."""
    name = item.name(("aliases", "answer_aliases"))
    if name is None:
        return ()
    if not isinstance(item[name], list):
        raise InputError(f"{where}: '{name}' is {kind(item[name])}, expected a list of strings")
    some = [alias for alias in item[name] if alias != ""]
    return tuple(dict.fromkeys(as_text(alias, name, where).strip() for alias in some))


def final(text, name, where):
    r"""The text of an answer or of a worked solution -> the answer. Raises InputError.

    >>> final("4 bags of 5 are <<4*5=20>>20.\n#### 1,020", "answer", "")
    '1020'
    >>> final(r"So it is \boxed{\frac{1}{2}}.", "solution", "")
    '\\frac{1}{2}'
    """
    words = len(text.split())
    if "####" in text:
        text = text.rsplit("####", 1)[1].strip()
        if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", text):
            text = text.replace(",", "")
        what = "what follows ####"
    elif re.search(r"\\(boxed|fbox)\b", text):
        text = last_box(text)
        what = "the last \\boxed{}"
    elif name.lower() == "solution" and (words > 12 or "\n" in text) or (
            words > LONGEST_ANSWER and re.search(r"[.!?]\s|\n", text)):
        raise InputError(f"{where}: '{name}' has {words} words and neither #### nor \\boxed{{}}: a "
                         "solution, expected the answer alone")
    else:
        what = f"'{name}'"
    if text in ("", "nan", "<unk>") or re.match(r'[{\[]\s*["{\[]', text):
        raise InputError(f"{where}: {what} is {shorten(text, 40)!r}, expected an answer")
    return text


def last_box(text):
    """What stands in the last \\boxed{} of a reference; unlike letters.last_boxed "" if it never
    closes."""
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    inside = re.match(r"\\[bf]\w+\s*\{", text[start:])
    if not inside:
        return ""
    depth, first = 1, start + inside.end()
    for i in range(first, len(text)):
        escaped = text[i - 1] == "\\" and text[i - 2] != "\\"
        if text[i] in "{}" and not escaped:
            depth += 1 if text[i] == "{" else -1
        if depth == 0:
            return text[first:i].strip()
    return ""


def read_question(item, question_id, where):
    """One item alone -> Question, as where its file says nothing more. Raises InputError."""
    return settle([read_item(item, question_id, where)])[0]
