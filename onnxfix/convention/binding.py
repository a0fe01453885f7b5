"""A convention matched to the ports of one model: which port holds which part of which cache, and how large it is."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from onnxfix.convention.convention import CacheSpec, Convention, PortSpec, TensorSpec
from onnxfix.convention.layout import show_dims
from onnxfix.convention.signature import Dim, Port, Signature
from onnxfix.convention.template import LABELS, label_text
from onnxfix.errors import DetectError, PlanError

SHARED = ("layer", "batch")
"""Axes whose size one cache may lend to another of the same model."""


@dataclass(frozen=True)
class BoundTensor:
    """One port as a part of a cache.

    Attributes:
        port: The graph input or output.
        spec: The sentence that it matches.
        labels: The label of each axis that is spread over names.
        sizes: The size of each axis of its layout; an int, the name of a symbolic size, or None.
    """

    port: Port
    spec: TensorSpec
    labels: Mapping[str, int]
    sizes: Mapping[str, Dim]


@dataclass(frozen=True)
class BoundCache:
    """One cache of a convention with the ports that hold it.

    Attributes:
        spec: The cache.
        past: The inputs, sorted by labels.
        present: The outputs, paired with `past` by position; empty for a cache that is only read.
    """

    spec: CacheSpec
    past: tuple[BoundTensor, ...]
    present: tuple[BoundTensor, ...]

    @property
    def labels(self) -> dict[str, tuple[int, ...]]:
        """The labels of each axis that is spread over names, sorted."""
        axes = self.past[0].spec.template.axes
        return {axis: tuple(sorted({tensor.labels[axis] for tensor in self.past})) for axis in axes}

    def size(self, axis: str) -> Dim:
        """Returns the size of an axis in the past; None where it is unknown or differs from tensor to tensor."""
        if axis in self.labels:
            return len(self.labels[axis])
        sizes = {tensor.sizes[axis] for tensor in self.past}
        return sizes.pop() if len(sizes) == 1 else None


@dataclass(frozen=True)
class Binding:
    """A convention bound to a model.

    Attributes:
        convention: The convention.
        signature: The model's ports.
        caches: The caches that the model has, in the convention's order.
        inputs, outputs: The other ports that the convention knows and the model has, by name.
        sizes: Sizes that the user gave, by axis, cache and axis, or symbolic dim.
    """

    convention: Convention
    signature: Signature
    caches: tuple[BoundCache, ...]
    inputs: Mapping[str, PortSpec]
    outputs: Mapping[str, PortSpec]
    sizes: Mapping[str, int]

    @property
    def pairs(self) -> dict[str, str]:
        """Which input an output feeds at the next tick: past name to present name."""
        return {
            past.port.name: present.port.name
            for cache in self.caches
            for past, present in zip(cache.past, cache.present, strict=False)
        }

    def cache(self, name: str) -> BoundCache | None:
        """Returns the cache of that name; None if the model lacks it."""
        return next((cache for cache in self.caches if cache.spec.name == name), None)


def bind(convention: Convention, signature: Signature, sizes: Mapping[str, int] | None = None) -> Binding:
    """Binds a convention to the ports of a model.

    Args:
        convention: The convention.
        signature: The model's ports and metadata.
        sizes: Sizes that the layouts leave open, by axis (`head`) or cache and axis (`attention.head`).

    Raises:
        DetectError: A cache that is not optional is missing or incomplete, or a port does not fit its layout.
    """
    given = dict(sizes or {})
    caches = []
    for spec in convention.caches:
        past = _collect(spec.past, signature.inputs, spec, "input")
        if not past and spec.optional:
            continue
        present = _collect(spec.present, signature.outputs, spec, "output")
        caches.append(_pair(spec, past, present, convention))
    if not caches:
        raise DetectError(f"no port of the model belongs to `{convention}`")
    known = _known_sizes(convention, signature, given)
    solved = [_solve(cache, {}, known) for cache in caches]
    shared = {axis: size for axis in SHARED for cache in solved if isinstance(size := _size(cache, axis), int)}
    solved = [_solve(cache, shared, known) for cache in solved]
    return Binding(
        convention, signature, tuple(solved),
        _ports(convention.inputs, signature.inputs), _ports(convention.outputs, signature.outputs), given,
    )  # fmt: skip


def _size(cache: BoundCache, axis: str) -> Dim:
    return cache.size(axis) if axis in cache.spec.axes else None


def _known_sizes(convention: Convention, signature: Signature, given: Mapping[str, int]) -> dict[str, int]:
    """Returns the sizes that metadata tells and, before them, those that the user gave."""
    known = {key: int(value) for key, value in signature.metadata.items() if value.strip().lstrip("-").isdecimal()}
    told = {key: size for key, text in convention.sizes.items() if (size := text.value(known)) is not None and size > 0}
    return {**told, **given}


def _collect(specs: Iterable[TensorSpec], ports: Iterable[Port], cache: CacheSpec, kind: str) -> list[BoundTensor]:
    """Returns the ports that match the sentences, complete and sorted by labels."""
    ports = list(ports)
    found: list[BoundTensor] = []
    for spec in specs:
        matched = [(labels, port) for port in ports if (labels := spec.template.match(port.name)) is not None]
        found += [BoundTensor(port, spec, labels, {}) for labels, port in matched]
    if not found:
        return []
    axes = found[0].spec.template.axes
    values = {axis: sorted({tensor.labels[axis] for tensor in found} | _all_labels(specs, axis)) for axis in axes}
    have = {tuple(tensor.labels[axis] for axis in axes) for tensor in found}
    for wanted in itertools.product(*(values[axis] for axis in axes)):
        if wanted not in have:
            text = ", ".join(f"{axis} {label_text(axis, label)}" for axis, label in zip(axes, wanted, strict=True))
            raise DetectError(
                f"the {kind} for {text} of the cache `{cache.name}` is missing", where=_family(specs, axes, wanted)
            )
    return sorted(found, key=lambda tensor: tuple(tensor.labels[axis] for axis in axes))


def _all_labels(specs: Iterable[TensorSpec], axis: str) -> set[int]:
    """Returns the labels that must be there whatever the model: those with a spelling, and fixed ones."""
    labels: set[int] = set()
    for spec in specs:
        for hole in spec.template.holes:
            if hole.axis == axis:
                labels |= {hole.label} if hole.label is not None else set(range(len(hole.spellings)))
    return labels


def _family(specs: Iterable[TensorSpec], axes: tuple[str, ...], labels: tuple[int, ...]) -> str:
    by_axis = dict(zip(axes, labels, strict=True))
    for spec in specs:
        if all(by_axis[axis] == label for axis, label in spec.template.fixed.items()):
            return spec.template.format(by_axis)
    return ""


def _pair(spec: CacheSpec, past: list[BoundTensor], present: list[BoundTensor], convention: Convention) -> BoundCache:
    if not past:
        names = ", ".join(f"`{tensor.template}`" for tensor in spec.past)
        raise DetectError(f"no input is called {names}: the cache `{spec.name}` of `{convention}` is missing")
    if spec.present and [tensor.labels for tensor in past] != [tensor.labels for tensor in present]:
        ours = {tuple(tensor.labels.items()) for tensor in present}
        odd = next((tensor for tensor in past if tuple(tensor.labels.items()) not in ours), None)
        if odd is None:
            extra = {tuple(tensor.labels.items()) for tensor in past}
            odd = next(tensor for tensor in present if tuple(tensor.labels.items()) not in extra)
            raise DetectError("this output feeds no input", where=odd.port.name)
        partner = spec.present[spec.past.index(odd.spec)].template.format(odd.labels)
        raise DetectError(f"the output `{partner}`, which should feed this input, is missing", where=odd.port.name)
    return BoundCache(spec, tuple(past), tuple(present))


def _solve(cache: BoundCache, shared: Mapping[str, int], known: Mapping[str, int]) -> BoundCache:
    """Returns the cache with the sizes of all axes that can be told from dims and from what is known."""
    certain = {axis: len(names) for axis, names in LABELS.items()}
    certain |= {
        axis: known[key] for axis in cache.spec.axes if (key := f"{cache.spec.name}.{axis}") in known and axis != "time"
    }
    past = tuple(_bind_tensor(tensor, certain, shared, known, {}) for tensor in cache.past)
    present = tuple(
        _bind_tensor(tensor, certain, shared, known, partner.sizes)
        for tensor, partner in zip(cache.present, past, strict=False)
    )
    return replace(cache, past=past, present=present)


def _bind_tensor(
    tensor: BoundTensor, certain: Mapping[str, int], shared: Mapping[str, int], known: Mapping[str, int],
    partner: Mapping[str, Dim],
) -> BoundTensor:  # fmt: skip
    """Binds one port: first from its dims alone, then open axes from the partner, other caches and metadata."""
    layout = tensor.spec.layout
    if tensor.port.dims is None:
        dims: tuple[Dim, ...] = (None,) * layout.rank
    else:
        dims = tensor.port.dims
    try:
        sizes = layout.bind(dims, certain)
        hints: dict[str, int] = {}
        for axis in (axis for axis, size in sizes.items() if size is None):
            for source in (partner, shared, known):
                if isinstance(size := source.get(axis), int):
                    hints[axis] = size
                    break
        if hints:
            sizes = layout.bind(dims, {**certain, **hints})
    except PlanError as error:
        raise DetectError(
            f"{error.message} (declared as {show_dims(tensor.port.dims)})", where=tensor.port.name
        ) from None
    if isinstance(sizes.get("layer"), str):
        raise DetectError(
            f"the layer axis of `{layout}` has the symbolic size `{sizes['layer']}`", where=tensor.port.name
        )
    return replace(tensor, sizes=sizes)


def _ports(specs: Iterable[PortSpec], ports: Iterable[Port]) -> dict[str, PortSpec]:
    """Returns the other ports that the model has as the convention describes them."""
    by_name = {port.name: port for port in ports}
    found = {}
    for spec in specs:
        port = by_name.get(spec.name)
        if port is None or (spec.dtype is not None and port.dtype != spec.dtype):
            continue
        if port.dims is None or len(port.dims) == spec.layout.rank:
            found[spec.name] = spec
    return found
