"""What a verification found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from onnxfix.errors import VerifyError
from onnxfix.verify.compare import Difference, Mismatch, Tolerance
from onnxfix.verify.options import CLOSED_LOOP, FULL

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"


@dataclass(frozen=True)
class TickReport:
    """One comparison of one output.

    Attributes:
        tick: The tick, from 0.
        shape: The shape of the result's array.
        difference: What the comparison found.
    """

    tick: int
    shape: tuple[int, ...]
    difference: Difference

    def to_json(self) -> dict[str, Json]:
        """Returns the comparison as plain JSON values."""
        found = self.difference
        return {
            "tick": self.tick,
            "shape": list(self.shape),
            "values": found.values,
            "nans": found.nans,
            "mismatched": found.mismatched,
            "max_abs": number_to_json(found.max_abs),
            "max_rel": number_to_json(found.max_rel),
            "mean_abs": number_to_json(found.mean_abs),
            "cosine": found.cosine,
            "needed_abs": number_to_json(found.needed_abs),
            "needed_rel": number_to_json(found.needed_rel),
            "place": None if found.place is None else list(found.place),
        }


@dataclass(frozen=True)
class PortReport:
    """All comparisons of one output of the result in one run.

    Attributes:
        name: The port.
        is_state: Whether it is a cache, compared through the plan.
        dtype: Its element type.
        tolerance: How much was allowed; None: equal to the bit.
        ticks: One comparison a tick, in order.
    """

    name: str
    is_state: bool
    dtype: str
    tolerance: Tolerance | None = None
    ticks: tuple[TickReport, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape at the last tick."""
        return self.ticks[-1].shape if self.ticks else ()

    @property
    def values(self) -> int:
        """How many pairs of values were compared."""
        return sum(one.difference.values for one in self.ticks)

    @property
    def nans(self) -> int:
        """How many values were the same NaN on both sides; they are not among `values`."""
        return sum(one.difference.nans for one in self.ticks)

    @property
    def mismatched(self) -> int:
        """How many pairs differed by more than was allowed."""
        return sum(one.difference.mismatched for one in self.ticks)

    @property
    def is_exact(self) -> bool:
        """Whether nothing differed, to the bit."""
        return all(one.difference.mismatched == 0 and one.difference.place is None for one in self.ticks)

    @property
    def max_abs(self) -> float:
        """The largest absolute difference."""
        return max((one.difference.max_abs for one in self.ticks), default=0.0)

    @property
    def max_rel(self) -> float:
        """The largest relative difference."""
        return max((one.difference.max_rel for one in self.ticks), default=0.0)

    @property
    def mean_abs(self) -> float:
        """The mean absolute difference."""
        values = self.values
        return math.fsum(one.difference.mean_abs * one.difference.values for one in self.ticks) / max(1, values)

    @property
    def cosine(self) -> float | None:
        """The least cosine of all ticks; None where no tick has one, or one of them differs beyond measure."""
        if not math.isfinite(self.max_abs):
            return None
        return min((one.difference.cosine for one in self.ticks if one.difference.cosine is not None), default=None)

    @property
    def needed_abs(self) -> float:
        """The smallest absolute tolerance that would have passed, with a relative one of 0."""
        return max((one.difference.needed_abs for one in self.ticks), default=0.0)

    @property
    def needed_rel(self) -> float:
        """The smallest relative tolerance that would have passed, with an absolute one of 0."""
        return max((one.difference.needed_rel for one in self.ticks), default=0.0)

    @property
    def tick(self) -> int | None:
        """The first tick with a mismatch; None if there is none."""
        return next((one.tick for one in self.ticks if one.difference.mismatched), None)

    @property
    def worst(self) -> Mismatch | None:
        """The worst mismatch of that tick."""
        return next((one.difference.worst for one in self.ticks if one.difference.mismatched), None)

    def to_json(self) -> dict[str, Json]:
        """Returns all comparisons as plain JSON values."""
        allowed, worst = self.tolerance, self.worst
        return {
            "name": self.name,
            "state": self.is_state,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "tolerance": None if allowed is None else {"atol": allowed.absolute, "rtol": allowed.relative},
            "exact": self.is_exact,
            "passed": not self.mismatched,
            "values": self.values,
            "nans": self.nans,
            "mismatched": self.mismatched,
            "max_abs": number_to_json(self.max_abs),
            "max_rel": number_to_json(self.max_rel),
            "mean_abs": number_to_json(self.mean_abs),
            "cosine": self.cosine,
            "needed_abs": number_to_json(self.needed_abs),
            "needed_rel": number_to_json(self.needed_rel),
            "tick": self.tick,
            "worst": None if worst is None else _mismatch_to_json(worst),
            "ticks": [one.to_json() for one in self.ticks],
        }


