"""Traces: what is written is read, a run from elsewhere serves as well, what is wrong with a file is one error."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import onnxfix
from onnxfix.convention.convention import convention_from_sentences
from onnxfix.convention.signature import Port, Signature
from onnxfix.errors import ModelWriteError, UsageError, VacuousCheck, VerifyError
from onnxfix.verify.header import Evidence, Header, RecordedRun, TraceError, parse_header
from onnxfix.verify.options import EMPTY, FULL
from onnxfix.verify.session import Session
from onnxfix.verify.stream import Tick
from onnxfix.verify.trace import Trace, TraceWriter, appearing

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "sample_models"
STATE, HC = SAMPLES / "vad_state.onnx", SAMPLES / "vad_hc.onnx"
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a trace of a sample."""
    path = tmp_path_factory.mktemp("trace") / "run.npz"
    onnxfix.record(STATE, path, options=onnxfix.VerifyOptions(ticks=3)).close()
    return path


def header_of(path: Path) -> dict[str, object]:
    with np.load(path) as file:
        return json.loads(file["onnxfix"].tobytes())


def rewritten(path: Path, target: Path, change: Callable[[Arrays, dict[str, object]], object], **kept: bool) -> Path:
    """Writes a trace again after a change of its arrays or its header, as anybody could."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(arrays.pop("onnxfix").tobytes())
    if not kept.get("checksum"):
        del header["checksum"]
    change(arrays, header)
    np.savez(target, onnxfix=np.array(json.dumps(header)), **arrays)
    return target


# ---------------------------------------------------------------- what is written is read


def test_all_that_was_written_is_read(tmp_path: Path) -> None:
    ports = Signature(
        (Port("x", "int64", ()), Port("past/a", "bfloat16", (None, "n"))),
        (Port("y", "float32", (2, 3)), Port("present/a", "bfloat16", None)),
        {"key": "wert ü"},
    )
    runs = (RecordedRun(FULL, 2, (0, 1)), RecordedRun(EMPTY, 1, (0,)))
    header = Header(
        convention_from_sentences(["past/a -> present/a: time dim"]), {"dim": 2}, ports, runs, "m.onnx", "ab12", 7,
        {"x": "noise"}, ("a note",), ("n",), Evidence(("cache",), (), ""),
    )  # fmt: skip
    state = {"past/a": np.arange(6, dtype=np.uint16).reshape(3, 2)}
    out = {"y": np.asfortranarray(np.ones((2, 3), np.float32)), "present/a": np.zeros((0, 2), np.uint16)}
    fed = {"x": np.array(5, np.int64)}
    with TraceWriter(tmp_path / "run.npz") as writer:
        for prefix, ticks in (("", 2), ("empty/", 1)):
            writer.start(prefix, state)
            for number in range(ticks):
                writer.tick(prefix, Tick(number, fed, state, number, out))
        writer.finish(header)

    with Trace(tmp_path / "run.npz") as trace:
        assert trace.header.checksum
        assert Header(**{**vars(trace.header), "checksum": ""}) == header
        ticks = list(trace.ticks(runs[0]))
        assert [tick.number for tick in ticks] == [0, 1]
        assert ticks[1].put_out == 1
        np.testing.assert_array_equal(ticks[0].state["past/a"], state["past/a"])
        # The state of a later tick is what the tick before put out.
        assert ticks[1].state["past/a"].shape == (0, 2)
        for tick in (*ticks, *trace.ticks(runs[1])):
            np.testing.assert_array_equal(tick.fetched["y"], out["y"])
            assert tick.inputs["x"] == 5
    with np.load(tmp_path / "run.npz", allow_pickle=False) as file:
        assert sorted(file.files)[:3] == ["empty/start/past/a", "empty/tick/0/input/x", "empty/tick/0/output/present/a"]


def test_the_same_run_gives_the_same_bytes(recorded: Path, tmp_path: Path) -> None:
    onnxfix.record(STATE, tmp_path / "again.npz", options=onnxfix.VerifyOptions(ticks=3)).close()
    onnxfix.record(STATE, tmp_path / "other.npz", options=onnxfix.VerifyOptions(ticks=3, seed=1)).close()
    assert (tmp_path / "again.npz").read_bytes() == recorded.read_bytes()
    assert (tmp_path / "other.npz").read_bytes() != recorded.read_bytes()


def test_a_trace_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    path.write_bytes(b"old")
    with contextlib.suppress(KeyboardInterrupt), appearing(path) as new, TraceWriter(new) as writer:
        writer.start("", {"x": np.zeros(3)})
        raise KeyboardInterrupt
    with pytest.raises(VacuousCheck):
        onnxfix.record(STATE, path, options=onnxfix.VerifyOptions(ticks=0))
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == {"run.npz": b"old"}


@pytest.mark.parametrize("place", ["", "no/such/folder/run.npz"])
def test_a_place_where_no_file_can_stand_is_refused(place: str, tmp_path: Path) -> None:
    with pytest.raises(ModelWriteError) as error:
        onnxfix.record(STATE, tmp_path / place)
    assert error.value.hint
    assert list(tmp_path.iterdir()) == []


def test_the_model_is_not_replaced_by_its_trace(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(STATE.read_bytes())
    with pytest.raises(UsageError, match="would replace the model"):
        onnxfix.record(model, model)
    assert model.read_bytes() == STATE.read_bytes()


# ---------------------------------------------------------------- in place of the model


FRESH = """
import json, sys, onnxfix
with_trace = onnxfix.verify(sys.argv[1], against=sys.argv[2])
report = with_trace.to_json()
print(json.dumps([report["exact"], report["values"], report["observable"], report["not_observable"]]))
"""


def test_a_fresh_process_agrees_bit_for_bit(recorded: Path) -> None:
    command = [sys.executable, "-c", FRESH, str(HC), str(recorded)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    direct = onnxfix.verify(STATE, HC, options=onnxfix.VerifyOptions(ticks=3))
    assert told == [True, direct.values, list(direct.observable), []]


def test_fewer_ticks_may_be_asked_for_but_not_more(recorded: Path) -> None:
    assert onnxfix.verify(HC, against=recorded, options=onnxfix.VerifyOptions(ticks=2)).ticks == 2
    with pytest.raises(UsageError, match="the trace holds 3 ticks"):
        onnxfix.verify(HC, against=recorded, options=onnxfix.VerifyOptions(ticks=4))


def test_the_original_may_be_given_too_if_it_is_the_one_recorded(recorded: Path) -> None:
    assert onnxfix.verify(STATE, HC, against=recorded).is_exact
    with pytest.raises(TraceError, match=r"of another model than .*vad_hc"):
        onnxfix.verify(HC, STATE, against=recorded)


def test_a_convention_that_is_not_the_traces_is_refused(recorded: Path) -> None:
    assert onnxfix.verify(HC, against=recorded, from_="silero-state").is_exact
    with pytest.raises(TraceError, match="the trace speaks `silero-state`"):
        onnxfix.verify(HC, against=recorded, from_="silero-hc")


def test_one_model_alone_is_held_against_nothing() -> None:
    with pytest.raises(UsageError, match="what is the model held against"):
        onnxfix.verify(HC)


class Tensor(np.ndarray):
    """An array that looks like PyTorch's."""

    def numpy(self) -> np.ndarray:
        """Returns the plain array."""
        return np.asarray(self)


