"""All that is not the method: command lines, files, answer checks, sampling, packing, ranks,
checkpoints, logs, the report page. docs/files.md says which file does what.

What is faster or parallel equals the plain way by test. This file itself makes Ctrl-C one line
while a command is still importing torch.
"""
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def say_stopped(kind, error, trace, usual=sys.excepthook):
    """Ctrl-C where nothing of a command catches it, above all in the seconds that torch's import
    takes, is a line and not a traceback; the exit code stays SIGINT's. Other people's scripts that
    import this package see what they always see."""
    command = getattr(sys.modules["__main__"], "__file__", None) or ""
    if issubclass(kind, KeyboardInterrupt) and os.path.abspath(command).startswith(ROOT + os.sep):
        print("\nstopped", file=sys.stderr)
    else:
        usual(kind, error, trace)


# here, since every command imports this package first
sys.excepthook = say_stopped
