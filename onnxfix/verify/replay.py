"""A recorded stream fed again: to the model that was held against it, to ask which parts of its state have a say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from onnxfix.convention.binding import bind
from onnxfix.convention.plan import Plan, make_plan
from onnxfix.convention.signature import Signature
from onnxfix.errors import OnnxfixError, VacuousCheck
from onnxfix.verify.drive import Drive
from onnxfix.verify.evidence import Witness
from onnxfix.verify.header import RecordedRun
from onnxfix.verify.inputs import Recording
from onnxfix.verify.profile import FULL_PROFILES
from onnxfix.verify.session import Session
from onnxfix.verify.stream import Stream
from onnxfix.verify.trace import Trace
from onnxfix.verify.translation import translated_inputs

if TYPE_CHECKING:
    from onnxfix.convention.route import Array


def replay(session: Session, trace: Trace, plan: Plan) -> Witness:
    """Drives a model with what a trace holds, and returns it as a witness of what its state does.

    Args:
        session: The model.
        trace: The recorded run of another one.
        plan: From that one's convention to this one's.

    Raises:
        VacuousCheck: The model's own convention is not known.
        VerifyError: The model does not take what was recorded.
    """
    run = trace.header.runs[0]
    try:
        binding = bind(plan.target or plan.binding.convention, Signature(plan.inputs, plan.outputs), plan.binding.sizes)
        own = make_plan(binding, None)
    except OnnxfixError as error:
        message = f"the trace does not say which parts of the state have a say, and the result cannot: {error.message}"
        raise VacuousCheck(message, where=error.where, hint="record it with `onnxfix record`") from None
    fed = _Fed(trace, run, plan)
    states = own.binding.pairs.keys() | {tensor.port.name for one in own.binding.caches for tensor in one.past}
    rows = {port.name: _Rows(fed, port.name, run.ticks) for port in plan.inputs if port.name not in states}
    drive = Drive(own, {}, trace.header.seed or 0, {}, Recording({}, rows), FULL_PROFILES[0])
    witness = Witness(session, drive, Stream(session, drive, plan.run_past(trace.start(run))), [], [])
    for _ in range(run.ticks):
        witness.see(witness.stream.step())
    return witness


class _Fed:
    """What was fed at each tick, as the model takes it; the last tick is kept."""

    def __init__(self, trace: Trace, run: RecordedRun, plan: Plan) -> None:
        self._trace = trace
        self._run = run
        self._plan = plan
        self._last: tuple[int, Mapping[str, Array]] = (-1, {})

    def at(self, tick: int) -> Mapping[str, Array]:
        """Returns all inputs of a tick, by name."""
        if self._last[0] != tick:
            self._last = tick, translated_inputs(self._trace.inputs(self._run, tick), self._plan)
        return self._last[1]


class _Rows(Mapping[int, "Array"]):
    """One input at all ticks."""

    def __init__(self, fed: _Fed, name: str, ticks: int) -> None:
        self._fed = fed
        self._name = name
        self._ticks = ticks

    def __getitem__(self, tick: int) -> Array:
        if not 0 <= tick < self._ticks:
            raise KeyError(tick)
        return self._fed.at(tick)[self._name]

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._ticks))

    def __len__(self) -> int:
        return self._ticks
