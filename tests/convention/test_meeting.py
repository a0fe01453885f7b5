"""Other ports that source and target both have: what of them differs only in form, and gets the target's."""

from __future__ import annotations

import numpy as np
import pytest

from onnxfix.convention.binding import bind
from onnxfix.convention.convention import Convention
from onnxfix.convention.load import parse_convention
from onnxfix.convention.meeting import UnitAxes
from onnxfix.convention.plan import Edits, Plan, make_plan
from onnxfix.convention.signature import Dim, Port, Signature
from onnxfix.errors import PlanError


def spoken(name: str, *ports: str, kind: str = "input") -> Convention:
    """Returns a convention of one cache and ports, written `ROLE NAME: LAYOUT DTYPE`; no dtype is `-`."""
    rows = []
    for text in ports:
        role, rest = text.split(" ", 1)
        port, dtype = rest.rsplit(" ", 1)
        rows.append(f'{{ role = "{role}", port = "{port}"{"" if dtype == "-" else f", dtype = {dtype!r}"} }}')
    text = f'name = "{name}"\ndescription = "x"\nsource = "x"\n{kind} = [{", ".join(rows)}]\n'
    return parse_convention(
        text + '[[cache]]\nname = "c"\npast = "c: batch dim"\npresent = "r: batch dim"\n', where=name
    )


def plan(
    source: str, target: str, *, dims: tuple[Dim, ...] | None, dtype: str, batch: Dim = 1, kind: str = "input",
    edits: Edits | None = None,
) -> Plan:  # fmt: skip
    """Plans for one port and a cache that both have in one form."""
    other = Port(source.split()[1].rstrip(":"), dtype, dims)
    cache = Port("c", "float32", (batch, 3))
    inputs, outputs = ((cache, other), ()) if kind == "input" else ((cache,), (other,))
    signature = Signature(inputs, (*outputs, Port("r", "float32", (batch, 3))))
    return make_plan(bind(spoken("a", source, kind=kind), signature), spoken("b", target, kind=kind), edits)


STAYS = [
    # What the network makes of it may be another thing.
    ("mask m: batch key -", "mask m: batch key int64", (1, 5), "float32", 1),
    ("mask m: batch key bool", "mask m: batch key int64", (1, 5), "bool", 1),
    ("tokens m: batch sequence int16", "tokens m: batch sequence int64", (1, 5), "int16", 1),
    ("other m: -", "other m: 1 int64", (), "int64", 1),
    # Axes that are more than 1, or in another order.
    ("offset m: batch -", "offset m: -", (2,), "int64", 2),
    ("features m: batch frame feature -", "features m: batch feature frame -", (1, 1, 1), "float32", 1),
    ("features m: frame feature -", "features m: batch frame feature -", (5, 7), "float32", 2),
    ("mask m: batch 1 key -", "mask m: batch query key -", (1, 1, 5), "int64", 1),
    ("offset m: 1 -", "offset m: -", None, "int64", 1),
    ("offset m: batch axis -", "offset m: -", ("B", "A"), "int64", "B"),
]


@pytest.mark.parametrize(("source", "target", "dims", "dtype", "batch"), STAYS)
def test_what_differs_in_more_than_form_stays(
    source: str, target: str, dims: tuple[Dim, ...] | None, dtype: str, batch: Dim
) -> None:
    done = plan(source, target, dims=dims, dtype=dtype, batch=batch)
    assert done.is_identity and Port("m", dtype, dims) in done.inputs


def test_two_ports_of_a_role_do_not_meet() -> None:
    signature = Signature(
        (Port("c", "float32", (1, 3)), Port("m", "int64", ()), Port("n", "int64", ())), (Port("r", "float32", (1, 3)),)
    )
    source = spoken("a", "offset m: -", "offset n: -")
    assert make_plan(bind(source, signature), spoken("b", "offset m: 1 -")).is_identity
    assert make_plan(
        bind(spoken("a", "offset m: -"), signature), spoken("b", "offset m: 1 -", "offset n: 1 -")
    ).is_identity


def test_what_the_network_says_keeps_its_form() -> None:
    for target in ("output y: batch 1 channel -", "output y: batch channel float16"):
        done = plan("output x: batch channel -", target, dims=(1, 5), dtype="float32", kind="output")
        assert done.outputs[0] == Port("x", "float32", (1, 5)) and done.is_identity
    named = plan("output x: batch channel -", "output y: batch channel -", dims=(1, 5), dtype="float32", kind="output")
    assert named.outputs[0] == Port("y", "float32", (1, 5))


def test_a_name_that_is_taken_leaves_the_form_alone() -> None:
    signature = Signature(
        (Port("c", "float32", (1, 3)), Port("m", "int64", ()), Port("n", "int64", ())), (Port("r", "float32", (1, 3)),)
    )
    done = make_plan(bind(spoken("a", "offset m: -"), signature), spoken("b", "offset n: 1 int32"))
    assert done.is_identity


