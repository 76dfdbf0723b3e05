"""Checks free-form answers: does the solver's box mean the same as the reference?

    r = 1   if   answer == truth, as text or as mathematics ("0.5", "1/2" and "\\frac{1}{2}" are the same answer)

math-verify decides, and it runs computer algebra on whatever a language model wrote. 9^{9^9} keeps it busy for hours, inside one call that
no Python signal can interrupt. So it works in a process of its own, which is killed when an answer takes too long. That process is this
file run as a script; it starts with the first answer that needs it, serves the next ones, and is replaced if it was killed or crashed.

    verdict   meaning
    True      equal
    False     not equal, or nothing there to compare
    None      unknown: the check timed out or crashed. Never a 0: the caller counts it and leaves the question out of the update

math-verify's own timers are switched off: they use SIGALRM, which does not reach compiled code, and turn a time-out into "not equal".
What it cannot read, or has no memory for, it calls not equal. For Linux and macOS: pipes are watched in a way that Windows does not offer.
"""
import json
import multiprocessing.connection
import os
import resource
import signal
import subprocess
import sys

MAX_CHARS = 2_000         # our own choice: a longer text is not the final answer to anything, and counts as not equal
START_SECONDS = 120       # importing sympy on a busy machine; not part of the time limit of an answer
MEMORY_BYTES = 4 << 30    # address space of the worker, so that a huge number cannot take the machine's memory


class Verifier:
    """with Verifier(seconds=5) as verifier: verdicts = verifier.check([(answer, truth), ...])

    seconds: the limit for one pair. timeouts, crashes: how many checks ended in None, and why, since the verifier was made.
    """

    def __init__(self, seconds=5.0):
        self.seconds, self.timeouts, self.crashes = seconds, 0, 0
        self.process = None

    def check(self, pairs):
        """[(answer or None, truth)] -> [True, False or None]; None: timed out or crashed, which the caller counts and never takes for a 0.

        Equal texts need no worker. The same pair is checked once, however many of the m answers agree on it.
        Raises RuntimeError if the worker cannot start at all, as when math-verify is missing.
        """
        verdicts = {pair: self.check_one(*pair) for pair in dict.fromkeys(pairs)}
        return [verdicts[pair] for pair in pairs]

    def check_one(self, answer, truth):
        if answer is None:
            return False
        answer, truth = " ".join(answer.split()), " ".join(truth.split())
        if answer == truth or not answer or not truth or max(len(answer), len(truth)) > MAX_CHARS:
            return answer == truth
        return self.ask(answer, truth)

    def ask(self, answer, truth):
        """The worker's verdict, or None if it is killed at the time limit or dies."""
        if self.process is None or self.process.poll() is not None:   # none yet, or it died between two answers
            self.start()
        try:
            self.process.stdin.write(json.dumps([answer, truth, self.seconds]).encode() + b"\n")
            in_time = multiprocessing.connection.wait([self.process.stdout], self.seconds)
            reply = self.process.stdout.readline() if in_time else None
        except BrokenPipeError:
            reply = b""
        except BaseException:   # Ctrl-C: a reply that is still on its way must not be taken for the next answer's
            self.close()
            raise
        if reply in (b"0\n", b"1\n"):
            return reply == b"1\n"
        self.timeouts += reply is None
        self.crashes += reply is not None
        self.close()
        return None

    def start(self):
        # A session of its own: Ctrl-C stops the training script, and the worker ends when its input closes.
        self.close()
        self.process = subprocess.Popen([sys.executable, os.path.abspath(__file__)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, bufsize=0, start_new_session=True)
        ready = multiprocessing.connection.wait([self.process.stdout], START_SECONDS) and self.process.stdout.readline()
        if ready != b"ready\n":
            self.close()
            raise RuntimeError(f"the process that checks free-form answers did not start; try: {sys.executable} -c 'import math_verify'")

    def close(self):
        """Ends the worker. The verifier stays usable: the next answer that needs a worker starts one."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()
            self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


# ---------------------------------------------------------------- inside the worker

def worker():
    """Reads [answer, truth, seconds] per line, writes 1 or 0 per line, until its input closes."""
    replies = os.fdopen(os.dup(1), "w")
    sys.stdout = sys.stderr                                             # whatever a library prints must not pass for a reply
    limit_memory()
    from math_verify import parse, verify
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        answer, truth, seconds = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, 2 * seconds + 1)           # if the parent is gone: an unhandled SIGALRM kills, wherever we are
        gold, target = (parse(rf"\boxed{{{text}}}", parsing_timeout=None) for text in (truth, answer))
        equal = verify(gold, target, timeout_seconds=None)              # reference first: the order matters for relations and sets
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(int(equal), file=replies, flush=True)


def limit_memory():
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    except (ValueError, OSError):                                       # macOS refuses, and so does a lower limit that is already set
        pass                                                            # the time limit still holds


if __name__ == "__main__":
    worker()
