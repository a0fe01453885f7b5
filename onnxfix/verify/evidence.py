"""What a comparison proves: which parts of the state have a say in what the model puts out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from onnxfix.errors import DriveError
from onnxfix.verify.drive import Drive
from onnxfix.verify.dtypes import count_nans, decode
from onnxfix.verify.parts import Part, disturbed
from onnxfix.verify.parts import parts_of as parts_of
from onnxfix.verify.rows import shown_in_rows
from onnxfix.verify.session import Session
from onnxfix.verify.stream import Stream, Tick
from onnxfix.verify.window import ticks_to_forget

if TYPE_CHECKING:
    from onnxfix.convention.route import Array


@dataclass
class Witness:
    """The undisturbed source: what it put out at each tick, as digests, and states to start from.

    Attributes:
        session, drive: The source.
        outputs: Digests of the outputs that count, by tick and name.
        starts: The first two ticks.
        stream: The source after the last of `outputs`, to go on from.
    """

    session: Session
    drive: Drive
    stream: Stream
    outputs: list[dict[str, bytes]]
    starts: list[Tick]

    def see(self, tick: Tick) -> None:
        """Notes a tick."""
        self.outputs.append(self.digest(tick))
        if len(self.starts) < 2:
            self.starts.append(tick)

    def digest(self, tick: Tick) -> dict[str, bytes]:
        """Returns a fingerprint of each output that counts: those that are no cache, or all if there is no other."""
        dtypes = {port.name: port.dtype for port in self.session.outputs}
        return {name: _digest(tick.fetched[name], dtypes[name]) for name in self.counted(tick)}

    def counted(self, tick: Tick) -> list[str]:
        """Returns the outputs that count."""
        states = set(self.drive.plan.binding.pairs.values())
        return [name for name in tick.fetched if name not in states] or list(tick.fetched)

    def at(self, number: int) -> dict[str, bytes]:
        """Returns the fingerprints of a tick; runs the source until there."""
        while len(self.outputs) <= number:
            self.see(self.stream.step())
        return self.outputs[number]


def _digest(array: Array, dtype: str) -> bytes:
    """Returns a fingerprint in which all NaNs are alike: what differs in the bits of a NaN alone has no say."""
    if count_nans(array, dtype):
        array = np.where(np.isnan(decode(array, dtype)), array.dtype.type(0), array)
    head = f"{array.dtype}{array.shape}".encode()
    return hashlib.blake2b(head + np.asarray(array, order="C").tobytes(), digest_size=16).digest()


@dataclass(frozen=True)
class Findings:
    """What a run proves.

    Attributes:
        observable: Parts of caches that change an output when they are disturbed.
        not_observable: Parts that do not.
        vacuous: Why nothing is proven; empty where something is.
        notes: Why parts are not observable, as far as that is known, and which outputs are always the same.
    """

    observable: tuple[str, ...]
    not_observable: tuple[str, ...]
    vacuous: str = ""
    notes: tuple[str, ...] = ()


def gather(witness: Witness, ticks: int, done: Callable[[], None]) -> Findings:
    """Returns what the ticks so far prove, after disturbing each part of the state on its own.

    Args:
        witness: The source, undisturbed, after the ticks that count.
        ticks: How many these were; a long cache is followed longer.
        done: Called after each part.
    """
    if not witness.outputs:
        return Findings((), (), "no tick was driven, so nothing is proven")
    outputs = witness.outputs[:ticks]
    if not _all_parts(witness):
        return Findings((), (), "the model carries no state from call to call, so there is nothing to prove")
    shown, reasons = _tried(witness, ticks, done)
    hidden = tuple(part for part in reasons)
    same = [name for name in outputs[0] if len(outputs) > 1 and all(one[name] == outputs[0][name] for one in outputs)]
    notes = [f"the output `{name}` is the same at every tick" for name in same]
    notes += _explained(reasons)
    if shown:
        return Findings(shown, hidden, "", tuple(notes))
    return Findings((), hidden, _why_vacuous(witness, len(same) == len(outputs[0]), reasons), tuple(notes))


def observe(witness: Witness, ticks: int, done: Callable[[], None]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Disturbs each part of each cache on its own, and returns the names of those that show in an output and the rest.

    Args:
        witness: The source, undisturbed.
        ticks: How many ticks were compared; a long cache is followed longer.
        done: Called after each part.
    """
    shown, reasons = _tried(witness, ticks, done)
    return shown, tuple(reasons)


def _all_parts(witness: Witness) -> list[Part]:
    caches = witness.drive.plan.binding.caches
    return [part for cache in caches for part in parts_of(cache, witness.starts[0].state)]


