"""What a user wants fed by rule: `--feed offset=constant:64`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from onnxfix.convention.signature import Port
from onnxfix.errors import UsageError
from onnxfix.verify.dtypes import DRIVABLE, encode, is_float

if TYPE_CHECKING:
    from onnxfix.convention.route import Array

    Shape: TypeAlias = tuple[int, ...]
    Numbers: TypeAlias = tuple[float, ...]

KINDS: Mapping[str, tuple[int, int, str]] = {
    "zeros": (0, 0, "zeros"),
    "ones": (0, 0, "ones"),
    "constant": (1, 1, "constant:VALUE"),
    "noise": (0, 1, "noise[:SCALE]"),
    "tokens": (1, 1, "tokens:COUNT, integers below COUNT"),
    "range": (0, 1, "range[:START], counting along the last axis"),
    "step": (2, 2, "step:START,BY, growing from tick to tick"),
    "tone": (0, 2, "tone[:LEVEL[,HERTZ]], a sine along the last axis that goes on from tick to tick"),
}
"""For each kind of feed the least and the largest number of arguments, and how it is written."""
SAMPLE_RATE = 16000
LEVEL, HERTZ = 0.1, 220.0
"""A tone that nobody described: as loud as speech, as high as a voice."""


@dataclass(frozen=True)
class Feed:
    """A rule that fills an input.

    >>> Feed.parse("offset", "constant:64")
    Feed(kind='constant', numbers=(64.0,))
    """

    kind: str
    numbers: tuple[float, ...] = ()

    def __str__(self) -> str:
        return self.kind + (":" + ",".join(f"{number:g}" for number in self.numbers) if self.numbers else "")

    @staticmethod
    def parse(port: str, text: str) -> Feed:
        """Parses what follows the `=` of `--feed PORT=KIND:ARGUMENTS`.

        Raises:
            UsageError: The kind is not known, or the arguments are not what it takes.
        """
        kind, _, rest = text.partition(":")
        if kind not in KINDS:
            hint = "known are " + "; ".join(usage for _, _, usage in KINDS.values())
            raise UsageError(f"`{kind}` is no kind of feed", where=f"--feed {port}={text}", hint=hint)
        least, most, usage = KINDS[kind]
        try:
            numbers = tuple(float(number) for number in rest.split(",")) if rest else ()
        except ValueError:
            raise UsageError(f"`{rest}` are no numbers", where=f"--feed {port}={text}", hint=usage) from None
        if not least <= len(numbers) <= most:
            raise UsageError("wrong number of arguments", where=f"--feed {port}={text}", hint=usage)
        if kind == "tokens" and not 1 <= numbers[0] < 2**63:
            raise UsageError("the number of tokens is from 1 to 2**63 - 1", where=f"--feed {port}={text}", hint=usage)
        return Feed(kind, numbers)

    def require_fits(self, port: Port) -> None:
        """Checks that what is to be fed can be said in the port's element type.

        Raises:
            UsageError: An argument is no number of that type.
        """
        if is_float(port.dtype) or port.dtype not in DRIVABLE or self.kind in ("noise", "tone"):
            return
        most = 1 if port.dtype == "bool" else int(np.iinfo(port.dtype).max)
        least = 0 if port.dtype == "bool" else int(np.iinfo(port.dtype).min)
        numbers = [number - 1 for number in self.numbers] if self.kind == "tokens" else self.numbers
        for number in numbers:
            if not math.isfinite(number) or int(number) != number or not least <= number <= most:
                message = f"`{number:g}` is no number of type {port.dtype}"
                raise UsageError(message, where=f"--feed {port.name}={self}", hint=f"from {least} to {most}")

    def make(self, shape: Shape, dtype: str, tick: int, rng: np.random.Generator) -> Array:
        """Returns the input of one tick."""
        with np.errstate(over="ignore", invalid="ignore"):
            return encode(_MAKERS[self.kind](self.numbers, shape, tick, rng), dtype)


def _noise(numbers: Numbers, shape: Shape, tick: int, rng: np.random.Generator) -> Array:
    scale = numbers[0] if numbers else 1.0
    return rng.standard_normal(shape, np.float32) * np.float32(scale)


def _tokens(numbers: Numbers, shape: Shape, tick: int, rng: np.random.Generator) -> Array:
    return np.asarray(rng.integers(0, int(numbers[0]), shape))


def _range(numbers: Numbers, shape: Shape, tick: int, rng: np.random.Generator) -> Array:
    start = numbers[0] if numbers else 0.0
    return np.broadcast_to(start + np.arange(shape[-1] if shape else 1, dtype=np.float64), shape or (1,)).reshape(shape)


def _full(value: float, shape: Shape) -> Array:
    return np.full(shape, value)


def _tone(numbers: Numbers, shape: Shape, tick: int, rng: np.random.Generator) -> Array:
    level, hertz = (*numbers, LEVEL, HERTZ)[:2] if len(numbers) != 1 else (numbers[0], HERTZ)
    return tone(shape, len(shape) - 1, tick * (shape[-1] if shape else 1), hertz, level)


def tone(shape: Shape, along: int, start: int, hertz: float, level: float = LEVEL) -> Array:
    """Returns a sine along one axis; every other place has a pitch of its own.

    Args:
        shape: The shape; a scalar gets one sample.
        along: The axis that is time.
        start: The first sample's number.
        hertz: The pitch of the first place, at 16000 samples a second.
        level: The amplitude.
    """
    if not shape:
        return np.array(level * math.sin(2 * math.pi * hertz * start / SAMPLE_RATE))
    length = shape[along]
    places = math.prod(shape) // length if length else 0
    pitches = hertz * (1 + np.arange(places)[:, None] / 7)
    samples = level * np.sin(2 * np.pi * pitches * (start + np.arange(length)) / SAMPLE_RATE)
    others = [size for index, size in enumerate(shape) if index != along]
    return np.moveaxis(samples.reshape([*others, length]), -1, along)


_MAKERS: Mapping[str, Callable[[Numbers, Shape, int, np.random.Generator], Array]] = {
    "zeros": lambda numbers, shape, tick, rng: _full(0.0, shape),
    "ones": lambda numbers, shape, tick, rng: _full(1.0, shape),
    "constant": lambda numbers, shape, tick, rng: _full(numbers[0], shape),
    "noise": _noise,
    "tokens": _tokens,
    "range": _range,
    "step": lambda numbers, shape, tick, rng: _full(numbers[0] + tick * numbers[1], shape),
    "tone": _tone,
}


def noise(shape: Shape, dtype: str, rng: np.random.Generator) -> Array:
    """Returns values that vary: unit normal numbers, small integers that are not negative, or coins."""
    if is_float(dtype):
        return encode(rng.standard_normal(shape, np.float32), dtype)
    return encode(rng.integers(0, 2 if dtype == "bool" else 8, shape), dtype)
