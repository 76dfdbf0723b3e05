"""Says of questions about an embedded world what they ask for and whether their key is right.

    key_accuracy    of the valid drafts, how many have the right key
    target_share    how many ask for a skill that the dev set needs
    unread_share    how many are in other words than the world's, which the two above count as
                    wrong and as not wanted: they are lower bounds
    believed_share  where notes make wrong claims: of the questions about one, how many have the
                    claim as their key

That goes into metrics.jsonl and nowhere else: the log asks for it after both models have moved,
and nothing trains on it. The paper's documents have no such truth.
"""
import json
import os
import re

from toy.world import CLAIM, DAYS, TARGET, WORLDS, World

NUMBER = r"(\d+)"
CLAIMED = re.compile(CLAIM.format(NUMBER, NUMBER, NUMBER, NUMBER))
TRIPLE = re.compile(r"What is the (largest|smallest) of (\d+), (\d+) and (\d+)\?")
PLUS = re.compile(r"What is (\d+) plus (\d+)\?")
DAY = re.compile(r"Which day comes (\d+) days after (\w+)\?")
ORDER = re.compile(
    r"(\w+) came first, then (\w+), then (\w+)\. Who came (first|second|last)\?")


def truth(drafts, documents):
    """Drafts -> {"key_accuracy", "target_share", "unread_share"}, of the valid ones or None.

    documents: the path of the documents they were written about, or a World. Where its notes make
    wrong claims, also {"believed_share": x}; where it is no world of ours, {}.
    """
    world = documents if isinstance(documents, World) else world_of(documents)
    if world is None:
        return {}

    valid = [draft for draft in drafts if draft.question is not None]
    judged = [judge(draft.question) for draft in valid]
    found = {
        "key_accuracy": share([right for _, right in judged]),
        "target_share": share([skill in TARGET for skill, _ in judged]),
        "unread_share": share([skill is None for skill, _ in judged])}

    if world.wrong_claims:
        repeats = [believed(draft) for draft in valid]
        found["believed_share"] = share([x for x in repeats if x is not None])
    return found


def share(claims):
    """Booleans -> the share that holds, or None of none."""
    return sum(claims) / len(claims) if claims else None


def world_of(documents):
    """The path of a documents file -> the World it belongs to, or None.

    Notes of toy.knobs have a file beside them that names it.
    """
    if not documents:
        return None
    beside = os.path.join(os.path.dirname(documents), "world.json")
    if os.path.exists(beside):
        with open(beside, encoding="utf-8") as file:
            return WORLDS.get(json.load(file)["world"])
    for world in WORLDS.values():
        if os.path.realpath(documents) == os.path.realpath(world.path("documents.json")):
            return world
    return None


def judge(question):
    """A question in the world's words -> (skill, is the key right?); any other -> (None, False).

    >>> from data import Question
    >>> judge(Question("What is the largest of 27, 31 and 5?", ["5", "31", "27", "40"], "31"))
    ('largest', True)
    >>> week = ["Monday", "Friday", "Sunday", "Tuesday"]
    >>> judge(Question("Which day comes 3 days after Sunday?", week, "Friday"))
    ('day', False)
    >>> judge(Question("What is love?", ["a", "b", "c", "d"], "a"))
    (None, False)
    """
    text = question.question_text
    key = question.ground_truth

    if m := TRIPLE.fullmatch(text):
        numbers = [int(x) for x in m.groups()[1:]]
        right = max(numbers) if m[1] == "largest" else min(numbers)
        return m[1], key == str(right)

    if m := PLUS.fullmatch(text):
        return "plus", key == str(int(m[1]) + int(m[2]))

    if m := DAY.fullmatch(text):
        return "day", m[2] in DAYS and key == DAYS[(DAYS.index(m[2]) + int(m[1])) % 7]

    if m := ORDER.fullmatch(text):
        place = ("first", "second", "last").index(m[4])
        return "order", key == m[place + 1]

    return None, False


def believed(draft):
    """A valid draft -> is its key the wrong number that its note claims?

    None if the note claims nothing wrong about the triple that is asked for.
    """
    claim = CLAIMED.search(draft.document.content)
    asked = TRIPLE.fullmatch(draft.question.question_text)
    if not claim or not asked or asked[1] != "largest":
        return None

    *numbers, claimed = claim.groups()
    if sorted(asked.groups()[1:]) != sorted(numbers) or claimed == max(numbers, key=int):
        return None
    return draft.question.ground_truth == claimed
