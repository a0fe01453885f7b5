"""From the convention that a model speaks to another one: what must change at its boundary, and what that does.

A `Plan` is made from a `Binding` and a target `Convention`. It holds one `Route` for the past and one for the present
of every cache, the new ports in their order, and what else the target's contract asks for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from onnxfix.convention.binding import Binding, bind, is_described
from onnxfix.convention.boundary import Moved, new_ports, rename_symbols, symbol_renames
from onnxfix.convention.convention import Convention
from onnxfix.convention.edits import cast_notes, cast_ports, edited_ports, require_names, require_ports
from onnxfix.convention.layout import show_dims
from onnxfix.convention.matching import Match, match_caches
from onnxfix.convention.meeting import UnitAxes, meet
from onnxfix.convention.route import Route
from onnxfix.convention.routing import make_routes
from onnxfix.convention.signature import Dim, Port, Signature, require_size
from onnxfix.errors import DetectError, PlanError, UsageError

if TYPE_CHECKING:
    from onnxfix.convention.route import Array

_NUMBER = re.compile(r"[+-]?(0[xob]\w*|[\d_]+\.?[\d_]*(e[+-]?\d*)?|\.\d+(e[+-]?\d*)?)", re.IGNORECASE)
"""What somebody meant as a number. Dims of real models are called `T`, `past_sequence_length + 1` or `2*s0`."""


@dataclass(frozen=True)
class CachePlan:
    """What happens to one cache.

    Attributes:
        name: Its name in the source's convention.
        past: From the source's inputs to the target's.
        present: From the source's outputs to the target's; None for a cache that is only read.
        is_fixed: Whether the cache is only read although it is handed out again.
    """

    name: str
    past: Route
    present: Route | None
    is_fixed: bool = False

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

    def __post_init__(self) -> None:
        """Refuses dims that no model can have.

        Raises:
            UsageError: A size is out of range, or a name is empty or looks like a number.
        """
        for key, value in self.dims.items():
            where = f"--set-dim {key}={value}"
            if isinstance(value, int):
                require_size(value, where)
            elif not value or _NUMBER.fullmatch(value):
                message = f"`{value}` is neither a size nor a name" if value else "a dim needs a size or a name"
                raise UsageError(message, where=where, hint="a size is a whole number, a name no number at all")


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
        chosen: New names that the user chose, by the name that a port would have without.
        unit_axes: Other ports that lose or gain axes of size 1: by new name.
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
    chosen: Mapping[str, str] = field(default_factory=dict)
    unit_axes: Mapping[str, UnitAxes] = field(default_factory=dict)

    @property
    def is_identity(self) -> bool:
        """Whether the model already is what is asked for."""
        signature = self.binding.signature
        return (
            all(cache.is_kept for cache in self.caches)
            and not self.renames
            and not self.casts
            and not self.unit_axes
            and self.inputs == signature.inputs
            and self.outputs == signature.outputs
            and all(signature.metadata.get(key) == value for key, value in self.metadata.items())
        )

    @property
    def pairs(self) -> dict[str, str]:
        """Which input and output of the result are one tensor of a cache: past name to present name."""
        pairs = {}
        for cache in self.caches:
            if cache.present is not None:
                present = {block.labels: block.name for block in cache.present.target}
                pairs.update({block.name: present[block.labels] for block in cache.past.target})
        return pairs

    @property
    def feedback(self) -> dict[str, str]:
        """Which input an output of the result feeds at the next tick, as `pairs`; a fixed cache is fed as it was."""
        fixed = {block.name for cache in self.caches if cache.is_fixed for block in cache.past.target}
        return {past: present for past, present in self.pairs.items() if past not in fixed}

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
        lines += [
            _explain_axes(port, self.unit_axes) for port in (*self.inputs, *self.outputs) if port.name in self.unit_axes
        ]
        lines += [f"dim {old} becomes {new}" for old, new in self.symbols.items()]
        signature = self.binding.signature
        changes = (("inputs", signature.inputs, self.inputs), ("outputs", signature.outputs, self.outputs))
        for kind, before, after in changes:
            if before != after:
                lines.append(f"{kind}: {_names([f'{port.name} {show_dims(port.dims)}' for port in after], 8)}")
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


def _explain_axes(port: Port, axes: Mapping[str, UnitAxes]) -> str:
    dims = port.dims or ()
    return f"{port.name}: {show_dims(axes[port.name].inverse().of(dims))} becomes {show_dims(dims)}"


def _names(names: list[str], most: int = 3) -> str:
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[: most - 1])}, ... {names[-1]} ({len(names)})"


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
    asked = _asked_symbols(binding, edits)
    frozen = _with_symbols(binding, asked)
    matches = match_caches(frozen, target)
    plans = tuple(
        CachePlan(match.source.spec.name, *make_routes(match, frozen), match.source.spec.update == "fixed")
        for match in matches
    )
    meeting = meet(frozen, target)
    before = frozen.signature
    casts = meeting.casts((*before.inputs, *before.outputs))
    edits = replace(edits, cast={**casts, **edits.cast})
    order = {spec.name: index for index, spec in enumerate(target.caches)} if target else {}
    known = [(one.target.name, plan) for one, plan in zip(matches, plans, strict=True) if one.target]
    known.sort(key=lambda entry: order[entry[0]])
    past = [Moved(name, plan.past) for name, plan in known]
    present = [Moved(name, plan.present) for name, plan in known if plan.present]
    orders = (target.input_order, target.output_order) if target else ((), ())
    inputs = new_ports(meeting.reshaped(before.inputs), past, meeting.renames, target, orders[0])
    outputs = new_ports(meeting.reshaped(before.outputs), present, meeting.renames, target, orders[1])
    fixed = {value for value in asked.values() if isinstance(value, str)}
    wanted = cast_ports(inputs, edits.cast), cast_ports(outputs, edits.cast)
    named = symbol_renames(matches, target, (*wanted[0], *wanted[1]), fixed)
    metadata = _metadata(frozen, matches, target)
    plan = Plan(
        binding=_in_place(binding, matches),
        target=target,
        caches=plans,
        inputs=rename_symbols(inputs, named),
        outputs=rename_symbols(outputs, named),
        renames=meeting.renames,
        symbols={**named, **asked},
        casts={},
        metadata=metadata,
        notes=(*_notes(binding, matches, target, *wanted), *meeting.notes, *_needed(frozen, metadata, target)),
        unit_axes=meeting.axes,
    )
    plan = _edited(plan, edits)
    _check_names(plan)
    return plan


def _in_place(binding: Binding, matches: Iterable[Match]) -> Binding:
    """Returns the binding with what sentences cannot say and the target does: which caches are written in place."""
    found = {match.source.spec.name for match in matches if match.target and match.target.update == "in-place"}
    caches = tuple(
        replace(cache, spec=replace(cache.spec, update="in-place"))
        if cache.spec.name in found and cache.spec.update is None
        else cache
        for cache in binding.caches
    )
    return replace(binding, caches=caches)


def _asked_symbols(binding: Binding, edits: Edits) -> dict[str, Dim]:
    """Returns symbolic dims and what the user wants them to be; a key may name an axis instead of a dim."""
    known = set(binding.symbols)
    asked: dict[str, Dim] = {}
    for key, value in edits.dims.items():
        where = f"--set-dim {key}={value}"
        names = {key} if key in known else binding.symbols_of(key)
        if not names:
            shown = f"symbolic dims of this model: {', '.join(sorted(known)) or 'none'}"
            raise PlanError(
                f"no port has a symbolic dim `{key}`, and no axis of this name has one", where=where, hint=shown
            )
        for name in sorted(names):
            if asked.setdefault(name, value) != value:
                raise PlanError(f"`{name}` cannot be both {asked[name]} and {value}", where=where)
    return asked


def _with_symbols(binding: Binding, symbols: Mapping[str, Dim]) -> Binding:
    """Returns the binding of the model as it is after symbolic dims were set."""
    if not symbols:
        return binding
    signature = binding.signature
    inputs, outputs = rename_symbols(signature.inputs, symbols), rename_symbols(signature.outputs, symbols)
    try:
        return bind(binding.convention, Signature(inputs, outputs, signature.metadata), binding.sizes)
    except DetectError as error:
        asked = " ".join(f"--set-dim {name}={value}" for name, value in symbols.items())
        raise PlanError(f"{asked} does not fit: {error.message}", where=error.where) from None


def _metadata(binding: Binding, matches: Sequence[Match], target: Convention | None) -> dict[str, str]:
    """Returns the entries that the target's contract wants; those that cannot be told are left out."""
    if target is None:
        return {}
    source = binding.signature.metadata
    known = binding.signature.numbers
    for cache, spec in ((match.source, match.target) for match in matches if match.target):
        for axis in sorted(spec.axes):
            size = cache.size(axis) if axis in cache.spec.axes else 1
            if isinstance(size, int):
                known[f"{spec.name}.{axis}"] = size
    values = {key: text.value(known) for key, text in target.metadata.derive.items()}
    entries = {
        **{key: str(value) for key, value in values.items() if value is not None},
        **{key: source[old] for key, old in target.metadata.copy.items() if old in source},
    }
    return {**{key: text for key, text in entries.items() if key not in source}, **target.metadata.set}


