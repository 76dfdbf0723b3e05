"""pi_phi, the generator: reads a document and writes a multiple-choice question with its key.

    documents (D) --prompt_text--> prompts --sample--> rollouts --parse_question--> drafts (D, n)

    code        symbol     shape     meaning
    documents   d          (D,)      what is read
    drafts                 (D, n)    rollouts with what was parsed from them; an invalid one keeps
                                     its place: question=None and a reason
    question    q, a_phi             text, choices and the key, which the solver is checked against

The prompt asks for a JSON object and allows thinking before it, so the last valid object counts.
What a draft is worth is decided elsewhere. How JSON is read, and which slips are mended, is in
engine/drafts.py; which option a key means, and when their order stays, in engine/options.py.

Departs from the released code: the prompts are ours, `plain` here (no system message), `hard` in
prompts/hard; backslashes are judged one by one; a key that is itself a letter is matched as text
first; `choices: []` is an invalid draft, not a free-form question.
"""
import functools
import random

import solver as solver_role
from data import Draft, Question, is_encodable
from engine.drafts import FIELDS, judged, was_meant
from engine.options import find_key, fold, order_matters, strip_labels
from engine.overlap import folded
from engine.prompts import long_prompt
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


def prompt_text(document, question_type="multiple_choice", prompts="plain"):
    """A document -> what the generator is asked: a user message; hard: (system message, user
    message)."""
    free = question_type == "free_form"
    if prompts == "hard":
        file = "generator_free_form.txt" if free else "generator.txt"
        section = "questions" if document.seeds else "document"
        return long_prompt(file, section, document=document.content)
    prompt = FREE_FORM if free else PROMPT
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
    asked = [prompt_text(document, cfg.question_type, cfg.prompts) for document in documents]
    prompts = list(map(generator.prompt_ids, asked))
    rollouts = sample(generator, prompts, cfg.questions_per_doc, seed_words, cfg, what="drafts")
    drafts = []
    for d, (document, group) in enumerate(zip(documents, rollouts)):
        drafts.append([])
        for j, rollout in enumerate(group):
            # Seeded by the draft's place. Shuffled, since a right one always first teaches nothing.
            shuffler = random.Random(f"{seed_words} {d} {j}")
            drafts[d].append(read_draft(document, rollout, shuffler, cfg, solver))
    return drafts


def read_draft(document, rollout, shuffler, cfg, solver):
    """A rollout -> Draft; its reason is parse_question's, or one of the two here."""
    question, reason, repairs = parse_draft(
        rollout.text, shuffler, cfg.min_choices, cfg.max_choices, cfg.question_type)
    if question is None:
        return Draft(document, rollout, None, reason)
    if cfg.open_book:
        question.passage = document.content
    asked = solver_role.prompt_text(question, cfg.prompts)
    if len(solver.prompt_ids(asked)) > cfg.max_prompt_tokens:
        return Draft(document, rollout, None, "prompt_too_long")
    if folded(question.question_text) in document.seeds:
        return Draft(document, rollout, None, "copies_seed")
    return Draft(document, rollout, question, None, repairs)


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

def parse_question(text, rng=None, min_choices=4, max_choices=8, question_type="multiple_choice"):
    """What the generator wrote -> (Question, None), or (None, reason).

    The last valid object counts, so thoughts and discarded attempts may come before it, and remarks
    after it. engine/drafts.py says how an object is read and which slips are mended. If no object
    is valid, the reason is that of the last one that was meant as a question: no_json, truncated,
    bad_json, or one of check_question or check_free_form.
    rng: a random.Random that shuffles the choices; None leaves their order. It stays too where a
    choice names others ("Both A and B", "All of the above").

    >>> text = '{"question_text": "2 + 2?", "choices": ["3", "4", "5", "22"], "ground_truth": "4"}'
    >>> question, reason = parse_question("Easy. " + text)
    >>> question.choices, question.ground_truth, reason
    (['3', '4', '5', '22'], '4', None)
    >>> parse_question("Easy. " + text.replace("22", "4"))
    (None, 'duplicate_choices')
    """
    return parse_draft(text, rng, min_choices, max_choices, question_type)[:2]


def parse_draft(text, rng, min_choices, max_choices, question_type):
    """parse_question, and the names of the slips that were mended in the object that counts."""
    if question_type == "free_form":
        check, needed = check_free_form, ("question_text", "ground_truth")
    else:
        check = functools.partial(
            check_question, min_choices=min_choices, max_choices=max_choices)
        needed = FIELDS

    found = None, "bad_json" if was_meant(text) else "no_json", []
    for question, reason, slips in judged(text, check, needed):
        # a later invalid object cancels no question, an abstention does
        if question or reason == "abstained" or not found[0]:
            found = question, reason, slips
    question, reason, slips = found
    if question and rng and not order_matters(question.choices):
        rng.shuffle(question.choices)
    return question, reason, slips


def check_question(fields, min_choices, max_choices):
    """A dict with at least one of the three fields -> (Question, None) or (None, reason).

    Reasons: abstained, missing_field, wrong_type, not_unicode, empty_question, too_few_choices,
    too_many_choices, empty_choice, duplicate_choices, answer_not_in_choices.
    """
    if abstains(fields):
        return None, "abstained"
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
    choices = strip_labels(written, key)
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


def abstains(fields):
    """Are question and key there and empty, and no choice filled in? The way out of the prompt
    `hard`, for a document without material."""
    if not ("question_text" in fields and "ground_truth" in fields):
        return False
    choices = fields.get("choices")
    values = [fields["question_text"], fields["ground_truth"]]
    values += choices if isinstance(choices, list) else [choices]
    return not any(value.strip() if isinstance(value, str) else value for value in values)


# What is longer is a sentence, and no verifier would match it.
MAX_ANSWER_WORDS = 12


def check_free_form(fields):
    """A dict with at least one of the three fields -> (free-form Question, None) or (None, reason).

    Reasons: abstained, missing_field, wrong_type, has_choices, not_unicode, empty_question,
    empty_answer, long_answer.
    """
    if abstains(fields):
        return None, "abstained"
    text, key = fields.get("question_text"), fields.get("ground_truth")
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
