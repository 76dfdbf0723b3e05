"""Whatever ends a run, a full disk, a closed pipe, a rank that was started otherwise, is one line
and an exit code, and what was done is not lost.
"""
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fakes
import train
from data import InputError
from engine import ending, flags, log, ranks
from engine.speech import line_of, one_line, run_script
from test_ranks import free_port

ROOT = Path(train.__file__).resolve().parent
pytestmark = [pytest.mark.slow,
              pytest.mark.skipif(not (ROOT / "toy/anchor/config.json").exists(),
                                 reason="the toy anchor has not been made yet")]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Flags of a run of two very small iterations, with a document that a terminal would obey."""
    folder = tmp_path_factory.mktemp("world")
    sizes = dict(
        docs_per_step=2, questions_per_doc=4, answers_per_question=4, minibatch_rows=8,
        iterations=2, eval_every=9, show_every=1, threads=1, max_response_tokens=48)
    words = fakes.small_world(folder, sizes, documents=2, dev=8, test=3)
    path = folder / "documents.json"
    documents = json.loads(path.read_text())
    for document in documents:
        document["doc_id"] += "\x1b]0;owned\x07\x1b[2J\u202eB\u00fccher"
    path.write_text(json.dumps(documents))
    return words


def script(*words, **options):
    return subprocess.run([sys.executable, str(ROOT / "train.py"), *map(str, words)], cwd=ROOT,
                          capture_output=True, timeout=300, **options)


def one_line_of(err):
    text = err.decode()
    assert text.startswith("error: ") and text.count("\n") == 1, text
    return text


# ---------------------------------------------------------------- what reaches the terminal

def test_a_terminal_of_few_letters_ends_nothing_and_obeys_no_document(world, tmp_path):
    run = tmp_path / "run"
    done = script(*world, "--run", run, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    out = done.stdout.decode("ascii")
    assert r"\x1b]0;owned\x07" in out and r"B\xfccher" in out and "\x1b" not in out
    # the log keeps what the document is called
    assert "B\u00fccher" in (run / "questions.jsonl").read_text(encoding="utf-8")


def test_a_name_that_is_not_utf_8_does_not_end_a_log(tmp_path):
    line = log.as_line({"doc_id": "caf\udce9", "\u00fc": 1})
    assert json.loads(line.encode("utf-8")) == {"doc_id": "caf\udce9", "\u00fc": 1}
    assert log.as_line({"\u00fc": 1}) == '{"\u00fc": 1}\n'


@pytest.mark.parametrize("letter", ["\x1b", "\x07", "\r", "\x7f", "\x9b", "\u202e", "\u2066"])
def test_what_moves_the_cursor_is_spelt_out(letter):
    assert letter not in one_line(f"a{letter}[2J")


# ---------------------------------------------------------------- what cannot be written

def limit(size):
    """No file may grow beyond so many bytes: what a full disk does, for one process."""
    def before():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return before


@pytest.mark.parametrize("size, left", [
    (0, "cannot be written"), (1000, "Nothing was begun"), (2_000_000, "--resume")])
def test_a_full_disk_is_one_line_and_the_run_goes_on_afterwards(world, tmp_path, size, left):
    """Before the run begins, at config.json, in the middle of a checkpoint."""
    run = tmp_path / "run"
    done = script(*world, "--run", run, preexec_fn=limit(size))
    assert done.returncode == 2
    assert "File too large" in one_line_of(done.stderr) and left in done.stderr.decode()
    again = ["--resume", run] if left == "--resume" else [*world, "--run", run]
    done = script(*again)
    assert done.returncode == 0, done.stderr
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [1, 2]


@pytest.mark.parametrize("run, says", [
    ("{tmp}/file", "cannot be made a folder"), ("{tmp}/file/x", "cannot be made a folder")])
def test_a_run_that_has_no_place_is_one_line(world, tmp_path, run, says):
    (tmp_path / "file").write_text("precious")
    done = script(*world, "--run", run.format(tmp=tmp_path))
    assert done.returncode == 2
    one_line_of(done.stderr)
    assert (tmp_path / "file").read_text() == "precious"


def test_a_closed_pipe_ends_a_run_with_one_line(world, tmp_path):
    command = [sys.executable, str(ROOT / "train.py"), *world, "--run", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(60) == 2
    assert "closed pipe" in one_line_of(err)


def test_without_a_terminal_at_all_a_run_goes_on(world, tmp_path):
    words = " ".join([sys.executable, str(ROOT / "train.py"), *world, "--iterations", "1",
                      "--run", str(tmp_path / "run")])
    assert subprocess.run(f"{words} >&- 2>&-", shell=True).returncode == 0


@pytest.mark.parametrize("error, says", [
    (OSError(28, "No space left on device", "x/y"), "x/y: No space left on device"),
    (OSError(30, "Read-only file system"), "nothing more can be written: Read-only file system"),
    (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
     "nothing more can be written: No space left on device"),
    (InputError("x: wrong"), "x: wrong"),
    (FileNotFoundError(2, "No such file"), None), (ValueError("a bug"), None)])
def test_what_the_system_refuses_is_one_line_and_a_surprise_is_none(error, says):
    assert line_of(error) == says


def test_scripts_end_as_runs_do(capsys):
    def full():
        raise OSError(28, "No space left on device", "out.json")

    with pytest.raises(SystemExit) as end:
        run_script(full)
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: out.json: No space left on device\n"


def test_what_to_type_next_is_what_works(tmp_path):
    cfg = flags.parse(["--run", tmp_path])
    assert "start again" in ending.go_on(cfg)
    (tmp_path / "config.json").write_text("{}")
    assert f"--resume {tmp_path}" in ending.go_on(cfg)


def test_of_two_resumes_at_once_the_second_is_refused_and_no_line_is_written_twice(
        world, tmp_path):
    run = tmp_path / "run"
    assert script(*world, "--iterations", "1", "--run", run).returncode == 0
    command = [sys.executable, str(ROOT / "train.py"), "--resume", str(run), "--iterations", "999"]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # it has not begun before it holds the folder
    while json.loads((run / ".lock").read_text())["holder"].split()[1] != str(first.pid):
        time.sleep(0.01)
    second = script("--resume", run, "--iterations", "999")
    assert second.returncode == 2
    assert f"process {first.pid} on" in one_line_of(second.stderr)
    first.kill()
    first.wait()
    lines = (run / "metrics.jsonl").read_text().split("\n")[:-1]
    assert [json.loads(line)["iteration"] for line in lines] == list(range(1, len(lines) + 1))
    # the folder is free again, and one that has done what was asked for says so
    assert script("--resume", run, "--iterations", "1").returncode == 0


# ---------------------------------------------------------------- ranks that were started otherwise

def fields(**values):
    return {"fields": values}


@pytest.mark.parametrize("everyones, says", [
    ([fields(seed=0), fields(seed=0)], None),
    ([fields(seed=0), fields(seed=0), fields(seed=1)], "rank 2 was started with seed = 1"),
    ([fields(seed=0), {"error": "x: gone"}], "rank 1: x: gone"),
    ([{"error": "x: gone"}, {"error": "x: gone"}], "x: gone"),
    ([{"error": "x: gone"}, fields(seed=0)], "x: gone")])
def test_the_first_difference_between_ranks_is_named(everyones, says):
    found = ranks.disagreement(everyones)
    assert found == says if found is None or says is None else found.startswith(says)


def test_a_world_size_left_over_is_one_line(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="start with torchrun, or unset WORLD_SIZE"):
        ranks.meet(flags.parse([]))


def one_rank(words, output, rank, port, spoilt):
    """train.py as torchrun starts it. spoilt: this rank reads another dev file, or none."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2",
                      MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    with open(f"{output}.{rank}", "w") as f:
        os.dup2(f.fileno(), 2)
    load = train.load_questions

    def other(path, *rest):
        if spoilt == "broken":
            raise InputError(f"{path}: is not the file it was")
        return load(path, *rest)[1:]

    if spoilt and rank:
        train.load_questions = other
    sys.argv = ["train.py", *words]
    sys.exit(train.main(flags.from_command_line()))


