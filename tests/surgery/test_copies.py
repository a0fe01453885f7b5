"""Bytes of cache that are copied in each step."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_rewrite import convert, parse

import onnxfix
from onnxfix.surgery.copies import Bytes

SAMPLES = Path(__file__).parents[2] / "sample_models"
TWO = "{hc:p,q} -> {hc:p,q}n: batch dim"
WHOLE = 2 * 4 * 4  # bytes of float[2,B,4] for each of B

MODELS = {
    "picked and stacked again": (
        """
        zero = Constant <value_int = 0> () one = Constant <value_int = 1> ()
        h = Gather <axis = 0> (state, zero) c = Gather <axis = 0> (state, one) n = Add(h, c)
        axes = Constant <value_ints = [0]> ()
        u = Unsqueeze(n, axes) v = Unsqueeze(c, axes) next = Concat <axis = 0> (u, v)
        """,
        (2, 4, 0),
    ),
    "one half read": (
        """
        zero = Constant <value_int = 0> () h = Gather <axis = 0> (state, zero) n = Neg(h)
        axes = Constant <value_ints = [0]> () u = Unsqueeze(n, axes) next = Concat <axis = 0> (u, u)
        """,
        (1.5, 3.5, 0),
    ),
    "transposed as a whole": ("t = Transpose <perm = [1, 0, 2]> (state) n = Neg(t) next = Neg(state)", (1, 3, 3)),
    "not copied at all": ("next = Neg(state)", (0, 2, 2)),
}


@pytest.mark.parametrize("name", MODELS)
def test_copies_are_counted_as_multiples_of_the_cache(name: str) -> None:
    body, expected = MODELS[name]
    report, _ = convert(parse(body), target=TWO)
    copies = report.copies
    found = [terms.get(("batch",), 0) / WHOLE for terms in (copies.before, copies.adapters, copies.after)]
    assert found == list(expected)


@pytest.mark.parametrize(
    "path", [path for path in sorted(SAMPLES.glob("*.onnx")) if path.stem != "plain"], ids=lambda path: path.stem
)
def test_adapters_copy_as_much_as_was_foretold(path: Path) -> None:
    kept = onnxfix.convert(path, cancel=False, verify=False, simplify=False, to=_other(path))
    gone = onnxfix.convert(path, verify=False, simplify=False, to=_other(path))
    assert kept.copies is not None
    assert gone.copies is not None
    assert kept.copies.after == kept.copies.adapters == gone.copies.adapters
    assert _total(gone.copies.after) <= _total(gone.copies.adapters)
    assert kept.copies.before == gone.copies.before


def test_a_known_cache_has_a_known_number_of_bytes() -> None:
    report = onnxfix.convert(SAMPLES / "conformer_bpu.onnx", verify=False, to="wenet-kv")
    assert report.copies is not None
    assert set(report.copies.before) == {()}
    (terms,) = (report.to_json()["copied_per_step"]["source"],)  # type: ignore[call-overload, index]
    assert terms == [{"bytes": report.copies.before[()], "times": []}]


def test_a_half_of_eight_bytes_is_twice_as_many() -> None:
    sizes = []
    for dtype in ("float", "double"):
        model = parse(MODELS["not copied at all"][0], inputs=f"{dtype}[2,B,4] state", outputs=f"{dtype}[2,B,4] next")
        sizes.append(convert(model, target=TWO)[0].copies.after[("batch",)])
    assert sizes == [2 * WHOLE, 4 * WHOLE]


def _other(path: Path) -> str:
    speaks = onnxfix.inspect(path).convention
    return {"wenet-kv": "wenet-packed", "optimum": "gpt2-stacked", "silero-hc": "silero-state"}.get(
        str(speaks), {"gpt2-stacked": "optimum", "silero-state": "silero-hc"}.get(str(speaks), "wenet-kv")
    )


def _total(terms: Bytes) -> int:
    return sum(terms.values())
