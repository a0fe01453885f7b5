"""What a verification is asked for, and what it found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from onnxfix.errors import VerifyError
from onnxfix.verify.compare import Mismatch


@dataclass(frozen=True)
class VerifyOptions:
    """How a model is driven.

    Attributes:
        ticks: How many streaming calls.
        seed: The same seed gives the same feeds.
        inputs: An npz file with inputs (`feed.read_recording` says how it is laid out).
        feeds: What to feed, by port of the source, as `--feed` takes it: `{"offset": "constant:64"}`.
        sizes: Sizes that are open, by symbolic dim, axis, cache and axis, or metadata key.
        progress: Called after each step with the number of steps done and of all: first the ticks, then one a part of
            the state.
    """

    ticks: int = 8
    seed: int = 0
    inputs: Path | None = None
    feeds: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    progress: Callable[[int, int], None] | None = None


@dataclass(frozen=True)
class PortReport:
    """All comparisons of one output of the result.

    Attributes:
        name: The port.
        is_state: Whether it is a cache, compared through the plan.
        dtype: Its element type.
        shape: Its shape at the last tick.
        values: How many pairs of values were compared, over all ticks.
        nans: How many values were NaN on both sides; they are not among `values`.
        mismatched: How many pairs differed.
        max_abs, max_rel: The largest absolute and relative difference.
        tick: The first tick with a mismatch; None if there is none.
        worst: The worst mismatch of that tick.
    """

    name: str
    is_state: bool
    dtype: str
    shape: tuple[int, ...]
    values: int = 0
    nans: int = 0
    mismatched: int = 0
    max_abs: float = 0.0
    max_rel: float = 0.0
    tick: int | None = None
    worst: Mismatch | None = None


@dataclass(frozen=True)
class VerifyReport:
    """What was compared, and how much that proves.

    Attributes:
        ticks: How many streaming calls were compared.
        ports: Every output of the result, in its order.
        fed: How each input that is no cache was fed, by port of the source.
        observable: Parts of caches that change an output when they are disturbed.
        not_observable: Parts that do not: that they go where they should is seen on the states alone.
        notes: What the user should know.
        seconds: How long it took.
    """

    ticks: int
    ports: tuple[PortReport, ...]
    fed: Mapping[str, str]
    observable: tuple[str, ...]
    not_observable: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float

    @property
    def values(self) -> int:
        """How many pairs of values were compared."""
        return sum(port.values for port in self.ports)

    @property
    def outputs(self) -> int:
        """How many ordinary outputs were compared."""
        return sum(not port.is_state for port in self.ports)

    @property
    def states(self) -> int:
        """How many caches' tensors were compared."""
        return sum(port.is_state for port in self.ports)

    @property
    def max_abs(self) -> float:
        """The largest absolute difference."""
        return max((port.max_abs for port in self.ports), default=0.0)

    @property
    def is_exact(self) -> bool:
        """Whether every value was the same, to the bit."""
        return not any(port.mismatched for port in self.ports)


class DifferenceError(VerifyError):
    """Source and result put out different values.

    Attributes:
        report: All comparisons up to the tick that failed.
    """

    def __init__(self, message: str, report: VerifyReport, *, where: str = "", hint: str = "") -> None:
        super().__init__(message, where=where, hint=hint)
        self.report = report