@pytest.mark.parametrize("words, spoilt, says", [
    (["--seed", "1"], None, "rank 1 was started with seed = 1, rank 0 with 0"),
    (["--iterations", "9"], None, "rank 1 was started with iterations = 9"),
    (["--dev", "nowhere.json"], None, "nowhere.json: no such file or folder"),
    (["--output_dir", "elsewhere"], None, "rank 1 was started with run = 'elsewhere'"),
    ([], "other", "rank 1 loaded other dev, test than rank 0"),
    ([], "broken", "dev.json: is not the file it was")])
def test_ranks_that_were_started_otherwise_end_with_one_line_and_leave_nothing(
        world, tmp_path, words, spoilt, says):
    run, port = tmp_path / "run", free_port()
    processes = []
    for rank in range(2):
        theirs = words if rank and words else ["--seed", "0"]
        own = [] if "--output_dir" in theirs else ["--run", str(run)]
        processes.append(fakes.start_apart(
            one_rank, [*world, *own, *theirs], str(tmp_path / "err"), rank, port, spoilt))
    assert fakes.wait_for(processes, 120) == [2, 2]
    said = "".join((tmp_path / f"err.{rank}").read_text() for rank in range(2))
    assert said.count("error: ") == said.count("\n") == 1 and says in said
    assert not run.exists()


def test_two_ranks_that_agree_train(world, tmp_path):
    run, port = tmp_path / "run", free_port()
    words = [*world, "--iterations", "1", "--run", str(run)]
    processes = [fakes.start_apart(one_rank, words, str(tmp_path / "err"), rank, port, None)
                 for rank in range(2)]
    assert fakes.wait_for(processes, 120) == [0, 0]
    assert (run / "metrics.jsonl").read_text().count("\n") == 1


# ---------------------------------------------------------------- Ctrl-C before anything has begun

# Python reads it before a command: the import of torch says so and takes a minute
SLOW_TORCH = """
import builtins, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)
usual = builtins.__import__

def slow(name, *rest, **more):
    if name == "torch":
        print("importing", flush=True)
        time.sleep(60)
    return usual(name, *rest, **more)

builtins.__import__ = slow
"""


def stopped_while_importing(words, folder):
    """-> what the command said on stderr."""
    (folder / "sitecustomize.py").write_text(SLOW_TORCH)
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT, text=True,
                               env=os.environ | {"PYTHONPATH": f"{folder}:{ROOT}"},
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    # what a shell calls 130
    assert process.returncode == -signal.SIGINT
    return said


@pytest.mark.parametrize("words", [
    ["train.py"], ["evaluate.py", "toy/anchor", "--questions", "toy/test.json"],
    ["warmup.py", "--model", "toy/anchor", "--demos", "docs/example/demos.jsonl", "--out", "x"],
    ["-m", "studies.zoo", "x"], ["-m", "tools.bench"]], ids=" ".join)
def test_ctrl_c_while_torch_is_imported_is_a_line(words, tmp_path):
    assert stopped_while_importing(words, tmp_path) == "\nstopped\n"


def test_somebody_elses_script_keeps_its_traceback(tmp_path):
    script = tmp_path / "theirs.py"
    script.write_text("import engine\nimport torch\n")
    said = stopped_while_importing([str(script)], tmp_path)
    assert said.startswith("Traceback") and said.rstrip().endswith("KeyboardInterrupt")
