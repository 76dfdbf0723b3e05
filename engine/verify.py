r"""Checks free-form answers: does the solver's box mean the same as the reference?

    r = 1   if   answer == truth, as text, as an exact number or as mathematics
                 ("0.5", "1/2" and "\frac{1}{2}" are the same answer)

    pairs --decide--> many are settled at a glance: equal texts, two numbers (exact fractions, so
                      that 0.333 is not 1/3), two words
          --pool----> the rest goes to math-verify, in worker processes

    verdict   meaning
    True      equal
    False     not equal, or nothing there to compare
    None      unknown: the check timed out or crashed. Never a 0: the caller counts it and leaves
              the question out of the update

A wrong "equal" is worse than a wrong "not equal": a policy finds what is paid by mistake and
repeats it, while an equal answer in an odd form costs one reward. So the rules below only remove
what changes no value, and where two readings are possible the strict one counts.
tests/answer_pairs.jsonl holds pairs with the verdict a mathematician gives, and marks those where
this file is known to be wrong.

math-verify runs computer algebra on whatever a language model wrote; class Worker says how it is
kept from hanging or crashing the run. For Linux and macOS: Windows has no fork.
"""
import json
import multiprocessing.connection
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections import deque
from fractions import Fraction

# Our own choice, as all numbers here: a longer text is not the final answer to anything, and counts
# as not equal.
MAX_CHARS = 2_000
# Some 60 MB and a CPU second each to start.
MAX_WORKERS = 8
# Importing sympy on a busy machine; not part of the time limit of an answer.
START_SECONDS = 120
# Of wall-clock time beyond the limit: then the whole worker is killed, as when somebody stopped it
# with SIGSTOP.
STALL_SECONDS = 100
# Address space of a worker, so that a huge number cannot take the machine's memory.
MEMORY_BYTES = 1 << 30
# Checks; below that a progress bar is noise.
BAR_FROM = 100


class Verifier:
    """with Verifier(seconds=5) as verifier: verdicts = verifier.check([(answer, truth), ...])

    seconds: the limit for one pair, in CPU time. workers: how many processes at most, by default
    one per core up to MAX_WORKERS, where ranks share a machine of their share. timeouts, crashes:
    how many checks ended in None, and why, since the verifier was made. A run without free-form
    questions starts no process.
    """

    def __init__(self, seconds=5.0, workers=None):
        self.seconds = seconds
        self.timeouts, self.crashes = 0, 0
        # torchrun says how many ranks share this machine
        mine = cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self.max_workers = workers or min(max(1, mine), MAX_WORKERS)
        self.workers = []

    def check(self, pairs):
        """[(answer or None, truth)] -> [True, False or None].

        None: timed out or crashed, which the caller counts and never takes for a 0. The same pair
        is checked once, however many of the m answers agree on it. What is settled at a glance
        needs no worker. Raises RuntimeError if a worker cannot start, as when math-verify is
        missing.
        """
        verdicts = {pair: decide(*pair) for pair in dict.fromkeys(pairs)}
        hard = [pair for pair, verdict in verdicts.items() if verdict is None]
        try:
            verdicts.update(self.ask(hard))
        except BaseException:
            # Ctrl-C: a reply that is still on its way must not be taken for the next answer's
            self.close()
            raise
        return [verdicts[pair] for pair in pairs]

    def ask(self, pairs):
        """Pairs that take algebra -> {pair: verdict}."""
        verdicts = {}
        queue = deque(pairs)
        with progress_bar(len(pairs)) as bar:
            while len(verdicts) < len(pairs):
                self.hand_out(queue)
                busy = [worker for worker in self.workers if worker.busy]
                first = min(worker.deadline for worker in busy)
                left = max(0, first - time.monotonic())
                pipes = [worker.replies for worker in busy]
                replied = multiprocessing.connection.wait(pipes, left)
                for worker in busy:
                    if worker.replies in replied:
                        self.take(worker, worker.replies.readline(), verdicts)
                    elif time.monotonic() > worker.deadline:
                        self.take(worker, b"late", verdicts)
                bar.update(len(verdicts) - bar.n)
        return verdicts

    def hand_out(self, queue):
        """Gives every idle worker a pair, and starts workers while pairs are left that nobody is
        free for.
        """
        for worker in list(self.workers):
            # it died between two answers: that costs nothing
            if worker.process.poll() is not None and worker.pair is None:
                self.dismiss(worker)
        for worker in self.workers:
            if queue and not worker.busy:
                worker.send(queue.popleft(), self.seconds)
        starting = sum(worker.busy and worker.pair is None for worker in self.workers)
        missing = min(len(queue) - starting, self.max_workers - len(self.workers))
        for _ in range(missing):
            self.workers.append(Worker())

    def take(self, worker, reply, verdicts):
        """One line from a worker: its verdict, or that it ran into its limit.

        b"": it has died. b"late": it does not even say that.
        """
        pair, worker.pair = worker.pair, None
        if reply in (b"ready\n", b"0\n", b"1\n", b"timeout\n"):
            # it serves on
            worker.busy = False
        else:
            self.dismiss(worker)
            if pair is None:
                raise RuntimeError("the process that checks free-form answers did not start; "
                                   f"try: {sys.executable} -c 'import math_verify'")
        if pair is not None:
            verdicts[pair] = {b"0\n": False, b"1\n": True}.get(reply)
            self.timeouts += reply in (b"timeout\n", b"late")
            self.crashes += reply == b""

    def dismiss(self, worker):
        self.workers.remove(worker)
        worker.kill()

    def close(self):
        """Ends the workers. The verifier stays usable: the next answer that needs one starts it."""
        while self.workers:
            self.workers.pop().kill()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


