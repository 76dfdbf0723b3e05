"""How often is the solver right, exactly? Its answers to a question as a tree of tokens: one
forward pass for all, and no sampling noise.

    P(node)     = product of  pi(token | prompt, tokens before)  along the path to it, at the
                  sampling temperature
    accuracy    = mean over questions of  sum over right leaves of P(leaf)
    mass        = mean over questions of  sum over all leaves of P(leaf)
                  what the trees cover; accuracy is off by at most 1 - mass

    code      shape      meaning
    tree                 the answers to one question; node j is tokens[j] after node parents[j]
                         (-1: after the prompt)
    leaf                 a node at which the answer is decided: its box has closed, or the response
                         has ended without one
    logp      (nodes,)   log-probability of each node's token after its parents, tree after tree

A leaf is decided by the first complete box, where training reads the last: what a model writes
after a box is not followed. A path is followed while it is likelier than FOLLOW, so a tree is
possible where answers are short (the embedded world: six tokens); grow() says so when it is not.
Sampled answers can be put into the same trees: their log-probs come out of the same pass, and
answers that begin alike share it.

Ours, not the paper's, which has no such number. It is for measuring; nothing trains on it.
"""
from dataclasses import dataclass, field
from itertools import chain

import torch

import solver as solver_role
from influence import borrowed_gradients
from engine.masks import masks_for

# Follow a path that is likelier than this, keep a leaf that is likelier than this.
FOLLOW = 1e-3
LEAF = 1e-6

# no tree is larger
MOST_NODES = 1000

# Tokens of a pass on a CPU, so that they stay in its cache: half the time of 16,384 on the embedded
# world.
CACHED = 1024


@dataclass
class Tree:
    question: object
    prompt: list
    tokens: list = field(default_factory=list)
    parents: list = field(default_factory=list)
    leaves: dict = field(default_factory=dict)      # node -> is it the right answer
    index: dict = field(default_factory=dict)       # (parent, token) -> node

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


def plant(solver, questions, prompts="plain"):
    """M questions, the prompts they are asked with (cfg.prompts) -> M trees without a node."""
    prompts = [solver.prompt_ids(solver_role.prompt_text(question, prompts))
               for question in questions]
    return [Tree(question, prompt) for question, prompt in zip(questions, prompts)]


# ---------------------------------------------------------------- one forward pass

