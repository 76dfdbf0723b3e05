"""What the authors studied beside the main recipe; all of it is off unless its field is set.

train.py asks one object for whatever an extension may change. MainRecipe is that object without
any: the paper's recipe, a dozen lines of identities. Study overrides them.

    field                          step  what it changes                                  code
    rlvr, rlvr_per_step            3     problems from a file join the solver's batch     problems
    rlvr_documents, rlvr_chunks    2     or, with their answers, the generator's pool     study_of
    unboxed_penalty                6     no box is worth less than a wrong answer         solver.py
    train_on file, questions       2     a frozen generator wrote the questions before    questions
    train_on dev                   6     the solver trains on step 1's dev answers        batch
    reward fixed, generator_model  2     another model writes and is never paid           train.py
    question_type free_form        2     questions without choices                        generator
    open_book                      2     the solver reads the document, too               generator
    seed_questions                 2     dev questions in a document's place              study_of
    gate_share, gate_tau           4     documents whose scores hardly differ earn 0      s_hat
    dev_ema                        4     a running mean of g_dev                          g_dev
    solver_keep, keep_*            6     the solver learns from some questions only       kept
    dev_refresh, dev_pool          end   the hardest and easiest tenth of the dev         after
                                         questions leave, others come in

Where the sources leave it open: kept breaks ties by place; a pool that runs dry replaces fewer,
always as many of the hardest as of the easiest; all choices follow from seed and iteration.
"""
import math
import random
from collections import Counter

import torch

from data import InputError, document_batch, keep_fitting
from dugrpo import has_gradient
from engine.pools import bundles, chunks, instead, load_written, unlike


class MainRecipe:
    """What train.py asks for in iteration t = 1, 2, ..., and nothing changed."""

    def __init__(self, cfg, documents, dev):
        self.cfg, self.pool, self.dev = cfg, documents, dev
        # problems that stand in documents
        self.read = []

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

    def s_hat(self, s_hat, slots):
        """(Q,) influence, its slots -> (Q,) the influence that counts."""
        return s_hat

    def kept(self, slots, score, solved, t):
        """(Q,) booleans: the questions the solver learns from."""
        return torch.ones(len(solved.questions), dtype=torch.bool)

    def batch(self, kept, answered, dev):
        """Answers to the Q questions and the problems, and to the dev questions -> (G, m) answers
        and A_sol of the solver's update."""
        return answered.answers, answered.A_update

    def after(self, t, r_dev):
        """The end of iteration t; (M, m) rewards -> how many dev questions were replaced, or None.
        """

    def all_dev(self):
        """Every question that is or may become a dev question."""
        return self.dev

    def all_asked(self):
        """Those, and every other question of a file that a role may learn from."""
        return self.all_dev() + self.read

    def state(self):
        """What a checkpoint must remember: JSON, and the running mean of g_dev, if there is one."""
        return {}, None

    def load(self, state, g_dev_average):
        """Take both back."""


