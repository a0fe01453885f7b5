"""Which node of the result is to blame, where the inner values of both models are known as fingerprints.

Nothing is matched in advance, neither by name nor by place: a value of the result is right if the source has the same
one anywhere, to the bit. From the outputs that differ the way goes up through values that the source does not have.
Where it ends, there is a node that makes a wrong value of right ones. Then the node of the source that should be there
is looked for, by what it reads, by its operator and by its name. A node for which there is one, and whose value the
result lacks, goes before one that is there only because the result lays its caches out otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from onnxfix.model.taps import InnerNode, Inside
from onnxfix.verify.inner import Print

_LEAST = 5.0
"""Below this, two nodes have so little in common that they are no counterparts."""


@dataclass(frozen=True)
class Side:
    """A model at one tick.

    Attributes:
        inside: Its graph.
        prints: The fingerprints of its values: fed, constant, computed.
        fed: The names of its inputs.
    """

    inside: Inside
    prints: Mapping[str, Print]
    fed: frozenset[str]

    @cached_property
    def digests(self) -> Mapping[bytes, tuple[str, ...]]:
        """The names of the values that have a fingerprint."""
        found: dict[bytes, list[str]] = {}
        for name, known in self.prints.items():
            found.setdefault(known.digest, []).append(name)
        return {digest: tuple(names) for digest, names in found.items()}

    @cached_property
    def contents(self) -> frozenset[bytes]:
        """The contents of values that say something, whatever their shape."""
        return frozenset(known.content for known in self.prints.values() if not known.is_plain)

    @cached_property
    def order(self) -> Mapping[int, int]:
        """The place of each node, by identity."""
        return {id(node): index for index, node in enumerate(self.inside.nodes)}

    def is_given(self, name: str) -> bool:
        """Whether a value is fed or constant."""
        return name in self.fed or name in self.inside.weights or name not in self.inside.producers

    def place(self, node: InnerNode) -> float:
        """Returns how far down in the graph a node lies, from 0 to 1."""
        return self.order[id(node)] / max(1, len(self.inside.nodes))


@dataclass(frozen=True)
class Suspect:
    """A node that makes a value that the source does not have of values that it has.

    Attributes:
        node: The node of the result.
        counterpart: The node of the source that is most like it; None if none is.
        is_definite: Whether the result lacks what the counterpart puts out.
    """

    node: InnerNode
    counterpart: InnerNode | None
    is_definite: bool


class Blame:
    """The search for the node."""

    def __init__(self, source: Side, result: Side, renamed: Mapping[str, str], expected: Iterable[Print] = ()) -> None:
        """Prepares the search.

        Args:
            source: The model that is trusted.
            result: The other one.
            renamed: Names in the source by names in the result, where ports have others.
            expected: What else is right in the result: pieces of what it should put out.
        """
        self._source = source
        self._result = result
        self._renamed = renamed
        self._right = frozenset(one.content for one in expected if not one.is_plain)
        self._good: dict[str, bool] = {}
        for node in result.inside.nodes:
            for name in filter(None, node.outputs):
                self._good[name] = self._is_right(name, node)

    def _is_right(self, name: str, node: InnerNode) -> bool:
        known = self._result.prints.get(name)
        if known is None:
            # Nobody can look at it, so it is as good as what it is made of.
            return all(self.is_good(read) for read in node.reads)
        if known.digest in self._source.digests:
            return True
        return not known.is_plain and (known.content in self._source.contents or known.content in self._right)

    def is_good(self, name: str) -> bool:
        """Whether the source has this value of the result too; weights are looked at later."""
        return self._good.get(name, True)

    def twin(self, name: str) -> str:
        """Returns under which name the source has a value of the result; empty if it has not, or says little."""
        known = self._result.prints.get(name)
        names = self._source.digests.get(known.digest, ()) if known is not None and not known.is_plain else ()
        return name if name in names else next(iter(names), "")

    def suspects(self, outputs: Iterable[str]) -> list[Suspect]:
        """Returns the suspects, the likeliest first.

        Args:
            outputs: Outputs of the result that are not what they should be.
        """
        producers = self._result.inside.producers
        stack = [producers[name] for name in outputs if name in producers]
        seen: dict[int, InnerNode] = {}
        while stack:
            node = stack.pop()
            if id(node) not in seen:
                seen[id(node)] = node
                stack += [producers[name] for name in node.reads if not self.is_good(name)]
        ends = [node for node in seen.values() if all(map(self.is_good, node.reads))]
        found: dict[int, Suspect] = {}
        for node in sorted(ends, key=self._result.place):
            suspect = self._lifted(self._suspect(node))
            found.setdefault(id(suspect.node), suspect)
        return sorted(found.values(), key=lambda one: not one.is_definite)

    def _suspect(self, node: InnerNode, hint: InnerNode | None = None) -> Suspect:
        scores = [(self._likeness(node, other) + 3 * (other is hint), other) for other in self._source.inside.nodes]
        score, best = max(scores, key=lambda pair: pair[0], default=(0.0, None))
        if best is None or score < _LEAST:
            return Suspect(node, None, False)
        return Suspect(node, best, self._is_lost(best))

    def _is_lost(self, node: InnerNode) -> bool:
        """Whether the result lacks something that a node of the source puts out."""
        prints = [self._source.prints[name] for name in node.outputs if name in self._source.prints]
        return any(
            one.digest not in self._result.digests and one.content not in self._result.contents for one in prints
        )

    def _likeness(self, node: InnerNode, other: InnerNode) -> float:
        """Returns how much speaks for it that two nodes of result and source do the same work."""
        names = {self._renamed.get(name, name) for name in node.outputs if name}
        has_name = bool(names & set(other.outputs))
        same, swapped, plain = self._shared_inputs(node, other)
        if not has_name and not same and not swapped:
            return 0.0
        shapes = [
            {one.shape for name in side if (one := prints.get(name))}
            for side, prints in ((node.outputs, self._result.prints), (other.outputs, self._source.prints))
        ]
        return (
            4 * has_name
            + (bool(node.name) and node.name == other.name)
            + 3 * (node.op_type == other.op_type)
            + 4 * same + 3 * swapped + plain
            + (node.attributes == other.attributes)
            + (shapes[0] == shapes[1])
            + 3 * self._is_lost(other)
            - abs(self._result.place(node) - self._source.place(other))
        )  # fmt: skip

    def _shared_inputs(self, node: InnerNode, other: InnerNode) -> tuple[float, float, float]:
        """Returns which parts of the inputs are the same in place, elsewhere, and among those that say little."""
        theirs = {one.digest for name in other.reads if (one := self._source.prints.get(name))}
        telling = plain = same = swapped = alike = 0
        for index, name in enumerate(node.inputs):
            if not name:
                continue
            beside = other.inputs[index] if index < len(other.inputs) else ""
            known, known_beside = self._result.prints.get(name), self._source.prints.get(beside)
            is_equal = self.are_equal(name, beside)
            if known is None or known.is_plain:
                plain += 1
                alike += is_equal and (known_beside is not None or name == beside)
            else:
                telling += 1
                same += is_equal
                swapped += not is_equal and known.digest in theirs
        return same / max(1, telling), swapped / max(1, telling), alike / max(1, plain)

    def are_equal(self, name: str, other: str) -> bool:
        """Whether a value of the result is the same as one of the source; large weights are looked at later."""
        known, beside = self._result.prints.get(name), self._source.prints.get(other)
        if known is not None and beside is not None:
            return known.digest == beside.digest
        return known is None and beside is None and bool(name) == bool(other)

    def _lifted(self, suspect: Suspect) -> Suspect:
        """Goes on upward where the node only reads what is right elsewhere, and not in this place."""
        while suspect.counterpart is not None:
            above = self._misled(suspect.node, suspect.counterpart)
            if above is None:
                break
            suspect = above
        return suspect

    def _misled(self, node: InnerNode, other: InnerNode) -> Suspect | None:
        """Returns who gives a node a value that is not the one that its counterpart reads."""
        theirs = {one.digest for name in other.reads if (one := self._source.prints.get(name))}
        for name, beside in zip(node.inputs, other.inputs, strict=False):
            known = self._result.prints.get(name)
            if not name or self._result.is_given(name) or known is None or self.are_equal(name, beside):
                continue
            maker = self._result.inside.producers[name]
            if known.digest in theirs or self._is_congruent(name, maker) or not self._misleads(name):
                continue
            return self._suspect(maker, self._source.inside.producers.get(beside))
        return None

    def _misleads(self, name: str) -> bool:
        """Whether nobody needs a value as it is: no reader makes anything right of it, none should read the like."""
        for reader in self._result.inside.readers.get(name, ()):
            for made in filter(None, reader.outputs):
                beside = self._source.inside.producers.get(self._renamed.get(made, made))
                pairs = zip(reader.inputs, beside.inputs if beside else (), strict=False)
                if self.is_good(made) or any(read == name and self.are_equal(read, like) for read, like in pairs):
                    return False
        return True

    def _is_congruent(self, name: str, maker: InnerNode) -> bool:
        """Whether the source makes the same value of the same ones by the same operator."""
        for other in self._source.digests.get(self._result.prints[name].digest, ()):
            beside = self._source.inside.producers.get(other)
            if beside is None or beside.op_type != maker.op_type or len(beside.inputs) != len(maker.inputs):
                continue
            if all(self.are_equal(*pair) for pair in zip(maker.inputs, beside.inputs, strict=True)):
                return True
        return False