class Layout:
    """Trees as sequences: the prompt, then every node that something follows (an inner node).

    Each node sees the prompt and its ancestors. open_nodes: {tree number: nodes} that are in the
    sequences though nothing follows them yet.

        start     (M + 1,)  number of each tree's first node, all trees counted through
        inner     (M,)      the inner nodes of each tree
        column    (M,)      {node: its place in the tree's sequence}; -1, the end of the prompt
        passes              trees that go through the model together, see packed()
        edges               where their nodes are predicted from, see edge()
    """

    def __init__(self, solver, trees, cfg, open_nodes=None):
        self.trees = trees
        self.start = [0]
        self.inner = []
        self.column = []
        for i, tree in enumerate(trees):
            followed = {*tree.parents, *(open_nodes or {}).get(i, ())} - {-1}
            inner = sorted(followed)
            P = len(tree.prompt)
            self.start.append(self.start[-1] + len(tree.tokens))
            self.inner.append(inner)
            self.column.append({-1: P - 1} | {node: c for c, node in enumerate(inner, P)})

        limit = cfg.tokens_at_once
        if solver.device.type == "cpu":
            limit = min(limit, CACHED)
        self.passes = [self.packed(solver, numbers) for numbers in self.in_passes(limit)]
        self.edges = [self.edge(solver, packed) for packed in self.passes]

    def length(self, i):
        """Tokens of a tree's sequence."""
        return len(self.trees[i].prompt) + len(self.inner[i])

    def in_passes(self, limit):
        """-> lists of numbers of trees, longest first; each list at most `limit` padded tokens."""
        found = []
        for i in sorted(range(len(self.trees)), key=lambda i: -self.length(i)):
            if not found or (len(found[-1]) + 1) * self.length(found[-1][0]) > limit:
                found.append([])
            found[-1].append(i)
        return found

    def packed(self, solver, numbers):
        """Numbers of B trees -> (the numbers, ids (B, L), positions (B, L), mask)."""
        L = max(self.length(i) for i in numbers)
        ids, positions = torch.zeros(2, len(numbers), L, dtype=torch.long)
        # padding sees itself: no NaN
        allowed = torch.eye(L, dtype=torch.bool).repeat(len(numbers), 1, 1)

        for b, i in enumerate(numbers):
            tree = self.trees[i]
            P = len(tree.prompt)
            tokens = tree.prompt + [tree.tokens[node] for node in self.inner[i]]
            ids[b, :len(tokens)] = torch.tensor(tokens)
            positions[b, :P] = torch.arange(P)
            allowed[b, :P, :P] = torch.ones(P, P, dtype=torch.bool).tril()

            # parents come before their children
            for c, node in enumerate(self.inner[i], P):
                above = self.column[i][tree.parents[node]]
                positions[b, c] = positions[b, above] + 1
                allowed[b, c] |= allowed[b, above]

        ids = ids.to(solver.device)
        positions = positions.to(solver.device)
        allowed = allowed[:, None].to(solver.device)                        # (B, 1, L, L)
        return numbers, ids, positions, masks_for(solver.model, allowed, positions, positions)

    def edge(self, solver, packed):
        """What packed() returns -> three (nodes,) tensors.

        Where each node is predicted from (an index into the B L hidden states), its token, and its
        number among all nodes.
        """
        numbers, ids = packed[:2]
        L = ids.shape[1]
        sources = []
        targets = []
        places = []
        for b, i in enumerate(numbers):
            sources += [b * L + self.column[i][parent] for parent in self.trees[i].parents]
            targets += self.trees[i].tokens
            places += range(self.start[i], self.start[i + 1])
        return [torch.tensor(x, device=solver.device) for x in (sources, targets, places)]

    def hidden(self, solver, packed):
        """-> (B, L, H) last hidden states of a pass."""
        _, ids, positions, mask = packed
        with solver.autocast():
            out = solver.model.base_model(input_ids=ids, attention_mask=mask,
                                          position_ids=positions, use_cache=False)
        return out.last_hidden_state

    def pass_logps(self, solver, cfg, packed, edge):
        """-> logp of the nodes of one pass, in float64; differentiable."""
        _, ids, positions, mask = packed
        sources, targets, _ = edge
        with solver.autocast():
            logp = solver.net(ids, mask, positions, sources, targets,
                              cfg.temperature, cfg.logp_chunk)
        return logp.double()

    @torch.no_grad()
    def logps(self, solver, cfg):
        """-> (nodes,) logp of every node of every tree, in float64."""
        logp = torch.zeros(self.start[-1], dtype=torch.float64, device=solver.device)
        for packed, edge in zip(self.passes, self.edges):
            logp[edge[2]] = self.pass_logps(solver, cfg, packed, edge)
        return logp

    def gradient(self, solver, cfg, value):
        """Gradient of value(logp), a scalar, like solver.params.

        By the chain rule through logp, so that one pass is in memory at a time.
        """
        logp = self.logps(solver, cfg).requires_grad_()
        slope, = torch.autograd.grad(value(logp), logp)                     # (nodes,)
        with borrowed_gradients(solver.params):
            for packed, edge in zip(self.passes, self.edges):
                product = self.pass_logps(solver, cfg, packed, edge) * slope[edge[2]]
                product.sum().backward()
            return [torch.zeros_like(p) if p.grad is None else p.grad for p in solver.params]


# ---------------------------------------------------------------- all likely answers

