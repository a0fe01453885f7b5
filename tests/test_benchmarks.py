"""The benchmarks' arithmetic and what they show; how long anything takes is no test."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

FOLDER = Path(__file__).parents[1] / "benchmarks"
COMMITTED = FOLDER / "results"
VARIANTS = {"source": 1.5, "adapters": 1.4, "converted": 1.01, "native": 1.0}


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets the modules of the benchmarks be imported as they import each other."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield


def module(name: str) -> Any:
    return importlib.import_module(name)


def ratio(value: float) -> dict[str, float]:
    return {"median": value, "low": value - 0.01, "high": value + 0.01}


def results(**changed: float) -> dict[str, Any]:
    """Returns results of one cell, as the file has them."""
    variants = {
        name: {
            "nodes": 100,
            "milliseconds": 10 * value,
            "to_native": ratio(value),
            "to_source": ratio(value / 1.5),
            "cpu_to_native": ratio(value),
            "peak_bytes": None,
            "peak_bytes_loading": None,
        }
        for name, value in {**VARIANTS, **changed}.items()
    }
    environment = {"cpu": "a CPU", "cpus": 2, "system": "Linux", "load": 0.1, "versions": {"onnx": "1"}}
    cell = {"length": 512, "threads": 1, "rounds": 3, "variants": variants}
    section = {"environment": environment, "layers": 12, "width": 256, "to": "wenet-kv", "cells": [cell]}
    return {"sections": {"latency/conformer": section}}


def test_a_slow_round_changes_no_ratio() -> None:
    pairs = module("pairs")
    rounds = [{"native": slow * 2.0, "converted": slow * 3.0} for slow in (1, 1, 50, 1, 7)]
    assert pairs.ratios_to(rounds, "native")["converted"] == pairs.Ratio(1.5, 1.5, 1.5)
    assert pairs.medians(rounds) == {"native": 2.0, "converted": 3.0}


def test_a_variant_is_compared_in_the_rounds_that_it_ran_in() -> None:
    pairs = module("pairs")
    rounds = [{"native": 1.0, "peer": 4.0}, {"native": 2.0}, {"peer": 9.0}]
    ratios = pairs.ratios_to(rounds, "native")
    assert (ratios["peer"].median, ratios["native"].median) == (4.0, 1.0)
    assert pairs.ratios_to(rounds, "nobody") == {}


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_the_exponent_is_the_power(power: float) -> None:
    points = [(size, 0.003 * size**power) for size in (100, 700, 3000)]
    assert module("pairs").exponent(points) == pytest.approx(power)


@pytest.mark.parametrize(
    ("converted", "verdicts"),
    [(1.0, [True, True]), (1.05, [False, True]), (0.95, [False, True]), (1.6, [False, False])],
)
def test_budgets_can_be_missed(converted: float, verdicts: list[bool]) -> None:
    assert [budget.is_met for budget in module("budgets").budgets(results(converted=converted))] == verdicts


def test_a_missed_budget_shows_in_the_tables() -> None:
    report = module("report")
    assert "| NO |" not in report.markdown(results())
    assert "| NO |" in report.markdown(results(converted=1.2))


def test_the_picture_is_well_formed_and_has_a_bar_for_each_variant() -> None:
    picture = module("picture")
    root = ElementTree.fromstring(picture.draw(results()))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"1.50", "1.40", "1.01", "cache 512"} <= set(texts)
    bars = [float(element.attrib["width"]) for element in root.iter("{http://www.w3.org/2000/svg}rect")][3:]
    assert len(bars) == 3
    assert bars[0] / bars[2] == pytest.approx(1.5 / 1.01, rel=0.01)


def test_what_is_committed_shows_the_results_that_are_committed() -> None:
    kept = json.loads((COMMITTED / "results.json").read_text(encoding="utf-8"))
    assert (COMMITTED / "latency.svg").read_text(encoding="utf-8") == module("picture").draw(kept)
    assert (COMMITTED / "README.md").read_text(encoding="utf-8") == module("report").markdown(kept)


def test_a_wider_model_has_wider_weights_and_shapes(tmp_path: Path) -> None:
    narrow = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 13]> g (float[1, T, 42] x) => (float[1, T, 3, 14] y)'
        "{ z = MatMul (x, w) shape = Constant <value = int64[4] {1, -1, 3, 14}> () y = Reshape (z, shape) }"
    )
    weight = np.random.default_rng(0).standard_normal((42, 42), dtype=np.float32)
    narrow.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    onnx.helper.set_model_props(narrow, {"output_size": "42", "head": "3"})
    (tmp_path / "narrow.onnx").write_bytes(narrow.SerializeToString())
    module("widen").widen(tmp_path / "narrow.onnx", tmp_path / "wide.onnx", 42, 84, is_sparse=True)
    wide = onnx.load(tmp_path / "wide.onnx")
    assert list(wide.graph.initializer[0].dims) == [84, 84]
    assert numpy_helper.to_array(wide.graph.node[1].attribute[0].t).tolist() == [1, -1, 3, 28]
    assert [dim.dim_value for dim in wide.graph.output[0].type.tensor_type.shape.dim] == [1, 0, 3, 28]
    assert {entry.key: entry.value for entry in wide.metadata_props} == {"output_size": "84", "head": "3"}
    assert (tmp_path / "wide.data").stat().st_size == 84 * 84 * 4


# Many models.


def zoo_results(two_jobs: float, loop: float) -> dict[str, Any]:
    """Returns results of a zoo, as the file has them."""

    def run(times: float) -> dict[str, Any]:
        taken = {"seconds": 60.0, "per_minute": 500.0, "cpu_seconds": 50.0}
        return {**taken, "own_cpu_seconds": None, "peak_bytes": None, "times_the_rate": ratio(times)}

    taken = {"seconds": 5.0, "cpu_seconds": 4.0}
    section = {
        "environment": results()["sections"]["latency/conformer"]["environment"],
        "models": 500, "smallest": 5_000, "largest": 138_000_000, "outcomes": {"converted": 500}, "load": 9.9,
        "whole": {"rounds": 3, "variants": {"1": run(1), "2": run(two_jobs)}},
        "loop": {
            "models": 40, "smallest": 5_000, "largest": 200_000, "rounds": 1,
            "variants": {"shell loop": run(1), "1": run(loop), "2": run(2 * loop)},
        },
        "idle": {"models": 10_000, "first": taken, "again": taken, "reports": taken, "peak_bytes": None},
    }  # fmt: skip
    return {"sections": {"zoo": section}}


@pytest.mark.parametrize(
    ("two_jobs", "loop", "verdicts"), [(1.8, 4, [True, True]), (1.6, 4, [False, True]), (1.8, 2.9, [True, False])]
)
def test_the_budgets_of_many_models_can_be_missed(two_jobs: float, loop: float, verdicts: list[bool]) -> None:
    found = zoo_results(two_jobs, loop)
    assert [budget.is_met for budget in module("budgets").budgets(found)] == verdicts
    page = module("report").markdown(found)
    assert ("| NO |" in page) == (not all(verdicts))
    assert "load 0.1 .. 9.9" in page
    assert "| migrate --jobs 2 | 60.0 s | 500 |" in page
    assert "| a second run | 5.0 s | 4.0 s | 0.50 ms |" in page
    assert ">= 1.7" in page


def test_a_zoo_is_the_same_when_it_is_made_again_and_what_is_broken_is_broken(tmp_path: Path) -> None:
    making, errors = module("zoo_making"), importlib.import_module("onnxfix.errors")
    load = importlib.import_module("onnxfix.model.model").Model.load
    breeds = [
        making.Breed("vad", making.sample("vad_state"), 4, outcome, form)
        for form, outcome in zip(making.Form, ("converted", "converted", "failed", "failed"), strict=True)
    ]
    zoo = making.make_zoo(tmp_path / "one", breeds)
    again = making.make_zoo(tmp_path / "two", breeds)
    assert zoo.inmates == again.inmates
    files = {path.relative_to(zoo.root): path.read_bytes() for path in zoo.root.rglob("*") if path.is_file()}
    assert files == {path: (again.root / path).read_bytes() for path in files}
    whole = {content for path, content in files.items() if path.parent.name == "vad_state"}
    assert len(whole) == 4  # no two are alike
    kinds = {"vad_state-truncated": errors.ModelReadError, "vad_state-without-data": errors.DataFileError}
    for inmate in zoo.inmates:
        path = zoo.root / inmate.path
        if expected := kinds.get(path.parent.name):
            with pytest.raises(expected):
                load(path)
        else:
            onnx.checker.check_model(path)
    few = zoo.some(2, 10**6)
    assert [one.path for one in few] == ["vad/vad_state/000.onnx", "vad/vad_state/002.onnx"]
    assert zoo.some(9, 100) == []


def test_a_small_zoo_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo = module("zoo")
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    monkeypatch.setattr(zoo, "warm_up", lambda *_: None)
    found = zoo.measure(replace(zoo.QUICK, looped=1))
    assert (found["models"], found["outcomes"]["failed"], found["loop"]["models"]) == (8, 2, 1)
    assert found["whole"]["variants"]["1"]["times_the_rate"]["median"] == 1
    assert found["whole"]["variants"]["2"]["per_minute"] > 1
    assert list(found["loop"]["variants"]) == ["shell loop", "1", "2"]
    assert found["idle"]["first"]["cpu_seconds"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["zoo-quick"]  # what was written is gone


def test_outcomes_that_are_not_expected_are_no_measurement(tmp_path: Path) -> None:
    making, zoo = module("zoo_making"), module("zoo")
    wrong = making.make_zoo(tmp_path / "zoo", [making.Breed("vad", making.sample("vad_hc"), 1, "converted")])
    with pytest.raises(RuntimeError, match=r"expected .*converted.* not .*unchanged"):
        zoo.run_migration(wrong, tmp_path / "out", 1)


def test_cells_that_were_not_measured_again_stay() -> None:
    def cell(threads: int, length: int, run: str) -> dict[str, object]:
        return {"threads": threads, "length": length, "run": run}

    before = {"cells": [cell(1, 64, "old"), cell(2, 64, "old")], "environment": "old"}
    again = {"cells": [cell(2, 64, "new")], "environment": "new"}
    joined = module("run").with_other_cells(again, before)
    assert joined == {"cells": [cell(1, 64, "old"), cell(2, 64, "new")], "environment": "new"}
    assert module("run").with_other_cells({"points": []}, before) == {"points": []}
