"""Files become documents and questions, or one clear line.

    documents   a JSON list or JSONL of {"doc_id" or "id", "content" or "text"};
                one .txt or .md file; a folder of them
    questions   a JSON list or JSONL of {"question_id" or "id", "question_text" or "question",
                "choices", "ground_truth" or "answer"}
    either      hf://datasets/ORG/NAME/FILE, fetched from the Hugging Face hub

These are the authors' released formats and their usual variants; other fields are ignored. A bad
file raises InputError, whose message is one line: file, item or line, what is wrong, what was
expected. Item 3 of notes.json gets the id notes-3 if it has none, chunk 3 of notes.md the id
notes.md-3. Only text is parsed here; nothing that is read can run code (no pickle).

Our own choices, where the paper leaves it open: a chunk of a text file repeats all the headings it
lies under; no chunk crosses a heading; a long section is halved at the paragraph nearest its
middle until it fits, so its chunks come out about even.
"""
import json
import re
from pathlib import Path
from string import ascii_uppercase

from data import Document, InputError, Question, count_words, is_encodable, is_number, shorten


# ---------------------------------------------------------------- documents

def load_documents(path, max_tokens=None, count_tokens=count_words):
    """A file or a folder -> list of Document, at least one. Raises InputError.

    Text files are cut into chunks of at most max_tokens as counted by count_tokens (None: one chunk
    per section). Items of a JSON file are documents already and stay whole; data.keep_fitting is
    for those that turn out too long.
    """
    if Path(path).is_dir():
        return load_folder(Path(path), max_tokens, count_tokens)
    if not is_text(path):
        return load_items(path, ("doc_id", "id"), read_document)
    documents = chunk_file(path, Path(path).name, max_tokens, count_tokens)
    if not documents:
        raise InputError(f"{path}: no text outside headings, expected at least one paragraph")
    return documents


def is_text(path):
    return Path(path).suffix.lower() in (".txt", ".md")


def load_folder(folder, max_tokens, count_tokens):
    """Every .txt and .md file below folder, sorted by path.

    Names that start with a dot (.git, .obsidian) are left alone.
    """
    names = text_files(folder)
    if not names:
        raise InputError(f"{folder}: no .txt or .md file in this folder or below; "
                         "for documents in JSON give the file itself")
    documents = []
    empty = []
    for name in names:
        chunks = chunk_file(folder / name, name, max_tokens, count_tokens, may_be_empty=True)
        documents += chunks
        if not chunks:
            empty.append(name)

    if not documents:
        raise InputError(f"{folder}: its {len(names)} .txt and .md files hold no text outside "
                         "headings, expected at least one paragraph")
    if empty:
        left_out = f"{len(empty)} of {len(names)} files hold no text outside headings"
        print(f"{folder}: {left_out} and are left out: {shorten(', '.join(empty))}")
    return documents


def text_files(folder):
    """Folder -> the sorted names of the text files in and below it, relative to it."""
    files = [file for file in folder.rglob("*") if is_text(file) and file.is_file()]
    names = sorted(file.relative_to(folder).as_posix() for file in files)
    return [name for name in names if not is_hidden(name)]


def is_hidden(name):
    return any(part.startswith(".") for part in name.split("/"))


def chunk_file(path, name, max_tokens, count_tokens, may_be_empty=False):
    """One text file -> its chunks as Documents name-1, name-2, ..."""
    text = read_text(path, may_be_empty)
    try:
        chunks = chunk(text, max_tokens, count_tokens)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return [Document(f"{name}-{i}", content) for i, content in enumerate(chunks, 1)]


def read_document(item, doc_id, where):
    return Document(doc_id, read_string(item, ("content", "text"), where))


# ---------------------------------------------------------------- chunks of a text

def chunk(text, max_tokens=None, count_tokens=count_words):
    r"""Markdown or plain text -> list of chunks, each with the headings it lies under.

    None is longer than max_tokens, none overlaps another.

    >>> text = "# Light\n## Lenses\nThey bend light. They focus it.\n\nGlass is common."
    >>> for part in chunk(text + "\n## Mirrors\nThey reflect.", 8):
    ...     print(repr(part))
    '# Light\n\n## Lenses\n\nThey bend light.'
    '# Light\n\n## Lenses\n\nThey focus it.'
    '# Light\n\n## Lenses\n\nGlass is common.'
    '# Light\n\n## Mirrors\n\nThey reflect.'
    """
    chunks = []
    for headings, body in sections(text):
        def assemble(part):
            return "\n\n".join(headings + [part])

        def fits(part):
            return max_tokens is None or count_tokens(assemble(part)) <= max_tokens

        chunks += [assemble(part) for part in halve_until(fits, body)]
    return chunks


# Both allow three spaces of indent, as Markdown does. Headings underlined with === or --- are
# missing on purpose: "---" is as often a rule.
HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+\S")
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")


