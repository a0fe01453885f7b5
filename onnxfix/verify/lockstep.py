"""Source and result side by side, each fed its own state, every output compared at every tick."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnxfix.convention.plan import Plan
from onnxfix.convention.signature import Port
from onnxfix.errors import DriveError, VacuousCheck, VerifyError
from onnxfix.verify.compare import compare
from onnxfix.verify.drive import Drive
from onnxfix.verify.dtypes import DRIVABLE, cast
from onnxfix.verify.evidence import Witness, observe, parts_of
from onnxfix.verify.finding import find_drives
from onnxfix.verify.report import (
    DifferenceError,
    PortReport,
    Run,
    TickReport,
    VerifyOptions,
    VerifyReport,
)
from onnxfix.verify.session import Session
from onnxfix.verify.stream import Stream, Tick, next_state

if TYPE_CHECKING:
    from onnxfix.convention.route import Array

_REAL_INPUT = "feed it what it was made for: --inputs FILE.npz, or --feed PORT=KIND"


def verify(source: Path, result: Path, plan: Plan, options: VerifyOptions | None = None) -> VerifyReport:
    """Drives two models in lock step and compares all that they put out, to the bit.

    At tick 0 the source gets a state of random values and the result the same through the plan; after that each gets
    its own. Then each part of the source's state is disturbed on its own, to see whether it has a say at all.

    Args:
        source: The model that is trusted.
        result: The model that the plan should have made of it.
        plan: The conversion.
        options: How to drive them.

    Raises:
        DifferenceError: An output or a state differs.
        VerifyError: The result has other ports than the plan says, or onnxruntime rejects what the source takes.
        DriveError: The source cannot be driven.
        VacuousCheck: Nothing was compared, or nothing of the state shows in the outputs.
        UsageError: The options name ports that do not exist, or the file of inputs does not fit.
        ModelReadError: A file is missing or no model.
    """
    options = options or VerifyOptions()
    started = time.perf_counter()
    if options.ticks is not None and options.ticks < 1:
        raise VacuousCheck("no tick was driven, so nothing is proven", hint="--ticks 1 at least")
    _require_comparable(plan)
    original = Session(source)
    found = find_drives(original, plan, options)
    drive, notes = found.drives[0], found.notes
    converted = _open_result(result, plan)
    state = drive.start()
    witness = Witness(original, drive, Stream(original, drive, state), [], [])
    steps = _Steps(options, found.ticks, sum(len(parts_of(cache, state)) for cache in plan.binding.caches))
    ports = _compare_ticks(witness, converted, plan, steps)
    del converted
    report = VerifyReport(
        (Run(ports),), dict(drive.fed), notes=(*notes, *_remarks(drive, ports, witness)),
        source=str(source), result=str(result), seed=options.seed,
    )  # fmt: skip
    if wrong := [port for port in ports if port.mismatched]:
        raise _difference(wrong, replace(report, seconds=time.perf_counter() - started))
    if not report.values:
        raise VacuousCheck("no value was compared: every output is empty or NaN", hint=_REAL_INPUT)
    shown, hidden = observe(witness, steps.ticks, steps.done)
    if not shown:
        raise _vacuous(witness, hidden)
    return replace(report, observable=shown, not_observable=hidden, seconds=time.perf_counter() - started)


class _Steps:
    """Counts what is done, and tells."""

    def __init__(self, options: VerifyOptions, ticks: int, parts: int) -> None:
        self.options = options
        self.ticks = ticks
        self._all = self.ticks + parts
        self._done = 0
        self._progress = options.progress

    def done(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._all)


def _require_comparable(plan: Plan) -> None:
    for port in plan.binding.signature.outputs:
        if port.dtype not in DRIVABLE:
            message = f"an output of element type {port.dtype} cannot be compared"
            raise DriveError(message, where=port.name, hint="--no-verify converts without a proof")


def _open_result(result: Path, plan: Plan) -> Session:
    try:
        converted = Session(result)
    except DriveError as error:
        raise VerifyError(f"the source can be run, the result not: {error.message}") from None
    for kind, wanted, found in (
        ("inputs", plan.inputs, converted.inputs), ("outputs", plan.outputs, converted.outputs)
    ):  # fmt: skip
        if (have := _ports(found)) != (want := _ports(wanted)):
            odd = next((pair for pair in zip(have, want, strict=False) if pair[0] != pair[1]), None)
            detail = f"`{odd[0]}` stands where `{odd[1]}` belongs" if odd else f"{len(have)} instead of {len(want)}"
            raise VerifyError(f"the {kind} of the result are not those of the plan: {detail}")
    return converted


def _ports(ports: Sequence[Port]) -> list[str]:
    return [f"{port.name} {port.dtype}" for port in ports]


def _compare_ticks(witness: Witness, converted: Session, plan: Plan, steps: _Steps) -> tuple[PortReport, ...]:
    """Runs all ticks, or up to the first at which something differs, and returns what each output had."""
    states = set(plan.pairs.values())
    ports = {
        port.name: PortReport(
            port.name, port.name in states, port.dtype, steps.options.tolerance(port.name, port.dtype)
        )
        for port in plan.outputs
    }
    state: Mapping[str, Array] = {}
    for number in range(steps.ticks):
        tick = witness.stream.step()
        witness.see(tick)
        state = state if number else plan.run_past(tick.state)
        fetched = _run_result(converted, {**_translated(tick.inputs, plan), **state}, number)
        for name, expected in _expected(tick, plan).items():
            ports[name] = _compared(ports[name], expected, fetched[name], number)
        if any(port.mismatched for port in ports.values()):
            break
        state = next_state(state, plan.pairs, fetched)
        steps.done()
    return tuple(ports.values())


def _run_result(converted: Session, feeds: Mapping[str, Array], number: int) -> dict[str, Array]:
    try:
        return converted.run(feeds)
    except DriveError as error:
        message = f"the source can be run, the result not: {error.message}"
        raise VerifyError(message, where=f"{error.where}, tick {number}" if error.where else f"tick {number}") from None


def _translated(inputs: Mapping[str, Array], plan: Plan) -> dict[str, Array]:
    """Returns the inputs under the names and in the element types of the result."""
    dtypes = {port.name: port.dtype for port in plan.binding.signature.inputs}
    return _as_result(inputs, dtypes, plan)


def _expected(tick: Tick, plan: Plan) -> dict[str, Array]:
    """Returns what the result should put out."""
    states = set(plan.binding.pairs.values())
    dtypes = {port.name: port.dtype for port in plan.binding.signature.outputs}
    ordinary = {name: array for name, array in tick.fetched.items() if name not in states}
    return {**_as_result(ordinary, dtypes, plan), **plan.run_present(tick.fetched)}


def _as_result(arrays: Mapping[str, Array], dtypes: Mapping[str, str], plan: Plan) -> dict[str, Array]:
    translated = {}
    for name, array in arrays.items():
        new = plan.renames.get(name, name)
        translated[new] = cast(array, dtypes[name], plan.casts.get(new, dtypes[name]))
    return translated


def _compared(port: PortReport, expected: Array, actual: Array, number: int) -> PortReport:
    found = compare(expected, actual, port.dtype, port.tolerance)
    return replace(port, ticks=(*port.ticks, TickReport(number, tuple(actual.shape), found)))


def _difference(wrong: Sequence[PortReport], report: VerifyReport) -> DifferenceError:
    port = wrong[0]
    assert port.worst is not None
    worst = port.worst
    if worst.what == "value":
        place = f"at {list(worst.index)} " if worst.index else ""
        message = (
            f"{place}the source has {worst.expected}, the result {worst.actual}; "
            f"{port.mismatched} values differ, by {port.max_abs:.3g} at most"
        )
    else:
        message = f"the {worst.what} should be {worst.expected} and is {worst.actual}"
    others = [other.name for other in wrong[1:]]
    if others:
        shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        message += f"; {shown} {'differs' if len(others) == 1 else 'differ'} too"
    return DifferenceError(message, report, where=f"{port.name}, tick {port.tick}")


def _remarks(drive: Drive, ports: Sequence[PortReport], witness: Witness) -> list[str]:
    remarks = []
    if drive.guesses:
        sizes = ", ".join(f"{name} = {size}" for name, size in sorted(drive.guesses.items()))
        remarks.append(f"sizes that nobody told: {sizes}")
    remarks += [f"`{port.name}` has {port.nans} NaN on both sides: they prove nothing" for port in ports if port.nans]
    same = [name for name in witness.outputs[0] if len({digests[name] for digests in witness.outputs}) == 1]
    if len(witness.outputs) > 1:
        remarks += [f"the output `{name}` is the same at every tick" for name in same]
    return remarks


def _vacuous(witness: Witness, hidden: Sequence[str]) -> VacuousCheck:
    is_constant = len(witness.outputs) > 1 and all(digests == witness.outputs[0] for digests in witness.outputs)
    if is_constant:
        return VacuousCheck("every output is the same at every tick, so nothing is proven", hint=_REAL_INPUT)
    shown = "; ".join(hidden[:4]) + (f"; and {len(hidden) - 4} more" if len(hidden) > 4 else "")
    message = f"no output depends on the state, so nothing is proven of the conversion ({shown})"
    return VacuousCheck(message, hint=_REAL_INPUT)
