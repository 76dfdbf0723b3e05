"""Questions of files that take the place of what a generator writes or reads.

    load_written   instead of drafts: questions that some model wrote beforehand
    instead        which of them come in iteration t
    bundles        instead of documents: dev questions that the generator reads
    chunks         beside documents: problems with their answers that it reads
    unlike         what is in a file and not yet among other questions
"""
import itertools
import json
import math
import random

from data import Document, InputError, document_batch
from engine.overlap import folded
from engine.layouts import read_question
from engine.readers import load_items


def load_written(path, say=print):
    """Questions that some model wrote beforehand: a question file, or a run's questions.jsonl.

    Of the latter's drafts the valid ones count. Raises InputError.
    """
    def read(item, question_id, where):
        valid = item.get("status", "valid") == "valid"
        return read_question(item, question_id, where) if valid else None

    found = [question for question in load_items(path, ("question_id", "id"), read) if question]
    if not found:
        raise InputError(f"{path}: holds no valid question, so there is nothing to train on")
    return found


def unlike(known, questions):
    """The questions whose text, but for case, space and punctuation, is none of the known ones'."""
    texts = {folded(question.question_text) for question in known}
    return [question for question in questions if folded(question.question_text) not in texts]


def instead(questions, t, cfg):
    """Questions nobody had to draft -> as many as there would be drafts, for iteration t.

    Each once per epoch.
    """
    numbers = document_batch(len(questions), cfg.drafts_per_step, cfg.seed, t - 1)
    return [questions[i] for i in numbers]


def bundles(dev, size, seed, fits=None):
    """M dev questions -> M stand-ins for documents, the same over a run: bundles of so many dev
    questions, each once as the one that stays hidden.

    The generator is shown the others of the bundle, so size - 1; fewer, down to one, where the
    prompt does not fit. A copy of any of the M is no valid draft (generator.read_draft).
    """
    rng = random.Random(f"seed bundles, seed {seed}")
    texts = frozenset(folded(question.question_text) for question in dev)
    documents = []
    for m, hidden in enumerate(dev):
        shown = rng.sample(dev[:m] + dev[m + 1:], min(size, len(dev)) - 1)
        while fits and len(shown) > 1 and not fits(as_document(shown, texts)):
            shown.pop()
        documents.append(as_document(shown, texts, hidden))
    return documents


def chunks(problems, number, per_chunk=1):
    """Problems -> so many documents, each of the next per_chunk problems with their answers.

    It goes round: behind the last problem the first follows, as often as the number wants. 0: each
    problem once.

    >>> from data import Question
    >>> problems = [Question(f"{i} + 1 = ?", [], str(i + 1), f"p-{i}") for i in range(3)]
    >>> [document.doc_id for document in chunks(problems, 4, per_chunk=2)]
    ['p-0+p-1', 'p-2+p-0', 'p-1+p-2', 'p-0+p-1']
    >>> [document.doc_id for document in chunks(problems, 0, per_chunk=2)]
    ['p-0+p-1', 'p-2']
    >>> print(chunks(problems, 0)[2].content)
    ## Problem
    2 + 1 = ?
    <BLANKLINE>
    ## Answer
    3
    """
    stream = itertools.cycle(problems) if number else iter(problems)
    documents = []
    for _ in range(number or math.ceil(len(problems) / per_chunk)):
        taken = list(itertools.islice(stream, per_chunk))
        doc_id = "+".join(problem.question_id for problem in taken)
        documents.append(Document(doc_id, "\n\n".join(map(as_text, taken))))
    return documents


def as_text(problem):
    """A problem with its answer, options first where it has some."""
    asked = [problem.question_text, *(f"- {choice}" for choice in problem.choices)]
    return "\n".join(["## Problem", *asked, "", "## Answer", problem.ground_truth])


def as_document(shown, texts, *hidden):
    """Questions to show, the folded texts that a draft may not repeat -> Document."""
    ids = "+".join(question.question_id for question in [*hidden, *shown])
    return Document(ids, "\n".join(map(as_json, shown)), texts)


def as_json(question):
    fields = {"question_text": question.question_text, "choices": question.choices,
              "ground_truth": question.ground_truth}
    there = {name: value for name, value in fields.items() if value}
    return json.dumps(there, ensure_ascii=False)
