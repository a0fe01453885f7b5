"""How large everything is that is fed: from the file, the user, metadata, the convention, and defaults."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from onnxfix.convention.binding import Binding, BoundCache, BoundTensor
from onnxfix.convention.expression import Expression
from onnxfix.convention.plan import Plan
from onnxfix.convention.route import Rearrange
from onnxfix.convention.signature import Dim, Port
from onnxfix.errors import DriveError, LayoutError, PlanError, UsageError
from onnxfix.verify.roles import KnownPort, known_inputs

if TYPE_CHECKING:
    from onnxfix.convention.route import Array

TIME, FRAMES, SAMPLES, OTHER = 7, 67, 512, 3
"""Sizes that nobody told: of a cache's time, of features by frames, of raw audio, of anything else."""


@dataclass(frozen=True)
class Profile:
    """One way to choose the sizes that are left open.

    Attributes:
        batch: How many streams at once.
        time: The length of the first cache.
        prefill: The tokens of the first tick; after that one token a tick.
    """

    batch: int
    time: int
    prefill: int

    def __str__(self) -> str:
        first = f"a first cache of length {self.time}" if self.time else "an empty first cache"
        return f"batch {self.batch}, {first}, {self.prefill} token{'s' * (self.prefill > 1)} at first"


PROFILES = (
    Profile(2, TIME, 3), Profile(1, TIME, 3), Profile(1, TIME, 1), Profile(2, 0, 3), Profile(1, 0, 3), Profile(1, 0, 1)
)  # fmt: skip
"""In the order in which they are tried; an empty first cache hides most mistakes, so it comes last."""


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
        guesses: What was chosen because nobody said, by symbolic dim or port and axis.
    """

    plan: Plan
    given: Mapping[str, int]
    profile: Profile
    axes: dict[str, int] = field(default_factory=dict)
    caches: dict[str, int] = field(default_factory=dict)
    symbols: dict[str, int] = field(default_factory=dict)
    tick: int = 0
    guesses: dict[str, int] = field(default_factory=dict)

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
    def batch(self) -> int:
        """How many streams run at once."""
        default = 1 if "batch" in unit_axes(self.plan) else self.profile.batch
        return self.axes.get("batch", default)

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

    def guess(self, size: int, dim: Dim, name: str) -> int:
        """Notes a size that nobody told; what is said of it later is how the stream began."""
        return self.guesses.setdefault(dim if isinstance(dim, str) else name, size) if self.tick == 0 else size

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
        return tuple(shape)

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
            return self.guess(_kept_length(cache) or self.profile.time, size, place)
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
            return tuple(self._unknown(port, index, dim) for index, dim in enumerate(port.dims))
        layout = known.spec.layout
        dims = port.dims if port.dims is not None else (None,) * layout.rank
        shape = []
        for item, dim in zip(layout.items, dims, strict=True):
            told = self.told(dim)
            shape.append(math.prod(self._axis(port, known, axis, dim) for axis in item) if told is None else told)
        return tuple(shape)

    def _axis(self, port: Port, known: KnownPort, axis: str, dim: Dim) -> int:
        told = self.told(dim, axis)
        if told is not None:
            return told
        if axis in self.axes:
            return self.axes[axis]
        for value in (self.value(known.sizes.get(axis)), self._by_symbol(dim)):
            if value is not None:
                return value
        if axis == "batch":
            return self.batch
        return self.guess(self._default(known, axis), dim, axis)

    def _default(self, known: KnownPort, axis: str) -> int:
        if axis == "sequence":
            return self.profile.prefill if self.tick == 0 else 1
        if axis == "key":
            return self.time + self.axes.get("sequence", self.axes.get("frame", 1))
        if axis == "frame":
            return FRAMES if "feature" in known.spec.layout.axes else SAMPLES
        return OTHER

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
                for axis, size in axis_sizes(tensor, array).items():
                    self.caches[f"{cache.spec.name}.{axis}"] = size


def axis_sizes(tensor: BoundTensor, array: Array) -> dict[str, int]:
    """Returns the size of each axis of a cache's tensor as it is now."""
    told = {axis: size for axis, size in tensor.sizes.items() if isinstance(size, int) and axis != "time"}
    return {axis: size for axis, size in tensor.spec.layout.bind(array.shape, told).items() if isinstance(size, int)}


def require_names(plan: Plan, names: Iterable[str]) -> None:
    """Checks that sizes which the user gave belong to something.

    Raises:
        UsageError: No axis, symbolic dim or metadata key has this name.
    """
    binding = plan.binding
    ports = (*binding.signature.inputs, *binding.signature.outputs)
    dims = {dim for port in ports for dim in port.dims or () if isinstance(dim, str)}
    axes = {axis for known in known_inputs(binding).values() for axis in known.spec.layout.axes}
    axes |= {axis for cache in binding.caches for axis in cache.spec.axes}
    axes |= {f"{cache.spec.name}.{axis}" for cache in binding.caches for axis in cache.spec.axes}
    inner = {name for known in known_inputs(binding).values() for text in known.sizes.values() for name in text.names}
    for name in names:
        if name not in dims | axes | inner | set(binding.signature.metadata):
            hint = f"symbolic dims: {', '.join(sorted(dims)) or 'none'}; axes: {', '.join(sorted(axes))}"
            raise UsageError("no dim or axis has this name", where=f"--size {name}", hint=hint)


def start_sizes(plan: Plan, given: Mapping[str, int], profile: Profile) -> Sizes:
    """Returns the sizes before the first tick."""
    sizes = Sizes(plan, {**plan.binding.sizes, **given}, profile)
    known = [cache.size("batch") for cache in plan.binding.caches if "batch" in cache.spec.axes]
    told = [size for dim in known if (size := sizes.told(dim, "batch")) is not None]
    told += [sizes.given["batch"]] if "batch" in sizes.given else []
    sizes.axes |= {"batch": told[0]} if told else {}
    return sizes


def main_cache(binding: Binding) -> BoundCache | None:
    """Returns the cache whose length masks and offsets follow: keys and values before anything else with a time."""
    timed = [cache for cache in binding.caches if "time" in cache.spec.axes]
    return min(timed, key=lambda cache: not {"kv", "head"} & cache.spec.axes, default=None)


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
