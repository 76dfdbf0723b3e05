r"""Checks free-form answers: does the solver's box mean the same as the reference?

    r = 1   if   answer == truth, as text, as an exact number or as mathematics
                 ("0.5", "1/2" and "\frac{1}{2}" are the same answer)

    pairs --glance--> many are settled at once: equal texts, two numbers (exact fractions, so that
                      0.333 is not 1/3), two words
          --ask-----> the rest goes to math-verify, in worker processes

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

from engine import notation
from engine.forms import (CROSS, as_intervals, both_signs, collection, folded, is_readable,
                          is_words,
                          named, same_record, split_top)
from engine.notation import clean, exact
from engine.units import converted, split_unit

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


ROOT = os.path.dirname(os.path.dirname(os.path.abspath(notation.__file__)))
WORK = "import sys; sys.path.append(sys.argv[1]); from engine.verify import work; work()"


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
        verdicts = {pair: glance(*pair) for pair in dict.fromkeys(pairs)}
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
    interrupt. So a worker is a process of its own, and it forks a child that checks under an
    alarm of the kernel's. The alarm counts CPU time: on a busy machine a limit in wall-clock time
    turns right answers into unknown ones. A child that was too slow is forked again in
    milliseconds, while the import it inherits takes a second. A worker whose child crashes ends,
    and is replaced when a pair needs one.
    """

    def __init__(self):
        # -P, and the root behind everything else: no file of ours passes for a library's, as
        # engine/statistics.py would for Python's own.
        # A session of its own: Ctrl-C stops the training script without a word from here, and the
        # worker ends when its input closes.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", WORK, ROOT], stdin=subprocess.PIPE,
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

# A longer text is left to a worker, whose time is limited.
GLANCE_CHARS = 300


def glance(answer, truth):
    """decide() of short texts without algebra: True, False, or None where a worker is needed."""
    if answer is None or answer == truth or len(answer) > MAX_CHARS:
        return decide(answer, truth)
    return decide(answer, truth) if max(len(answer), len(truth)) <= GLANCE_CHARS else None


def decide(answer, truth, algebra=lambda answer, truth: None):
    """True or False; where texts, records, numbers, words and units do not settle it, what
    algebra(answer, truth) says, by default None.

    >>> decide("0.5", r"\\frac{1}{2}"), decide("10 cm", "10 m"), decide("4-1", "5-2")
    (True, False, False)
    >>> decide("n = 033", "33"), decide("2^{70}", "2^{70}+1"), decide("x + x", "2x")
    (True, False, None)
    """
    if answer is None or max(len(answer), len(truth)) > MAX_CHARS:
        return answer == truth
    answer, truth = clean(answer), clean(truth)
    if not answer.strip("{} ") or not truth.strip("{} "):
        return False
    return same(answer, truth, algebra)


# x, x_1, f(x), \theta, \angle ABC
SYMBOL = r"\\?[A-Za-z]+(?: ?\{\w+\}| [A-Za-z]+)*'*(?:_\w|_\{\w+\})?(?:\([\w, ]+\))?"
# not = 5, twice x = 10
OTHERWISE = (r"\b(?:not|no|never|isn|wrong|incorrect|false|twice|double|triple|half|third|quarter"
             r"|square|squared|cube|root|minus|negative|inverse|either|neither|least|most|about"
             r"|approximately|over|mod|times|plus|opposite|reciprocal|log|non|un)\b")
# also m + n, as the AIME asks; (x, y)
LABEL = re.compile(rf"(?!.*(?:sqrt|frac|sin|cos|tan|log|ln|exp|max|min|gcd|lcm))"
                   rf"(?!.*{OTHERWISE}){SYMBOL}"
                   rf"(?: ?\+ ?{SYMBOL})*")
POINT = re.compile(r"\([a-z](?:, ?[a-z])*\)")
LIST = re.compile(r"[<>,;&!]|\\(?:le|ge|ne|begin|in|approx)(?![A-Za-z])| or | and "
                  r"|\\text ?\{ ?(?:and|or)\b")


