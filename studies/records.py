"""One JSON file remembers every finished run of a study, so that nothing else has to be kept.

    records = Records("race.json")      what it holds, if it is there
    records.add(job, record)            one run more: written at once, whole or not at all
    records.of(job)                     the job's record, or None if it has yet to run

The file alone, copied to another machine, is enough to go on: a run that it holds is not repeated.

    in the file     meaning
    frozen          the commit of a reported study (frozen.py)
    runs            {key: record}; all else is computed from them

    in a record
    flags           settings of train.py that were given: what differs from the defaults
    commit, cpu, date
    evaluated       iterations after which the test set was asked; 0: the anchor
    test_accuracy   one number for each of those
    tokens          response tokens until then: sampled and trained on, without the test answers
    seconds         seconds until then on one thread, without tests and checkpoints
    dev_accuracy, key_accuracy, target_share, valid_share, solved_share     one for each iteration
    hours           of one core, the tests included
    moved           distance of the generator's weights from where they began
"""
import json
import os
import platform
import re
import time
from pathlib import Path

from data import InputError
from engine.outputs import write_whole

CURVES = ("dev_accuracy", "key_accuracy", "target_share", "valid_share", "solved_share")


class Records:

    def __init__(self, path):
        self.path = Path(path)
        self.seen = stamp(self.path)
        self.found = read_json(self.path, {"runs": {}})
        if not isinstance(self.found, dict) or not isinstance(self.found.get("runs"), dict):
            raise InputError(f"{path}: holds no runs, expected a file that this study wrote")

    @property
    def runs(self):
        return self.found["runs"]

    def of(self, job):
        """-> the record, or None. InputError if what is recorded is another run."""
        record = self.runs.get(job.key)
        if record is None:
            return None
        for name in {*record["flags"], *job.flags}:
            asked, ran = place(job.flags.get(name)), place(record["flags"].get(name))
            if asked != ran:
                raise InputError(f"{self.path}: {job.key} was run with {name} {ran}, not {asked}; "
                                 "give another --file")
        return record

    def left(self, jobs):
        return [job for job in jobs if self.of(job) is None]

    def add(self, job, record):
        self.runs[job.key] = record
        self.save()

    def save(self, **more):
        self.found |= more
        if stamp(self.path) != self.seen:
            raise InputError(f"{self.path}: something else has written it since this study read "
                             "it, so it stays as it is; the same command goes on from it")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.found)
        self.seen = stamp(self.path)

    def seconds_per_iteration(self):
        """-> a number for each run that this kind of machine has made."""
        mine = [x for x in self.runs.values() if x["cpu"] == cpu()]
        return [3600 * x["hours"] / x["evaluated"][-1] for x in mine]


def stamp(path):
    """What changes when a file is written: None where there is none."""
    if not path.exists():
        return None
    found = path.stat()
    return found.st_mtime_ns, found.st_ino, found.st_size


def place(value):
    """Of a path the last two parts count, since folders differ from machine to machine.

    >>> place("/a/toy/dev.json") == place("/b/toy/dev.json"), place(5)
    (True, 5)
    """
    return "/".join(Path(value).parts[-2:]) if isinstance(value, str) else value


def record_of(job, lines, commit):
    """A finished job, its metrics.jsonl, its commit -> its record."""
    evaluated = [line for line in lines if line["test_accuracy"] is not None]
    tokens, seconds = [0], [0.0]
    total = dict(tokens=0, seconds=0.0)
    for line in lines:
        tested = line.get("tokens_tested", 0)
        total["tokens"] += line["tokens_sampled"] - tested + line["tokens_trained"]
        total["seconds"] += sum(spent for stage, spent in line["seconds"].items()
                                if stage not in ("evaluate", "checkpoint"))
        if line["test_accuracy"] is not None:
            tokens.append(total["tokens"])
            seconds.append(round(total["seconds"], 1))

    accuracy = [lines[0]["test_accuracy_anchor"], *[line["test_accuracy"] for line in evaluated]]
    record = {
        # what of a path is compared, and nothing of this machine's
        "flags": {name: place(value) for name, value in job.flags.items()},
        "commit": commit,
        "cpu": cpu(),
        "date": time.strftime("%Y-%m-%d"),
        "hours": round(sum(sum(line["seconds"].values()) for line in lines) / 3600, 4),
        "evaluated": [0, *[line["iteration"] for line in evaluated]],
        "test_accuracy": [rounded(x) for x in accuracy],
        "tokens": tokens,
        "seconds": seconds,
    }
    for name in CURVES:
        record[name] = [rounded(line.get(name)) for line in lines]
    return record


def rounded(value):
    return None if value is None else round(value, 5)


def cpu():
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    name = re.search(r"^model name\s*: (.*)", text, re.M)
    return name[1] if name else platform.processor() or platform.machine()


# ---------------------------------------------------------------- JSON and pages

def read_json(path, otherwise=None):
    if not os.path.exists(path):
        return otherwise
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(f"{path}: is not JSON, expected a file that this study wrote") from None


def write_json(path, content):
    """Indented JSON with the innermost lists on one line, whole or not at all."""
    text = json.dumps(content, indent=1)
    text = re.sub(r"\[[^\[\]{}]*\]", lambda part: " ".join(part[0].split()), text)
    write_whole(path, text + "\n")


def fill_page(page, name, text):
    """Put text between <!-- name --> and <!-- end of name --> of a page -> was there such a place?

    The numbers of a page come from its command this way, never from a hand.
    """
    page = Path(page)
    before = page.read_text(encoding="utf-8") if page.exists() else ""
    first, last = f"<!-- {name} -->", f"<!-- end of {name} -->"
    if first not in before or last not in before:
        return False
    head, _, rest = before.partition(first)
    _, _, tail = rest.partition(last)
    page.write_text(f"{head}{first}\n\n{text.strip()}\n\n{last}{tail}", encoding="utf-8")
    return True
