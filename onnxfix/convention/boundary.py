"""The ports of a converted model: their names, dims and order, as the target convention wants them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from onnxfix.convention.binding import is_described
from onnxfix.convention.convention import Convention, TensorSpec
from onnxfix.convention.layout import show_item
from onnxfix.convention.matching import Match
from onnxfix.convention.route import Block, Route
from onnxfix.convention.routing import MAX_TENSORS
from onnxfix.convention.signature import Dim, Port


def symbol_renames(
    matches: Sequence[Match], target: Convention | None, ports: Sequence[Port], fixed: Collection[str] = ()
) -> dict[str, str]:
    """Returns the symbolic dims that the target calls otherwise, where one old name has one new name everywhere.

    Where the target has one name for the time of past and present, it speaks of a window. A cache that grows has two
    lengths, and its present keeps its own name.

    Args:
        matches: The caches and what they become.
        target: The target convention.
        ports: The ports after the conversion, with their old dims.
        fixed: Names that stay, as the user chose them.
    """
    wanted: dict[str, set[str]] = {}
    for old, new in (*_cache_symbols(matches), *_port_symbols(target, ports)):
        if isinstance(old, str) and old not in fixed:
            wanted.setdefault(old, set()).add(new)
    return {old: next(iter(new)) for old, new in sorted(wanted.items()) if len(new) == 1 and new != {old}}


def _cache_symbols(matches: Sequence[Match]) -> Iterator[tuple[Dim, str]]:
    for match in matches:
        if match.target is None:
            continue
        past, present = _dim_names(match.target.past), _dim_names(match.target.present)
        lengths = {tensor.sizes.get("time") for tensor in match.source.past}
        for tensor in match.source.past:
            yield from ((tensor.sizes.get(axis), name) for axis, name in past.items())
        for tensor in match.source.present:
            for axis, name in present.items():
                is_window = axis == "time" and past.get(axis) == name
                if not is_window or tensor.sizes.get(axis) in lengths:
                    yield tensor.sizes.get(axis), name


def _dim_names(specs: Sequence[TensorSpec]) -> dict[str, str]:
    return {axis: name for spec in specs for axis, name in spec.dims.items()}


def _port_symbols(target: Convention | None, ports: Sequence[Port]) -> Iterator[tuple[Dim, str]]:
    specs = {spec.name: spec for spec in (*target.inputs, *target.outputs)} if target else {}
    for port in ports:
        spec = specs.get(port.name)
        if spec is not None and port.dims is not None and is_described(port, spec):
            for item, dim in zip(spec.layout.items, port.dims, strict=True):
                if name := spec.dims.get(show_item(item)):
                    yield dim, name


def rename_symbols(ports: Sequence[Port], symbols: Mapping[str, Dim]) -> tuple[Port, ...]:
    """Returns the ports with symbolic dims replaced."""
    return tuple(
        port if port.dims is None else replace(port, dims=tuple(_symbol(dim, symbols) for dim in port.dims))
        for port in ports
    )


def _symbol(dim: Dim, symbols: Mapping[str, Dim]) -> Dim:
    return symbols.get(dim, dim) if isinstance(dim, str) else dim


@dataclass(frozen=True)
class Moved:
    """A cache that the target knows, on its way to the new boundary.

    Attributes:
        name: What the target calls the cache.
        route: The route of its inputs, or of its outputs.
    """

    name: str
    route: Route


@dataclass
class _Unit:
    """Ports that stay together: one that is no cache, or the tensors of a cache or of several.

    Attributes:
        names: What an order can call them: the port, or the caches.
        place: Where in the old order they come.
        ports: In order.
    """

    names: set[str]
    place: int
    ports: list[Port]


def new_ports(
    ports: Sequence[Port], moved: Sequence[Moved], renames: Mapping[str, str],
    target: Convention | None, order: Sequence[str],
) -> tuple[Port, ...]:  # fmt: skip
    """Returns the ports after the conversion, in order.

    The tensors of a cache come where its first tensor was; then the ports that `order` names trade places until they
    stand as it says. All others stay where they are.

    Args:
        ports: The model's ports.
        moved: The caches that the target knows.
        renames: Other ports, old name to new.
        target: The target convention.
        order: Port and cache names in the order to reach; empty to leave them.
    """
    places = {port.name: index for index, port in enumerate(ports)}
    gone = {block.name for one in moved for block in one.route.source}
    units = _cache_units(moved, {port.name: port for port in ports}, places, target.cache_order if target else ())
    for port in ports:
        if port.name not in gone:
            new = replace(port, name=renames.get(port.name, port.name))
            units.append(_Unit({new.name}, places[port.name], [new]))
    units.sort(key=lambda unit: unit.place)
    ranks = {name: index for index, name in enumerate(order)}
    slots = [index for index, unit in enumerate(units) if unit.names & ranks.keys()]
    first = [min(ranks.get(name, len(order)) for name in units[slot].names) for slot in slots]
    listed = [units[slot] for _, slot in sorted(zip(first, slots, strict=True))]
    for slot, unit in zip(slots, listed, strict=True):
        units[slot] = unit
    return tuple(port for unit in units for port in unit.ports)


def _cache_units(
    moved: Sequence[Moved], by_name: Mapping[str, Port], places: Mapping[str, int], keys: Sequence[str]
) -> list[_Unit]:
    """Returns the tensors of caches as units.

    Without an order of the target a renamed tensor stays where it was, by itself. Else a cache is a unit, or all caches
    are one where the order goes through them (by layer, for example).
    """
    units = []
    rows: list[tuple[tuple[int, ...], Port]] = []
    for number, one in enumerate(moved):
        ports = _target_ports(one.route, by_name)
        if one.route.is_rename and not keys:
            old = {new: name for name, new in one.route.renames.items()}
            units += [_Unit({one.name}, places[old[port.name]], [port]) for port in ports]
            continue
        mine = [(_sort_key(block, number, keys), port) for block, port in zip(one.route.target, ports, strict=True)]
        if keys:
            mine.sort(key=lambda row: row[0])
        place = min(places[block.name] for block in one.route.source)
        units.append(_Unit({one.name}, place, [port for _, port in mine]))
        rows += mine
    if not units or not keys or keys[0] == "cache":
        return units
    rows.sort(key=lambda row: row[0])
    return [_Unit({one.name for one in moved}, min(unit.place for unit in units), [port for _, port in rows])]


def _target_ports(route: Route, by_name: Mapping[str, Port]) -> list[Port]:
    """Returns the ports of a route's target; but for renamed tensors, all are of one element type."""
    if route.source == route.target:
        return [by_name[block.name] for block in route.source]
    old = {new: name for name, new in route.renames.items()} if route.is_rename else {}
    first = route.source[0].name
    return [Port(block.name, by_name[old.get(block.name, first)].dtype, block.dims) for block in route.target]


def _sort_key(block: Block, number: int, keys: Sequence[str]) -> tuple[int, ...]:
    """Returns where a tensor stands: by the axes of the order first; what is not spread over one comes last."""
    labels = {**dict(block.labels), "cache": number}
    axes = [*keys, *(axis for axis in sorted(labels) if axis not in keys)]
    return tuple(labels.get(axis, MAX_TENSORS) for axis in axes)
