"""A model's graph as something to walk and change.

onnx-graphsurgeon keeps who produces and who reads what; the model's own message stays the envelope. The view is built
here rather than by graphsurgeon's importer, which drops attributes and metadata it does not know and fails on optional
types; only new nodes are written by its exporter. What nobody touched is not written at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import numpy_helper
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from onnxfix.model import scopes
from onnxfix.model.attributes import Array, Attribute
from onnxfix.model.edited import EditedGraph
from onnxfix.model.model import Model
from onnxfix.model.node import Link, Node, Value
from onnxfix.model.shapes import infer_shapes

__all__ = ["Array", "Attribute", "GraphView", "Node"]


class _Tensor(gs.Variable):  # type: ignore[misc]
    """A value of the main graph. Graphsurgeon compares tensors by name, which says nothing while names change."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__
    # Graphsurgeon lets whole lists of producers and readers be replaced, and looks for that whenever anything is set.
    __setattr__ = object.__setattr__


class _Link(gs.Node):  # type: ignore[misc]
    """A node's connections. Graphsurgeon compares nodes by content, which takes time and confuses twins."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__
    __setattr__ = object.__setattr__


class _Maker:
    """Makes values and links with onnx-graphsurgeon, which links both ways."""

    def value(self, name: str) -> Value:
        return _Tensor(name)

    def link(
        self, op_type: str, name: str, inputs: Sequence[Value], outputs: Sequence[Value], domain: str | None
    ) -> Link:
        return _Link(op_type, name, inputs=inputs, outputs=outputs, domain=domain)


class GraphView(EditedGraph):
    """A model's main graph, by names.

    Every reading shows the edits made so far; the model itself changes at `commit`. Nested graphs are not walked, but
    what they capture is known, keeps its producer alive, and follows renames.

    Attributes:
        model: The model that is seen and changed.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model, _Maker())
        self._shared: dict[tuple[str, tuple[int, ...], bytes], Value] = {}

    def infer_shapes(self) -> None:
        """Commits, and infers the types of all values; what cannot be inferred stays as declared.

        A size that is not known gets a name that begins with `unk__`. Within one inference, values with the same name
        have the same size there. Such names are nothing for a model's ports.
        """
        self.commit()
        try:
            inferred = infer_shapes(self.model.skeleton().proto)
        except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
            return
        self._note_types(inferred.graph)

    def take_types(self, inferred: onnx.GraphProto) -> None:
        """Takes over what was inferred of values of the same names, as `infer_shapes` would have found it."""
        self._note_types(inferred)

    def add_node(
        self,
        op_type: str,
        inputs: Sequence[str],
        outputs: int | Sequence[str] = 1,
        *,
        attributes: Mapping[str, Attribute] | None = None,
        name: str = "",
        domain: str = "",
    ) -> Node:
        """Adds a node; `commit` puts it before its first reader.

        Args:
            op_type: The operator.
            inputs: Names of existing values; empty for an optional input that is left out.
            outputs: How many new values it produces, or their names. A name may be that of a value that lost its
                producer: then whoever read it reads the new one.
            attributes: In plain Python; arrays become tensors.
            name: A hint for the names of node and outputs; the operator if empty.
            domain: The operator set; empty for ONNX's own.

        Raises:
            RewriteError: An input does not exist, or an output exists already.
        """
        name = self.fresh_name(name or op_type)
        if isinstance(outputs, int):
            outputs = [self.fresh_name(f"{name}_output_{index}") for index in range(outputs)]
        link = _Link(
            op_type,
            name,
            attrs={
                key: numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
                for key, value in (attributes or {}).items()
            },
            inputs=[self._known(entry) for entry in inputs],
            outputs=[self._unprovided(entry) for entry in outputs],
            domain=domain or None,
        )
        proto = OnnxExporter.export_node(link)
        link.attrs = {}
        node = self._nodes[link] = Node(link, proto, len(inputs))
        self._added[link] = None
        return node

    def add_written_node(self, proto: onnx.NodeProto) -> Node:
        """Adds a node as it is written, nested graphs included; `commit` puts it before its first reader.

        Raises:
            RewriteError: An input or a captured value does not exist, or an output exists already.
        """
        for name in (*proto.input, *scopes.captured_names(proto)):
            self._known(name)
        for name in proto.output:
            self._unprovided(name)
        node = self._note_node(proto)
        self._added[node.link] = None
        return node

    def add_constant(self, value: Array, name: str = "constant") -> str:
        """Adds a value and returns its name; equal values are added once."""
        key = (value.dtype.str, value.shape, value.tobytes())
        known = self._shared.get(key)
        if known is not None and self._is_provided(known):
            return str(known.name)
        added = self.fresh_name(name)
        self.add_initializer(numpy_helper.from_array(value, added))
        self._shared[key] = self._tensors[added]
        return added

    def add_initializer(self, stored: onnx.TensorProto) -> None:
        """Adds a value as it is written, under its own name.

        Below IR version 4 it becomes a `Constant` node, since there every initializer is a graph input too.

        Raises:
            RewriteError: The name is taken.
        """
        tensor = self._unprovided(stored.name)
        if self.model.ir_version < 4:
            self.add_written_node(onnx.helper.make_node("Constant", [], [stored.name], value=stored))
        else:
            self._initializers[tensor] = self._added_initializers[tensor] = stored
