"""How a prompt becomes tokens: by the tokenizer's own chat template, or in a plain frame where a
base tokenizer has none.

    prompt --chat_ids--> ids    by chat_text, prompt -> text; what ends an answer: stop_ids_of

A control token's name inside a document or a question is text, never a token. A template comes with
the model's folder, so it is tried first, with bounds on its time and memory (`check_template`). It
runs in jinja's sandbox, from where it does not reach the interpreter.
"""
import contextlib
import ctypes
import functools
import re
import threading
from pathlib import Path

from jinja2 import Environment, TemplateError

from data import InputError
from engine.prompts import messages

try:
    import resource
except ImportError:
    # Windows: no bound on memory
    resource = None

# What a template raises that is not fit for what it is given.
UNFIT = (TemplateError, ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError,
         TypeError, ValueError)
# A template's first rendering: seconds, and bytes beside those that are in use.
SECONDS, ROOM = 5, 2 ** 28
# Stands for what somebody says, where a template is tried.
MARKER = "INFUSER"


# ---------------------------------------------------------------- a prompt as text

def chat_text(tokenizer, prompt):
    """A user message, or (system message, user message) -> the text the model continues.

    By the tokenizer's own chat template, or in a plain frame where a base tokenizer has none. Where
    there is no system role, its message begins the user's.
    """
    turns = messages(prompt)
    together = "\n\n".join(turn["content"] for turn in turns)
    if not tokenizer.chat_template:
        return f"{together}\n\nAnswer:\n"
    if len(turns) > 1 and not takes_system(tokenizer):
        turns = messages(together)
    try:
        return rendered(tokenizer, turns)
    except UNFIT as error:
        raise InputError(refusal(error))


def rendered(tokenizer, turns):
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)


def takes_system(tokenizer):
    """Does the chat template write a system message? Some refuse one, some pass over it."""
    try:
        return MARKER in rendered(tokenizer, messages((MARKER, "x")))
    except UNFIT:
        return False


# ---------------------------------------------------------------- a template that is not ours

def check_template(tokenizer):
    """InputError, with the template's own words, where it does not write what a user says."""
    template = tokenizer.chat_template
    if not template:
        return
    try:
        for text in template.values() if isinstance(template, dict) else [template]:
            refuse_powers(text)
        turn = bounded(any_turn, tokenizer)
    except TimeoutError:
        raise InputError(f"its chat template is not done after {SECONDS} s")
    except UNFIT as error:
        raise InputError(refusal(error))
    if MARKER not in turn:
        raise InputError("its chat template does not write what the user says")


def any_turn(tokenizer):
    """A user's message alone or, where that is refused, behind a system message -> text."""
    try:
        return rendered(tokenizer, messages(MARKER))
    except UNFIT as error:
        with contextlib.suppress(UNFIT):
            return rendered(tokenizer, messages(("x", MARKER)))
        raise error


def refusal(error):
    """What a template raised -> a line with its own words."""
    words = " ".join(str(error).split())[:160] or type(error).__name__
    return f"its chat template does not take a user's message ({words})"


def refuse_powers(template):
    """9 ** 9 ** 9 cannot be interrupted, and no chat needs it."""
    for _, kind, value in Environment().lex(template):
        if (kind, value) == ("operator", "**"):
            raise ValueError("it computes powers")


def bounded(function, *args):
    """function(*args) in a thread that has SECONDS and ROOM. TimeoutError, or what it raises."""
    found, raised = [], []

    def work():
        try:
            found.append(function(*args))
        except Exception as error:
            raised.append(error)
        except SystemExit:
            # its time is over, see end
            pass

    with little_memory():
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(SECONDS)
    if raised:
        raise raised[0]
    if not found:
        end(thread)
        raise TimeoutError
    return found[0]


def end(thread):
    """A thread cannot be killed, yet at its next bytecode it raises what is left for it."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))


@contextlib.contextmanager
def little_memory():
    """Within, this process may take ROOM bytes more, where the system counts them."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        most = pages * resource.getpagesize() + ROOM
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    except (AttributeError, OSError, ValueError):
        yield
        return
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# ---------------------------------------------------------------- a prompt as tokens

