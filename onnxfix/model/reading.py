"""The bytes of a model file, and whether they are a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from onnxfix.errors import ModelReadError
from onnxfix.model.external import graphs_of


def read(path: Path) -> bytes:
    """Returns a file's bytes.

    Raises:
        ModelReadError: The file is missing, empty, no regular file, or cannot be read.
    """
    try:
        # A pipe would be waited for, and a device may never end.
        if not path.is_dir() and not path.is_file() and path.exists():
            hint = "Write the model into a file first."
            raise ModelReadError("this is no regular file", where=str(path), hint=hint)
        content = path.read_bytes()
    except FileNotFoundError:
        raise ModelReadError("there is no such file", where=str(path)) from None
    except IsADirectoryError:
        raise ModelReadError("this is a folder, not a model file", where=str(path)) from None
    except OSError as error:
        raise ModelReadError(f"the file cannot be read: {error.strerror or error}", where=str(path)) from error
    except ValueError as error:  # a NUL in the name
        raise ModelReadError(f"the file cannot be read: {error}", where=str(path)) from None
    if not content:
        raise ModelReadError("the file is empty", where=str(path), hint="Copy or export it again.")
    return content


def parse(content: bytes, path: Path) -> onnx.ModelProto:
    """Returns the message that a file holds.

    Raises:
        ModelReadError: The file holds something else, or is truncated.
    """
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError:
        raise ModelReadError(*_verdict(content), where=str(path), hint=_REREAD) from None
    return proto


_REREAD = "Copy, download or export the model again."


def _verdict(content: bytes) -> tuple[str]:
    head = content[:1024]
    if head.startswith(b"version https://git-lfs"):
        return ("this is a Git LFS pointer, not the model itself",)
    if b"\0" not in head and all(byte >= 32 or byte in b"\t\n\r\f" for byte in head):
        return ("this is a text file, not an ONNX model",)
    # A model starts with the field ir_version: one byte of tag, one byte of number.
    return ("the file is truncated",) if content[:1] == b"\x08" else ("this is not an ONNX model",)


def require_model(proto: onnx.ModelProto, path: Path | None) -> None:
    """Refuses messages that parse, but are no complete model: protobuf notices no cut between two fields.

    Raises:
        ModelReadError: Format version, graph or operator sets are missing, or a name is no text.
    """
    where = "model" if path is None else str(path)
    if not proto.ir_version or not proto.HasField("graph"):
        missing = "no graph" if proto.ir_version else "no format version"
        raise ModelReadError(f"this is not a complete ONNX model: it has {missing}", where=where, hint=_REREAD)
    # Before version 3 of the format, a model named no operator sets.
    if proto.ir_version >= 3 and proto.graph.node and not proto.opset_import:
        raise ModelReadError("the file is truncated: it names no operator set", where=where, hint=_REREAD)
    if not proto.graph.output:
        raise ModelReadError("this model has no outputs", where=where, hint=_REREAD)
    # Protobuf gives a string that is no UTF-8 as bytes, and says nothing.
    if damaged := next((name for name in _names(proto.graph) if isinstance(name, bytes)), None):
        shown = damaged.decode("utf-8", "backslashreplace")
        raise ModelReadError(f"the name `{shown}` is no UTF-8 text", where=where, hint=_REREAD)


def _names(graph: onnx.GraphProto) -> Iterator[str | bytes]:
    """Yields what is called by a name in a graph, and in those in it."""
    for port in (*graph.input, *graph.output, *graph.value_info):
        yield port.name
        for dim in port.type.tensor_type.shape.dim:
            yield dim.dim_param
    for tensor in graph.initializer:
        yield tensor.name
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain)
        yield from node.input
        yield from node.output
        yield from (attribute.name for attribute in node.attribute)
        for inner in graphs_of(node):
            yield from _names(inner)
