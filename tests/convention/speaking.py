"""Models that speak a given convention, without any model: their signatures, and arrays for their caches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from einops import rearrange

from onnxfix.convention.binding import bind
from onnxfix.convention.convention import Convention, PortSpec, TensorSpec, convention_from_sentences
from onnxfix.convention.layout import show_item
from onnxfix.convention.load import library
from onnxfix.convention.plan import Edits, Plan, make_plan
from onnxfix.convention.signature import Dim, Port, Signature

if TYPE_CHECKING:
    from onnxfix.convention.route import Array

Sizes = Mapping[str, Dim]
Labels = Mapping[str, Sequence[int]]

SIZES: Sizes = {"layer": 3, "batch": 1, "head": 5, "time": 7, "kv": 2, "hc": 2, "dim": 11, "channel": 55}
"""Sizes of what WeNet and its like carry along; all different, so that no wrong transpose can hide."""


def names_of(spec: TensorSpec, labels: Mapping[str, Sequence[int]]) -> list[tuple[str, dict[str, int]]]:
    """Gives the names that a sentence stands for, with their labels, in the order of its name."""
    axes = spec.template.axes
    fixed = spec.template.fixed
    rows = itertools.product(*([fixed[axis]] if axis in fixed else labels[axis] for axis in axes))
    return [(spec.template.format(row), row) for row in (dict(zip(axes, one, strict=True)) for one in rows)]


def _labels(sizes: Sizes, labels: Labels | None) -> dict[str, Sequence[int]]:
    return {**{axis: range(size) for axis, size in sizes.items() if isinstance(size, int)}, **(labels or {})}


def dims_of(layout_items: Iterable[tuple[str, ...]], sizes: Sizes, names: Mapping[str, str]) -> tuple[Dim, ...]:
    """Gives a tensor's dims: the name of a symbolic size is the convention's where it has one."""
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
    """Gives the ports of a cache, sorted by label."""
    return [
        Port(name, "float32", dims_of(spec.layout.items, sizes, spec.dims))
        for spec in specs
        for name, _ in names_of(spec, _labels(sizes, labels))
    ]


def other_port(spec: PortSpec, sizes: Sizes) -> Port:
    """Gives a port that is no cache; sizes that nobody gave get a name."""
    named = {axis: spec.dims.get(axis, axis.upper()) for axis in spec.layout.axes if axis not in sizes}
    default = "int64" if spec.role in ("tokens", "positions", "offset", "lengths", "cache-length") else "float32"
    return Port(spec.name, spec.dtype or default, dims_of(spec.layout.items, {**sizes, **named}, spec.dims))


def signature_of(
    convention: Convention, sizes: Sizes = SIZES, *, labels: Labels | None = None,
    metadata: Mapping[str, str] | None = None, without: Iterable[str] = (),
) -> Signature:  # fmt: skip
    """Gives a model that speaks a convention, its ports in the convention's order.

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
        units = {spec.name: [other_port(spec, known)] for spec in specs if spec.name not in absent}
        for cache in convention.caches:
            tensors = cache.past if kind == "past" else cache.present
            if cache.name not in absent and tensors:
                units[cache.name] = in_order(cache_ports(tensors, sizes, labels), tensors, convention)
        ranks = {name: index for index, name in enumerate(order)}
        names = sorted(units, key=lambda name: ranks.get(name, len(ranks)))
        sides.append(tuple(port for name in names for port in units[name]))
    return Signature(sides[0], sides[1], metadata or {})


def in_order(ports: list[Port], specs: Sequence[TensorSpec], convention: Convention) -> list[Port]:
    """Sorts the ports of one cache as the convention orders them."""
    keys = [axis for axis in convention.cache_order if axis != "cache"]
    if not keys:
        return ports
    labels = {port.name: spec.template.match(port.name) or {} for port in ports for spec in specs}
    return sorted(ports, key=lambda port: [labels[port.name].get(axis, 0) for axis in keys])


def signature_after(plan: Plan) -> Signature:
    """Gives the model that a conversion leaves."""
    metadata = {**plan.binding.signature.metadata, **plan.metadata}
    return Signature(plan.inputs, plan.outputs, metadata)


def anonymous(signature: Signature) -> Signature:
    """Gives the model with other names for its symbolic dims."""
    names: dict[str, str] = {}

    def rename(port: Port) -> Port:
        dims = tuple(
            names.setdefault(dim, f"s{len(names)}") if isinstance(dim, str) else dim for dim in port.dims or ()
        )
        return replace(port, dims=dims)

    return replace(
        signature, inputs=tuple(map(rename, signature.inputs)), outputs=tuple(map(rename, signature.outputs))
    )


def shuffled(signature: Signature, seed: int = 0) -> Signature:
    """Gives the model with its ports in another order."""
    random = np.random.default_rng(seed)
    return replace(
        signature,
        inputs=tuple(signature.inputs[index] for index in random.permutation(len(signature.inputs))),
        outputs=tuple(signature.outputs[index] for index in random.permutation(len(signature.outputs))),
    )


def logical(axes: Sequence[str], sizes: Mapping[str, int]) -> Array:
    """Gives a whole cache with a value of its own at every place."""
    shape = tuple(sizes[axis] for axis in axes)
    return np.arange(math.prod(shape), dtype=np.float32).reshape(shape)


def spread(
    whole: Array, axes: Sequence[str], specs: Sequence[TensorSpec], labels: Labels | None = None
) -> dict[str, Array]:
    """Takes a whole cache apart as einops understands the sentences; axes that they lack have size 1.

    Args:
        whole: The cache.
        axes: Its axes.
        specs: The sentences.
        labels: Which label is at which index of an axis, where it is not the index.
    """
    every = {axis: (labels or {}).get(axis, range(size)) for axis, size in zip(axes, whole.shape, strict=True)}
    arrays = {}
    for spec in specs:
        for name, row in names_of(spec, every):
            index = [
                every[axis].index(row[axis]) if axis in row else 0 if axis not in spec.axes else slice(None)
                for axis in axes
            ]
            left = [axis for axis, one in zip(axes, index, strict=True) if isinstance(one, slice)]
            arrays[name] = rearrange(whole[tuple(index)], f"{' '.join(left)} -> {spec.layout}")
    return arrays


def convention(text: str | list[str]) -> Convention:
    """Gives a convention of the library by name, or ad hoc sentences."""
    return library()[text] if isinstance(text, str) else convention_from_sentences(text)


def of_no_family(one: Convention) -> Convention:
    """Gives a convention that may meet any other."""
    return replace(one, family="")


def plan(
    source: str | list[str], target: str | list[str] | None, sizes: Sizes = SIZES, *,
    edits: Edits | None = None, given: Mapping[str, int] | None = None, labels: Labels | None = None,
    metadata: Mapping[str, str] | None = None, without: Iterable[str] = (),
) -> Plan:  # fmt: skip
    """Plans the conversion of a model that speaks `source`; sizes, labels and metadata are the model's.

    The target is of no family.
    """
    signature = signature_of(convention(source), sizes, labels=labels, metadata=metadata, without=without)
    return make_plan(
        bind(convention(source), signature, given), of_no_family(convention(target)) if target else None, edits
    )


def names(ports: Iterable[Port]) -> list[str]:
    """Gives the names of ports, in order."""
    return [port.name for port in ports]


def dims(ports: Iterable[Port]) -> dict[str, tuple[Dim, ...] | None]:
    """Gives the dims of ports, by name."""
    return {port.name: port.dims for port in ports}
