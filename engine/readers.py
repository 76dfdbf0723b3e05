"""Files become documents and questions, or one clear line.

    documents   items of {"doc_id" or "id", "content" or "text"}; a text file; a folder of them
    questions   items, in the layouts of layouts.py
    items       JSON, JSONL, CSV, TSV, Parquet, gzip of each; hf://datasets/ORG/NAME/FILE (files.py)
    texts       Markdown, text, reStructuredText, HTML, PDF (texts.py)

A bad file raises InputError, whose message is one line: file, item or line, what is wrong, what was
expected. Of questions one in a hundred may be bad: it is counted, said and left out. Item 3 of
notes.json gets the id notes-3 if it has none, chunk 3 of notes.md the id notes.md-3.

Our own choices, where the paper leaves it open: a chunk of a text file repeats all the headings it
lies under; no chunk crosses a heading; a long section is halved at the paragraph nearest its
middle until it fits, so its chunks come out about even.
"""
import os
import re
import stat
from collections import Counter

from data import Document, InputError, count_words
from engine import layouts
from engine.files import Twice, kind, printable, read_places, stem_of, suffix_of
from engine.layouts import ID, Item, read_id, read_string
from engine.speech import one_line, shorten
from engine.texts import CONVERTERS, is_text, text_of

DOCUMENT_ID = ("doc_id", "id")


# ---------------------------------------------------------------- documents

def load_documents(path, max_tokens=None, count_tokens=count_words, say=print):
    """A file or a folder -> list of Document, at least one. Raises InputError.

    Text files are cut into chunks of at most max_tokens as counted by count_tokens (None: one chunk
    per section). Items are documents already and stay whole; data.keep_fitting is for those that
    turn out too long. say(line) tells what a folder holds that is not read.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        return load_folder(path, max_tokens, count_tokens, say)
    if not is_text(path):
        return load_items(path, DOCUMENT_ID, read_document)
    documents = chunk_file(path, os.path.basename(path), max_tokens, count_tokens)
    if not documents:
        raise InputError(f"{printable(path)}: no text outside headings, expected at least one "
                         "paragraph")
    return documents


def read_document(item, doc_id, where):
    return Document(doc_id, read_string(Item(item, where), ("content", "text"), where))


def load_folder(folder, max_tokens, count_tokens, say):
    """Every text file in and below a folder, sorted by path."""
    found = Folder(folder)
    shown = printable(folder)
    if not found.names:
        raise InputError(f"{shown}: no text file in this folder or below (.md, .txt, .rst, .html, "
                         f".pdf){found.others()}; for documents in JSON give the file itself")
    documents, empty = [], []
    for name in found.names:
        chunks = chunk_file(os.path.join(folder, name), name, max_tokens, count_tokens,
                            may_be_empty=True)
        documents += chunks
        if not chunks:
            empty.append(printable(name))
    if not documents:
        raise InputError(f"{shown}: its {len(found.names)} text files hold no text outside "
                         "headings, expected at least one paragraph")
    for line in found.left_out(empty):
        say(f"{shown}: {line}")
    return documents


class Folder:
    """What lies in and below a folder, links followed: names of text files, and the rest.

    names, other (files of other kinds), hidden (names with a dot in front), dangling (links that
    lead nowhere), again (links to what is read under its own name): relative to the folder.
    Raises InputError where it may not look.
    """

    def __init__(self, folder):
        self.root = os.path.realpath(folder)
        self.names, self.other, self.hidden, self.dangling, self.again = [], [], [], [], []
        status = os.stat(folder)
        self.entered = {(status.st_dev, status.st_ino)}
        waiting = [("", folder)]
        while waiting:
            prefix, where = waiting.pop()
            waiting += self.enter(prefix, where)
        for names in (self.names, self.other, self.hidden, self.dangling, self.again):
            names.sort()

    def enter(self, prefix, where):
        """Sorts the entries of one folder. -> the folders in it that are to be entered."""
        try:
            entries = sorted(os.scandir(where), key=lambda entry: entry.name)
        except OSError as error:
            raise InputError(f"{printable(where)}: cannot be entered: {error.strerror}") from None
        deeper = []
        for entry in entries:
            name = prefix + entry.name
            if entry.name.startswith("."):
                self.hidden.append(name)
                continue
            try:
                status = entry.stat()
            except OSError:
                self.dangling.append(name)
                continue
            if entry.is_symlink() and self.is_read_anyway(entry.path):
                self.again.append(name)
            elif stat.S_ISDIR(status.st_mode):
                number = (status.st_dev, status.st_ino)
                if number in self.entered:
                    self.again.append(name)
                else:
                    self.entered.add(number)
                    deeper.append((f"{name}/", entry.path))
            elif stat.S_ISREG(status.st_mode) and is_text(name):
                self.names.append(name)
            else:
                self.other.append(name)
        return deeper

    def is_read_anyway(self, link):
        """Does a link lead to a place in this folder, where it is met under its own name?"""
        inside = os.path.relpath(os.path.realpath(link), self.root)
        return not any(part.startswith(".") for part in inside.split("/")) or inside == "."

    def others(self):
        """How many files of which other kinds, with the converter of the first that has one."""
        if not self.other:
            return f" but {len(self.dangling)} links that lead nowhere" if self.dangling else ""
        suffixes = Counter(suffix_of(name) or "no suffix" for name in self.other)
        counted = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(5))
        convert = [f"; {suffix}: {CONVERTERS[suffix]}" for suffix in suffixes
                   if suffix in CONVERTERS]
        return f" but {counted}{''.join(convert[:2])}"

    def left_out(self, empty):
        """-> lines that name what is not read."""
        count = len(self.other)
        files = "1 file of another kind is" if count == 1 else f"{count} files of other kinds are"
        kinds = self.others().removeprefix(" but ")
        told = [
            (self.other, f"{files} left alone ({kinds})"),
            (empty, f"{len(empty)} of {len(self.names)} files hold no text outside headings and "
                    "are left out"),
            (self.dangling, f"{len(self.dangling)} of its links lead nowhere"),
            (self.again, f"{len(self.again)} of its links lead to what is read under its own name"),
            (self.hidden, f"hidden files and folders are left alone ({len(self.hidden)})")]
        return [f"{line}: {shorten(', '.join(map(printable, names)))}"
                for names, line in told if names]


def chunk_file(path, name, max_tokens, count_tokens, may_be_empty=False):
    """One text file -> its chunks as Documents name-1, name-2, ..."""
    text = text_of(path, may_be_empty)
    try:
        chunks = chunk(text, max_tokens, count_tokens)
    except InputError as error:
        raise InputError(f"{printable(path)}: {error}") from None
    return [Document(f"{printable(name)}-{i}", content) for i, content in enumerate(chunks, 1)]


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
# behind ``` no other `, else it is code within a line
FENCE = re.compile(r" {0,3}(`{3,}(?!.*`)|~{3,})")


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
        raise InputError("the headings alone reach max_chunk_tokens, no text fits beside them; "
                         "raise --max_chunk_tokens or shorten the headings")
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

def load_questions(path, say=print, bad=None, only=None):
    """A file -> list of Question, at least one, multiple-choice and free-form as they come.

    say(line) tells of bad items, of which there may be one in a hundred, and of what was done to
    some questions; the list `bad` gets them. only(item): is it wanted, of a file that holds more
    than one set. Raises InputError.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        raise InputError(f"{printable(path)}: is a folder, expected a file of questions: JSON, "
                         "JSONL, CSV, TSV or Parquet")
    bad = [] if bad is None else bad

    def read_item(item, question_id, where):
        wanted = only is None or only(item)
        return layouts.read_item(item, question_id, where) if wanted else None

    founds = load_items(path, ID, read_item, bad)
    founds = [found for found in founds if found is not None]
    tell_apart(founds)
    questions = layouts.settle(founds, bad)
    tolerate(bad, len(questions) + len(bad), path, say)
    for note in layouts.notes_on(founds):
        say(f"{printable(path)}: {note}")
    return questions


