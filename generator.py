"""pi_phi, the generator: reads a document and writes one multiple-choice question with its answer key.

    documents (D) --prompt_text--> prompts --sample--> D x n rollouts --parse_question--> D x n drafts, of which Q are valid questions

    code        symbol     shape     meaning
    documents   d          (D,)      what is read
    drafts                 (D, n)    rollouts with what was parsed from them; an invalid one keeps its place: question=None and a reason
    question    q, a_phi             question text, options and the key, which is what the solver is checked against

The prompt asks for a JSON object and allows thinking before it, so the last valid object counts. What a draft is worth is decided elsewhere.

Departs from the released code: the prompt is ours; raw JSON is tried before any repair of LaTeX backslashes; a key that is itself a letter is matched as text
first; `choices: []` is an invalid draft, not a free-form question.
"""
import json
import random
import re
from string import ascii_uppercase

import solver as solver_role
from data import Draft, Question, is_encodable, is_number
from overlap import folded
from policy import sample


# The document goes in {document}. What the prompts ask for is what parse_question checks.
PROMPT = """Read the document and write one multiple-choice question about it.

Document:
{document}

The question must be hard and must make sense to someone who has never seen the document, so repeat every fact it needs. Give 4 to 8 options, exactly one of them right. You may think first. End with one JSON object:
{{"question_text": "...", "choices": ["...", "...", "...", "..."], "ground_truth": "the exact text of the right option"}}"""


FREE_FORM = """Read the document and write one question with a short answer about it.

Document:
{document}

The question must be hard and must make sense to someone who has never seen the document, so repeat every fact it needs. Its answer is one number, formula, name or word. You may think first. End with one JSON object:
{{"question_text": "...", "ground_truth": "the answer"}}"""

# The first line when dev questions take the document's place (extensions.py: seeds).
SEEDED = "Read these questions and write a new one that asks for the same skills."


def prompt_text(document, question_type="multiple_choice"):
    """A document -> the user message the generator reads."""
    prompt = FREE_FORM if question_type == "free_form" else PROMPT
    if document.seeds:
        first, rest = prompt.split("\n", 1)
        prompt = f"{SEEDED}\n{rest}".replace("Document:", "Questions:").replace("the document", "these questions")
    return prompt.format(document=document.content)


def write_questions(generator, documents, key, cfg, solver):
    """D documents -> (D, n) drafts; a draft that is no valid question keeps its place, with question=None and a reason.

    key: (seed, iteration, "generator", stage). Options are shuffled after parsing, by a generator seeded with the draft's place, so that the writer's habit
    of putting the right one first teaches nothing. A question whose solver prompt is longer than cfg.max_prompt_tokens is invalid: "prompt_too_long";
    so is one that repeats a question it was shown: "copies_seed".
    """
    prompts = [generator.prompt_ids(prompt_text(document, cfg.question_type)) for document in documents]
    rollouts = sample(generator, prompts, cfg.questions_per_doc, key, cfg, what="drafts")                   # (D, n)
    drafts = []
    for d, (document, row) in enumerate(zip(documents, rollouts)):
        drafts.append([])
        shown = {folded(seed.question_text) for seed in document.seeds}
        for j, rollout in enumerate(row):
            question, reason = parse_question(rollout.text, random.Random(f"{key} {d} {j}"), cfg.min_choices, cfg.max_choices, cfg.question_type)
            if question and len(solver.prompt_ids(solver_role.prompt_text(question))) > cfg.max_prompt_tokens:
                question, reason = None, "prompt_too_long"
            if question and folded(question.question_text) in shown:
                question, reason = None, "copies_seed"
            drafts[d].append(Draft(document, rollout, question, reason))
    return drafts


# ---------------------------------------------------------------- from text to a question

FIELDS = ("question_text", "choices", "ground_truth")
OBJECT_START = re.compile(r'\{(?=\s*"[^"\\]*"\s*:)')      # the braces of LaTeX and of prose do not look like this
STRING = r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)'              # up to its closing quote, or cut off by the end of the text
TOKEN = re.compile(STRING + r"|[{}\[\]\\]", re.DOTALL)     # a string, a bracket, or a backslash where none may be
MAX_DEPTH = 8   # brackets in brackets; a question needs 2. The limit keeps the search linear in the text


def parse_question(text, rng=None, min_choices=4, max_choices=8, question_type="multiple_choice"):
    """What the generator wrote -> (Question, None), or (None, reason).

    The last valid object counts, so thoughts and discarded attempts may come before it, and remarks after it. If no object is valid, the
    reason is that of the last one that was meant as a question: no_json, truncated, bad_json, missing_field, wrong_type, not_unicode,
    empty_question, empty_choice, too_few_choices, too_many_choices, duplicate_choices or answer_not_in_choices; of a question_type
    "free_form", which has no options, also has_choices, empty_answer or long_answer.
    rng: a random.Random that shuffles the options; None leaves their order.

    >>> parse_question('Easy. {"question_text": "2 + 2?", "choices": ["3", "4", "5", "22"], "ground_truth": "4"}')
    (Question(question_text='2 + 2?', choices=['3', '4', '5', '22'], ground_truth='4', question_id=''), None)
    """
    last_reason = None
    for start in reversed([match.start() for match in OBJECT_START.finditer(text)]):
        question, reason = read_object(text, start, min_choices, max_choices, question_type)
        if question:
            if rng:
                rng.shuffle(question.choices)
            return question, None
        last_reason = last_reason or reason
    return None, last_reason or "no_json"