def torch_like() -> tuple[SimpleNamespace, Callable[..., list[Tensor]]]:
    """Returns what the lines in the documentation need of PyTorch, and the network as it would be there."""
    session, random = Session(STATE), np.random.default_rng(0)

    def model(audio: Tensor, state: Tensor) -> list[Tensor]:
        fetched = session.run({"input": audio.numpy(), "state": state.numpy()})
        return [array.view(Tensor) for array in fetched.values()]

    def randn(*shape: int) -> Tensor:
        return random.standard_normal(shape, np.float32).view(Tensor)

    return SimpleNamespace(randn=randn, no_grad=contextlib.nullcontext), model


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yields a trace that the lines in the documentation wrote."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "trace.md").read_text(encoding="utf-8"), re.DOTALL)
    torch, model = torch_like()
    monkeypatch.chdir(tmp_path)
    exec(code.replace(", torch", ""), {"torch": torch, "model": model})
    yield tmp_path / "run.npz"


def test_the_lines_for_pytorch_make_a_trace(foreign: Path) -> None:
    for model in (STATE, HC):
        report = onnxfix.verify(model, against=foreign)
        assert report.is_exact
        assert (report.ticks, [run.start for run in report.runs]) == (8, ["full"])
        # The trace does not say what it proves: the model itself was asked.
        assert len(report.observable) == 2
        assert report.not_observable == ()


