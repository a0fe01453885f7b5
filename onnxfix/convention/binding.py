"""A convention matched to the ports of one model: which port holds which part of which cache, and how large it is."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from onnxfix.convention.convention import CacheSpec, Convention, PortSpec, TensorSpec
from onnxfix.convention.layout import Layout, show_dims
from onnxfix.convention.signature import Dim, Port, Signature
from onnxfix.convention.template import LABELS, label_text
from onnxfix.errors import DetectError, PlanError

SHARED = ("layer", "batch")
"""Axes whose size one cache may lend to another of the same model."""
VARYING = ("batch", "time")
"""Axes whose size may change from call to call."""
NO_TENSORS = ("string", "sequence", "optional", "map")
"""What `Port.dtype` says of ports that cannot be caches."""
COUNTED = ("layer", *LABELS)
"""Axes that must be of a fixed size wherever they lie in a tensor: their labels are counted out."""


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

    @cached_property
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
        misfits: Optional caches of which the model has ports that do not fit, and why.
    """

    convention: Convention
    signature: Signature
    caches: tuple[BoundCache, ...]
    inputs: Mapping[str, PortSpec]
    outputs: Mapping[str, PortSpec]
    sizes: Mapping[str, int]
    misfits: Mapping[str, str] = field(default_factory=dict)

    @property
    def pairs(self) -> dict[str, str]:
        """Which input and output are one tensor of a cache: past name to present name."""
        return {
            past.port.name: present.port.name
            for cache in self.caches
            for past, present in zip(cache.past, cache.present, strict=False)
        }

    @property
    def feedback(self) -> dict[str, str]:
        """Which input an output feeds at the next tick, as `pairs`; a fixed cache is fed as it was."""
        fixed = {past.port.name for cache in self.caches if cache.spec.update == "fixed" for past in cache.past}
        return {past: present for past, present in self.pairs.items() if past not in fixed}

    @property
    def symbols(self) -> list[str]:
        """The symbolic dims of all ports, sorted."""
        ports = (*self.signature.inputs, *self.signature.outputs)
        return sorted({dim for port in ports for dim in port.dims or () if isinstance(dim, str)})

    def symbols_of(self, axis: str) -> set[str]:
        """Returns the symbolic dims that an axis has in the past of caches and in other inputs."""
        sizes = [tensor.sizes.get(axis) for cache in self.caches for tensor in cache.past]
        for name, spec in self.inputs.items():
            port = self.signature.input(name)
            if port is not None and port.dims is not None and (axis,) in spec.layout.items:
                sizes.append(port.dims[spec.layout.place(axis)[0]])
        return {size for size in sizes if isinstance(size, str)}

    def cache(self, name: str) -> BoundCache | None:
        """Returns the cache of that name; None if the model lacks it."""
        return next((cache for cache in self.caches if cache.spec.name == name), None)


def bind(convention: Convention, signature: Signature, sizes: Mapping[str, int] | None = None) -> Binding:
    """Binds a convention to the ports of a model.

    An optional cache that does not fit is left out, and `Binding.misfits` says why.

    Args:
        convention: The convention.
        signature: The model's ports and metadata.
        sizes: Sizes that the layouts leave open, by axis (`head`) or cache and axis (`attention.head`).

    Raises:
        DetectError: A cache that is not optional is missing or incomplete, a port does not fit its layout or belongs to
            two caches, or a size contradicts `sizes`.
        LayoutError: A name can be read in several ways.
    """
    given = dict(sizes or {})
    numbers = signature.numbers
    told = {key: size for key, text in convention.sizes.items() if (size := text.value(numbers)) and size > 0}
    alone: list[BoundCache] = []
    misfits: dict[str, str] = {}
    for spec in convention.caches:
        try:
            cache = _find(spec, convention, signature)
            if cache is not None:
                alone.append(_solve(cache, {**_of_cache(told, cache, but="time"), **_of_cache(given, cache)}, given))
        except DetectError as error:
            if not spec.optional:
                raise
            misfits[spec.name] = f"{error.where}: {error.message}" if error.where else error.message
    if not alone:
        raise DetectError(f"no port of the model belongs to `{convention}`")
    _check_claims(alone)
    shared = _shared_sizes(alone)
    solved = [
        _solve(cache, {**_of_cache(told, cache, but="time"), **shared, **_of_cache(given, cache)}, given)
        if _is_open(cache, shared)
        else cache
        for cache in alone
    ]
    _check_given(solved, given)
    inputs, outputs = _ports(convention.inputs, signature.inputs), _ports(convention.outputs, signature.outputs)
    return Binding(convention, signature, tuple(solved), inputs, outputs, given, misfits)


def size_of(sizes: Mapping[str, int], cache: str, axis: str) -> int | None:
    """Returns what is said of the size of an axis: of this cache alone (`attention.head`) before all (`head`)."""
    return sizes.get(f"{cache}.{axis}", sizes.get(axis))


