"""All that conventions see of a model: its ports and its metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

Dim = int | str | None
"""A size; the name of a symbolic size (`dim_param`); None where the file says nothing."""

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
