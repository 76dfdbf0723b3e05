"""math-verify as others run it: its defaults, on the whole answer; a guest.

    with MathVerify() as checker: checker.check([(text, truth), ...]) -> [True, False or None]

engine/verify.py is stricter, and reads the last box alone. This one is here to be compared with it,
and with published numbers. math-verify takes out of a text what it holds for the answer, and calls
a comparison that took over 5 seconds not equal; both are its defaults.

It runs in a process of its own, this file as a script, which is ended where it hangs: the verdict
is then None, unknown.
"""
import json
import resource
import select
import subprocess
import sys

# Beyond math-verify's own limits, which a call into compiled code outlives.
SECONDS = 60
MEMORY_BYTES = 1 << 31


class MathVerify:
    def __init__(self, seconds=SECONDS):
        self.seconds = seconds
        self.process = None

    def check(self, pairs):
        """[(whole text of an answer, truth)] -> [True, False, or None where it hung or crashed].

        Raises RuntimeError if math-verify cannot be imported.
        """
        verdicts = {pair: None for pair in pairs}
        for pair in verdicts:
            verdicts[pair] = self.check_one(pair)
        return [verdicts[pair] for pair in pairs]

    def check_one(self, pair):
        if self.process is None:
            self.start()
        try:
            self.process.stdin.write(json.dumps(pair).encode() + b"\n")
            reply = self.reply(self.seconds)
        except BrokenPipeError:
            reply = b""
        if reply not in (b"0\n", b"1\n"):
            self.close()
            return None
        return reply == b"1\n"

    def start(self):
        # as in engine/verify.py: nothing of this folder is imported, and Ctrl-C is not its own
        self.process = subprocess.Popen(
            [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, bufsize=0, start_new_session=True)
        if self.reply(120) != b"ready\n":
            self.close()
            raise RuntimeError("math-verify did not start; "
                               f"try: {sys.executable} -c 'import math_verify'")

    def reply(self, seconds):
        """Its next line, or b"" if that takes too long."""
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        return self.process.stdout.readline() if ready else b""

    def close(self):
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


# ---------------------------------------------------------------- the process

def work():
    """Reads [text, truth] per line and writes 1 or 0 per line, until its input closes."""
    replies, sys.stdout = sys.stdout, sys.stderr
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    except (ValueError, OSError):
        # macOS refuses
        pass
    equal("1", "1")
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        print(int(equal(*json.loads(line))), file=replies, flush=True)


def equal(text, truth):
    from math_verify import parse, verify
    # a reference is LaTeX, and found as such between dollars
    gold = parse(truth if "$" in truth or "\\boxed" in truth else f"${truth}$")
    return bool(verify(gold, parse(text)))


if __name__ == "__main__":
    work()