class Study(MainRecipe):
    """The same, changed by every field that is set."""

    def __init__(self, cfg, documents, dev):
        super().__init__(cfg, documents, dev)
        self.refreshed = DevSet(dev, [], cfg)
        # questions of train_on file; hybrid RLVR's problems; the running mean of g_dev
        self.written, self.rlvr, self.average = [], [], None

    def dev_questions(self, t):
        """All that are in use; none where nobody needs their answers this time."""
        cfg = self.cfg
        due = self.refreshed.due(t) or t % cfg.dev_every == 0 or t == cfg.iterations
        trains = cfg.by_influence or cfg.train_on == "dev"
        return self.refreshed.questions if trains or due else []

    def questions(self, drafted, t):
        # of dev-only none: its answers are there already
        return instead(self.written, t, self.cfg) if self.written else drafted

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

    def s_hat(self, s_hat, slots):
        cfg = self.cfg
        shape = cfg.docs_per_step, cfg.questions_per_doc
        return gate(s_hat, slots, shape, cfg.gate_share, cfg.gate_tau, cfg.gate_tau_max)

    def kept(self, slots, score, solved, t):
        # one that is all right or all wrong has nothing to teach
        mixed = has_gradient(solved.A_update)
        return kept(slots, score, mixed, self.cfg, (self.cfg.seed, t))

    def batch(self, kept, answered, dev):
        answers, A_sol = answered.answers, only(kept, answered.A_update)
        if self.cfg.train_on == "dev":
            # as they are; nothing is sampled twice
            answers = dev.answers + answers
            A_sol = torch.cat([dev.A_update, A_sol.view(-1, dev.A.shape[1])])
        return answers, A_sol

    def after(self, t, r_dev):
        self.refreshed.remember(r_dev)
        return self.refreshed.refresh() if self.refreshed.due(t) else None

    def all_dev(self):
        return self.refreshed.all

    def all_asked(self):
        return self.all_dev() + self.read + self.written + self.rlvr

    def state(self):
        return self.refreshed.state(), self.average

    def load(self, state, g_dev_average):
        # None: another dev set, which begins anew
        if state:
            self.refreshed.load(state)
        self.average = g_dev_average if state else None


def study_of(cfg, documents, dev, questions_of, prompt_length, say=print):
    """The study that cfg asks for, with its files.

    questions_of(field, load, known): the questions of that file whose prompt fits and that are not
    among the known ones. prompt_length(document): of the generator's prompt, in tokens. say(line):
    what was made of them.
    """
    if cfg.seed_questions:
        def fits(document):
            return prompt_length(document) <= cfg.max_prompt_tokens

        if len(dev) < 2:
            raise InputError(f"{cfg.dev}: expected at least 2 questions beside seed_questions = "
                             f"{cfg.seed_questions}, since one of a bundle is never shown")
        documents, long = keep_fitting(bundles(dev, cfg.seed_questions, cfg.seed, fits),
                                       prompt_length, cfg.max_prompt_tokens, "seed bundles")
        if long:
            say(f"{long} bundles of seed questions are longer than {cfg.max_prompt_tokens} tokens "
                "in the prompt even with one shown; left out")
    on = (cfg.train_on != "generated", not cfg.by_influence, cfg.solver_keep != "all",
          cfg.rlvr, cfg.gate_share, cfg.gate_tau is not None, cfg.dev_ema, cfg.dev_refresh)
    study = MainRecipe(cfg, documents, dev)
    if any(on):
        study = Study(cfg, documents, dev)
        study.refreshed = DevSet(dev, questions_of("dev_pool"), cfg)
        study.written = questions_of("questions", load_written)
        study.rlvr = questions_of("rlvr", known=study.all_dev())
    study.read = questions_of("rlvr_documents", known=study.all_dev())
    if study.read:
        made, long = keep_fitting(
            chunks(study.read, cfg.rlvr_chunks, cfg.rlvr_per_chunk), prompt_length,
            cfg.max_prompt_tokens, "documents of problems")
        say(f"{len(made)} documents of {len(study.read)} problems beside {len(documents)} others, "
            f"{long} left out as too long")
        study.pool = documents + made
    return study


# ---------------------------------------------------------------- which questions count

def dev_ema(average, g_dev, decay):
    """Running mean of g_dev: first value g, then decay m + (1 - decay) g. decay 0: g itself.

    None without a g_dev.
    """
    if not decay or g_dev is None or average is None:
        return g_dev
    return [decay * a + (1 - decay) * g for a, g in zip(average, g_dev)]


