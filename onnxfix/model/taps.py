"""What lies inside a model: its nodes, its weights one by one, and a copy of it that puts out inner values too."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from onnx import numpy_helper

from onnxfix.model.attributes import Array, attribute_value, constant_value, tensor_value
from onnxfix.model.external import graphs_of, is_external, tensor_bytes
from onnxfix.model.model import Model
from onnxfix.model.ports import dtype_name
from onnxfix.model.scopes import captured_names
from onnxfix.model.staged import Staged

_BLOCK = 1 << 18
"""Bytes of a weight that are read at once."""
_SAMPLES = 16


@dataclass(frozen=True)
class InnerNode:
    """A node of the main graph.

    Attributes:
        op_type: The operator, with its domain where that is not ONNX's own.
        name: The node's name; may be empty.
        inputs: What it reads, in order; empty for an optional input that is left out.
        captures: What its nested graphs read from the main graph.
        outputs: What it produces; empty for an optional output that is left out.
        attributes: In words; nested graphs and tensors as a fingerprint in which names have no part.
    """

    op_type: str
    name: str
    inputs: tuple[str, ...]
    captures: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def reads(self) -> tuple[str, ...]:
        """All that it reads, nested graphs included."""
        return tuple(name for name in (*self.inputs, *self.captures) if name)

    @property
    def title(self) -> str:
        """What to call it: its name, or else its first output."""
        return self.name or next((name for name in self.outputs if name), "")


@dataclass(frozen=True)
class Inside:
    """A model's main graph as one can read it in a file.

    Attributes:
        path: The file.
        nodes: The nodes in the file's order, without those that hold a constant.
        constants: Small values that are known: of initializers and `Constant` nodes. bfloat16 as its bits, uint16.
        weights: The names of all initializers and constants, small or large.
    """

    path: Path
    nodes: tuple[InnerNode, ...]
    constants: Mapping[str, Array]
    weights: frozenset[str]

    @cached_property
    def producers(self) -> Mapping[str, InnerNode]:
        """The node that produces a value, by the value's name."""
        return {name: node for node in self.nodes for name in node.outputs if name}

    @cached_property
    def readers(self) -> Mapping[str, tuple[InnerNode, ...]]:
        """The nodes that read a value, by the value's name."""
        found: dict[str, dict[int, InnerNode]] = {}
        for index, node in enumerate(self.nodes):
            for name in node.reads:
                found.setdefault(name, {})[index] = node
        return {name: tuple(nodes.values()) for name, nodes in found.items()}


def look_inside(path: Path) -> Inside:
    """Reads a model's nodes and small constants.

    Raises:
        ModelReadError: The file is missing or no model.
        DataFileError: A data file is missing.
    """
    graph = Model.load(path).proto.graph
    constants = {tensor.name: tensor_value(tensor) for tensor in graph.initializer}
    held = [node for node in graph.node if node.op_type == "Constant"]
    constants |= {node.output[0]: constant_value(node) for node in held}
    sparse = {tensor.values.name for tensor in graph.sparse_initializer}
    return Inside(
        path=path,
        nodes=tuple(_inner(node) for node in graph.node if node.op_type != "Constant"),
        constants={name: _stored(value) for name, value in constants.items() if value is not None},
        weights=frozenset(constants) | sparse,
    )


def _inner(node: onnx.NodeProto) -> InnerNode:
    domain = f"{node.domain}." if node.domain not in ("", "ai.onnx") else ""
    attributes = {attribute.name: _text(attribute) for attribute in node.attribute}
    captures = tuple(name for name in captured_names(node) if name not in node.input)
    return InnerNode(
        f"{domain}{node.op_type}", node.name, tuple(node.input), captures, tuple(node.output), attributes
    )  # fmt: skip


def _text(attribute: onnx.AttributeProto) -> str:
    value = attribute_value(attribute)
    if value is None:
        return f"{onnx.AttributeProto.AttributeType.Name(attribute.type).lower()} {_fingerprint(attribute)}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)} {np.array2string(value, threshold=8)}"
    return str(value)


def _fingerprint(attribute: onnx.AttributeProto) -> str:
    """Returns a digest of what an attribute says, names of values aside."""
    shell = onnx.NodeProto()
    shell.attribute.append(attribute)
    digest = hashlib.blake2b(digest_size=6)
    if next(graphs_of(shell), None) is None:
        digest.update(attribute.SerializeToString())
    for graph in graphs_of(shell):
        for node in graph.node:
            digest.update(node.op_type.encode())
            for inner in node.attribute:
                digest.update(f"{inner.name} {_text(inner)}".encode())
        for tensor in graph.initializer:
            unnamed = onnx.TensorProto()
            unnamed.CopyFrom(tensor)
            unnamed.ClearField("name")
            digest.update(unnamed.SerializeToString())
    return digest.hexdigest()


