"""Random movement around a cache: cancelling changes no bit, makes no graph longer, and touches nothing else.

The suite draws the same examples at every run; tests/README.md says how to draw more.
"""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import onnx
from hypothesis import Phase, given, reject, seed, settings
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

from onnxfix.convention.binding import bind
from onnxfix.convention.convention import convention_from_sentences
from onnxfix.convention.plan import Plan, make_plan
from onnxfix.errors import ConversionError
from onnxfix.model.model import Model
from onnxfix.surgery.movement import is_movement
from onnxfix.surgery.rewrite import SurgeryReport, rewrite
from tests.surgery.movement_strategies import Drawn, exported_models, random_models
from tests.surgery.rules.cases import Arrays, Runner

EXAMPLES = int(os.environ.get("ONNXFIX_FUZZ", "0"))
SEED = int(os.environ.get("ONNXFIX_SEED", "0"))
RUN = settings(max_examples=EXAMPLES or 200, phases=[Phase.generate, *([Phase.shrink] if EXAMPLES else [])])
OUTCOMES: Counter[str] = Counter()
SLIPS = ("nothing produces", "has no value", "is taken", "cannot be renamed", "cycle")
REFUSED = (runtime.RuntimeException, runtime.InvalidArgument, runtime.Fail)


@RUN
@seed(SEED)
@given(random_models())
def test_random_movement(drawn: Drawn) -> None:
    check(drawn)


@RUN
@seed(SEED)
@given(exported_models())
def test_caches_that_are_taken_apart(drawn: Drawn) -> None:
    check(drawn)


def check(drawn: Drawn) -> None:
    """Converts a drawn model with and without cancelling, and compares all three."""
    onnx.checker.check_model(drawn.model, full_check=True)
    expected = runs_of(drawn)
    for cancel in (False, True):
        model = Model.from_proto(onnx.ModelProto.FromString(drawn.model.SerializeToString()))
        try:
            plan, report = convert(model, drawn, cancel=cancel)
        except ConversionError as error:
            # What cannot be written is refused with adapters, too: cancelling is no reason to refuse.
            OUTCOMES[f"{type(error).__name__}: {error.message[:60]}"] += 1
            assert not cancel
            return
        onnx.checker.check_model(model.proto, full_check=True)
        agree(model.proto, plan, expected)
        stays(drawn.model, model.proto)
        if cancel:
            assert report.nodes_after <= report.nodes_adapters
            # Falling back to adapters must not hide a slip.
            assert not [reason for reason in report.refused if any(sign in reason for sign in SLIPS)], report.refused
            OUTCOMES["shorter" if report.nodes_after < report.nodes_adapters else "as long"] += 1


def convert(model: Model, drawn: Drawn, *, cancel: bool) -> tuple[Plan, SurgeryReport]:
    """Converts a drawn model, in place."""
    binding = bind(convention_from_sentences([drawn.source.sentence]), model.signature(), drawn.source.known)
    plan = make_plan(binding, convention_from_sentences([drawn.target.sentence]))
    return plan, rewrite(model, plan, cancel=cancel)


def runs_of(drawn: Drawn) -> list[tuple[Arrays, Arrays]]:
    """Runs a drawn model, at all sizes at which it is one."""
    runner, reference = Runner(drawn.model), ReferenceEvaluator(drawn.model)
    runs = []
    for index, feeds in enumerate(drawn.feeds):
        try:
            found = runner(feeds)
        except REFUSED as error:
            # onnxruntime 1.31 takes a Cast there and back out of the graph, also where a nested one reads its result.
            if "Missing Input: cast" in str(error):
                reject()
            assert index, "the strategy draws models that run"
            continue
        is_sound = is_as_defined(found, reference, feeds)
        if is_sound:
            runs.append((feeds, found))
        assert is_sound or index
    return runs


def is_as_defined(found: Arrays, reference: ReferenceEvaluator, feeds: Arrays) -> bool:
    """Whether outputs are what ONNX defines them to be.

    onnxruntime concatenates an empty tensor of another shape without complaint, and leaves parts of the result as the
    memory was; at sizes for which a graph was not drawn that happens. numpy refuses.
    """
    try:
        defined = reference.run(list(found), dict(feeds))
    except ValueError:
        return False
    return all(np.array_equal(one, other) for one, other in zip(defined, found.values(), strict=True))


def agree(result: onnx.ModelProto, plan: Plan, runs: list[tuple[Arrays, Arrays]]) -> None:
    """Asserts that a result yields what its source has yielded, bit for bit."""
    runner = Runner(result)
    for index, (feeds, old) in enumerate(runs):
        try:
            states, expected = plan.run_past(feeds), {**old, **plan.run_present(old)}
        except (ValueError, ConversionError):
            # At the larger sizes, what a random graph yields need not be a cache.
            assert index
            continue
        given = {**feeds, **states}
        new = runner({port.name: given[port.name] for port in plan.inputs})
        assert list(new) == [port.name for port in plan.outputs]
        for name, array in new.items():
            np.testing.assert_array_equal(array, expected[name], err_msg=name, strict=True)


def stays(source: onnx.ModelProto, result: onnx.ModelProto) -> None:
    """Asserts that what computes is as it was, but for the names of values, and that nothing is added to it."""
    before = {node.name: bare(node) for node in source.graph.node if is_compute(node)}
    after = {node.name: bare(node) for node in result.graph.node if is_compute(node)}
    added = {name for name in after if name not in before}
    assert all(name.startswith("onnxfix_") for name in added), added
    assert {name: text for name, text in after.items() if name in before}.items() <= before.items()
    held = {tensor.name: tensor.SerializeToString() for tensor in source.graph.initializer}
    for tensor in result.graph.initializer:
        assert held.get(tensor.name, tensor.SerializeToString()) == tensor.SerializeToString()


def is_compute(node: onnx.NodeProto) -> bool:
    """Whether a node is neither movement nor there for it."""
    return not is_movement(node) and node.op_type not in ("Shape", "Constant", "Sub", "Mul", "Div")


def bare(node: onnx.NodeProto) -> bytes:
    """Returns what a node is, without the names of what it reads and yields; of branches, how many nodes they have."""
    copy = onnx.NodeProto(op_type=node.op_type, domain=node.domain, name=node.name)
    for attribute in node.attribute:
        if attribute.type != onnx.AttributeProto.GRAPH:
            copy.attribute.append(attribute)
    return copy.SerializeToString()
