"""pi_phi, the generator: reads a document and writes a multiple-choice question with its key.

    documents (D) --prompt_text--> prompts --sample--> rollouts --parse_question--> drafts (D, n)

    code        symbol     shape     meaning
    documents   d          (D,)      what is read
    drafts                 (D, n)    rollouts with what was parsed from them; an invalid one keeps
                                     its place: question=None and a reason
    question    q, a_phi             text, choices and the key, which the solver is checked against

The prompt asks for a JSON object and allows thinking before it, so the last valid object counts.
What a draft is worth is decided elsewhere.

Departs from the released code: the prompt is ours; raw JSON is tried before any repair of LaTeX
backslashes; a key that is itself a letter is matched as text first; `choices: []` is an invalid
draft, not a free-form question.
"""
import json
import random
import re
from string import ascii_uppercase

import solver as solver_role
from data import Draft, Question, is_encodable, is_number
from engine.overlap import folded
from sampling import sample

# ---------------------------------------------------------------- the prompts

# The document goes in {document}. What the prompts ask for is what parse_question checks. The
# embedded world's model knows these lines by heart: after a change, `python -m toy.make --respell`.
PROMPT = """Read the document and write one multiple-choice question about it.

Document:
{document}

The question must be hard and must make sense to someone who has never seen the document, so \
repeat every fact it needs. Give 4 to 8 options, exactly one of them right. You may think first. \
End with one JSON object:
{{"question_text": "...", "choices": ["...", "...", "...", "..."], \
"ground_truth": "the exact text of the right option"}}"""

FREE_FORM = """Read the document and write one question with a short answer about it.

Document:
{document}

The question must be hard and must make sense to someone who has never seen the document, so \
repeat every fact it needs. Its answer is one number, formula, name or word. You may think first. \
End with one JSON object:
{{"question_text": "...", "ground_truth": "the answer"}}"""

# The first line when dev questions take the document's place (engine/pools.py: bundles).
SEEDED = "Read these questions and write a new one that asks for the same skills."


def prompt_text(document, question_type="multiple_choice"):
    """A document -> the user message the generator reads."""
    prompt = FREE_FORM if question_type == "free_form" else PROMPT
    if document.seeds:
        rest = prompt.split("\n", 1)[1]
        rest = rest.replace("Document:", "Questions:").replace("the document", "these questions")
        prompt = f"{SEEDED}\n{rest}"
    return prompt.format(document=document.content)


# ---------------------------------------------------------------- from documents to drafts

def write_questions(generator, documents, seed_words, cfg, solver):
    """D documents -> (D, n) drafts; one that is no valid question keeps its place, with a reason.

    seed_words: (seed, iteration, "generator", stage).
    """
    texts = [prompt_text(document, cfg.question_type) for document in documents]
    prompts = list(map(generator.prompt_ids, texts))
    rollouts = sample(generator, prompts, cfg.questions_per_doc, seed_words, cfg, what="drafts")
    drafts = []
    for d, (document, group) in enumerate(zip(documents, rollouts)):
        drafts.append([])
        for j, rollout in enumerate(group):
            # By the draft's place. A habit of putting the right one first teaches nothing.
            shuffler = random.Random(f"{seed_words} {d} {j}")
            question, reason = read_draft(document, rollout, shuffler, cfg, solver)
            drafts[d].append(Draft(document, rollout, question, reason))
    return drafts


def read_draft(document, rollout, shuffler, cfg, solver):
    """A rollout -> (Question, None) or (None, reason): parse_question's, or one of the two here."""
    question, reason = parse_question(rollout.text, shuffler, cfg.min_choices, cfg.max_choices,
                                      cfg.question_type)
    if question is None:
        return None, reason
    if len(solver.prompt_ids(solver_role.prompt_text(question))) > cfg.max_prompt_tokens:
        return None, "prompt_too_long"
    if folded(question.question_text) in document.seeds:
        return None, "copies_seed"
    return question, None


def valid_questions(drafts):
    """(D, n) drafts -> the slots (d, j) of the valid ones, in order, and their Q questions."""
    slots, questions = [], []
    for d, group in enumerate(drafts):
        for j, draft in enumerate(group):
            if draft.question is not None:
                slots.append((d, j))
                questions.append(draft.question)
    return slots, questions


