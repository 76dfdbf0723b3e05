"""Disks that are full, folders that cannot be written, two runs in one folder.

Each ends in one line and exit code 2, or right; and once there is room again, the run goes on to
what it would have been. A full disk is a limit on the size of every file, and where this may be
mounted a small tmpfs.
"""
import os
import shutil
import subprocess
import sys
from pathlib import Path

from . import mutators, runs

NOBODY = 65534


def run(tally, seed, long, folder):
    folder = Path(folder)
    os.chmod(folder, 0o755)
    words = runs.world(folder)
    whole = folder / "whole"
    assert runs.ended(runs.begin(words, whole)) == 0, runs.output(whole)
    largest = max(x.stat().st_size for x in whole.glob("checkpoint/*/*"))

    read_only(tally, words, folder)
    mounted(tally, seed, long, words, whole, folder)
    for i in range(30 if long else 1):
        rng, path = mutators.seeded(seed, "disk", i), folder / f"full-{i}"
        # sizes of logs, of a model, of a checkpoint, and everything between
        limit = int(2 ** rng.uniform(6, largest.bit_length()))
        disturbed(tally, f"{i}: no file beyond {limit} bytes", words, path, whole, largest=limit)
    for i in range(6 if long else 1):
        two_at_once(tally, seed, i, words, whole, folder)


def disturbed(tally, what, words, path, whole, **changes):
    """A run with these changes is one line; without them it goes on."""
    process = runs.begin(words, path, **changes)
    code = runs.ended(process)
    text = runs.output(path)
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    if code is None:
        tally.add("hang", what, text)
    elif code not in (0, 2) or "Traceback" in text or code == 2 and len(errors) != 1:
        tally.add("traceback", what, f"exit code {code}: {text}")
    else:
        tally.add("right" if code == 0 else "one line", what)
        Path(f"{path}.output").write_text("")
        runs.verdict(tally, f"{what}, gone on", words, path, whole)


def read_only(tally, words, folder):
    """A folder that is not ours, for train.py and for the other scripts."""
    locked = folder / "locked"
    locked.mkdir(mode=0o555)
    as_user = dict(user=NOBODY) if os.getuid() == 0 else {}
    for what, path in (("a run in a read-only folder", locked / "run"),
                       ("a run is a read-only folder", locked)):
        # the output lies beside the run, where this may not be written either
        output = folder / f"{what}.output"
        output.touch()
        os.chmod(output, 0o666)
        process = runs.fakes.start_apart(runs.main, [*words, "--run", str(path)], str(output),
                                         as_user)
        code, text = runs.ended(process), output.read_text()
        one = code == 2 and text.count("error: ") == 1 and "Traceback" not in text
        tally.add("one line" if one else "traceback", what, f"exit code {code}: {text}")


def mounted(tally, seed, long, words, whole, folder):
    """A tmpfs with less room than the run takes, of several sizes."""
    for i in range(6 if long else 1):
        place = folder / f"mount-{i}"
        place.mkdir()
        size = (100, 700, 2000, 6000, 12_000, 20_000)[i]
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True).returncode:
            print("no tmpfs may be mounted here, so full disks are file limits alone",
                  file=sys.stderr)
            return
        try:
            on_a_small_disk(tally, size, words, place, whole)
        finally:
            subprocess.run(["umount", "-l", str(place)], capture_output=True)


def on_a_small_disk(tally, size, words, place, whole):
    what = f"a disk of {size} kB"
    output = place.parent / f"{place.name}.output"
    process = runs.fakes.start_apart(runs.main, [*words, "--run", str(place / "run")],
                                     str(output), {})
    code, text = runs.ended(process), output.read_text()
    if code is None:
        tally.add("hang", what, text)
    elif code == 0:
        tally.add("right" if not runs.differences(place / "run", whole) else "loss", what)
    elif code != 2 or text.count("error: ") != 1 or "Traceback" in text:
        tally.add("traceback", what, f"exit code {code}: {text}")
    else:
        tally.add("one line", what)
        # moved to where there is room, it goes on
        moved = place.parent / f"{place.name}-moved"
        if (place / "run").exists():
            shutil.copytree(place / "run", moved)
        runs.verdict(tally, f"{what}, gone on elsewhere", words, moved, whole)


def two_at_once(tally, seed, i, words, whole, folder):
    """Of two that go on with one run, the second is refused; what they wrote is that of one.

    The first waits with the folder in its hands until the second has ended: else, on a busy
    machine, it may be done before the second asks.
    """
    rng, path = mutators.seeded(seed, "two", i), folder / f"two-{i}"
    runs.ended(runs.begin(words, path, die=("log", "append", rng.choice([3, 5]))))
    here, go = folder / f"two-{i}.here", folder / f"two-{i}.go"
    first = runs.begin(words, path, wait=("train", "resume", str(here), str(go)))
    runs.wait_until(here.exists)
    second = runs.ended(runs.begin(words, path))
    go.touch()
    codes = [runs.ended(first), second]
    text = runs.output(path)
    if codes != [0, 2] or text.count("error: ") != 1 or "Traceback" in text:
        tally.add("traceback", f"{i}: two at once", f"exit codes {codes}: {text}")
        return
    differ = runs.differences(path, whole)
    tally.add("loss" if differ else "one line", f"{i}: two at once", str(differ[:5]))
