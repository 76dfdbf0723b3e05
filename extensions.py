"""What the authors studied beside the main recipe; all of it is off unless its field is set.

train.py asks one object for whatever an extension may change. MainRecipe is that object without
any: the paper's recipe, a dozen lines of identities. Study overrides them.

    field                          step  what it changes                                  code
    rlvr, rlvr_per_step            3     problems from a file join the solver's batch     problems
    unboxed_penalty                3     no box is worth less than a wrong answer         solver.py
    train_on file, questions       2     a frozen generator wrote the questions before    questions
    train_on dev                   2     the solver trains on the dev questions           questions
    reward fixed, generator_model  2     another model writes and is never paid           train.py
    question_type free_form        2     questions without choices                        generator
    seed_questions                 2     so many dev questions in a document's place      documents
    gate_std                       4     answers that hardly differ in reward earn 0      s_hat
    dev_ema                        4     a running mean of g_dev                          g_dev
    solver_keep, keep_*            6     the solver learns from some questions only       kept
    dev_refresh, dev_pool          end   the hardest and easiest tenth of the dev         after
                                         questions leave, others come in

Where the authors' text leaves it open: gate_std compares with the standard deviation (n - 1) of a
question's m rewards; kept breaks ties by place; a pool that runs dry replaces fewer, always as many
of the hardest as of the easiest; all choices follow from seed and iteration.
"""
import json
import random

import torch

from data import Document, InputError, document_batch
from engine.overlap import folded
from engine.readers import load_items, read_question


class MainRecipe:
    """What train.py asks for in iteration t = 1, 2, ..., and nothing changed."""

    def __init__(self, cfg, documents, dev):
        self.cfg, self.pool, self.dev = cfg, documents, dev

    def dev_questions(self, t):
        """M questions."""
        return self.dev

    def documents(self, t):
        """The next D documents."""
        if not self.pool:
            return []
        cfg = self.cfg
        numbers = document_batch(len(self.pool), cfg.docs_per_step, cfg.seed, t - 1)
        return [self.pool[i] for i in numbers]

    def questions(self, drafted, t):
        """The Q valid questions of the drafts -> those to answer, score and train on."""
        return drafted

    def problems(self, t):
        """Questions for the solver alone: nobody wrote them, and influence does not look at them.
        """
        return []

    def g_dev(self, g):
        return g

    def s_hat(self, s_hat, r):
        """(Q,) influence, (Q, m) rewards -> (Q,) the influence that counts."""
        return s_hat

    def kept(self, slots, score, Q, t):
        """(Q,) booleans: the questions the solver learns from."""
        return torch.ones(Q, dtype=torch.bool)

    def only(self, kept, A):
        """(Q,) booleans, advantages of the Q questions and of the problems -> those that train."""
        return A

    def after(self, t, r_dev):
        """The end of iteration t; (M, m) rewards -> how many dev questions were replaced, or None.
        """

    def all_dev(self):
        """Every question that is or may become a dev question."""
        return self.dev

    def state(self):
        """What a checkpoint must remember: JSON, and the running mean of g_dev, if there is one."""
        return {}, None

    def load(self, state, g_dev_average):
        """Take both back."""