def _needed(binding: Binding, metadata: Mapping[str, str], target: Convention | None) -> tuple[str, ...]:
    """Says which entries the programs that run the result miss."""
    known = {*binding.signature.metadata, *metadata}
    missing = [key for key in (target.metadata.needed if target else ()) if key not in known]
    if target is None or not missing:
        return ()
    who = target.consumer or f"whoever runs `{target}`"
    return (f"{who} stops without the metadata {', '.join(missing)}, which nothing here tells: add them to the file",)


def _notes(
    binding: Binding,
    matches: Sequence[Match],
    target: Convention | None,
    inputs: Sequence[Port],
    outputs: Sequence[Port],
) -> tuple[str, ...]:
    """Returns in what the result is not all that the target describes."""
    if target is None:
        return ()
    notes = [
        f"`{target}` says nothing of the cache `{match.source.spec.name}`: it stays as it is"
        for match in matches
        if match.target is None
    ]
    notes += [f"the cache `{name}` stays as it is: {reason}" for name, reason in binding.misfits.items()]
    for kind, specs, ports in (("input", target.inputs, inputs), ("output", target.outputs, outputs)):
        by_name = {port.name: port for port in ports}
        for spec in specs:
            port = by_name.get(spec.name)
            if port is None:
                notes += [] if spec.optional else [f"`{target}` also has the {kind} `{spec.name}`, the model does not"]
            elif not is_described(port, spec):
                layout = f"`{spec.layout}`" if spec.layout.rank else "a scalar"
                wanted = f"{layout}, {spec.dtype}" if spec.dtype else layout
                shown = f"{port.dtype} {show_dims(port.dims)}"
                notes.append(f"the {kind} `{spec.name}` is {wanted} in `{target}`; here it stays {shown}")
    return tuple(notes)


