"""What the authors studied beside the main recipe. Every piece is off unless its field is set, and train.py calls it at one place.

    field                           place in the loop                                                            code
    rlvr, rlvr_per_step             3. problems from a file join the solver's batch: no generator wrote them,      Problems
                                       and influence does not look at them (hybrid RLVR)
    unboxed_penalty                 3. an answer that ends without a box is worth less than a wrong one            solver.advantages
    train_on file, questions        2. no drafts: a frozen generator wrote the questions beforehand                load_written, instead
    train_on dev                    2. no drafts: the solver trains on the dev questions themselves                instead
    reward fixed, generator_model   2. another model writes and is never paid: a frozen generator, live            train.py
    question_type free_form         2. the generator is asked for questions without options                        generator.FREE_FORM
    seed_questions k                2. k dev questions stand in the document's place; copies are invalid           seeds
    gate_std                        4. a question whose answers hardly differ in reward earns 0                    gate
    dev_ema                         4. a running mean of g_dev                                                     influence.dev_ema
    solver_keep, keep_*             6. the solver learns from some of the questions only                           kept, only
    dev_refresh R, dev_pool         after 6, every R iterations: the hardest and the easiest tenth of the dev      DevSet
                                       questions leave for good and others come in

    code       shape     meaning
    r          (Q, m)    is the answer right, 1 or 0, nan where nobody knows; p its mean over the m
    score      (Q,)      what a question earns
    slots      (Q,)      (d, j): the document and the draft that a question comes from

Where the authors' text leaves it open: gate_std compares with the standard deviation (n - 1) of a question's m rewards; kept breaks ties by
place; a pool that runs dry replaces fewer, always as many of the hardest as of the easiest; all choices follow from seed and iteration.
"""
import json
import random

import torch

from data import Document, document_batch, load_items, load_questions, read_question
from overlap import folded


# ---------------------------------------------------------------- questions from files

def load_written(path):
    """Questions that some model wrote beforehand: a question file, or a run's questions.jsonl, of whose drafts the valid ones count.

    Raises InputError.
    """
    def read(item, question_id, where):
        return read_question(item, question_id, where) if item.get("status", "valid") == "valid" else None
    return [question for question in load_items(path, ("question_id", "id"), read) if question]


def unlike(dev, questions):
    """Those of the questions whose text, but for case, space and punctuation, is not that of a dev question."""
    known = {folded(question.question_text) for question in dev}
    return [question for question in questions if folded(question.question_text) not in known]


def instead(questions, t, cfg):
    """Questions nobody had to draft -> as many of them as there would be drafts, for iteration t = 1, 2, ...; each once per epoch."""
    return [questions[i] for i in document_batch(len(questions), cfg.drafts_per_step, cfg.seed, t - 1)]


class Problems:
    """Hybrid RLVR's pool: of(t) gives the problems of iteration t = 1, 2, ..., every problem once per epoch.

    Items that are also dev questions are left out; `excluded` counts them.
    """

    def __init__(self, path, dev, cfg):
        everything = load_questions(path) if path else []
        self.pool = unlike(dev, everything)
        self.excluded, self.n, self.seed = len(everything) - len(self.pool), cfg.rlvr_per_step, cfg.seed

    def of(self, t):
        return [self.pool[i] for i in document_batch(len(self.pool), self.n, f"{self.seed}, problems", t - 1)] if self.pool else []


# ---------------------------------------------------------------- instead of documents

def seeds(dev, D, k, key, fits=lambda document: True):
    """D stand-ins for documents: k dev questions each, with options and answer, in the form the generator is asked to write.

    key: words that make the draw unique, e.g. (seed, iteration). k is at most the number of dev questions, and less, down to one, where the prompt does not fit.
    """
    documents = []
    for d in range(D):
        some = random.Random(f"{key} seeds {d}").sample(dev, min(k, len(dev)))
        while len(some) > 1 and not fits(as_document(some)):
            some.pop()
        documents.append(as_document(some))
    return documents


def as_document(questions):
    return Document("+".join(question.question_id for question in questions), "\n".join(map(as_json, questions)), tuple(questions))


def as_json(question):
    fields = {"question_text": question.question_text, "choices": question.choices, "ground_truth": question.ground_truth}
    return json.dumps({name: value for name, value in fields.items() if value}, ensure_ascii=False)


# ---------------------------------------------------------------- which questions count

def gate(s_hat, r, least):
    """(Q,) scores, (Q, m) rewards -> the scores, 0 where the standard deviation of the m rewards is below `least` or unknown.

    >>> r = torch.tensor([[1., 0., 0., 0., 0., 0., 0., 0.], [1., 1., 1., 1., 0., 0., 0., 0.]])      # std .354 and .535
    >>> gate(torch.tensor([0.3, 0.2]), r, 0.4)
    tensor([0.0000, 0.2000])
    """
    return s_hat.masked_fill(~(r.std(dim=1) >= least), 0.0) if least and len(s_hat) else s_hat


def kept(slots, score, Q, cfg, key):
    """(Q,) places and scores -> (Q,) booleans: the questions the solver learns from; all, if nothing was drafted or has a score.

    solver_keep: all; top (the highest scores) or random, of each document's questions (keep_per_doc) or of all (keep_share).
    """
    keep = torch.ones(Q, dtype=torch.bool)
    if cfg.solver_keep == "all" or not slots or (cfg.solver_keep == "top" and score is None):
        return keep
    if cfg.solver_keep == "top":
        order = torch.argsort(score, descending=True, stable=True).tolist()
    else:
        order = random.Random(f"{key} keep").sample(range(len(slots)), len(slots))
    if not cfg.keep_per_doc:
        keep[order[max(1, round(cfg.keep_share * len(slots))):]] = False
        return keep
    taken = {}
    for q in order:
        d = slots[q][0]
        taken[d] = taken.get(d, 0) + 1
        keep[q] = taken[d] <= cfg.keep_per_doc
    return keep


def only(keep, A):
    """(Q,) booleans, advantages of the Q questions and of what follows -> the same with zeros, which an update leaves out, where not kept."""
    A = A.clone()
    A[:len(keep)][~keep] = 0.0
    return A


# ---------------------------------------------------------------- the dev set over time

class DevSet:
    """The dev questions in use, and the pool that refreshes them. A question that has left never returns.

    active    numbers of the questions in use, among those of the dev file and then those of the pool, shuffled
    next      the next one of the pool
    """

    def __init__(self, dev, pool, cfg):
        pool = unlike(dev, pool)
        self.all = dev + random.Random(f"dev pool, seed {cfg.seed}").sample(pool, len(pool))
        self.active, self.next, self.period = list(range(len(dev))), len(dev), cfg.dev_refresh

    @property
    def questions(self):
        return [self.all[i] for i in self.active]

    def due(self, t):
        return bool(self.period) and t % self.period == 0

    def refresh(self, r):
        """(M, m) rewards of the questions in use -> how many were replaced: up to a tenth from either end, by the share of right answers.

        A question none of whose answers could be checked stays.
        """
        solved = r.nanmean(dim=1)
        order = [i for i in torch.argsort(solved, stable=True).tolist() if not solved[i].isnan()]
        n = min(len(self.active) // 10, (len(self.all) - self.next) // 2, len(order) // 2)
        leaving = set(order[:n] + order[len(order) - n:])
        self.active = [number for i, number in enumerate(self.active) if i not in leaving] + list(range(self.next, self.next + 2 * n))
        self.next += 2 * n
        return 2 * n

    def state(self):
        return {"active": self.active, "next": self.next}

    def load(self, state):
        self.active, self.next = state["active"], state["next"]