def _of_cache(sizes: Mapping[str, int], cache: BoundCache, but: str = "") -> dict[str, int]:
    found = {axis: size_of(sizes, cache.spec.name, axis) for axis in sorted(cache.spec.axes) if axis != but}
    return {axis: size for axis, size in found.items() if size is not None}


def _shared_sizes(caches: Iterable[BoundCache]) -> dict[str, int]:
    """Returns the sizes of shared axes on which all caches agree that know them."""
    caches = list(caches)
    shared = {}
    for axis in SHARED:
        sizes = {cache.size(axis) for cache in caches if axis in cache.spec.axes} - {None}
        size = sizes.pop() if len(sizes) == 1 else None
        if isinstance(size, int):
            shared[axis] = size
    return shared


def _is_open(cache: BoundCache, shared: Mapping[str, int]) -> bool:
    """Whether a size that other caches know is not known here."""
    return any(tensor.sizes.get(axis, 0) is None for tensor in (*cache.past, *cache.present) for axis in shared)


def _find(spec: CacheSpec, convention: Convention, signature: Signature) -> BoundCache | None:
    """Returns a cache with its ports; None if it is optional and the model lacks it."""
    past = _collect(spec.past, signature.inputs, spec, "input")
    if not past and spec.optional:
        return None
    if not past:
        names = ", ".join(f"`{tensor.template}`" for tensor in spec.past)
        raise DetectError(f"no input is called {names}: the cache `{spec.name}` of `{convention}` is missing")
    present = _collect(spec.present, signature.outputs, spec, "output")
    is_read_only = not spec.present or (spec.present_optional and not present)
    return BoundCache(spec, tuple(past), () if is_read_only else _pair(spec, past, present))


def _collect(specs: Sequence[TensorSpec], ports: Iterable[Port], cache: CacheSpec, kind: str) -> list[BoundTensor]:
    """Returns the ports that match the sentences, complete and sorted by labels."""
    found = [
        BoundTensor(port, spec, labels, {})
        for port in ports
        for spec in specs
        if (labels := spec.template.match(port.name)) is not None
    ]
    if not found:
        return []
    axes = specs[0].template.axes
    by_label: dict[tuple[int, ...], BoundTensor] = {}
    for tensor in found:
        key = tuple(tensor.labels[axis] for axis in axes)
        if key in by_label:
            message = f"this {kind} and `{by_label[key].port.name}` are the same part of the cache `{cache.name}`"
            raise DetectError(message, where=tensor.port.name)
        by_label[key] = tensor
    columns = [sorted({key[index] for key in by_label} | _all_labels(specs, axis)) for index, axis in enumerate(axes)]
    for wanted in itertools.product(*columns):
        if wanted not in by_label:
            text = ", ".join(f"{axis} {label_text(axis, label)}" for axis, label in zip(axes, wanted, strict=True))
            message = f"the {kind} for {text} of the cache `{cache.name}` is missing"
            raise DetectError(message, where=_name_of(specs, dict(zip(axes, wanted, strict=True))))
    return [by_label[key] for key in sorted(by_label)]


def _all_labels(specs: Iterable[TensorSpec], axis: str) -> set[int]:
    """Returns the labels that must be there whatever the model: those with a spelling, and fixed ones."""
    labels: set[int] = set()
    for spec in specs:
        for hole in spec.template.holes:
            if hole.axis == axis:
                labels |= {hole.label} if hole.label is not None else set(range(len(hole.spellings)))
    return labels


def _name_of(specs: Iterable[TensorSpec], labels: Mapping[str, int]) -> str:
    """Returns how the tensor of these labels would be called."""
    fits = (spec for spec in specs if all(labels[axis] == label for axis, label in spec.template.fixed.items()))
    spec = next(fits, None)
    return spec.template.format(labels) if spec else ""


def _pair(spec: CacheSpec, past: list[BoundTensor], present: list[BoundTensor]) -> tuple[BoundTensor, ...]:
    """Returns the output that feeds each input."""
    axes = past[0].spec.template.axes
    inputs = {tuple(tensor.labels[axis] for axis in axes): tensor for tensor in past}
    outputs = {tuple(tensor.labels[axis] for axis in axes): tensor for tensor in present}
    for key, tensor in inputs.items():
        if key not in outputs:
            message = f"the output `{_name_of(spec.present, tensor.labels)}`, which should feed this input, is missing"
            raise DetectError(message, where=tensor.port.name)
    for key, tensor in outputs.items():
        if key not in inputs:
            raise DetectError("this output feeds no input", where=tensor.port.name)
    return tuple(outputs[key] for key in inputs)


def _check_claims(caches: Iterable[BoundCache]) -> None:
    """Checks that no port belongs to two caches."""
    owners: dict[tuple[str, str], str] = {}
    for cache in caches:
        for kind, tensors in (("input", cache.past), ("output", cache.present)):
            for tensor in tensors:
                owner = owners.setdefault((kind, tensor.port.name), cache.spec.name)
                if owner != cache.spec.name:
                    message = f"this {kind} belongs both to the cache `{owner}` and to `{cache.spec.name}`"
                    raise DetectError(message, where=tensor.port.name)