def _stored(value: Array) -> Array:
    """Returns an array of a type that numpy has: of bfloat16 the bits."""
    return value.view(np.uint16) if value.dtype.name == "bfloat16" else value


@dataclass(frozen=True)
class Weight:
    """A weight as it lies in a file.

    Attributes:
        dtype: Its element type.
        dims: Its dims.
        digest: Of its bytes; empty for strings.
        size: How many bytes it takes; 0 where nobody knows.
    """

    dtype: str
    dims: tuple[int, ...]
    digest: str
    size: int = 0


def read_weights(path: Path, names: Iterable[str], *, whole: bool = True) -> dict[str, Weight]:
    """Returns what weights are, by name; no more than a block of each is in memory besides the model's file.

    Args:
        path: The model.
        names: Initializers and constants; others are left out.
        whole: Whether the digest is one of all bytes; otherwise of some, here and there, which tells weights apart but
            does not prove them equal.

    Raises:
        ModelReadError: The file is missing or no model.
    """
    model = Model.load(path)
    tensors = _tensors(model)
    return {name: _weight(tensors[name], model, whole) for name in names if name in tensors}


def read_weight(path: Path, name: str) -> Array | None:
    """Returns the values of one weight, bfloat16 as its bits; None where there is none of that name, or of strings.

    Raises:
        ModelReadError: The file is missing or no model.
    """
    model = Model.load(path)
    tensor = _tensors(model).get(name)
    if tensor is None or tensor.data_type == onnx.TensorProto.STRING:
        return None
    return _stored(numpy_helper.to_array(tensor, str(model.folder or "")))


def _tensors(model: Model) -> dict[str, onnx.TensorProto]:
    graph = model.proto.graph
    held = [node for node in graph.node if node.op_type == "Constant"]
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in held:
        value = constant_value(node)
        if value is not None and value.dtype.kind != "O":
            stored[node.output[0]] = numpy_helper.from_array(value)
        else:
            stored.update((node.output[0], one.t) for one in node.attribute if one.name == "value")
    return stored


def _weight(tensor: onnx.TensorProto, model: Model, whole: bool) -> Weight:
    dtype, dims, size = dtype_name(tensor.data_type), tuple(tensor.dims), tensor_bytes(tensor) or 0
    if tensor.data_type == onnx.TensorProto.STRING:
        return Weight(dtype, dims, "")
    digest = hashlib.blake2b(digest_size=16)
    with _opened(tensor, model) as file:
        start = file.tell()
        step = _BLOCK if whole else max(_BLOCK, size // _SAMPLES)
        for offset in range(0, size, step):
            file.seek(start + offset)
            digest.update(file.read(min(_BLOCK, size - offset)))
    return Weight(dtype, dims, digest.hexdigest(), size)


@contextlib.contextmanager
def _opened(tensor: onnx.TensorProto, model: Model) -> Iterator[BinaryIO]:
    """Opens the bytes of a weight, wherever they lie."""
    if is_external(tensor) and model.folder is not None:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        with (model.folder / entries["location"]).open("rb") as file:
            file.seek(int(entries.get("offset", "0")))
            yield file
    else:
        yield io.BytesIO(tensor.raw_data or _stored(numpy_helper.to_array(tensor)).tobytes())


@contextlib.contextmanager
def tapped(path: Path, names: Iterable[str]) -> Iterator[Path]:
    """Writes the model with further outputs, for as long as the block runs.

    A model with data files is written beside them, so that they are shared, and elsewhere only where its folder cannot
    be written. Nothing of it stays in memory.

    Args:
        path: The model.
        names: Values of the main graph; outputs of these names are added, those that exist stay.

    Raises:
        ModelReadError: The file is missing or no model.
        ModelWriteError: There is no room for the copy.
    """
    with contextlib.ExitStack() as stack:
        yield stack.enter_context(_staged(path, names, stack)).path


def _staged(path: Path, names: Iterable[str], stack: contextlib.ExitStack) -> Staged:
    model = Model.load(path)
    outputs = model.proto.graph.output
    known = {value.name for value in outputs}
    for name in dict.fromkeys(names):
        if name not in known:
            # Runtimes infer the type, which the file may not tell.
            outputs.add(name=name)
    folder = path.parent
    if not model.external_files() or not os.access(folder, os.W_OK):
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxfix-")))
    return model.stage(folder / "tapped.onnx")