class Study(MainRecipe):
    """The same, changed by every field that is set."""

    def __init__(self, cfg, documents, dev, prompt_length=None):
        """prompt_length(document): of the generator's prompt, in tokens."""
        super().__init__(cfg, documents, dev)
        self.prompt_length = prompt_length
        self.refreshed = DevSet(dev, [], cfg)
        # questions of train_on file; hybrid RLVR's problems; the running mean of g_dev
        self.written, self.rlvr, self.average = [], [], None

    def dev_questions(self, t):
        """All that are in use; none where nobody needs their answers this time."""
        cfg = self.cfg
        due = self.refreshed.due(t) or t % cfg.dev_every == 0 or t == cfg.iterations
        return self.refreshed.questions if cfg.reward == "influence" or due else []

    def documents(self, t):
        cfg = self.cfg
        if not cfg.seed_questions:
            return super().documents(t)
        return seeds(self.refreshed.questions, cfg.docs_per_step, cfg.seed_questions, (cfg.seed, t),
                     self.fits)

    def fits(self, document):
        return self.prompt_length(document) <= self.cfg.max_prompt_tokens

    def questions(self, drafted, t):
        if self.cfg.train_on == "generated":
            return drafted
        return instead(self.written or self.refreshed.questions, t, self.cfg)

    def problems(self, t):
        """Each problem once per epoch."""
        if not self.rlvr:
            return []
        seed = f"{self.cfg.seed}, problems"
        numbers = document_batch(len(self.rlvr), self.cfg.rlvr_per_step, seed, t - 1)
        return [self.rlvr[i] for i in numbers]

    def g_dev(self, g):
        g = dev_ema(self.average, g, self.cfg.dev_ema)
        if self.cfg.dev_ema and g is not None:
            self.average = g
        return g

    def s_hat(self, s_hat, r):
        return gate(s_hat, r, self.cfg.gate_std)

    def kept(self, slots, score, Q, t):
        return kept(slots, score, Q, self.cfg, (self.cfg.seed, t))

    def only(self, kept, A):
        return only(kept, A)

    def after(self, t, r_dev):
        return self.refreshed.refresh(r_dev) if self.refreshed.due(t) else None

    def all_dev(self):
        return self.refreshed.all

    def state(self):
        return self.refreshed.state(), self.average

    def load(self, state, g_dev_average):
        # None: another dev set, which begins anew
        if state:
            self.refreshed.load(state)
        self.average = g_dev_average


def study_of(cfg, documents, dev, questions_of, prompt_length):
    """The study that cfg asks for, with its files.

    questions_of(field, load, known): the questions of that file whose prompt fits and that are not
    among the known ones. prompt_length as in Study.
    """
    on = (cfg.train_on != "generated", cfg.reward != "influence", cfg.solver_keep != "all",
          cfg.seed_questions, cfg.rlvr, cfg.gate_std, cfg.dev_ema, cfg.dev_refresh)
    if not any(on):
        return MainRecipe(cfg, documents, dev)
    study = Study(cfg, documents, dev, prompt_length)
    study.refreshed = DevSet(dev, questions_of("dev_pool"), cfg)
    study.written = questions_of("questions", load_written)
    study.rlvr = questions_of("rlvr", known=study.all_dev())
    return study


# ---------------------------------------------------------------- questions from files

def load_written(path):
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


def unlike(dev, questions):
    """The questions whose text, but for case, space and punctuation, is no dev question's."""
    known = {folded(question.question_text) for question in dev}
    return [question for question in questions if folded(question.question_text) not in known]


def instead(questions, t, cfg):
    """Questions nobody had to draft -> as many as there would be drafts, for iteration t.

    Each once per epoch.
    """
    numbers = document_batch(len(questions), cfg.drafts_per_step, cfg.seed, t - 1)
    return [questions[i] for i in numbers]


# ---------------------------------------------------------------- instead of documents

def seeds(dev, D, n_shown, seed_words, fits=None):
    """D stand-ins for documents: n_shown dev questions each, as the generator is asked to write
    them.

    seed_words: what tells the draw from others, e.g. (seed, iteration). n_shown is at most the
    number of dev questions, and less, down to one, where the prompt does not fit.
    """
    documents = []
    for d in range(D):
        rng = random.Random(f"{seed_words} seeds {d}")
        some = rng.sample(dev, min(n_shown, len(dev)))
        while fits and len(some) > 1 and not fits(as_document(some)):
            some.pop()
        documents.append(as_document(some))
    return documents


def as_document(questions):
    ids = "+".join(question.question_id for question in questions)
    return Document(ids, "\n".join(map(as_json, questions)), tuple(questions))


def as_json(question):
    fields = {"question_text": question.question_text, "choices": question.choices,
              "ground_truth": question.ground_truth}
    there = {name: value for name, value in fields.items() if value}
    return json.dumps(there, ensure_ascii=False)


