"""What cannot be converted, and why: told before any graph is touched."""

from __future__ import annotations

import numpy as np
import pytest
from speaking import convention, dims, names, plan

from onnxfix.convention.binding import bind
from onnxfix.convention.convention import Convention
from onnxfix.convention.load import parse_convention
from onnxfix.convention.plan import Plan, make_plan
from onnxfix.convention.signature import Port, Signature
from onnxfix.convention.sketch import SIZES, signature_of
from onnxfix.errors import PlanError

DYNAMIC = {**SIZES, "batch": "B", "time": "T"}

REFUSED = {
    "an axis that does not divide": (
        lambda: plan(["c: layer head"], ["d: layer (head kv)"], {"layer": 3, "head": 5}),
        "the target's cache `cache` (head, kv, layer) has no counterpart in the model: `cache` has no `kv`",
    ),
    "kv on one side only": (
        lambda: plan(["c: kv time dim"], ["d: time dim"]),
        "the target's cache `cache` (dim, time) has no counterpart in the model: `cache` has also `kv` (2)",
    ),
    "an axis more": (
        lambda: plan(["c: layer time dim"], ["d: layer dim"]),
        "the target's cache `cache` (dim, layer) has no counterpart in the model: `cache` has also `time` (7)\n",
    ),
    "a missing layer": (
        lambda: plan(["c.{layer}: time"], ["d: layer time"], labels={"layer": [0, 1, 3]}),
        "c.0: layer 2 of the cache `cache` is missing (there are 0, 1, 3): stacking would renumber the others",
    ),
    "layers that nobody has": (
        lambda: plan(["c: time"], ["d.{layer=0}: time", "d.{layer=1}: time"]),
        "c: the target names layer 0, 1, the cache `cache` is one alone",
    ),
    "layers from 1": (
        lambda: plan(["c.{layer}: time"], ["d: layer time"], labels={"layer": [1, 2]}),
        "c.1: layer 0 of the cache `cache` is missing (there are 1, 2): stacking would renumber the others",
    ),
    "layers far apart": (
        lambda: plan(["c.{layer}: time"], ["d: layer time"], labels={"layer": [0, 999_999_999]}),
        "c.0: layer 1 of the cache `cache` is missing (there are 0, 999999999): stacking would renumber the others",
    ),
    "a batch that may be more than 1": (
        lambda: plan("wenet-gpu", "wenet-packed", DYNAMIC),
        "att_cache: the target has no axis `batch`, which has size B and not 1\n  freeze it: --set-dim B=1",
    ),
    "an unknown size to spread": (
        lambda: plan(["c: (layer head) time"], ["d.{layer}: head time"]),
        "c: the size of `layer` in `(layer head) time` is not known\n  say it: --size layer=N",
    ),
    "an unknown size to take apart": (
        lambda: plan(["c: (layer head) time"], ["d: layer head time"]),
        "c: the sizes of `layer` and `head` in `(layer head) time` are not known\n  say one: --size layer=N",
    ),
    "unknown sizes to take apart on the way back": (
        lambda: plan(["c: time batch"], ["d: (time batch)"], {"time": "T", "batch": "B"}),
        "d: the sizes of `time` and `batch` in `(time batch)` are not known\n  say one: --size batch=N",
    ),
    "unknown sizes around one that is stacked": (
        lambda: plan(["c.{layer}: time batch"], ["d: (time layer batch)"], {"time": "T", "batch": "B", "layer": 2}),
        "c.0: the sizes of `time` and `batch` in `(time batch)` are not known\n  say one: --size batch=N",
    ),
    "a symbolic size to spread": (
        lambda: plan(["c: head time"], ["d.{head}: time"], {"head": "H", "time": 3}),
        "c: the size of `head` in `head time` is not known\n  say it: --size head=N",
    ),
    "nothing to spread": (
        lambda: plan(["c: head time"], ["d.{head}: time"], {"head": 0, "time": 3}),
        "c: `head` has size 0 and cannot be spread over names",
    ),
    "a huge axis to spread": (
        lambda: plan(["c: head time"], ["d.{head}: time"], {"head": 2**62, "time": 3}),
        f"c: `head` has size {2**62} and cannot be spread over names",
    ),
    "two large axes to spread": (
        lambda: plan(["c: head layer"], ["d.{head}.{layer}: "], {"head": 2**9, "layer": 2**8}),
        "`d.{head}.{layer}: ` would be 131072 tensors",
    ),
    "a dim that no file can hold": (
        lambda: plan(["c: head time"], ["d: (head time)"], {"head": 2**62, "time": 2}),
        f"d: `(head time)` would have size {2**63}",
    ),
    "another update rule": (
        lambda: make_plan(bind(updated("append"), signature_of(updated("append"))), updated("window")),
        "the cache `c` is updated by `append`, the target asks for `window`\n  another update rule is another network",
    ),
    "outputs on one side": (
        lambda: plan(["c -> d: time"], ["e: time"]),
        "the cache `cache` has outputs in the source only\n  write PAST -> PRESENT: LAYOUT on both sides",
    ),
    "a label without a spelling": (
        lambda: plan(["c: layer time"], ["d.{layer:a,b}: time"]),
        "`d.{layer:a,b}` has no spelling for layer 2 of the cache `cache`",
    ),
    "a label that the target leaves out": (
        lambda: plan(["c: layer time"], ["d.{layer=0}: time", "d.{layer=1}: time"]),
        "`d.{layer=0}` and `d.{layer=1}` leave out layer 2 of the cache `cache`",
    ),
    "a label that the source lacks": (
        lambda: plan(["c.{layer}: time"], ["d.{layer=1}: time"], labels={"layer": [0]}),
        "the cache `cache` has no layer 1, which `d.{layer=1}` names",
    ),
    "names that fall together": (
        lambda: plan(["c: layer head"], ["d{layer}{head}: "], {"layer": 12, "head": 12}),
        "two ports would be called `d110`",
    ),
    "two caches for one": (
        lambda: plan(["a.{layer}: time", "b.{layer}: time"], ["c: layer time"]),
        "the target's cache `cache` could be `cache1` or `cache2`\n  say which: --from",
    ),
    "a cache of the target is missing": (
        lambda: plan("silero-state", "wenet-packed"),
        "the target's cache `attention` (dim, head, kv, layer, time) has no counterpart in the model: `lstm` has also",
    ),
}  # fmt: skip


