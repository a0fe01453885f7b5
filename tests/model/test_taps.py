"""What lies inside a model, and copies of it that put out inner values."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxfix.errors import ModelReadError
from onnxfix.model.taps import look_inside, read_weight, read_weights, tapped

LARGE = np.arange(400, dtype=np.float32).reshape(20, 20)


@pytest.fixture
def model(tmp_path) -> Path:
    """`y = (x @ w + 2) + v`, with `w` in a data file and `v` as bfloat16 in a `Constant`."""
    stored = numpy_helper.from_array(LARGE, "w")
    (tmp_path / "model.data").write_bytes(b"\0" * 64 + stored.raw_data)
    stored.ClearField("raw_data")
    stored.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "model.data"), ("offset", "64"), ("length", str(LARGE.nbytes))):
        stored.external_data.add(key=key, value=value)
    small = helper.make_tensor("v", TensorProto.BFLOAT16, [1], [0.5])
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"], "product"),
            helper.make_node("Add", ["a", "two"], ["b"], "sum"),
            helper.make_node("Constant", [], ["v"], value=small),
            helper.make_node("Cast", ["v"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("Clip", ["b", "", "wide"], ["y"]),
        ],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 20])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 20])],
        [stored, helper.make_tensor("two", TensorProto.FLOAT, [], [2.0])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def outputs(path: Path) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    arrays = session.run(None, {"x": np.ones((1, 20), np.float32)})
    return {port.name: array for port, array in zip(session.get_outputs(), arrays, strict=True)}


# ---------------------------------------------------------------- copies


def test_a_tapped_model_puts_out_inner_values_and_is_gone_afterwards(model):
    before = {path: path.read_bytes() for path in model.parent.iterdir()}
    plain = outputs(model)

    with tapped(model, ["b", "a", "b", "y"]) as copy:
        assert copy.parent == model.parent
        # The weights are shared, not copied.
        assert sum(path.stat().st_size for path in model.parent.iterdir()) < 2 * sum(map(len, before.values()))
        fetched = outputs(copy)

    assert list(fetched) == ["y", "b", "a"]
    np.testing.assert_array_equal(fetched["y"], plain["y"])
    np.testing.assert_array_equal(fetched["a"], LARGE.sum(0, keepdims=True))
    np.testing.assert_array_equal(fetched["b"], fetched["a"] + 2)
    assert {path: path.read_bytes() for path in model.parent.iterdir()} == before


def test_a_tapped_model_is_gone_after_an_error_too(model):
    before = set(model.parent.iterdir())

    with pytest.raises(KeyboardInterrupt), tapped(model, ["a"]):
        raise KeyboardInterrupt

    assert set(model.parent.iterdir()) == before


def test_where_a_folder_cannot_be_written_the_copy_stands_elsewhere(model, monkeypatch):
    # Who runs tests as root may write everywhere.
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))

    with tapped(model, ["a"]) as copy:
        assert copy.parent != model.parent
        folder = copy.parent
        assert outputs(copy)["a"].shape == (1, 20)

    assert not folder.exists()


def test_a_model_without_data_files_leaves_its_folder_alone(tmp_path):
    path = tmp_path / "x.onnx"
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Abs", ["a"], ["y"])], "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 20])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 20])],
    )  # fmt: skip
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )

    with tapped(path, ["a"]) as copy:
        assert copy.parent != tmp_path
        assert list(outputs(copy)) == ["y", "a"]


def test_a_file_that_is_no_model_is_a_read_error(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"text")

    with pytest.raises(ModelReadError, match="not an ONNX model"), tapped(tmp_path / "x.onnx", ["a"]):
        raise AssertionError


# ---------------------------------------------------------------- nodes


def test_nodes_are_read_with_what_they_read_and_make(model):
    inside = look_inside(model)

    assert [one.op_type for one in inside.nodes] == ["MatMul", "Add", "Cast", "Clip"]
    clip = inside.nodes[3]
    assert (clip.inputs, clip.reads, clip.outputs) == (("b", "", "wide"), ("b", "wide"), ("y",))
    assert (inside.nodes[0].title, clip.title) == ("product", "y")
    assert inside.nodes[2].attributes == {"to": "1"}
    assert inside.producers["b"].name == "sum"
    assert [one.name for one in inside.readers["a"]] == ["sum"]
    assert inside.weights == {"w", "two", "v"}


def test_small_constants_are_known_and_large_ones_not(model):
    constants = look_inside(model).constants

    assert sorted(constants) == ["two", "v"]
    assert constants["two"] == 2
    assert (constants["v"].dtype, constants["v"].tolist()) == (np.uint16, [0x3F00])


def branching(factor: float, names: tuple[str, str]) -> onnx.GraphProto:
    return helper.make_graph(
        [helper.make_node("Mul", ["x", names[0]], [names[1]])], "then", [],
        [helper.make_tensor_value_info(names[1], TensorProto.FLOAT, [1])],
        [helper.make_tensor(names[0], TensorProto.FLOAT, [], [factor])],
    )  # fmt: skip


def test_nested_graphs_differ_by_what_they_compute_not_by_names(tmp_path):
    texts = []
    for factor, names in ((2.0, ("a", "b")), (2.0, ("c", "d")), (3.0, ("a", "b"))):
        branches = {"then_branch": branching(factor, names), "else_branch": branching(1, names)}
        graph = helper.make_graph(
            [helper.make_node("If", ["yes"], ["y"], **branches)],
            "graph",
            [
                helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
                helper.make_tensor_value_info("yes", TensorProto.BOOL, []),
            ],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        )  # fmt: skip
        path = tmp_path / "x.onnx"
        path.write_bytes(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
        )
        (one,) = look_inside(path).nodes
        assert (one.inputs, one.captures) == (("yes",), ("x",))
        texts.append(one.attributes)

    assert texts[0] == texts[1]
    assert texts[0]["then_branch"] != texts[2]["then_branch"]
    assert texts[0]["else_branch"] == texts[2]["else_branch"]


# ---------------------------------------------------------------- weights


def test_weights_are_told_apart_by_their_bytes(model):
    weights = read_weights(model, ["w", "two", "v", "a"])

    assert sorted(weights) == ["two", "v", "w"]
    assert (weights["w"].dtype, weights["w"].dims, weights["w"].size) == ("float32", (20, 20), 1600)
    assert (weights["v"].dtype, weights["v"].dims) == ("bfloat16", (1,))

    data = bytearray((model.parent / "model.data").read_bytes())
    data[0] ^= 1  # in front of the weight
    (model.parent / "model.data").write_bytes(data)
    assert read_weights(model, ["w"])["w"] == weights["w"]
    data[-1] ^= 1
    (model.parent / "model.data").write_bytes(data)
    assert read_weights(model, ["w"])["w"].digest != weights["w"].digest


def test_the_same_weight_has_one_digest_wherever_it_lies(model):
    proto = onnx.load(model)
    inline = model.with_name("inline.onnx")
    inline.write_bytes(proto.SerializeToString())
    typed = onnx.load(model)
    tensor = typed.graph.initializer[0]
    tensor.CopyFrom(helper.make_tensor("w", TensorProto.FLOAT, [20, 20], LARGE.ravel().tolist()))
    as_floats = model.with_name("typed.onnx")
    as_floats.write_bytes(typed.SerializeToString())

    assert len({read_weights(path, ["w"])["w"] for path in (model, inline, as_floats)}) == 1


def test_a_glance_at_large_weights_tells_them_apart(tmp_path):
    paths = []
    for name, value in (("one", 1.0), ("two", 2.0), ("almost", 1.0)):
        weight = np.full(1 << 21, value, np.float32)
        weight[(1 << 16) + 1] += name == "almost"  # right behind the first block
        paths.append(tmp_path / f"{name}.onnx")
        graph = helper.make_graph(
            [helper.make_node("Add", ["x", "w"], ["y"])], "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1 << 21])], [numpy_helper.from_array(weight, "w")],
        )  # fmt: skip
        paths[-1].write_bytes(helper.make_model(graph).SerializeToString())

    glances = [read_weights(path, ["w"], whole=False)["w"].digest for path in paths]
    digests = [read_weights(path, ["w"])["w"].digest for path in paths]

    assert glances[0] != glances[1]
    assert glances[0] == glances[2]
    assert len(set(digests)) == 3


def test_the_values_of_a_weight_can_be_read(model):
    np.testing.assert_array_equal(read_weight(model, "w"), LARGE)
    value = read_weight(model, "v")
    assert value is not None
    assert value.dtype == np.uint16
    assert read_weight(model, "a") is None
