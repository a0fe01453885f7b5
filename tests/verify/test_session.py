"""Models in onnxruntime: where they run, how exact they are, and what is said when they do not run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper
from tiny_models import FLOAT, kept, node, tiny

from onnxfix.errors import DriveError, UsageError
from onnxfix.verify import session
from onnxfix.verify.lockstep import verify
from onnxfix.verify.options import VerifyOptions
from onnxfix.verify.session import PROVIDERS, Session, require_provider

SAMPLE = Path(__file__).parents[2] / "sample_models" / "vad_hc.onnx"
WEIGHT = np.random.default_rng(0).standard_normal((96, 64), np.float32)


class FakeSession:
    """What onnxruntime gives where it quietly runs on the CPU."""

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_quiet_fall_back_to_the_cpu_is_an_error(monkeypatch, provider):
    monkeypatch.setattr(session, "_load", lambda *arguments, **options: FakeSession())
    monkeypatch.setattr(session, "_reason", lambda provider: "libnothing.so.13: no such file")

    with pytest.raises(DriveError) as error:
        Session(SAMPLE, provider=provider)

    assert error.value.message == (
        f"onnxruntime runs models on CPUExecutionProvider, not on {PROVIDERS[provider]}: libnothing.so.13: no such file"
    )
    assert error.value.where == f"--provider {provider}"
    assert "leave out" in error.value.hint
    assert error.value.exit_code == 4


def test_a_fall_back_that_only_this_model_meets_is_an_error_too(monkeypatch):
    monkeypatch.setattr(session, "_load", lambda *arguments, **options: FakeSession())
    monkeypatch.setattr(session, "require_provider", lambda provider: None)

    with pytest.raises(DriveError, match="runs the model on CPUExecutionProvider, not on CUDAExecutionProvider"):
        Session(SAMPLE, provider="cuda")


def test_a_provider_that_onnxruntime_was_built_without_is_named(monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])

    with pytest.raises(DriveError, match="cannot run on TensorrtExecutionProvider, as it was built without it"):
        require_provider("tensorrt")


def test_a_provider_that_nobody_knows_is_a_matter_of_usage():
    with pytest.raises(UsageError, match="--provider metal: there is no such provider\n  known are cpu, cuda") as error:
        Session(SAMPLE, provider="metal")

    assert error.value.exit_code == 2


@pytest.mark.parametrize("provider", ["cpu", "cuda", "tensorrt"])
def test_onnxruntime_itself_says_nothing(provider):
    """In a process of its own, since onnxruntime loads what a provider needs once, and then only complains once."""
    program = f"""
from pathlib import Path
from onnxfix.errors import DriveError
from onnxfix.verify.session import Session
try:
    print("runs on", Session(Path({str(SAMPLE)!r}), provider={provider!r}).provider)
except DriveError as error:
    print("does not run:", error.where, error.message)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)

    lines = [line for line in done.stderr.splitlines() if "device_discovery" not in line]
    assert lines == []
    assert done.stdout.startswith((f"runs on {provider}", f"does not run: --provider {provider} onnxruntime"))
    assert len(done.stdout.splitlines()) == 1


def test_a_weight_gives_the_same_bits_whether_or_not_it_was_computed(tmp_path):
    """What simplifying makes of `Transpose w` must not look like an error."""
    ports = [("x", FLOAT, [1, 96])], [("y", FLOAT, [1, 64])]
    stored = tiny(
        tmp_path / "stored.onnx", [node("y = MatMul x w")], *ports, [numpy_helper.from_array(WEIGHT, "w")]
    )  # fmt: skip
    computed = tiny(
        tmp_path / "computed.onnx", [node("v = Transpose w"), node("y = MatMul x v")], *ports,
        [numpy_helper.from_array(WEIGHT.T.copy(), "w")],
    )  # fmt: skip
    for seed in range(20):
        feeds = {"x": np.random.default_rng(seed).standard_normal((1, 96), np.float32)}
        assert Session(stored).run(feeds)["y"].tobytes() == Session(computed).run(feeds)["y"].tobytes()


def test_optimisations_are_for_those_who_ask(tmp_path):
    """What an exporter writes as five operators becomes one Gelu, which rounds otherwise."""
    half = helper.make_tensor("half", FLOAT, [], [0.5])
    one = helper.make_tensor("one", FLOAT, [], [1.0])
    root = helper.make_tensor("root", FLOAT, [], [2**0.5])
    nodes = [
        node("d = Div x root"), node("e = Erf d"), node("a = Add e one"), node("m = Mul x a"), node("y = Mul m half"),
    ]  # fmt: skip
    path = tiny(tmp_path / "x.onnx", nodes, [("x", FLOAT, [999])], [("y", FLOAT, [999])], [half, one, root])
    feeds = {"x": np.random.default_rng(0).standard_normal(999).astype(np.float32)}

    exact, fast = (Session(path, optimize=optimize).run(feeds)["y"] for optimize in (False, True))

    assert exact.tobytes() != fast.tobytes()
    np.testing.assert_allclose(exact, fast, rtol=1e-4, atol=1e-6)


def test_single_outputs_can_be_fetched():
    model = Session(SAMPLE)
    feeds = {
        port.name: np.ones([dim if isinstance(dim, int) else 2 for dim in port.dims or ()], port.dtype)
        for port in model.inputs
    }
    everything = model.run(feeds)
    last = list(everything)[-1]

    assert list(everything) == [port.name for port in model.outputs]
    np.testing.assert_array_equal(model.run(feeds, [last])[last], everything[last])
    assert model.run(feeds, [last]).keys() == {last}
    assert model.run(feeds, []) == {}


def test_a_provider_that_is_not_there_is_told_before_the_source_is_driven(tmp_path):
    missing = tmp_path / "nothing.onnx"

    with pytest.raises(UsageError, match="--provider metal"):
        verify(missing, missing, kept(SAMPLE, "h -> hn: layer batch dim"), VerifyOptions(providers=("cpu", "metal")))
