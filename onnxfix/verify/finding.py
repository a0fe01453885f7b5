"""How a model wants to be driven: the first way that it accepts, with caches full at first and, if it can, empty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from onnxfix.convention.plan import Plan
from onnxfix.errors import DriveError, PlanError, UsageError
from onnxfix.model.tables import table_size
from onnxfix.verify.drive import Drive
from onnxfix.verify.dtypes import decode
from onnxfix.verify.feed import Feed
from onnxfix.verify.inputs import Recording, read_recording
from onnxfix.verify.options import VerifyOptions
from onnxfix.verify.profile import EMPTY_PROFILES, FULL_PROFILES, Profile
from onnxfix.verify.session import Session
from onnxfix.verify.sizes import is_read_only, require_names
from onnxfix.verify.stream import Stream, Tick
from onnxfix.verify.window import ticks_to_forget


@dataclass(frozen=True)
class Found:
    """How a model is driven.

    Attributes:
        drives: One a start, `Drive.begins`; the first is the one to gather evidence with.
        ticks: How many streaming calls show all that the caches do.
        notes: What the user should know.
    """

    drives: tuple[Drive, ...]
    ticks: int
    notes: tuple[str, ...]


def find_drives(original: Session, plan: Plan, options: VerifyOptions) -> Found:
    """Returns the ways to drive a model.

    Raises:
        DriveError: It accepts none.
        UsageError: The options name ports, dims or axes that do not exist, or files that do not fit.
    """
    drive = _wanted(original, plan, options)
    states = plan.binding.pairs.keys() | {t.port.name for one in plan.binding.caches for t in one.past}
    most = options.ticks or drive.recording.length(states)
    found: list[tuple[Drive, list[Tick]]] = []
    notes: list[str] = []
    first: DriveError | None = None
    for profiles in (FULL_PROFILES, EMPTY_PROFILES):
        if found and not _may_be_empty(drive):
            break
        tried, error = _first_accepted(original, drive, profiles, most)
        if tried is None:
            notes += [f"not driven from empty caches: {error.message}"] if found and error else []
        else:
            found.append(tried)
            first = first or error
            notes += [f"driven with {tried[0].profile}: {first.message}"] if first else []
        first = first or error
    if not found:
        assert first is not None
        raise first
    drives, voiced = _heard(original, found, most)
    notes += voiced
    ticks = most or min([ticks_to_forget(plan.binding, found[0][1]), *_rooms(found)])
    return Found(tuple(drives), ticks, tuple(notes))


def _rooms(found: Sequence[tuple[Drive, list[Tick]]]) -> list[int]:
    """Returns how many ticks fit into caches that are written in place."""
    rooms = [drive.room(ticks[1].put_out) for drive, ticks in found if len(ticks) > 1]
    return [room for room in rooms if room is not None]


def _wanted(original: Session, plan: Plan, options: VerifyOptions) -> Drive:
    """Returns a drive with all that the user wants."""
    feeds, given, recording = read_wishes(plan, options)
    table = cache(lambda name: table_size(original.path, name))
    return Drive(plan, given, options.seed, feeds, recording, FULL_PROFILES[0], table=table)


def read_wishes(plan: Plan, options: VerifyOptions) -> tuple[dict[str, Feed], dict[str, int], Recording]:
    """Returns what the user wants fed, by port and as files, and the sizes.

    Raises:
        UsageError: The options name ports, dims or axes that do not exist, or files that do not fit.
    """
    ports = {port.name: port for port in plan.binding.signature.inputs}
    feeds = {}
    for name, text in options.feeds.items():
        if name not in ports:
            hint = f"the inputs are {', '.join(ports)}"
            raise UsageError(f"no input is called `{name}`", where="--feed", hint=hint)
        feeds[name] = Feed.parse(name, text)
        feeds[name].require_fits(ports[name])
    given = _with_batch(plan, options)
    require_names(plan, given)
    recording = Recording.empty()
    if options.inputs is not None:
        states = [tensor.port.name for one in plan.binding.caches for tensor in one.past]
        recording = read_recording(Path(options.inputs), list(ports.values()), states, options.ticks)
    for name in sorted(recording.names & feeds.keys()):
        raise UsageError("this input is both in the file and told by --feed", where=name, hint="leave one of them out")
    return feeds, given, recording


def _with_batch(plan: Plan, options: VerifyOptions) -> dict[str, int]:
    """Returns the sizes that the user gave, with `--batch` as one of them."""
    if options.batch is None:
        return dict(options.sizes)
    where = f"--batch {options.batch}"
    if options.sizes.get("batch", options.batch) != options.batch:
        raise UsageError(f"--size batch={options.sizes['batch']} says otherwise", where=where, hint="say it once")
    sizes = {one.size("batch") for one in plan.binding.caches if "batch" in one.spec.axes}
    if odd := sorted(size for size in sizes - {options.batch} if isinstance(size, int)):
        raise UsageError(f"the model takes a batch of {odd[0]}", where=where, hint="leave it out")
    return {**options.sizes, "batch": options.batch}


def _may_be_empty(drive: Drive) -> bool:
    """Whether there is a length that may be 0, or a window that fills up, and the user does not say how it begins."""
    caches = drive.plan.binding.caches
    chosen = drive.recording.names | drive.feeds.keys()
    timed = [tensor for one in caches if not is_read_only(one) for tensor in one.past if "time" in tensor.spec.axes]
    return any(tensor.port.name not in chosen for tensor in timed)


def _first_accepted(
    original: Session, wanted: Drive, profiles: Sequence[Profile], most: int | None
) -> tuple[tuple[Drive, list[Tick]] | None, DriveError | None]:
    """Returns the first way that works with its first ticks, and what was wrong with the first that does not."""
    first: DriveError | None = None
    tried = []
    for profile in profiles:
        drive = _fresh(wanted, profile=profile)
        try:
            state = drive.start()
            shapes = {name: array.shape for name, array in {**state, **drive.inputs(0, 0, state)}.items()}
            if shapes in tried:
                continue
            tried.append(shapes)
            return _probed(original, drive, most), first
        except DriveError as error:
            first = first or error
    return None, first


def _fresh(drive: Drive, *, profile: Profile | None = None, varies: bool = True, tonal: bool = False) -> Drive:
    """Returns another way to drive the same model, with nothing noted yet."""
    return replace(drive, profile=profile or drive.profile, varies=varies, tonal=tonal, guesses={}, fed={})


def _probed(original: Session, drive: Drive, most: int | None) -> tuple[Drive, list[Tick]]:
    """Returns the drive and its first two ticks; if the second fails, it goes on with chunks as long as the first.

    Raises:
        DriveError: The model does not take the first tick, or the plan not its caches.
    """
    state = drive.start()
    stream = Stream(original, drive, state)
    try:
        drive.plan.run_past(state)
        first = stream.step()
        drive.plan.run_present(first.fetched)
    except PlanError as error:
        raise DriveError(error.message, where=error.where, hint=error.hint) from None
    if most == 1:
        return drive, [first]
    try:
        return drive, [first, stream.step()]
    except DriveError:
        if drive.varies:
            return _probed(original, _fresh(drive, varies=False, tonal=drive.tonal), most)
        return drive, [first]


def _heard(original: Session, found: list[tuple[Drive, list[Tick]]], most: int | None) -> tuple[list[Drive], list[str]]:
    """Returns the drives, with a tone in place of noise if noise alone gives constant outputs."""
    drives = [drive for drive, _ in found]
    drive, ticks = found[0]
    if not drive.is_noisy or not _is_silent(drive, ticks, original):
        return drives, []
    other = _fresh(drive, varies=drive.varies, tonal=True)
    try:
        if _is_silent(*_probed(original, other, most), original):
            return drives, []
    except DriveError:
        return drives, []
    return [replace(one, tonal=True) for one in drives], ["noise gives constant outputs: driven with a tone"]


def _is_silent(drive: Drive, ticks: Sequence[Tick], session: Session) -> bool:
    """Whether every output that is no cache holds one value and nothing else."""
    states = set(drive.plan.binding.pairs.values())
    dtypes = {port.name: port.dtype for port in session.outputs if port.name not in states}
    apart = [
        np.unique(np.concatenate([np.ravel(decode(tick.fetched[name], dtype)) for tick in ticks])).size
        for name, dtype in dtypes.items()
    ]
    return bool(apart) and max(apart) <= 1
