"""Does a generated question repeat one of the dev or test questions? Shared runs of words.

    overlap(q, set) = some 8 words in a row of q's text stand in the text of a question of the set

A generator that is paid by influence can be paid for copying the dev set: the copy's gradient is
the dev set's own. It has never seen the dev set, so copies come from documents that hold the same
facts, or by chance; either way they make dev accuracy look better than it is, and a test question
among them spoils the test. The share per iteration is in metrics.jsonl (overlap_dev_share,
overlap_test_share), the questions in questions.jsonl (overlap). Nothing trains on it.

    code     meaning
    words    the text in lower case, cut at everything that is no letter, digit or underscore
    N = 8    words in a row; a shorter question counts as one run. GPT-3's check used 13, for texts
             much longer than a question

Our own addition; neither the paper nor its released code looks for this.
"""
import re

N = 8


def folded(text):
    """Text -> its words in lower case with one space between: no case, spaces or punctuation."""
    return " ".join(re.findall(r"\w+", text.lower()))


def runs(text):
    """Text -> the set of its runs of N words; of a shorter text, the whole.

    >>> sorted(runs("One, two three: four five six seven eight NINE?"))
    ['one two three four five six seven eight', 'two three four five six seven eight nine']
    """
    words = folded(text).split()
    return {" ".join(words[i:i + N]) for i in range(max(1, len(words) - N + 1))} - {""}


class Overlap:
    """Named question sets to compare with.

    Overlap({"dev": dev, "test": test}).of(text) -> names of the sets it shares a run of words with.
    """

    def __init__(self, sets):
        self.runs = {}
        for name, questions in sets.items():
            found = (runs(question.question_text) for question in questions)
            self.runs[name] = set().union(*found)

    def of(self, text):
        mine = runs(text)
        return [name for name, theirs in self.runs.items() if not mine.isdisjoint(theirs)]
