"""External data: where a model's tensors lie in other files, and whether these files may be believed.

A tensor with `data_location = EXTERNAL` names a file relative to the model's folder, an offset and a length (ONNX,
`docs/ExternalData.md`). No value is ever read here: only names and sizes.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath

import onnx

from onnxfix.errors import DataFileError

_GRAPH, _GRAPHS = onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS


@dataclass(frozen=True)
class ExternalTensor:
    """One tensor whose values lie in another file.

    Attributes:
        name: The tensor's name; empty for tensors in attributes that have none.
        location: The file, relative to the model's folder, as the model writes it.
        offset: The first byte in the file.
        length: The number of bytes; None where neither the entry nor the element type says.
        proto: The message itself.
    """

    name: str
    location: str
    offset: int
    length: int | None
    proto: onnx.TensorProto

    @property
    def end(self) -> int:
        """The first byte after the tensor."""
        return self.offset + (self.length or 0)


def graphs_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yields the graphs that a node carries as attributes (`If`, `Loop`, `Scan`), not those nested deeper."""
    for attribute in node.attribute:
        kind = attribute.type
        if kind == _GRAPH:
            yield attribute.g
        elif kind == _GRAPHS:
            yield from attribute.graphs


def tensors_of(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yields every tensor that a model stores: of the graph, its subgraphs, functions and training graphs."""
    yield from _tensors_of_graph(model.graph)
    for function in model.functions:
        yield from _tensors_of_nodes(function.node)
    for training in model.training_info:
        yield from _tensors_of_graph(training.initialization)
        yield from _tensors_of_graph(training.algorithm)


def _tensors_of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _tensors_of_nodes(graph.node)


def _tensors_of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            elif attribute.type == onnx.AttributeProto.TENSORS:
                yield from attribute.tensors
            elif attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
                yield attribute.sparse_tensor.values
                yield attribute.sparse_tensor.indices
        for graph in graphs_of(node):
            yield from _tensors_of_graph(graph)


def is_external(tensor: onnx.TensorProto) -> bool:
    """Says whether the tensor's values lie in another file."""
    return tensor.data_location == onnx.TensorProto.EXTERNAL


def external_tensors(model: onnx.ModelProto) -> Iterator[ExternalTensor]:
    """Yields every tensor of the model that lies in another file.

    Raises:
        DataFileError: An entry names no file, or an offset or length that is no size.
    """
    return (_entry(tensor) for tensor in tensors_of(model) if is_external(tensor))


def _entry(tensor: onnx.TensorProto) -> ExternalTensor:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if not location:
        raise DataFileError(
            f"tensor `{tensor.name}` has external data, but names no file",
            hint="The model file is damaged: export it again.",
        )
    offset = _size(tensor, "offset", entries.get("offset", "0"))
    length = _size(tensor, "length", entries["length"]) if "length" in entries else tensor_bytes(tensor)
    return ExternalTensor(tensor.name, location, offset, length, tensor)


def _size(tensor: onnx.TensorProto, key: str, text: str) -> int:
    # int() would also take "1_0", "+1" and blanks, which no runtime does.
    if text.isascii() and text.isdigit():
        return int(text)
    raise DataFileError(
        f"tensor `{tensor.name}` has external data with {key} `{text}`, which is no number of bytes",
        hint="The model file is damaged: export it again.",
    )


_BITS: dict[int, int] = {
    onnx.TensorProto.COMPLEX128: 128,
    **dict.fromkeys(
        (onnx.TensorProto.DOUBLE, onnx.TensorProto.INT64, onnx.TensorProto.UINT64, onnx.TensorProto.COMPLEX64), 64
    ),
    **dict.fromkeys((onnx.TensorProto.FLOAT, onnx.TensorProto.INT32, onnx.TensorProto.UINT32), 32),
    **dict.fromkeys(
        (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.INT16, onnx.TensorProto.UINT16), 16
    ),
    **dict.fromkeys((onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.BOOL), 8),
}


def tensor_bytes(tensor: onnx.TensorProto) -> int | None:
    """Returns how many bytes a tensor's values take as raw data; None for strings and for types unknown here."""
    return raw_bytes(tensor.data_type, tensor.dims)


def raw_bytes(elem_type: int, dims: Iterable[int]) -> int | None:
    """Returns how many bytes values of an element type take as raw data; None for strings and unknown types."""
    bits = _bits_of(elem_type)
    return None if bits is None else (prod(dims) * bits + 7) // 8


@functools.cache
def _bits_of(elem_type: int) -> int | None:
    name = onnx.TensorProto.DataType.Name(elem_type) if elem_type in onnx.TensorProto.DataType.values() else ""
    return _BITS.get(elem_type) or next((bits for prefix, bits in _NARROW if name.startswith(prefix)), None)


# By name, since which of these types exist depends on onnx's release. The longer prefixes come first.
_NARROW = (("FLOAT8", 8), ("FLOAT4", 4), ("FLOAT6", 6), ("INT4", 4), ("UINT4", 4), ("INT2", 2), ("UINT2", 2))


def files_used(tensors: Iterable[ExternalTensor]) -> tuple[tuple[str, int], ...]:
    """Returns each data file with the number of its bytes that tensors use, sorted by location."""
    spans: dict[str, set[tuple[int, int]]] = {}
    for tensor in tensors:
        # Two tensors may share one span (tied weights): it is counted once.
        spans.setdefault(tensor.location, set()).add((tensor.offset, tensor.end))
    return tuple((location, sum(end - start for start, end in spans[location])) for location in sorted(spans))


def require_inside(location: str, where: str, tensor: str) -> None:
    """Refuses a location that leaves the model's folder.

    Raises:
        DataFileError: The location is absolute or climbs with `..`.
    """
    parts = PurePosixPath(location.replace("\\", "/")).parts
    absolute = location.startswith(("/", "\\")) or (len(location) > 1 and location[1] == ":")
    if not absolute and ".." not in parts and "\0" not in location:
        return
    raise DataFileError(
        f"tensor `{tensor}` lies in `{location}`, outside the model's folder",
        where=where,
        hint="Move the data file beside the model and let the model name it without `..` or an absolute path: "
        "no runtime reads data from elsewhere.",
    )


def require_data_files(tensors: Iterable[ExternalTensor], folder: Path, where: str) -> None:
    """Checks that every tensor's bytes exist in a file of the model's folder.

    Raises:
        DataFileError: A file is missing, too short, no regular file, hard-linked, or outside the folder.
    """
    longest: dict[str, ExternalTensor] = {}
    for tensor in tensors:
        known = longest.get(tensor.location)
        if known is None or tensor.end > known.end:
            longest[tensor.location] = tensor
    for location in sorted(longest):
        require_inside(location, where, longest[location].name)
        _require_file(longest[location], folder, where)


def _require_file(last: ExternalTensor, folder: Path, where: str) -> None:
    path = folder / last.location
    try:
        info = path.stat()
        real = path.resolve(strict=True)
    except FileNotFoundError:
        raise DataFileError(
            f"the data file `{last.location}` of tensor `{last.name}` is missing",
            where=where,
            hint=f"Put it into `{folder}`: it belongs to the model and must be copied along with it.",
        ) from None
    except (OSError, RuntimeError) as error:
        raise DataFileError(
            f"the data file `{last.location}` of tensor `{last.name}` cannot be read: {error}", where=where
        ) from error
    if not real.is_relative_to(folder.resolve()):
        raise DataFileError(
            f"the data file `{last.location}` of tensor `{last.name}` is a symbolic link that leaves the model's "
            f"folder: it points at `{real}`",
            where=where,
            hint="Copy model and data file into one folder, following the links: `cp -L`.",
        )
    if not stat.S_ISREG(info.st_mode):
        raise DataFileError(f"the data file `{last.location}` of tensor `{last.name}` is no regular file", where=where)
    if info.st_nlink > 1:
        raise DataFileError(
            f"the data file `{last.location}` of tensor `{last.name}` has {info.st_nlink} hard links",
            where=where,
            hint="onnx and ONNX Runtime refuse hard-linked data: copy the file, and let the copy take its name.",
        )
    if info.st_size < last.end:
        raise DataFileError(
            f"the data file `{last.location}` is too short: tensor `{last.name}` ends at byte {last.end}, the file at "
            f"byte {info.st_size}",
            where=where,
            hint="The file is truncated, or belongs to another model: copy it again.",
        )
    if not os.access(path, os.R_OK):
        raise DataFileError(f"the data file `{last.location}` may not be read", where=where)
