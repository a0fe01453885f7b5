"""From the convention that a model speaks to another one: what must change at its boundary, and what that does.

A `Plan` is made from a `Binding` and a target `Convention`. It holds one `Route` for the past and one for the present
of every cache, the new ports in their order, and what else the target's contract asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from onnxfix.convention.binding import Binding, bind
from onnxfix.convention.boundary import new_ports, port_renames, rename_symbols, symbol_renames
from onnxfix.convention.convention import Convention
from onnxfix.convention.layout import show_dims
from onnxfix.convention.route import Route
from onnxfix.convention.routing import Match, make_routes, match_caches
from onnxfix.convention.signature import Dim, Port, Signature
from onnxfix.errors import PlanError

if TYPE_CHECKING:
    from onnxfix.convention.route import Array

CASTS = ("bool", "int8", "int16", "int32", "int64", "uint8", "float16", "float32", "float64", "bfloat16")


@dataclass(frozen=True)
class CachePlan:
    """What happens to one cache.

    Attributes:
        name: Its name in the source's convention.
        past: From the source's inputs to the target's.
        present: From the source's outputs to the target's; None for a cache that is only read.
    """

    name: str
    past: Route
    present: Route | None

    @property
    def routes(self) -> tuple[Route, ...]:
        """Both routes, or the one."""
        return (self.past,) if self.present is None else (self.past, self.present)

    @property
    def is_kept(self) -> bool:
        """Whether nothing changes, not even a name."""
        return all(route.is_rename and all(old == new for old, new in route.renames.items()) for route in self.routes)


@dataclass(frozen=True)
class Edits:
    """What the user asks for besides a convention.

    Attributes:
        rename: New names for ports, by the name that they have after the conversion.
        dims: Symbolic dims, by their name or by the axis of a cache, to a size (freeze) or another name.
        cast: New element types for ports, by the name that they have after the conversion.
    """

    rename: Mapping[str, str] = field(default_factory=dict)
    dims: Mapping[str, int | str] = field(default_factory=dict)
    cast: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """All that a conversion changes.

    Attributes:
        binding: The source's convention on this model.
        target: The convention to reach; None where only `Edits` apply.
        caches: One entry per cache of the source.
        inputs, outputs: The ports after the conversion, in order.
        renames: Other ports that get a new name: old to new.
        symbols: Symbolic dims that get another name or a fixed size.
        casts: Ports that get another element type: new name to numpy's name of the type.
        metadata: Entries of `metadata_props` to set.
        notes: What the user should know.
    """

    binding: Binding
    target: Convention | None
    caches: tuple[CachePlan, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    renames: Mapping[str, str]
    symbols: Mapping[str, Dim]
    casts: Mapping[str, str]
    metadata: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def is_identity(self) -> bool:
        """Whether the model already is what is asked for."""
        signature = self.binding.signature
        return (
            all(cache.is_kept for cache in self.caches)
            and not self.renames
            and not self.casts
            and self.inputs == signature.inputs
            and self.outputs == signature.outputs
            and all(signature.metadata.get(key) == value for key, value in self.metadata.items())
        )

    @property
    def pairs(self) -> dict[str, str]:
        """Which input an output of the result feeds at the next tick: past name to present name."""
        pairs = {}
        for cache in self.caches:
            if cache.present is not None:
                present = {block.labels: block.name for block in cache.present.target}
                pairs.update({block.name: present[block.labels] for block in cache.past.target})
        return pairs

    def run_past(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Returns the result's past caches for the source's, by input name."""
        return {name: array for cache in self.caches for name, array in cache.past.run(arrays).items()}

    def run_present(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Returns the result's present caches for the source's, by output name."""
        routes = [cache.present for cache in self.caches if cache.present is not None]
        return {name: array for route in routes for name, array in route.run(arrays).items()}

    def explain(self) -> list[str]:
        """Returns the plan in plain words, one line each."""
        lines = []
        for cache in self.caches:
            lines += _explain_cache(cache)
        lines += [f"rename {old} to {new}" for old, new in self.renames.items()]
        lines += [f"cast {name} to {dtype}" for name, dtype in self.casts.items()]
        lines += [f"dim {old} becomes {new}" for old, new in self.symbols.items()]
        signature = self.binding.signature
        changes = (("inputs", signature.inputs, self.inputs), ("outputs", signature.outputs, self.outputs))
        for kind, before, after in changes:
            if before != after:
                lines.append(f"{kind}: {', '.join(port.name + ' ' + show_dims(port.dims) for port in after)}")
        known = self.binding.signature.metadata
        lines += [f"metadata {key} = {value}" for key, value in self.metadata.items() if known.get(key) != value]
        return lines + [f"note: {note}" for note in self.notes]


def _explain_cache(cache: CachePlan) -> list[str]:
    if cache.is_kept:
        return [f"{cache.name}: stays as it is"]
    lines = []
    for kind, route in zip(("past", "present"), cache.routes, strict=False):
        names = f"{_names([block.name for block in route.source])} -> {_names([block.name for block in route.target])}"
        lines.append(f"{cache.name}, {kind}: {names}")
        lines += [f"  {line}" for line in route.explain()] or ["  rename only"]
    return lines


def _names(names: list[str]) -> str:
    return ", ".join(names) if len(names) < 4 else f"{names[0]}, {names[1]}, ... {names[-1]} ({len(names)})"


def make_plan(binding: Binding, target: Convention | None, edits: Edits | None = None) -> Plan:
    """Plans the conversion of a model.

    Args:
        binding: The convention that the model speaks.
        target: The convention to reach; None to apply edits only.
        edits: What the user asks for besides.

    Raises:
        PlanError: A cache of the target is missing, axes or sizes do not fit, an axis does not divide, a layer is
            missing, a new name is taken, or an edit names something that does not exist.
    """
    edits = edits or Edits()
    symbols = _edited_symbols(binding, edits)
    frozen = _freeze(binding, symbols)
    matches = match_caches(frozen, target)
    plans = tuple(CachePlan(match.source.spec.name, *make_routes(match, frozen)) for match in matches)
    names = [match.target.name if match.target else match.source.spec.name for match in matches]
    renames = port_renames(frozen, target)
    past = [(name, plan.past) for name, plan in zip(names, plans, strict=True)]
    present = [(name, plan.present) for name, plan in zip(names, plans, strict=True) if plan.present is not None]
    inputs = new_ports(frozen.signature.inputs, past, renames, target, target.input_order if target else ())
    outputs = new_ports(frozen.signature.outputs, present, renames, target, target.output_order if target else ())
    renamed = symbol_renames(matches)
    for old in renamed:
        symbols[old] = renamed[old]
    plan = Plan(
        binding, target, plans, rename_symbols(inputs, renamed), rename_symbols(outputs, renamed), renames, symbols,
        {}, _metadata(frozen, target), _notes(matches, target),
    )  # fmt: skip
    plan = _apply_edits(plan, edits)
    _check_names(plan)
    return plan


def _edited_symbols(binding: Binding, edits: Edits) -> dict[str, Dim]:
    """Returns symbolic dims and what the user wants them to be; a key may name an axis instead of a dim."""
    ports = (*binding.signature.inputs, *binding.signature.outputs)
    known = {dim for port in ports for dim in port.dims or () if isinstance(dim, str)}
    symbols: dict[str, Dim] = {}
    for key, value in edits.dims.items():
        if isinstance(value, int) and value < 0:
            raise PlanError(f"the dim `{key}` cannot have size {value}")
        sizes = {
            size
            for cache in binding.caches
            for tensor in (*cache.past, *cache.present)
            if key in tensor.sizes and isinstance(size := tensor.sizes[key], str)
        }
        names = {key} if key in known else sizes
        if not names:
            shown = ", ".join(sorted(known)) or "none"
            raise PlanError(f"no port has a symbolic dim `{key}`", hint=f"symbolic dims of this model: {shown}")
        symbols.update(dict.fromkeys(sorted(names), value))
    return symbols


def _freeze(binding: Binding, symbols: Mapping[str, Dim]) -> Binding:
    """Returns the binding of the model as it is after symbolic dims were set."""
    if not symbols:
        return binding
    signature = binding.signature
    changed = Signature(
        rename_symbols(signature.inputs, symbols), rename_symbols(signature.outputs, symbols), signature.metadata
    )
    return bind(binding.convention, changed, binding.sizes)


def _metadata(binding: Binding, target: Convention | None) -> dict[str, str]:
    """Returns the entries that the target's contract wants; those that cannot be told are left out."""
    if target is None:
        return {}
    source = binding.signature.metadata
    known = {key: int(value) for key, value in source.items() if value.strip().lstrip("-").isdecimal()}
    for cache in binding.caches:
        for axis in sorted(cache.spec.axes):
            if isinstance(size := cache.size(axis), int):
                known[f"{cache.spec.name}.{axis}"] = size
    entries = dict(target.metadata.set)
    entries |= {key: source[old] for key, old in target.metadata.copy.items() if old in source}
    entries |= {
        key: str(value) for key, text in target.metadata.derive.items() if (value := text.value(known)) is not None
    }
    return entries


def _notes(matches: list[Match], target: Convention | None) -> tuple[str, ...]:
    if target is None:
        return ()
    kept = [match.source.spec.name for match in matches if match.target is None]
    return tuple(f"`{target}` says nothing of the cache `{name}`: it stays as it is" for name in kept)


def _apply_edits(plan: Plan, edits: Edits) -> Plan:
    """Applies the user's renames and casts to the ports that the conversion would leave."""
    names = [port.name for port in (*plan.inputs, *plan.outputs)]
    for option, keys in (("--rename", edits.rename), ("--cast", edits.cast)):
        for key in keys:
            if key not in names:
                raise PlanError(f"{option}: no port is called `{key}`", hint=f"the ports are {', '.join(names)}")
    for name, dtype in edits.cast.items():
        if dtype not in CASTS:
            raise PlanError(
                f"--cast {name}={dtype}: this element type is not known", hint=f"known are {', '.join(CASTS)}"
            )
    new = edits.rename
    caches = tuple(
        replace(
            cache,
            past=_rename_target(cache.past, new),
            present=None if cache.present is None else _rename_target(cache.present, new),
        )
        for cache in plan.caches
    )
    moved = {block.name for cache in plan.caches for route in cache.routes for block in route.target}
    for name in edits.cast:
        if name in moved:
            raise PlanError(f"--cast {name}: this port is a cache", hint="only ports that are no cache can be cast")
    old = {value: key for key, value in plan.renames.items()}
    renames = {**plan.renames, **{old.get(key, key): value for key, value in new.items() if key not in moved}}
    casts = {
        new.get(port.name, port.name): edits.cast[port.name]
        for port in (*plan.inputs, *plan.outputs)
        if edits.cast.get(port.name, port.dtype) != port.dtype
    }
    return replace(
        plan, caches=caches, casts=casts, renames={key: value for key, value in renames.items() if key != value},
        inputs=_edit_ports(plan.inputs, edits), outputs=_edit_ports(plan.outputs, edits),
    )  # fmt: skip


def _rename_target(route: Route, new: Mapping[str, str]) -> Route:
    return replace(route, target=tuple(replace(block, name=new.get(block.name, block.name)) for block in route.target))


def _edit_ports(ports: tuple[Port, ...], edits: Edits) -> tuple[Port, ...]:
    return tuple(
        replace(port, name=edits.rename.get(port.name, port.name), dtype=edits.cast.get(port.name, port.dtype))
        for port in ports
    )


def _check_names(plan: Plan) -> None:
    seen: set[str] = set()
    for port in (*plan.inputs, *plan.outputs):
        if port.name in seen:
            hint = f"give the port another name: --rename {port.name}=NAME, or another name in the target's sentence"
            raise PlanError(f"two ports would be called `{port.name}`", hint=hint)
        seen.add(port.name)