def sections(text):
    """Text -> list of (headings from the outermost inwards, body).

    Sections without a body are dropped; those below keep the heading.
    """
    found = [([], [])]
    fence = None
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        mark = FENCE.match(line)
        heading = HEADING.match(line)
        if mark and fence is None:
            fence = mark[1]
        elif mark and mark[1].startswith(fence):
            fence = None

        # between fences "# ..." is a comment in some code
        if heading and fence is None:
            above = [h for h in found[-1][0] if heading_level(h) < len(heading[1])]
            found.append((above + [line.strip()], []))
        else:
            found[-1][1].append(line)

    found = [(headings, "\n".join(lines).strip()) for headings, lines in found]
    return [(headings, body) for headings, body in found if body]


def heading_level(heading):
    return len(heading) - len(heading.lstrip("#"))


# Where a text may be cut, best first: after a paragraph, a sentence or line (Chinese and Japanese
# full stops need no space), a word.
PARAGRAPH = re.compile(r"\n\s*\n")
SENTENCE = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+|(?<=[。！？])|\n")
WORD = re.compile(r"\s+")


def halve_until(fits, text):
    """A text -> its parts in order, each of which fits.

    Cut at the best kind of place there is, as near to the middle as possible.
    """
    if fits(text):
        return [text]
    if len(text) == 1:
        raise InputError("the headings alone reach max_tokens, no text fits beside them; "
                         "raise max_tokens or shorten the headings")
    cut = min(places_to_cut(text), key=lambda place: abs(2 * place - len(text)))
    return halve_until(fits, text[:cut].strip()) + halve_until(fits, text[cut:].strip())


