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
from onnxfix.errors import DriveError, LayoutError, PlanError
from onnxfix.verify.roles import KnownPort

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
        tick: The tick.
        guesses: What was chosen because nobody said, by symbolic dim or port and axis.
    """

    plan: Plan
    given: Mapping[str, int]
    profile: Profile
    axes: dict[str, int] = field(default_factory=dict)
    caches: dict[str, int] = field(default_factory=dict)
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
        """Notes a size that nobody told."""
        self.guesses[dim if isinstance(dim, str) else name] = size
        return size

    def cache_shape(self, cache: BoundCache, tensor: BoundTensor) -> tuple[int, ...]:
        """Returns the shape of a first cache."""
        layout = tensor.spec.layout
        dims = tensor.port.dims if tensor.port.dims is not None else (None,) * layout.rank
        shape = []
        for item, dim in zip(layout.items, dims, strict=True):
            if (told := self.told(dim)) is not None:
                shape.append(told)
            else:
                shape.append(math.prod(self._cache_axis(cache, tensor, axis) for axis in item))
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
            return self.axes["batch"]
        for key in (place, axis):
            if (value := self.value(self.binding.convention.sizes.get(key))) is not None:
                return value
        if axis == "time":
            return self.guess(_kept_length(cache) or self.profile.time, size, place)
        message = f"the size of the axis `{axis}` of the cache `{cache.spec.name}` is not known"
        raise DriveError(message, where=tensor.port.name, hint=f"set it with --size {place}=N")

    def learn(self, known: KnownPort, shape: Sequence[int]) -> None:
        """Notes the axes of an array that is fed."""
        if len(shape) != known.spec.layout.rank:
            return
        try:
            sizes = known.spec.layout.bind(tuple(shape))
        except PlanError:
            return
        for axis, size in sizes.items():
            if isinstance(size, int):
                self.axes.setdefault(axis, size)

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
        if (value := self.value(known.sizes.get(axis))) is not None:
            return value
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
        told = self.told(dim)
        if told is not None:
            return told
        if isinstance(dim, str):
            if (bound := self._symbol(dim)) is not None:
                return bound
            try:
                value = Expression.parse(dim).value({**self.known(), **self._symbols()})
            except LayoutError:
                value = None
            if value is not None and value > 0:
                return value
        if index == 0 and len(port.dims or ()) > 1:
            return self.axes["batch"]
        return self.guess(OTHER, dim, f"{port.name}[{index}]")

    def _symbol(self, symbol: str) -> int | None:
        return self._symbols().get(symbol, self.known().get(symbol))

    def _symbols(self) -> dict[str, int]:
        """Returns the symbolic dims of caches with their present sizes."""
        found = {}
        for cache in self.binding.caches:
            for tensor in cache.past:
                for axis, size in tensor.sizes.items():
                    if isinstance(size, str) and (now := self.caches.get(f"{cache.spec.name}.{axis}")) is not None:
                        found[size] = now
        return found

    def see(self, state: Mapping[str, Array]) -> None:
        """Notes the sizes of the caches as they are now."""
        for cache in self.binding.caches:
            for tensor in cache.past:
                told = {axis: size for axis, size in tensor.sizes.items() if isinstance(size, int) and axis != "time"}
                for axis, size in tensor.spec.layout.bind(state[tensor.port.name].shape, told).items():
                    if isinstance(size, int):
                        self.caches[f"{cache.spec.name}.{axis}"] = size


def start_sizes(plan: Plan, given: Mapping[str, int], profile: Profile) -> Sizes:
    """Returns the sizes before the first tick."""
    sizes = Sizes(plan, {**plan.binding.sizes, **given}, profile)
    known = [cache.size("batch") for cache in plan.binding.caches if "batch" in cache.spec.axes]
    told = [size for dim in known if (size := sizes.told(dim, "batch")) is not None]
    told += [sizes.given["batch"]] if "batch" in sizes.given else []
    default = 1 if "batch" in unit_axes(plan) else profile.batch
    sizes.axes["batch"] = told[0] if told else default
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
