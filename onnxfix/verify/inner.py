"""Inner values of a model as it runs: their fingerprints, taken a few at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnxfix.errors import DriveError, VerifyError
from onnxfix.model.taps import Inside, read_weights, tapped
from onnxfix.verify.dtypes import DRIVABLE
from onnxfix.verify.session import Session

if TYPE_CHECKING:
    from onnxfix.convention.route import Array

LIMIT = 16 << 20
"""Bytes of inner values that should be in memory at once; a single value may be larger."""
_FEW, _MANY = 64, 2048
"""How many values are fetched at first, when nobody knows how large they are, and at most."""
_ENOUGH = 4096
_ROUND = 1024
"""A multiple of one part of this many is a round number."""


@dataclass(frozen=True)
class Print:
    """The fingerprint of a value.

    Attributes:
        digest: Equal for two values just if element type, shape and all bits are equal.
        content: The same without the shape.
        shape: Its shape.
        is_plain: Whether unrelated values may well be equal to it: integers, round numbers, the same one all over; and
            weights, which are no values of a tick.
    """

    digest: bytes
    content: bytes
    shape: tuple[int, ...]
    is_plain: bool


def print_of(array: Array) -> Print:
    """Returns the fingerprint of an array."""
    array = np.asarray(array, order="C")
    content = _digest(f"{array.dtype}".encode(), array.tobytes())
    return Print(_digest(content, str(array.shape).encode()), content, array.shape, _is_plain(array))


def _is_plain(array: Array) -> bool:
    if array.dtype.kind != "f" or not array.size or (array.size > 1 and bool((array == array.flat[0]).all())):
        return True
    few = array.reshape(-1)[:_ENOUGH].astype(np.float64)
    few = few[np.isfinite(few)]
    return not (few * _ROUND % 1).any()


def without_units(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns a shape without axes of size 1, which may come and go without moving anything."""
    return tuple(size for size in shape if size != 1)


def _digest(*pieces: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for piece in pieces:
        digest.update(piece)
    return digest.digest()


def take_prints(inside: Inside, feeds: Mapping[str, Array]) -> dict[str, Print]:
    """Runs a model and returns the fingerprints of all values that are tensors of numbers: fed, constant or computed.

    The model runs as often as it takes, each time with so many more outputs as fit into `LIMIT`.

    Args:
        inside: The model.
        feeds: All of its inputs.

    Raises:
        VerifyError: The model cannot be run.
    """
    prints = {name: print_of(array) for name, array in {**inside.constants, **feeds}.items()}
    for name, weight in read_weights(inside.path, sorted(inside.weights - prints.keys()), whole=False).items():
        if weight.digest:
            digest = f"{weight.dtype}{weight.dims}{weight.digest}".encode()
            prints[name] = Print(digest, digest, weight.dims, is_plain=True)
    names = [name for node in inside.nodes for name in node.outputs if name]
    count = _FEW
    while names:
        chunk, names = names[:count], names[count:]
        size = 1
        for name, array in fetch(inside.path, chunk, feeds):
            prints[name] = print_of(array)
            size += array.nbytes
        count = max(1, min(_MANY, 8 * count, LIMIT * len(chunk) // size))
    return prints


def fetch(path: Path, names: Sequence[str], feeds: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    """Yields inner values of a model, without those that onnxruntime does not put out or numpy does not have.

    Raises:
        VerifyError: The model cannot be run.
    """
    try:
        arrays = fetched(path, names, feeds)
    except DriveError as error:
        if not names:
            raise VerifyError(f"the inside of the model cannot be seen: {error.message}", where=str(path)) from None
        if len(names) > 1:
            # Some value is none that can be an output: a sequence that an operator keeps to itself, say.
            half = len(names) // 2
            yield from fetch(path, names[:half], feeds)
            yield from fetch(path, names[half:], feeds)
        return
    yield from arrays.items()


def fetched(path: Path, names: Iterable[str], feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Returns inner values of a model, without those that numpy does not have.

    Raises:
        DriveError: onnxruntime cannot put out one of them, or the model cannot be run.
    """
    with tapped(path, names) as copy:
        session = Session(copy)
        dtypes = {port.name: port.dtype for port in session.outputs}
        return session.run(feeds, [name for name in names if dtypes[name] in DRIVABLE])