# ---------------------------------------------------------------- from text to a question

FIELDS = ("question_text", "choices", "ground_truth")
# The braces of LaTeX and of prose do not look like this.
OBJECT_START = re.compile(r'\{(?=\s*"[^"\\]*"\s*:)')
# Up to its closing quote, or cut off by the end of the text.
STRING = r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)'
# A string, a bracket, or a backslash where none may be.
TOKEN = re.compile(STRING + r"|[{}\[\]\\]", re.DOTALL)
# Brackets in brackets; a question needs 2. The limit keeps the search linear in the text.
MAX_DEPTH = 8


def parse_question(text, rng=None, min_choices=4, max_choices=8, question_type="multiple_choice"):
    """What the generator wrote -> (Question, None), or (None, reason).

    The last valid object counts, so thoughts and discarded attempts may come before it, and remarks
    after it. If no object is valid, the reason is that of the last one that was meant as a
    question: no_json, truncated, bad_json, missing_field, wrong_type, not_unicode, empty_question,
    empty_choice, too_few_choices, too_many_choices, duplicate_choices or answer_not_in_choices; of
    a question_type "free_form" also has_choices, empty_answer or long_answer.
    rng: a random.Random that shuffles the choices; None leaves their order.

    >>> text = '{"question_text": "2 + 2?", "choices": ["3", "4", "5", "22"], "ground_truth": "4"}'
    >>> question, reason = parse_question("Easy. " + text)
    >>> question.choices, question.ground_truth, reason
    (['3', '4', '5', '22'], '4', None)
    >>> parse_question("Easy. " + text.replace("22", "4"))
    (None, 'duplicate_choices')
    """
    last_reason = None
    starts = [match.start() for match in OBJECT_START.finditer(text)]
    for start in reversed(starts):
        question, reason = read_object(text, start, min_choices, max_choices, question_type)
        if question:
            if rng:
                rng.shuffle(question.choices)
            return question, None
        last_reason = last_reason or reason
    return None, last_reason or "no_json"


def read_object(text, start, min_choices, max_choices, question_type="multiple_choice"):
    """The object that opens at text[start] -> (Question, None), (None, reason), or (None, None) if
    it was never meant as a question."""
    end, closed = object_end(text, start)
    body = text[start:end]
    if not any(f'"{field}"' in body for field in FIELDS):
        return None, None
    if not closed:
        return None, "truncated" if end == len(text) else "bad_json"
    fields = read_json(body)
    if fields is None:
        return None, "bad_json"
    # a wrapper such as {"question": {...}}; what it holds is looked at on its own
    if not any(field in fields for field in FIELDS):
        return None, None
    if question_type == "free_form":
        return check_free_form(fields)
    return check_question(fields, min_choices, max_choices)


def object_end(text, start):
    """-> (end, closed): one past the brace that closes text[start], braces inside strings ignored.

    Not closed: end is where reading had to stop. Two objects that are both read far either nest, at
    most MAX_DEPTH deep, or disagree on which quotes open a string, and there are only two ways to
    see that. So no character is read more than 2 MAX_DEPTH times, whatever the text.
    """
    depth = 0
    for token in TOKEN.finditer(text, start):
        if token[0] in "{[":
            depth += 1
        elif token[0] in "}]":
            depth -= 1
        # a backslash outside a string: not JSON
        if token[0] == "\\" or depth > MAX_DEPTH:
            return token.end(), False
        if depth == 0:
            return token.end(), True
    return len(text), False


# \n opens a LaTeX command only in these cases; elsewhere it is a line break. Before a letter, \b \f
# \r \t nearly always open one.
N_COMMAND = (r"n(?=(?:u|e|eq|eg|abla|ot|otin|i|mid|leq|geq|less|gtr|cong|sim|parallel|exists"
             r"|subseteq|earrow|warrow)(?![A-Za-z]))")
BACKSLASH = re.compile(
    rf'\\(?:["\\/]|u[0-9a-fA-F]{{4}}|[bfrt](?![A-Za-z])|(?!{N_COMMAND})n)?')


