"""A node as the graph view hands it out."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, MutableSequence
from typing import Protocol

import onnx

from onnxfix.errors import RewriteError
from onnxfix.model.attributes import Attribute, attributes_of
from onnxfix.model.external import graphs_of
from onnxfix.model.scopes import rename_captures, rename_inner


class Value(Hashable, Protocol):
    """A value of the main graph, as onnx-graphsurgeon links it."""

    name: str
    inputs: MutableSequence[Link]
    outputs: MutableSequence[Link]


class Link(Hashable, Protocol):
    """A node's connections, as onnx-graphsurgeon keeps them."""

    op: str
    name: str
    domain: str | None
    inputs: MutableSequence[Value]
    outputs: MutableSequence[Value]


class Node:
    """A node of the main graph, until it is removed.

    Attributes:
        op_type: The operator.
        domain: Its operator set; empty for ONNX's own.
        name: The node's name; may be empty.
        link: Its connections, which the graph view alone changes: the inputs first, then what nested graphs capture.
        arity: How many of `link.inputs` are inputs.
        proto: Its message in the model, where pending edits do not show.
    """

    def __init__(self, link: Link, proto: onnx.NodeProto, arity: int) -> None:
        self.link = link
        self.arity = arity
        self.proto = proto
        self._written_captures = self.captures if self.has_captures else ()
        self._attributes: Mapping[str, Attribute] | None = None
        self.op_type: str = link.op
        self.domain: str = link.domain or ""
        self.name: str = link.name

    def __repr__(self) -> str:
        return f"<{self.op_type} `{self.name}`: {', '.join(self.inputs)} -> {', '.join(self.outputs)}>"

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of what the node reads; empty for an optional input that is left out."""
        return tuple([tensor.name for tensor in self.link.inputs[: self.arity]])

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what the node produces; empty for an optional output that is left out."""
        return tuple([tensor.name for tensor in self.link.outputs])

    @property
    def has_captures(self) -> bool:
        """Whether the node's nested graphs read anything from the main graph."""
        return len(self.link.inputs) > self.arity

    @property
    def captures(self) -> tuple[str, ...]:
        """The names that the node's nested graphs read from the main graph, at any depth."""
        return tuple(tensor.name for tensor in self.link.inputs[self.arity :])

    @property
    def has_graphs(self) -> bool:
        """Says whether the node carries nested graphs (`If`, `Loop`, `Scan`)."""
        return next(graphs_of(self.proto), None) is not None

    @property
    def attributes(self) -> Mapping[str, Attribute]:
        """The attributes in plain Python, without graphs, types, and tensors that are weights."""
        if self._attributes is None:
            self._attributes = attributes_of(self.proto)
        return self._attributes

    def integer(self, name: str, default: int) -> int:
        """Returns an attribute that is one integer; `default` where the node has none of that name."""
        value = self.attributes.get(name)
        return value if isinstance(value, int) else default

    def integers(self, name: str) -> tuple[int, ...] | None:
        """Returns an attribute that is a list of integers; None where the node has none of that name."""
        value = self.attributes.get(name)
        return tuple(int(entry) for entry in value) if isinstance(value, list) else None

    def string(self, name: str, default: str) -> str:
        """Returns an attribute that is one string; `default` where the node has none of that name."""
        value = self.attributes.get(name)
        return value if isinstance(value, str) else default

    def write(self, inner: Mapping[str, str]) -> None:
        """Writes names that have changed into the message.

        Args:
            inner: Old and new names of what the node's nested graphs define.
        """
        if tuple(self.proto.input) != self.inputs:
            self.proto.input[:] = self.inputs
        if tuple(self.proto.output) != self.outputs:
            self.proto.output[:] = self.outputs
        rename_inner(self.proto, inner)
        pairs = zip(self._written_captures, self.captures, strict=True)
        rename_captures(self.proto, {old: new for old, new in pairs if old != new})
        self._written_captures = self.captures


def ordered(links: Iterable[Link]) -> list[Link]:
    """Returns the links in the order given, but every producer before its first reader.

    Raises:
        RewriteError: There is a cycle.
    """
    order: dict[Link, None] = {}
    entered: set[Link] = set()
    for root in links:
        stack = [root]
        while stack:
            link = stack[-1]
            if link in order:
                stack.pop()
                continue
            entered.add(link)
            above = [up for value in link.inputs for up in value.inputs if up not in order]
            if not above:
                order[stack.pop()] = None
            elif any(up in entered for up in above):
                raise RewriteError(f"the edits made a cycle through {link.op} `{link.name}`")
            else:
                stack.extend(reversed(above))
    return list(order)
