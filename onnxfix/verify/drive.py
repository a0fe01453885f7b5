"""A stream: what to feed a model at each tick, by the roles of its inputs."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from onnxfix.convention.binding import BoundCache, BoundTensor
from onnxfix.convention.plan import Plan
from onnxfix.convention.signature import Port
from onnxfix.errors import DriveError
from onnxfix.verify.dtypes import DRIVABLE, cast, encode, is_float
from onnxfix.verify.feed import HERTZ, LEVEL, SAMPLE_RATE, Feed, noise, tone
from onnxfix.verify.inputs import Recording
from onnxfix.verify.masks import Keys, make_mask
from onnxfix.verify.options import EMPTY, FULL
from onnxfix.verify.profile import Profile, told_sizes
from onnxfix.verify.roles import KnownPort, is_mask, known_inputs, known_outputs
from onnxfix.verify.sizes import Sizes, axis_sizes, is_in_place, is_read_only, learn_batch, main_cache

if TYPE_CHECKING:
    from onnxfix.convention.route import Array

    State: TypeAlias = Mapping[str, Array]

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
        varies: Whether chunks are shorter at some ticks, and streams of a batch of different lengths.
        tonal: Whether to feed a tone where nothing better than noise is known.
        table: Returns how many rows the table has that an input of indices is looked up in; None where it has none.
        guesses: Filled on the way: sizes that nobody told.
        fed: Filled on the way: how each port was fed, in words.
    """

    plan: Plan
    given: Mapping[str, int]
    seed: int
    feeds: Mapping[str, Feed]
    recording: Recording
    profile: Profile
    varies: bool = False
    tonal: bool = False
    table: Callable[[str], int | None] = lambda name: None
    guesses: dict[str, int] = field(default_factory=dict)
    fed: dict[str, str] = field(default_factory=dict)

    @property
    def begins(self) -> str:
        """How long the caches are at first, `full` or `empty`."""
        return FULL if self.profile.time else EMPTY

    @cached_property
    def _known(self) -> Mapping[str, KnownPort]:
        return known_inputs(self.plan.binding)

    @property
    def is_noisy(self) -> bool:
        """Whether anything that was fed was noise for want of something better."""
        return not self.tonal and bool({"features", "noise"} & set(self.fed.values()))

    @cached_property
    def _written(self) -> int | None:
        """How much of caches of full length is written at first; None where nothing is written in place.

        Of full ones a half is, which the model sees, and the rest is yet to be written over.
        """
        if not is_in_place(self.plan.binding):
            return None
        return self._start_time // 2 if self.begins == FULL else 0

    def room(self, prompt: int) -> int | None:
        """Returns how many ticks fit into caches that are written in place, if the first puts out so many tokens.

        None where nothing is written in place.
        """
        return None if self._written is None else max(1, self._start_time - self._written - prompt + 1)

    @property
    def switches(self) -> Mapping[str, int]:
        """The inputs that choose between parts of a model, and what each was fed at every tick for want of a choice.

        A flag says that caches hold something: it is 0 at the first tick where they begin empty, and 1 at all others.
        """
        values = {"rate": SAMPLE_RATE, **({"flag": 1} if self.begins == FULL else {})}
        return {name: values[how] for name, how in sorted(self.fed.items()) if how in values}

    @cached_property
    def _taken(self) -> frozenset[int]:
        return told_sizes(self.plan.binding)

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
        for cache in self.plan.binding.caches if self.begins == FULL else ():
            for tensor in cache.past:
                if self._counts(cache, tensor):
                    array = state[tensor.port.name]
                    state[tensor.port.name] = np.full_like(array, sizes.time)
        return state

    def _first(self, cache: BoundCache, tensor: BoundTensor, sizes: Sizes) -> Array:
        name = tensor.port.name
        _require_drivable(tensor.port)
        array = self._first_array(cache, tensor, sizes)
        empty = [axis for axis, size in axis_sizes(tensor, array).items() if not size and axis != "time"]
        if empty:
            message = f"the axis `{empty[0]}` of the first cache is empty"
            raise DriveError(message, where=name, hint="only a time may be")
        return array

    def _first_array(self, cache: BoundCache, tensor: BoundTensor, sizes: Sizes) -> Array:
        name, dtype = tensor.port.name, tensor.port.dtype
        recorded = self.recording.at(name, 0)
        if recorded is not None:
            return recorded
        shape = sizes.cache_shape(cache, tensor)
        if name in self.feeds:
            return self.feeds[name].make(shape, dtype, 0, self._rng(0, name))
        if is_mask(cache):
            # Where the caches begin full, all of their frames count.
            return encode(np.full(shape, self.begins == FULL), dtype)
        holds = self.begins == FULL or is_read_only(cache)
        if holds and not cache.spec.init and dtype not in ("bool", "int32", "int64"):
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
            if not arrays[port.name].size:
                message = f"an array {list(arrays[port.name].shape)} is empty, and only a cache may be"
                raise DriveError(message, where=port.name, hint="set other sizes with --size")
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
        if role == "tokens":
            return np.asarray(moment.rng.integers(0, self._vocabulary(port), shape))
        if role == "mask" and known is not None:
            return self._mask(known, shape, moment)
        offset = self._offset(moment)
        if role == "positions":
            last = shape[-1] if shape else 1
            return np.broadcast_to(offset + np.arange(last), shape or (1,)).reshape(shape)
        if role == "lengths":
            return self._lengths(shape, moment)
        holds = moment.tick > 0 or self.begins == FULL
        values = {"offset": offset, "cache-length": self._start_time, "flag": int(holds), "rate": SAMPLE_RATE}
        if role in values:
            return np.full(shape, values[role])
        if not is_float(port.dtype):
            rows = self.table(port.name) if "int" in port.dtype else None
            return np.asarray(moment.rng.integers(0, rows, shape)) if rows else noise(shape, port.dtype, moment.rng)
        if self.tonal:
            return self._tone(port, known, shape, moment)
        # Loud sound saturates gates, and a state behind them has no say any more; quiet sound never opens others.
        is_sound = role == "features" and known is not None and "feature" not in known.spec.layout.axes
        return noise(shape, "float32", moment.rng) * np.float32(LEVEL if is_sound and moment.tick % 2 == 0 else 1)

    def _offset(self, moment: Moment) -> int:
        """Returns how much of the stream lies behind: what was put out, and what the first caches held."""
        if self._written is not None:
            return self._written + moment.put_out
        return max(self._start_time + moment.put_out, moment.sizes.time)

    def _mask(self, known: KnownPort, shape: tuple[int, ...], moment: Moment) -> Array:
        # A cache that was long from the start fills up; one that grows holds nothing but what was put out.
        filled = min(moment.sizes.time, moment.put_out) if self._start_time else moment.sizes.time
        time = moment.sizes.time
        written = None if self._written is None else self._offset(moment) + moment.sizes.chunk
        keys = Keys(time, time if self.begins == FULL else filled, self.begins == FULL, written)
        return make_mask(known.spec, shape, keys, moment.tick, moment.rng)

    def _lengths(self, shape: tuple[int, ...], moment: Moment) -> Array:
        """Returns how long each stream's chunk is: all of it and, at some ticks, less for some.

        Where caches are written in place, a length says how much of them holds something, the chunk included.
        """
        whole = moment.sizes.chunk
        if self._written is not None:
            return np.full(shape, self._offset(moment) + whole)
        lengths = np.full(shape, whole)
        if self.varies and moment.tick % 3 == 1 and shape:
            lengths -= (np.arange(lengths.size) % 3 * (whole // 6)).reshape(shape)
        return lengths

    def _tone(self, port: Port, known: KnownPort | None, shape: tuple[int, ...], moment: Moment) -> Array:
        """Returns a voice's pitch, another one for each seed, in a little noise."""
        along = len(shape) - 1
        if known is not None and "frame" in known.spec.layout.axes:
            along = known.spec.layout.place("frame")[0]
        hertz = HERTZ * (1 + self._rng(0, port.name).random())
        start = moment.tick * (shape[along] if shape else 1)
        return tone(shape, along, start, hertz) + 0.001 * moment.rng.standard_normal(shape)

    def _vocabulary(self, port: Port) -> int:
        """Returns how many tokens there are: the last dim of the logits, what metadata says, or the table's rows."""
        for output in self.plan.binding.signature.outputs:
            spec = self.plan.binding.outputs.get(output.name)
            is_logits = "vocabulary" in spec.layout.axes if spec else output.name == "logits"
            if is_logits and output.dims and isinstance(output.dims[-1], int):
                return output.dims[-1]
        told = self.plan.binding.signature.numbers.get("vocab_size", 0)
        return told if told > 0 else self.table(port.name) or WORDS

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
        given = {**self.plan.binding.sizes, **self.given}
        sizes = Sizes(
            self.plan, given, self.profile, tick=tick, guesses=self.guesses, taken=self._taken, varies=self.varies
        )
        learn_batch(sizes)
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
        raise DriveError(message, where=port.name)
