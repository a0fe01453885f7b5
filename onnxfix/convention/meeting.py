"""Where source and target speak of the same port that is no cache: its name, its unit axes, its integers.

A runtime hands over an offset as a scalar or as an array of one number, and token ids in 32 or in 64 bits. Neither says
anything about the network, so the model gets the form that the target has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnxfix.convention.binding import Binding
from onnxfix.convention.convention import Convention, PortSpec
from onnxfix.convention.layout import Layout
from onnxfix.convention.signature import Dim, Port
from onnxfix.errors import PlanError

if TYPE_CHECKING:
    from onnxfix.convention.route import Array

_INTEGERS = ("int32", "int64")
"""Element types that positions, lengths and tokens come in. A mask of another type may mean something else."""


@dataclass(frozen=True)
class UnitAxes:
    """Axes of size 1 that a port loses and gains.

    >>> UnitAxes(gained=(0,)).of((5, "T"))
    (1, 5, 'T')
    >>> UnitAxes(gained=(0,)).inverse().of((1, 5, "T"))
    (5, 'T')

    Attributes:
        lost: Their places before, ascending.
        gained: Their places after, ascending.
    """

    lost: tuple[int, ...] = ()
    gained: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.lost or self.gained)

    def of(self, dims: Sequence[Dim]) -> tuple[Dim, ...]:
        """Returns the dims afterwards."""
        left = [dim for place, dim in enumerate(dims) if place not in self.lost]
        for place in self.gained:
            left.insert(place, 1)
        return tuple(left)

    def run(self, array: Array) -> Array:
        """Returns what an array becomes.

        Raises:
            PlanError: An axis that is to go is not of size 1.
        """
        if any(place >= array.ndim or array.shape[place] != 1 for place in self.lost):
            raise PlanError(f"an array {list(array.shape)} does not lose an axis: only those of size 1 can go")
        return array.reshape([size for size in self.of(array.shape) if isinstance(size, int)])

    def inverse(self) -> UnitAxes:
        """Returns the way back."""
        return UnitAxes(self.gained, self.lost)


@dataclass(frozen=True)
class PortChange:
    """What becomes of a port that is no cache.

    Attributes:
        name: What the target calls it.
        axes: Axes of size 1 that it loses and gains.
        dtype: Its element type afterwards.
    """

    name: str
    axes: UnitAxes
    dtype: str


@dataclass(frozen=True)
class Meeting:
    """How the other ports of a model meet those of a target.

    Attributes:
        changes: The ports that change, by their old name.
        notes: Ports that would change if a symbolic size were 1.
    """

    changes: Mapping[str, PortChange]
    notes: tuple[str, ...] = ()

    @property
    def renames(self) -> dict[str, str]:
        """The ports that get another name: old to new."""
        return {old: change.name for old, change in self.changes.items() if old != change.name}

    @property
    def axes(self) -> dict[str, UnitAxes]:
        """The ports whose unit axes change, by their new name."""
        return {change.name: change.axes for change in self.changes.values() if change.axes}

    def casts(self, ports: Sequence[Port]) -> dict[str, str]:
        """Returns those of the ports that get another element type: new name to the type."""
        changes = [(port, self.changes[port.name]) for port in ports if port.name in self.changes]
        return {change.name: change.dtype for port, change in changes if change.dtype != port.dtype}

    def reshaped(self, ports: Sequence[Port]) -> tuple[Port, ...]:
        """Returns the ports with the dims that they get, otherwise as they are."""
        return tuple(
            replace(port, dims=change.axes.of(port.dims))
            if port.dims is not None and (change := self.changes.get(port.name))
            else port
            for port in ports
        )


def meet(binding: Binding, target: Convention | None) -> Meeting:
    """Returns how the other ports get the form that the target gives those of the same role.

    That is the name, axes of size 1, and whether integers have 32 or 64 bits. Outputs that are the network's own result
    only get the name, where all else is the same already.
    """
    if target is None:
        return Meeting({})
    signature = binding.signature
    found: dict[str, PortChange] = {}
    notes: list[str] = []
    for known, specs, ports in (
        (binding.inputs, target.inputs, signature.inputs),
        (binding.outputs, target.outputs, signature.outputs),
    ):
        by_name = {port.name: port for port in ports}
        for ours, theirs in _same_roles(known, specs):
            port = by_name[ours.name]
            change = _change(port, ours, theirs, binding)
            if isinstance(change, str):
                notes.append(f"the port `{port.name}` gets the dims of `{target}` with --set-dim {change}=1 only")
            elif change is not None and change != PortChange(port.name, UnitAxes(), port.dtype):
                found[port.name] = change
    return Meeting(_without_taken(found, signature.inputs, signature.outputs), tuple(notes))


def _without_taken(
    changes: Mapping[str, PortChange], inputs: Sequence[Port], outputs: Sequence[Port]
) -> dict[str, PortChange]:
    """Returns the changes but for those to names that other ports keep, and of what is input and output at once."""
    both = {port.name for port in inputs} & {port.name for port in outputs}
    names = {port.name for port in (*inputs, *outputs)}
    left = {old: one for old, one in changes.items() if old not in both}
    # A port that keeps its name keeps it from others, which so keep theirs.
    while taken := {old for old, one in left.items() if old != one.name and one.name in names - left.keys()}:
        left = {old: one for old, one in left.items() if old not in taken}
    return left


def _same_roles(known: Mapping[str, PortSpec], specs: Sequence[PortSpec]) -> list[tuple[PortSpec, PortSpec]]:
    """Returns the ports of the model and of the target that are alone in their role on either side."""
    pairs = []
    for spec in specs:
        ours = [one for one in known.values() if one.role == spec.role]
        theirs = [one for one in specs if one.role == spec.role]
        if len(ours) == len(theirs) == 1 and spec.role != "other":
            pairs.append((ours[0], spec))
    return pairs


def _change(port: Port, ours: PortSpec, theirs: PortSpec, binding: Binding) -> PortChange | str | None:
    """Returns what a port becomes; the symbolic dim that stands in the way of it; None where they do not meet."""
    dtype = theirs.dtype or port.dtype
    if ours.layout == theirs.layout and dtype == port.dtype:
        return PortChange(theirs.name, UnitAxes(), dtype)
    if ours.role == "output" or (dtype != port.dtype and not {dtype, port.dtype} <= set(_INTEGERS)):
        return None
    if ours.layout == theirs.layout:
        return PortChange(theirs.name, UnitAxes(), dtype)
    axes = _unit_axes(ours.layout, theirs.layout)
    if axes is None or port.dims is None:
        return None
    common = set(ours.layout.items) & set(theirs.layout.items)
    items = zip(ours.layout.items, port.dims, strict=True)
    own = {dim for place, (item, dim) in enumerate(items) if item not in common or place in axes.lost}
    new = [_sizes(axis, binding) for axis in theirs.layout.axes if axis not in ours.layout.axes]
    if not all(new):
        return None
    wide = own.union(*new) - {1}
    if not wide:
        return PortChange(theirs.name, axes, dtype)
    symbol = wide.pop()
    return symbol if isinstance(symbol, str) and not wide else None


def _unit_axes(ours: Layout, theirs: Layout) -> UnitAxes | None:
    """Returns the axes to lose and to gain if all that both have stands in one order; None if it does not.

    What only one of them has, and each `1`, is taken to be of size 1. Between two axes that both have, such axes are
    kept as far as both have them.
    """
    common = [item for item in ours.items if item and item in theirs.items]
    if common != [item for item in theirs.items if item and item in ours.items]:
        return None
    lost: list[int] = []
    gained: list[int] = []
    for mine, its in zip(_runs(ours, common), _runs(theirs, common), strict=True):
        lost += mine[len(its) :]
        gained += its[len(mine) :]
    return UnitAxes(tuple(lost), tuple(gained))


def _runs(layout: Layout, common: Sequence[tuple[str, ...]]) -> list[list[int]]:
    """Returns the places between the common items: before the first, between the first and the second, and so on."""
    runs: list[list[int]] = [[]]
    for place, item in enumerate(layout.items):
        if item in common:
            runs.append([])
        else:
            runs[-1].append(place)
    return runs


def _sizes(axis: str, binding: Binding) -> set[Dim]:
    """Returns the sizes that an axis has in the model; a model that never speaks of a batch takes one stream."""
    sizes: set[Dim] = {tensor.sizes[axis] for cache in binding.caches for tensor in cache.past if axis in tensor.sizes}
    for name, spec in binding.inputs.items():
        port = binding.signature.input(name)
        if port is not None and port.dims is not None and axis in spec.layout.axes:
            sizes.add(spec.layout.bind(port.dims)[axis])
    return sizes or ({1} if axis == "batch" else set())