Dims = tuple[Dim, ...]
Places = tuple[int, ...]
MEETS: list[tuple[str, str, Dims, str, Dim, Dims, str, tuple[Places, Places]]] = [
    ("offset m: -", "offset m: 1 int64", (), "int64", 1, (1,), "int64", ((), (0,))),
    ("offset m: 1 int64", "offset m: int64", (1,), "int64", 1, (), "int64", ((0,), ())),
    ("offset m: batch 1 int64", "offset n: int32", (1, 1), "int64", 1, (), "int32", ((0, 1), ())),
    ("offset m: int64", "offset n: batch 1 int64", (), "int64", 1, (1, 1), "int64", ((), (0, 1))),
    ("offset m: batch 1 -", "offset m: batch -", ("B", 1), "int64", "B", ("B",), "int64", ((1,), ())),
    ("offset m: batch -", "offset m: 1 -", (1,), "int64", 1, (1,), "int64", ((), ())),
    ("tokens m: batch sequence -", "tokens m: batch sequence int32", (4, 3), "int64", 4, (4, 3), "int32", ((), ())),
    ("tokens m: sequence int32", "tokens m: batch sequence int64", ("S",), "int32", 1, (1, "S"), "int64", ((), (0,))),
    ("mask m: batch 1 key -", "mask m: batch key -", ("B", 1, "K"), "bool", "B", ("B", "K"), "bool", ((1,), ())),
    ("features m: batch 1 frame feature -", "features n: batch frame 1 feature -", (2, 1, 5, 7), "float32", 2,
     (2, 5, 1, 7), "float32", ((1,), (2,))),
    ("lengths m: batch int64", "lengths m: batch int64", ("B",), "int64", "B", ("B",), "int64", ((), ())),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["input", "output"])
@pytest.mark.parametrize(("source", "target", "dims", "dtype", "batch", "then", "kept", "axes"), MEETS)
def test_ports_get_the_form_of_the_target(
    source: str, target: str, dims: Dims, dtype: str, batch: Dim, then: Dims, kept: str,
    axes: tuple[Places, Places], kind: str,
) -> None:  # fmt: skip
    done = plan(source, target, dims=dims, dtype=dtype, batch=batch, kind=kind)
    name = target.split()[1].rstrip(":")
    assert Port(name, kept, then) in (done.inputs if kind == "input" else done.outputs)
    assert done.unit_axes.get(name, UnitAxes()) == UnitAxes(*axes)
    assert done.casts == ({name: kept} if kept != dtype else {})
    signature = Signature(done.inputs, done.outputs)
    back = make_plan(bind(spoken("b", target, kind=kind), signature), spoken("a", source, kind=kind))
    if " -" not in source:
        assert back.inputs == done.binding.signature.inputs and back.outputs == done.binding.signature.outputs


def test_a_size_that_is_open_is_told() -> None:
    wanted = "the port `m` gets the dims of `b` with --set-dim B=1 only"
    for edits in (None, Edits(dims={"B": 1})):
        done = plan("offset m: batch -", "offset m: -", dims=("B",), dtype="int64", batch="B", edits=edits)
        assert (wanted in done.notes) == (edits is None)
        assert Port("m", "int64", ("B",) if edits is None else ()) in done.inputs


def test_integers_that_lose_values_are_noted() -> None:
    for dtype, wanted in (("int64", "int32"), ("int32", "int64")):
        done = plan("tokens m: batch -", f"tokens m: batch {wanted}", dims=(1,), dtype=dtype)
        assert [note for note in done.notes if "hold" in note] == (
            ["`m` becomes int32, which does not hold every int64"] if wanted == "int32" else []
        )
        assert f"cast m to {wanted}" in done.explain()


def test_what_the_user_asks_for_goes_before() -> None:
    text = ("tokens m: batch -", "tokens n: 1 batch int32")
    kept = plan(*text, dims=(1,), dtype="int64", edits=Edits(cast={"n": "int64"}))
    assert kept.casts == {} and Port("n", "int64", (1, 1)) in kept.inputs
    other = plan(*text, dims=(1,), dtype="int64", edits=Edits(cast={"n": "float32"}, rename={"n": "x"}))
    assert other.casts == {"x": "float32"} and other.unit_axes == {"x": UnitAxes((), (0,))}
    assert Port("x", "float32", (1, 1)) in other.inputs and "x: [1] becomes [1, 1]" in other.explain()


def test_arrays_follow() -> None:
    array = np.arange(6).reshape(2, 1, 3)
    assert UnitAxes((1,), (0, 3)).run(array).shape == (1, 2, 3, 1)
    np.testing.assert_array_equal(UnitAxes((1,), (0,)).inverse().run(UnitAxes((1,), (0,)).run(array)), array)
    for places in ((0,), (5,)):
        with pytest.raises(PlanError, match="does not lose an axis"):
            UnitAxes(places).run(array)
