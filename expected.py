"""How often is the solver right, exactly? Its answers to a question as a tree of tokens: one forward pass for all, and no sampling noise.

    P(node)     = product of  pi(token | prompt, tokens before)  along the path to it, at the sampling temperature
    accuracy    = mean over questions of  sum over right leaves of P(leaf)
    mass        = mean over questions of  sum over all leaves of P(leaf)          what the tree covers; accuracy is off by at most 1 - mass

    code      shape      meaning
    tree                 the answers to one question; node j is tokens[j] after node parents[j] (-1: after the prompt)
    leaf                 a node at which the answer is decided: its box has closed, or the response has ended without one
    logp      (nodes,)   log-probability of each node's token after its parents, all trees in a row

A leaf is decided by the first complete box, where training reads the last: what a model writes after a box is not followed. A path is
followed while it is likelier than FOLLOW, so a tree is possible where answers are short (the embedded world: six tokens); grow() says
so when it is not. Sampled answers can be put into the same trees: their log-probs come out of the same pass, and answers that begin
alike share it.

Ours, not the paper's: the paper has no such number. It is for measuring (reality.py); nothing trains on it.
"""
from dataclasses import dataclass, field

import torch

import solver as solver_role
from influence import borrowed_gradients
from policy import masks_for

FOLLOW, LEAF, MOST_NODES = 1e-3, 1e-6, 1000     # follow a path likelier than this; keep a leaf likelier than this; no tree is larger
CACHED = 1024   # tokens of a pass on a CPU, so that they stay in its cache: half the time of 16,384 on the embedded world


@dataclass
class Tree:
    question: object
    prompt: list
    tokens: list = field(default_factory=list)
    parents: list = field(default_factory=list)
    leaves: dict = field(default_factory=dict)              # node -> is it the right answer
    index: dict = field(default_factory=dict)               # (parent, token) -> node

    def add(self, parent, token):
        """-> the node of this token after this parent, a new one if there is none."""
        if (parent, token) not in self.index:
            self.index[parent, token] = len(self.tokens)
            self.tokens.append(token)
            self.parents.append(parent)
        return self.index[parent, token]

    def add_answer(self, response):
        """-> the nodes of a response, token after token."""
        nodes = []
        for token in response:
            nodes.append(self.add(nodes[-1] if nodes else -1, token))
        return nodes

    def path(self, node):
        """-> the nodes from the first token to this one."""
        nodes = []
        while node >= 0:
            nodes.append(node)
            node = self.parents[node]
        return nodes[::-1]


def plant(solver, questions):
    """M questions -> M trees without a node."""
    return [Tree(question, solver.prompt_ids(solver_role.prompt_text(question))) for question in questions]


# ---------------------------------------------------------------- one forward pass

class Layout:
    """Trees as packed rows: the prompt, then every node that something follows, each of which sees the prompt and its ancestors.

    open_nodes: {tree number: nodes} that are in the rows though nothing follows them yet.
    """

    def __init__(self, solver, trees, cfg, open_nodes=None):
        self.trees, self.start = trees, [0]                 # start: number of the first node of each tree, all trees in a row
        for tree in trees:
            self.start.append(self.start[-1] + len(tree.tokens))
        self.rows = [sorted({*tree.parents, *(open_nodes or {}).get(i, ())} - {-1}) for i, tree in enumerate(trees)]
        self.column = [{-1: len(tree.prompt) - 1} | {node: c for c, node in enumerate(row, len(tree.prompt))}
                       for tree, row in zip(trees, self.rows)]
        order = sorted(range(len(trees)), key=lambda i: -len(trees[i].prompt) - len(self.rows[i]))
        groups, limit = [], min(cfg.tokens_at_once, CACHED) if solver.device.type == "cpu" else cfg.tokens_at_once
        for i in order:
            longest = len(trees[groups[-1][0]].prompt) + len(self.rows[groups[-1][0]]) if groups else 0
            if not groups or (len(groups[-1]) + 1) * longest > limit:
                groups.append([])
            groups[-1].append(i)
        self.batches = [self.batch(solver, group) for group in groups]
        self.edges = [self.edge(solver, batch) for batch in self.batches]

    def batch(self, solver, group):
        """Numbers of some trees -> (the numbers, ids (B, L), positions (B, L), mask)."""
        L = max(len(self.trees[i].prompt) + len(self.rows[i]) for i in group)
        ids, positions = torch.zeros(2, len(group), L, dtype=torch.long)
        allowed = torch.eye(L, dtype=torch.bool).repeat(len(group), 1, 1)                   # padding sees itself: no NaN
        for b, i in enumerate(group):
            tree, row, P = self.trees[i], self.rows[i], len(self.trees[i].prompt)
            ids[b, :P + len(row)] = torch.tensor(tree.prompt + [tree.tokens[node] for node in row])
            positions[b, :P] = torch.arange(P)
            allowed[b, :P, :P] = torch.ones(P, P, dtype=torch.bool).tril()
            for c, node in enumerate(row, P):                                               # parents come before their children
                above = self.column[i][tree.parents[node]]
                positions[b, c] = positions[b, above] + 1
                allowed[b, c] |= allowed[b, above]
        ids, positions, allowed = (x.to(solver.device) for x in (ids, positions, allowed[:, None]))
        return group, ids, positions, masks_for(solver.model, allowed, positions, positions)

    def hidden(self, solver, batch):
        """-> (B, L, H) last hidden states of a batch."""
        _, ids, positions, mask = batch
        with solver.autocast():
            return solver.model.base_model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).last_hidden_state

    def edge(self, solver, batch):
        """-> where each node is predicted from (an index into the B L hidden states), its token, and its number among all nodes."""
        group, ids = batch[:2]
        sources = [b * ids.shape[1] + self.column[i][parent] for b, i in enumerate(group) for parent in self.trees[i].parents]
        targets = [token for i in group for token in self.trees[i].tokens]
        numbers = [number for i in group for number in range(self.start[i], self.start[i + 1])]
        return [torch.tensor(x, device=solver.device) for x in (sources, targets, numbers)]

    def batch_logps(self, solver, cfg, batch, edge):
        """-> logp of the nodes of one batch, in float64; differentiable."""
        (_, ids, positions, mask), (sources, targets, _) = batch, edge
        with solver.autocast():
            return solver.net(ids, mask, positions, sources, targets, cfg.temperature, cfg.logp_chunk).double()

    @torch.no_grad()
    def logps(self, solver, cfg):
        """-> (nodes,) logp of every node of every tree, in float64."""
        logp = torch.zeros(self.start[-1], dtype=torch.float64, device=solver.device)
        for batch, edge in zip(self.batches, self.edges):
            logp[edge[2]] = self.batch_logps(solver, cfg, batch, edge)
        return logp

    def gradient(self, solver, cfg, value):
        """Gradient of value(logp), a scalar, like solver.params: by the chain rule through logp, one batch in memory at a time."""
        logp = self.logps(solver, cfg).requires_grad_()
        slope, = torch.autograd.grad(value(logp), logp)                                     # (nodes,)
        with borrowed_gradients(solver.params):
            for batch, edge in zip(self.batches, self.edges):
                (self.batch_logps(solver, cfg, batch, edge) * slope[edge[2]]).sum().backward()
            return [torch.zeros_like(p) if p.grad is None else p.grad for p in solver.params]


