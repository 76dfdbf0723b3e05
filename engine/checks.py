"""Free-form answers checked by all ranks: each pair by one of them, its verdict on every one.

One rank alone would need hours for the 32,000 answers of the paper's step where many are slow, and
the others wait no longer than ranks.WAIT. A check that times out on one machine might not on
another, so who checked decides for all.
"""
from engine import ranks


class Shared:
    """A Verifier for many ranks. Its counts of time-outs and crashes become those of all ranks."""

    def __init__(self, verifier):
        self.verifier = verifier

    def check(self, pairs):
        """[(answer or None, truth)], the same on every rank -> [True, False or None].

        Equal pairs are one: two ranks might not agree on them.
        """
        different = list(dict.fromkeys(pairs))
        before = self.counts()
        verdicts = dict(zip(different, ranks.divided(self.verifier.check, different)))
        new = [after - b for after, b in zip(self.counts(), before)]

        everyone = ranks.gather([new], ranks.world())
        timeouts, crashes = zip(*everyone)
        self.verifier.timeouts = before[0] + sum(timeouts)
        self.verifier.crashes = before[1] + sum(crashes)
        return [verdicts[pair] for pair in pairs]

    def counts(self):
        return self.verifier.timeouts, self.verifier.crashes
