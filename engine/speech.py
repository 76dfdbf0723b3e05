"""What a command says to its user: one line for what went wrong, in letters a terminal takes.

    sys.exit(run_script(main))      the end of every script

| what happened | what is said | exit code |
|---|---|---|
| an InputError, a full disk, a closed pipe | its one line, `error: ...` | 2 |
| Ctrl-C | the script's line for it | 130 |
| a surprise | the whole traceback, so that it is seen | 1 |
"""
import errno
import os
import re
import sys

from data import InputError


def run_script(main, stopped=None):
    """What main() returns; an InputError, a full disk or a closed pipe is its one line and exit
    code 2.

    Ctrl-C is the line `stopped`, if there is one, and exit code 130.
    """
    take_all_letters()
    try:
        return main()
    except Exception as error:
        line = line_of(error)
        if line is None:
            raise
        complain(line)
        sys.exit(2)
    except KeyboardInterrupt:
        if stopped is None:
            raise
        print(f"\n{stopped}", file=sys.stderr)
        sys.exit(130)


# ---------------------------------------------------------------- what is said, and to whom

# Nothing of ours is wrong: the place to write to is full, closed or not for us.
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM,
              errno.EIO, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
# What safetensors says where Python would say one of these.
IN_WORDS = re.compile(r"\(os error (\d+)\)")


def line_of(error):
    """What ended a script -> its line, or None for a surprise, which should be seen whole.

    A closed pipe, and what the system says of a file that cannot be read or written.
    """
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, BrokenPipeError):
        hush()
        return "nobody reads what this prints any more (closed pipe), so it has ended"
    in_words = IN_WORDS.search(str(error))
    number = int(in_words[1]) if in_words else getattr(error, "errno", None)
    if number not in UNWRITABLE:
        return None
    where = getattr(error, "filename", None) or "nothing more can be written"
    return f"{where}: {os.strerror(number)}"


def hush():
    """Whatever is printed from here on goes nowhere: at its end Python would try once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        try:
            os.write(number, b"")
            (sys.stdout, sys.stderr)[number - 1].flush()
        except OSError:
            os.dup2(nowhere, number)


def complain(line):
    """One line on stderr, if anybody reads it."""
    try:
        print(f"error: {one_line(line)}", file=sys.stderr, flush=True)
    except OSError:
        hush()


def take_all_letters():
    """A letter that the terminal's encoding lacks is printed as its number and ends nothing; nor
    does a terminal that is not there.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


# ---------------------------------------------------------------- texts of others in a line

def one_line(text):
    r"""The same in one line, and safe for a terminal: what is no visible character is escaped.

    >>> one_line("naïve\x1b[2J\n")
    'naïve\\x1b[2J\\n'
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shorten(value, width=80):
    """One line of at most width characters, for messages; nothing in it moves the cursor."""
    text = one_line(" ".join(str(value).split())[:width + 1])
    return text if len(text) <= width else text[:width - 3] + "..."
