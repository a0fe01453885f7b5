"""Ports between a model file and the convention floor."""

from __future__ import annotations

import functools

import onnx

from onnxfix.convention.signature import Dim, Port


def port_of(value: onnx.ValueInfoProto) -> Port:
    """Reads a port from the file's description of it."""
    return Port(value.name, dtype_of(value.type), dims_of(value.type))


def dtype_of(kind: onnx.TypeProto) -> str:
    """Returns the element type as `Port.dtype` names it, or the kind of what is no tensor."""
    field = kind.WhichOneof("value")
    if field == "tensor_type":
        return dtype_name(kind.tensor_type.elem_type)
    return (field or "undefined").removesuffix("_type")


def dims_of(kind: onnx.TypeProto) -> tuple[Dim, ...] | None:
    """Returns the dims of a tensor; None where there is no rank, or no tensor."""
    if kind.WhichOneof("value") != "tensor_type" or not kind.tensor_type.HasField("shape"):
        return None
    return tuple([_dim(dim) for dim in kind.tensor_type.shape.dim])


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    size: int = dim.dim_value
    if size > 0:
        return size
    if dim.HasField("dim_value"):
        # Some exporters write -1 for a size that they do not know.
        return dim.dim_value if dim.dim_value >= 0 else None
    return dim.dim_param or None


@functools.cache
def dtype_name(elem_type: int) -> str:
    """Returns numpy's name of an element type, `string` for strings."""
    if elem_type == onnx.TensorProto.STRING:
        return "string"
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(elem_type).name)
    except KeyError:
        return "undefined"


@functools.cache
def elem_type_of(dtype: str) -> int:
    """Returns the element type that `dtype_name` calls by this name.

    Raises:
        KeyError: There is none.
    """
    names = {dtype_name(number): number for number in onnx.TensorProto.DataType.values() if number}
    return int(names[dtype])


@functools.cache
def item_size(dtype: str) -> int:
    """Returns the bytes that one element takes in memory."""
    return int(onnx.helper.tensor_dtype_to_np_dtype(elem_type_of(dtype)).itemsize)


def describe(value: onnx.ValueInfoProto, port: Port) -> None:
    """Writes a port into the file's description of it; what stays the same keeps what else the file says of it.

    Raises:
        KeyError: The port's dtype changes into one that is none of a tensor.
    """
    value.name = port.name
    if dtype_of(value.type) != port.dtype:
        value.type.tensor_type.elem_type = elem_type_of(port.dtype)
    if dims_of(value.type) != port.dims:
        set_dims(value.type.tensor_type, port.dims)


def set_dims(tensor: onnx.TypeProto.Tensor, dims: tuple[Dim, ...] | None) -> None:
    """Writes dims, None for an unknown rank; those that stay the same keep what else the file says of them."""
    if dims is None:
        tensor.ClearField("shape")
        return
    shape = tensor.shape
    shape.SetInParent()
    if not shape.dim:
        for dim in dims:
            set_dim(shape.dim.add(), dim)
        return
    while len(shape.dim) > len(dims):
        del shape.dim[-1]
    while len(shape.dim) < len(dims):
        shape.dim.add()
    for written, dim in zip(shape.dim, dims, strict=True):
        if _dim(written) != dim:
            set_dim(written, dim)


def set_dim(written: onnx.TensorShapeProto.Dimension, dim: Dim) -> None:
    """Writes one dim, None for one that is not known."""
    if isinstance(dim, int):
        written.dim_value = dim
    elif isinstance(dim, str):
        written.dim_param = dim
    else:
        written.ClearField("value")