def same(answer, truth, algebra, inside=False):
    """Two clean texts -> True, False, or None. inside: both are parts of a collection."""
    if answer == truth:
        return True
    a, t = unlabelled(answer), unlabelled(truth)
    if a and t and a[0].replace(" ", "") == t[0].replace(" ", ""):
        return same(a[1], t[1], algebra)
    if t and "=" not in answer:
        return compare(answer, t[1], algebra, inside)
    if point := POINT.match(answer):
        rest = answer[point.end():].strip()
        if rest.startswith("=") and "=" not in truth:
            answer = rest[1:].strip()
    parts = sides(answer, truth)
    return every(compare(part, truth, algebra, inside, len(parts) > 1) for part in parts)


def unlabelled(text):
    """x = 5 -> ("x", "5"); None for a text that is no symbol with its value."""
    parts = text.split("=")
    if len(parts) == 2 and LABEL.fullmatch(parts[0].strip()) and parts[1].strip():
        if parts[0].strip() != parts[1].strip() and not LIST.search(parts[1]):
            return parts[0].strip(), parts[1].strip()
    return None


def sides(answer, truth):
    """What has to equal the truth: "2 + 3" and "5" in "x = 2 + 3 = 5", "2x" and "6" in "2x = 6",
    otherwise the answer itself.
    """
    parts = [part.strip() for part in answer.split("=")]
    # \sum_{k=1}
    nested = any(part.count("{") != part.count("}") for part in parts)
    if "=" in truth or len(parts) == 1 or not all(parts) or nested or LIST.search(answer):
        return [answer]
    # x = x says nothing
    if len(set(parts)) == 1:
        return [answer]
    return parts[1:] if LABEL.fullmatch(parts[0]) else parts


def compare(answer, truth, algebra, inside=False, arithmetic=False):
    """Two sides -> True, False, or None. Exact before algebra, and what is no mathematics first.

    arithmetic: the answer is a side of an equation, where 10 - 3 is no range.
    """
    if answer == truth:
        return True
    if is_words(answer) and is_words(truth):
        return folded(answer) == folded(truth)
    known = same_record(answer, truth, arithmetic)
    if known is not None:
        return known

    (a, unit_a), (t, unit_t) = split_unit(answer), split_unit(truth)
    x, y = number(a), number(t)
    if unit_a and unit_t and unit_a != unit_t:
        return bool(converted(x, unit_a, y, unit_t))
    if unit_a != unit_t:
        unit = unit_a or unit_t
        # 50% is 0.5, and 50 where the question asks for per cent
        if unit == "%":
            if x is None or y is None:
                return False
            part, bare = (x, y) if unit_a else (y, x)
            return bare == part / 100 or bare == part > 1
        if unit == "^\\circ" and (x is None or y is None):
            a, t = answer, truth

    if a == t:
        return True
    if x is not None and y is not None:
        return x == y
    return compare_parts(both_signs(a), both_signs(t), algebra, inside)


def number(text):
    """exact(), but (1,000) is a pair."""
    return None if text[:1] in ("(", "[") and "," in text else exact(text)


def compare_parts(answer, truth, algebra, inside):
    """Collections part by part, intervals; then texts that algebra cannot read, then algebra."""
    one, other = as_intervals(answer), as_intervals(truth)
    if one and other and (one[0] or other[0]):
        if one[0] and other[0] and one[0] != other[0]:
            return False
        verdict = same_union(one[1], other[1], algebra)
        if verdict is not False or "\\cup" not in one[1] + other[1]:
            return verdict
    answer, truth = (re.sub(r"^[a-z] ?\\in ?(?=\\\{)", "", text) for text in (answer, truth))

    # 38,790,683 is a number and no list
    one = collection(answer) if number(answer) is None else None
    other = collection(truth) if number(truth) is None else None
    # 3 and 4 is not 3 or 4
    joints = [set(JOINT.findall(text)) for text in (answer, truth)]
    if joints in ([{"and"}, {"or"}], [{"or"}, {"and"}]):
        return False
    if one and other:
        return same_collection(one, other, algebra)
    if one or other:
        single = truth if one else answer
        brackets, parts = one or other
        if inside or number(single) is not None and (len(parts) > 1 or not parts):
            return False
        if brackets == "" and not re.search(r"=|\\", single):
            return False

    a, t = named([answer, truth])
    if CROSS.search(answer) or CROSS.search(truth):
        return folded(answer) == folded(truth)
    if not is_readable(a) or not is_readable(t) or is_empty(answer) or is_empty(truth):
        return folded(answer) == folded(truth)
    return algebra(a, t)