@torch.no_grad()
def grow(solver, trees, cfg):
    """Put every likely answer into the trees, in place -> True.

    False, with the trees half grown, if one gets larger than MOST_NODES. For multiple choice only.
    All trees grow by one token per forward pass, and through what is in them already in a single
    one: with some sampled answers put there first, few passes are left.
    """
    words = range(len(solver.tokenizer))
    closing = {token for token in words if "}" in solver.tokenizer.decode([token])}

    # {tree number: {node to be followed: P(node)}}
    likely = {i: {-1: 1.0} for i in range(len(trees))}
    while likely:
        numbers = list(likely)
        open_nodes = {k: likely[i].keys() - {-1} for k, i in enumerate(numbers)}
        layout = Layout(solver, [trees[i] for i in numbers], cfg, open_nodes)
        following = {}
        for packed in layout.passes:
            hidden = layout.hidden(solver, packed)                          # (B, L, H)
            for b, k in enumerate(packed[0]):
                i = numbers[k]
                following[i] = one_more(
                    solver, trees[i], hidden[b], layout.column[k], likely[i], closing, cfg)
                if len(trees[i].tokens) > MOST_NODES:
                    return False
        likely = {i: nodes for i, nodes in following.items() if nodes}
    return True


def one_more(solver, tree, hidden, column, likely, closing, cfg):
    """(L, H) hidden states of a tree: a token more after every likely node, and after those among
    them that have a hidden state, too -> {node: P} to follow.
    """
    head = solver.model.get_output_embeddings()
    known = dict(likely)
    following = {}
    while known:
        node, P = known.popitem()
        logits = head(hidden[column[node]]).float()
        p = P * torch.softmax(logits / cfg.temperature, dim=-1)             # (V,)
        for token in (p > LEAF).nonzero()[:, 0].tolist():
            if takes(solver, tree, node, token, float(p[token]), closing, cfg):
                child = tree.add(node, token)
                (known if child in column else following)[child] = float(p[token])
    return following


def takes(solver, tree, parent, token, P, closing, cfg):
    """One more token, of probability P -> is it to be followed?

    A token that decides the answer becomes a leaf. One that is neither likely nor decides anything
    is dropped.
    """
    ends = token in solver.stop_ids
    if not ends and token not in closing and P <= FOLLOW:
        return False

    tokens = [tree.tokens[node] for node in tree.path(parent)] + [token]
    text = solver.tokenizer.decode(tokens, skip_special_tokens=True)
    full = len(tokens) >= cfg.max_response_tokens
    if ends or full or solver_role.last_boxed(text) is not None:
        letter = solver_role.given_answer(tree.question, text)
        tree.leaves[tree.add(parent, token)] = letter == tree.question.letter
        return False
    return P > FOLLOW


class Accuracy:
    """Which nodes make up which leaf. accuracy(logp) -> (accuracy, mass), both differentiable
    scalars in float64.
    """

    def __init__(self, layout):
        paths = []
        right = []
        for tree, start in zip(layout.trees, layout.start):
            for node, is_right in tree.leaves.items():
                paths.append([start + above for above in tree.path(node)])
                right.append(is_right)

        leaves = torch.arange(len(paths))
        lengths = torch.tensor([len(path) for path in paths], dtype=torch.long)
        # every node of every path, and the leaf whose path it is on
        self.nodes = torch.tensor(list(chain.from_iterable(paths)), dtype=torch.long)
        self.leaf = leaves.repeat_interleave(lengths)                       # (nodes on paths,)
        self.right = torch.tensor(right, dtype=torch.float64)               # (leaves,)
        self.M = len(layout.trees)

    def __call__(self, logp):
        logp = logp.cpu()[self.nodes]
        P = torch.zeros(len(self.right), dtype=torch.float64).index_add(0, self.leaf, logp).exp()
        return (P * self.right).sum() / self.M, P.sum() / self.M
