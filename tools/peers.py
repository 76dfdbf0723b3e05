"""Guests of bench.py: published libraries for data attribution, asked the same questions as we.

    influence   s_hat = cos(g_dev, Gamma), all weights, v' with the question's own g^2 in it
    linear      cos(g_dev, g_q / (sqrt(v / (1 - beta2^k)) + eps)), linear layers but the head
    bergson     the same from bergson's hooks, Adam normalizer and scorer
    cosine      cos(g_dev, g_q), all weights: cfg.similarity = "cosine"
    dattri      the same from dattri's TracInAttributor with normalized_grad, which is Grad-Cos

    code      shape      meaning
    w                    a World of tools/baselines.py
    logps     (m, L)     of the next tokens, L the padded length of prompt and answer, less one
    weights   (m, L)     A / (m Tbar) where the next token is the answer's, else 0

Neither is in requirements.txt: `pip install bergson`, `pip install dattri`. Without one, its line
in the table says so. Nothing is projected, though both usually do. What the two were told beyond
their defaults, so that they answer our question and not a similar one:

bergson   An example is a row of tokens with an advantage; here it is a question, the rows of its
          answers end to end (Questions.backward_hook). Logits are divided by the temperature. It
          knows no embeddings, norms or biases, and leaves the head out.
dattri    An example is a question, its rows padded to the longest of all. It knows no Adam. Its
          query is <g_dev, theta>, whose gradient is g_dev: it would take the query's gradient anew
          for every question.
"""
import contextlib
import io
from dataclasses import replace

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from influence import cosine, influence_scores, norm, second_moment
from policy import mean_length
from tools.baselines import Skipped, padded, question_gradient, rollouts_of


def raw_cosine(w):
    """-> (Q,) cosines without Adam, ours."""
    cfg = replace(w.cfg, similarity="cosine")
    return influence_scores(w.policy, w.answers, w.A, w.g_dev, cfg)[0]


# ---------------------------------------------------------------- what bergson computes, plainly

def linear_layers(policy):
    """-> {name: place of its weight in policy.params}, of the linear layers below the head."""
    place = {p: i for i, p in enumerate(policy.params)}
    found = {}
    for name, module in policy.model.base_model.named_modules():
        if isinstance(module, nn.Linear):
            found[name] = place[module.weight]
    return found


def denominator(w):
    return len(w.answers[0]) * mean_length(w.answers)                   # m Tbar_gen


def unbiased_moment(w, i):
    v, k = second_moment(w.policy.optimizer, w.policy.params[i])
    return v / (1 - w.cfg.beta2 ** k)


def linear_scores(w):
    """World -> (Q,) `linear` of the header, from whole gradients by padded rows."""
    places = list(linear_layers(w.policy).values())
    g_dev = [w.g_dev[i] for i in places]
    roots = [unbiased_moment(w, i).sqrt().add_(w.cfg.adam_eps) for i in places]

    scores = torch.zeros(len(w.answers))
    for q in range(len(w.answers)):
        g_q = question_gradient(w, q, denominator(w))
        scores[q] = cosine(g_dev, [g_q[i] / root for i, root in zip(places, roots)])
    return scores


# ---------------------------------------------------------------- bergson

