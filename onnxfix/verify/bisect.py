"""Where two models part: the first tick and the first node inside the result that make a difference.

Both run on the CPU without optimisations, fed what the source was fed and the state that the source had: up to the
first tick that differs that is the state of the result too. Of the inner values only fingerprints are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from onnxfix.convention.plan import Plan
from onnxfix.errors import DriveError, VerifyError
from onnxfix.model.taps import InnerNode, Inside, look_inside
from onnxfix.verify.blame import Blame, Side
from onnxfix.verify.changes import changes, weight_changes
from onnxfix.verify.compare import compare
from onnxfix.verify.culprit import Compared, Culprit, Neighbour, describe
from onnxfix.verify.finding import find_drives
from onnxfix.verify.inner import Print, fetch, print_of, take_prints
from onnxfix.verify.options import VerifyOptions
from onnxfix.verify.session import Session
from onnxfix.verify.stream import Stream, Tick
from onnxfix.verify.translation import expected_outputs, translated_inputs
from onnxfix.verify.ulps import ulps

if TYPE_CHECKING:
    from onnxfix.convention.route import Array
    from onnxfix.verify.trace import Trace

__all__ = ["AGREED", "Culprit", "describe", "find_culprit"]

AGREED = "on the CPU and without optimisations both put out the same bits, so no node of the graph is to blame"
"""What there is to say where no culprit is found."""
_NEAR = 2
"""How many nodes up and down the neighbourhood goes."""
_MOST_NEIGHBOURS = 6
_MOST_PIECES = 4096
_NOTHING = InnerNode("", "", (), (), ())


def find_culprit(
    source: Path,
    result: Path,
    plan: Plan,
    options: VerifyOptions | None = None,
    *,
    trace: Trace | None = None,
    tick: int | None = None,
) -> Culprit | None:
    """Returns the node of the result at which it parts from the source; None where both put out the same bits.

    They may do so although a verification failed: where it failed on another provider, or with optimisations. What is
    compared inside is compared to the bit: of a result that is allowed to differ a little, it is the first node that
    does.

    Args:
        source: The model that is trusted.
        result: The other one.
        plan: From the one to the other.
        options: How to drive them, where there is no trace.
        trace: A recorded run of the source.
        tick: The tick that is known to differ; later ones are not looked at.

    Raises:
        VerifyError: A model cannot be run, or its inside not be seen.
        ModelReadError: A file is missing or no model.
        ModelWriteError: There is no room for a copy of a model.
    """
    options = options or VerifyOptions()
    ticks = _recorded(trace) if trace is not None else _driven(source, plan, options)
    parted = _first_parted(result, plan, ticks, tick, options)
    return None if parted is None else _culprit(source, result, plan, parted)


@dataclass(frozen=True)
class _Parted:
    """The first tick at which outputs differ.

    Attributes:
        tick: The tick of the source.
        feeds: What the result is fed.
        expected: What it should put out.
        outputs: Which of its outputs differ.
    """

    tick: Tick
    feeds: Mapping[str, Array]
    expected: Mapping[str, Array]
    outputs: tuple[str, ...]


def _recorded(trace: Trace) -> Iterator[Tick]:
    for run in trace.header.runs:
        yield from trace.ticks(run)


def _driven(source: Path, plan: Plan, options: VerifyOptions) -> Iterator[Tick]:
    session = Session(source)
    found = find_drives(session, plan, options)
    for drive in found.drives:
        stream = Stream(session, drive, drive.start())
        for _ in range(found.ticks):
            yield stream.step()


def _first_parted(
    result: Path, plan: Plan, ticks: Iterable[Tick], last: int | None, options: VerifyOptions
) -> _Parted | None:
    """Returns the first tick at which more differs than is allowed or, if there is none, at which any bit does."""
    session = Session(result)
    dtypes = {port.name: port.dtype for port in plan.outputs}
    first = None
    for tick in ticks:
        if last is not None and tick.number > last:
            continue
        feeds = {**translated_inputs(tick.inputs, plan), **plan.run_past(tick.state)}
        try:
            fetched = session.run(feeds)
        except DriveError as error:
            raise VerifyError(f"the result cannot be run: {error.message}", where=f"tick {tick.number}") from None
        expected = expected_outputs(tick.fetched, plan)
        wrong = [name for name in expected if compare(expected[name], fetched[name], dtypes[name]).mismatched]
        parted = _Parted(tick, feeds, expected, tuple(wrong))
        for name in wrong:
            tolerance = options.tolerance(name, dtypes[name])
            if compare(expected[name], fetched[name], dtypes[name], tolerance).mismatched:
                return parted
        first = first or (parted if wrong else None)
    return first


def _culprit(source: Path, result: Path, plan: Plan, parted: _Parted) -> Culprit:
    fed = {**parted.tick.inputs, **parted.tick.state}
    mine, theirs = _side(result, parted.feeds), _side(source, fed)
    renamed = {new: old for old, new in plan.renames.items()}
    outputs = {name: name not in parted.outputs for name in parted.expected}
    right = (*parted.expected.values(), *parted.feeds.values())
    blame = Blame(theirs, mine, outputs, renamed, _pieces(right))
    suspects = blame.suspects()
    if not suspects:
        names = ", ".join(f"`{name}`" for name in parted.outputs)
        raise VerifyError(f"{names} is fed or constant in the result: no node makes it", where=str(result))
    first = suspects[0]
    node, other = first.node, first.counterpart or _NOTHING
    weights = weight_changes(first, mine.inside, theirs.inside)
    actual = _values((*node.inputs, *node.outputs), mine, parted.feeds)
    pairs = _Pairs(actual, _values((*other.inputs, *other.outputs), theirs, fed), weights, blame)
    return Culprit(
        tick=parted.tick.number,
        node=node,
        counterpart=first.counterpart,
        inputs=pairs.compared(node.inputs, other.inputs),
        outputs=pairs.compared(node.outputs, other.outputs),
        changes=(*changes(first, theirs.inside, blame, weights), *filter(None, weights.values())),
        neighbours=_neighbours(node, mine.inside, blame),
        others=tuple(one.node.title for one in suspects[1:] if one.is_definite),
        reached=parted.outputs,
    )


def _side(path: Path, feeds: Mapping[str, Array]) -> Side:
    inside = look_inside(path)
    return Side(inside, take_prints(inside, feeds), frozenset(feeds))


def _pieces(arrays: Iterable[Array]) -> Iterator[Print]:
    """Yields fingerprints of what stands in arrays: whole, and entry by entry of the first axes."""
    for array in arrays:
        yield print_of(array)
        for depth in (1, 2):
            if array.size and array.ndim > depth and math.prod(array.shape[:depth]) <= _MOST_PIECES:
                for one in array.reshape(-1, *array.shape[depth:]):
                    yield print_of(one)


def _values(names: Iterable[str], side: Side, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Returns values of one model at the tick, those that cannot be had left out."""
    known = {**side.inside.constants, **feeds}
    wanted = [name for name in dict.fromkeys(names) if name]
    inner = [name for name in wanted if name in side.inside.producers and name not in known]
    computed = dict(fetch(side.inside.path, inner, feeds))
    return {**{name: known[name] for name in wanted if name in known}, **computed}


