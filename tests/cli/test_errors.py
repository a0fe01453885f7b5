"""What goes wrong is said once and clearly, with the right exit code, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
from cli_models import FROM, PACKED, PER_LAYER, TO, contents, save, two_layers, with_data_file, without_input

from onnxfix.cli import main
from onnxfix.errors import ExitCode
from onnxfix.model import atomic


@dataclass(frozen=True)
class Case:
    """A command line that cannot work; `{old}` and `{folder}` are filled in."""

    name: str
    exit_code: ExitCode
    says: tuple[str, ...]
    words: tuple[str, ...] = ("{old}", "{folder}/new.onnx")
    make: Callable[[Path], object] = field(default=lambda path: save(two_layers(), path))


def _truncated(path: Path) -> None:
    content = PACKED.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _empty_cases(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("not a model, just a note\n")


def _missing_data(path: Path) -> None:
    save(with_data_file("weights.bin"), path)


def _short_data(path: Path) -> None:
    save(with_data_file("weights.bin"), path)
    path.with_name("weights.bin").write_bytes(b"1234")


def _climbing_data(path: Path) -> None:
    folder = path.parent.parent / "elsewhere"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(np.ones(3, np.float32).tobytes())
    save(with_data_file("../elsewhere/weights.bin"), path)


def _missing_layer(path: Path) -> None:
    save(without_input(onnx.load(PER_LAYER), "key_cache_1"), path)


def _blind(path: Path) -> None:
    save(two_layers(uses_cache=False), path)


def _with_stranger(path: Path) -> None:
    """An input that onnxruntime takes as a shape, of which nobody knows what to feed."""
    proto = two_layers()
    graph = proto.graph
    graph.input.append(onnx.helper.make_tensor_value_info("shape", onnx.TensorProto.INT64, [3]))
    last = next(node for node in graph.node if node.output[0] == "y")
    last.output[0] = "y_before"
    graph.node.append(onnx.helper.make_node("Reshape", ["y_before", "shape"], ["y"]))
    save(proto, path)


NEW = ("{old}", "{folder}/new.onnx")
MANY = " ".join(f"a{index}" for index in range(33))
SPOKEN = (*NEW, "--from", FROM, "--to", TO)
USAGE, FAILED, UNPROVEN = ExitCode.USAGE, ExitCode.NOT_CONVERTED, ExitCode.NOT_VERIFIED
packed = lambda path: path.write_bytes(PACKED.read_bytes())  # noqa: E731

CASES = (
    Case("no such file", FAILED, ("nowhere.onnx: there is no such file",), ("{folder}/nowhere.onnx", NEW[1])),
    Case("a folder", FAILED, ("this is a folder, not a model file",), ("{folder}", NEW[1])),
    Case("an empty file", FAILED, ("old.onnx: the file is empty",), make=_empty_cases),
    Case("a truncated file", FAILED, ("old.onnx: the file is truncated",), make=_truncated),
    Case("a text file", FAILED, ("old.onnx: this is a text file, not an ONNX model",), make=_text),
    Case("a missing data file", FAILED, ("the data file `weights.bin`", "is missing"), make=_missing_data),
    Case("a short data file", FAILED, ("the data file `weights.bin` is too short",), make=_short_data),
    Case(
        "a data path with ..", FAILED, ("`../elsewhere/weights.bin`", "outside the model's folder"), make=_climbing_data
    ),
    Case("no known convention", FAILED, ("speaks no known convention", "--from 'PAST -> PRESENT: LAYOUT'")),
    Case(
        "an unknown convention",
        USAGE,
        ("no convention is called `wenet-kw`", "did you mean wenet-kv"),
        (*NEW, "--to", "wenet-kw"),
    ),
    Case("a missing TOML file", USAGE, ("mine.toml: the convention cannot be read",), (*NEW, "--to", "mine.toml")),
    Case("no successor", USAGE, ("no convention has replaced", "--to NAME"), (*NEW, "--from", FROM)),
    Case("a name and a sentence", USAGE, ("--to: ", "cannot be mixed"), (*NEW, "--to", "wenet-kv", "--to", TO)),
    Case("two names", USAGE, ("--to: two conventions are given",), (*NEW, "--to", "wenet-kv", "--to", "optimum")),
    Case(
        "a wrong layout",
        USAGE,
        ("--to: ", "    p -> q: batch (head dim\n", "           ^"),
        (*NEW, "--to", "p -> q: batch (head dim"),
    ),
    Case("too many axes", USAGE, ("a layout has at most 32 axes",), (*NEW, "--to", f"p -> q: {MANY}", "--from", FROM)),
    Case("too many units", USAGE, ("a layout has at most 32 axes",), (*NEW, "--to", "p -> q: batch" + " 1" * 65)),
    Case("a name that is no text", USAGE, ("a name is Unicode text",), (*NEW, "--to", "p\udcff -> q: batch")),
    Case(
        "a sentence without a layout",
        USAGE,
        ("--from: ", "a `:` and a layout are missing"),
        (*NEW, "--from", "p -> q", "--to", TO),
    ),
    Case(
        "an axis that does not divide",
        FAILED,
        ("cache: ", "a dimension of 3 does not divide into `(kv dim)`"),
        (*NEW, "--from", "cache -> new_cache: layer batch time (kv dim)", "--to", TO),
    ),
    Case("a missing layer", FAILED, ("key_cache_1", "layer 1", "is missing"), make=_missing_layer),
    Case(
        "a cache that is not there",
        FAILED,
        ("no input is called `state`",),
        (*NEW, "--from", "state -> new_state: layer dim", "--to", TO),
    ),
    Case(
        "axes that do not fit", FAILED, ("`time`",), (*NEW, "--from", FROM, "--to", "p.{layer} -> q.{layer}: batch dim")
    ),
    Case(
        "two ports of one name",
        FAILED,
        ("two ports would be called `x`", "--rename"),
        (*SPOKEN, "--rename", "past.0=x"),
    ),
    Case("a rename of nothing", FAILED, ("no port is called `nothing`",), (*SPOKEN, "--rename", "nothing=z")),
    Case("a cast to nothing", FAILED, ("--cast x=float33",), (*SPOKEN, "--cast", "x=float33")),
    Case("a dim of nothing", FAILED, ("no port has a symbolic dim `U`", "T"), (*SPOKEN, "--set-dim", "U=4")),
    Case("a size of nothing", USAGE, ("--size heads=4", "no axis or dim `heads`"), (*SPOKEN, "--size", "heads=4")),
    Case("a size that is none", USAGE, ("--size T=many", "whole number"), (*SPOKEN, "--size", "T=many")),
    Case("a size of 0", USAGE, ("--size T=0: 0 is no size", "at least 1"), (*SPOKEN, "--size", "T=0")),
    Case("a huge size", USAGE, (f"--size T={2**63}: this is no size",), (*SPOKEN, "--size", f"T={2**63}")),
    Case("an endless size", USAGE, ("this is no size",), (*SPOKEN, "--size", f"T={'9' * 5000}")),
    Case("a size in other digits", USAGE, ("whole number",), (*SPOKEN, "--size", "T=\u0663")),
    Case("a dim of 0", USAGE, ("--set-dim T=0: 0 is no size",), (*SPOKEN, "--set-dim", "T=0")),
    Case("an endless dim", USAGE, ("this is no size",), (*SPOKEN, "--set-dim", f"T={'9' * 5000}")),
    Case(
        "a dim called like a number",
        USAGE,
        ("--set-dim T=1.5: `1.5` is neither a size nor a name",),
        (*SPOKEN, "--set-dim", "T=1.5"),
    ),
    Case("bytes that are no text", USAGE, ("--rename x=\\udcff: this is no UTF-8",), (*SPOKEN, "--rename", "x=\udcff")),
    Case("a pair without =", USAGE, ("--rename past", "KEY=VALUE"), (*SPOKEN, "--rename", "past")),
    Case(
        "a key twice", USAGE, ("--feed x=ones: `x` is given twice",), (*SPOKEN, "--feed", "x=zeros", "--feed", "x=ones")
    ),
    Case("an unknown feed", USAGE, ("`nonsense` is no kind of feed",), (*SPOKEN, "--feed", "x=nonsense")),
    Case("a feed of no port", USAGE, ("no input is called `z`", "x, cache"), (*SPOKEN, "--feed", "z=ones")),
    Case("missing inputs", USAGE, ("nowhere.npz: the inputs cannot be read",), (*SPOKEN, "--inputs", "nowhere.npz")),
    Case("an unknown option", USAGE, ("No such option", "onnxfix convert --help"), (*NEW, "--tow", "x")),
    Case("no ticks", USAGE, ("--ticks",), (*NEW, "--ticks", "0")),
    Case("no destination", USAGE, ("NEW: where does the result go?",), ("{old}", "--from", FROM, "--to", TO)),
    Case(
        "a destination in no folder", FAILED, ("there is no folder",), ("{old}", "{folder}/none/new.onnx", *SPOKEN[2:])
    ),
    Case("a destination below a file", FAILED, ("new.onnx: ",), ("{old}", "{old}/new.onnx", *SPOKEN[2:])),
    Case(
        "a destination that is a folder", FAILED, ("the destination is a folder",), ("{old}", "{folder}", *SPOKEN[2:])
    ),
    Case(
        "a file system that is read only",
        FAILED,
        ("/proc/new.onnx: the model cannot be written",),
        ("{old}", "/proc/new.onnx", *SPOKEN[2:]),
    ),
    Case("an input that nobody can feed", UNPROVEN, ("shape [3] (noise)", "--feed"), SPOKEN, _with_stranger),
    Case("a state that shows nowhere", UNPROVEN, ("nothing is proven",), SPOKEN, _blind),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_failure_is_one_clear_error(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    case.make(folder / "old.onnx")
    before = contents(tmp_path)
    words = [word.replace("{old}", f"{folder}/old.onnx").replace("{folder}", str(folder)) for word in case.words]
    code = main(["convert", *words])
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    for text in case.says:
        assert text in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert code == case.exit_code
    assert contents(tmp_path) == before


UNFED = [
    (["--feed", "x=nonsense"], "`nonsense` is no kind of feed"),
    (["--feed", "z=ones"], "no input is called `z`"),
    (["--inputs", "nowhere.npz"], "nowhere.npz: the inputs cannot be read"),
    (["--inputs", str(PACKED)], "this is no npz file"),
]


@pytest.mark.parametrize("way", [["--no-verify"], ["--check"], ["--diff"]], ids=" ".join)
@pytest.mark.parametrize(("options", "says"), UNFED, ids=lambda value: str(value)[:20])
def test_what_is_not_fed_is_refused_all_the_same(
    options: list[str], says: str, way: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(two_layers(), tmp_path / "old.onnx")
    before = contents(tmp_path)
    words = ["convert", f"{tmp_path}/old.onnx", f"{tmp_path}/new.onnx", "--from", FROM, "--to", TO, *way, *options]
    assert main(words) == ExitCode.USAGE
    printed = capsys.readouterr()
    assert says in printed.err
    assert (printed.out, contents(tmp_path)) == ("", before)


JSON = [
    (["--to", "wenet-kw"], "ConventionError", 2, "", "did you mean wenet-kv"),
    (["--tow", "x"], "UsageError", 2, "No such option", "`onnxfix convert --help`"),
    (["--ticks", "0"], "UsageError", 2, "--ticks", "`onnxfix convert --help`"),
    (["more", "words"], "UsageError", 2, "unexpected extra argument", "`onnxfix convert --help`"),
    (["--size", "T=0"], "UsageError", 2, "0 is no size", "at least 1"),
    ([], "Bug", 70, "this is a bug in onnxfix: RuntimeError: this should not happen", "please report it"),
]


@pytest.mark.parametrize(("options", "kind", "code", "message", "hint"), JSON, ids=lambda value: str(value)[:20])
def test_with_json_every_failure_is_an_object(
    options: list[str], kind: str, code: int, message: str, hint: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if kind == "Bug":
        _replace("rewrite.rewrite", _fail, monkeypatch)
    assert main(["convert", str(PACKED), f"{tmp_path}/new.onnx", *options, "--json"]) == code
    printed = capsys.readouterr()
    facts = json.loads(printed.out)
    assert facts["outcome"] == "failed"
    error = facts["error"]
    assert (error["kind"], error["exit_code"]) == (kind, code)
    assert message in error["message"]
    assert hint in error["hint"]
    assert set(error) == {"kind", "message", "where", "hint", "exit_code"}
    assert printed.err.startswith("error: ")


def test_with_json_the_error_is_on_standard_output_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["convert", str(PACKED), str(tmp_path / "new.onnx"), "--to", "p -> q: batch (head dim", "--json"])
    printed = capsys.readouterr()
    facts = json.loads(printed.out)
    assert (code, facts["outcome"], facts["error"]["kind"]) == (2, "failed", "LayoutError")
    assert facts["error"]["text"][slice(*facts["error"]["span"])] == "("
    assert printed.err.startswith("error: ")


def _full_disk(descriptor: int, content: memoryview) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _half_a_disk(descriptor: int, content: memoryview) -> int:
    """Takes the first bytes and has no room for the rest."""
    if os.lseek(descriptor, 0, os.SEEK_CUR):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return _WRITE(descriptor, content[:100])


_WRITE = os.write


@pytest.mark.parametrize("write", [_full_disk, _half_a_disk])
@pytest.mark.parametrize("new", ["new.onnx", "old.onnx"])
def test_a_full_disk(
    write: Callable[[int, memoryview], int], new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    save(two_layers(), tmp_path / "old.onnx")
    before = contents(tmp_path)
    monkeypatch.setattr(atomic.os, "write", write)
    code = main(["convert", f"{tmp_path}/old.onnx", f"{tmp_path}/{new}", "--from", FROM, "--to", TO])
    monkeypatch.undo()
    assert "there is not enough space to write the model" in capsys.readouterr().err
    assert code == ExitCode.NOT_CONVERTED
    assert contents(tmp_path) == before


_SMALL_FILES = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400)); "
_MAIN = "from onnxfix.cli import run; run()"


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    save(two_layers(), tmp_path / "old.onnx")
    before = contents(tmp_path)
    words = ["convert", f"{tmp_path}/old.onnx", f"{tmp_path}/new.onnx", "--from", FROM, "--to", TO, "--no-simplify"]
    # Without simplification: onnxsim's output goes to a file that the limit would hit as well.
    ran = subprocess.run([sys.executable, "-c", _SMALL_FILES + _MAIN, *words], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (3, "")
    assert "there is not enough space" in ran.stderr
    assert contents(tmp_path) == before


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as bound:
        here = Path.cwd()
        os.chdir(path.parent)  # the path of a socket has about a hundred characters at most
        try:
            bound.bind(path.name)
        finally:
            os.chdir(here)


def _link_to_a_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to(path.with_name("pipe"))


def _loop(path: Path) -> None:
    path.symlink_to(path)


ODD_FILES = [
    (["inspect", "{odd}"], 3),
    (["convert", "{odd}", "{folder}/new.onnx"], 3),
    (["convert", "{old}", "{folder}/new.onnx", "--to", "{odd}"], 2),
    (["convert", "{old}", "{folder}/new.onnx", "--from", "{odd}"], 2),
    (["conventions", "{odd}"], 2),
    (["convert", "{old}", "{folder}/new.onnx", "--from", FROM, "--to", TO, "--inputs", "{odd}"], 2),
    (["convert", "{old}", "{odd}", "--from", FROM, "--to", TO], 3),
]


@pytest.mark.parametrize("make", [_pipe, _socket, _link_to_a_pipe, _loop, Path.mkdir], ids=lambda make: make.__name__)
def test_only_regular_files_are_read_and_written(make: Callable[[Path], None], tmp_path: Path) -> None:
    save(two_layers(), tmp_path / "old.onnx")
    (tmp_path / "empty").mkdir()
    odd = tmp_path / "empty/odd.toml"
    make(odd)
    before = contents(tmp_path)
    names = {"odd": str(odd), "old": f"{tmp_path}/old.onnx", "folder": str(tmp_path)}
    lines = [[word.replace("{layer}", "{{layer}}").format(**names) for word in words] for words, _ in ODD_FILES]
    code = (
        "import json, sys; from onnxfix.cli import main; print([int(main(words)) for words in json.loads(sys.argv[1])])"
    )
    # In a process of its own: waiting for a pipe must not hang the tests.
    ran = subprocess.run([sys.executable, "-c", code, json.dumps(lines)], capture_output=True, text=True, timeout=60)
    assert json.loads(ran.stdout) == [code for _, code in ODD_FILES]
    errors = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(ODD_FILES)
    assert all("odd.toml: " in line for line in errors)
    assert contents(tmp_path) == before


def _interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def _terminate(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _fail(*_: object, **__: object) -> None:
    raise RuntimeError("this should not happen")


def _run_out_of_memory(*_: object, **__: object) -> None:
    raise MemoryError


@pytest.mark.parametrize(
    ("event", "code", "says"),
    [
        (_interrupt, 130, "interrupted: nothing was written"),
        (_fail, 70, "a bug in onnxfix: RuntimeError: this should not happen"),
        (_run_out_of_memory, 3, "not enough memory"),
    ],
)
@pytest.mark.parametrize("place", ["rewrite.rewrite", "lockstep.verify"])
def test_whatever_happens_nothing_is_left(
    event: Callable[..., None], code: int, says: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    save(two_layers(), tmp_path / "old.onnx")
    before = contents(tmp_path)
    _replace(place, event, monkeypatch)
    words = ["convert", f"{tmp_path}/old.onnx", f"{tmp_path}/new.onnx", "--from", FROM, "--to", TO]
    assert main(words) == code
    printed = capsys.readouterr()
    assert says in printed.err
    assert "Traceback" not in printed.err
    assert contents(tmp_path) == before
    monkeypatch.setenv("ONNXFIX_TRACEBACK", "1")
    main(words)
    assert ("Traceback" in capsys.readouterr().err) == (event is not _interrupt)


def _replace(place: str, event: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    folder = {"rewrite": "surgery", "lockstep": "verify"}
    room, _, name = place.partition(".")
    monkeypatch.setattr(importlib.import_module(f"onnxfix.{folder[room]}.{room}"), name, event)


def test_terminated_it_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(two_layers(), tmp_path / "old.onnx")
    before = contents(tmp_path)
    known = signal.getsignal(signal.SIGTERM)
    _replace("lockstep.verify", _terminate, monkeypatch)
    with pytest.raises(SystemExit) as ended:
        main(["convert", f"{tmp_path}/old.onnx", f"{tmp_path}/new.onnx", "--from", FROM, "--to", TO])
    assert ended.value.code == 128 + signal.SIGTERM
    assert contents(tmp_path) == before
    assert signal.getsignal(signal.SIGTERM) is known


def test_a_result_that_differs_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from onnxfix.model.model import Model
    from onnxfix.surgery import rewrite

    honest = rewrite.rewrite

    def spoil(model: Model, *rest: object, **options: object) -> object:
        report = honest(model, *rest, **options)  # type: ignore[arg-type]
        scale = next(tensor for tensor in model.proto.graph.initializer if tensor.name == "scale_1")
        scale.raw_data = np.array([3.0, 0.25, -0.75], np.float32).tobytes()
        return report

    save(two_layers(), tmp_path / "old.onnx")
    before = contents(tmp_path)
    monkeypatch.setattr(rewrite, "rewrite", spoil)
    code = main(["convert", f"{tmp_path}/old.onnx", f"{tmp_path}/new.onnx", "--from", FROM, "--to", TO])
    printed = capsys.readouterr()
    assert code == ExitCode.NOT_VERIFIED
    assert "tick 0" in printed.err
    assert contents(tmp_path) == before


def test_as_a_module_of_a_python_it_is_the_same_command() -> None:
    words = [sys.executable, "-m", "onnxfix", "convert", "nowhere.onnx", "new.onnx"]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stdout) == (ExitCode.NOT_CONVERTED, "")
    assert ran.stderr.startswith("error: ")