def chat_ids(tokenizer, prompt):
    """What chat_text takes -> prompt token ids.

    The template writes its own special tokens; only the plain frame lets the tokenizer add them.
    What stands in the prompt is text: see text_ids.
    """
    special = not tokenizer.chat_template
    names = control_names(tokenizer)
    found = []

    def hidden(text):
        found.extend(names.findall(text))
        return names.sub(HIDDEN, text)

    turns = tuple(hidden(turn["content"]) for turn in messages(prompt))
    first, *rest = chat_text(tokenizer, turns).split(HIDDEN)
    # a template that writes a message twice, or only in part
    if len(rest) != len(found):
        raise InputError(f"model {tokenizer.name_or_path}: its chat template does not write each "
                         "message once, and one of them "
                         f"holds the name of a control token, {found[0]!r}")
    ids = tokenizer(first, add_special_tokens=special).input_ids
    return ids + behind(tokenizer, found, rest)


def text_ids(tokenizer, text):
    """A text -> token ids, none of them a control token.

    A document that says <|im_end|> would otherwise end the user's turn and forge the model's.
    """
    names = control_names(tokenizer)
    first, *rest = names.split(text)
    return encoded(tokenizer, first) + behind(tokenizer, names.findall(text), rest)


def behind(tokenizer, names, pieces):
    """Names of control tokens, each with the text behind it -> ids, all of them text."""
    ids = []
    for name, piece in zip(names, pieces):
        ids += spelled(tokenizer, name) + encoded(tokenizer, piece)
    return ids


# Stands for the name of a control token while a template is rendered.
HIDDEN = "\ue000\ue001"


def controls(tokenizer):
    """{id: name} of special tokens, and of <think> and [INST] where they are tokens.

    Special by what tokenizer.json says, whether or not anything else names them. The embedded
    world's lines of prompts are tokens too, and no control tokens.
    """
    found = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens))
    for i, token in tokenizer.added_tokens_decoder.items():
        if token.special or re.fullmatch(r"<[^<>\s]+>|\[/?[A-Z_]+\]", token.content):
            found[i] = token.content
    return found


def control_names(tokenizer):
    """The pattern of the names of control tokens."""
    return pattern_of_names(tokenizer, len(tokenizer))


# every text needs it, and a tokenizer takes long to list its tokens; one that grows is asked again
@functools.lru_cache(maxsize=16)
def pattern_of_names(tokenizer, size):
    # of two that begin alike, the longer
    names = sorted([name for name in set(controls(tokenizer).values()) if len(name) > 1],
                   key=len, reverse=True)
    return re.compile("|".join(map(re.escape, names)) or r"(?!)")


def encoded(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids if text else []


def spelled(tokenizer, name):
    """The name of a control token -> ids of the text: its first sign and the rest apart."""
    return encoded(tokenizer, name[0]) + encoded(tokenizer, name[1:])


# ---------------------------------------------------------------- what ends an answer

def chat_stop_ids(tokenizer):
    """The tokens that end a response, first the one that ends a turn in the chat template.

    Qwen3-Base names <|endoftext|> as EOS but its template ends turns with <|im_end|>: a sampler
    that knows only one of them runs on to the length limit.
    """
    stops = [turn_end(tokenizer), tokenizer.eos_token_id]
    return list(dict.fromkeys(i for i in stops if i is not None))


def turn_end(tokenizer):
    """-> the control token that ends the model's turn in its chat template, or None.

    None, too, where a template writes no turn of the model's: then EOS alone ends a response.
    """
    if not tokenizer.chat_template:
        return None
    said = [{"role": "user", "content": "x"}, {"role": "assistant", "content": MARKER}]
    try:
        turn = tokenizer.apply_chat_template(said, tokenize=False)
    except UNFIT:
        return None
    if MARKER not in turn:
        return None
    after = encoded(tokenizer, turn[turn.rindex(MARKER) + len(MARKER):])
    known = controls(tokenizer)
    return next((i for i in after if i in known), None)


def stop_ids_of(model, tokenizer):
    """chat_stop_ids, and what the model's generation config adds."""
    stops = chat_stop_ids(tokenizer)
    extra = model.generation_config.eos_token_id
    extra = extra if isinstance(extra, list) else [extra]
    return stops + [i for i in extra if i is not None and i not in stops]
