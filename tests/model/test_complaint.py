"""What onnx's checker says of a result is held against what it says of the source."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest

from onnxfix.errors import ModelError, RewriteError
from onnxfix.model.model import Model
from tests.model.files import parsed

Mutation = Callable[[onnx.ModelProto], object]

BASE = """
g (float[2, 3] x, float[2, 3] past) => (float[2, 3] y, float[2, 3] present)
{ a = Add (x, past) y = Relu (a) present = Neg (a) }
"""


def unknown(operator: str) -> Mutation:
    return lambda model: model.graph.node.add(op_type=operator, input=["x"], output=["unused"])


def custom(model: onnx.ModelProto) -> None:
    model.graph.node.add(op_type="Mine", domain="my.domain", input=["x"], output=["unused"])
    model.opset_import.add(domain="my.domain", version=1)


def nested(operator: str) -> Mutation:
    def mutate(model: onnx.ModelProto) -> None:
        branch = onnx.helper.make_graph(
            [onnx.helper.make_node(operator, ["x"], ["inner"])],
            "b",
            [],
            [onnx.helper.make_empty_tensor_value_info("inner")],
        )
        model.graph.initializer.append(onnx.helper.make_tensor("yes", onnx.TensorProto.BOOL, [], [True]))
        model.graph.node.append(onnx.helper.make_node("If", ["yes"], ["u"], then_branch=branch, else_branch=branch))

    return mutate


def output_dim(port: int, size: int) -> Mutation:
    def mutate(model: onnx.ModelProto) -> None:
        model.graph.output[port].type.tensor_type.shape.dim[1].dim_value = size

    return mutate


def untyped(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = 0


def without_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].domain = "my.domain"


def undefined_input(model: onnx.ModelProto) -> None:
    model.graph.node[1].input[0] = "nowhere"


def wrong_attribute(model: onnx.ModelProto) -> None:
    model.graph.node[2].attribute.add(name="axis", type=onnx.AttributeProto.INT, i=1)


def renamed(model: onnx.ModelProto) -> None:
    model.graph.output[1].name = model.graph.node[2].output[0] = "new_present"


def turned(model: onnx.ModelProto) -> None:
    del model.graph.node[0]
    model.graph.node.insert(0, onnx.helper.make_node("Add", ["past", "x"], ["a"]))


def both(*mutations: Mutation) -> Mutation:
    return lambda model: [mutate(model) for mutate in mutations]


def nothing(model: onnx.ModelProto) -> None:
    pass


SAME = {
    "nothing": (nothing, turned),
    "an operator of ONNX Runtime in the default domain": (unknown("SkipLayerNormalization"), turned),
    "one of them fewer": (both(unknown("A"), unknown("B")), unknown("B")),
    "in a branch": (nested("GroupQueryAttention"), both(nested("GroupQueryAttention"), turned)),
    "an operator of a domain of its own": (custom, both(custom, turned)),
    "an input without a type": (untyped, both(untyped, turned)),
    "no operator set": (without_opset, both(without_opset, turned)),
    "a wrong dim, under another name": (output_dim(1, 7), both(output_dim(1, 7), renamed)),
    "a value that is nowhere": (undefined_input, both(undefined_input, renamed)),
}
OTHER = {
    "where there was nothing": (nothing, undefined_input, "nowhere", "this is one of onnxfix"),
    "another operator": (unknown("A"), both(unknown("A"), unknown("B")), "No Op registered for B", "not valid either"),
    "a value that is nowhere": (unknown("A"), both(unknown("A"), undefined_input), "nowhere", "registered for A"),
    "in a branch": (unknown("A"), nested("B"), "No Op registered for B", "No Op registered for A"),
    "an attribute": (output_dim(0, 7), wrong_attribute, "Unrecognized attribute: axis", "not valid either"),
    "an attribute besides": (without_opset, both(without_opset, wrong_attribute), "attribute: axis", "No opset import"),
    "another dim": (output_dim(0, 7), both(output_dim(0, 7), output_dim(1, 7)), "(op_type:Neg)", "(op_type:Relu)"),
    "another size": (output_dim(0, 7), output_dim(0, 8), "(3) vs (8)", "(3) vs (7)"),
}  # fmt: skip


def made(mutate: Mutation) -> Model:
    proto = parsed(BASE)
    mutate(proto)
    return Model(proto)


@pytest.mark.parametrize("case", SAME)
def test_what_the_source_is_guilty_of_the_result_may_be(case: str) -> None:
    source, result = SAME[case]
    made(result).require_no_new_complaint(lambda: made(source))


def test_the_source_is_read_again_only_where_there_is_a_complaint() -> None:
    def gone() -> Model:
        raise ModelError("the source is gone")

    made(nothing).require_no_new_complaint(gone)
    with pytest.raises(ModelError):
        made(without_opset).require_no_new_complaint(gone)


@pytest.mark.parametrize("case", OTHER)
def test_what_is_wrong_in_another_way_is_refused(case: str) -> None:
    source, result, says, hint = OTHER[case]
    with pytest.raises(RewriteError) as caught:
        made(result).require_no_new_complaint(lambda: made(source))
    assert says in caught.value.message
    assert hint in caught.value.hint
    assert ("report it" in caught.value.hint) == (source is nothing)


@pytest.mark.parametrize("mutate", [nothing, unknown("A"), nested("A"), without_opset])
def test_asking_changes_nothing(mutate: Mutation) -> None:
    model = made(mutate)
    before = model.proto.SerializeToString()
    model.complaints()
    assert model.proto.SerializeToString() == before
