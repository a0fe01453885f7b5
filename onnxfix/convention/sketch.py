"""Signatures of models that speak a convention, made from what the convention says."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias, TypeVar

from onnxfix.convention.convention import Convention, PortSpec, TensorSpec
from onnxfix.convention.layout import show_item
from onnxfix.convention.signature import Dim, Port, Signature

Sizes: TypeAlias = Mapping[str, Dim]
Labels: TypeAlias = Mapping[str, Sequence[int]]
Item = TypeVar("Item")

SIZES: Sizes = {
    "layer": 3, "batch": 1, "head": 5, "time": 7, "kv": 2, "hc": 2, "dim": 11, "channel": 55, "row": 13, "column": 17,
    "stack": 4, "side": 2, "part": 6, "bin": 19,
}  # fmt: skip
"""Sizes of the axes that caches have; all different where they are free, so that no wrong transpose can hide."""
COUNTING = ("tokens", "positions", "offset", "lengths", "cache-length")
"""Roles of ports that hold integers where a convention does not say what they hold."""


def names_of(spec: TensorSpec, labels: Mapping[str, Sequence[int]]) -> list[tuple[str, dict[str, int]]]:
    """Returns the names that a sentence stands for, with their labels, in the order of its name."""
    axes = spec.template.axes
    fixed = spec.template.fixed
    rows = itertools.product(*([fixed[axis]] if axis in fixed else labels[axis] for axis in axes))
    return [(spec.template.format(row), row) for row in (dict(zip(axes, one, strict=True)) for one in rows)]


def labels_of(sizes: Sizes, labels: Labels | None = None) -> dict[str, Sequence[int]]:
    """Returns the labels of each axis of a known size: those given, or as many as it is long."""
    return {**{axis: range(size) for axis, size in sizes.items() if isinstance(size, int)}, **(labels or {})}


def dims_of(layout_items: Iterable[tuple[str, ...]], sizes: Sizes, names: Mapping[str, str]) -> tuple[Dim, ...]:
    """Returns a tensor's dims: the name of a symbolic size is the convention's where it has one."""
    dims: list[Dim] = []
    for item in layout_items:
        factors = [sizes.get(axis, 1) for axis in item]
        ints = [factor for factor in factors if isinstance(factor, int)]
        if len(ints) == len(factors):
            dims.append(math.prod(ints))
        else:
            dims.append(names.get(show_item(item)) or (factors[0] if len(item) == 1 else None))
    return tuple(dims)


def cache_ports(specs: Sequence[TensorSpec], sizes: Sizes, labels: Labels | None = None) -> list[Port]:
    """Returns the ports of a cache, sorted by label."""
    return [port for _, port in _labelled_ports(specs, sizes, labels)]


def _labelled_ports(
    specs: Sequence[TensorSpec], sizes: Sizes, labels: Labels | None
) -> list[tuple[Mapping[str, int], Port]]:
    return [
        (row, Port(name, "float32", dims_of(spec.layout.items, sizes, spec.dims)))
        for spec in specs
        for name, row in names_of(spec, labels_of(sizes, labels))
    ]


def other_port(spec: PortSpec, sizes: Sizes) -> Port:
    """Returns a port that is no cache; sizes that nobody gave get a name."""
    named = {axis: spec.dims.get(axis, axis.upper()) for axis in spec.layout.axes if axis not in sizes}
    default = "int64" if spec.role in COUNTING else "float32"
    return Port(spec.name, spec.dtype or default, dims_of(spec.layout.items, {**sizes, **named}, spec.dims))


def signature_of(
    convention: Convention, sizes: Sizes = SIZES, *, labels: Labels | None = None,
    metadata: Mapping[str, str] | None = None, without: Iterable[str] = (),
) -> Signature:  # fmt: skip
    """Returns a model that speaks a convention, its ports in the convention's order.

    Args:
        convention: The convention.
        sizes: The size of each axis.
        labels: Labels of axes, where they do not count from 0.
        metadata: The model's metadata.
        without: Caches and ports that the model lacks.
    """
    absent = set(without)
    named = {axis: name for cache in convention.caches for spec in cache.past for axis, name in spec.dims.items()}
    known = {**sizes, **{axis: name for axis, name in named.items() if isinstance(sizes.get(axis), str)}}
    sides = []
    for kind, specs, order in (
        ("past", convention.inputs, convention.input_order),
        ("present", convention.outputs, convention.output_order),
    ):
        units: list[tuple[tuple[str, ...], list[Port]]] = [
            ((spec.name,), [other_port(spec, known)]) for spec in specs if spec.name not in absent
        ]
        rows = {
            cache.name: _labelled_ports(cache.past if kind == "past" else cache.present, sizes, labels)
            for cache in convention.caches
            if cache.name not in absent
        }
        units += ordered_units({name: ports for name, ports in rows.items() if ports}, convention.cache_order)
        ranks = {name: index for index, name in enumerate(order)}
        units.sort(key=lambda unit: min(ranks.get(name, len(ranks)) for name in unit[0]))
        sides.append(tuple(port for _, ports in units for port in ports))
    return Signature(sides[0], sides[1], metadata or {})


def ordered_units(
    rows: Mapping[str, Sequence[tuple[Mapping[str, int], Item]]], keys: Sequence[str]
) -> list[tuple[tuple[str, ...], list[Item]]]:
    """Returns the tensors of caches in the order of a convention: cache by cache, or all of them as one unit.

    Args:
        rows: The tensors of each cache, by its name, with their labels.
        keys: `Convention.cache_order`.
    """
    if not keys:
        return [((name,), [item for _, item in own]) for name, own in rows.items()]

    def place(row: tuple[Mapping[str, int], Item]) -> list[float]:
        rest = sorted(axis for axis in row[0] if axis not in keys)
        return [row[0].get(axis, math.inf) for axis in (*keys, *rest)]

    numbered: list[tuple[tuple[str, ...], list[tuple[Mapping[str, int], Item]]]] = [
        ((name,), [({**labels, "cache": number}, item) for labels, item in own])
        for number, (name, own) in enumerate(rows.items())
    ]
    if keys[0] != "cache":
        numbered = [(tuple(rows), [row for _, own in numbered for row in own])]
    return [(names, [item for _, item in sorted(own, key=place)]) for names, own in numbered]