# ---------------------------------------------------------------- all likely answers

@torch.no_grad()
def grow(solver, trees, cfg):
    """Put every likely answer into the trees, in place -> True; or False, with the trees half grown, if one gets larger than MOST_NODES.

    For multiple choice only. All trees grow by one token per forward pass.
    """
    closing = {token for token in range(len(solver.tokenizer)) if "}" in solver.tokenizer.decode([token])}
    likely = [{-1: 1.0} for _ in trees]                                     # nodes to be followed, with P(node)
    head = solver.model.get_output_embeddings()
    while any(likely):
        layout = Layout(solver, trees, cfg, {i: [node for node in nodes if node >= 0] for i, nodes in enumerate(likely)})
        following = [{} for _ in trees]
        for batch in layout.batches:
            hidden = layout.hidden(solver, batch)
            for b, i in enumerate(batch[0]):
                for node, P in likely[i].items():
                    p = P * torch.softmax(head(hidden[b, layout.column[i][node]]).float() / cfg.temperature, dim=-1)     # (V,)
                    for token in (p > LEAF).nonzero()[:, 0].tolist():
                        follow(solver, trees[i], node, token, float(p[token]), closing, cfg, following[i])
                if len(trees[i].tokens) > MOST_NODES:
                    return False
        likely = following
    return True


def follow(solver, tree, parent, token, P, closing, cfg, following):
    """One more token: a leaf if it decides the answer, to be followed if it is likely, else dropped."""
    ends = token in solver.stop_ids
    if not ends and token not in closing and P <= FOLLOW:
        return
    nodes = tree.path(parent)
    text = solver.tokenizer.decode([tree.tokens[node] for node in nodes] + [token], skip_special_tokens=True)
    if ends or solver_role.last_boxed(text) is not None or len(nodes) + 1 >= cfg.max_response_tokens:
        tree.leaves[tree.add(parent, token)] = solver_role.extract_answer(text, len(tree.question.choices)) == tree.question.letter
    elif P > FOLLOW:
        following[tree.add(parent, token)] = P


class Accuracy:
    """Which nodes make up which leaf. accuracy(logp) -> (accuracy, mass), both differentiable scalars in float64."""

    def __init__(self, layout):
        paths = [(i, tree.path(node), right) for i, tree in enumerate(layout.trees) for node, right in tree.leaves.items()]
        self.nodes = torch.tensor([layout.start[i] + node for i, path, _ in paths for node in path])                    # (nodes on paths,)
        self.leaf = torch.tensor([number for number, (_, path, _) in enumerate(paths) for _ in path])                   # whose leaf each is
        self.right = torch.tensor([right for _, _, right in paths], dtype=torch.float64)                                # (leaves,)
        self.M = len(layout.trees)

    def __call__(self, logp):
        P = torch.zeros(len(self.right), dtype=torch.float64).index_add(0, self.leaf, logp.cpu()[self.nodes]).exp()     # (leaves,)
        return (P * self.right).sum() / self.M, P.sum() / self.M