@dataclass(frozen=True)
class _Pairs:
    """The values of two nodes side by side.

    Attributes:
        actual: Values of the result, by name.
        expected: Values of the source, by name.
        weights: How weights of the result differ; empty where they do not.
        blame: Who knows where else a value stands.
    """

    actual: Mapping[str, Array]
    expected: Mapping[str, Array]
    weights: Mapping[str, str]
    blame: Blame

    def compared(self, names: Sequence[str], others: Sequence[str]) -> tuple[Compared, ...]:
        """Compares what two nodes read, or what they put out."""
        return tuple(self._compare(*pair) for pair in zip_longest(names, others, fillvalue="") if any(pair))

    def _compare(self, name: str, other: str) -> Compared:
        if name in self.weights:
            return Compared(name, other, "differs" if self.weights[name] else "equal", remark="a weight")
        twin = self.blame.twin(name)
        remark = f"as `{twin}` in the source" if twin and twin != other else ""
        actual, expected = self.actual.get(name), self.expected.get(other)
        if actual is None or expected is None:
            return Compared(name, other, "equal" if twin else "unknown", remark=remark)
        found = compare(expected, actual, str(expected.dtype))
        if not found.mismatched:
            return Compared(name, other, "equal")
        return Compared(name, other, "differs", found, remark or ulps(expected, actual))


def _neighbours(node: InnerNode, inside: Inside, blame: Blame) -> tuple[Neighbour, ...]:
    """Returns the nodes that feed the node and that read it, with those behind them, as far as they are few."""
    found = {id(node): Neighbour(node, 0, "differs")}
    for sign in (-1, 1):
        layer = [node]
        for steps in range(1, _NEAR + 1):
            layer = [
                other for one in layer for other in (_makers(one, inside) if sign < 0 else _readers(one, inside))
                if id(other) not in found
            ][:_MOST_NEIGHBOURS]  # fmt: skip
            for other in layer:
                found[id(other)] = Neighbour(other, sign * steps, _state(other, blame))
    order = {id(one): index for index, one in enumerate(inside.nodes)}
    return tuple(sorted(found.values(), key=lambda one: order[id(one.node)]))


def _makers(node: InnerNode, inside: Inside) -> list[InnerNode]:
    return [inside.producers[name] for name in node.reads if name in inside.producers]


def _readers(node: InnerNode, inside: Inside) -> list[InnerNode]:
    return [reader for name in node.outputs for reader in inside.readers.get(name, ())]


def _state(node: InnerNode, blame: Blame) -> str:
    states = {blame.state(name) for name in node.outputs if name}
    return next((state for state in ("differs", "unknown") if state in states), "equal")
