"""How large everything is that is fed: from the file, the user, metadata, the convention, and defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from onnxfix.convention.binding import Binding, BoundCache, BoundTensor
from onnxfix.convention.expression import Expression
from onnxfix.convention.plan import Plan
from onnxfix.convention.route import Rearrange
from onnxfix.convention.signature import Dim, Port
from onnxfix.errors import DriveError, LayoutError, PlanError, UsageError
from onnxfix.verify.profile import FRAMES, OTHER, ROOM, SAMPLES, TIME, Profile, distinct_size, is_too_large
from onnxfix.verify.roles import KnownPort, known_inputs

if TYPE_CHECKING:
    from onnxfix.convention.route import Array

_LARGEST = 2**31 - 1


@dataclass
class Sizes:
    """Sizes at one tick.

    Attributes:
        plan: The conversion; dims that it freezes have that size already in the source.
        given: What the user said, by axis, cache and axis, symbolic dim or metadata key.
        profile: What to choose where nothing is known.
        axes: Axes of the ports that are fed at this tick.
        caches: `CACHE.AXIS` of the present state.
        symbols: Symbolic dims of what is fed at this tick.
        tick: The tick.
        guesses: What was chosen because nobody said, by symbolic dim, axis or port and place.
        taken: Numbers that other sizes of the model have.
        varies: Whether chunks are shorter at some ticks.
    """

    plan: Plan
    given: Mapping[str, int]
    profile: Profile
    axes: dict[str, int] = field(default_factory=dict)
    caches: dict[str, int] = field(default_factory=dict)
    symbols: dict[str, int] = field(default_factory=dict)
    tick: int = 0
    guesses: dict[str, int] = field(default_factory=dict)
    taken: frozenset[int] = frozenset()
    varies: bool = False

    @property
    def binding(self) -> Binding:
        """The source's convention on its model."""
        return self.plan.binding

    @property
    def time(self) -> int:
        """The present length of the cache that the others follow; 0 if no cache has a time axis."""
        main = main_cache(self.binding)
        return self.caches.get(f"{main.spec.name}.time", 0) if main else 0

    @property
    def chunk(self) -> int:
        """How many frames or tokens are fed at this tick."""
        return self.axes.get("frame", self.axes.get("sequence", 1))

    @property
    def batch(self) -> int:
        """How many streams run at once."""
        if "batch" in self.axes:
            return self.axes["batch"]
        return 1 if "batch" in unit_axes(self.plan) else self.guess(self.profile.batch, None, "batch")

    def known(self) -> dict[str, int]:
        """Returns all names that an expression may use."""
        metadata = self.binding.signature.metadata
        numbers = {key: int(text) for key, text in metadata.items() if text.strip().lstrip("-").isdecimal()}
        return {**numbers, **self.given, **self.axes, **self.caches}

    def value(self, expression: Expression | None) -> int | None:
        """Returns the value of an expression; None where a name is not known or the value cannot be a size."""
        if expression is None:
            return None
        known = self.known()
        # A namesake's convention may call the model's cache otherwise.
        if self.caches:
            known = {**{name: self.time for name in expression.names if name.endswith(".time")}, **known}
        result = expression.value(known)
        return result if result is not None and result > 0 else None

    def told(self, dim: Dim, *names: str) -> int | None:
        """Returns the size that file, user or plan state for a dim, or for an axis by one of its names."""
        if isinstance(dim, int):
            return dim
        for name in (dim, *names):
            if name is not None and name in self.given:
                return self.given[name]
        frozen = self.plan.symbols.get(dim) if dim is not None else None
        return frozen if isinstance(frozen, int) else None

    def guess(self, least: int, dim: Dim, name: str, *, exact: bool = False) -> int:
        """Returns a size that nobody told, for all ticks: `least`, or the next number that nothing else has."""
        key = dim if isinstance(dim, str) else name
        if key not in self.guesses:
            taken = {*self.taken, *self.guesses.values()}
            self.guesses[key] = distinct_size(least, taken) if self.profile.distinct and not exact else least
        return self.guesses[key]

    def cache_shape(self, cache: BoundCache, tensor: BoundTensor) -> tuple[int, ...]:
        """Returns the shape of a first cache."""
        layout = tensor.spec.layout
        dims = tensor.port.dims if tensor.port.dims is not None else (None,) * layout.rank
        shape = []
        for item, dim in zip(layout.items, dims, strict=True):
            told = self.told(dim)
            if told is None and isinstance(dim, str):
                told = self.symbols.get(dim)
            shape.append(math.prod(self._cache_axis(cache, tensor, axis) for axis in item) if told is None else told)
        return _require_bounded(tuple(shape), tensor.port, is_cache=True)

    def _cache_axis(self, cache: BoundCache, tensor: BoundTensor, axis: str) -> int:
        place = f"{cache.spec.name}.{axis}"
        size = tensor.sizes.get(axis)
        told = self.told(size, place, axis)
        if told is not None:
            return told
        if axis in unit_axes(self.plan):
            return 1
        if axis == "batch":
            return self.batch
        for key in (place, axis):
            if (value := self.value(self.binding.convention.sizes.get(key))) is not None:
                return value
        if axis == "time":
            kept = _kept_length(cache)
            if kept is None and cache.spec.update == "in-place":
                return self.guess(ROOM, size, place)
            # What another model made is there from the start.
            begins = self.profile.time or (TIME if is_read_only(cache) else 0)
            return self.guess(begins if kept is None else kept, size, place, exact=kept is not None)
        message = f"the size of the axis `{axis}` of the cache `{cache.spec.name}` is not known"
        raise DriveError(message, where=tensor.port.name, hint=f"set it with --size {place}=N")

    def learn(self, port: Port, known: KnownPort | None, shape: Sequence[int]) -> None:
        """Notes the axes and symbolic dims of an array that is fed."""
        for dim, length in zip(port.dims or (), shape, strict=False):
            if isinstance(dim, str):
                self.symbols.setdefault(dim, length)
        if known is None or len(shape) != known.spec.layout.rank:
            return
        try:
            sizes = known.spec.layout.bind(tuple(shape))
        except PlanError:
            return
        self.axes |= {axis: size for axis, size in sizes.items() if isinstance(size, int) and axis not in self.axes}

    def port_shape(self, port: Port, known: KnownPort | None) -> tuple[int, ...]:
        """Returns the shape to feed to a port that is no cache."""
        if known is None:
            if port.dims is None:
                message = "nothing is known about the shape of this input"
                raise DriveError(message, where=port.name, hint="give it with --inputs FILE.npz")
            return _require_bounded(tuple(self._unknown(port, *place) for place in enumerate(port.dims)), port)
        layout = known.spec.layout
        dims = port.dims if port.dims is not None else (None,) * layout.rank
        shape = []
        for item, dim in zip(layout.items, dims, strict=True):
            told = self.told(dim)
            if told is None and not item:
                # What a convention has as one may have the name of a dim that is more.
                told = self._by_symbol(dim)
            shape.append(math.prod(self._axis(port, known, axis, dim) for axis in item) if told is None else told)
        return _require_bounded(tuple(shape), port)

    def _axis(self, port: Port, known: KnownPort, axis: str, dim: Dim) -> int:
        told = self.told(dim, axis)
        if told is not None:
            return told
        if axis in self.axes:
            return self.axes[axis]
        size = self.value(known.sizes.get(axis))
        if size is None and (size := self._by_symbol(dim)) is not None:
            return size
        if size is None:
            size = self.batch if axis == "batch" else self._default(known, axis, dim)
        return self._shorter(size) if axis == "frame" else size

    def _default(self, known: KnownPort, axis: str, dim: Dim) -> int:
        if axis == "sequence":
            return self.guess(self.profile.prefill, dim, axis) if self.tick == 0 else 1
        if axis == "key":
            return self.time + (0 if is_in_place(self.binding) else self.chunk)
        if axis == "frame":
            return self.guess(FRAMES if "feature" in known.spec.layout.axes else SAMPLES, dim, axis, exact=True)
        return self.guess(OTHER, dim, axis)

    def _shorter(self, size: int) -> int:
        """Returns how long the chunk of this tick is: every third is about half as long, where the model takes that."""
        return size // 2 + 2 if self.varies and self.tick % 3 == 1 and size > 4 else size

    def _unknown(self, port: Port, index: int, dim: Dim) -> int:
        """Returns a dim of a port of which nothing but its dims is known."""
        for value in (self.told(dim), self._by_symbol(dim)):
            if value is not None:
                return value
        if index == 0 and len(port.dims or ()) > 1:
            return self.batch
        return self.guess(OTHER, dim, f"{port.name}[{index}]")

    def _by_symbol(self, dim: Dim) -> int | None:
        """Returns a size that was fed elsewhere under the same symbol, or what a symbol like `past + 1` comes to."""
        if not isinstance(dim, str):
            return None
        if dim in self.symbols:
            return self.symbols[dim]
        try:
            value = Expression.parse(dim).value({**self.known(), **self.symbols})
        except LayoutError:
            return None
        return value if value is not None and value > 0 else None

    def see(self, state: Mapping[str, Array]) -> None:
        """Notes the sizes of the caches as they are now."""
        for cache in self.binding.caches:
            for tensor in cache.past:
                array = state[tensor.port.name]
                self.learn(tensor.port, None, array.shape)
                for axis, size in axis_sizes(tensor, array, self._told_axes(cache, tensor)).items():
                    self.caches[f"{cache.spec.name}.{axis}"] = size

    def _told_axes(self, cache: BoundCache, tensor: BoundTensor) -> dict[str, int]:
        """Returns what is said of axes that share a dimension of which the file does not say enough."""
        axes = {axis for item in tensor.spec.layout.items if len(item) > 1 for axis in item}
        told = {axis: self.told(None, f"{cache.spec.name}.{axis}", axis) for axis in sorted(axes - {"time"})}
        told |= {"batch": self.batch} if "batch" in axes else {}
        return {axis: size for axis, size in told.items() if size is not None}


