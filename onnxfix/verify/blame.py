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
from itertools import zip_longest

from onnxfix.model.taps import InnerNode, Inside
from onnxfix.verify.inner import Print, without_units

_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
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
    def contents(self) -> Mapping[bytes, frozenset[tuple[int, ...]]]:
        """The contents of values that say something, and for each the shapes that it has, units aside."""
        return contents_of(self.prints.values())

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


def contents_of(prints: Iterable[Print]) -> Mapping[bytes, frozenset[tuple[int, ...]]]:
    """Returns the contents of values that say something, and for each the shapes that it has, units aside."""
    found: dict[bytes, set[tuple[int, ...]]] = {}
    for known in prints:
        if not known.is_plain:
            found.setdefault(known.content, set()).add(without_units(known.shape))
    return {content: frozenset(shapes) for content, shapes in found.items()}


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

    def __init__(
        self,
        source: Side,
        result: Side,
        outputs: Mapping[str, bool],
        renamed: Mapping[str, str],
        expected: Iterable[Print] = (),
    ) -> None:
        """Prepares the search.

        Args:
            source: The model that is trusted.
            result: The other one.
            outputs: The outputs of the result, and whether each is what it should be.
            renamed: Names in the source by names in the result, where ports have others.
            expected: What else is right in the result: pieces of what it is fed and should put out.
        """
        self._source = source
        self._result = result
        self._renamed = renamed
        self._right = contents_of(expected)
        self._outputs = outputs
        self._found: dict[tuple[int, int], Suspect] = {}
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
        shapes = [contents.get(known.content, frozenset()) for contents in (self._source.contents, self._right)]
        if node.op_type in _RESHAPES:
            return any(shapes)
        return any(without_units(known.shape) in one for one in shapes)

    def is_good(self, name: str) -> bool:
        """Whether the source has this value of the result too. What is fed or constant is right here."""
        return self._good.get(name, True)

    def state(self, name: str) -> str:
        """Says whether a value of the result is right: `equal`, `differs`, or `unknown` where it says too little."""
        known = self._result.prints.get(name)
        if known is None:
            return "unknown"
        if not self.is_good(name) or self._outputs.get(name) is False:
            return "differs"
        beside = self._source.prints.get(self._renamed.get(name, name))
        if known.is_plain and name not in self._outputs:
            return "unknown" if beside is None else "equal" if beside.digest == known.digest else "differs"
        return "equal"

    def twin(self, name: str) -> str:
        """Returns under which name the source has a value of the result; empty if it has not, or says little."""
        known = self._result.prints.get(name)
        names = self._source.digests.get(known.digest, ()) if known is not None and not known.is_plain else ()
        return name if name in names else next(iter(names), "")

    def suspects(self) -> list[Suspect]:
        """Returns the suspects, the likeliest first."""
        producers = self._result.inside.producers
        stack = [producers[name] for name, is_right in self._outputs.items() if not is_right and name in producers]
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
        key = id(node), id(hint)
        if key not in self._found:
            self._found[key] = self._looked_for(node, hint)
        return self._found[key]

    def _looked_for(self, node: InnerNode, hint: InnerNode | None) -> Suspect:
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
        weights = self._shared_weights(node, other)
        if not (has_name or same or swapped or weights):
            return 0.0
        shapes = [
            {one.shape for name in side if (one := prints.get(name))}
            for side, prints in ((node.outputs, self._result.prints), (other.outputs, self._source.prints))
        ]
        return (
            4 * has_name
            + (bool(node.name) and node.name == other.name)
            + 3 * (node.op_type == other.op_type)
            + 4 * same + 3 * swapped + plain + 3 * weights
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

    def _shared_weights(self, node: InnerNode, other: InnerNode) -> bool:
        """Whether both read a weight that is large enough to be told from others."""
        mine, theirs = (
            {
                side.prints[name].digest for name in one.inputs
                if name in side.inside.weights and name not in side.inside.constants and name in side.prints
            }
            for one, side in ((node, self._result), (other, self._source))
        )  # fmt: skip
        return bool(mine & theirs)

    def are_equal(self, name: str, other: str) -> bool:
        """Whether a value of the result is the same as one of the source, or nobody can look at either."""
        known, beside = self._result.prints.get(name), self._source.prints.get(other)
        if known is not None and beside is not None:
            return known.digest == beside.digest
        return known is None and beside is None and bool(name) == bool(other)

    def _lifted(self, suspect: Suspect) -> Suspect:
        """Goes on upward where the node only reads what is right elsewhere, and not in this place."""
        # Without a counterpart there is no telling what it should read, unless its value is known to mislead.
        above = self._misled(suspect) if suspect.counterpart else None
        while above is not None:
            suspect, above = above, self._misled(above)
        return suspect

    def _misled(self, suspect: Suspect) -> Suspect | None:
        """Returns who gives a node a value that is not the one that it should read, and that nobody should."""
        node, other = suspect.node, suspect.counterpart
        theirs = {one.digest for name in other.reads if (one := self._source.prints.get(name))} if other else set()
        for name, beside in zip_longest(node.inputs, other.inputs if other else (), fillvalue=""):
            known = self._result.prints.get(name)
            if known is None or self._result.is_given(name) or self.are_equal(name, beside):
                continue
            if known.digest in theirs and not known.is_plain:
                continue
            maker = self._result.inside.producers[name]
            # That a small number is computed somewhere in the source says nothing of this place.
            is_fine = not known.is_plain and self._is_congruent(name, maker) and not self._is_misnamed(name, maker)
            if not is_fine and not self._serves(name, node):
                return self._suspect(maker, self._source.inside.producers.get(beside))
        return None

    def _serves(self, name: str, besides: InnerNode | None) -> bool:
        """Whether somebody reads a value as it should be, or makes of it what somebody should read."""
        if self._outputs.get(name):
            return True
        for reader in self._result.inside.readers.get(name, ()):
            if reader is besides:
                continue
            other = self._suspect(reader).counterpart
            if other is None:
                if any(self._serves(made, None) for made in filter(None, reader.outputs)):
                    return True
                continue
            pairs = zip(reader.inputs, other.inputs, strict=False)
            if any(read == name and self.are_equal(read, beside) for read, beside in pairs):
                return True
        return False

    def _is_misnamed(self, name: str, maker: InnerNode) -> bool:
        """Whether the source makes another value by the same operator under this name."""
        beside = self._source.inside.producers.get(name)
        return beside is not None and beside.op_type == maker.op_type and not self.are_equal(name, name)

    def _is_congruent(self, name: str, maker: InnerNode) -> bool:
        """Whether the source makes the same value of the same ones by the same operator."""
        for other in self._source.digests.get(self._result.prints[name].digest, ()):
            beside = self._source.inside.producers.get(other)
            if beside is None or beside.op_type != maker.op_type or len(beside.inputs) != len(maker.inputs):
                continue
            if all(self.are_equal(*pair) for pair in zip(maker.inputs, beside.inputs, strict=True)):
                return True
        return False