def _edited(plan: Plan, edits: Edits) -> Plan:
    """Applies the user's renames and casts to the ports that the conversion would leave."""
    ports = (*plan.inputs, *plan.outputs)
    moved = {block.name for cache in plan.caches for route in cache.routes for block in route.target}
    require_ports(edits, ports, moved)
    new = edits.rename
    origin = {value: key for key, value in plan.renames.items()}
    renames = {**plan.renames, **{origin.get(key, key): value for key, value in new.items() if key not in moved}}
    casts = {
        new.get(port.name, port.name): edits.cast[port.name]
        for port in ports
        if edits.cast.get(port.name, port.dtype) != port.dtype
    }
    return replace(
        plan,
        caches=tuple(_renamed(cache, new) for cache in plan.caches),
        inputs=edited_ports(plan.inputs, edits),
        outputs=edited_ports(plan.outputs, edits),
        renames={key: value for key, value in renames.items() if key != value},
        casts=casts,
        notes=(*plan.notes, *cast_notes(edits, ports)),
        chosen=new,
        unit_axes={new.get(name, name): axes for name, axes in plan.unit_axes.items()},
    )


def _renamed(cache: CachePlan, new: Mapping[str, str]) -> CachePlan:
    past, *present = [
        replace(route, target=tuple(replace(block, name=new.get(block.name, block.name)) for block in route.target))
        for route in cache.routes
    ]
    return replace(cache, past=past, present=present[0] if present else None)


def _check_names(plan: Plan) -> None:
    """Checks that every port has a name of its own; an input that already is an output may stay one."""
    signature = plan.binding.signature
    both = {port.name for port in signature.inputs} & {port.name for port in signature.outputs}
    inputs, outputs = [port.name for port in plan.inputs], [port.name for port in plan.outputs]
    require_names(inputs, outputs, both, plan.chosen)
