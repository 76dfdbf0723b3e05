"""The steps of a walk: the six steps of train.py's loop, with every number on the way kept.

    code      symbol    shape     meaning
    d                             the document that is walked through, its place in the batch
    q                             one of its questions, the one with the largest |s_hat|
    a                             one answer to it, looked at token by token
    g_q       g_q       like theta  that question's gradient, whole: the plain way
"""
import inspect
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_uppercase

import torch

import dugrpo as advantages
import generator as generator_role
import influence
import policy as policies
import solver as solver_role
import train
from data import InputError
from dugrpo import dugrpo, has_gradient, kept_groups
from generator import valid_questions, write_questions
from influence import Gamma, cosine, dev_gradient, dot, influence_scores, norm
from policy import mean_length, old_logps, token_loss, update
from solver import documents_of, solve


@dataclass
class Section:
    """A step: what happens in a sentence, where in the code, and what came of it."""
    title: str
    sentence: str
    lines: list                                     # "influence.py:53", ...
    blocks: list = field(default_factory=list)      # (kind, caption, content), see pages.py


def line(function, text):
    """The line of a function in which `text` stands -> "influence.py:53"."""
    source, first = inspect.getsourcelines(function)
    for i, written in enumerate(source):
        if text in written:
            return f"{Path(inspect.getsourcefile(function)).name}:{first + i}"
    raise ValueError(f"{text!r} does not stand in {function.__name__}")