class Worker:
    """A process, the pair it is busy with (None while it starts), and when to stop waiting for it.

    9^{9^9} keeps math-verify busy for hours, inside one call that no Python signal handler can
    interrupt. So a worker is this file run as a script, and it forks a child that checks under an
    alarm of the kernel's. The alarm counts CPU time: on a busy machine a limit in wall-clock time
    turns right answers into unknown ones. A child that was too slow is forked again in
    milliseconds, while the import it inherits takes a second. A worker whose child crashes ends,
    and is replaced when a pair needs one.
    """

    def __init__(self):
        # -P: it imports nothing from this folder, whose statistics.py is not Python's own.
        # A session of its own: Ctrl-C stops the training script without a word from here, and the
        # worker ends when its input closes.
        self.process = subprocess.Popen(
            [sys.executable, "-P", os.path.abspath(__file__)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0, start_new_session=True)
        self.replies = self.process.stdout
        self.pair = None
        self.busy = True
        self.deadline = time.monotonic() + START_SECONDS

    def send(self, pair, seconds):
        self.pair = pair
        self.busy = True
        self.deadline = time.monotonic() + seconds + STALL_SECONDS
        try:
            self.process.stdin.write(json.dumps([*pair, seconds]).encode() + b"\n")
        except BrokenPipeError:
            # it has just died: its replies end, and take() counts a crash
            pass

    def kill(self):
        """Ends the process and its child, without ever waiting long: a process stuck in the kernel
        is left to it.
        """
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            # macOS says the second of a group that has just ended
            pass
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            pass
        self.process.stdin.close()
        self.process.stdout.close()


def progress_bar(total):
    # here, so that a worker starts without it
    from tqdm import tqdm
    return tqdm(total=total, desc="answer checks", unit="check", leave=False,
                disable=total < BAR_FROM or os.environ.get("RANK", "0") != "0")


def cores():
    # macOS has no affinity
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


# ---------------------------------------------------------------- what can be told at a glance

def decide(answer, truth, algebra=lambda answer, truth: None):
    """True or False; where texts, numbers, words and units do not settle it, what
    algebra(answer, truth) says, by default None.

    >>> decide("0.5", r"\\frac{1}{2}"), decide("10 cm", "10 m")
    (True, False)
    >>> decide("n = 033", "33"), decide("2^5", "32")
    (True, None)
    """
    if answer is None or max(len(answer), len(truth)) > MAX_CHARS:
        return answer == truth
    answer, truth = clean(answer), clean(truth)
    if not answer or not truth:
        return False
    verdicts = []
    for side in sides(answer, truth):
        a, t, verdict = compare(side, truth)
        verdicts.append(algebra(a, t) if verdict is None else verdict)
    if False in verdicts:
        return False
    return None if None in verdicts else True


REWRITES = [(re.compile(pattern), new) for pattern, new in [
    (r"\s+", " "),
    (r"\\(?:left|right|displaystyle|boldsymbol)(?![A-Za-z])|\\!", ""),
    (r"−", "-"),
    (r"½", r"\\frac12"),
    (r"(?<=[A-Za-z0-9)])²(?![⁰¹²³⁴-⁹])", "^2"),
    (r"√ ?(\d+|[a-z])", r"\\sqrt{\1}"),
    (r"∞|(?<![\\A-Za-z])(?:inf|infinity)(?![A-Za-z])", r"\\infty "),
    (r"\\varnothing(?![A-Za-z])", r"\\emptyset"),
    (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
    (r"°|\^ ?\{ ?\\circ ?\}|\^ ?\\circ(?![A-Za-z])|\\degree(?![A-Za-z])", r"^\\circ"),
    (r"(?<=\d) ?(?:\\text\{ ?degrees? ?\}|degrees?(?![A-Za-z]))", r"^\\circ"),
    # 10{,}000 and 10\,000: not 1,\,200, which is a list
    (r"(?<=\d)(?:\{,\}|\\,|\\ )(?=\d{3}(?!\d))", ""),
    # [0,1] U [2,3]
    (r"(?<=[\])]) ?U ?(?=[\[(])", r"\\cup "),
    (r"^(?:[Tt]he )?(?:final )?[Aa]nswer(?: is|:)? ", ""),
    # space around it, and one full stop: 0.333... is not 0.333
    (r"^(?:\\[,; ]| )+|(?:\\[,; ]|\\q?quad| )+$|(?<!\.)\.$", ""),
]]
WRAPPER = re.compile(r"\\\((.*)\\\)|\\\[(.*)\\\]|\$\$?([^$]*)\$\$?|\*\*([^*]*)\*\*|`([^`]*)`"
                     r"|\\(?:boxed|text(?:bf|it|rm|sf)?|math(?:bf|it|rm|sf)) ?\{([^{}]*)\}")


def clean(text):
    """The text without what changes no meaning: dollars, bold, a box, a text command around all of
    it, odd space and other spellings.
    """
    # wrappers within wrappers
    for _ in range(4):
        for pattern, new in REWRITES:
            text = pattern.sub(new, text)
        match = WRAPPER.fullmatch(text)
        if not match:
            break
        text = match[match.lastindex]
    return text.strip()


# x, x_1, f(x), \theta, \angle ABC
SYMBOL = r"\\?[A-Za-z]+(?: ?\{\w+\}| [A-Za-z]+)*'?(?:_\w|_\{\w+\})?(?:\([\w, ]+\))?"
# also m + n, as the AIME asks
LABEL = re.compile(rf"(?!.*(?:sqrt|frac|sin|cos|tan|log|ln|exp|max|min|gcd)){SYMBOL}"
                   rf"(?: ?\+ ?{SYMBOL})*")
LIST = re.compile(r"[<>,;&!]|\\(?:leq?|geq?|neq?|text|begin|in)(?![A-Za-z])| or | and ")


def sides(answer, truth):
    """What has to equal the truth: "2 + 3" and "5" in "x = 2 + 3 = 5", "2x" and "6" in "2x = 6",
    otherwise the answer itself.
    """
    parts = [part.strip() for part in answer.split("=")]
    # \sum_{k=1}
    nested = any(part.count("{") != part.count("}") for part in parts)
    if "=" in truth or len(parts) == 1 or not all(parts) or nested or LIST.search(answer):
        return [answer]
    return parts[1:] if LABEL.fullmatch(parts[0]) else parts


def compare(answer, truth):
    """-> (answer, truth, verdict): without their units if those allow it; verdict None where it
    takes algebra.
    """
    (a, unit_a), (t, unit_t) = split_unit(answer), split_unit(truth)
    x, y = number(a), number(t)
    if any(bool(odd.search(answer)) != bool(odd.search(truth)) for odd in ODD):
        return a, t, False

    # no conversion: 3 km and 3000 m count as different
    if unit_a and unit_t and unit_a != unit_t:
        return a, t, False
    if unit_a != unit_t:
        with_unit = answer if unit_a else truth
        if not is_omissible(unit_a or unit_t, with_unit, x, y):
            return answer, truth, None
        # 50% is 0.5, and 50 where the question asks for per cent
        if "%" in (unit_a, unit_t):
            part, bare = (x, y) if unit_a else (y, x)
            return a, t, bare == part / 100 or bare == part > 1

    if a == t or x is not None and y is not None:
        return a, t, a == t or x == y
    # algebra would read "tea" as t e a, and so as "eat"
    if is_words(a) and is_words(t):
        return a, t, folded(a) == folded(t)
    # a set is no tuple
    return a, t, False if {opening(a), opening(t)} == {"{", "("} else None


# Roughly equal is not equal; 0,500 is not 500.
ODD = [re.compile(r"\\approx|\\sim|≈"), re.compile(r"^[+-]?0,\d{3}$")]


def opening(text):
    return text.removeprefix("\\")[:1]


SIGN = r"(?P<sign>[+-]?) ?"
DECIMAL = r"(?P<decimal>(?:[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d{0,2}(?: \d{3})+|\d+)(?:\.\d*)?|\.\d+)"
POWER = (r"(?:[eE](?P<e>[+-]?\d{1,3})"
         r"| ?(?:\\times|\\cdot|×|\*) ?10 ?\^ ?"
         r"(?:(?P<p>\d)|\{(?P<q>[+-]?\d{1,3})\}|(?P<r>-?\d{1,3})))?")
MIXED = r"(?:(?P<whole>\d+) )?(?P<top>\d+) ?/ ?(?P<bottom>\d+)"
REPEATING = r"(?P<start>\d*\.\d*)\\overline ?\{(?P<period>\d+)\}"
NUMBER = re.compile(f"{SIGN}(?:{DECIMAL}{POWER}|{MIXED}|{REPEATING})", re.ASCII)
FRAC = re.compile(r" ?\\frac ?(?:\{ ?(-?\d+) ?\} ?\{ ?(\d+) ?\}|(\d) ?(\d))", re.ASCII)


def number(text):
    r"""A plain number as an exact Fraction, otherwise None. Mixed numbers: 2\frac{1}{3} is 7/3.

    >>> number("1,234.5"), number(r"1.5 \times 10^{-3}"), number(r"-2\frac13")
    (Fraction(2469, 2), Fraction(3, 2000), Fraction(-7, 3))
    >>> number("1, 234"), number("007"), number("2x")
    (None, Fraction(7, 1), None)
    """
    slashed = FRAC.sub(lambda frac: f" {frac[1] or frac[3]}/{frac[2] or frac[4]}", text)
    match = NUMBER.fullmatch(slashed.strip())
    if not match or match["bottom"] and not int(match["bottom"]):
        return None
    if match["top"]:
        value = int(match["whole"] or 0) + Fraction(int(match["top"]), int(match["bottom"]))
    elif match["period"]:
        places = len(match["start"].split(".")[1])
        nines = 10 ** len(match["period"]) - 1
        repeated = Fraction(int(match["period"]), 10 ** places * nines)
        value = Fraction("0" + match["start"]) + repeated
    else:
        power = match["e"] or match["p"] or match["q"] or match["r"] or 0
        value = Fraction(re.sub("[, ]", "", match["decimal"])) * Fraction(10) ** int(power)
    return -value if match["sign"] == "-" else value


SPELLINGS = {
    "mm": "millimeter millimetre", "cm": "centimeter centimetre", "m": "meter metre",
    "km": "kilometer kilometre", "in": "inch inches", "ft": "foot feet", "yd": "yard", "mi": "mile",
    "g": "gram", "kg": "kilogram", "s": "second sec", "min": "minute", "h": "hour hr", "day": "",
    "week": "", "year": "", "L": "liter litre", "mL": "milliliter", "$": "dollar", "cent": "",
    "%": "percent", "mph": "", "N": "newton", "J": "joule", "unit": "", "^\\circ": "",
}
# any spelling of a unit -> its symbol
UNITS = {}
for symbol, names in SPELLINGS.items():
    UNITS |= dict.fromkeys([symbol, *names.split()], symbol)
MONEY = re.compile(r"(-?)(\\?\$|[€£]) ?(?=[\d.])")
UNIT = re.compile(
    r"(?<=[\d)}])\.?(?P<gap>(?: |\\[,; ]|~)*)"
    r"(?:(?P<symbol>\\?%|\^\\circ)|(?P<bare>[A-Za-z]+(?:[/ ][A-Za-z]+)*)"
    r"|\\(?:text|textrm|mathrm|mbox|rm) ?\{ ?(?P<dressed>[^{}]+?) ?\})"
    r"(?: ?\^ ?\{?(?P<power>[23])\}?)?$")


def split_unit(text):
    r"""-> (text, None), or the value and its unit in one spelling.

    A \text after a number counts as a unit, whatever it says.

    >>> split_unit("5 metres"), split_unit(r"3 \text{ square feet}"), split_unit("2x")
    (('5', 'm'), ('3', 'ft^2'), ('2x', None))
    """
    money, match = MONEY.match(text), UNIT.search(text)
    if money:
        return money[1] + text[money.end():], money[2].removeprefix("\\")
    if not match or match["bare"] and is_product(text[:match.start()], match["gap"], match["bare"]):
        return text, None

    name = (match["symbol"] or match["bare"] or match["dressed"]).removeprefix("\\")
    name = re.sub(r"\bcubic (\w+)", r"\1^3", name)
    name = re.sub(r"\b(?:square|sq) (\w+)", r"\1^2", name).replace(" per ", "/")
    name = re.sub("[A-Za-z]+", in_one_spelling, name)
    return text[:match.start()], name + (f"^{match['power']}" if match["power"] else "")


def in_one_spelling(word):
    """A match of a word -> the symbol of that unit, or the word without the s of a plural."""
    singular = word[0].removesuffix("s")
    return UNITS.get(word[0]) or UNITS.get(singular, singular)


def is_product(value, gap, letters):
    """2x, 2 x, 2ab and 2m are products; 5 m, 5cm and 5 apples have a unit."""
    if letters in UNITS:
        return not gap and len(letters) == 1
    return not gap or number(value) is None or not re.search("/|[a-z]{3}", letters)


def is_omissible(unit, text, x, y):
    """Whether one side may come without the unit: only a known one, as 5 million is not 5, and not
    5 m, which may be 5 times m.
    """
    if unit in ("%", "^\\circ"):
        return x is not None and y is not None
    known = unit in "€£" or all(word in UNITS for word in re.findall("[^^/23 ]+", unit))
    return known and not re.search(r"\d ?[A-Za-z]$", text)


def is_words(text):
    return all(character.isalpha() or character == " " for character in text)


def folded(text):
    """Words without what does not tell answers apart: capitals (but x is not X), "the", space."""
    bare = text.replace(" ", "")
    if len(bare) < 3 and bare.casefold() != "no":
        return bare
    return re.sub("^the ", "", text.casefold()).replace(" ", "")


# ---------------------------------------------------------------- inside a worker

def work():
    """Reads [answer, truth, seconds] per line and writes 1, 0 or timeout per line, until its input
    closes or its child crashes.
    """
    replies = os.fdopen(os.dup(1), "w")
    # whatever a library prints must not pass for a reply
    sys.stdout = sys.stderr
    limit_memory()
    # imports and builds the parser's tables for all children
    algebra("x + 1", "1 + x")
    print("ready", file=replies, flush=True)
    while True:
        child = os.fork()
        if child == 0:
            serve(replies)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGPROF:
            # the end of its replies tells the script
            return
        print("timeout", file=replies, flush=True)


def serve(replies):
    """The child: a signal that nobody handles kills it at the limit, wherever it is, compiled code
    included.
    """
    for line in sys.stdin:
        answer, truth, seconds = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        equal = decide(answer, truth, algebra)
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(int(equal), file=replies, flush=True)


def algebra(answer, truth):
    """math-verify's word on two LaTeX texts.

    Only what it reads as a whole counts: no picking of numbers out of sentences. What it cannot
    read, or has no memory for, it calls not equal. Its own timers are switched off: they are signal
    handlers, and they turn a time-out into "not equal".
    """
    from math_verify import verify
    gold, target = read(truth), read(answer)
    # Reference first: the order matters for relations and sets. Floats to 12 digits: a rounded
    # number is another number.
    equal = verify(gold, target, float_rounding=12, allow_set_relation_comp=True,
                   timeout_seconds=None)
    return equal or same_solutions(gold[:1], target[:1])


def read(text):
    """LaTeX -> what math-verify makes of it."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse
    reading = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True,
                                  nits=True, boxed="all", equations=False)
    config = LatexExtractionConfig(normalization_config=reading)
    return parse(rf"\boxed{{{spell_out(text)}}}", [config], parsing_timeout=None)


def spell_out(text):
    """Degrees as multiples of pi, i as the root of -1, one plus-minus as a list of two."""
    text = re.sub(r"(\d+(?:\.\d+)?) ?\^\\circ", r"(\1 \\cdot \\frac{\\pi}{180})", text)
    # there, i is an index
    if "_" not in text and "\\sum" not in text:
        text = re.sub(r"(?<![A-Za-z\\])i(?![A-Za-z])", r"\\sqrt{-1}", text)
    signs = re.findall(r"±|\\pm|\\mp", text)
    if len(signs) == 1 and "," not in text:
        text = f"{text.replace(signs[0], ' + ')}, {text.replace(signs[0], ' - ')}"
    return text


def same_solutions(gold, target):
    """2x > 6 and x > 3: inequalities in the same single unknown with the same solutions."""
    from math_verify.grader import is_equation, is_relation
    if not gold or not target:
        return False
    both = (*gold, *target)
    if not all(is_relation(relation) and not is_equation(relation) for relation in both):
        return False
    if len(gold[0].free_symbols) != 1 or gold[0].free_symbols != target[0].free_symbols:
        return False
    try:
        return gold[0].as_set() == target[0].as_set()
    except Exception:
        # sympy raises many kinds where it cannot solve
        return False


def limit_memory():
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    except (ValueError, OSError):
        # macOS refuses, and so does a lower limit that is already set; the time limit still holds
        pass


if __name__ == "__main__":
    work()