@dataclass(frozen=True)
class Run:
    """The result, driven once from the first tick to the last.

    Attributes:
        ports: Every output of the result, in its order.
        provider: What the result ran on: `cpu`, `cuda`, `tensorrt`.
        start: How long the caches were at first: `full` or `empty`.
    """

    ports: tuple[PortReport, ...]
    provider: str = "cpu"
    start: str = FULL

    @property
    def ticks(self) -> int:
        """How many streaming calls were compared."""
        return max((len(port.ticks) for port in self.ports), default=0)

    @property
    def passed(self) -> bool:
        """Whether no value differed by more than was allowed."""
        return not any(port.mismatched for port in self.ports)

    def to_json(self) -> dict[str, Json]:
        """Returns the run as plain JSON values."""
        return {
            "provider": self.provider,
            "start": self.start,
            "ticks": self.ticks,
            "passed": self.passed,
            "ports": [port.to_json() for port in self.ports],
        }


@dataclass(frozen=True)
class VerifyReport:
    """What was compared, and how much that proves.

    Attributes:
        runs: The result, driven once for each provider and each length of the first caches; after one that differs the
            others are driven all the same, as far as they can be.
        fed: How each input that is no cache was fed, by port of the source.
        observable: Parts of caches that change an output when they are disturbed.
        not_observable: Parts that do not: that they go where they should is seen on the states alone.
        notes: What the user should know.
        seconds: How long it took.
        source: What the result was held against: a model or a trace.
        result: The model that was checked.
        mode: `closed loop` or `teacher`.
        seed: The seed of the feeds.
        is_optimized: Whether onnxruntime was allowed to optimise the graphs.
    """

    runs: tuple[Run, ...]
    fed: Mapping[str, str] = field(default_factory=dict)
    observable: tuple[str, ...] = ()
    not_observable: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    source: str = ""
    result: str = ""
    mode: str = CLOSED_LOOP
    seed: int = 0
    is_optimized: bool = False

    def label(self, run: Run) -> str:
        """Returns what tells a run from the others; empty where nothing does."""
        words = []
        if len({one.start for one in self.runs}) > 1:
            words.append(f"{run.start} start")
        if len({one.provider for one in self.runs}) > 1:
            words.append(run.provider)
        return ", ".join(words)

    @property
    def ports(self) -> tuple[PortReport, ...]:
        """Every output of every run."""
        return tuple(port for run in self.runs for port in run.ports)

    @property
    def ticks(self) -> int:
        """How many streaming calls were compared in the longest run."""
        return max((run.ticks for run in self.runs), default=0)

    @property
    def values(self) -> int:
        """How many pairs of values were compared."""
        return sum(port.values for port in self.ports)

    @property
    def outputs(self) -> int:
        """How many ordinary outputs were compared."""
        return len({port.name for port in self.ports if not port.is_state})

    @property
    def states(self) -> int:
        """How many caches' tensors were compared."""
        return len({port.name for port in self.ports if port.is_state})

    @property
    def max_abs(self) -> float:
        """The largest absolute difference."""
        return max((port.max_abs for port in self.ports), default=0.0)

    @property
    def is_exact(self) -> bool:
        """Whether every value was the same, to the bit."""
        return all(port.is_exact for port in self.ports)

    @property
    def passed(self) -> bool:
        """Whether no value differed by more than was allowed."""
        return all(run.passed for run in self.runs)

    def to_json(self) -> dict[str, Json]:
        """Returns the report as plain JSON values; numbers that are infinite become `null`."""
        return {
            "source": self.source,
            "result": self.result,
            "passed": self.passed,
            "exact": self.is_exact,
            "mode": self.mode,
            "seed": self.seed,
            "optimized": self.is_optimized,
            "ticks": self.ticks,
            "values": self.values,
            "max_abs": number_to_json(self.max_abs),
            "outputs": self.outputs,
            "states": self.states,
            "fed": dict(self.fed),
            "observable": list(self.observable),
            "not_observable": list(self.not_observable),
            "notes": list(self.notes),
            "runs": [run.to_json() for run in self.runs],
            "seconds": round(self.seconds, 4),
        }


def number_to_json(number: float) -> float | None:
    """Returns a number as JSON has them: it knows no infinity and no NaN."""
    return number if math.isfinite(number) else None


def _mismatch_to_json(worst: Mismatch) -> Json:
    return {
        "what": worst.what, "index": list(worst.index), "expected": worst.expected, "actual": worst.actual,
    }  # fmt: skip


class DifferenceError(VerifyError):
    """Source and result put out different values.

    Attributes:
        report: All comparisons; where a shape or an element type is wrong, up to that tick.
        culprit: The node at which they part, as `Culprit.to_json` has it; None if nobody looked, or it was not found.
    """

    def __init__(self, message: str, report: VerifyReport, *, where: str = "", hint: str = "") -> None:
        super().__init__(message, where=where, hint=hint)
        self.report = report
        self.culprit: Json = None