def test_a_trace_from_elsewhere_fails_like_any_other(foreign: Path, tmp_path: Path) -> None:
    def later(arrays: Arrays, header: dict[str, object]) -> None:
        arrays["tick/5/output/output"] = np.nextafter(arrays["tick/5/output/output"], np.float32(2))

    with np.load(foreign) as file:
        arrays = {name: file[name] for name in file.files}
    later(arrays, {})
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(VerifyError, match="output, tick 5"):
        onnxfix.verify(HC, against=tmp_path / "other.npz")


def test_growing_caches_from_elsewhere_are_not_taken_for_fixed(tmp_path: Path) -> None:
    source = onnxfix.record(SAMPLES / "gpt2_kv.onnx", tmp_path / "run.npz", options=onnxfix.VerifyOptions(ticks=3))
    source.close()

    def bare(arrays: Arrays, header: dict[str, object]) -> None:
        for name in [name for name in arrays if name.startswith("empty/")]:
            del arrays[name]
        for key in set(header) - {"format"}:
            del header[key]
        header["convention"] = "optimum"

    path = rewritten(tmp_path / "run.npz", tmp_path / "bare.npz", bare)
    assert onnxfix.verify(SAMPLES / "gpt2_stacked.onnx", against=path).is_exact


# ---------------------------------------------------------------- what is wrong with a file


def cut(at: float) -> Callable[[bytes], bytes]:
    return lambda content: content[: int(len(content) * at)]


def flipped(content: bytes) -> bytes:
    """Returns a file with one bit of an array's values turned."""
    place = content.index(b"tick/1/output/output.npy") + 24 + 128 + 1
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def single(content: bytes) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    return stream.getvalue()


def emptied(content: bytes) -> bytes:
    stream = io.BytesIO()
    zipfile.ZipFile(stream, "w").close()
    return stream.getvalue()


BYTES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "no byte": (cut(0), "no npz file"),
    "a few bytes": (cut(0.001), "truncated"),
    "half of it": (cut(0.5), "truncated"),
    "nearly all": (cut(0.999), "truncated|damaged"),
    "a bit turned": (flipped, "damaged: Bad CRC-32"),
    "a text": (lambda content: b"a text", "this is no npz file"),
    "a model": (lambda content: STATE.read_bytes(), "this is no npz file"),
    "one array": (single, "this is a single array"),
    "an empty zip": (emptied, "this npz file is no trace"),
}


@pytest.mark.parametrize("case", BYTES)
def test_a_damaged_file_is_one_clear_error(case: str, recorded: Path, tmp_path: Path) -> None:
    change, message = BYTES[case]
    path = tmp_path / "bad.npz"
    path.write_bytes(change(recorded.read_bytes()))
    with pytest.raises(TraceError, match=message) as error:
        onnxfix.verify(HC, against=path)
    assert str(path) in error.value.where
    assert error.value.exit_code == 2


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TraceError, match="this is no regular file"):
        onnxfix.verify(HC, against=tmp_path / "pipe")


