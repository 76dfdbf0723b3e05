"""What warmup.py is asked to do: its command line, and the demonstrations of a file.

    words --read_arguments--> arguments --load_demos--> [demonstration], all readable

A demonstration is {content, question_text, choices, ground_truth}. Needs no torch, so that --help,
a misspelt flag, a missing file and a run folder in place of a model are answered at once.
"""

from config import CHOICES
from data import InputError
from engine.arguments import Parser
from engine import flags
from engine.outputs import folder_to_write
from engine.layouts import read_question
from engine.readers import load_items
from engine.speech import run_script


def from_command_line(about):
    """-> (arguments, demonstrations), or one line on stderr and exit code 2."""
    return run_script(lambda: asked(None, about))


def asked(argv, about=None):
    """Words as in read_arguments -> (arguments, demonstrations). Raises InputError."""
    args = read_arguments(argv, about)
    for name in ("epochs", "lr"):
        if not getattr(args, name) > 0:
            raise InputError(f"--{name} {getattr(args, name)}: expected a number above 0")
    args.model = flags.find_model("model", args.model)
    folder_to_write("--out", args.out, [args.model])
    return args, load_demos(args.demos)[:args.limit]


def read_arguments(argv, about=None):
    """A list of words, or None for the command line -> its arguments."""
    parser = Parser("warmup.py", about)
    add = parser.add_argument
    add("--model", required=True, help="model folder, hub id or short name to start from")
    add("--demos", required=True,
        help="JSON or JSONL of {content, question_text, choices, ground_truth}")
    add("--out", required=True, help="folder to write; files of the same names are replaced")
    add("--epochs", type=float, default=1.0, help="how often each is shown (default 1)")
    add("--batch", type=int, default=4, help="demonstrations per step (default 4)")
    add("--lr", type=float, default=1e-4,
        help="its peak, after the first twentieth of the steps; then a cosine to 0 (default 1e-4)")
    add("--prompts", choices=CHOICES["prompts"], default="plain",
        help="those of the run: plain, or hard as in the paper's presets (default plain)")
    add("--key_first", action="store_true",
        help="the JSON's key stands before its options, so that it is known when they are written")
    add("--drills", action="store_true",
        help="beside each answer, every option named with its letter: for models that pick the "
        "right option and box another's letter")
    add("--open_book", action="store_true",
        help="the solver sees the document above the question, as in train.py --open_book true")
    add("--role", choices=("both", "generator", "solver"), default="both",
        help="what is learned: to write, to answer, or both (default)")
    add("--limit", type=int, help="only the first so many demonstrations")
    add("--threads", type=int, default=0, help="CPU threads (0: torch's default)")
    return parser.parse_args(argv)


# ---------------------------------------------------------------- the file

def load_demos(path):
    """A JSON or JSONL file -> list of demonstrations, checked like a question file.

    Raises InputError.
    """
    return load_items(path, ("question_id", "id"), read_demo)


def read_demo(item, number, where):
    question = read_question(item, number, where)
    content = item.get("content")
    if not isinstance(content, str) or not content.strip():
        raise InputError(f"{where}: 'content' is missing or empty, "
                         "expected the document the question was written from")
    if not question.choices:
        raise InputError(f"{where}: no 'choices', expected a multiple-choice question")
    return {
        "content": content,
        "question_text": question.question_text,
        "choices": question.choices,
        "ground_truth": question.ground_truth}