def is_empty(text):
    """x = x, 1 = 2: a statement that says nothing that algebra could compare."""
    left, equals, right = text.partition("=")
    return bool(equals) and (left.strip() == right.strip()
                             or number(left) is not None and number(right) is not None)


def same_union(one, other, algebra):
    parts = [split_top(text, "\\cup") for text in (one, other)]
    return same_collection(("", parts[0]), ("", parts[1]), algebra)


JOINT = re.compile(r"(?<![A-Za-z])(?:and|or)(?![A-Za-z])")

ORDERED = {"t", "f", "true", "false", "yes", "no"}
# Parts of a collection that are compared each with each.
MAX_PARTS = 40


def same_collection(one, other, algebra):
    """Two (brackets, parts) -> True, False, or None. A set is no tuple; a bare list has no order,
    unless the other is a tuple.
    """
    (open_a, a), (open_t, t) = one, other
    if open_a != open_t and {open_a, open_t} not in ({"", "{}"}, {"", "()"}):
        return False
    ordered = open_a not in ("", "{}") or open_t not in ("", "{}")
    # T, F, T: answers to several questions
    ordered = ordered or open_a == "" and all(part.casefold() in ORDERED for part in a)
    if (ordered or open_a == open_t == "") and len(a) != len(t):
        return False
    if ordered and open_a != open_t:
        a, t = coordinates(a), coordinates(t)
    if ordered:
        return every(same(x, y, algebra, True) for x, y in zip(a, t))
    if min(len(a), len(t)) == 0 or max(len(a), len(t)) > MAX_PARTS:
        return sorted(a) == sorted(t)
    if open_a == open_t == "":
        return matched(a, t, algebra)

    rows = []
    for x in a:
        rows.append([same(x, y, algebra, True) for y in t])
    columns = zip(*rows)
    return every([*map(some, rows), *map(some, columns)])


def coordinates(parts):
    """y = 4, x = 3 -> 3, 4; other parts as they are."""
    labelled = [unlabelled(part) for part in parts]
    return [value for _, value in sorted(labelled)] if all(labelled) else parts


def matched(a, t, algebra):
    """Two lists of one length -> is one the other in some order? 2, 2, 3 is not 2, 3, 3."""
    left = list(t)
    verdicts = []
    for x in a:
        found = [same(x, y, algebra, True) for y in left]
        verdicts.append(some(found))
        if True in found:
            left.pop(found.index(True))
        elif None in found:
            left.pop(found.index(None))
    return every(verdicts)


def every(verdicts):
    """False if one is, otherwise None if one is, otherwise True."""
    verdicts = list(verdicts)
    return False if False in verdicts else None if None in verdicts else True


def some(verdicts):
    verdicts = list(verdicts)
    return True if True in verdicts else None if None in verdicts else False


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
    """math-verify's word on two LaTeX texts, where exact arithmetic agrees.

    Only what it reads as a whole counts: no picking of numbers out of sentences. What it cannot
    read, or has no memory for, it calls not equal. Its own timers are switched off: they are signal
    handlers, and they turn a time-out into "not equal".
    """
    from math_verify import verify
    gold, target = read(truth), read(answer)
    # Reference first: the order matters for relations and sets.
    equal = verify(gold, target, float_rounding=12, allow_set_relation_comp=True,
                   timeout_seconds=None)
    if equal or same_solutions(gold[:1], target[:1]):
        return not differ(gold[0], target[0])
    return False