def gate(s_hat, slots, shape, share=0.0, tau=None, tau_max=None):
    """(Q,) scores, their slots (d, j), (D, n) -> the scores, 0 in documents with sigma_d <= tau.

    sigma_d: standard deviation (divided by n) of document d's n scores, an invalid draft's being 0.
    tau: given, or the (1 - share) quantile of the D sigmas, at most tau_max. Off with neither.
    Below, sigmas of .1 and .025, whose middle is .0625.

    >>> slots = [(0, 0), (0, 1), (1, 0), (1, 1)]
    >>> gate(torch.tensor([0.2, 0.0, 0.05, 0.1]), slots, (2, 2), share=0.5)
    tensor([0.2000, 0.0000, 0.0000, 0.0000])
    """
    if not slots or (tau is None and not share):
        return s_hat
    s = torch.zeros(shape, dtype=torch.float64)                                     # (D, n)
    for slot, score in zip(slots, s_hat):
        s[slot] = float(score)
    sigma = s.std(dim=1, correction=0)                                              # (D,)
    if tau is None:
        tau = sigma.quantile(1 - share)
        tau = tau if tau_max is None else tau.clamp(max=tau_max)
    closed = (sigma <= tau)[[d for d, _ in slots]]                                  # (Q,)
    return s_hat.masked_fill(closed, 0.0)


def kept(slots, score, mixed, cfg, seed_words):
    """(Q,) slots, scores, and which have a gradient -> (Q,) booleans: those the solver learns from.

    solver_keep: all; top (the highest scores) or random, of each document's questions
    (keep_per_doc) or of all (keep_share, a share of all Q, rounded up). Only mixed questions are
    chosen among. All, if nothing was drafted or has a score.
    """
    unscored = cfg.solver_keep == "top" and score is None
    if cfg.solver_keep == "all" or not slots or unscored:
        return torch.ones(len(mixed), dtype=torch.bool)
    order = mixed.nonzero()[:, 0].tolist()
    if cfg.solver_keep == "top":
        # stable: of equal scores the first comes first
        order.sort(key=lambda q: -float(score[q]))
    else:
        random.Random(f"{seed_words} keep").shuffle(order)

    chosen = order[:math.ceil(cfg.keep_share * len(slots) - 1e-9)]
    if cfg.keep_per_doc:
        chosen, taken = [], Counter()
        for q in order:
            d = slots[q][0]
            taken[d] += 1
            if taken[d] <= cfg.keep_per_doc:
                chosen.append(q)
    keep = torch.zeros(len(mixed), dtype=torch.bool)
    keep[chosen] = True
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
    history   of each: sum of its shares of right answers, and how many iterations gave one
    next      the next one of the pool
    """

    def __init__(self, dev, pool, cfg):
        pool = unlike(dev, pool)
        rng = random.Random(f"dev pool, seed {cfg.seed}")
        self.all = dev + rng.sample(pool, len(pool))
        self.active, self.next = list(range(len(dev))), len(dev)
        self.history = [(0.0, 0)] * len(dev)
        self.period = cfg.dev_refresh

    @property
    def questions(self):
        return [self.all[i] for i in self.active]

    def due(self, t):
        return bool(self.period) and t % self.period == 0

    def remember(self, r):
        """(M, m) rewards of the questions in use, or none where they were not asked."""
        # nan: no answer to the question could be checked
        for i, solved in enumerate(r.nanmean(dim=1).tolist()):
            if not math.isnan(solved):
                total, times = self.history[i]
                self.history[i] = total + solved, times + 1

    def refresh(self):
        """-> how many questions were replaced: up to a tenth from either end, by the mean share of
        right answers over all iterations since they came. One without any stays.
        """
        known = [i for i, (_, times) in enumerate(self.history) if times]
        order = sorted(known, key=lambda i: self.history[i][0] / self.history[i][1])
        n = min(len(self.active) // 10, (len(self.all) - self.next) // 2, len(order) // 2)
        leaving = set(order[:n] + order[len(order) - n:])
        staying = [i for i in range(len(self.active)) if i not in leaving]
        new = list(range(self.next, self.next + 2 * n))
        self.active = [self.active[i] for i in staying] + new
        self.history = [self.history[i] for i in staying] + [(0.0, 0)] * len(new)
        self.next += 2 * n
        return 2 * n

    def state(self):
        return {"active": self.active, "next": self.next, "history": self.history}

    def load(self, state):
        self.active, self.next = state["active"], state["next"]
        self.history = state["history"]
