"""What graders compare with: numbers within rounding, and a sentence where they differ."""
import math
from dataclasses import dataclass

import torch


class Wrong(Exception):
    """What a student's function gave, and what it should have given, in one sentence."""


@dataclass(frozen=True)
class Mistake:
    """A usual mistake: the sentence about it, and our function with it planted.

    edits: (function, old, new), each `old` standing in that function exactly once.
    """
    sentence: str
    edits: tuple


def mistake(sentence, *edits):
    return Mistake(sentence, edits)


def expect(found, expected, call, tolerance=1e-5):
    """Wrong, with the call and both values, unless they are the same."""
    if isinstance(expected, torch.Tensor) and not isinstance(found, torch.Tensor):
        raise Wrong(f"{call} gave {kind(found)}; expected a tensor of shape "
                    f"{tuple(expected.shape)}")
    if isinstance(expected, torch.Tensor) and found.shape != expected.shape:
        raise Wrong(f"{call} has the shape {tuple(found.shape)}; expected {tuple(expected.shape)}")
    if isinstance(found, torch.Tensor) and not bool(found.isfinite().all()):
        raise Wrong(f"{call} holds a value that is not finite: {short(found)}")
    if not same(found, expected, tolerance):
        raise Wrong(f"{call} gave {short(found)}; expected {short(expected)}")


def same(a, b, tolerance=1e-5):
    """Are two nests of tensors, numbers and texts the same within rounding?"""
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        alike = isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.shape == b.shape
        return alike and torch.allclose(
            a.detach().double(), b.detach().double(), rtol=tolerance, atol=tolerance * 1e-2,
            equal_nan=True)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key], tolerance) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(same(x, y, tolerance) for x, y in zip(a, b))
    if isinstance(a, float) or isinstance(b, float):
        numbers = isinstance(a, (int, float)) and isinstance(b, (int, float))
        return numbers and (a == b or math.isclose(a, b, rel_tol=tolerance, abs_tol=1e-9))
    return a == b


def raises(error, function, *args):
    """Does function(*args) raise such an error?"""
    try:
        function(*args)
    except error:
        return True
    return False


def short(value):
    """A value as it fits into a sentence."""
    if isinstance(value, torch.Tensor):
        value = rounded(value.detach().double().tolist())
    text = " ".join(str(value).split())
    return text if len(text) <= 160 else text[:157] + "..."


def rounded(x):
    """Numbers in lists in lists, to four places."""
    return [rounded(y) for y in x] if isinstance(x, list) else round(x, 4)


def kind(value):
    return "nothing (None)" if value is None else f"a {type(value).__name__}"
