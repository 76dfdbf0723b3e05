"""Where results will be written is looked at before anything is computed, and written whole.

    file_to_write("--json", path, read)    InputError unless a file can be written there, and it is
                                           none of those that are read
    folder_to_write("--out", path, read)   the same for a folder
    whole(folder)                          with whole(folder) as part: what is saved in `part` is in
                                           `folder` once all of it is there
    write_whole(path, text)                a text file, all of it or, whatever happens, none
    pyplot("--figure")                     matplotlib, a guest; InputError without it
"""
import contextlib
import os
import shutil
import tempfile

from data import InputError


def file_to_write(flag, path, read=()):
    if os.path.isdir(path):
        raise InputError(f"{flag} {path}: is a folder, expected a file to write")
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"{flag} {path}: is a pipe or a device, expected a file to write")
    refuse_read(flag, path, read)
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise InputError(f"{flag} {path}: its folder does not exist")
    refuse_unwritable(flag, path, path if os.path.exists(path) else folder)


def folder_to_write(flag, path, read=()):
    refuse_read(flag, path, read)
    # as much of it as is there
    there = os.path.abspath(path)
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        what = "is a file" if there == os.path.abspath(path) else f"{there} is a file"
        raise InputError(f"{flag} {path}: {what}, expected a folder to write")
    refuse_unwritable(flag, path, there)


def refuse_read(flag, path, read):
    for other in read:
        if os.path.exists(path) and os.path.exists(other) and os.path.samefile(path, other):
            raise InputError(f"{flag} {path}: would be written over {other}, which is read; give "
                             "another name")


def refuse_unwritable(flag, path, there):
    # tried, since permissions alone do not tell of /proc, a full disk or a read-only one
    try:
        if os.path.isdir(there):
            with tempfile.TemporaryFile(dir=there) as f:
                f.write(b"x")
        else:
            with open(there, "ab"):
                pass
    except OSError as error:
        raise InputError(f"{flag} {path}: {there} cannot be written "
                         f"({error.strerror})") from None


def write_whole(path, text):
    unfinished = f"{path}.part"
    with open(unfinished, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


@contextlib.contextmanager
def whole(folder):
    """-> an empty folder beside it; its files replace those of the same name at the end."""
    part = f"{os.path.abspath(folder)}.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        os.makedirs(part)
        yield part
        os.makedirs(folder, exist_ok=True)
        for name in sorted(os.listdir(part)):
            os.replace(os.path.join(part, name), os.path.join(folder, name))
    finally:
        shutil.rmtree(part, ignore_errors=True)


def pyplot(flag, backend="svg", **settings):
    """-> matplotlib.pyplot, set so that the same numbers give the same file; without it InputError.

    Only what draws asks for it: nothing that trains does.
    """
    try:
        import matplotlib
    except ImportError:
        raise InputError(f"{flag} needs matplotlib: pip install matplotlib") from None
    matplotlib.use(backend)
    import matplotlib.pyplot as plt
    plt.rcParams.update({"svg.hashsalt": "infuser", "font.size": 9, **settings})
    return plt
