"""Ports behind a prefix: the convention is found all the same, and what only sounds alike is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from onnxfix.convention.convention import Convention
from onnxfix.convention.detect import detect
from onnxfix.convention.load import library
from onnxfix.convention.plan import make_plan
from onnxfix.convention.prefix import behind_prefix
from onnxfix.convention.signature import Port, Signature
from onnxfix.convention.sketch import SIZES, signature_of
from onnxfix.request import bind_model

DYNAMIC = {**SIZES, "batch": "B", "time": "T"}


def renamed(
    signature: Signature, name: Callable[[str], str], *, inputs: bool = True, outputs: bool = True
) -> Signature:
    def side(ports: tuple[Port, ...], is_meant: bool) -> tuple[Port, ...]:
        return tuple(replace(port, name=name(port.name)) if is_meant else port for port in ports)

    return replace(signature, inputs=side(signature.inputs, inputs), outputs=side(signature.outputs, outputs))


def begins_with_a_label(convention: Convention) -> bool:
    specs = [spec for cache in convention.caches if not cache.optional for spec in (*cache.past, *cache.present)]
    return any(not isinstance(spec.template.parts[0], str) for spec in specs)


NAMED = [name for name, one in library().items() if not begins_with_a_label(one)]
OPTIMUM = signature_of(library()["optimum"], DYNAMIC)


@pytest.mark.parametrize("prefix", ["model.", "/main_graph/", "a::"])
@pytest.mark.parametrize("name", NAMED)
def test_every_convention_is_found_behind_a_prefix(name: str, prefix: str) -> None:
    plain = signature_of(library()[name], DYNAMIC)
    found = detect(renamed(plain, lambda port: prefix + port), {"head": 5}).choose()
    assert name in (found.name, *found.twins)
    assert found.reasons[0] == f"its ports have the prefix `{prefix}`"


@pytest.mark.parametrize(
    "name",
    [
        lambda port: f"my{port}",
        lambda port: f"{port}.1",
        lambda port: f"layer{port[-5:]}.{port}",
        lambda port: f"{{x}}.{port}",
        lambda port: f"{'x' * 64}.{port}",
    ],
)
def test_what_only_sounds_alike_is_not_found(name: Callable[[str], str]) -> None:
    detection = detect(renamed(OPTIMUM, name))
    assert detection.candidates == ()


def test_outputs_may_have_another_prefix_or_none() -> None:
    for signature, words in (
        (renamed(OPTIMUM, "in.{}".format, outputs=False), "`in.`"),
        (renamed(OPTIMUM, "out.{}".format, inputs=False), "`out.`"),
        (renamed(renamed(OPTIMUM, "in.{}".format, outputs=False), "out.{}".format, inputs=False), "`in.` and `out.`"),
    ):
        found = detect(signature).choose()
        assert (found.name, found.reasons[0]) == ("optimum", f"its ports have the prefix {words}")


def test_other_ports_have_the_prefix_or_not() -> None:
    caches = {port.name for port in (*OPTIMUM.inputs, *OPTIMUM.outputs) if "." in port.name}
    for signature in (
        renamed(OPTIMUM, "model.{}".format),
        renamed(OPTIMUM, lambda port: f"model.{port}" if port in caches else port),
    ):
        found = detect(signature).choose()
        assert [spec.role for spec in found.binding.inputs.values()] == ["tokens", "mask", "positions", "flag"]
        assert [spec.role for spec in found.binding.outputs.values()] == ["output"]


def test_who_says_what_it_is_need_not_say_the_prefix() -> None:
    binding = bind_model(renamed(OPTIMUM, "model.{}".format), from_="optimum")
    assert binding.caches[0].past[0].port.name == "model.past_key_values.0.key"
    assert behind_prefix(library()["optimum"], OPTIMUM) is None


@pytest.mark.parametrize("target", ["gpt2-stacked", "optimum"])
def test_the_result_has_the_names_of_the_target(target: str) -> None:
    found = detect(renamed(OPTIMUM, "model.{}".format)).choose()
    done = make_plan(found.binding, library()[target])
    wanted = signature_of(library()[target], DYNAMIC)
    caches = {port.name for port in wanted.inputs if port.name.startswith("past")}
    assert caches <= {port.name for port in done.inputs}
    assert detect(Signature(done.inputs, done.outputs)).choose().name == target