# ---------------------------------------------------------------- which questions count

def dev_ema(average, g_dev, decay):
    """Running mean of g_dev: first value g, then decay m + (1 - decay) g. decay 0: g itself.

    None without a g_dev.
    """
    if not decay or g_dev is None or average is None:
        return g_dev
    return [decay * a + (1 - decay) * g for a, g in zip(average, g_dev)]


def gate(s_hat, r, least):
    """(Q,) scores, (Q, m) rewards -> the scores, 0 where the standard deviation of the m rewards is
    below `least` or unknown.

    The rewards below have standard deviations .354 and .535.

    >>> r = torch.tensor([[1., 0., 0., 0., 0., 0., 0., 0.], [1., 1., 1., 1., 0., 0., 0., 0.]])
    >>> gate(torch.tensor([0.3, 0.2]), r, 0.4)
    tensor([0.0000, 0.2000])
    """
    if not least or not len(s_hat):
        return s_hat
    return s_hat.masked_fill(~(r.std(dim=1) >= least), 0.0)


def kept(slots, score, Q, cfg, seed_words):
    """(Q,) slots and scores -> (Q,) booleans: the questions the solver learns from.

    solver_keep: all; top (the highest scores) or random, of each document's questions
    (keep_per_doc) or of all (keep_share). All, if nothing was drafted or has a score.
    """
    keep = torch.ones(Q, dtype=torch.bool)
    unscored = cfg.solver_keep == "top" and score is None
    if cfg.solver_keep == "all" or not slots or unscored:
        return keep
    if cfg.solver_keep == "top":
        order = torch.argsort(score, descending=True, stable=True).tolist()
    else:
        order = random.Random(f"{seed_words} keep").sample(range(len(slots)), len(slots))
    if not cfg.keep_per_doc:
        n = max(1, round(cfg.keep_share * len(slots)))
        keep[order[n:]] = False
        return keep
    taken = {}
    for q in order:
        d = slots[q][0]
        taken[d] = taken.get(d, 0) + 1
        keep[q] = taken[d] <= cfg.keep_per_doc
    return keep


def only(keep, A):
    """(Q,) booleans, advantages of the Q questions and of what follows -> zeros where not kept.

    An update leaves those out.
    """
    A = A.clone()
    A[:len(keep)][~keep] = 0.0
    return A


# ---------------------------------------------------------------- the dev set over time

class DevSet:
    """The dev questions in use, and the pool that refreshes them. A question that has left never
    returns.

    active    numbers of the questions in use, among those of dev, then the shuffled pool
    next      the next one of the pool
    """

    def __init__(self, dev, pool, cfg):
        pool = unlike(dev, pool)
        rng = random.Random(f"dev pool, seed {cfg.seed}")
        self.all = dev + rng.sample(pool, len(pool))
        self.active, self.next = list(range(len(dev))), len(dev)
        self.period = cfg.dev_refresh

    @property
    def questions(self):
        return [self.all[i] for i in self.active]

    def due(self, t):
        return bool(self.period) and t % self.period == 0

    def refresh(self, r):
        """(M, m) rewards of the questions in use -> how many were replaced.

        Up to a tenth from either end, by the share of right answers. A question none of whose
        answers could be checked stays.
        """
        solved = r.nanmean(dim=1)                                                   # (M,)
        by_ease = torch.argsort(solved, stable=True).tolist()
        order = [i for i in by_ease if not solved[i].isnan()]
        n = min(len(self.active) // 10, (len(self.all) - self.next) // 2, len(order) // 2)
        leaving = set(order[:n] + order[len(order) - n:])
        staying = [number for i, number in enumerate(self.active) if i not in leaving]
        self.active = staying + list(range(self.next, self.next + 2 * n))
        self.next += 2 * n
        return 2 * n

    def state(self):
        return {"active": self.active, "next": self.next}

    def load(self, state):
        self.active, self.next = state["active"], state["next"]