@pytest.mark.parametrize("name", ["y\0z", "y" * 70_000])
def test_a_name_that_no_zip_can_hold_is_one_clear_error(name: str, tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "run.npz") as writer, pytest.raises(ModelWriteError, match="an array of this name"):
        writer.start("", {name: np.zeros(3)})


@pytest.mark.parametrize("name", ["nothing.npz", ""])
def test_what_is_no_file_is_one_clear_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="cannot be read"):
        onnxfix.verify(HC, against=tmp_path / name)


def tick_missing(arrays: Arrays, header: dict[str, object]) -> None:
    del arrays["tick/2/output/stateN"]


def input_missing(arrays: Arrays, header: dict[str, object]) -> None:
    del arrays["tick/1/input/input"]


def start_missing(arrays: Arrays, header: dict[str, object]) -> None:
    del arrays["start/state"]


def one_too_many(arrays: Arrays, header: dict[str, object]) -> None:
    arrays["tick/3/output/output"] = arrays["tick/2/output/output"]


def wider(arrays: Arrays, header: dict[str, object]) -> None:
    arrays["tick/1/output/output"] = arrays["tick/1/output/output"].astype(np.float64)


def reshaped(arrays: Arrays, header: dict[str, object]) -> None:
    arrays["tick/1/output/stateN"] = arrays["tick/1/output/stateN"][0]


def resized(arrays: Arrays, header: dict[str, object]) -> None:
    arrays["start/state"] = arrays["start/state"][:1]


def pickled(arrays: Arrays, header: dict[str, object]) -> None:
    arrays["tick/1/output/output"] = np.array([{"a": 1}], dtype=object)


def other_convention(arrays: Arrays, header: dict[str, object]) -> None:
    header["convention"] = "optimum"


def no_convention(arrays: Arrays, header: dict[str, object]) -> None:
    header["convention"] = "no-such"


def newer(arrays: Arrays, header: dict[str, object]) -> None:
    header["format"] = "onnxfix trace 2"


def endless(arrays: Arrays, header: dict[str, object]) -> None:
    header["runs"] = [{"start": "full", "ticks": 2**62}]


