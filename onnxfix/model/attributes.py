"""Attributes and constants in plain Python, as far as they are small."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnxfix.model.skeleton import is_weight, is_weight_node

Array = np.ndarray[Any, Any]

Attribute = int | float | str | list[int] | list[float] | list[str] | Array
"""An attribute's value; a tensor is an array."""


def attributes_of(node: onnx.NodeProto) -> dict[str, Attribute]:
    """Returns a node's attributes, without graphs, types, references, and tensors that are weights."""
    values = ((attribute.name, attribute_value(attribute)) for attribute in node.attribute)
    return {name: value for name, value in values if value is not None}


def attribute_value(attribute: onnx.AttributeProto) -> Attribute | None:
    """Returns an attribute's value; None where it is none of plain Python's, or a weight."""
    kinds = onnx.AttributeProto
    if attribute.ref_attr_name:
        return None
    match attribute.type:
        case kinds.INT:
            return attribute.i
        case kinds.FLOAT:
            return attribute.f
        case kinds.STRING:
            return _text(attribute.s)
        case kinds.INTS:
            return list(attribute.ints)
        case kinds.FLOATS:
            return list(attribute.floats)
        case kinds.STRINGS:
            return [_text(entry) for entry in attribute.strings]
        case kinds.TENSOR:
            return tensor_value(attribute.t)
    return None


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")


def tensor_value(tensor: onnx.TensorProto) -> Array | None:
    """Returns a tensor's value; None where it is a weight or cannot be decoded."""
    if is_weight(tensor):
        return None
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError):
        return None


def constant_value(node: onnx.NodeProto) -> Array | None:
    """Returns what a `Constant` node produces; None where it is a weight or no dense tensor."""
    if len(node.attribute) != 1:
        return None
    attribute = node.attribute[0]
    if attribute.type == onnx.AttributeProto.TENSOR and not attribute.ref_attr_name:
        return tensor_value(attribute.t)
    value = None if is_weight_node(node) else attribute_value(attribute)
    if value is None:
        return None
    # The schema (Constant, opset 12): value_int and value_ints are int64, value_float and value_floats float32.
    dtypes = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}
    return np.array(value, dtypes.get(attribute.name, np.object_))
