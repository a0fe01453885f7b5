"""Evidence: each part of a state is alive or named with a reason, and nothing passes that proves nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import FLOAT, constant, kept, node, tiny

from onnxfix.convention.detect import detect
from onnxfix.convention.plan import Plan, make_plan
from onnxfix.model.model import Model
from onnxfix.verify import rows
from onnxfix.verify.evidence import Findings, Witness, gather, parts_of
from onnxfix.verify.finding import find_drives
from onnxfix.verify.options import VerifyOptions
from onnxfix.verify.rows import shown_in_rows
from onnxfix.verify.session import Session
from onnxfix.verify.stream import Stream

SAMPLES = Path(__file__).parents[2] / "sample_models"
X, PAST, PRESENT = ("x", FLOAT, [1, 3]), ("past", FLOAT, [2, 3]), ("present", FLOAT, [2, 3])


class Counting(Session):
    """Counts the calls of a model, and the most streams of one."""

    calls = 0
    widest = 0

    def run(self, feeds):  # type: ignore[no-untyped-def]
        self.calls += 1
        self.widest = max([self.widest, *(array.shape[0] for array in feeds.values() if array.shape)])
        return super().run(feeds)


def witness(path: Path, plan: Plan, ticks: int | None = None) -> Witness:
    session = Counting(path)
    found = find_drives(session, plan, VerifyOptions())
    drive = found.drives[0]
    seen = Witness(session, drive, Stream(session, drive, drive.start()), [], [])
    for _ in range(found.ticks if ticks is None else ticks):
        seen.see(seen.stream.step())
    session.calls = 0
    return seen


def findings(path: Path, plan: Plan, ticks: int | None = None) -> Findings:
    seen = witness(path, plan, ticks)
    return gather(seen, len(seen.outputs), lambda: None)


def sample(name: str) -> tuple[Path, Plan]:
    path = SAMPLES / f"{name}.onnx"
    return path, make_plan(detect(Model.load(path).signature()).choose().binding, None)


# ---------------------------------------------------------------- what proves nothing

NOTHING = {
    "the cache is ignored": (["y = Relu x", "present = Identity past"], "no output depends on the state"),
    "the outputs are constant": (
        ["zero = Sub x x", "y = Sign zero", "present = Identity past"], "every output is the same at every tick",
    ),
    "the outputs are NaN": (
        ["zero = Sub x x", "nan = Div zero zero", "y = Add nan x", "present = Identity past"], "every output is NaN",
    ),
    "all outputs are empty": (
        ["y = Slice x none none", "present = Identity past"], "every output is empty",
    ),
    "only the tick is heard": (
        ["more = Add count step", "next = Identity more", "y = Floor count", "present = Identity past"],
        "another seed gives the same outputs",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NOTHING)
def test_nothing_passes_that_proves_nothing(tmp_path, case):
    nodes, message = NOTHING[case]
    counts = "count" in " ".join(nodes)
    path = tiny(
        tmp_path / "x.onnx", [node(text) for text in nodes], [X, PAST, *([("count", FLOAT, [1])] if counts else [])],
        [("y", FLOAT, None), PRESENT, *([("next", FLOAT, [1])] if counts else [])],
        [constant("none", [0]), constant("step", [1.0], FLOAT)],
    )  # fmt: skip
    plan = kept(path, "past -> present: layer dim")
    if counts:
        # The user says what the count is at each tick: what varies is not what anybody heard.
        session = Session(path)
        drive = find_drives(session, plan, VerifyOptions(feeds={"count": "step:0,1"})).drives[0]
        seen = Witness(session, drive, Stream(session, drive, drive.start()), [], [])
        for _ in range(8):
            seen.see(seen.stream.step())
        found = gather(seen, 8, lambda: None)
    else:
        found = findings(path, plan)

    assert found.observable == ()
    assert found.not_observable == ("cache, layer 0", "cache, layer 1")
    assert message in found.vacuous


def test_no_tick_proves_nothing():
    assert findings(*sample("vad_state"), ticks=0).vacuous == "no tick was driven, so nothing is proven"


def test_a_model_without_a_state_proves_nothing():
    path, plan = sample("vad_state")
    seen = witness(path, plan, 2)
    stateless = replace(plan, binding=replace(plan.binding, caches=()))

    found = gather(replace(seen, drive=replace(seen.drive, plan=stateless)), 2, lambda: None)

    assert found.vacuous == "the model carries no state from call to call, so there is nothing to prove"


def test_a_cache_that_is_always_empty_proves_nothing(tmp_path):
    nodes = [node("all = Concat past x", axis=0), node("present = Slice all end end"), node("y = Relu x")]
    empty = ("past", FLOAT, [0, 3]), ("present", FLOAT, [0, 3])
    path = tiny(tmp_path / "x.onnx", nodes, [X, empty[0]], [("y", FLOAT, [1, 3]), empty[1]], [constant("end", [2**31])])

    found = findings(path, kept(path, "past -> present: time dim"))

    assert found.vacuous == "every cache is empty at every tick, so nothing is proven of the conversion"
    assert found.notes == ("not observable: cache: it is empty",)


# ---------------------------------------------------------------- what is alive, and what is not


def test_dead_layers_are_named_with_a_reason_and_cost_little(tmp_path):
    layers = 32
    nodes = [node("first = Slice past none one"), node("y = Add x first"), node("present = Identity past")]
    ports = [X, ("past", FLOAT, [layers, 3])], [("y", FLOAT, [1, 3]), ("present", FLOAT, [layers, 3])]
    path = tiny(tmp_path / "x.onnx", nodes, *ports, [constant("none", [0]), constant("one", [1])])
    seen = witness(path, kept(path, "past -> present: layer dim"))

    found = gather(seen, 8, lambda: None)

    assert found.observable == ("cache, layer 0",)
    assert len(found.not_observable) == layers - 1
    names = "cache, layer 1; cache, layer 2; cache, layer 3 and 28 more"
    assert found.notes == (f"not observable: {names}: within 8 ticks it changes no output",)
    # One tick for each, and once eight for all that are left, in noise and in a tone, each after its start.
    assert seen.session.calls <= layers + 3 * 8  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "parts", "most"), [("gpt2_kv", 6, 6), ("conformer_gpu", 11, 9), ("conformer_packed", 9, 9)]
)
def test_streams_of_a_batch_stand_for_runs(name, parts, most):
    path, plan = sample(name)
    seen = witness(path, plan)

    found = gather(seen, len(seen.outputs), lambda: None)

    assert (len(found.observable), found.not_observable, found.vacuous) == (parts, (), "")
    assert seen.session.calls <= most  # type: ignore[attr-defined]


@pytest.mark.parametrize(("streams", "widest"), [(100, 17), (6, 6), (4, 2), (0, 2)])
def test_large_states_are_not_multiplied(tmp_path, monkeypatch, streams, widest):
    layers = [f"p{layer}" for layer in range(20)]
    nodes = [node(f"y = Sum x {' '.join(layers)}"), *(node(f"n{name} = Identity {name}") for name in layers)]
    ports = (
        [(name, FLOAT, ["n", 8]) for name in ("x", *layers)],
        [(name, FLOAT, ["n", 8]) for name in ("y", *(f"n{name}" for name in layers))],
    )
    path = tiny(tmp_path / "x.onnx", nodes, *ports)
    seen = witness(path, kept(path, "p{layer} -> np{layer}: batch dim"))
    monkeypatch.setattr(rows, "LIMIT", streams * len(layers) * 8 * 4)

    found = gather(seen, 8, lambda: None)

    assert len(found.observable) == len(layers)
    assert seen.session.widest == widest  # type: ignore[attr-defined]


@pytest.mark.parametrize("mixes", [True, False])
def test_streams_that_hear_each_other_are_not_trusted(tmp_path, mixes):
    # Layer 3 is dead, whatever the streams do.
    nodes = [
        node("live = Slice past none three zero"), node("sum = ReduceSum live zero", keepdims=0),
        node("all = ReduceMean sum", axes=[0]) if mixes else node("all = Identity sum"),
        node("y = Add x all"), node("present = Identity past"),
    ]  # fmt: skip
    path = tiny(
        tmp_path / "x.onnx", nodes, [("x", FLOAT, ["n", 3]), ("past", FLOAT, [4, "n", 3])],
        [("y", FLOAT, ["n", 3]), ("present", FLOAT, [4, "n", 3])],
        [constant("none", [0]), constant("three", [3]), constant("zero", [0])],
    )  # fmt: skip
    plan = kept(path, "past -> present: layer batch dim")
    seen = witness(path, plan)
    parts = parts_of(plan.binding.caches[0], seen.starts[0].state)
    alive = [f"cache, layer {layer}" for layer in range(3)]

    assert sorted(shown_in_rows(seen.session, seen.drive, parts)) == ([] if mixes else alive)
    assert gather(seen, 8, lambda: None).observable == tuple(alive)


def test_what_noise_saturates_is_seen_in_a_tone(tmp_path):
    # Behind a gate that only loud input closes.
    nodes = [
        node("large = Abs x"), node("most = ReduceMax large", keepdims=0), node("loud = Greater most limit"),
        node("told = Where loud x sum"), node("sum = Add x past"), node("y = Identity told"),
        node("present = Identity x"),
    ]  # fmt: skip
    nodes = [nodes[index] for index in (0, 1, 2, 4, 3, 5, 6)]
    ports = [("x", FLOAT, [1, 64]), ("past", FLOAT, [1, 64])], [("y", FLOAT, [1, 64]), ("present", FLOAT, [1, 64])]
    path = tiny(tmp_path / "x.onnx", nodes, *ports, [constant("limit", 0.5, FLOAT)])

    assert findings(path, kept(path, "past -> present: batch dim")).observable == ("cache",)


def test_progress_counts_each_part_once():
    path, plan = sample("conformer_packed")
    told: list[int] = []

    gather(witness(path, plan), 10, lambda: told.append(1))

    assert len(told) == 9