def _check_given(caches: Iterable[BoundCache], given: Mapping[str, int]) -> None:
    """Checks that dims do not contradict what the user said."""
    for cache in caches:
        for axis, size in _of_cache(given, cache).items():
            if axis in cache.labels:
                found: set[Dim] = {len(cache.labels[axis])}
            else:
                found = {tensor.sizes[axis] for tensor in cache.past}
            odd = sorted(one for one in found - {size} if isinstance(one, int))
            if odd:
                message = f"`{axis}` of the cache `{cache.spec.name}` has size {odd[0]}, not {size}"
                raise DetectError(message, where=cache.past[0].port.name, hint=f"leave --size {axis}={size} out")


def _solve(cache: BoundCache, hints: Mapping[str, int], given: Mapping[str, int]) -> BoundCache:
    """Returns the cache with the sizes of all axes that can be told from dims and from hints."""
    counts = {axis: size for axis, size in _of_cache(given, cache).items() if axis in COUNTED}
    # Most layers are alike: their sizes are worked out once.
    known: dict[tuple[object, ...], Mapping[str, Dim]] = {}

    def bound(tensor: BoundTensor, same: Mapping[str, int]) -> BoundTensor:
        alike = (id(tensor.spec), tensor.port.dims, tensor.port.dtype, *same.items())
        if alike not in known:
            known[alike] = _sizes_of(tensor, {**hints, **same}, {**counts, **same})
        return BoundTensor(tensor.port, tensor.spec, tensor.labels, known[alike])

    past = tuple(bound(tensor, {}) for tensor in cache.past)
    present = []
    for tensor, partner in zip(cache.present, past, strict=False):
        # What an output feeds says how large it is, where the file does not; but not how long.
        same = {axis: size for axis, size in partner.sizes.items() if isinstance(size, int) and axis != "time"}
        present.append(bound(tensor, same))
    return replace(cache, past=past, present=tuple(present))


def _sizes_of(tensor: BoundTensor, hints: Mapping[str, int], counts: Mapping[str, int]) -> dict[str, Dim]:
    """Returns the sizes of a tensor's axes.

    Args:
        tensor: The tensor.
        hints: Sizes for axes in groups of which dims do not tell enough.
        counts: Sizes that take the place of symbolic or undeclared ones.
    """
    layout = tensor.spec.layout
    if tensor.port.dtype in NO_TENSORS:
        raise DetectError(f"a cache is a tensor, this port is of the kind {tensor.port.dtype}", where=tensor.port.name)
    dims = tensor.port.dims if tensor.port.dims is not None else (None,) * layout.rank
    labels = {axis: len(names) for axis, names in LABELS.items() if axis in layout.axes}
    try:
        sizes = layout.bind(dims, labels)
        if known := _needed(layout, dims, sizes, hints):
            sizes = layout.bind(dims, {**labels, **known})
    except PlanError as error:
        shown = "" if len(dims) != layout.rank else f" (declared as {show_dims(dims)})"
        raise DetectError(f"{error.message}{shown}", where=tensor.port.name) from None
    for item, dim in zip(layout.items, dims, strict=True):
        if isinstance(dim, str) and len(item) == 1 and item[0] in COUNTED and item[0] not in counts:
            message = f"the axis `{item[0]}` of `{layout}` has the symbolic size `{dim}`"
            raise DetectError(message, where=tensor.port.name, hint=f"say how large it is: --size {item[0]}=N")
    told = {axis: counts[axis] for axis, size in sizes.items() if axis in counts and not isinstance(size, int)}
    return {**sizes, **told}


def _needed(layout: Layout, dims: Sequence[Dim], sizes: Mapping[str, Dim], hints: Mapping[str, int]) -> dict[str, int]:
    """Returns the hints that dims need. Where a dim has no size, one axis stays open: best one that may vary."""
    known: dict[str, int] = {}
    for item, dim in zip(layout.items, dims, strict=True):
        left = sorted((axis for axis in item if sizes[axis] is None), key=VARYING.__contains__)
        most = len(left) if isinstance(dim, int) or set(item) <= set(COUNTED) else len(left) - 1
        known |= {axis: hints[axis] for axis in [axis for axis in left if axis in hints][:most]}
    return known


def _ports(specs: Iterable[PortSpec], ports: Iterable[Port]) -> dict[str, PortSpec]:
    """Returns the other ports that the model has as the convention describes them."""
    by_name = {port.name: port for port in ports}
    return {spec.name: spec for spec in specs if spec.name in by_name and is_described(by_name[spec.name], spec)}


def is_described(port: Port, spec: PortSpec) -> bool:
    """Whether a port has the element type and the rank that a convention gives it."""
    if spec.dtype not in (None, port.dtype):
        return False
    if port.dims is None:
        return True
    try:
        spec.layout.bind(port.dims)
    except PlanError:
        return False
    return True
