"""What travels through the loop: documents, questions, rollouts, drafts; and the document stream.

Documents of iteration t + 1, out of an endless stream of shuffles, one per epoch:

    S[t D : (t + 1) D],    S = shuffle_0, shuffle_1, shuffle_2, ...

| name | symbol | meaning |
|---|---|---|
| D | D | documents per iteration |
| Document | d | a text that the generator reads |
| Question | q | a text with lettered choices and the right one, or without (free-form) |
| Rollout | - | the tokens a model sampled, with their log-probs: a fact, never a judgement |
| Draft | - | one rollout of the generator, and the question in it if there is one |

Files are read by engine/readers.py.
"""
import random
from dataclasses import dataclass, field
from string import ascii_uppercase


class InputError(Exception):
    """What the user gave us is wrong: one line, which scripts print before they exit with 2."""


# ---------------------------------------------------------------- what travels

@dataclass
class Document:
    doc_id: str
    content: str
    # where dev questions stand here instead of a text: what no draft may repeat (engine/pools.py)
    seeds: frozenset = frozenset()


@dataclass
class Question:
    """Multiple choice: ground_truth is one of choices, word for word. Free-form: no choices.

    >>> Question("2 + 2 = ?", ["3", "4", "5", "22"], "4").letter
    'B'
    >>> Question("2 + 2 = ?", [], "4").letter is None
    True
    """
    question_text: str
    choices: list[str]
    ground_truth: str
    question_id: str = ""
    # free-form: other texts that are as right
    aliases: tuple = ()
    # open book: what stands above it when it is asked
    passage: str = ""

    @property
    def letter(self):
        """The letter of the right choice; None for a free-form question."""
        return ascii_uppercase[self.choices.index(self.ground_truth)] if self.choices else None


@dataclass
class Rollout:
    prompt: list[int]     # token ids
    response: list[int]   # token ids, the end-of-text token included if the model reached it
    logp: list[float]     # the sampler's log-prob of each response token, at its temperature
    finished: bool        # ended by itself, not by the length limit
    text: str             # the response decoded, without special tokens


@dataclass
class Draft:
    document: Document
    rollout: Rollout
    question: Question | None   # None: not a valid question; the draft keeps its place in (D, n)
    reason: str | None          # why not; None for a valid question
    repairs: list = field(default_factory=list)     # slips that were mended (engine/drafts.py)


@dataclass
class Answered:
    """Q questions with m answers to each, and what these are worth to the solver."""
    questions: list     # (Q,)
    answers: list       # (Q, m) rollouts
    r: object           # (Q, m) tensor: 1 right, 0 wrong, nan unknown
    A: object           # (Q, m) tensor: A_sol, in g_dev and g_q
    boxed: object       # (Q, m) tensor: is there a whole box
    A_update: object    # (Q, m) tensor: A_sol in the solver's update (solver.py)

    def __getitem__(self, part):
        """Some of the questions, or one of them, with their answers and rewards."""
        return Answered(self.questions[part], self.answers[part], self.r[part], self.A[part],
                        self.boxed[part], self.A_update[part])


@dataclass
class Found:
    """What one iteration found, for the log. Nothing that trains reads it back."""
    t: int
    dev: Answered               # (M, m)
    drafts: list                # (D, n)
    slots: list                 # (Q,) (d, j) of the valid ones
    solved: Answered            # (Q, m)
    problems: Answered          # what the solver learnt from beside them (extensions.py)
    score: object               # (Q,) what a question earns, or None: nobody is paid
    earned: dict                # {rewards.Term: (Q,)} of which that is the weighted sum
    A_gen: object               # (D, n)
    kept: object                # (Q,) booleans: did the solver learn from it
    generator_step: dict        # what policy.update returns
    solver_step: dict
    tested: dict                # {"test", "valid": evaluate.accuracy, None where it is not due}
    replaced: int | None        # dev questions (extensions.py)
    skipped: int                # updates and gradients that were not finite, so far
    s_hat: object = None        # (Q,) None where influence is not measured, as are the next two
    own_share: object = None    # (Q,)
    g_dev_norm: float | None = None


# ---------------------------------------------------------------- which documents come next

def document_batch(n_documents, D, seed, iteration):
    """The D document numbers of one iteration: S[t D : (t + 1) D] in the header's terms.

    Every epoch reads each document once. Where one ends inside a batch the next begins, so a
    document can appear twice in a batch: group by place in the batch, never by document. A pure
    function of its arguments, so a checkpoint only needs the iteration.

    >>> [document_batch(5, 2, seed=0, iteration=t) for t in range(5)]
    [[2, 1], [0, 3], [4, 0], [3, 1], [4, 2]]
    """
    if n_documents < 1 or D < 1:
        given = f"{D} documents per iteration out of {n_documents}"
        raise ValueError(f"{given}: both must be at least 1")
    first_epoch, start = divmod(iteration * D, n_documents)
    last_epoch = (iteration * D + D - 1) // n_documents

    stream = []
    for epoch in range(first_epoch, last_epoch + 1):
        stream += shuffle(n_documents, seed, epoch)
    return stream[start:start + D]


def shuffle(n, seed, epoch):
    return random.Random(f"documents, seed {seed}, epoch {epoch}").sample(range(n), n)


def keep_fitting(items, n_tokens, limit, what):
    """Items whose prompt fits -> (kept, number left out). Raises InputError if none fits.

    n_tokens(item) is the length of the item's whole prompt, chat template included; what names the
    items in the message. The caller prints the count: nothing is skipped in silence. Before the
    stream begins, so that every iteration has D documents; the released code drops them inside the
    batch.

    >>> keep_fitting(["a b", "a b c d", "a"], count_words, limit=3, what="documents")
    (['a b', 'a'], 1)
    """
    lengths = [n_tokens(item) for item in items]
    kept = [item for item, length in zip(items, lengths) if length <= limit]
    if items and not kept:
        none_fits = f"none of the {len(items)} {what} fits in max_prompt_tokens = {limit}"
        raise InputError(f"{none_fits}: the shortest prompt has {min(lengths)} tokens; "
                         f"raise max_prompt_tokens or give shorter {what}")
    return kept, len(items) - len(kept)


# ---------------------------------------------------------------- small helpers for texts

def count_words(text):
    return len(text.split())


def is_encodable(value):
    """False for half a surrogate pair, which JSON lets through and no tokenizer takes."""
    try:
        value.encode("utf-8")
        return True
    except UnicodeEncodeError:
        return False


def is_number(value):
    # in Python, True is an int
    return isinstance(value, (int, float)) and not isinstance(value, bool)