def read(text):
    """LaTeX -> what math-verify makes of it."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse
    reading = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True,
                                  nits=True, boxed="all", equations=False)
    config = LatexExtractionConfig(normalization_config=reading)
    return parse(rf"\boxed{{{spell_out(text)}}}", [config], parsing_timeout=None)


DECIMAL = re.compile(r"(?<![\d.,])(\d*)\.(\d+)(?![\d.,])")


def as_fraction(decimal):
    digits = (decimal[1] + decimal[2]).lstrip("0") or "0"
    return rf"(\frac{{{digits}}}{{1{'0' * len(decimal[2])}}})"


def spell_out(text):
    """Decimals as fractions, which are exact; degrees as multiples of pi, i as the root of -1."""
    text = DECIMAL.sub(as_fraction, text)
    text = re.sub(r"(\d+(?:\.\d+)?|\([^()]*\)) ?\^\\circ", r"(\1 \\cdot \\frac{\\pi}{180})", text)
    # there, i is an index
    if "_" not in text and "\\sum" not in text:
        text = re.sub(r"(?<![A-Za-z\\])i(?![A-Za-z])", r"\\sqrt{-1}", text)
    return text


# Decimal places to which two numbers must agree: math-verify compares about 15.
PLACES = 100
# Where formulas are compared: any two points that nobody chooses.
POINTS = (Fraction(1237, 1009), Fraction(3571, 1597))


def differ(one, other):
    """Whether two objects that math-verify calls equal are told apart by more digits.

    Numbers at PLACES digits, formulas at POINTS, tuples, intervals and matrices part by part,
    equations by the ratio of what they set to zero.
    """
    import sympy
    if isinstance(one, sympy.logic.boolalg.BooleanAtom):
        return True
    if isinstance(one, sympy.MatrixBase) and isinstance(other, sympy.MatrixBase):
        return any(map(differ, one, other))
    if isinstance(one, sympy.Expr) and isinstance(other, sympy.Expr):
        if isinstance(one, sympy.MatrixExpr) or isinstance(other, sympy.MatrixExpr):
            return False
        return any(told_apart(one, other, values) for values in points(one, other))
    if isinstance(one, sympy.Interval) and isinstance(other, sympy.Interval):
        return differ(one.start, other.start) or differ(one.end, other.end)
    if isinstance(one, sympy.FiniteSet) and isinstance(other, sympy.FiniteSet):
        return len(one) == len(other) == 1 and any(map(differ, one, other))
    if isinstance(one, sympy.Eq) and isinstance(other, sympy.Eq):
        return different_equations(one, other)
    return False


def points(*formulas):
    import sympy
    letters = sorted(set().union(*(formula.free_symbols for formula in formulas)), key=str)
    found = []
    for point in POINTS:
        shifted = [sympy.Rational(point) + sympy.Rational(i, 7) for i in range(len(letters))]
        found.append(dict(zip(letters, shifted)))
    return found if letters else found[:1]


def told_apart(one, other, values):
    import sympy
    a, b = sympy.sympify(one).subs(values), sympy.sympify(other).subs(values)
    if a == b:
        return False
    # each for itself: a difference of nought is looked for through ever more digits
    a, b = a.evalf(PLACES + 10), b.evalf(PLACES + 10)
    gap, size = a - b, abs(a) + abs(b)
    if not gap.is_number or not size.is_number or not gap.is_finite or not size.is_finite:
        return False
    return bool(abs(gap) > size * sympy.Rational(1, 10 ** PLACES))


def different_equations(one, other):
    import sympy
    ratios = []
    for values in points(one.lhs - one.rhs, other.lhs - other.rhs):
        a = (one.lhs - one.rhs).subs(values).evalf(PLACES + 10)
        b = (other.lhs - other.rhs).subs(values).evalf(PLACES + 10)
        if not a.is_number or not b.is_number or b == 0:
            return False
        ratios.append(a / b)
    # 0 = x(x - 1) has the solutions of x^2 = x, and a constant ratio
    if any(len(side.free_symbols) < 1 for side in (one, other)):
        return False
    gap = abs(ratios[0] - ratios[-1])
    return bool(gap.is_number and gap > abs(ratios[0]) * sympy.Rational(1, 10 ** (PLACES - 10)))


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