class Walk:
    """One iteration t, done once, with what one document went through."""

    def __init__(self, cfg, solver, generator, study, verifier, t, document):
        self.cfg, self.solver, self.generator = cfg, solver, generator
        self.study, self.verifier, self.t = study, verifier, t
        self.document = document

    def sections(self):
        """-> list of Section. Moves both models."""
        self.refuse_others()
        self.question_phase()
        self.choose()
        self.influence_phase()
        self.before = self.looked_at()
        self.update_phase()
        after = self.looked_at()
        again = solve(self.solver, self.dev.questions, self.t, "dev", self.cfg, self.verifier)
        return [
            self.about_document(), self.about_drafts(), self.about_answers(),
            self.about_tokens(), self.about_gradients(), self.about_score(),
            self.about_advantages(), self.about_updates(after, again),
        ]

    def refuse_others(self):
        """What is told is told of the method itself."""
        cfg = self.cfg
        paid = [(term.name, term.weight, term.advantage) for term in cfg.terms]
        if (paid, cfg.similarity) != ([("influence", 1, "dugrpo")], "preconditioned_cosine"):
            raise InputError(f"--reward {cfg.reward} --advantage {cfg.advantage} --similarity "
                             f"{cfg.similarity}: the walk is through influence as the main recipe "
                             "has it, dugrpo and preconditioned_cosine")

    # ------------------------------------------------------------ what the loop does

    def question_phase(self):
        """Steps 1 to 3 of the loop."""
        cfg, t = self.cfg, self.t
        self.dev = solve(
            self.solver, self.study.dev_questions(t), t, "dev", cfg, self.verifier)
        self.documents = self.study.documents(t)
        seed_words = (cfg.seed, t, "generator", "write")
        self.drafts = write_questions(
            self.generator, self.documents, seed_words, cfg, self.solver)
        self.slots, drafted = valid_questions(self.drafts)
        self.questions = self.study.questions(drafted, t)
        everything = self.questions + self.study.problems(t)
        self.answered = solve(self.solver, everything, t, "answer", cfg, self.verifier)
        self.solved = self.answered[:len(self.questions)]

    def influence_phase(self):
        """Step 4, streamed as in a run, and once more the plain way for one question."""
        cfg, solver = self.cfg, self.solver
        self.g_dev = self.study.g_dev(dev_gradient(solver, self.dev.answers, self.dev.A, cfg))
        if self.g_dev is None:
            raise InputError("no dev question has right and wrong answers, so there is no g_dev; "
                             "walk through another iteration")
        s_hat, _ = influence_scores(solver, self.solved.answers, self.solved.A, self.g_dev, cfg)
        self.s_hat = self.study.s_hat(s_hat, self.slots)

        # the question that is looked at: the largest |s_hat| of the document
        own = [q for q, (d, _) in enumerate(self.slots) if d == self.document]
        self.q = max(own, key=lambda q: abs(float(self.s_hat[q])))
        kept = kept_groups(self.solved.answers, self.solved.A)
        self.Tbar = mean_length([group for _, group in kept])
        group = self.solved.answers[self.q]
        self.denominator = len(group) * self.Tbar
        self.g_q = influence.gradient(
            solver, [(self.q, group)], self.solved.A, self.denominator, cfg)
        self.moments = [influence.second_moment(solver.optimizer, p) for p in solver.params]
        self.direction = [Gamma(g, v, k, cfg.beta2, cfg.adam_eps)
                          for g, (v, k) in zip(self.g_q, self.moments)]

    def choose(self):
        """The document: the one asked for, or the one with the most questions of mixed rewards."""
        mixed = has_gradient(self.solved.A)
        counts = [0] * len(self.documents)
        for q, (d, _) in enumerate(self.slots):
            counts[d] += 1 + 2 * int(mixed[q])
        if self.document is None:
            self.document = max(range(len(counts)), key=counts.__getitem__)
        if not 0 <= self.document < len(counts):
            raise InputError(f"--document {self.document}: this iteration read {len(counts)} "
                             f"documents, 0 to {len(counts) - 1}")
        if not counts[self.document]:
            some = [d for d, count in enumerate(counts) if count]
            raise InputError(f"--document {self.document}: none of its drafts is a valid question "
                             f"in iteration {self.t}; these have some: {some}")

    def update_phase(self):
        """Steps 5 and 6."""
        cfg = self.cfg
        term, = cfg.terms
        self.s = train.grid(self.s_hat, self.slots, self.drafts, term, cfg)
        self.A_gen = dugrpo(self.s, term.advantage)
        written = train.rollouts_of(self.drafts)
        self.generator_step = update(self.generator, written, self.A_gen, cfg)
        kept = self.study.kept(self.slots, self.s_hat, self.solved, self.t)
        learnt, A_sol = self.study.batch(kept, self.answered, self.dev)
        origin = documents_of(self.slots, learnt)
        self.solver_step = update(self.solver, learnt, A_sol, cfg, origin)

    def looked_at(self):
        """-> log-probs (tokens,) of the draft and of the question's m answers, at the present
        weights."""
        d, j = self.slots[self.q]
        draft = [[self.drafts[d][j].rollout]]
        answers = [self.solved.answers[self.q]]
        found = {}
        for name, policy, groups in (("draft", self.generator, draft),
                                     ("answers", self.solver, answers)):
            policy.wake()
            found[name] = old_logps(policy, list(enumerate(groups)), self.cfg)
        return found

    # ------------------------------------------------------------ what is told of it

    def about_document(self):
        document = self.documents[self.document]
        return Section(
            f"Document {self.document} of iteration {self.t}",
            f"The generator reads {len(self.documents)} documents and writes "
            f"{self.cfg.questions_per_doc} questions from each. This is one of them.",
            [line(train.train, "documents = study.documents(t)")],
            [("text", document.doc_id, document.content)])

    def about_drafts(self):
        drafts = self.drafts[self.document]
        rows, texts = [], []
        for j, draft in enumerate(drafts):
            valid = draft.question is not None
            rows.append([j, "yes" if valid else f"no: {draft.reason}",
                         draft.question.ground_truth if valid else "",
                         draft.question.question_text if valid else draft.rollout.text])
            texts.append(("text", f"draft {j} as written", draft.rollout.text))
        count = sum(draft.question is not None for draft in drafts)
        return Section(
            f"{len(drafts)} drafts, {count} valid",
            "A draft is parsed; one that is no question keeps its place, with a reason and the "
            f"score {self.cfg.terms[0].invalid:g}.",
            [line(generator_role.write_questions, "sample("),
             line(generator_role.read_draft, "parse_draft(")],
            [("table", "parsed", [["draft", "valid", "key", "text"], *rows]),
             ("more", "the drafts as written", texts)])

    def about_answers(self):
        question = self.questions[self.q]
        _, j = self.slots[self.q]
        rows = []
        for i, rollout in enumerate(self.solved.answers[self.q]):
            r, A = float(self.solved.r[self.q, i]), float(self.solved.A[self.q, i])
            rows.append([i, "right" if r else "wrong", f"{r:g}", f"{A:+.3f}", rollout.text])
        choices = []
        for letter, choice in zip(ascii_uppercase, question.choices):
            mark = "*" if choice == question.ground_truth else " "
            choices.append(f"{mark} {letter}. {choice}")
        p = float(self.solved.r[self.q].mean())
        return Section(
            f"Draft {j}, answered {len(rows)} times",
            f"The solver is right {100 * p:.0f} % of the time by the draft's own key (*). "
            "A_sol = r less the mean of the group.",
            [line(solver_role.solve, "answer_questions("), line(solver_role.rewards, "letter =="),
             line(advantages.center, "A_sol =")],
            [("text", question.question_text, "\n".join(choices) or question.ground_truth),
             ("table", "the answers", [["", "", "r", "A_sol", "text"], *rows])])

    def about_tokens(self):
        """The loss of the first answer that has an advantage, token by token."""
        group, A = self.solved.answers[self.q], self.solved.A[self.q]
        i = next((i for i in range(len(group)) if float(A[i]) > 0), 0)
        rollout = group[i]
        logp = self.before["answers"][i]
        sampler = torch.tensor(rollout.logp)
        a = torch.full_like(logp, float(A[i]))
        loss = token_loss(logp, logp, sampler, a, self.cfg.clip, self.cfg.dual_clip,
                          self.cfg.tis_cap)
        w = (logp - sampler).exp().clamp(max=self.cfg.tis_cap)
        rows = []
        for k, token in enumerate(rollout.response):
            word = self.solver.tokenizer.decode([token])
            rows.append([word, decimals(logp[k], 4), decimals(rollout.logp[k], 4),
                         decimals(w[k], 4), decimals(loss[k], 4, "+")])
        total = float(loss.sum()) / self.denominator
        return Section(
            f"Answer {i}, token by token",
            f"Loss l w of each token, with A = {float(A[i]):+.3f} on all of them; before an update "
            f"rho = 1. Their sum over m Tbar = {self.denominator:.2f} is {total:+.5f}.",
            [line(policies.token_loss, "rho ="), line(policies.token_loss, "w ="),
             line(policies.pass_loss, "return loss.sum()")],
            [("table", "tokens", [["token", "log-prob", "sampler's", "w", "l w"], *rows])])

    def about_gradients(self):
        """By layer: where g_dev, v and Gamma are large, and where they agree."""
        names = [name for name, p in self.solver.model.named_parameters() if p.requires_grad]
        parts = {}
        for i, name in enumerate(names):
            parts.setdefault(layer(name), []).append(i)
        product = float(dot(self.g_dev, self.direction))
        rows, shares = [], {}
        for name, places in parts.items():
            def pick(tensors):
                return [tensors[i] for i in places]

            v = [self.moments[i][0] for i in places]
            size = sum(x.numel() for x in v)
            rms = (sum(float(x.float().sum()) for x in v) / size) ** 0.5
            share = float(dot(pick(self.g_dev), pick(self.direction))) / (product or 1.0)
            shares[name] = share
            share = decimals(100 * share, 1, "+")
            rows.append([name, f"{norm_of(pick(self.g_dev)):.1e}", f"{rms:.1e}",
                         f"{norm_of(pick(self.g_q)):.1e}",
                         f"{norm_of(pick(self.direction)):.1e}", f"{share} %"])
        k = self.moments[0][1]
        largest = max(shares, key=shares.get)
        return Section(
            "The two gradients, layer by layer",
            f"g_dev is made of {len(self.dev.questions)} dev questions, g_q of this question's "
            f"answers. AdamW has taken {k} steps; Gamma is where step {k + 1} on g_q would go. The "
            f"last column is the layer's share of <g_dev, Gamma>, largest in {largest}.",
            [line(influence.dev_gradient, "g_dev = gradient("),
             line(influence.Gamma, "v_new ="), line(influence.Gamma, "return g /")],
            [("table", "by layer",
              [["", "|g_dev|", "rms of v", "|g_q|", "|Gamma|", "share"], *rows])])

    def about_score(self):
        product = float(dot(self.g_dev, self.direction))
        sizes = norm_of(self.g_dev), norm_of(self.direction)
        plain = float(cosine(self.g_dev, self.direction))
        rows = [["<g_dev, Gamma>", f"{product:.6e}"], ["|g_dev|", f"{sizes[0]:.6e}"],
                ["|Gamma|", f"{sizes[1]:.6e}"], ["s_hat, the plain way", f"{plain:+.6f}"],
                ["s_hat, as in a run", f"{float(self.s_hat[self.q]):+.6f}"]]
        return Section(
            f"Its influence: s_hat = {float(self.s_hat[self.q]):+.4f}",
            "The cosine of the two. Above zero: a solver step on this question also lowers the "
            "loss on the dev questions.",
            [line(influence.cosine, "return dot"),
             line(influence.influence_scores, "product / (norm_dev")],
            [("table", "three sums", [["", ""], *rows])])

    def about_advantages(self):
        s, A = self.s[self.document], self.A_gen[self.document]
        alive = ~advantages.all_equal(self.s)
        sigma_B = float(self.s.double()[alive].std(dim=1).mean()) if bool(alive.any()) else 0.0
        mu, sigma = float(s.double().mean()), float(s.double().std())
        rows = [[j, "this one" if j == self.slots[self.q][1] else "", f"{float(s[j]):+.4f}",
                 f"{float(A[j]):+.4f}"] for j in range(len(s))]
        return Section(
            "The drafts' advantages, by DuGRPO",
            f"A_gen = (s - mu_d) / (sigma_d + sigma_B + eps), with mu_d = {mu:+.5f}, sigma_d = "
            f"{sigma:.5f} and sigma_B = {sigma_B:.5f} over {int(alive.sum())} documents.",
            [line(train.train, "dugrpo(s"), line(advantages.two_sigmas, "return centred")],
            [("table", "the document's row of the grid", [["draft", "", "s", "A_gen"], *rows])])

    def about_updates(self, after, again):
        d, j = self.slots[self.q]
        before = self.before
        rows = [["draft", f"{float(self.A_gen[d, j]):+.4f}",
                 *changes(before["draft"][0], after["draft"][0])]]
        for i in range(len(self.solved.answers[self.q])):
            rows.append([f"answer {i}", f"{float(self.solved.A[self.q, i]):+.4f}",
                         *changes(before["answers"][i], after["answers"][i])])
        accuracy = [100 * float(answered.r.nanmean()) for answered in (self.dev, again)]
        return Section(
            "Both updates, and what they did",
            f"Steps of AdamW: {self.generator_step['steps']} of the generator's, "
            f"{self.solver_step['steps']} of the solver's. Right answers to the dev questions: "
            f"{accuracy[0]:.1f} % before, {accuracy[1]:.1f} % after, with the same random numbers.",
            [line(train.train, "generator_step = update"),
             line(train.train, "solver_step = update")],
            [("table", "log-prob of the whole text",
              [["", "A", "before", "after", "change"], *rows])])


def layer(name):
    """model.layers.3.mlp.up_proj.weight -> layer 3; what is in no layer by its own name."""
    parts = name.split(".")
    numbers = [part for part in parts if part.isdigit()]
    return f"layer {numbers[0]}" if numbers else parts[-2]


def norm_of(tensors):
    return float(norm(list(tensors)))


def changes(before, after):
    """(tokens,) log-probs -> their sums and the difference, as text."""
    sums = float(before.sum()), float(after.sum())
    return [decimals(sums[0], 3), decimals(sums[1], 3), decimals(sums[1] - sums[0], 3, "+")]


def decimals(x, n, sign=""):
    """A number with n decimal places; never -0.0."""
    return f"{round(float(x), n) + 0.0:{sign}.{n}f}"
