"""A long run is watched: its memory, its open files and what it leaves in shared memory stay flat.

What grows by a little in each iteration ends a run of days on its last one.
"""
import statistics
import time
from pathlib import Path

from . import runs

# of the medians of two halves, the first tenth being left out: while caches fill
MORE_MEMORY = 1.03


def run(tally, seed, long, folder):
    iterations = 150 if long else 12
    words = [*runs.world(folder), "--iterations", str(iterations), "--seed", str(seed)]
    path = Path(folder) / "long"
    process = runs.begin(words, path)
    seen = []
    while process.is_alive() and (now := measured(process.pid)):
        seen.append(now)
        time.sleep(0.2)
    if runs.ended(process):
        tally.add("traceback", "a long run", runs.output(path))
        return
    for name, most in (("memory", MORE_MEMORY), ("open files", 1), ("shared memory", 1)):
        early, late = halves([now[name] for now in seen])
        what = f"{name} in {iterations} iterations: {early:,.0f}, then {late:,.0f}"
        tally.add("right" if late <= most * early else "loss", what)
    lines = (path / "metrics.jsonl").read_text().splitlines()
    tally.add("right" if len(lines) == iterations else "loss", "its log", f"{len(lines)} lines")


def measured(pid):
    """-> {what: how much}, in KB where it is memory; None: the process has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except (OSError, StopIteration):
        return None
    return {"memory": int(resident.split()[1]), "open files": files,
            "shared memory": len(list(Path("/dev/shm").glob(f"*_{pid}_*")))}


def halves(values):
    """-> the medians of the two halves."""
    values = values[len(values) // 10:]
    middle = len(values) // 2
    return statistics.median(values[:middle]), statistics.median(values[middle:])
