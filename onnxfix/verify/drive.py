"""A stream: what to feed a model at each tick, by the roles of its inputs."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from onnxfix.convention.binding import BoundCache, BoundTensor
from onnxfix.convention.plan import Plan
from onnxfix.convention.signature import Port
from onnxfix.errors import DriveError
from onnxfix.verify.dtypes import DRIVABLE, cast, encode, is_float
from onnxfix.verify.feed import Feed, Recording, noise
from onnxfix.verify.roles import KnownPort, is_mask, known_inputs, known_outputs
from onnxfix.verify.sizes import Profile, Sizes, axis_sizes, main_cache, start_sizes

if TYPE_CHECKING:
    from onnxfix.convention.route import Array

    State: TypeAlias = Mapping[str, Array]

SAMPLE_RATE = 16000
WORDS = 8
"""Tokens that every vocabulary has, where its size is not known."""
_FIRST = {"features": 0, "tokens": 1}


@dataclass(frozen=True)
class Moment:
    """What the feeds of one tick depend on.

    Attributes:
        tick: The tick, from 0.
        put_out: How many frames or tokens the model put out before.
        sizes: The sizes of this tick.
        rng: Random numbers of this tick and port.
    """

    tick: int
    put_out: int
    sizes: Sizes
    rng: np.random.Generator


@dataclass(frozen=True)
class Drive:
    """Decides what the source is fed.

    Attributes:
        plan: The conversion.
        given: Sizes that the user gave.
        seed: The same seed gives the same feeds.
        feeds: What the user wants fed, by port.
        recording: Inputs from a file.
        profile: What to choose where nothing is known.
        guesses: Filled on the way: sizes that nobody told.
        fed: Filled on the way: how each port was fed, in words.
    """

    plan: Plan
    given: Mapping[str, int]
    seed: int
    feeds: Mapping[str, Feed]
    recording: Recording
    profile: Profile
    guesses: dict[str, int] = field(default_factory=dict)
    fed: dict[str, str] = field(default_factory=dict)

    @cached_property
    def _known(self) -> Mapping[str, KnownPort]:
        return known_inputs(self.plan.binding)

    @cached_property
    def _start_time(self) -> int:
        """The length of the first cache."""
        sizes = self._sizes(0)
        sizes.see(self.start())
        return sizes.time

    def start(self) -> dict[str, Array]:
        """Returns the first state of the source, by input name.

        Raises:
            DriveError: The size of an axis is not known.
        """
        sizes = self._sizes(0)
        state = {}
        for cache in self.plan.binding.caches:
            for tensor in cache.past:
                state[tensor.port.name] = self._first(cache, tensor, sizes)
        sizes.see(state)
        for cache in self.plan.binding.caches:
            for tensor in cache.past:
                if self._counts(cache, tensor):
                    array = state[tensor.port.name]
                    state[tensor.port.name] = np.full_like(array, sizes.time)
        return state

    def _first(self, cache: BoundCache, tensor: BoundTensor, sizes: Sizes) -> Array:
        name, dtype = tensor.port.name, tensor.port.dtype
        _require_drivable(tensor.port)
        recorded = self.recording.at(name, 0)
        if recorded is not None:
            return recorded
        shape = sizes.cache_shape(cache, tensor)
        if name in self.feeds:
            return self.feeds[name].make(shape, dtype, 0, self._rng(0, name))
        if is_mask(cache):
            # The caches begin full, so all of their frames count.
            return encode(np.ones(shape), dtype)
        if not cache.spec.init and dtype not in ("bool", "int32", "int64"):
            return noise(shape, dtype, self._rng(0, name))
        return encode(np.full(shape, cache.spec.init), dtype)

    def _counts(self, cache: BoundCache, tensor: BoundTensor) -> bool:
        """An integer that is carried along is a position or a length: where the cache is full, it says so."""
        name = tensor.port.name
        is_chosen = name in self.feeds or self.recording.at(name, 0) is not None or is_mask(cache)
        return not is_chosen and tensor.port.dtype in ("int32", "int64") and not cache.spec.init

    def inputs(self, tick: int, put_out: int, state: State) -> dict[str, Array]:
        """Returns what to feed besides the state, by input name.

        Args:
            tick: The tick, from 0.
            put_out: How many frames or tokens the model put out before.
            state: The source's state before the tick.

        Raises:
            DriveError: An input of a kind that cannot be fed, or a size that is not known.
        """
        sizes = self._sizes(tick)
        sizes.see(state)
        ports = [port for port in self.plan.binding.signature.inputs if port.name not in state]
        arrays: dict[str, Array] = {}
        # Masks and positions are as long as tokens and features say.
        for port in sorted(ports, key=self._rank):
            recorded = self.recording.at(port.name, tick)
            if recorded is None:
                moment = Moment(tick, put_out, sizes, self._rng(tick, port.name))
                arrays[port.name] = self._make(port, self._known.get(port.name), moment)
            else:
                arrays[port.name] = recorded
                self.fed.setdefault(port.name, "from the file")
        return {port.name: self._rounded(arrays[port.name], port) for port in ports}

    def _rank(self, port: Port) -> int:
        return _FIRST.get(self._known[port.name].spec.role, 2) if port.name in self._known else 2

    def _make(self, port: Port, known: KnownPort | None, moment: Moment) -> Array:
        _require_drivable(port)
        shape = moment.sizes.port_shape(port, known)
        moment.sizes.learn(port, known, shape)
        if port.name in self.feeds:
            self.fed.setdefault(port.name, str(self.feeds[port.name]))
            return self.feeds[port.name].make(shape, port.dtype, moment.tick, moment.rng)
        role = known.spec.role if known else "other"
        self.fed.setdefault(port.name, role if role != "other" else "noise")
        if known is not None and known.spec.feed is not None:
            value = known.spec.feed.value(moment.sizes.known())
            if value is None:
                message = f"`{known.spec.feed}` has no value here"
                raise DriveError(message, where=port.name, hint=f"set it with --feed {port.name}=constant:N")
            return encode(np.full(shape, value), port.dtype)
        return encode(self._by_role(role, port, known, shape, moment), port.dtype)

    def _by_role(self, role: str, port: Port, known: KnownPort | None, shape: tuple[int, ...], moment: Moment) -> Array:
        sizes = moment.sizes
        if role == "tokens":
            return np.asarray(moment.rng.integers(0, self._vocabulary(), shape))
        if role == "mask" and known is not None:
            return _mask(known, shape, moment)
        if role == "positions":
            last = shape[-1] if shape else 1
            return np.broadcast_to(sizes.time + np.arange(last), shape or (1,)).reshape(shape)
        values: Mapping[str, Callable[[], int]] = {
            "offset": lambda: max(self._start_time + moment.put_out, sizes.time),
            "lengths": lambda: sizes.axes.get("frame", sizes.axes.get("sequence", 1)),
            "cache-length": lambda: self._start_time,
            "flag": lambda: 1,
            "rate": lambda: SAMPLE_RATE,
        }
        if role in values:
            return np.full(shape, values[role]())
        return noise(shape, "float32" if is_float(port.dtype) else port.dtype, moment.rng)

    def _vocabulary(self) -> int:
        """Returns how many tokens there are: the last dim of the logits, or what metadata says."""
        for port in self.plan.binding.signature.outputs:
            spec = self.plan.binding.outputs.get(port.name)
            is_logits = "vocabulary" in spec.layout.axes if spec else port.name == "logits"
            if is_logits and port.dims and isinstance(port.dims[-1], int):
                return port.dims[-1]
        text = self.plan.binding.signature.metadata.get("vocab_size", "")
        return int(text) if text.isdecimal() and int(text) else WORDS

    def advance(self, feeds: Mapping[str, Array], fetched: Mapping[str, Array]) -> int:
        """Returns how many frames or tokens a tick put out."""
        for name, known in known_outputs(self.plan.binding).items():
            if known.spec.role != "output" or fetched[name].ndim != known.spec.layout.rank:
                continue
            for axis in ("frame", "sequence"):
                if axis in known.spec.layout.axes:
                    return int(fetched[name].shape[known.spec.layout.place(axis)[0]])
        # Without a known output a cache tells, if it grows by what was put out.
        main = main_cache(self.plan.binding)
        if main is None or not main.present:
            return 1
        past, present = main.past[0], main.present[0]
        before = axis_sizes(past, feeds[past.port.name]).get("time", 0)
        return max(1, axis_sizes(present, fetched[present.port.name]).get("time", 0) - before)

    def _rounded(self, array: Array, port: Port) -> Array:
        """Returns what both sides see where an input is cast to a smaller type in the result."""
        new = self.plan.casts.get(self.plan.renames.get(port.name, port.name), port.dtype)
        return cast(cast(array, port.dtype, new), new, port.dtype)

    def _sizes(self, tick: int) -> Sizes:
        """Returns the sizes at a tick as far as the file, the user and the model itself tell them."""
        sizes = start_sizes(self.plan, self.given, self.profile)
        sizes = replace(sizes, tick=tick, guesses=self.guesses)
        states = {tensor.port.name for cache in self.plan.binding.caches for tensor in cache.past}
        for port in self.plan.binding.signature.inputs:
            recorded = self.recording.at(port.name, tick) if tick == 0 or port.name not in states else None
            if recorded is not None:
                sizes.learn(port, self._known.get(port.name), recorded.shape)
        return sizes

    def _rng(self, tick: int, name: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, tick, zlib.crc32(name.encode())])


def _require_drivable(port: Port) -> None:
    if port.dtype not in DRIVABLE:
        message = f"nothing can be fed to an input of element type {port.dtype}"
        raise DriveError(message, where=port.name, hint="--no-verify converts without a proof")


def _mask(known: KnownPort, shape: tuple[int, ...], moment: Moment) -> Array:
    """Returns 1 where a key may be seen: everything at first, later not all of the cache, always the present chunk."""
    mask = np.ones(shape, np.int64)
    layout = known.spec.layout
    if moment.tick < 2 or not shape:
        return mask
    place = layout.place("key")[0] if "key" in layout.axes else len(shape) - 1
    keys = shape[place]
    seen = moment.rng.random(keys) < 0.8
    seen[min(moment.sizes.time, keys - 1) :] = True
    return mask * seen.reshape([-1 if index == place else 1 for index in range(len(shape))])
