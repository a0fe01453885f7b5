"""What a conversion did, as facts: the CLI prints them for people, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from onnxfix.convention.signature import Port

if TYPE_CHECKING:
    from onnxfix.convention.plan import CachePlan, Plan
    from onnxfix.model.model import Model
    from onnxfix.sidefiles.change import SideFile
    from onnxfix.surgery.copies import Copies
    from onnxfix.verify.report import Json as Json
    from onnxfix.verify.report import VerifyReport


class Outcome(StrEnum):
    """How a conversion ended, or would; one that failed raises instead."""

    CONVERTED = "converted"
    UNCHANGED = "unchanged"
    WOULD_CHANGE = "would-change"


@dataclass(frozen=True)
class Ports:
    """The inputs and outputs of a model, in order."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def to_json(self) -> dict[str, Json]:
        """Returns name, dtype and dims of each port."""
        return {"inputs": _ports_to_json(self.inputs), "outputs": _ports_to_json(self.outputs)}


@dataclass(frozen=True)
class CacheChange:
    """The ports of one cache, before and after; equal where it stays.

    Attributes:
        name: What the source's convention calls the cache.
        past_before, past_after: Inputs.
        present_before, present_after: Outputs; empty for a cache that is only read.
    """

    name: str
    past_before: tuple[str, ...]
    past_after: tuple[str, ...]
    present_before: tuple[str, ...]
    present_after: tuple[str, ...]

    def to_json(self) -> dict[str, Json]:
        """Returns the names of the ports."""
        return {
            "name": self.name,
            "past": {"before": list(self.past_before), "after": list(self.past_after)},
            "present": {"before": list(self.present_before), "after": list(self.present_after)},
        }


@dataclass(frozen=True)
class NodeCounts:
    """How many nodes the main graph has, station by station.

    Attributes:
        source: In the source.
        simplified: After simplification; as `source` where the graph was not simplified.
        adapters: With the adapters at the boundary.
        cancelled: After cancelling: in the result.
    """

    source: int
    simplified: int
    adapters: int
    cancelled: int

    def to_json(self) -> dict[str, Json]:
        """Returns the counts by station."""
        return {
            "source": self.source,
            "simplified": self.simplified,
            "with_adapters": self.adapters,
            "after_cancelling": self.cancelled,
        }


@dataclass(frozen=True)
class ConversionReport:
    """What became of one model.

    Attributes:
        outcome: Whether anything was changed.
        source, destination: The files; empty for a model in memory.
        speaks: The convention of the source.
        target: The convention of the result.
        before, after: The ports; the same where nothing was changed.
        caches: The ports of each cache, before and after.
        plan: What was to be done, in words.
        nodes: The size of the graph on its way; None where nothing was changed.
        copies: How many bytes of the caches are copied in each step; None where nothing was changed.
        fired: How often something was cancelled, by operator.
        refused: Why adapters stayed in the graph.
        proof: What the verification found; None where nothing was verified.
        notes: What the user should know.
        side_files: What became, or would become, of the files that runtimes read beside the model.
        seconds: The time that each stage took, by name, in order.
        model: The result, where it was not written to a file.
    """

    outcome: Outcome
    source: str
    destination: str
    speaks: str
    target: str
    before: Ports
    after: Ports
    caches: tuple[CacheChange, ...]
    plan: tuple[str, ...]
    nodes: NodeCounts | None = None
    copies: Copies | None = None
    fired: Mapping[str, int] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    proof: VerifyReport | None = None
    notes: tuple[str, ...] = ()
    side_files: tuple[SideFile, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    model: Model | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Json]:
        """Returns the report as plain JSON values."""
        return {
            "outcome": self.outcome.value,
            "source": self.source,
            "destination": self.destination,
            "from": self.speaks,
            "to": self.target,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "caches": [cache.to_json() for cache in self.caches],
            "plan": list(self.plan),
            "nodes": None if self.nodes is None else self.nodes.to_json(),
            "copied_per_step": None if self.copies is None else _copies_to_json(self.copies),
            "cancelled": dict(self.fired),
            "refused": list(self.refused),
            "proof": None if self.proof is None else self.proof.to_json(),
            "notes": list(self.notes),
            "side_files": [file.to_json() for file in self.side_files],
            "seconds": {stage: round(seconds, 4) for stage, seconds in self.seconds.items()},
        }


def report_of(
    plan: Plan, source: str, destination: str, sides: tuple[SideFile, ...] = (), told: tuple[str, ...] = ()
) -> ConversionReport:
    """Reports what a plan says, before anything was done.

    Args:
        plan: The plan.
        source: The file; empty for a model in memory.
        destination: Where the result goes; empty if it stays in memory.
        sides: What the plan makes of the files beside the source.
        told: What else the user should know.
    """
    signature = plan.binding.signature
    return ConversionReport(
        Outcome.UNCHANGED if plan.is_identity else Outcome.WOULD_CHANGE,
        source,
        destination,
        speaks=str(plan.binding.convention),
        target=str(plan.target or plan.binding.convention),
        before=Ports(signature.inputs, signature.outputs),
        after=Ports(plan.inputs, plan.outputs),
        caches=tuple(_change(cache) for cache in plan.caches),
        plan=() if plan.is_identity else tuple(plan.explain()),
        notes=(*plan.notes, *_newest(plan), *told),
        side_files=sides,
    )


def _newest(plan: Plan) -> tuple[str, ...]:
    """Says why nothing is done where nobody said what to convert to."""
    if plan.target is not None or not plan.is_identity:
        return ()
    return (f"no convention has replaced `{plan.binding.convention}`: for another one, say --to NAME",)


def _change(cache: CachePlan) -> CacheChange:
    present = cache.present
    return CacheChange(
        cache.name,
        tuple(block.name for block in cache.past.source),
        tuple(block.name for block in cache.past.target),
        () if present is None else tuple(block.name for block in present.source),
        () if present is None else tuple(block.name for block in present.target),
    )


def port_to_json(port: Port) -> dict[str, Json]:
    """Returns name, dtype and dims of a port: sizes, names or null; null as a whole without a rank."""
    return {"name": port.name, "dtype": port.dtype, "dims": None if port.dims is None else list(port.dims)}


def bytes_text(count: int) -> str:
    """Returns a number of bytes for people."""
    size = float(count)
    for unit in ("bytes", "kB", "MB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def copied_text(terms: Mapping[tuple[str, ...], int]) -> str:
    """Returns a sum of products, each of a number of bytes and axes whose sizes only run time knows."""
    return " + ".join(" x ".join((bytes_text(count), *axes)) for axes, count in terms.items()) or "none"


def _copies_to_json(copies: Copies) -> Json:
    """Returns, station by station, the terms whose sum it is: bytes, and the axes that they are multiplied with."""
    stations = {"source": copies.before, "with_adapters": copies.adapters, "after_cancelling": copies.after}
    return {
        name: [{"bytes": count, "times": [*axes]} for axes, count in terms.items()] for name, terms in stations.items()
    }


def _ports_to_json(ports: Iterable[Port]) -> list[Json]:
    return [port_to_json(port) for port in ports]
