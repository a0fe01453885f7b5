"""What is read, what is refused, and in which words."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxfix.convention.signature import Port
from onnxfix.errors import DataFileError, ModelReadError
from onnxfix.model.model import Model
from tests.model.files import external, parsed, sum_model, tensor, with_data, written

ADD = parsed("g (float[n, 2] x, int64 i) => (float[n, 2] y) { y = Add(x, x) }")


def cut(field: str) -> bytes:
    """A model that ends before one of its fields, where protobuf notices nothing."""
    model = onnx.ModelProto()
    model.CopyFrom(ADD)
    model.ClearField(field)
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("content", "message"),
    {
        "empty": (b"", "the file is empty"),
        "text": (b"to be exported\n", "this is a text file"),
        "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "this is a Git LFS pointer"),
        "another format": (b"PK\x03\x04\x00\x00", "this is not an ONNX model"),
        "cut within the graph": (ADD.SerializeToString()[:40], "the file is truncated"),
        "cut before the graph": (cut("graph"), "it has no graph"),
        "cut before the operator sets": (cut("opset_import"), "the file is truncated: it names no operator set"),
        "no format version": (cut("ir_version"), "it has no format version"),
        "another message": (onnx.TensorProto(dims=[1, 2]).SerializeToString(), "not a"),
    }.values(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelReadError, match=message) as caught:
        Model.load(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("name", ["x", "y", "n", "Add", "w", "inner", "axis"])
def test_a_name_that_is_no_text_is_refused(tmp_path: Path, name: str) -> None:
    """Protobuf gives such a string as bytes, which no name is expected to be."""
    model = onnx.ModelProto()
    model.CopyFrom(ADD)
    model.graph.initializer.append(tensor("w", np.float32([1])))
    model.graph.node[0].attribute.append(helper.make_attribute("axis", 0))
    nested = model.graph.node.add(op_type="If", output=["unused"])
    nested.attribute.append(helper.make_attribute("then_branch", onnx.GraphProto(node=[onnx.NodeProto(name="inner")])))
    content, path = model.SerializeToString(), tmp_path / "model.onnx"
    damaged = b"\xff" * len(name)
    field = bytes([len(name)])
    assert field + name.encode() in content
    path.write_bytes(content.replace(field + name.encode(), field + damaged))
    with pytest.raises(ModelReadError, match=r"the name `(\\xff)+` is no UTF-8 text") as caught:
        Model.load(path)
    assert caught.value.where == str(path)


def test_metadata_that_is_no_text_stays_and_is_not_looked_at(tmp_path: Path) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(ADD)
    helper.set_model_props(model, {"blob": "BLOB", "head": "4"})
    content, path = model.SerializeToString().replace(b"BLOB", b"\xff\xfe\x80\0"), tmp_path / "model.onnx"
    path.write_bytes(content)
    loaded = Model.load(path)
    assert loaded.metadata == {"head": "4"}
    loaded.set_metadata("head", "8")
    loaded.save(tmp_path / "saved.onnx")
    saved = (tmp_path / "saved.onnx").read_bytes()
    assert b"\xff\xfe\x80\0" in saved
    assert Model.load(tmp_path / "saved.onnx").metadata == {"head": "8"}


def test_every_cut_of_a_model_is_noticed(tmp_path: Path) -> None:
    path, whole = tmp_path / "model.onnx", ADD.SerializeToString()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelReadError):
            Model.load(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelReadError, match="there is no such file"):
        Model.load(tmp_path / "model.onnx")
    with pytest.raises(ModelReadError, match="this is a folder"):
        Model.load(tmp_path)
    with pytest.raises(ModelReadError, match="embedded null byte"):
        Model.load("a\0b.onnx")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "gone.data"}, "the data file `gone.data` of tensor `w` is missing"),
        ({"location": "short.data"}, "`short.data` is too short: tensor `w` ends at byte 16, the file at byte 8"),
        ({"location": "full.data", "offset": 4, "length": 16}, "ends at byte 20, the file at byte 16"),
        ({"location": "/etc/passwd"}, "tensor `w` lies in `/etc/passwd`, outside the model's folder"),
        ({"location": "C:\\w.data"}, "outside the model's folder"),
        ({"location": "../full.data"}, "tensor `w` lies in `../full.data`, outside the model's folder"),
        ({"location": "sub/../../full.data"}, "outside the model's folder"),
        ({"location": "soft.data"}, "symbolic link that leaves the model's folder"),
        ({"location": "hard.data"}, "has 2 hard links"),
        ({"location": "sub"}, "no regular file"),
        ({"location": "full.data", "offset": "-1"}, "offset `-1`, which is no number of bytes"),
        ({"location": "full.data", "length": "many"}, "length `many`, which is no number of bytes"),
        ({"offset": 0}, "has external data, but names no file"),
    ],
    ids=str,
)
def test_data_that_no_runtime_would_read_is_refused(tmp_path: Path, entries: dict[str, object], message: str) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "full.data").write_bytes(bytes(16))
    (folder / "full.data").write_bytes(bytes(16))
    (folder / "short.data").write_bytes(bytes(8))
    (folder / "soft.data").symlink_to(tmp_path / "full.data")
    (folder / "once.data").write_bytes(bytes(16))
    os.link(folder / "once.data", folder / "hard.data")
    path = written(folder / "model.onnx", sum_model(external("w", [4], **entries)))
    with pytest.raises(DataFileError) as caught:
        Model.load(path)
    assert message in caught.value.message
    assert caught.value.where == str(path)


def in_initializer(tensor: onnx.TensorProto) -> onnx.ModelProto:
    return sum_model(tensor)


def in_attribute(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = parsed("g () => (float[4] y) { y = Constant <value = float[1] {0}> () }")
    model.graph.node[0].attribute[0].t.CopyFrom(tensor)
    return model


def in_branch(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = parsed(
        "g (bool c) => (float[4] y) { y = If (c) <then_branch = t () => (float[4] a) { a = Identity(w) }, "
        "else_branch = e () => (float[4] b) { b = Identity(w) }> }"
    )
    model.graph.node[0].attribute[1].g.initializer.append(tensor)
    return model


def in_function(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = parsed("g () => (float[4] y) { y = local.f() }")
    node = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
    model.functions.append(onnx.helper.make_function("local", "f", [], ["c"], [node], [model.opset_import[0]]))
    return model


def in_sparse(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = parsed("g (float[4] x) => (float[4] y) { y = Add(x, w) }")
    model.graph.sparse_initializer.add(values=tensor, dims=[4])
    return model


def in_training(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = parsed("g (float[4] x) => (float[4] y) { y = Add(x, x) }")
    model.training_info.add().algorithm.initializer.append(tensor)
    return model


@pytest.mark.parametrize(
    "place", [in_initializer, in_attribute, in_branch, in_function, in_sparse, in_training], ids=lambda f: f.__name__
)
def test_data_files_are_found_wherever_a_tensor_can_be(
    tmp_path: Path, place: Callable[[onnx.TensorProto], onnx.ModelProto]
) -> None:
    path = written(tmp_path / "model.onnx", place(external("w", [4], location="w.data")))
    with pytest.raises(DataFileError, match=r"`w\.data` of tensor `w` is missing"):
        Model.load(path)
    (tmp_path / "w.data").write_bytes(bytes(16))
    assert Model.load(path).external_files() == (("w.data", 16),)


def test_a_model_is_read_with_all_that_its_callers_see(tmp_path: Path) -> None:
    proto = parsed("g (float[n, 2] x, bfloat16[?] h, string s, seq(int64) q) => (float[n, 2] y) { y = Add(x, w) }")
    proto.graph.initializer.append(tensor("w", [1.0, 2.0]))
    proto.graph.input.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.DOUBLE, [2]))
    onnx.helper.set_model_props(proto, {"b": "1", "a": "2"})
    model = Model.load(written(tmp_path / "model.onnx", proto))
    signature = model.signature()
    assert signature.inputs == (
        Port("x", "float32", ("n", 2)),
        Port("h", "bfloat16", (None,)),
        Port("s", "string", ()),
        Port("q", "sequence", None),
    )
    assert signature.outputs == (Port("y", "float32", ("n", 2)),)
    assert list(signature.metadata.items()) == [("b", "1"), ("a", "2")]
    assert (model.opset, model.ir_version, model.external_files()) == (17, 8, ())
    assert model.source_sha256 == hashlib.sha256((tmp_path / "model.onnx").read_bytes()).hexdigest()


def test_shared_spans_of_a_data_file_count_once(tmp_path: Path) -> None:
    (tmp_path / "w.data").write_bytes(bytes(64))
    tied = [external(name, [4], location="w.data", offset=32, length=16) for name in "abc"]
    path = written(tmp_path / "model.onnx", sum_model(*tied))
    assert Model.load(path).external_files() == (("w.data", 16),)


def test_a_model_from_memory_needs_a_folder_for_its_data(tmp_path: Path) -> None:
    proto = onnx.load(with_data(tmp_path), load_external_data=False)
    with pytest.raises(DataFileError, match="in which folder is not known"):
        Model.from_proto(proto)
    assert Model.from_proto(proto, tmp_path).external_files() == (("model.data", 32),)


def test_metadata_keeps_its_order() -> None:
    model = Model.from_proto(parsed("g (float x) => (float y) { y = Add(x, x) }"))
    for key in ("b", "a", "c"):
        model.set_metadata(key, "1")
    model.set_metadata("a", "2")
    assert list(model.metadata.items()) == [("b", "1"), ("a", "2"), ("c", "1")]
    model.remove_metadata("b")
    model.remove_metadata("unknown")
    assert list(model.metadata.items()) == [("a", "2"), ("c", "1")]
