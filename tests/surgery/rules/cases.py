"""Rewriting as tables: one case a line, each run in onnxruntime with and without cancelling, at several sizes.

A case is the body of a graph in ONNX's text syntax. Constants are written by their content: `v0_2` is the 1-D int64
constant `[0, 2]`, `vm1` is `[-1]`, `vmax` the end of an axis, `s1` the scalar 1, `vnone` the empty list; `wv1` and
`ws1` are int32. They are stored as initializers, and as `Constant` nodes in a second run. Outputs are `y`, `y1`, ...,
and the present caches, where the boundary has some.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

from onnxfix.convention.binding import bind
from onnxfix.convention.convention import convention_from_sentences
from onnxfix.convention.plan import Plan, make_plan
from onnxfix.model.model import Model
from onnxfix.surgery.movement import is_movement
from onnxfix.surgery.rewrite import SurgeryReport, rewrite

Arrays: TypeAlias = dict[str, np.ndarray]

SIZES = ({"B": 3, "T": 5, "U": 5}, {"B": 2, "T": 9, "U": 6}, {"B": 1, "T": 4, "U": 2}, {"B": 2, "T": 0, "U": 9})
"""What symbolic dims are when a case is run. The source may fail at all but the first; the result may not differ.

Only `T` becomes 0: onnxruntime concatenates an empty tensor of another shape without complaint, and yields anything.
"""
MAX = 2**63 - 1
_CONSTANT = re.compile(r"\b(w?)([vs])(none|(?:m?\d+|max)(?:_(?:m?\d+|max))*)\b")
_OUTPUT = re.compile(r"\b(y\d*)\b(?=[ ,\w]*=)")


@dataclass(frozen=True)
class Boundary:
    """Old ports and what they become."""

    inputs: str
    source: str
    target: str
    present: str = ""


BOUNDARIES = {
    # No cache: a case brings its own inputs.
    "": Boundary("", "", ""),
    # Two states in one tensor, as Silero's; each becomes a port.
    "state": Boundary("float[2,B,4] state", "state: hc batch dim", "{hc:p,q}: batch dim"),
    "fixed": Boundary("float[2,3,4] state", "state: hc batch dim", "{hc:p,q}: batch dim"),
    # WeNet's packed attention cache; each layer's keys and values become a port.
    "packed": Boundary("float[2,3,T,8] att", "att: layer head time (kv dim)", "{kv:k,v}_{layer}: batch head time dim"),
    # Layers apart; keys and values stay packed. And the other way round.
    "layers": Boundary("float[2,3,T,8] att", "att: layer head time (kv dim)", "att_{layer}: batch head time (kv dim)"),
    "halves": Boundary("float[2,3,T,8] att", "att: layer head time (kv dim)", "{kv:k,v}: layer head time dim"),
    # More than int8 holds.
    "wide": Boundary("float[2,300,11] state", "state: hc dim batch", "{hc:p,q}: dim batch"),
    # Numbers that may be bounds.
    "whole": Boundary("int64[2,1] state", "state: hc dim", "{hc:p,q}: dim"),
    # GPT-2's stacked cache.
    "stacked": Boundary(
        "float[2,2,B,3,T,4] past", "past: layer kv batch head time dim", "{kv:k,v}_{layer}: batch head time dim"
    ),
    # One tensor with its dims in another order, and nothing else.
    "turned": Boundary("float[6,B,4] x", "x: layer batch dim", "z: batch dim layer"),
    # Keys and values apart become one tensor.
    "pair": Boundary("float[B,T,4] h, float[B,T,4] c", "{hc:h,c}: batch time dim", "s: batch time (hc dim)"),
    # The other end: what the graph yields.
    "yields": Boundary(
        "float[2,B,4] state, float[B,4] a, float[B,4] b",
        "state -> next: hc batch dim",
        "{hc:p,q} -> {hc:p,q}n: batch dim",
        "float[2,B,4] next",
    ),
    "yields packed": Boundary(
        "float[2,3,T,8] att, float[1,3,T,4] a, float[1,3,T,4] b, float[1,3,T,4] c, float[1,3,T,4] d",
        "att -> next: layer head time (kv dim)",
        "{kv:k,v}_{layer} -> {kv:k,v}n_{layer}: batch head time dim",
        "float[2,3,T2,8] next",
    ),
    "yields turned": Boundary(
        "float[B,4,T] x, float[B,U,4] a",
        "x -> next: batch dim time",
        "z -> zn: batch time dim",
        "float[B,4,T2] next",
    ),
    "yields pair": Boundary(
        "float[B,T,4] h, float[B,T,4] c, float[B,T,4] a, float[B,T,4] b",
        "{hc:h,c} -> {hc:h,c}n: batch time dim",
        "s -> sn: batch time (hc dim)",
        "float[B,T2,4] hn, float[B,T3,4] cn",
    ),
}


@dataclass(frozen=True)
class Case:
    """A graph, and the operators of movement that are left of it.

    Attributes:
        name: What is special about it.
        body: The graph's nodes.
        left: The operators that move data or ask for sizes in the result, each followed by `*N` where there are N; `-`
            for none.
        at: The name of the boundary.
        opset: The version of the operator set.
        ir: The version of the file format.
        inputs: More inputs, in ONNX's text syntax.
    """

    name: str
    body: str
    left: str = "-"
    at: str = "state"
    opset: int = 17
    ir: int = 8
    inputs: str = ""


def read_table(name: str) -> dict[str, list[Case]]:
    """Returns the sections of a table beside this module, each with its cases."""
    sections: dict[str, list[Case]] = {}
    for line in Path(__file__).with_name(f"{name}.table").read_text("utf-8").splitlines():
        if line.startswith("["):
            rows = sections.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            rows.append(read_case(line))
    return sections


def read_case(line: str) -> Case:
    """Returns the case in a line: what is special | boundary, opset, IR version, inputs | nodes | what is left."""
    name, where, body, *left = (field.strip() for field in f" {line} ".split(" | "))
    options = dict(re.findall(r"(opset|ir)=(\d+)", where))
    at, *inputs = re.sub(r"(opset|ir)=\d+", "", where).split("+")
    numbers = {key: int(value) for key, value in options.items()}
    return Case(name, body, *left, at=at.strip(), inputs=", ".join(one.strip() for one in inputs), **numbers)


def cases_of(table: str, kind: str) -> pytest.MarkDecorator:
    """Returns the cases in the sections of a table whose title ends with `kind`, as a parametrisation."""
    found = [
        pytest.param(case, id=f"{title.removesuffix(kind)}{case.name}")
        for title, cases in read_table(table).items()
        for case in cases
        if title.endswith(kind)
    ]
    assert found
    assert len({param.id for param in found}) == len(found)
    return pytest.mark.parametrize("case", found)


def model_of(case: Case, stored: str = "initializers") -> Model:
    """Returns the model of a case."""
    boundary = BOUNDARIES[case.at]
    declared = [boundary.present] if boundary.present else []
    known = {text.split()[-1] for row in declared for text in row.split(", ")}
    names = dict.fromkeys(_OUTPUT.findall(case.body))
    declared += [f"float[] {name}" for name in names if name not in known]
    inputs = ", ".join(filter(None, [boundary.inputs, case.inputs]))
    header = f'<ir_version: {case.ir}, opset_import: ["" : {case.opset}]>'
    proto = onnx.parser.parse_model(f"{header} case ({inputs}) => ({', '.join(declared)}) {{ {case.body} }}")
    _add_constants(proto, case.body, stored)
    _declare_outputs(proto)
    onnx.checker.check_model(proto)
    return Model.from_proto(proto)


def _add_constants(proto: onnx.ModelProto, body: str, stored: str) -> None:
    for match in sorted(set(_CONSTANT.findall(body))):
        narrow, kind, content = match
        numbers = [MAX if one == "max" else int(one.replace("m", "-")) for one in content.split("_") if one != "none"]
        array = np.array(numbers[0] if kind == "s" else numbers, np.int32 if narrow else np.int64)
        tensor = numpy_helper.from_array(array, "".join(match))
        if stored == "initializers":
            proto.graph.initializer.append(tensor)
            if proto.ir_version < 4:
                proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            proto.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))


def _declare_outputs(proto: onnx.ModelProto) -> None:
    """Gives outputs the type and rank that they have: the checker wants to know."""
    wanting = [value for value in proto.graph.output if not value.type.tensor_type.HasField("shape")]
    bare = onnx.ModelProto.FromString(proto.SerializeToString())
    del bare.graph.output[:]
    types = {value.name: value.type for value in onnx.shape_inference.infer_shapes(bare).graph.value_info}
    for value in wanting:
        value.type.CopyFrom(types[value.name])
    found: Arrays = {}
    for value in wanting:
        kind = value.type.tensor_type
        if not kind.HasField("shape"):
            found = found or run(proto, feeds_of(Model.from_proto(proto).signature().inputs, SIZES[0]))
        rank = len(kind.shape.dim) if kind.HasField("shape") else found[value.name].ndim
        dims = [f"{value.name}_{axis}" for axis in range(rank)]
        value.CopyFrom(helper.make_tensor_value_info(value.name, kind.elem_type, dims))


class Runner:
    """A model in onnxruntime, without its optimisations."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._names = [output.name for output in self._session.get_outputs()]

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        held = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in feeds.items()}
        return dict(zip(self._names, self._session.run(self._names, held), strict=True))


