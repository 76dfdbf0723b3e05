"""Work that can be interrupted: finished pieces in a file, found again by what tells them apart."""
import hashlib
import json
import os
from pathlib import Path


class Finished:
    """Pieces of finished work, appended to a JSONL as {"key", ...}; with path None in memory only.

    The line that a killed process left half-written is passed over, and done again.
    """

    def __init__(self, path):
        self.path = path
        self.records = {}
        if not path or not os.path.exists(path):
            return
        for line in Path(path).read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                record = json.loads(line)
                self.records[record.pop("key")] = record
            except (ValueError, TypeError, KeyError, AttributeError):
                continue

    def get(self, key):
        return self.records.get(key)

    def add(self, records):
        """{key: record} -> on disk, whole lines at once."""
        self.records.update(records)
        if not self.path:
            return
        lines = []
        for key, record in records.items():
            lines.append(json.dumps({"key": key, **record}, ensure_ascii=False))

        with open(self.path, "ab+") as f:
            f.seek(max(0, f.tell() - 1))
            torn = f.read(1) not in (b"", b"\n")
            f.write(("\n" * torn + "\n".join(lines) + "\n").encode("utf-8"))
            f.flush()
            os.fsync(f.fileno())


def digest(*words):
    """Anything with a repr that tells it apart -> the key of a piece of work."""
    text = repr(words).encode("utf-8", "replace")
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def model_stamp(path):
    """What tells a model from one that later lies in the same folder; a run is bound by content, by
    run_folder.model_fingerprint.

    The names, sizes and times of its files; a hub id stands for itself.
    """
    files = [f for f in Path(path).iterdir() if f.is_file()] if os.path.isdir(path) else []
    return path, sorted((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files)
