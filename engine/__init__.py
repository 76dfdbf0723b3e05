"""What makes the method fast, parallel and resumable, and holds none of it: equal by test."""
import sys


def say_stopped(kind, error, trace, usual=sys.excepthook):
    """Ctrl-C where nothing catches it, above all in the seconds that torch's import takes, is a
    line and not a traceback; the exit code stays SIGINT's."""
    if issubclass(kind, KeyboardInterrupt):
        print("\nstopped", file=sys.stderr)
    else:
        usual(kind, error, trace)


# here, since every command imports this package first
sys.excepthook = say_stopped
