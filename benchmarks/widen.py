"""Makes a wide Conformer of a narrow one by changing the numbers in the file, so that 6 GB need no 6 GB to be made.

The sizes that follow from the width are unmistakable numbers (42, 14, 28, 84, 336, 798): wherever one stands, as the
dim of a weight or a port, in a shape that is a constant, in an attribute or in metadata, the wider one takes its place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from onnx import numpy_helper

HEADS = 3
NARROW = 42
CONVOLVED = 19  # what two convolutions of stride two leave of 80 features
LARGE = 64  # weights with more elements go to the data file


def widen(source: Path, destination: Path, narrow: int, wide: int, *, is_sparse: bool) -> None:
    """Writes a model whose weights lie in a data file: random ones or, sparse, none at all, which read as zeros."""
    assert narrow == NARROW, "other sizes may be mistaken for numbers that do not follow from the width"
    sizes = {narrow * factor: wide * factor for factor in (1, 2, 8, CONVOLVED)}
    sizes |= {narrow // HEADS: wide // HEADS, 2 * narrow // HEADS: 2 * wide // HEADS}
    proto = onnx.load(source)
    widen_ports(proto, sizes)
    for node in proto.graph.node:
        for attribute in node.attribute:
            widen_attribute(attribute, sizes)
    data_path = destination.with_suffix(".data")
    with data_path.open("wb") as data:
        for tensor in proto.graph.initializer:
            widen_weight(tensor, sizes, data, is_sparse)
    partial = destination.with_suffix(".part")
    partial.write_bytes(proto.SerializeToString(deterministic=True))
    onnx.checker.check_model(partial, full_check=True)
    partial.replace(destination)


def widen_ports(proto: onnx.ModelProto, sizes: Mapping[int, int]) -> None:
    """Changes declared dims, and the numbers in the metadata."""
    for port in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for dim in port.type.tensor_type.shape.dim:
            if dim.HasField("dim_value"):
                dim.dim_value = sizes.get(dim.dim_value, dim.dim_value)
    for entry in proto.metadata_props:
        if entry.value.isdecimal():
            entry.value = str(sizes.get(int(entry.value), entry.value))


def widen_attribute(attribute: onnx.AttributeProto, sizes: Mapping[int, int]) -> None:
    """Changes groups and splits, and constants that are shapes."""
    if attribute.type == onnx.AttributeProto.INT:
        attribute.i = sizes.get(attribute.i, attribute.i)
    elif attribute.type == onnx.AttributeProto.INTS:
        attribute.ints[:] = [sizes.get(number, number) for number in attribute.ints]
    elif attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == onnx.TensorProto.INT64:
        values = numpy_helper.to_array(attribute.t)
        wider = np.vectorize(lambda number: sizes.get(int(number), int(number)), otypes=[np.int64])(values)
        attribute.t.CopyFrom(numpy_helper.from_array(wider, attribute.t.name))


def widen_weight(tensor: onnx.TensorProto, sizes: Mapping[int, int], data: BinaryIO, is_sparse: bool) -> None:
    """Changes the dims of one weight, and moves it to the data file."""
    assert tensor.data_type == onnx.TensorProto.FLOAT, tensor.name
    values = numpy_helper.to_array(tensor)
    dims = [sizes.get(dim, dim) for dim in tensor.dims]
    if math.prod(dims) <= LARGE:
        return
    tensor.dims[:] = dims
    tensor.ClearField("raw_data")
    length = 4 * math.prod(dims)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", Path(data.name).name), ("offset", data.tell()), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    if is_sparse:
        data.truncate(data.tell() + length)
        data.seek(length, 1)
    else:
        random = np.random.default_rng(len(tensor.name))
        data.write(wider_values(values, dims, random).tobytes())


def wider_values(values: np.ndarray, dims: list[int], random: np.random.Generator) -> np.ndarray:
    """Gives values that leave the network as lively as it was: vectors repeat, matrices are drawn anew."""
    if len(dims) == 1:
        return np.resize(values, dims)
    scale = values.std() * (values.size / math.prod(dims)) ** 0.25
    return random.standard_normal(dims, dtype=np.float32) * np.float32(scale)
