"""A tiny run of train.py in a process of its own, and whether two of them ended the same."""
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from safetensors.torch import load_file

import fakes
import train
from engine import checkpoint, flags, log

SIZES = dict(
    docs_per_step=2, questions_per_doc=4, answers_per_question=4, minibatch_rows=8, iterations=3,
    eval_every=2, show_every=0, threads=1, solver_lr=1e-3, generator_lr=1e-3, dev_ema=0.5,
    max_response_tokens=32)
# nobody's run takes so long, however busy the machine is
LONGEST = 240
MODULES = {"os": os, "log": log.Log, "checkpoint": checkpoint, "train": train}


def world(folder):
    """Flags of a run on a few notes and questions, which lie in `folder`."""
    return fakes.small_world(Path(folder), SIZES, documents=12, dev=12, test=6)


# ---------------------------------------------------------------- a process of its own

def main(words, output, changes):
    """train.py in this process. changes: what else is other here, see `start`."""
    with open(output, "a") as f:
        # through another process, whose files have no limit
        through = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=f)
        to = through.stdin if "largest" in changes else f
        os.dup2(to.fileno(), 1)
        os.dup2(to.fileno(), 2)
        through.stdin.close()
    # anew: those that were inherited remember the place in another file
    sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))
    # as a shell starts it: the server that this process was forked from ignores it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(changes.get("environment", {}))
    if "largest" in changes:
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (changes["largest"], resource.RLIM_INFINITY))
    if "user" in changes:
        os.setuid(changes["user"])
    if "die" in changes:
        dies(*changes["die"])
    if "wait" in changes:
        waits(*changes["wait"])
    sys.argv = ["train.py", *map(str, words)]
    sys.exit(train.main(flags.from_command_line()))


def dies(module, function, n, by=signal.SIGKILL):
    """The n-th call of module.function sends this process the signal first."""
    original, calls = getattr(MODULES[module], function), []

    def deadly(*args, **kwargs):
        calls.append(1)
        if len(calls) == n:
            os.kill(os.getpid(), by)
        return original(*args, **kwargs)

    setattr(MODULES[module], function, deadly)


def waits(module, function, here, go):
    """The first call of module.function writes the file `here`, and goes on once there is `go`."""
    original = getattr(MODULES[module], function)

    def patient(*args, **kwargs):
        Path(here).touch()
        wait_until(Path(go).exists)
        return original(*args, **kwargs)

    setattr(MODULES[module], function, patient)


def wait_until(there, seconds=LONGEST):
    """-> did it come to be."""
    end = time.monotonic() + seconds
    while not there() and time.monotonic() < end:
        time.sleep(0.01)
    return there()


def start(words, run, **changes):
    """-> the process. die, wait: the arguments of dies and waits; largest: bytes of a file; user: a
    number; environment: {name: value}.
    """
    return fakes.start_apart(main, list(words), f"{run}.output", changes)


def begin(words, run, **changes):
    """Start or resume, whichever the folder asks for."""
    config = Path(run) / "config.json"
    resumed = config.exists() and config.stat().st_size
    words = ["--resume", run] if resumed else [*words, "--run", run]
    return start(words, run, **changes)


def ended(process, seconds=LONGEST):
    """-> its exit code, or None: it had to be killed."""
    process.join(seconds)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
    return code


def output(run):
    path = Path(f"{run}.output")
    # what is still on its way
    time.sleep(0.2)
    return path.read_text(errors="replace") if path.exists() else ""


def ranks_of(words, run, victim=None, **changes):
    """The same on two ranks -> their processes. changes: of the victim alone."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    processes = []
    for rank in range(2):
        environment = dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2",
                           LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        mine = changes if rank == victim else {}
        processes.append(begin(words, run, environment=environment, **mine))
    return processes


# ---------------------------------------------------------------- did it end the same

def ending(run):
    """All that a run leaves behind, but for the clock and the memory -> {name: bytes or value}."""
    run, found = Path(run), {}
    for i, text in enumerate((run / "metrics.jsonl").read_text().splitlines()):
        line = json.loads(text)
        found[f"metrics {i}"] = {name: value for name, value in line.items()
                                 if name not in ("seconds", "peak_memory_mb")}
    for name in ("questions.jsonl", "solver/model.safetensors", "generator/model.safetensors"):
        found[name] = (run / name).read_bytes()
    # by tensor: the order of a file's header is left to chance
    for path in sorted((run / "checkpoint").glob("*/*.safetensors")):
        for name, tensor in load_file(path).items():
            found[f"{path.parent.name} {path.name} {name}"] = tensor.numpy().tobytes()
    return found


def differences(run, other):
    """-> names of what is not the same, or is there in one alone."""
    try:
        one, two = ending(run), ending(other)
    except (OSError, ValueError) as error:
        return [str(error)]
    return [name for name in {**one, **two} if one.get(name) != two.get(name)]


def verdict(tally, what, words, run, undisturbed, said=""):
    """Lets a disturbed run end, and adds whether it ended like the undisturbed one."""
    code = ended(begin(words, run))
    text = output(run)
    if code is None:
        tally.add("hang", what, text)
    elif code != 0 or "Traceback" in text:
        tally.add("traceback", what, f"{said} exit code {code}: {text}")
    else:
        differ = differences(run, undisturbed)
        tally.add("loss" if differ else "right", what, f"{said} other: {differ[:5]}")