ROUND = [("c: time batch", "d: (time batch)", 1), ("c.{layer}: time batch", "d: (time layer batch)", 3)]


@pytest.mark.parametrize(("source", "target", "layers"), ROUND)
def test_the_size_that_is_asked_for_is_enough(source: str, target: str, layers: int) -> None:
    one = convention([source])
    sizes = {"time": "T", "batch": "B", "layer": layers}
    done = make_plan(bind(one, signature_of(one, sizes), {"batch": 2}), convention([target]))
    past = {
        name: np.arange(6.0).reshape(3, 2) + index for index, name in enumerate(names(done.binding.signature.inputs))
    }
    back = done.caches[0].past.inverse().run(done.run_past(past))
    assert back.keys() == past.keys()
    assert all((back[name] == past[name]).all() for name in past)


def updated(rule: str) -> Convention:
    text = f'name = "x"\ncache = [{{ name = "c", past = "{rule}: time", present = "n: time", update = "{rule}" }}]'
    return parse_convention(text, where="x")


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_and_why(case: str) -> None:
    attempt, message = REFUSED[case]
    with pytest.raises(PlanError) as caught:
        attempt()
    assert str(caught.value).startswith(message)


def sized(sizes: dict[str, tuple[int, ...]], target: str, layout: str = "batch time dim") -> Plan:
    source = convention([f"past.{{layer}}.{{kv}} -> new.{{layer}}.{{kv}}: {layout}"])
    ports = [(f"{layer}.{kv}", dims) for layer in range(2) for kv, dims in sizes.items()]
    signature = Signature(
        tuple(Port(f"past.{name}", "float32", one) for name, one in ports),
        tuple(Port(f"new.{name}", "float32", one) for name, one in ports),
    )
    return make_plan(bind(source, signature), convention([target]))


def test_keys_and_values_of_different_width() -> None:
    different = {"key": (1, 7, 24), "value": (1, 7, 16)}
    for layout in ("batch time (kv dim)", "kv batch time dim", "batch time (dim kv)"):
        with pytest.raises(PlanError) as caught:
            sized(different, f"c.{{layer}} -> n.{{layer}}: {layout}")
        assert str(caught.value) == (
            "past.0.key: the size of `dim` of the cache `cache` differs (24 for kv key, 16 for kv value): "
            "it cannot be stacked along `kv`"
        )
    done = sized(different, "c.{kv} -> n.{kv}: time layer batch dim")
    assert dims(done.inputs) == {"c.key": (7, 2, 1, 24), "c.value": (7, 2, 1, 16)}


def test_sizes_that_differ_from_layer_to_layer() -> None:
    source = convention(["past.{layer} -> new.{layer}: batch head dim"])
    shapes = [(1, 8, 256), (1, 1, 512), (1, 8, 256)]
    sides = [
        tuple(Port(f"{side}.{index}", "float32", shape) for index, shape in enumerate(shapes))
        for side in ("past", "new")
    ]
    binding = bind(source, Signature(*sides))
    with pytest.raises(PlanError) as caught:
        make_plan(binding, convention(["c -> n: layer batch head dim"]))
    assert str(caught.value) == (
        "past.0: the size of `head` of the cache `cache` differs (8 for layer 0, 1 for layer 1, 8 for layer 2): "
        "it cannot be stacked along `layer`"
    )
    done = make_plan(binding, convention(["c.{layer} -> n.{layer}: head batch dim"]))
    assert dims(done.inputs) == {"c.0": (8, 1, 256), "c.1": (1, 1, 512), "c.2": (8, 1, 256)}
    with pytest.raises(PlanError) as caught:
        make_plan(binding, convention(["c.{layer} -> n.{layer}: batch (head dim)"]))
    assert str(caught.value) == (
        "c.0: the size of `head` of the cache `cache` differs from tensor to tensor: `head` and `dim` cannot be one\n"
        "  leave it a dimension of its own, instead of `batch (head dim)`"
    )


def test_element_types_that_differ() -> None:
    source = convention(["{kv} -> new_{kv}: time dim"])
    sides = [
        tuple(Port(f"{side}{kv}", dtype, (7, 4)) for kv, dtype in (("key", "float16"), ("value", "float32")))
        for side in ("", "new_")
    ]
    binding = bind(source, Signature(*sides))
    done = make_plan(binding, convention(["{kv:k,v} -> new_{kv:k,v}: time dim"]))
    assert [(port.name, port.dtype) for port in done.inputs] == [("k", "float16"), ("v", "float32")]
    with pytest.raises(PlanError) as caught:
        make_plan(binding, convention(["c -> d: kv time dim"]))
    assert str(caught.value).startswith("the tensors of the cache `cache` have the element types float16, float32\n")