def tell_apart(founds):
    """Questions of one id, which RACE gives to all of an article, get their number behind it."""
    seen = Counter()
    for found in founds:
        seen[found.question_id] += 1
        if seen[found.question_id] > 1:
            found.question_id += f"#{seen[found.question_id]}"


def tolerate(bad, total, path, say):
    """Says how many items of a file are bad. Raises InputError if more than one in a hundred is."""
    if not bad:
        return
    first = one_line(str(bad[0]))
    if len(bad) > total // 100:
        more = f" (as are {len(bad) - 1} more of {total} items)" if len(bad) > 1 else ""
        raise InputError(f"{first}{more}")
    are = "is" if len(bad) == 1 else "are"
    say(f"{printable(path)}: {len(bad)} of {total} items {are} bad and left out: {first}")


# ---------------------------------------------------------------- items

def load_items(path, id_names, read_item, bad=None):
    """A file of items -> list of read_item(object, id, where).

    where is "FILE: item 3" or "FILE: line 3", for messages. The InputErrors of single items go to
    the list `bad`, if there is one.
    """
    loaded = []
    first_place = {}
    for place, item in read_places(os.fspath(path)):
        try:
            loaded.append(load_item(path, place, item, id_names, read_item, first_place))
        except InputError as error:
            # the names of its fields may hold anything
            error = InputError(one_line(str(error)))
            if bad is None:
                raise error from None
            bad.append(error)
    if not loaded and not bad:
        raise InputError(f"{printable(path)}: the file is empty, expected some text")
    return loaded


def load_item(path, place, item, id_names, read_item, first_place):
    """first_place: {id: where it was met first}, which is added to."""
    where = f"{printable(path)}: {place}"
    if isinstance(item, InputError):
        raise item
    if isinstance(item, Twice):
        raise InputError(f"{where}: the key {shorten(item.key)!r} is there twice, expected once")
    if not isinstance(item, dict):
        raise InputError(f"{where}: {kind(item)}, expected an object")
    number = place.split()[1]
    item_id = read_id(Item(item, where), id_names, where, default=f"{stem_of(path)}-{number}")
    if item_id in first_place:
        raise InputError(f"{where}: the id {shorten(item_id)!r} is already that of "
                         f"{first_place[item_id]}, expected different ids")
    first_place[item_id] = place
    return read_item(item, item_id, where)
