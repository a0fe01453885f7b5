"""What a search inside two models found: the node at which they part, and what it looks like around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxfix.verify.compare import Difference
from onnxfix.verify.report import number_to_json

if TYPE_CHECKING:
    from onnxfix.model.taps import InnerNode
    from onnxfix.verify.report import Json

_MOST_NAMES = 4


@dataclass(frozen=True)
class Compared:
    """A value of the result beside the one that stands in its place in the source.

    Attributes:
        name: In the result; empty where the source's node reads more than the result's.
        counterpart: In the source; empty where the result's node reads more than the source's.
        state: `equal`, `differs`, or `unknown` where there is nothing to compare with.
        difference: How they differ; None where they are equal or not comparable.
        remark: What else there is to say: shapes, where else the value stands in the source.
    """

    name: str
    counterpart: str
    state: str
    difference: Difference | None = None
    remark: str = ""

    def __str__(self) -> str:
        names = f"`{self.name}`" if self.name else "nothing"
        if self.counterpart != self.name:
            names += f" (in the source {f'`{self.counterpart}`' if self.counterpart else 'nothing'})"
        words = [self.state]
        if self.difference is not None and self.difference.worst is not None:
            worst = self.difference.worst
            place = f" at {list(worst.index)}" if worst.index else ""
            words.append(
                f"{self.difference.mismatched} of {self.difference.values} values, by {self.difference.max_abs:.3g} at "
                f"most{place}: {worst.actual} instead of {worst.expected}"
                if worst.what == "value"
                else f"{worst.what} {worst.actual} instead of {worst.expected}"
            )
        return f"{names} {', '.join([*words, self.remark] if self.remark else words)}"


@dataclass(frozen=True)
class Neighbour:
    """A node near the culprit.

    Attributes:
        node: The node, of the result.
        steps: How far up (negative) or down it lies.
        state: Whether the values that it produces stand in the source too: `equal`, `differs`, or `unknown`.
    """

    node: InnerNode
    steps: int
    state: str


@dataclass(frozen=True)
class Culprit:
    """The first node of the result that makes something else of the same inputs than the source does.

    Attributes:
        tick: The first tick at which an output differs.
        node: The node of the result.
        counterpart: The node of the source that stands in its place; None where there is none.
        inputs: What it reads, each beside what its counterpart reads.
        outputs: What it produces, likewise.
        changes: In what node and counterpart are not the same, in words.
        neighbours: Nodes around it, from above to below.
        others: Other nodes of which the same can be said: there is more than one fault.
        reached: The outputs of the result that differ.
    """

    tick: int
    node: InnerNode
    counterpart: InnerNode | None
    inputs: tuple[Compared, ...]
    outputs: tuple[Compared, ...]
    changes: tuple[str, ...]
    neighbours: tuple[Neighbour, ...]
    others: tuple[str, ...]
    reached: tuple[str, ...]

    def to_json(self) -> dict[str, Json]:
        """Returns all of it as plain JSON values."""
        return {
            "tick": self.tick,
            "node": _node_to_json(self.node),
            "counterpart": None if self.counterpart is None else _node_to_json(self.counterpart),
            "inputs": [_compared_to_json(one) for one in self.inputs],
            "outputs": [_compared_to_json(one) for one in self.outputs],
            "changes": list(self.changes),
            "neighbours": [
                {"node": _node_to_json(one.node), "steps": one.steps, "state": one.state} for one in self.neighbours
            ],
            "others": list(self.others),
            "reached": list(self.reached),
        }


def _node_to_json(node: InnerNode) -> dict[str, Json]:
    return {
        "name": node.name,
        "op_type": node.op_type,
        "inputs": list(node.inputs),
        "outputs": list(node.outputs),
        "attributes": dict(node.attributes),
    }


def _compared_to_json(one: Compared) -> dict[str, Json]:
    found = one.difference
    return {
        "name": one.name,
        "counterpart": one.counterpart,
        "state": one.state,
        "mismatched": None if found is None else found.mismatched,
        "values": None if found is None else found.values,
        "max_abs": None if found is None else number_to_json(found.max_abs),
        "remark": one.remark,
    }


def describe(culprit: Culprit) -> list[str]:
    """Returns what was found in plain words, one line each, the most important first."""
    lines = [
        f"first difference: tick {culprit.tick}, {shown(culprit.node)}",
        f"in the source: {shown(culprit.counterpart) if culprit.counterpart else 'no such node'}",
    ]
    lines += [f"  {change}" for change in culprit.changes]
    for kind, values in (("reads", culprit.inputs), ("puts out", culprit.outputs)):
        lines += [f"  {kind} {value}" for value in values]
    if culprit.neighbours:
        lines.append("around it:")
        width = max(len(one.state) for one in culprit.neighbours)
        lines += [
            f"  {'>' if not one.steps else ' '} {one.state:{width}}  {sentence(one.node)}" for one in culprit.neighbours
        ]
    lines.append(f"reaches {_listed(culprit.reached)}")
    if culprit.others:
        lines.append(f"the same can be said of {_listed(culprit.others)}")
    return lines


def shown(node: InnerNode) -> str:
    """Returns what to call a node."""
    return f"{node.op_type} `{node.title}`"


def sentence(node: InnerNode) -> str:
    """Returns a node as one line: `y = Op a b`."""
    outputs = [name for name in node.outputs if name]
    return f"{_short(outputs)} = {node.op_type} {_short([name or '-' for name in (*node.inputs, *node.captures)])}"


def _short(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return " ".join(names[:_MOST_NAMES]) + rest


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(f"`{name}`" for name in names[:_MOST_NAMES]) + rest
