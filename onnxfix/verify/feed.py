"""What a user wants fed: `--feed offset=constant:64`, and arrays from a file."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from onnxfix.convention.layout import show_dims
from onnxfix.convention.signature import Port
from onnxfix.errors import UsageError
from onnxfix.verify.dtypes import DRIVABLE, encode, is_float, storage

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
}
"""For each kind of feed the least and the largest number of arguments, and how it is written."""


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

    def make(self, shape: Shape, dtype: str, tick: int, rng: np.random.Generator) -> Array:
        """Returns the input of one tick."""
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


_MAKERS: Mapping[str, Callable[[Numbers, Shape, int, np.random.Generator], Array]] = {
    "zeros": lambda numbers, shape, tick, rng: _full(0.0, shape),
    "ones": lambda numbers, shape, tick, rng: _full(1.0, shape),
    "constant": lambda numbers, shape, tick, rng: _full(numbers[0], shape),
    "noise": _noise,
    "tokens": _tokens,
    "range": _range,
    "step": lambda numbers, shape, tick, rng: _full(numbers[0] + tick * numbers[1], shape),
}


def noise(shape: Shape, dtype: str, rng: np.random.Generator) -> Array:
    """Returns values that vary: unit normal numbers, small integers that are not negative, or coins."""
    if is_float(dtype):
        return encode(rng.standard_normal(shape, np.float32), dtype)
    return encode(rng.integers(0, 2 if dtype == "bool" else 8, shape), dtype)


@dataclass(frozen=True)
class Recording:
    """Inputs from a file.

    Attributes:
        every: Arrays that are fed at every tick, by port.
        ticks: Arrays by port, one entry a tick.
    """

    every: Mapping[str, Array]
    ticks: Mapping[str, Sequence[Array]]

    @staticmethod
    def empty() -> Recording:
        """Returns a recording of nothing."""
        return Recording({}, {})

    def at(self, port: str, tick: int) -> Array | None:
        """Returns what to feed; None where the file does not say."""
        return self.ticks[port][tick] if port in self.ticks else self.every.get(port)


def read_recording(path: Path, ports: Sequence[Port], states: Sequence[str], ticks: int) -> Recording:
    """Reads inputs from an npz file.

    An array called `PORT` is fed at every tick or, if it has one axis more than the port, is taken apart along its
    first axis, one entry a tick. Arrays called `PORT/0`, `PORT/1`, ... are fed at these ticks. A cache takes its first
    state from here; what follows it computes itself.

    Args:
        path: The file; it holds no pickled objects.
        ports: The model's inputs.
        states: Those of them that are caches.
        ticks: How many ticks must be there.

    Raises:
        UsageError: The file cannot be read, an array belongs to no input, its element type or shape is wrong, or
            ticks are missing.
    """
    by_name = {port.name: port for port in ports}
    every: dict[str, Array] = {}
    single: dict[str, dict[int, Array]] = {}
    for key, array in _arrays(path).items():
        name, slash, number = key.rpartition("/")
        if key in by_name:
            port, tick = by_name[key], None
        elif slash and number.isdecimal() and name in by_name:
            port, tick = by_name[name], int(number)
        else:
            hint = f"name it after an input ({', '.join(by_name)}), or input and tick (`{next(iter(by_name), 'x')}/0`)"
            raise UsageError("this array belongs to no input of the model", where=f"{path}: {key}", hint=hint)
        where = f"{path}: {key}"
        if tick is None and port.rank is not None and array.ndim == port.rank + 1:
            single.setdefault(port.name, {}).update(enumerate(_checked(one, port, where) for one in array))
        elif tick is None:
            every[port.name] = _checked(array, port, where)
        else:
            single.setdefault(port.name, {})[tick] = _checked(array, port, where)
    rows = {}
    for name, entries in single.items():
        needed = 1 if name in states else ticks
        for tick in range(needed):
            if tick not in entries and name not in every:
                hint = f"drive the model for {tick} ticks (--ticks {tick})" if tick else "count ticks from 0"
                raise UsageError(f"the file has no array for tick {tick}", where=f"{path}: {name}", hint=hint)
        rows[name] = [entries[tick] if tick in entries else every[name] for tick in range(needed)]
    return Recording(every, rows)


def _arrays(path: Path) -> dict[str, Array]:
    try:
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise UsageError("this is a single array", where=str(path), hint="numpy.savez(FILE, PORT=ARRAY, ...)")
            return {key: file[key] for key in sorted(file.files)}
    except OSError as error:
        raise UsageError(f"the inputs cannot be read: {error.strerror or error}", where=str(path)) from None
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        hint = "numpy.savez(FILE, PORT=ARRAY, ...), numbers only"
        raise UsageError(f"this is no npz file of plain arrays: {error}", where=str(path), hint=hint) from None


def _checked(array: Array, port: Port, where: str) -> Array:
    if port.dtype not in DRIVABLE:
        raise UsageError(f"an input of element type {port.dtype} cannot be fed", where=where)
    if array.dtype != storage(port.dtype):
        hint = f"array.astype('{storage(port.dtype)}')"
        raise UsageError(f"the array is {array.dtype}, the port {port.dtype}", where=where, hint=hint)
    fits = port.dims is None or (
        array.ndim == len(port.dims)
        and all(not isinstance(dim, int) or dim == size for dim, size in zip(port.dims, array.shape, strict=True))
    )
    if not fits:
        raise UsageError(
            f"the array is {list(array.shape)}, the port {show_dims(port.dims)}",
            where=where,
            hint="one axis more, in front, counts ticks",
        )
    return np.asarray(array, order="C")