def _tried(witness: Witness, ticks: int, done: Callable[[], None]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Returns the parts that show, and why the others do not.

    Nearly all show at once, so each gets one tick alone, or one stream of a batch. Those that are left are followed for
    as long as caches remember, together first: what shows nothing together is not tried apart, and what does is halved.
    """
    parts = _all_parts(witness)
    horizon = max(ticks, ticks_to_forget(witness.drive.plan.binding, witness.starts))
    left, reasons = [], {}
    alive = shown_in_rows(witness.session, witness.drive, parts)
    for part in parts:
        start = _start(witness, [part])
        if part.name in alive:
            pass
        elif start is None:
            reasons[part.name] = "it is empty"
        elif _shows(witness, [part], start, start.number + 1):
            alive.add(part.name)
        else:
            left.append(part)
            continue
        done()
    for part, shows in _heard(witness, left, horizon):
        if shows:
            alive.add(part.name)
        else:
            reasons[part.name] = f"within {horizon} ticks it changes no output"
        done()
    shown = tuple(part.name for part in parts if part.name in alive)
    return shown, {part.name: reasons[part.name] for part in parts if part.name in reasons}


def _heard(witness: Witness, parts: Sequence[Part], horizon: int) -> Iterator[tuple[Part, bool]]:
    """Yields each part with whether it shows, if not in noise then in a tone: noise may saturate what a state feeds."""
    hidden = []
    for part, shows in _halved(witness, parts, horizon):
        if shows or not witness.drive.is_noisy:
            yield part, shows
        else:
            hidden.append(part)
    if not hidden:
        return
    drive = replace(witness.drive, tonal=True, guesses=dict(witness.drive.guesses), fed={})
    try:
        other = Witness(witness.session, drive, Stream(witness.session, drive, drive.start()), [], [])
        other.at(len(witness.starts) - 1)
    except DriveError:
        yield from ((part, False) for part in hidden)
    else:
        yield from _halved(other, hidden, horizon)


def _halved(witness: Witness, parts: Sequence[Part], horizon: int) -> Iterator[tuple[Part, bool]]:
    """Yields each part with whether it shows on its own within so many ticks."""
    if not parts:
        return
    start = _start(witness, parts)
    if start is None:  # they are never filled at the same time
        middle = len(parts) // 2
        yield from _halved(witness, parts[:middle], horizon)
        yield from _halved(witness, parts[middle:], horizon)
        return
    shows = _shows(witness, parts, start, horizon)
    if len(parts) == 1 or not shows:
        yield from ((part, shows) for part in parts)
        return
    middle = len(parts) // 2
    yield from _halved(witness, parts[:middle], horizon)
    yield from _halved(witness, parts[middle:], horizon)


def _start(witness: Witness, parts: Sequence[Part]) -> Tick | None:
    """Returns a tick at which these parts hold something: best the second, as a decoder's first is its longest."""
    return next((tick for tick in reversed(witness.starts) if all(tick.state[part.port].size for part in parts)), None)


def _shows(witness: Witness, parts: Sequence[Part], start: Tick, horizon: int) -> bool:
    """Whether an output changes before tick `horizon` when these parts are other than they were."""
    states = disturbed(parts, start.state, witness.drive.seed)
    return any(_changes(witness, state, start, horizon, {part.port for part in parts}) for state in states)


def _changes(witness: Witness, state: Mapping[str, Array], start: Tick, horizon: int, ports: set[str]) -> bool:
    own = {witness.drive.plan.binding.pairs.get(name) for name in ports}
    stream = Stream(witness.session, witness.drive, state, tick=start.number, put_out=start.put_out)
    for number in range(start.number, horizon):
        try:
            before = witness.at(number)
        except DriveError:
            return False  # The model takes no stream as long as this.
        try:
            now = witness.digest(stream.step())
        except DriveError:
            return True  # A value that the model rejects is a value that it reads.
        if any(now[name] != before[name] for name in now if name not in own):
            return True
    return False


def _explained(reasons: Mapping[str, str]) -> list[str]:
    """Returns one note a reason, naming the first parts that it goes for."""
    notes = []
    for reason in dict.fromkeys(reasons.values()):
        names = [name for name, why in reasons.items() if why == reason]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        notes.append(f"not observable: {'; '.join(names[:3])}{more}: {reason}")
    return notes


def _why_vacuous(witness: Witness, is_constant: bool, reasons: Mapping[str, str]) -> str:
    first = witness.starts[0]
    if not any(tick.fetched[name].size for tick in witness.starts for name in witness.counted(tick)):
        return "every output is empty, so nothing is proven"
    if _is_nan(witness):
        return "every output is NaN, so nothing is proven"
    if is_constant:
        return "every output is the same at every tick, so nothing is proven"
    if all(reason == "it is empty" for reason in reasons.values()):
        return "every cache is empty at every tick, so nothing is proven of the conversion"
    if _is_deaf(witness, first):
        return "another seed gives the same outputs, so nothing is proven"
    names = list(reasons)
    shown = "; ".join(names[:4]) + (f"; and {len(names) - 4} more" if len(names) > 4 else "")
    return f"no output depends on the state, so nothing is proven of the conversion ({shown})"


def _is_nan(witness: Witness) -> bool:
    """Whether the first ticks put out nothing but NaN."""
    dtypes = {port.name: port.dtype for port in witness.session.outputs}
    arrays = [(tick.fetched[name], dtypes[name]) for tick in witness.starts for name in witness.counted(tick)]
    return all(count_nans(array, dtype) == array.size for array, dtype in arrays)


def _is_deaf(witness: Witness, first: Tick) -> bool:
    """Whether the first tick of another seed, which feeds something else, puts out the same."""
    drive = replace(witness.drive, seed=witness.drive.seed + 1, guesses=dict(witness.drive.guesses), fed={})
    try:
        tick = Stream(witness.session, drive, drive.start()).step()
    except DriveError:
        return False
    fed, was = {**tick.inputs, **tick.state}, {**first.inputs, **first.state}
    is_same_fed = all(array.tobytes() == was[name].tobytes() for name, array in fed.items())
    return not is_same_fed and witness.digest(tick) == witness.outputs[0]