def axis_sizes(tensor: BoundTensor, array: Array, told: Mapping[str, int] | None = None) -> dict[str, int]:
    """Returns the size of each axis of a cache's tensor as it is now.

    Args:
        tensor: The tensor.
        array: What it holds.
        told: Sizes of axes that the file does not tell. Where several axes share a dimension and nobody told, time, or
            the last of them, has it all.

    Raises:
        DriveError: The array does not divide into these sizes.
    """
    layout = tensor.spec.layout
    known = {axis: size for axis, size in tensor.sizes.items() if isinstance(size, int) and axis != "time"}
    for item in layout.items:
        open_axes = [axis for axis in item if axis not in known]
        rest = "time" if "time" in open_axes else open_axes[-1] if open_axes else ""
        known |= {axis: (told or {}).get(axis, 1) for axis in open_axes if axis != rest}
    try:
        sizes = layout.bind(array.shape, known)
    except PlanError as error:
        hint = "set the sizes of its axes with --size AXIS=N"
        raise DriveError(error.message, where=tensor.port.name, hint=hint) from None
    return {axis: size for axis, size in sizes.items() if isinstance(size, int)}


def _require_bounded(shape: tuple[int, ...], port: Port, *, is_cache: bool = False) -> tuple[int, ...]:
    if min(shape, default=1) < 0:
        hint = "sizes are set with --size"
        raise DriveError(f"an array of {list(shape)} cannot be fed", where=port.name, hint=hint)
    if is_too_large(math.prod(shape), is_cache=is_cache) or len(shape) > 64:
        shown = f"[{', '.join(map(str, shape[:8]))}{', ...' * (len(shape) > 8)}]"
        raise DriveError(
            f"an array {shown} is too large to be fed", where=port.name, hint="set smaller sizes with --size"
        )
    return shape


