"""All that conventions see of a model: its ports and its metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from onnxfix.errors import UsageError

Dim = int | str | None
"""A size; the name of a symbolic size (`dim_param`); None where the file says nothing."""

LARGEST = 2**63 - 1
"""No dim of a model can be larger."""

_INTEGER = re.compile(r"\s*-?[0-9]{1,18}\s*")


@dataclass(frozen=True)
class Port:
    """A graph input or output.

    Attributes:
        name: The port's name in the graph.
        dtype: numpy's name of the element type (`float32`, `int64`, `bool`, `bfloat16`, ...), `string`, or, for a port
            that is no tensor, its kind (`sequence`, `optional`, `map`).
        dims: One entry per axis; None where the file declares no rank.
    """

    name: str
    dtype: str
    dims: tuple[Dim, ...] | None

    @property
    def rank(self) -> int | None:
        """The number of axes; None where the file declares none."""
        return None if self.dims is None else len(self.dims)


@dataclass(frozen=True)
class Signature:
    """A model as its caller sees it: ports in order, and `metadata_props`."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def numbers(self) -> dict[str, int]:
        """The entries of the metadata that are integers, by key."""
        return {key: int(text) for key, text in self.metadata.items() if _INTEGER.fullmatch(text)}

    def input(self, name: str) -> Port | None:
        """Returns the input of that name; None if there is none."""
        return next((port for port in self.inputs if port.name == name), None)

    def output(self, name: str) -> Port | None:
        """Returns the output of that name; None if there is none."""
        return next((port for port in self.outputs if port.name == name), None)


def require_size(size: int, where: str) -> int:
    """Returns a size that somebody gave, if a dim can have it.

    Raises:
        UsageError: It is less than 1 (nothing would be left to convert, and runtimes abort) or larger than any dim.
    """
    if 1 <= size <= LARGEST:
        return size
    shown = str(size) if abs(size) <= LARGEST else "this"
    raise UsageError(f"{shown} is no size", where=where, hint="a size is at least 1 and less than 2**63")
