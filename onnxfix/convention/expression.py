"""Sizes as arithmetic over names: `(chunk_size - 1) * subsampling_rate + right_context + 1`.

Names are metadata keys, axes, or cache and axis (`attention.time`). There are integers, `+ - * //`, unary minus,
parentheses and `max`; nothing else is evaluated.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from onnxfix.errors import LayoutError

_OPERATORS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: lambda a, b: a // b,
}
_LIMIT = 2**40
_LENGTH = 500
_ODD = re.compile(r"[^A-Za-z0-9_.+*/(), -]")
_UNDERSTOOD = "only integers, names, `+ - * //` and `max` are understood"


@dataclass(frozen=True)
class Expression:
    """An integer expression.

    >>> Expression.parse("max(chunk_size * left_chunks, 0)").value({"chunk_size": 16, "left_chunks": -1})
    0
    >>> Expression.parse("attention.time + 1").names
    ('attention.time',)
    """

    text: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return self.text

    @staticmethod
    def parse(text: str) -> Expression:
        """Parses an expression.

        Raises:
            LayoutError: It does not parse, is longer than 500 characters, or uses more than integers, names,
                `+ - * //` and `max`.
        """
        text = text.strip()
        if len(text) > _LENGTH:
            raise LayoutError(f"an expression has at most {_LENGTH} characters", text=text[:40] + " ...", span=(0, 44))
        if odd := _ODD.search(text):
            raise LayoutError(_UNDERSTOOD, text=text, span=odd.span())
        try:
            with warnings.catch_warnings(action="ignore", category=Warning):
                tree = ast.parse(text, mode="eval").body
        except (SyntaxError, MemoryError, RecursionError) as error:
            place = error.offset if isinstance(error, SyntaxError) and error.lineno == 1 else None
            start = place - 1 if place else len(text)
            raise LayoutError("this is no arithmetic", text=text, span=(start, start + 1)) from None
        names: list[str] = []
        _check(tree, text, names)
        return Expression(text, tuple(dict.fromkeys(names)))

    def value(self, known: Mapping[str, int]) -> int | None:
        """Returns the value; None where a name is not known, a divisor is 0 or the value is out of all bounds."""
        if any(name not in known for name in self.names):
            return None
        result = _evaluate(ast.parse(self.text, mode="eval").body, known)
        return result if result is None or abs(result) < _LIMIT else None


def _dotted(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (base := _dotted(node.value)) is not None:
        return f"{base}.{node.attr}"
    return None


def _check(node: ast.expr, text: str, names: list[str]) -> None:
    if (name := _dotted(node)) is not None:
        names.append(name)
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        _check(node.left, text, names)
        _check(node.right, text, names)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        _check(node.operand, text, names)
    elif isinstance(node, ast.Call) and _dotted(node.func) == "max" and node.args and not node.keywords:
        for argument in node.args:
            _check(argument, text, names)
    elif not (isinstance(node, ast.Constant) and type(node.value) is int):
        span = (node.col_offset, node.end_col_offset or len(text))
        raise LayoutError(_UNDERSTOOD, text=text, span=span)


def _evaluate(node: ast.expr, known: Mapping[str, int]) -> int | None:
    if (name := _dotted(node)) is not None:
        return known[name]
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.UnaryOp):
        operand = _evaluate(node.operand, known)
        return None if operand is None else -operand
    if isinstance(node, ast.Call):
        values = [_evaluate(argument, known) for argument in node.args]
        return None if None in values else max(value for value in values if value is not None)
    assert isinstance(node, ast.BinOp)
    left, right = _evaluate(node.left, known), _evaluate(node.right, known)
    if left is None or right is None or (isinstance(node.op, ast.FloorDiv) and right == 0):
        return None
    return _OPERATORS[type(node.op)](left, right)
