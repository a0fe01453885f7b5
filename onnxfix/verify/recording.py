"""The first half of a verification: the source is driven, and all that it was fed and put out is stored."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnxfix.convention.plan import Plan
from onnxfix.convention.signature import Dim, Port, Signature
from onnxfix.errors import DriveError, VacuousCheck
from onnxfix.verify.dims import Contradiction, contradictions
from onnxfix.verify.drive import Drive
from onnxfix.verify.dtypes import DRIVABLE
from onnxfix.verify.evidence import Findings, Witness, gather, parts_of
from onnxfix.verify.finding import find_drives
from onnxfix.verify.header import Evidence, Header, RecordedRun
from onnxfix.verify.options import VerifyOptions
from onnxfix.verify.session import Session
from onnxfix.verify.stream import Stream, Tick
from onnxfix.verify.trace import Trace, TraceWriter, place

if TYPE_CHECKING:
    from onnxfix.convention.route import Array

_LEAST = 2
"""Ticks of a stream that may end early."""
REAL_INPUT = "feed it what it was made for: --inputs FILE.npz, or --feed PORT=KIND"


@dataclass(frozen=True)
class Origin:
    """Where a run comes from, as far as its model tells.

    Attributes:
        model: The name of the model's file; empty for a model from memory.
        sha256: The digest of the file's bytes; empty if nobody took it.
    """

    model: str = ""
    sha256: str = ""


class Steps:
    """Counts what is done, and tells.

    Attributes:
        passes: How often the ticks are driven: by the source, and by the result on each provider.
    """

    def __init__(self, progress: Callable[[int, int], None] | None, passes: int = 1) -> None:
        self.passes = passes
        self._expected = 0
        self._done = 0
        self._progress = progress

    def expect(self, steps: int) -> None:
        """Says how many steps there will be; who comes first knows."""
        self._expected = self._expected or steps

    def done(self) -> None:
        """Counts one step."""
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._expected)


def record(
    source: Path, plan: Plan, options: VerifyOptions, path: Path, *, origin: Origin | None = None,
    steps: Steps | None = None,
) -> Trace:  # fmt: skip
    """Drives a model and writes a trace; the model is out of memory when this returns.

    At tick 0 the model gets a state of random values, after that its own. Where the length of its caches is open, it is
    driven a second time, from empty ones. Then each part of its state is disturbed on its own, to see whether it has a
    say at all.

    Args:
        source: The model's file.
        plan: What its convention is, and what it will be held against; feeds heed what both sides can take.
        options: How to drive it.
        path: The trace. It is not there if this fails.
        origin: What the trace says of the model.
        steps: Counts the ticks and the parts of the state.

    Raises:
        DriveError: The model cannot be driven.
        VacuousCheck: No tick is asked for.
        UsageError: The options name ports that do not exist, or the file of inputs does not fit.
        ModelReadError: The file is missing or no model.
        ModelWriteError: The trace cannot be written.
    """
    steps = steps or Steps(options.progress)
    if options.ticks is not None and options.ticks < 1:
        raise VacuousCheck("no tick was driven, so nothing is proven", hint="--ticks 1 at least")
    require_comparable(plan)
    session = Session(source, optimize=options.optimize)
    found = find_drives(session, plan, options)
    runs = tuple(RecordedRun(drive.begins, found.ticks) for drive in found.drives)
    states = [drive.start() for drive in found.drives]
    parts = sum(len(parts_of(cache, states[0])) for cache in plan.binding.caches)
    steps.expect(found.ticks * len(runs) * steps.passes + parts)
    first = found.drives[0]
    with TraceWriter(path) as writer:
        tape = _Tape(writer, plan.binding.signature, steps, may_end=options.ticks is None)
        streams = [Stream(session, *drive) for drive in zip(found.drives, states, strict=True)]
        witness = Witness(session, first, streams[0], [], [])
        watched: list[Callable[[], Tick]] = [lambda: _seen(witness), *(stream.step for stream in streams[1:])]
        taken = tuple(tape.take(runs, *one) for one in zip(runs, states, watched, strict=True))
        findings = gather(witness, found.ticks, steps.done)
        origin = origin or Origin(source.name)
        header = Header(
            convention=plan.binding.convention, sizes=plan.binding.sizes, signature=tape.seen(), runs=taken,
            model=origin.model, sha256=origin.sha256, seed=options.seed, fed=dict(first.fed),
            notes=(*found.notes, *_remarks(found.drives, tape), *findings.notes), loose=tuple(sorted(tape.loose)),
            evidence=evidence_of(findings),
        )  # fmt: skip
        writer.finish(header)
    return Trace(path)


def require_comparable(plan: Plan) -> None:
    """Refuses models whose outputs cannot be held against others.

    Raises:
        DriveError: An output is of an element type that numpy does not have, or no tensor.
    """
    for port in plan.binding.signature.outputs:
        if port.dtype not in DRIVABLE:
            message = f"an output of element type {port.dtype} cannot be compared"
            raise DriveError(message, where=port.name)


@dataclass
class _Tape:
    """Writes runs, and looks whether the model's shapes are what it declares.

    Attributes:
        writer, signature, steps: Where to write, what is declared, and who counts.
        may_end: Whether a model may end a stream: nobody asked for more ticks than its positions last.
        loose: What is declared and wrong.
        ends: Why streams ended early.
    """

    writer: TraceWriter
    signature: Signature
    steps: Steps
    may_end: bool
    loose: dict[str, Contradiction] = field(default_factory=dict)
    ends: list[str] = field(default_factory=list)

    def take(
        self, runs: Sequence[RecordedRun], run: RecordedRun, state: Mapping[str, Array], step: Callable[[], Tick]
    ) -> RecordedRun:
        """Writes a run tick by tick, and returns what there is to say of it."""
        prefix = place(runs, run)
        self.writer.start(prefix, state)
        put_out = []
        for number in range(run.ticks):
            try:
                tick = step()
            except DriveError as error:
                if not self.may_end or number < _LEAST:
                    raise
                self.ends.append(f"from {run.start} caches the model takes {number} ticks: {error.message}")
                for _ in range((run.ticks - number) * self.steps.passes):
                    self.steps.done()
                break
            put_out.append(tick.put_out)
            self._look(tick)
            self.writer.tick(prefix, tick)
            self.steps.done()
        return replace(run, ticks=len(put_out), put_out=tuple(put_out))

    def _look(self, tick: Tick) -> None:
        """Notes what is wrong with the declared dims, so that the same is not held against the result."""
        ports = (*self.signature.inputs, *self.signature.outputs)
        for one in contradictions(ports, {**tick.inputs, **tick.state, **tick.fetched}, self.loose):
            self.loose.setdefault(one.symbol or one.port, one)

    def seen(self) -> Signature:
        """Returns the ports without the dims that are wrong."""
        ports = self.signature
        return replace(ports, inputs=self._loosened(ports.inputs), outputs=self._loosened(ports.outputs))

    def _loosened(self, ports: Sequence[Port]) -> tuple[Port, ...]:
        return tuple(
            replace(port, dims=None if port.name in self.loose else _without(port.dims, self.loose)) for port in ports
        )


def _without(dims: Sequence[Dim] | None, symbols: Collection[str]) -> tuple[Dim, ...] | None:
    return None if dims is None else tuple(None if dim in symbols else dim for dim in dims)


def _seen(witness: Witness) -> Tick:
    tick = witness.stream.step()
    witness.see(tick)
    return tick


def _remarks(drives: Sequence[Drive], tape: _Tape) -> list[str]:
    drive = drives[0]
    remarks = [*tape.ends]
    if drive.guesses:
        sizes = ", ".join(f"{name} = {size}" for name, size in sorted(drive.guesses.items()))
        remarks.append(f"sizes that nobody told: {sizes}")
    for name, value in drive.switches.items():
        if any(one.switches.get(name) != value for one in drives):
            continue
        remarks.append(
            f"`{name}` was {value} at every tick: what runs with another is not checked; --feed {name}=constant:N"
        )
    for name, one in sorted(tape.loose.items()):
        if not one.symbol:
            odd = one.mismatch
            remarks.append(f"the source declares `{name}` as {odd.expected}, and it is {odd.actual}: not checked")
    return remarks


def require_proof(evidence: Evidence | None) -> None:
    """Refuses runs that prove nothing.

    Raises:
        VacuousCheck: Nothing of the state shows in the outputs.
    """
    if evidence is None:
        return
    if evidence.vacuous or not evidence.observable:
        raise VacuousCheck(evidence.vacuous or "no part of the state shows, so nothing is proven", hint=REAL_INPUT)


def evidence_of(findings: Findings) -> Evidence:
    """Returns what a trace says of how much its run proves."""
    return Evidence(findings.observable, findings.not_observable, findings.vacuous)
