"""What a verification is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from onnxfix.errors import UsageError
from onnxfix.verify.compare import TOLERANCES, Tolerance

LEAST_TICKS, MOST_TICKS = 8, 64
"""How many streaming calls are compared where nobody says: as many as the longest cache remembers, within these."""
CLOSED_LOOP, TEACHER = "closed loop", "teacher"
"""Each model gets its own previous state; or both get that of the source."""
FULL, EMPTY = "full", "empty"
"""How long the caches are at first."""


@dataclass(frozen=True)
class VerifyOptions:
    """How a model is driven, and how much its outputs may differ.

    Attributes:
        ticks: How many streaming calls; None: as many as the longest cache remembers, from 8 to 64.
        seed: The same seed gives the same feeds.
        inputs: An npz file or a folder with inputs (`feed.read_recording` says how it is laid out).
        feeds: What to feed, by port of the source, as `--feed` takes it: `{"offset": "constant:64"}`.
        sizes: Sizes that are open, by symbolic dim, axis, cache and axis, or metadata key.
        progress: Called after each step with the number of steps done and of all: first the ticks, then one a part of
            the state.
        teacher: Whether the result gets the source's state at every tick, so that no error travels on.
        optimize: Whether onnxruntime may optimise the graphs; then the tolerances of `compare.TOLERANCES` apply.
        atol, rtol: Tolerances of all outputs of floats; what is None is 0 or, with `optimize`, follows from the type.
        tolerances: Tolerances of single outputs, by port of the result; they go before all others.
        providers: What the result runs on, one run each; the source runs on the CPU.
        batch: How many streams at once; None: chosen.
        trace: A recorded run of the source, to be checked against instead of the source itself.

    Raises:
        UsageError: The seed is negative, or too large to be stored.
    """

    ticks: int | None = None
    seed: int = 0
    inputs: Path | None = None
    feeds: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    progress: Callable[[int, int], None] | None = None
    teacher: bool = False
    optimize: bool = False
    atol: float | None = None
    rtol: float | None = None
    tolerances: Mapping[str, Tolerance] = field(default_factory=dict)
    providers: tuple[str, ...] = ("cpu",)
    batch: int | None = None
    trace: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"{self.seed} is no seed", where="--seed", hint="a seed is at least 0 and less than 2**63")

    def tolerance(self, port: str, dtype: str) -> Tolerance | None:
        """Returns how much an output of the result may differ; None: not by a bit.

        Args:
            port: The output.
            dtype: Its element type.
        """
        if port in self.tolerances:
            return self.tolerances[port]
        table = TOLERANCES.get(dtype)
        if table is None or not (self.optimize or self.atol is not None or self.rtol is not None):
            return None
        base = table if self.optimize else Tolerance()
        return Tolerance(
            base.absolute if self.atol is None else self.atol, base.relative if self.rtol is None else self.rtol
        )

    def require_outputs(self, names: tuple[str, ...]) -> None:
        """Refuses tolerances of outputs that the result does not have: a slip of the pen would silently do nothing.

        Raises:
            UsageError: There is no such output.
        """
        for name in self.tolerances:
            if name not in names:
                hint = f"the outputs are {', '.join(names)}"
                raise UsageError(f"no output of the result is called `{name}`", where="--tolerance", hint=hint)