def bergson_scores(w):
    """World -> (Q,) `linear`, by bergson. Skipped without it."""
    try:
        from bergson import GradientProcessor, IndexConfig, Scorer
        from bergson.collector.collector import HookCollectorBase, fwd_bwd_factory
        from bergson.data import pad_and_tensor
        from bergson.gradients import AdamNormalizer
        from bergson.score.score_writer import InMemorySequenceScoreWriter
    except ImportError as error:
        raise Skipped(f"not installed: pip install bergson ({error})")

    class Questions(HookCollectorBase):
        """bergson's collector of gradients, all rows of a pass taken for one example."""

        def setup(self):
            pass

        def teardown(self):
            pass

        def forward_hook(self, module, x):
            super().forward_hook(module, x.flatten(0, 1)[None])

        def backward_hook(self, module, dy):
            gradient = self._module_gradient(module, dy.flatten(0, 1)[None])
            scorer.accumulate(module._name, gradient)

        def process_batch(self, indices, **_):
            scorer(indices, {})

    policy = w.policy
    layers = linear_layers(policy)
    query = {name: w.g_dev[i].flatten()[None] for name, i in layers.items()}
    scale = norm(list(query.values()))
    query = {name: g / scale for name, g in query.items()}
    normalizers = {name: AdamNormalizer(unbiased_moment(w, i)) for name, i in layers.items()}

    writer = InMemorySequenceScoreWriter(len(w.answers), 1)
    scorer = Scorer(query, list(layers), writer, policy.device, torch.float32, unit_normalize=True)
    collector = Questions(
        policy.model.base_model, processor=GradientProcessor(normalizers=normalizers))
    forward_backward = fwd_bwd_factory(IndexConfig(run_path="", loss_reduction="sum"))

    with only_the_embedding(policy), at_temperature(policy.model, w.cfg.temperature):
        for q, group in enumerate(w.answers):
            rows = [x.prompt + x.response for x in group]
            labels = [[-100] * len(x.prompt) + x.response for x in group]
            ids, labels, _, mask = pad_and_tensor(rows, labels)
            advantages = {"advantage": (w.A[q] / denominator(w)).tolist()}
            with collector.with_batch(mask):
                losses = forward_backward(policy.model, ids, labels, advantages)
            collector.process_batch([q], losses=losses)
    return writer.scores[:, 0]


@contextlib.contextmanager
def only_the_embedding(policy):
    """Only it requires a gradient inside, as bergson sets models up: hooks form all others."""
    policy.model.requires_grad_(False)
    policy.model.get_input_embeddings().requires_grad_(True)
    try:
        yield
    finally:
        for p in policy.params:
            p.requires_grad_(True)
            p.grad = None


@contextlib.contextmanager
def at_temperature(model, temperature):
    def divide(module, args, kwargs, out):
        out.logits = out.logits / temperature
        return out

    handle = model.register_forward_hook(divide, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


# ---------------------------------------------------------------- dattri

def dattri_scores(w):
    """World -> (Q,) `cosine`, by dattri. Skipped without it."""
    try:
        from dattri.algorithm.tracin import TracInAttributor
        from dattri.task import AttributionTask
    except ImportError as error:
        raise Skipped(f"not installed: pip install dattri ({error})")

    model = w.policy.model
    names = {p: name for name, p in model.named_parameters()}
    g_dev = {names[p]: g for p, g in zip(w.policy.params, w.g_dev)}

    def loss(params, question):
        ids, weights = question                                         # (m, L + 1), (m, L)
        told = dict(input_ids=ids, use_cache=False)
        out = torch.func.functional_call(model, params, (), told)
        logps = torch.log_softmax(out.logits[:, :-1] / w.cfg.temperature, dim=-1)
        logps = logps.gather(2, ids[:, 1:, None])[..., 0]
        return -(weights * logps).sum()

    def query(params, _):
        return sum((params[name] * g).sum() for name, g in g_dev.items())

    task = AttributionTask(
        loss, model, {}, target_func=query, checkpoints_load_func=lambda model, _: model)
    attributor = TracInAttributor(task, torch.ones(1), normalized_grad=True)
    # it has no argument for "no projection"
    attributor.projector_kwargs = None

    questions = DataLoader(TensorDataset(*tensors_of(w)), batch_size=1)
    one_query = DataLoader(TensorDataset(torch.zeros(1, 1)), batch_size=1)
    # no_grad: it would record a graph around its gradients, gigabytes at 20 million weights;
    # stderr: its two progress bars
    with torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):
        return attributor.attribute(questions, one_query)[:, 0]


def tensors_of(w):
    """World -> (Q, m, L + 1) ids, (Q, m, L) weights of their log-probs."""
    Q, m = w.A.shape
    rollouts = rollouts_of(w.answers)
    ids, mask = padded([x.prompt + x.response for x in rollouts])       # (R, L + 1)
    begins = torch.tensor([len(x.prompt) for x in rollouts])[:, None]   # (R, 1)

    in_response = mask[:, 1:].bool() & (torch.arange(1, ids.shape[1]) >= begins)
    weights = in_response * w.A.flatten()[:, None] / denominator(w)     # (R, L)
    return ids.view(Q, m, -1), weights.view(Q, m, -1)