def places_to_cut(text):
    """Text -> the places of the best kind it has; the middle of one endless word."""
    for pattern in (PARAGRAPH, SENTENCE, WORD):
        ends = [match.end() for match in pattern.finditer(text)]
        places = [end for end in ends if 0 < end < len(text)]
        if places:
            return places
    return [len(text) // 2]


# ---------------------------------------------------------------- questions

def load_questions(path):
    """A file -> list of Question, at least one, multiple-choice and free-form as they come.

    Raises InputError.
    """
    if Path(path).is_dir():
        raise InputError(f"{path}: is a folder, expected a JSON or JSONL file of questions")
    return load_items(path, ("question_id", "id"), read_question)


def read_question(item, question_id, where):
    question_text = read_string(item, ("question_text", "question"), where).strip()
    choices = read_choices(item, where)
    ground_truth = read_string(item, ("ground_truth", "answer"), where, numbers=True).strip()
    if choices:
        ground_truth = match_choice(ground_truth, choices, where)
    return Question(question_text, choices, ground_truth, question_id)


def read_choices(item, where):
    """The choices, stripped; [] for a free-form question (choices absent, null or empty)."""
    choices = item.get("choices")
    if choices is None or choices == []:
        return []
    if not isinstance(choices, list):
        raise InputError(f"{where}: 'choices' is {kind(choices)}, expected a list of strings")
    for number, choice in enumerate(choices, 1):
        if not isinstance(choice, str):
            raise InputError(f"{where}: choice {number} is {kind(choice)}, expected a string")
        check_text(choice, f"choice {number}", where)

    choices = [choice.strip() for choice in choices]
    if not 2 <= len(choices) <= 26:
        counted = f"{len(choices)} choice{'s' * (len(choices) > 1)}"
        raise InputError(f"{where}: {counted}, "
                         "expected 2 to 26 (or none for a free-form question)")
    for number, choice in enumerate(choices, 1):
        if choice in choices[:number - 1]:
            first = choices.index(choice) + 1
            raise InputError(f"{where}: choices {first} and {number} are both "
                             f"{shorten(choice)!r}, expected different ones")
    return choices


def match_choice(answer, choices, where):
    """The choice that answer means: the one with this text; only if there is none, the letter's.

    >>> match_choice("C", ["A", "C", "G", "T"], "dna.json: item 1")
    'C'
    >>> match_choice("C", ["adenine", "cytosine", "guanine", "thymine"], "dna.json: item 2")
    'guanine'
    """
    if answer in choices:
        return answer
    letters = ascii_uppercase[:len(choices)]
    if len(answer) == 1 and answer in letters:
        return choices[letters.index(answer)]
    raise InputError(f"{where}: the answer {shorten(answer)!r} is not among the choices, "
                     f"expected the text of one of them or a letter from A to {letters[-1]}")


# ---------------------------------------------------------------- files

def load_items(path, id_names, read_item):
    """A JSON list or JSONL file -> list of read_item(object, id, where).

    where is "FILE: item 3" or "FILE: line 3", for messages.
    """
    loaded = []
    first_place = {}
    for place, item in read_places(path):
        where = f"{path}: {place}"
        if not isinstance(item, dict):
            raise InputError(f"{where}: {kind(item)}, expected an object")
        number = place.split()[1]
        item_id = read_id(item, id_names, where, default=f"{Path(path).stem}-{number}")
        if item_id in first_place:
            raise InputError(f"{where}: the id {shorten(item_id)!r} is already that of "
                             f"{first_place[item_id]}, expected different ids")
        first_place[item_id] = place
        loaded.append(read_item(item, item_id, where))
    return loaded


def read_places(path):
    """A JSON list or JSONL file -> list of ("item 3" or "line 3", value), at least one.

    The two are told apart by the first character.
    """
    text = read_text(path)
    if not text.lstrip().startswith("["):
        return parse_lines(text, path)
    values = parse_json(text, path)
    if not values:
        raise InputError(f"{path}: an empty list, expected at least one item")
    return [(f"item {number}", value) for number, value in enumerate(values, 1)]


def parse_lines(text, path):
    """JSONL -> list of ("line 3", value); blank lines are passed over."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    try:
        return [(f"line {number}", parse_json(line, path, number)) for number, line in lines]
    except InputError:
        # one value spread over several lines
        if is_json(text):
            found = kind(json.loads(text))
            raise InputError(f"{path}: the top level is {found}, "
                             "expected a list or one object per line") from None
        raise


def parse_json(text, path, line=None):
    """The value of a JSON text; line is its line in the file, when it is only one of them."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {line or error.lineno}: {error.msg} (column {error.colno})"
        raise InputError(f"{path}: broken JSON at {place}, "
                         "expected a JSON list or one JSON object per line") from None
    except (RecursionError, ValueError) as error:
        # brackets nested a thousand deep; a number of thousands of digits
        place = f" at line {line}" if line else ""
        reason = shorten(error, 200)
        raise InputError(f"{path}: JSON that Python cannot read{place}: {reason}") from None


def is_json(text):
    try:
        json.loads(text)
        return True
    except (RecursionError, ValueError):
        return False


def read_text(path, may_be_empty=False):
    """The text of a UTF-8 file (a byte order mark is dropped), from the disk or the hub."""
    try:
        local = download(path) if str(path).startswith("hf://") else path
        raw = Path(local).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file or folder") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        text = raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        place = f"byte 0x{raw[error.start]:02x} at offset {error.start}"
        raise InputError(f"{path}: not UTF-8: {place}, expected a text file in UTF-8") from None
    if not text.strip() and not may_be_empty:
        raise InputError(f"{path}: the file is empty, expected some text")
    return text


def download(path):
    """hf://datasets/ORG/NAME/FILE -> the path of its local copy, from the hub's cache if there."""
    match = re.fullmatch(r"hf://datasets/([^/]+/[^/]+)/(.+)", str(path))
    if not match:
        raise InputError(f"{path}: expected hf://datasets/ORG/NAME/FILE")
    try:
        # only here: local files need no hub
        from huggingface_hub import hf_hub_download
        return hf_hub_download(repo_id=match[1], filename=match[2], repo_type="dataset")
    except Exception as error:
        # no network, no such file, no permission: the hub's exceptions share no base class
        reason = f"{type(error).__name__}: {shorten(error, 200)}"
        raise InputError(f"{path}: could not be fetched from the hub: {reason}") from None


# ---------------------------------------------------------------- fields of an item

def first_present(item, names):
    """The first of names that the item has a value for; None if it has none of them."""
    return next((name for name in names if item.get(name) is not None), None)


def read_string(item, names, where, numbers=False):
    """The text under the first of names that is there.

    With numbers=True a number also counts, as its text.
    """
    name = first_present(item, names)
    if name is None:
        found = shorten(", ".join(item)) or "none"
        raise InputError(f"{where}: missing field '{names[0]}' (or '{names[1]}'), "
                         f"found the fields: {found}")
    value = str(item[name]) if numbers and is_number(item[name]) else item[name]
    if not isinstance(value, str):
        expected = "a string" + " or a number" * numbers
        raise InputError(f"{where}: '{name}' is {kind(value)}, expected {expected}")
    check_text(value, f"'{name}'", where)
    return value


def read_id(item, names, where, default):
    """The id as a string; default if there is none."""
    if first_present(item, names) is None:
        return default
    return read_string(item, names, where, numbers=True)


def check_text(value, what, where):
    if not value.strip():
        raise InputError(f"{where}: {what} is empty, expected some text")
    if not is_encodable(value):
        raise InputError(f"{where}: {what} holds half of a surrogate pair (\\ud800 to \\udfff), "
                         "expected valid Unicode")


def kind(value):
    """JSON's name for what Python made of it."""
    names = {type(None): "null", bool: "true or false", str: "a string", list: "a list",
             dict: "an object"}
    return names.get(type(value), "a number")