def run(proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> Arrays:
    """Runs a model once."""
    return Runner(proto)(feeds)


def feeds_of(ports: Iterable[object], sizes: Mapping[str, int]) -> Arrays:
    """Returns distinct numbers for caches, and 1 for parameters."""
    feeds: Arrays = {}
    for port in ports:
        shape = [dim if isinstance(dim, int) else sizes.get(str(dim), 1) for dim in port.dims or ()]
        size = int(np.prod(shape, dtype=int))
        first = 1000 * (len(feeds) + 1)
        numbers = np.arange(first, first + size) if port.dtype.startswith("float") else np.ones(size)
        feeds[port.name] = numbers.reshape(shape).astype(port.dtype)
    return feeds


@dataclass(frozen=True)
class Source:
    """A model before it is rewritten, and what it yields, at each of `SIZES` at which it runs."""

    proto: onnx.ModelProto
    runs: tuple[tuple[Arrays, Arrays], ...]


def source_of(model: Model) -> Source:
    """Runs a model before it is rewritten."""
    proto = onnx.ModelProto.FromString(model.proto.SerializeToString())
    runner = Runner(proto)
    runs = []
    for sizes in SIZES:
        feeds = feeds_of(model.signature().inputs, sizes)
        try:
            runs.append((feeds, runner(feeds)))
        except (runtime.RuntimeException, runtime.InvalidArgument, runtime.Fail):
            assert runs, "a case must run at the first sizes"
    return Source(proto, tuple(runs))


def rewritten(
    case: Case, stored: str = "initializers", *, cancel: bool = True, source: Source | None = None
) -> tuple[Model, SurgeryReport]:
    """Rewrites the model of a case, checks it, and runs it beside its source."""
    model = model_of(case, stored)
    source = source or source_of(model)
    boundary = BOUNDARIES[case.at]
    binding = bind(convention_from_sentences([boundary.source]), model.signature())
    plan = make_plan(binding, convention_from_sentences([boundary.target]))
    report = rewrite(model, plan, cancel=cancel)
    onnx.checker.check_model(model.proto, full_check=True)
    agree(source, model.proto, plan)
    return model, report


def agree(source: Source, result: onnx.ModelProto, plan: Plan) -> None:
    """Asserts that source and result yield the same bits at all sizes at which the source runs."""
    runner = Runner(result)
    for feeds, old in source.runs:
        given = {**feeds, **plan.run_past(feeds)}
        new = runner({port.name: given[port.name] for port in plan.inputs})
        expected = {**old, **plan.run_present(old)}
        assert list(new) == [port.name for port in plan.outputs]
        for name, array in new.items():
            np.testing.assert_array_equal(array, expected[name], err_msg=name, strict=True)


def movement_of(model: Model) -> list[str]:
    """Returns the operators that move data or ask for sizes, sorted."""
    nodes = model.proto.graph.node
    return sorted(node.op_type for node in nodes if is_movement(node) or node.op_type in ("Cast", "Shape", "Size"))


def operators(text: str) -> list[str]:
    """Reads `Concat Slice*2`."""
    counts = [entry.partition("*") for entry in text.split() if entry != "-"]
    return sorted(name for name, _, count in counts for _ in range(int(count or 1)))


def check_stays(case: Case) -> None:
    """A case in which nothing may be cancelled: what is there stays, beside the same adapters as without cancelling."""
    source = source_of(model_of(case))
    there = Counter(movement_of(Model.from_proto(source.proto)))
    plain, _ = rewritten(case, cancel=False, source=source)
    for stored in ("initializers", "Constant nodes"):
        model, report = rewritten(case, stored, source=source)
        assert movement_of(model) == movement_of(plain)
        assert Counter(movement_of(model)) >= there
        assert report.nodes_after <= report.nodes_adapters


def check_goes(case: Case) -> None:
    """A case in which something must be cancelled: `left` is what movement there is."""
    source = source_of(model_of(case))
    rewritten(case, cancel=False, source=source)
    for stored in ("initializers", "Constant nodes"):
        model, report = rewritten(case, stored, source=source)
        assert movement_of(model) == operators(case.left)
        assert report.nodes_after < report.nodes_adapters
