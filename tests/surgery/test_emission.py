"""What is emitted is what the plan says, bit for bit, between all ways to write a cache, in any opset."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from onnxfix.convention.binding import bind
from onnxfix.convention.convention import convention_from_sentences
from onnxfix.convention.plan import Plan, make_plan
from onnxfix.errors import RewriteError
from onnxfix.model.model import Model
from onnxfix.surgery.rewrite import rewrite
from tests.surgery.boundaries import GPT2_WAYS, arrays_of, model_of, way

SIZES = {"layer": 3, "head": 5, "dim": 11}
OPSETS = (11, 13, 17, 18, 21)
NEWEST = onnx.defs.onnx_opset_version()


def convert(source: str, target: str, opset: int, *, cancel: bool) -> tuple[Model, Plan]:
    model = Model.from_proto(model_of(way(source), opset))
    plan = make_plan(bind(way(source), model.signature(), SIZES), way(target))
    rewrite(model, plan, cancel=cancel)
    onnx.checker.check_model(model.proto, full_check=True)
    return model, plan


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Runs a model in onnxruntime; one whose opset is too new for it in onnx's own evaluator."""
    if model.opset_import[0].version > max(OPSETS):
        evaluator = ReferenceEvaluator(model)
        return dict(zip(evaluator.output_names, evaluator.run(None, feeds), strict=True))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def check(source: str, target: str, opset: int, *, cancel: bool, time: int = 7) -> None:
    original = model_of(way(source), opset)
    model, plan = convert(source, target, opset, cancel=cancel)
    feeds = arrays_of(original, time=time)
    expected = plan.run_present({name.replace("past", "present"): array + 1 for name, array in feeds.items()})
    found = run(model.proto, plan.run_past(feeds))
    assert list(found) == [port.name for port in plan.outputs]
    assert found.keys() == expected.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_fifteen_ways_are_fifteen() -> None:
    assert len({str(way(name)) for name in GPT2_WAYS}) == 15


@pytest.mark.parametrize("source", GPT2_WAYS)
def test_all_pairs(source: str) -> None:
    for target in GPT2_WAYS:
        if target != source:
            check(source, target, 17, cancel=True)


@pytest.mark.parametrize("opset", [*OPSETS, NEWEST])
def test_adapters_in_every_opset(opset: int) -> None:
    """Each way once as source and once as target, with and without cancelling."""
    names = list(GPT2_WAYS)
    for (source, target), cancel in itertools.product(zip(names, names[4:] + names[:4], strict=True), (True, False)):
        check(source, target, opset, cancel=cancel)


@pytest.mark.parametrize("target", GPT2_WAYS)
def test_an_empty_cache_stays_empty(target: str) -> None:
    if target != "one per layer and kv":
        check("one per layer and kv", target, 17, cancel=True, time=0)
        check(target, "one per layer and kv", 17, cancel=True, time=0)


@pytest.mark.parametrize("source", GPT2_WAYS)
def test_there_and_back_has_the_operators_that_were_there(source: str) -> None:
    """The one Add per tensor reads the cache whole, so every pair needs adapters; on the way back they must all go."""
    for target in GPT2_WAYS:
        if target == source:
            continue
        model, plan = convert(source, target, 17, cancel=True)
        back = make_plan(bind(way(target), model.signature(), SIZES), way(source))
        rewrite(model, back, cancel=True)
        left = [node.op_type for node in model.proto.graph.node]
        assert sorted(left) == sorted(node.op_type for node in model_of(way(source), 17).graph.node), target
        assert plan.binding.signature.inputs == model.signature().inputs


MERGED = convention_from_sentences(
    (
        "p.{layer}.{kv=key} -> q.{layer}.{kv=key}: (batch head) dim time",
        "p.{layer}.{kv=value} -> q.{layer}.{kv=value}: (batch head) time dim",
    )
)
"""Old Bloom: a size must be found out and a time of 0 left alone, which Reshape cannot be told below opset 14."""


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("target", ["one tensor", "one per layer", "one per layer and kv", "key transposed"])
def test_streams_and_heads_in_one_dim_of_open_size(target: str, opset: int) -> None:
    for source, other in ((MERGED, way(target)), (way(target), MERGED)):
        original = model_of(source, opset)
        feeds = {time: arrays_of(original, time=time) for time in (7, 0)}
        for value in (*original.graph.input, *original.graph.output):
            if source is MERGED:
                value.type.tensor_type.shape.dim[0].dim_param = "streams x heads"
        model = Model.from_proto(original)
        plan = make_plan(bind(source, model.signature(), SIZES), other)
        rewrite(model, plan)
        onnx.checker.check_model(model.proto, full_check=True)
        for fed in feeds.values():
            presents = {old: fed[new] + 1 for new, old in plan.binding.pairs.items()}
            expected, found = plan.run_present(presents), run(model.proto, plan.run_past(fed))
            assert found.keys() == expected.keys()
            for name, array in found.items():
                np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_heads_and_streams_in_one_dim_of_open_size_need_a_newer_opset() -> None:
    source = convention_from_sentences(("p.{layer}.{kv} -> q.{layer}.{kv}: (head batch) time dim",))
    original = model_of(source, 11)
    for value in (*original.graph.input, *original.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "heads x streams"
    model = Model.from_proto(original)
    plan = make_plan(bind(source, model.signature(), SIZES), way("one per layer and kv"))
    with pytest.raises(RewriteError, match="needs opset 14, the model has 11"):
        rewrite(model, plan)