def read_object(text, start, min_choices, max_choices, question_type="multiple_choice"):
    """The object that opens at text[start] -> (Question, None), (None, reason), or (None, None) if it was never meant as a question."""
    end, closed = object_end(text, start)
    body = text[start:end]
    if not any(f'"{field}"' in body for field in FIELDS):
        return None, None
    if not closed:
        return None, "truncated" if end == len(text) else "bad_json"
    fields = read_json(body)
    if fields is None:
        return None, "bad_json"
    if not any(field in fields for field in FIELDS):   # a wrapper such as {"question": {...}}; what it holds is looked at on its own
        return None, None
    return check_free_form(fields) if question_type == "free_form" else check_question(fields, min_choices, max_choices)


def object_end(text, start):
    """-> (end, closed): one past the brace that closes text[start], braces inside strings ignored; not closed: where reading had to stop.

    Two objects that are both read far either nest, at most MAX_DEPTH deep, or disagree on which quotes open a string, and there are only
    two ways to see that. So no character is read more than 2 MAX_DEPTH times, whatever the text.
    """
    depth = 0
    for token in TOKEN.finditer(text, start):
        if token[0] in "{[":
            depth += 1
        elif token[0] in "}]":
            depth -= 1
        if token[0] == "\\" or depth > MAX_DEPTH:   # a backslash outside a string: not JSON
            return token.end(), False
        if depth == 0:
            return token.end(), True
    return len(text), False


# \n opens a LaTeX command only in these cases; elsewhere it is a line break. Before a letter, \b \f \r \t nearly always open one.
N_COMMAND = r"n(?=(?:u|e|eq|eg|abla|ot|otin|i|mid|leq|geq|less|gtr|cong|sim|parallel|exists|subseteq|earrow|warrow)(?![A-Za-z]))"
BACKSLASH = re.compile(rf'\\(?:["\\/]|u[0-9a-fA-F]{{4}}|[bfrt](?![A-Za-z])|(?!{N_COMMAND})n)?')


def read_json(body):
    r"""Text of an object -> dict, or None. Raw JSON first, so "\n" stays a line break; LaTeX backslashes are doubled only if that fails.

    >>> read_json(r'{"a": "x\nis \\theta"}'), read_json(r'{"a": "x\nis \(\theta\)"}')
    ({'a': 'x\nis \\theta'}, {'a': 'x\nis \\(\\theta\\)'})
    """
    for attempt in (body, BACKSLASH.sub(lambda escape: escape[0] if len(escape[0]) > 1 else r"\\", body)):
        try:
            return json.loads(attempt, strict=False)   # strict=False: a line break inside a string is a line break
        except ValueError:                             # JSONDecodeError is one; so is the error for a number of 5,000 digits
            pass
    return None


def check_question(fields, min_choices, max_choices):
    """A dict with at least one of the three fields -> (Question, None) or (None, reason)."""
    if not all(field in fields for field in FIELDS):
        return None, "missing_field"
    text, choices, key = (fields[field] for field in FIELDS)
    if not isinstance(choices, list) or not all(isinstance(string, str) for string in (text, key, *choices)):
        return None, "wrong_type"
    if not all(map(is_encodable, (text, key, *choices))):
        return None, "not_unicode"
    text, key, written = text.strip(), fold(key), [choice.strip() for choice in choices]
    choices = strip_labels(written)
    reason = ("empty_question" if not text else
              "too_few_choices" if len(choices) < min_choices else
              "too_many_choices" if len(choices) > max_choices else
              "empty_choice" if not all(choices) else
              "duplicate_choices" if len(set(map(fold, choices))) < len(choices) else None)
    if reason:
        return None, reason
    index = find_key(key, written, choices)
    return (None, "answer_not_in_choices") if index is None else (Question(text, choices, choices[index]), None)


MAX_ANSWER_WORDS = 12      # what is longer is a sentence, and no verifier would match it


def check_free_form(fields):
    """A dict with at least one of the three fields -> (free-form Question, None) or (None, reason)."""
    text, key = fields.get("question_text"), fields.get("ground_truth")
    key = str(key) if is_number(key) else key           # a number is as good as its text
    if text is None or key is None:
        return None, "missing_field"
    if not isinstance(text, str) or not isinstance(key, str):
        return None, "wrong_type"
    reason = ("has_choices" if fields.get("choices") else       # it may make no sense without them
              "not_unicode" if not (is_encodable(text) and is_encodable(key)) else
              "empty_question" if not text.strip() else
              "empty_answer" if not key.strip() else
              "long_answer" if len(key.split()) > MAX_ANSWER_WORDS else None)
    return (None, reason) if reason else (Question(text.strip(), [], fold(key)), None)


def fold(text):
    """Runs of whitespace become one space. Case stays: X and x can be two variables."""
    return " ".join(text.split())


LABEL = re.compile(r"\(?([A-Za-z])(?:\)\.?|[.:])\s*(?=\S)")


def strip_labels(choices):
    """["A. 27", "B. 31", ...] -> ["27", "31", ...]: labels nobody asked for. Only if every option has one and they run A, B, C, ..."""
    labels = [LABEL.match(choice) for choice in choices]
    if all(labels) and "".join(label[1] for label in labels).upper() == ascii_uppercase[:len(choices)]:
        return [choice[label.end():] for choice, label in zip(choices, labels)]
    return choices


BARE_LETTER = re.compile(r"\(?([A-Za-z])\)?[.:]?")


def find_key(key, written, choices):
    """Index of the option meant by key, or None. Text first, with and without labels; only then a letter: "B", "(B)", "B." or "B. 31"."""
    for options in (written, choices):
        if key in map(fold, options):
            return [fold(option) for option in options].index(key)
    letter = LABEL.match(key) or BARE_LETTER.fullmatch(key)
    index = ascii_uppercase.index(letter[1].upper()) if letter else len(choices)
    if index < len(choices) and key[letter.end():] in ("", fold(choices[index])):   # "B. 27" is no key if 27 is option A
        return index
    return None
