"""The second half of a verification: the result is driven with what was recorded, and held against it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from onnxfix.convention.plan import Plan
from onnxfix.convention.signature import Port, Signature
from onnxfix.errors import DriveError, PlanError, UsageError, VacuousCheck, VerifyError
from onnxfix.verify.compare import compare, unlike
from onnxfix.verify.dims import contradictions
from onnxfix.verify.evidence import gather
from onnxfix.verify.header import Evidence, RecordedRun, TraceError
from onnxfix.verify.options import CLOSED_LOOP, TEACHER, VerifyOptions
from onnxfix.verify.recording import REAL_INPUT, Steps, evidence_of, require_proof
from onnxfix.verify.replay import replay
from onnxfix.verify.report import DifferenceError, PortReport, Run, TickReport, VerifyReport
from onnxfix.verify.session import Session, require_provider
from onnxfix.verify.stream import Tick, next_state
from onnxfix.verify.trace import Trace
from onnxfix.verify.translation import expected_outputs, translated_inputs

if TYPE_CHECKING:
    from onnxfix.convention.route import Array


def check(
    result: Path, trace: Trace, plan: Plan, options: VerifyOptions | None = None, *,
    declared: Signature | None = None, steps: Steps | None = None,
) -> VerifyReport:  # fmt: skip
    """Drives a model with what a trace holds and compares all that it puts out with what the trace holds.

    At tick 0 the model gets the recorded state through the plan; after that its own or, with `options.teacher`, that of
    the trace again. The shapes of its outputs must also be what it declares.

    Args:
        result: The model's file.
        trace: A run of the model that is trusted.
        plan: From the trusted model's convention to this one's.
        options: How to drive it, and how much may differ.
        declared: The ports as the model's file declares them; None: as the plan has them.
        steps: Counts the ticks.

    Raises:
        DifferenceError: An output or a state differs.
        VerifyError: The model has other ports than the plan says, or onnxruntime rejects what the trusted model took.
        VacuousCheck: Nothing was compared, or nothing of the state shows in the outputs.
        DriveError: A provider does not run on this machine.
        UsageError: More ticks are asked for than were recorded, or a tolerance is for no output.
        TraceError: The trace is damaged.
        ModelReadError: The file is missing or no model.
    """
    options = options or VerifyOptions()
    started = time.perf_counter()
    _require_ticks(trace, options)
    for provider in options.providers:
        require_provider(provider)
    options.require_outputs(tuple(port.name for port in plan.outputs))
    steps = steps or Steps(options.progress)
    steps.expect(sum(min(options.ticks or run.ticks, run.ticks) for run in trace.header.runs) * len(options.providers))
    declared = declared or Signature(plan.inputs, plan.outputs)
    header = trace.header
    shown, hidden = (header.evidence.observable, header.evidence.not_observable) if header.evidence else ((), ())
    report = VerifyReport(
        (), dict(header.fed), shown, hidden, header.notes, source=header.model or str(trace.path), result=str(result),
        mode=TEACHER if options.teacher else CLOSED_LOOP, seed=header.seed or 0, is_optimized=options.optimize,
    )  # fmt: skip
    for provider in options.providers:
        report = _driven(result, trace, plan, options, declared, steps, provider, report)
    if not report.passed:
        raise _difference(replace(report, seconds=time.perf_counter() - started))
    report = replace(report, notes=(*report.notes, *_remarks(report.runs)))
    if not report.values:
        raise VacuousCheck("no value was compared: every output is empty or NaN", hint=REAL_INPUT)
    for run in report.runs:
        _require_numbers(run)
    evidence = header.evidence or _asked(result, trace, plan)
    require_proof(evidence)
    return replace(
        report,
        observable=evidence.observable,
        not_observable=evidence.not_observable,
        seconds=time.perf_counter() - started,
    )


def _driven(
    result: Path, trace: Trace, plan: Plan, options: VerifyOptions, declared: Signature, steps: Steps, provider: str,
    report: VerifyReport,
) -> VerifyReport:  # fmt: skip
    """Adds the runs on one provider; the result is out of memory when this returns.

    Raises:
        VerifyError: The result cannot be driven. Where it was driven otherwise and differs, that is the worse news.
    """
    try:
        session, notes = _open_result(result, plan, provider, options)
    except VerifyError as error:
        return _without(report, f"not driven on {provider}", error)
    report = replace(report, notes=(*report.notes, *(note for note in notes if note not in report.notes)))
    driver = _Driver(session, trace, plan, options, declared, steps)
    for run in trace.header.runs:
        try:
            report = replace(report, runs=(*report.runs, driver.run(run, provider)))
        except VerifyError as error:
            report = _without(report, f"not driven from {run.start} caches on {provider}", error)
    return report


def _without(report: VerifyReport, what: str, error: VerifyError) -> VerifyReport:
    """Notes which run is missing from a report of what differs.

    Raises:
        VerifyError: The error itself, where nothing differs.
    """
    if report.passed:
        raise error
    reason = f"{error.where}: {error.message}" if error.where else error.message
    return replace(report, notes=(*report.notes, f"{what}: {reason}"))


def _asked(result: Path, trace: Trace, plan: Plan) -> Evidence:
    """Asks the result what a trace proves that does not say so itself: it was just seen to be the same model."""
    witness = replay(Session(result), trace, plan)
    return evidence_of(gather(witness, trace.header.runs[0].ticks, lambda: None))


def _require_ticks(trace: Trace, options: VerifyOptions) -> None:
    """Refuses to compare nothing, and more than there is.

    Raises:
        VacuousCheck: No tick was recorded, or is asked for.
        UsageError: More ticks are asked for than were recorded.
    """
    recorded = min((run.ticks for run in trace.header.runs), default=0)
    if not recorded:
        raise VacuousCheck("the trace holds no tick, so nothing is proven", where=str(trace.path))
    if options.ticks is not None and options.ticks < 1:
        raise VacuousCheck("no tick was driven, so nothing is proven", hint="--ticks 1 at least")
    if options.ticks is not None and options.ticks > recorded:
        message = f"the trace holds {recorded} ticks"
        raise UsageError(message, where=f"--ticks {options.ticks}", hint="record more, or ask for fewer")


def _open_result(result: Path, plan: Plan, provider: str, options: VerifyOptions) -> tuple[Session, tuple[str, ...]]:
    """Returns the result, ready to run, and what there is to say of the order of its ports."""
    try:
        session = Session(result, provider=provider, optimize=options.optimize)
    except DriveError as error:
        if error.where.startswith("--provider"):
            raise
        raise VerifyError(f"the source can be run, the result not: {error.message}", where=error.where) from None
    target = plan.target
    notes = []
    for kind, wanted, found, order in (
        ("inputs", plan.inputs, session.inputs, target is None or target.input_order),
        ("outputs", plan.outputs, session.outputs, target is None or target.output_order),
    ):
        have, want = _ports(found), _ports(wanted)
        if have == want:
            continue
        detail = _odd(have, want)
        if order or sorted(have) != sorted(want):
            raise VerifyError(f"the {kind} of the result are not those of the plan: {detail}")
        notes.append(f"the {kind} come in another order than in the source, which `{target}` allows: {detail}")
    return session, tuple(notes)


def _ports(ports: Sequence[Port]) -> list[str]:
    return [f"{port.name} {port.dtype}" for port in ports]


def _odd(have: Sequence[str], want: Sequence[str]) -> str:
    """Returns the first thing that is wrong with a list of ports."""
    missing, extra = [one for one in want if one not in have], [one for one in have if one not in want]
    if missing and not extra:
        return f"`{missing[0]}` is missing"
    if extra and not missing:
        return f"`{extra[0]}` is one too many"
    odd = next(pair for pair in zip(have, want, strict=False) if pair[0] != pair[1])
    return f"`{odd[0]}` stands where `{odd[1]}` belongs"


class _Driver:
    """Drives the result with what was recorded."""

    def __init__(
        self, session: Session, trace: Trace, plan: Plan, options: VerifyOptions, declared: Signature, steps: Steps
    ) -> None:
        self._session = session
        self._trace = trace
        self._plan = plan
        self._options = options
        self._declared = declared
        # What the source declares wrongly may have another name in the result.
        self._loose = {str({**plan.symbols, **plan.renames}.get(name, name)) for name in trace.header.loose}
        self._steps = steps
        self._states = set(plan.pairs.values())

    def run(self, run: RecordedRun, provider: str) -> Run:
        """Drives it through a run, also on from where values differ: how they go on is part of the picture."""
        ports = {port.name: self._report(port) for port in self._plan.outputs}
        state: Mapping[str, Array] = {}
        for tick in islice(self._trace.ticks(run), self._options.ticks):
            if self._options.teacher or not tick.number:
                state = self._past(tick)
            feeds = {**translated_inputs(tick.inputs, self._plan), **state}
            try:
                fetched = self._fetched(feeds, tick.number)
            except VerifyError:
                if any(port.mismatched for port in ports.values()):
                    break  # It went astray before, so what it is fed by now is its own fault.
                raise
            for name, expected in self._expected(tick).items():
                ports[name] = _compared(ports[name], expected, fetched[name], tick.number)
            ports |= self._contradicted(ports, feeds, fetched)
            self._steps.done()
            if any(port.worst is not None and port.worst.what != "value" for port in ports.values()):
                break
            state = next_state(state, self._plan.feedback, fetched)
        return Run(tuple(ports.values()), provider, run.start)

    def _report(self, port: Port) -> PortReport:
        tolerance = self._options.tolerance(port.name, port.dtype)
        return PortReport(port.name, port.name in self._states, port.dtype, tolerance)

    def _past(self, tick: Tick) -> dict[str, Array]:
        try:
            return self._plan.run_past(tick.state)
        except PlanError as error:
            raise TraceError(f"the state cannot be converted: {error.message}", where=error.where) from None

    def _expected(self, tick: Tick) -> dict[str, Array]:
        try:
            return expected_outputs(tick.fetched, self._plan)
        except PlanError as error:
            raise TraceError(f"the state cannot be converted: {error.message}", where=error.where) from None

    def _fetched(self, feeds: Mapping[str, Array], number: int) -> dict[str, Array]:
        try:
            return self._session.run(feeds)
        except DriveError as error:
            where = f"{error.where}, tick {number}" if error.where else f"tick {number}"
            raise VerifyError(f"the source can be run, the result not: {error.message}", where=where) from None

    def _contradicted(
        self, ports: Mapping[str, PortReport], feeds: Mapping[str, Array], fetched: Mapping[str, Array]
    ) -> dict[str, PortReport]:
        """Returns the outputs that are equal, and yet not of the shape that the result declares.

        Raises:
            VerifyError: An input is not.
        """
        declared = (*self._declared.inputs, *self._declared.outputs)
        wrong: dict[str, PortReport] = {}
        for one in contradictions(declared, {**feeds, **fetched}, self._loose):
            odd = one.mismatch
            if one.port not in ports:
                message = f"the result declares the dims {odd.expected}, and is fed {odd.actual}"
                raise VerifyError(message, where=one.port, hint="a caller who believes them fails")
            port = ports[one.port]
            last = port.ticks[-1]
            if not last.difference.mismatched:
                last = replace(last, difference=unlike(fetched[one.port], odd))
                wrong[one.port] = replace(port, ticks=(*port.ticks[:-1], last))
        return wrong


def _compared(port: PortReport, expected: Array, actual: Array, number: int) -> PortReport:
    found = compare(expected, actual, port.dtype, port.tolerance)
    return replace(port, ticks=(*port.ticks, TickReport(number, tuple(actual.shape), found)))


def _difference(report: VerifyReport) -> DifferenceError:
    run = next(run for run in report.runs if not run.passed)
    tick = min(port.tick for port in run.ports if port.tick is not None)
    wrong = [port for port in run.ports if port.tick == tick]
    port, found = wrong[0], next(one.difference for one in wrong[0].ticks if one.tick == tick)
    worst = found.worst
    assert worst is not None
    if worst.what == "value":
        place = f"at {list(worst.index)} " if worst.index else ""
        message = (
            f"{place}the source has {worst.expected}, the result {worst.actual}; "
            f"{found.mismatched} values differ, by {found.max_abs:.3g} at most"
        )
    elif worst.what == "dims":
        message = f"the result declares the dims {worst.expected}, and puts out {worst.actual}"
    else:
        message = f"the {worst.what} should be {worst.expected} and is {worst.actual}"
    others = [other.name for other in wrong[1:]]
    if others:
        shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        message += f"; {shown} {'differs' if len(others) == 1 else 'differ'} too"
    label = f" ({text})" if (text := report.label(run)) else ""
    return DifferenceError(message, report, where=f"{port.name}{label}, tick {tick}")


def _require_numbers(run: Run) -> None:
    """Refuses a run with a tick of which nothing was compared.

    Raises:
        VacuousCheck: There all outputs are NaN, and nothing else.
    """
    ports = [port for port in run.ports if not port.is_state] or list(run.ports)
    for ticks in zip(*(port.ticks for port in ports), strict=False):
        found = [one.difference for one in ticks]
        if any(one.nans for one in found) and not any(one.values for one in found):
            message = f"from {run.start} caches every output is NaN at tick {ticks[0].tick}, so nothing is proven of it"
            raise VacuousCheck(message, hint=REAL_INPUT)


def _remarks(runs: Sequence[Run]) -> list[str]:
    nans: dict[str, int] = {}
    for run in runs:
        for port in run.ports:
            nans[port.name] = max(nans.get(port.name, 0), port.nans)
    return [f"`{name}` has {count} NaN on both sides: they prove nothing" for name, count in nans.items() if count]