def read_json(body):
    r"""Text of an object -> dict, or None.

    Raw JSON first, so "\n" stays a line break; LaTeX backslashes are doubled only if that fails.

    >>> read_json(r'{"a": "x\nis \\theta"}'), read_json(r'{"a": "x\nis \(\theta\)"}')
    ({'a': 'x\nis \\theta'}, {'a': 'x\nis \\(\\theta\\)'})
    """
    for attempt in (body, BACKSLASH.sub(doubled, body)):
        try:
            # strict=False: a line break inside a string is a line break
            return json.loads(attempt, strict=False)
        except ValueError:
            # JSONDecodeError is one; so is the error for a number of 5,000 digits
            pass
    return None


def doubled(escape):
    """A lone backslash becomes two; a whole escape stays."""
    return escape[0] if len(escape[0]) > 1 else r"\\"


def check_question(fields, min_choices, max_choices):
    """A dict with at least one of the three fields -> (Question, None) or (None, reason)."""
    if not all(field in fields for field in FIELDS):
        return None, "missing_field"
    text, choices, key = (fields[field] for field in FIELDS)
    if not isinstance(choices, list):
        return None, "wrong_type"
    strings = (text, key, *choices)
    if not all(isinstance(string, str) for string in strings):
        return None, "wrong_type"
    if not all(map(is_encodable, strings)):
        return None, "not_unicode"

    text, key = text.strip(), fold(key)
    written = [choice.strip() for choice in choices]
    choices = strip_labels(written)
    if not text:
        return None, "empty_question"
    if len(choices) < min_choices:
        return None, "too_few_choices"
    if len(choices) > max_choices:
        return None, "too_many_choices"
    if not all(choices):
        return None, "empty_choice"
    if len(set(map(fold, choices))) < len(choices):
        return None, "duplicate_choices"
    index = find_key(key, written, choices)
    if index is None:
        return None, "answer_not_in_choices"
    return Question(text, choices, choices[index]), None


# What is longer is a sentence, and no verifier would match it.
MAX_ANSWER_WORDS = 12


def check_free_form(fields):
    """A dict with at least one of the three fields -> (free-form Question, None) or (None, reason).
    """
    text, key = fields.get("question_text"), fields.get("ground_truth")
    # a number is as good as its text
    key = str(key) if is_number(key) else key
    if text is None or key is None:
        return None, "missing_field"
    if not isinstance(text, str) or not isinstance(key, str):
        return None, "wrong_type"
    # it may make no sense without them
    if fields.get("choices"):
        return None, "has_choices"
    if not (is_encodable(text) and is_encodable(key)):
        return None, "not_unicode"
    if not text.strip():
        return None, "empty_question"
    if not key.strip():
        return None, "empty_answer"
    if len(key.split()) > MAX_ANSWER_WORDS:
        return None, "long_answer"
    return Question(text.strip(), [], fold(key)), None


def fold(text):
    """Runs of whitespace become one space. Case stays: X and x can be two variables."""
    return " ".join(text.split())


LABEL = re.compile(r"\(?([A-Za-z])(?:\)\.?|[.:])\s*(?=\S)")


def strip_labels(choices):
    """["A. 27", "B. 31", ...] -> ["27", "31", ...]: labels nobody asked for.

    Only if every choice has one and they run A, B, C, ...
    """
    labels = [LABEL.match(choice) for choice in choices]
    if not all(labels):
        return choices
    letters = "".join(label[1] for label in labels).upper()
    if letters == ascii_uppercase[:len(choices)]:
        return [choice[label.end():] for choice, label in zip(choices, labels)]
    return choices


BARE_LETTER = re.compile(r"\(?([A-Za-z])\)?[.:]?")


def find_key(key, written, choices):
    """Index of the choice meant by key, or None.

    Text first, with and without labels; only then a letter: "B", "(B)", "B." or "B. 31".
    """
    for texts in (written, choices):
        folded_texts = list(map(fold, texts))
        if key in folded_texts:
            return folded_texts.index(key)
    letter = LABEL.match(key) or BARE_LETTER.fullmatch(key)
    if not letter:
        return None
    index = ascii_uppercase.index(letter[1].upper())
    # "B. 27" is no key if 27 is choice A
    if index < len(choices) and key[letter.end():] in ("", fold(choices[index])):
        return index
    return None