def require_names(plan: Plan, given: Mapping[str, int]) -> None:
    """Checks that sizes which the user gave belong to something, and are sizes.

    Raises:
        UsageError: No axis, symbolic dim or metadata key has this name, or no array is that large.
    """
    binding = plan.binding
    ports = (*binding.signature.inputs, *binding.signature.outputs)
    dims = {dim for port in ports for dim in port.dims or () if isinstance(dim, str)}
    axes = {axis for known in known_inputs(binding).values() for axis in known.spec.layout.axes}
    axes |= {axis for cache in binding.caches for axis in cache.spec.axes}
    axes |= {f"{cache.spec.name}.{axis}" for cache in binding.caches for axis in cache.spec.axes}
    # The result may have axes of size 1 that the source leaves out, and not tell their size.
    for spec in plan.target.caches if plan.target else ():
        axes |= {name for axis in spec.axes for name in (axis, f"{spec.name}.{axis}")}
    inner = {name for known in known_inputs(binding).values() for text in known.sizes.values() for name in text.names}
    for name, size in given.items():
        if abs(size) > _LARGEST:
            raise UsageError(f"no array is {size} long", where=f"--size {name}={size}", hint=f"at most {_LARGEST}")
        if name not in dims | axes | inner | set(binding.signature.metadata):
            hint = f"symbolic dims: {', '.join(sorted(dims)) or 'none'}; axes: {', '.join(sorted(axes))}"
            raise UsageError("no dim or axis has this name", where=f"--size {name}", hint=hint)


def learn_batch(sizes: Sizes) -> None:
    """Notes the batch before anything is fed, where the caches' dims or the user tell it."""
    known = [cache.size("batch") for cache in sizes.binding.caches if "batch" in cache.spec.axes]
    told = [size for dim in known if (size := sizes.told(dim, "batch")) is not None]
    told += [sizes.given["batch"]] if "batch" in sizes.given else []
    sizes.axes |= {"batch": told[0]} if told else {}


def main_cache(binding: Binding) -> BoundCache | None:
    """Returns the cache whose length masks and offsets follow: keys and values before anything else with a time."""
    timed = [cache for cache in binding.caches if "time" in cache.spec.axes]
    return min(timed, key=lambda cache: not {"kv", "head"} & cache.spec.axes, default=None)


def is_in_place(binding: Binding) -> bool:
    """Whether the cache that masks and offsets follow has its full length from the start, and is written over."""
    main = main_cache(binding)
    return main is not None and main.spec.update == "in-place"


def is_read_only(cache: BoundCache) -> bool:
    """Whether a model only takes a cache, and what it hands out of it, if anything, is no other."""
    return not cache.present or cache.spec.update == "fixed"


def unit_axes(plan: Plan) -> frozenset[str]:
    """Returns the axes that must be of size 1, as only one side of the conversion has them."""
    steps = [step for cache in plan.caches for route in cache.routes for step in route.steps]
    return frozenset(
        axis
        for step in steps
        if isinstance(step, Rearrange)
        for axis in frozenset(step.before.axes) ^ frozenset(step.after.axes)
    )


def _kept_length(cache: BoundCache) -> int | None:
    """Returns the length that all presents of a cache have, where the file states it."""
    sizes = {tensor.sizes.get("time") for tensor in cache.present}
    size = sizes.pop() if len(sizes) == 1 else None
    return size if isinstance(size, int) else None