CONTENTS: dict[str, tuple[Callable[[Arrays, dict[str, object]], None], str]] = {
    "an output is missing": (tick_missing, "tick/2/output/stateN: this array is missing"),
    "an input is missing": (input_missing, "tick/1/input/input: this array is missing"),
    "an array too many": (one_too_many, "tick/3/output/output: this array belongs to no tick"),
    "another element type": (wider, "the array is float64, the port float32"),
    "another rank": (reshaped, r"the array is \[\d+, 18\], the port \[2, .*18\]"),
    "another size": (resized, r"the array is \[1, .*\], the port \[2, "),
    "a pickle": (pickled, "holds pickled objects, which are never loaded"),
    "another convention": (other_convention, "ports of the trace do not speak `optimum`"),
    "an unknown convention": (no_convention, "no convention is called `no-such`"),
    "a newer format": (newer, "the trace is written in `onnxfix trace 2`"),
    "endless ticks": (endless, "of which most are missing"),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_what_contradicts_the_header_is_one_clear_error(case: str, recorded: Path, tmp_path: Path) -> None:
    change, message = CONTENTS[case]
    path = rewritten(recorded, tmp_path / "bad.npz", change)
    with pytest.raises(TraceError, match=message) as error:
        onnxfix.verify(HC, against=path)
    assert str(path) in str(error.value)


def test_a_change_of_values_or_of_the_header_is_seen_by_the_checksum(recorded: Path, tmp_path: Path) -> None:
    def nudged(arrays: Arrays, header: dict[str, object]) -> None:
        arrays["tick/1/output/output"] += 1

    path = rewritten(recorded, tmp_path / "bad.npz", nudged, checksum=True)
    with pytest.raises(TraceError, match="was changed after it was recorded"):
        Trace(path)
    for changed in ({"seed": 7}, {"loose": ["h"]}, {"notes": []}, {"evidence": {**NOTHING, "observable": ["moon"]}}):
        path = rewritten(recorded, tmp_path / "bad.npz", partial(_said, changed), checksum=True)
        with pytest.raises(TraceError, match="was changed after it was recorded"):
            Trace(path)
    # The same arrays written again by numpy are the same trace.
    assert onnxfix.verify(
        HC, against=rewritten(recorded, tmp_path / "same.npz", lambda *_: None, checksum=True)
    ).is_exact


def _said(changed: dict[str, object], arrays: Arrays, header: dict[str, object]) -> None:
    header |= changed


NOTHING = {"observable": [], "not_observable": [], "vacuous": ""}


def test_a_trace_without_states_or_ticks_proves_nothing(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(VacuousCheck, match="no part of the state shows"):
        onnxfix.verify(HC, against=rewritten(recorded, tmp_path / "c.npz", partial(_said, {"evidence": NOTHING})))
    with pytest.raises(VacuousCheck, match="holds no state"):
        onnxfix.verify(HC, against=rewritten(recorded, tmp_path / "a.npz", start_missing_everywhere))
    with pytest.raises(VacuousCheck, match="holds no tick"):
        onnxfix.verify(HC, against=rewritten(recorded, tmp_path / "b.npz", ticks_missing))


def start_missing_everywhere(arrays: Arrays, header: dict[str, object]) -> None:
    start_missing(arrays, header)
    for tick in range(3):
        arrays[f"tick/{tick}/input/state"] = np.zeros((2, 1, 18), np.float32)


def ticks_missing(arrays: Arrays, header: dict[str, object]) -> None:
    for name in [name for name in arrays if name.startswith("tick/")]:
        del arrays[name]
    header["runs"] = [{"start": "full", "ticks": 0}]


def test_compressed_arrays_are_refused(recorded: Path, tmp_path: Path) -> None:
    with np.load(recorded) as file:
        np.savez_compressed(tmp_path / "small.npz", **{name: file[name] for name in file.files})
    with pytest.raises(TraceError, match="compressed") as error:
        Trace(tmp_path / "small.npz")
    assert error.value.hint == "numpy.savez, not numpy.savez_compressed"


def test_an_array_that_claims_to_be_huge_takes_no_memory(recorded: Path, tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"shape": (10**15,), "fortran_order": False, "descr": "<f4"})
    with zipfile.ZipFile(recorded) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member) if "onnxfix" not in member.filename else stream.getvalue())
    with pytest.raises(TraceError, match="not as long as its shape"):
        Trace(path)


KNOWN = '"format": "onnxfix trace 1", "convention": "optimum"'
HEADERS = {
    "{": "the header is no JSON",
    "[" * 100_000: "the header is no JSON",
    "[]": "an object is expected",
    "{}": 'the text "onnxfix trace 1" is expected',
    '{"format": 1}': "a text is expected",
    '{"format": "onnxfix trace 1"}': "a list is expected",
    '{"format": "onnxfix trace 1", "convention": ["a b c"]}': "a `:` and a layout are missing",
    f'{{{KNOWN}, "color": 1}}': "this key is not known",
    f'{{{KNOWN}, "seed": -1}}': "a whole number",
    f'{{{KNOWN}, "sizes": {{"a": 1e400}}}}': "a whole number",
    f'{{{KNOWN}, "inputs": [{{"name": "x", "dtype": "object"}}]}}': "one of bool, int8",
    f'{{{KNOWN}, "inputs": [{{"name": 1, "dtype": "bool"}}]}}': "a text is expected",
    f'{{{KNOWN}, "runs": [{{"start": "half"}}]}}': "`full` or `empty`",
    f'{{{KNOWN}, "evidence": {{}}}}': "a list is expected",
}


@pytest.mark.parametrize("text", HEADERS)
def test_a_header_is_read_strictly(text: str) -> None:
    with pytest.raises(UsageError, match=HEADERS[text]) as error:
        parse_header(text, "run.npz")
    assert error.value.where.startswith("run.npz")
