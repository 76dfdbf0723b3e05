"""How a run ends that does not reach its end: one line on stderr and an exit code.

    2       what was asked for cannot be done; a full disk; no memory; a closed pipe
    130     Ctrl-C
    1       another rank died
    143     SIGTERM

Whatever it is, the newest checkpoint is whole, and --resume goes on from there.
"""
import os
import sys

from data import InputError
from engine import ranks, room
from engine.speech import line_of


def say(error, cfg):
    """What ended the run with this Config -> exit code, its line being said; None: a surprise."""
    if isinstance(error, InputError):
        ranks.refuse(str(error))
        return 2
    if isinstance(error, KeyboardInterrupt):
        if ranks.is_main():
            print(f"\nstopped. {go_on(cfg)}", file=sys.stderr)
        return 130
    memory = room.out_of_memory(error, cfg)
    if memory:
        line, less = memory
        ranks.refuse(f"{line}. {go_on(cfg, less)}")
        if ranks.world() > 1:
            # a clean exit would wait for collectives that will not come
            os._exit(2)
        return 2
    line = line_of(error)
    if line:
        ranks.refuse(f"{line}. {go_on(cfg)}")
        return 2
    # another rank's death shows as an error of any kind
    dead = ranks.silent()
    if dead:
        ranks.say_dead(dead, go_on(cfg))
        # a clean exit would wait for the dead
        os._exit(1)
    return 143 if isinstance(error, ranks.Terminated) else None


def go_on(cfg, less=""):
    """What to type next. less: flags that have to be added."""
    how = "torchrun ..." if ranks.world() > 1 else "python"
    run = getattr(cfg, "run", None)
    if not run or not os.path.exists(os.path.join(run, "config.json")):
        more = f" and {less}" if less else ""
        return f"Nothing was begun; start again with the same command{more}"
    return f"Go on from the newest checkpoint with: {how} train.py --resume {run} {less}".rstrip()
