"""From which code do numbers come? A reported study runs one commit of main's history, unchanged.

    commit()                   what is noted beside every run: a hash, and whether files differ
    freeze(recorded, where)    the commit a reported study runs; InputError, in one line, if files
                               differ from it, if main does not have it, or if it was begun with
                               other code

Frozen is what can move a number: everything that trains, the world, and the plan and the measure
of the studies. A commit that only adds results or pages is no other code.
"""
import subprocess

import config
from data import InputError

CODE = (":(top,glob)*.py", "engine", "toy", "prompts",
        "studies/race.py", "studies/regimes.py", "studies/standings.py")


def git(*words):
    """-> what git says, or None if it refuses or is not there."""
    try:
        done = subprocess.run(["git", "-C", str(config.ROOT), *words], capture_output=True,
                              text=True)
    except FileNotFoundError:
        return None
    return None if done.returncode else done.stdout.strip()


def commit():
    """-> the short hash of the code, with ", changed" if it or a study is not that commit's;
    "unknown" without git."""
    head = git("rev-parse", "--short=10", "HEAD")
    if not head:
        return "unknown"
    return head + (", changed" if git("status", "--porcelain", "--", *CODE, "studies") else "")


def freeze(recorded, where):
    """The commit that the file `where` recorded, or None if it is new -> the one to record."""
    head = git("rev-parse", "--short=10", "HEAD")
    if not head:
        raise InputError(f"{where}: reported runs need a commit, and this is no git repository; "
                         "for a trial give another --file")
    changed = git("status", "--porcelain", "--", *CODE)
    if changed:
        name = changed.splitlines()[0].split()[-1]
        raise InputError(f"{name}: differs from commit {head}; reported runs need a clean tree, "
                         f"so commit it, or give another --file than {where} for a trial")

    frozen = recorded or head
    if not in_main(frozen):
        raise InputError(f"{where}: commit {frozen} is not in the history of main, where anybody "
                         "could find it; for a trial give another --file")
    moved = git("diff", "--name-only", frozen, "HEAD", "--", *CODE)
    if moved:
        name = moved.splitlines()[0]
        raise InputError(f"{name}: has changed since {frozen}, the frozen code of {where}; "
                         f"go on in its own checkout: git worktree add ../frozen {frozen}")
    return frozen


def in_main(commit):
    """Is the commit in the history of main, here or at origin?"""
    return any(git("merge-base", "--is-ancestor", commit, branch) is not None
               for branch in ("main", "origin/main"))
