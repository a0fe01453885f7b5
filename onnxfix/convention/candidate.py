"""A convention that fits a model, and what speaks for and against it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from onnxfix.convention.binding import SHARED, VARYING, Binding
from onnxfix.convention.sketch import ordered_units


@dataclass(frozen=True)
class Candidate:
    """A convention that fits a model.

    Attributes:
        binding: The convention, bound to the model.
        ports: How many inputs and outputs it explains as cache.
        score: How much else speaks for it (ports by role, dim names, sizes that agree), less what it lacks.
        conflicts: How many sizes speak against it: caches or metadata that disagree.
        reasons: The same in words; those against it begin with `but`.
        twins: The names of the other candidates that read the same caches in the same ports, in the same layouts.
    """

    binding: Binding
    ports: int
    score: int
    conflicts: int
    reasons: tuple[str, ...]
    twins: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The convention's name."""
        return str(self.binding.convention)

    @property
    def reading(self) -> frozenset[tuple[bool, str, str, tuple[tuple[str, int], ...]]]:
        """What the convention takes each port for: whether it is an input, its name, its layout, and its labels."""
        return frozenset(
            (is_past, tensor.port.name, str(tensor.spec.layout), tuple(sorted(tensor.labels.items())))
            for cache in self.binding.caches
            for is_past, tensors in ((True, cache.past), (False, cache.present))
            for tensor in tensors
        )

    @property
    def words(self) -> int:
        """How much the convention says: its caches, and the other ports that it asks for."""
        convention = self.binding.convention
        asked = [spec for spec in (*convention.inputs, *convention.outputs) if not spec.optional]
        return len(convention.caches) + len(asked)

    @property
    def rank(self) -> tuple[float, int]:
        """The larger, the better: the ports that it explains, half as many where a size speaks against it."""
        return (self.ports / 2 if self.conflicts else self.ports, self.score)


def judge(binding: Binding) -> Candidate:
    """Returns a convention that fits a model, with all that its ports and metadata say of it."""
    convention = binding.convention
    reasons: list[str] = []
    score = ports = 0
    for cache in binding.caches:
        ports += len(cache.past) + len(cache.present)
        reasons += [f"{spec.template} is {spec.layout}" for spec in (*cache.spec.past, *cache.spec.present)]
    named = [*binding.inputs, *binding.outputs]
    score += len(named)
    if named:
        reasons.append(f"has its other ports {', '.join(named)}")
    wanted = [spec.name for spec in (*convention.inputs, *convention.outputs) if not spec.optional]
    lacking = [name for name in wanted if name not in named]
    if lacking:
        # Of a share, so that a convention does not lose because it says more.
        score -= math.ceil(4 * len(lacking) / len(wanted))
        reasons.append(f"but lacks its ports {', '.join(lacking)}")
    judged = [*_judge_order(binding), *_judge_dim_names(binding), *_judge_shared(binding), *_judge_metadata(binding)]
    judged += [(-4, f"but its cache `{name}` does not fit: {reason}") for name, reason in binding.misfits.items()]
    conflicts = sum(weight < 0 for weight, _ in judged)
    judged += _judge_dims(binding)  # An exporter may leave all open: that is no conflict.
    score += sum(weight for weight, _ in judged)
    reasons += [reason for _, reason in judged]
    return Candidate(binding, ports, score, conflicts, tuple(reasons))


def _judge_order(binding: Binding) -> Iterable[tuple[int, str]]:
    """Yields whether the tensors of the caches stand in the order that the convention asks for."""
    keys = binding.convention.cache_order
    sides = (
        (binding.signature.inputs, {cache.spec.name: cache.past for cache in binding.caches}),
        (binding.signature.outputs, {cache.spec.name: cache.present for cache in binding.caches}),
    )
    for ports, caches in sides:
        rows = {name: [(tensor.labels, tensor.port.name) for tensor in tensors] for name, tensors in caches.items()}
        wanted = [name for _, names in ordered_units(rows, keys) for name in names]
        known = set(wanted)
        if not keys or [port.name for port in ports if port.name in known] != wanted:
            return
    yield 1, f"its caches stand in order ({', '.join(keys)})"


def _judge_dims(binding: Binding) -> Iterable[tuple[int, str]]:
    """Yields what symbolic dims tell of layouts that differ in nothing else.

    Time grows from call to call, and a batch may be of any size; what a network fixes, heads for example, is a number.
    Numbers tell nothing: any axis may be of any.
    """
    opened = {
        item[0]
        for cache in binding.caches
        for tensor in cache.past
        for item, dim in zip(tensor.spec.layout.items, tensor.port.dims or (), strict=False)
        if isinstance(dim, str) and len(item) == 1
    }
    if "time" in opened:
        yield 1, "time is of open size"
    if fixed := sorted(opened - set(VARYING)):
        yield -len(fixed), f"but of open size is also {', '.join(fixed)}"


def _judge_dim_names(binding: Binding) -> Iterable[tuple[int, str]]:
    agree = set()
    for cache in binding.caches:
        for tensor in (*cache.past, *cache.present):
            agree |= {name for axis, name in tensor.spec.dims.items() if tensor.sizes.get(axis) == name}
    if agree:
        yield len(agree), f"names its dims {', '.join(sorted(agree))}"


def _judge_shared(binding: Binding) -> Iterable[tuple[int, str]]:
    """Yields what axes tell that several caches have: they must be of one size."""
    for axis in SHARED:
        sizes = {cache.spec.name: cache.size(axis) for cache in binding.caches if axis in cache.spec.axes}
        known = {name: size for name, size in sizes.items() if size is not None}
        text = ", ".join(f"{name} {size}" for name, size in known.items())
        if len({size for size in known.values() if isinstance(size, int)}) > 1:
            yield -4, f"but its caches differ in {axis} ({text})"
        elif len(known) > 1 and len(set(known.values())) == 1:
            yield 2, f"its caches agree on {axis} ({text})"


def _judge_metadata(binding: Binding) -> Iterable[tuple[int, str]]:
    """Yields what the metadata says of sizes that dims say too."""
    known = binding.signature.numbers
    for key, expression in binding.convention.sizes.items():
        told = expression.value(known)
        found = {
            size
            for cache in binding.caches
            for axis in cache.spec.axes
            if key in (axis, f"{cache.spec.name}.{axis}") and isinstance(size := cache.size(axis), int)
        }
        if told is None or not found:
            continue
        if found == {told}:
            yield 1, f"metadata {expression} = {told} agrees with {key}"
        else:
            yield -3, f"but metadata says {expression} = {told}, and {key} is {', '.join(map(str, sorted(found)))}"
