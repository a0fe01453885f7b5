"""The ports of a converted model: their names, dims and order, as the target convention wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from onnxfix.convention.binding import Binding
from onnxfix.convention.convention import Convention, PortSpec
from onnxfix.convention.route import Block, Route
from onnxfix.convention.routing import Match
from onnxfix.convention.signature import Dim, Port


def port_renames(binding: Binding, target: Convention | None) -> dict[str, str]:
    """Returns the other ports that get the target's name: those of one role, rank and element type on both sides."""
    if target is None:
        return {}
    renames: dict[str, str] = {}
    for known, specs, ports in (
        (binding.inputs, target.inputs, binding.signature.inputs),
        (binding.outputs, target.outputs, binding.signature.outputs),
    ):
        taken = {port.name for port in ports}
        for spec in specs:
            ours = [name for name, one in known.items() if one.role == spec.role]
            theirs = [one for one in specs if one.role == spec.role]
            if len(ours) != 1 or len(theirs) != 1 or spec.role == "other" or spec.name in taken:
                continue
            port = next(port for port in ports if port.name == ours[0])
            if _is_alike(known[ours[0]], spec, port):
                renames[ours[0]] = spec.name
    return renames


def _is_alike(ours: PortSpec, theirs: PortSpec, port: Port) -> bool:
    return ours.layout == theirs.layout and theirs.dtype in (None, port.dtype)


def symbol_renames(matches: Sequence[Match]) -> dict[str, str]:
    """Returns the symbolic dims that the target calls otherwise, where one old name has one new name everywhere."""
    wanted: dict[str, set[str]] = {}
    for match in matches:
        if match.target is None:
            continue
        for tensors, specs in ((match.source.past, match.target.past), (match.source.present, match.target.present)):
            for spec in specs:
                for tensor in tensors:
                    for axis, name in spec.dims.items():
                        old = tensor.sizes.get(axis)
                        if isinstance(old, str):
                            wanted.setdefault(old, set()).add(name)
    return {old: next(iter(new)) for old, new in sorted(wanted.items()) if len(new) == 1 and new != {old}}


def rename_symbols(ports: Sequence[Port], symbols: Mapping[str, Dim]) -> tuple[Port, ...]:
    """Returns the ports with symbolic dims replaced."""
    return tuple(
        port if port.dims is None else replace(port, dims=tuple(_symbol(dim, symbols) for dim in port.dims))
        for port in ports
    )


def _symbol(dim: Dim, symbols: Mapping[str, Dim]) -> Dim:
    return symbols.get(dim, dim) if isinstance(dim, str) else dim


def new_ports(
    ports: Sequence[Port], routes: Sequence[tuple[str, Route]], renames: Mapping[str, str],
    target: Convention | None, order: Sequence[str],
) -> tuple[Port, ...]:  # fmt: skip
    """Returns the ports after the conversion, in order.

    The tensors of a cache come where its first tensor was; then the ports that `order` names trade places until they
    stand as it says. All others stay where they are.

    Args:
        ports: The model's ports.
        routes: For each cache that changes, the cache's name in the target and its route.
        renames: Other ports, old name to new.
        target: The target convention.
        order: Port and cache names in the order to reach; empty to leave them.
    """
    by_name = {port.name: port for port in ports}
    gone = {block.name for _, route in routes for block in route.source}
    units = _units(routes, target, by_name)
    listed: list[tuple[set[str], list[Port]]] = []
    for port in ports:
        if port.name not in gone:
            new = replace(port, name=renames.get(port.name, port.name))
            listed.append(({new.name}, [new]))
            continue
        for names, first, unit in units:
            if first == port.name:
                listed.append((names, unit))
    ranks = {name: index for index, name in enumerate(order)}
    slots = [index for index, (names, _) in enumerate(listed) if any(name in ranks for name in names)]
    moved = sorted(
        (listed[index] for index in slots), key=lambda entry: min(ranks[name] for name in entry[0] if name in ranks)
    )
    for index, entry in zip(slots, moved, strict=True):
        listed[index] = entry
    return tuple(port for _, unit in listed for port in unit)


def _units(
    routes: Sequence[tuple[str, Route]], target: Convention | None, by_name: Mapping[str, Port]
) -> list[tuple[set[str], str, list[Port]]]:
    """Returns groups of new cache ports that stay together: names of their caches, the old port they replace, ports."""
    keys = target.cache_order if target is not None else ()
    place = {name: index for index, name in enumerate(by_name)}
    rows = []
    for number, (name, route) in enumerate(routes):
        dtype = by_name[route.source[0].name].dtype
        first = min((block.name for block in route.source), key=lambda one: place[one])
        rows += [
            (_sort_key(block, number, keys), name, first, Port(block.name, dtype, block.dims))
            for block in _in_order(route, keys, place)
        ]
    together = bool(keys) and keys[0] != "cache"
    if together:
        rows.sort(key=lambda row: row[0])
        first = min((row[2] for row in rows), key=lambda one: place[one], default="")
        return [({row[1] for row in rows}, first, [row[3] for row in rows])] if rows else []
    units: list[tuple[set[str], str, list[Port]]] = []
    for name, route in routes:
        mine = (
            sorted((row for row in rows if row[1] == name), key=lambda row: row[0])
            if keys
            else [row for row in rows if row[1] == name]
        )
        if mine and route.target:
            units.append(({name}, mine[0][2], [row[3] for row in mine]))
    return units


def _in_order(route: Route, keys: Sequence[str], place: Mapping[str, int]) -> Sequence[Block]:
    """Without an order of the target, renamed tensors stay in the order that they had."""
    if keys or not route.is_rename:
        return route.target
    old = {new: place[name] for name, new in route.renames.items()}
    return sorted(route.target, key=lambda block: old[block.name])


def _sort_key(block: Block, number: int, keys: Sequence[str]) -> tuple[int, ...]:
    labels = dict(block.labels)
    axes = [*keys, *(axis for axis in sorted(labels) if axis not in keys)]
    return tuple(number if axis == "cache" else labels.get(axis, -1) for axis in axes)
