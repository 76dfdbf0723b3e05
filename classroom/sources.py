"""The text of one function in a file: cut out, blanked, put back.

    name      "center", or "Streaming.take" for a method
    body      what stands behind the function's docstring

Everything here is text in, text out; the files themselves are handled in course.py.
"""
import ast
import textwrap


class NotThere(Exception):
    """The file does not parse, or the function is not in it; the message says which and where."""


def find(text, name):
    """Text of a file, name of a function -> its node in the syntax tree."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise NotThere(f"is not Python: {error.msg} in line {error.lineno}") from None

    node = tree
    for part in name.split("."):
        inside = [x for x in node.body if getattr(x, "name", None) == part]
        if not inside:
            raise NotThere(f"has no {name} any more; `reset` brings the blank one back")
        node = inside[-1]
    return node


def lines_of(text, name):
    """-> (first, behind): the lines of a function, decorators included, as a slice."""
    node = find(text, name)
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    return first - 1, node.end_lineno


def source(text, name):
    """-> the whole function."""
    first, behind = lines_of(text, name)
    return "".join(text.splitlines(keepends=True)[first:behind])


def body(text, name):
    """-> (first, behind): the lines behind the docstring."""
    node = find(text, name)
    docstring = node.body[0] if ast.get_docstring(node) is not None else None
    first = docstring.end_lineno if docstring else node.body[0].lineno - 1
    return first, node.end_lineno


def with_body(text, name, lines):
    """The same file with other lines as the function's body."""
    first, behind = body(text, name)
    old = text.splitlines(keepends=True)
    return "".join(old[:first] + lines + old[behind:])


def put(text, name, function):
    """The same file with the function replaced by another's whole source."""
    first, behind = lines_of(text, name)
    old = text.splitlines(keepends=True)
    return "".join(old[:first] + [function] + old[behind:])


def blanked(text, name, exercise):
    """The same file with hints in place of the function's body; in the exercise's first one.

    Signature and docstring stay; its doctests too, so that they can be tried by hand. An exercise
    with a `blank` of its own empties what it says.
    """
    if hasattr(exercise, "blank"):
        return exercise.blank(text)
    indent = " " * (find(text, name).col_offset + 4)
    first = exercise.BLANKS[0]
    lines = [f"{indent}# EXERCISE {exercise.NAME}: the hints stand in {first}\n",
             f'{indent}raise NotImplementedError("{exercise.NAME}")\n']
    return with_body(text, name, comments_of(exercise, indent) if name == first else lines)


def comments_of(exercise, indent):
    """The lines that stand where the student's are to come."""
    comments = [f"EXERCISE {exercise.NAME}    {exercise.SYMBOL}"]
    for i, hint in enumerate(exercise.HINTS, start=1):
        comments += ["", *textwrap.wrap(f"Hint {i}. {hint}", width=90)]
    lines = [f"{indent}# {comment}".rstrip() + "\n" for comment in comments]
    return [*lines, f'{indent}raise NotImplementedError("{exercise.NAME}")\n']


def is_blank(text, name, exercise):
    """Is the function as `start` left it?"""
    return f'raise NotImplementedError("{exercise.NAME}")' in source(text, name)


def changed(text, name, old, new):
    """The same file, `old` in the function replaced by `new`; it must be there exactly once."""
    function = source(text, name)
    if function.count(old) != 1:
        raise ValueError(f"{old!r} is {function.count(old)} times in {name}, expected once")
    return put(text, name, function.replace(old, new))
