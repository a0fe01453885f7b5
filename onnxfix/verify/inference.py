"""What a trace leaves unsaid: its ports and ticks, as the arrays tell them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from onnxfix.convention.signature import Dim, Port, Signature
from onnxfix.verify.dtypes import DRIVABLE
from onnxfix.verify.header import Header, RecordedRun, TraceError
from onnxfix.verify.options import EMPTY, FULL

_START = "start/"
_INPUT, _OUTPUT = re.compile(r"tick/(\d{1,9})/input/(.+)"), re.compile(r"tick/(\d{1,9})/output/(.+)")


@dataclass(frozen=True)
class Stored:
    """An array as the file describes it.

    Attributes:
        dtype: numpy's name of its type.
        shape: Its shape.
    """

    dtype: str
    shape: tuple[int, ...]


def completed(header: Header, arrays: Mapping[str, Stored], where: str) -> Header:
    """Returns a header with the runs and the ports that it leaves unsaid.

    Args:
        header: What the file says.
        arrays: All arrays of the file, by name, in order.
        where: The file, for errors.

    Raises:
        TraceError: An array is of a type that no port has, or the ports do not speak the convention.
    """
    if not header.runs:
        header = replace(header, runs=_runs(arrays))
    if header.signature.inputs or header.signature.outputs:
        return header
    inputs = {**_ports(arrays, _INPUT), **_first(arrays)}
    outputs = _ports(arrays, _OUTPUT)
    ports = Signature(_made(inputs, where), _made(outputs, where), header.signature.metadata)
    header = replace(header, signature=ports)
    if not header.convention.caches or not any(name.startswith(_START) for name in arrays):
        return header
    # Only now it is known which output is fed back to which input: a cache may grow.
    for past, present in header.bind(where).pairs.items():
        inputs[past] = [*inputs[past], *outputs[present]]
    return replace(header, signature=replace(ports, inputs=_made(inputs, where)))


def _runs(names: Mapping[str, Stored]) -> tuple[RecordedRun, ...]:
    numbers = [int(found[1]) for name in names if (found := _OUTPUT.fullmatch(name))]
    is_empty = all(0 in one.shape for name, one in names.items() if name.startswith(_START))
    return (RecordedRun(EMPTY if is_empty else FULL, max(numbers, default=-1) + 1),)


def _first(arrays: Mapping[str, Stored]) -> dict[str, list[Stored]]:
    return {name.removeprefix(_START): [one] for name, one in arrays.items() if name.startswith(_START)}


def _ports(arrays: Mapping[str, Stored], pattern: re.Pattern[str]) -> dict[str, list[Stored]]:
    """Returns what was fed to, or put out by, each port at all ticks."""
    found: dict[str, list[Stored]] = {}
    for name, one in arrays.items():
        if match := pattern.fullmatch(name):
            found.setdefault(match[2], []).append(one)
    return found


def _made(arrays: Mapping[str, Collection[Stored]], where: str) -> tuple[Port, ...]:
    return tuple(_port(name, list(entries), where) for name, entries in arrays.items())


def _port(name: str, entries: list[Stored], where: str) -> Port:
    dtype = entries[0].dtype
    if dtype not in DRIVABLE:
        raise TraceError(f"no port holds arrays of type {dtype}", where=f"{where}: {name}", hint="array.astype(...)")
    ranks = {len(entry.shape) for entry in entries}
    if len(ranks) > 1:
        raise TraceError("the number of axes changes from tick to tick", where=f"{where}: {name}")
    return Port(name, dtype, tuple(_dim(sizes) for sizes in zip(*(entry.shape for entry in entries), strict=True)))


def _dim(sizes: Iterable[int]) -> Dim:
    """Returns a size that is the same at all ticks; None for one that changes."""
    known = set(sizes)
    return known.pop() if len(known) == 1 else None
