"""Whether arrays are what a model declares: fixed sizes, and one size for one symbol."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxfix.convention.layout import show_dims
from onnxfix.convention.signature import Port
from onnxfix.verify.compare import Mismatch

if TYPE_CHECKING:
    from onnxfix.convention.route import Array


@dataclass(frozen=True)
class Contradiction:
    """An array that is not of the shape that its port declares.

    Attributes:
        port: The port.
        symbol: The symbol that stands for another size elsewhere; empty where a fixed size or the rank is wrong.
        mismatch: The declared dims and the shape.
    """

    port: str
    symbol: str
    mismatch: Mismatch


def contradictions(
    ports: Iterable[Port], arrays: Mapping[str, Array], but: Collection[str] = ()
) -> list[Contradiction]:
    """Returns where the arrays of one call contradict the declared dims, once for each port and symbol.

    A symbol stands for one size in all inputs and outputs of a call. Ports without a declared rank tell nothing.

    Args:
        ports: The model's ports; the first that names a symbol says how large it is.
        arrays: What was fed and put out.
        but: Ports and symbols of which nothing is believed.
    """
    found: list[Contradiction] = []
    symbols: dict[str, tuple[int, str]] = {}
    for port in ports:
        if port.dims is None or port.name not in arrays or port.name in but:
            continue
        shape = arrays[port.name].shape
        declared, actual = show_dims(port.dims), str(list(shape))
        fixed = [
            size if dim is None or isinstance(dim, str) else dim for dim, size in zip(port.dims, shape, strict=False)
        ]
        if len(shape) != len(port.dims) or tuple(fixed) != shape:
            found.append(Contradiction(port.name, "", Mismatch((), declared, actual, "dims")))
            continue
        for dim, size in zip(port.dims, shape, strict=True):
            if not isinstance(dim, str) or dim in but:
                continue
            known, first = symbols.setdefault(dim, (size, port.name))
            if known != size:
                because = f"{declared}, with {dim} = {known} as in `{first}`"
                found.append(Contradiction(port.name, dim, Mismatch((), because, actual, "dims")))
    return found
