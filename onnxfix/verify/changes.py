"""In what two nodes that should do the same work are not the same, in words."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from onnxfix.model.taps import Inside, read_weight, read_weights
from onnxfix.verify.blame import Blame, Suspect
from onnxfix.verify.compare import compare
from onnxfix.verify.culprit import shown
from onnxfix.verify.ulps import ulps

if TYPE_CHECKING:
    from onnxfix.convention.route import Array

_LARGEST = 1 << 28
"""Bytes of a weight up to which it is told where it differs; of larger ones only that they do."""


def changes(suspect: Suspect, source: Inside, blame: Blame, weights: Collection[str]) -> Iterator[str]:
    """Yields what is not the same: operator, attributes, and what is read in which place.

    Args:
        suspect: A node of the result and its counterpart.
        source: The source.
        blame: Who knows which values are equal.
        weights: What the node reads that is a weight on both sides.
    """
    node, other = suspect.node, suspect.counterpart
    if other is None:
        return
    if node.op_type != other.op_type:
        yield f"the operator is {node.op_type}, in the source {other.op_type}"
    for key in sorted(node.attributes.keys() | other.attributes.keys()):
        values = [one.attributes.get(key, "not set") for one in (node, other)]
        if values[0] != values[1]:
            yield f"the attribute `{key}` is {values[0]}, in the source {values[1]}"
    if len(node.inputs) != len(other.inputs):
        yield f"it reads {len(node.inputs)} values, in the source {len(other.inputs)}"
    for index, (name, beside) in enumerate(zip(node.inputs, other.inputs, strict=False)):
        if name not in weights and not blame.are_equal(name, beside):
            maker = source.producers.get(beside)
            made = f", made by {shown(maker)}" if maker else ""
            yield f"input {index} is `{name}`, in the source `{beside}`{made}, which is another value"


def weight_changes(suspect: Suspect, result: Inside, source: Inside) -> dict[str, str]:
    """Returns how the weights that a node reads differ from those of its counterpart, by name; empty where they do not.

    Args:
        suspect: A node of the result and its counterpart.
        result: The result.
        source: The source.
    """
    if suspect.counterpart is None:
        return {}
    pairs = {
        name: beside for name, beside in zip(suspect.node.inputs, suspect.counterpart.inputs, strict=False)
        if name in result.weights and beside in source.weights
    }  # fmt: skip
    if not pairs:
        return {}
    have, want = read_weights(result.path, pairs), read_weights(source.path, pairs.values())
    found = {}
    for name, beside in pairs.items():
        one, other = have.get(name), want.get(beside)
        called = f"`{name}`" if name == beside else f"`{name}` (in the source `{beside}`)"
        if one is None or other is None or one == other:
            found[name] = ""
        elif (one.dtype, one.dims) != (other.dtype, other.dims):
            found[name] = (
                f"the weight {called} is {one.dtype}{list(one.dims)}, in the source {other.dtype}{list(other.dims)}"
            )
        elif one.size > _LARGEST:
            found[name] = f"the weight {called} differs"
        else:
            arrays = read_weight(source.path, beside), read_weight(result.path, name)
            found[name] = f"the weight {called} {_difference(*arrays)}"
    return found


def _difference(expected: Array | None, actual: Array | None) -> str:
    if expected is None or actual is None:
        return "differs"
    found = compare(expected, actual, str(expected.dtype))
    if found.worst is None:
        return "differs"
    by = f", {text}" if (text := ulps(expected, actual)) else ""
    place = f"at {list(found.worst.index)} it is" if found.worst.index else "it is"
    count = f" in {found.mismatched} of {expected.size} values" if expected.size > 1 else ""
    return f"differs{count}{by}: {place} {found.worst.actual} instead of {found.worst.expected}"
