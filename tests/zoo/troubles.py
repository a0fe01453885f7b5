"""A zoo of 200 models with every kind of trouble that a folder of models can be in, and what must come of each."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from onnx import TensorProto, helper
from zoo_models import NEW, OLD, OTHER, PLAIN, make_zoo, with_shared_data

COUNT = 200
FAULTS = {
    "crash": ("failed", "Crashed"), "kill": ("failed", "Crashed"), "hang": ("failed", "Hung"),
    "memory": ("failed", "OutOfMemory"),
}  # fmt: skip
"""What `ONNXFIX_TEST_FAULT` is asked for, and what comes of it."""
RULES = """
[[rule]]
models = "drafts/**"
exclude = true
"""
_CONVERTED, _UNCHANGED, _SKIPPED = ("converted", ""), ("unchanged", ""), ("skipped", "")
_KINDS = {OLD: _CONVERTED, NEW: _UNCHANGED, PLAIN: _SKIPPED, OTHER: ("failed", "PlanError")}
_UNREADABLE, _DATA = ("failed", "ModelReadError"), ("failed", "DataFileError")


@dataclass
class Troubles:
    """A zoo, and what must come of it.

    Attributes:
        root: Its folder.
        outcomes: Word and kind of each model, by path.
        gaps: What is not looked at, and whether models may have been missed.
        locked: What nobody may read.
        others: Files that are no models, and are copied.
        data: Data files of models that have results.
    """

    root: Path
    outcomes: dict[str, tuple[str, str]] = field(default_factory=dict)
    gaps: dict[str, bool] = field(default_factory=dict)
    locked: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    data: list[str] = field(default_factory=list)

    def put(self, path: str, content: bytes | Path, outcome: tuple[str, str]) -> None:
        """Adds a model."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, file)
        else:
            file.write_bytes(content)
        self.outcomes[path] = outcome

    def put_all(self, models: dict[str, Path]) -> None:
        """Adds models that are as they should be, or not what is asked for."""
        make_zoo(self.root, models)
        self.outcomes |= {path: _KINDS[source] for path, source in models.items()}

    @contextlib.contextmanager
    def closed(self) -> Iterator[None]:
        """Takes all rights to what nobody may read, as long as the block lasts."""
        modes = {path: (self.root / path).stat().st_mode for path in self.locked}
        for path in modes:
            (self.root / path).chmod(0)
        try:
            yield
        finally:
            for path, mode in modes.items():
                (self.root / path).chmod(mode)


def make_troubles(root: Path) -> Troubles:
    """Makes the zoo."""
    zoo = Troubles(root)
    for add in (_names, _broken, _hostile, _data, _links, _no_files, _locked, _processes):
        add(zoo)
    (root / "onnxfix.toml").write_text(RULES)
    zoo.put("drafts/truncated.onnx", OLD.read_bytes()[:999], _SKIPPED)
    zoo.put("drafts/deep/er/old.onnx", OLD, _SKIPPED)
    for path in ("tokens.txt", "names/notes.onnx.txt", "shared/config.json"):
        (root / path).write_text(path)
        zoo.others.append(path)
    kinds = (OLD, NEW, PLAIN, NEW)
    rest = COUNT - len(zoo.outcomes)
    zoo.put_all({f"many/team-{number % 7}/{number:03}/model.onnx": kinds[number % 4] for number in range(rest)})
    return zoo


def _names(zoo: Troubles) -> None:
    zoo.put_all(
        {
            "a/model.onnx": OLD, "b/model.onnx": NEW, "b/Model.onnx": OLD, "b/MODEL.ONNX": PLAIN,
            "a/model.onnx.onnx": OLD, "model.onnx": OLD, "wrong/encoder.onnx": OTHER, "wrong/-.onnx": OTHER,
            "-rf.onnx": OLD, "--to": OLD, "names/--help.onnx": OLD, "names/two words .onnx": OLD,
            "names/ünï 模型 😀.onnx": OLD, "names/e\u0301.onnx": OLD, "names/\u00e9.onnx": NEW,
            "names/new\nline.onnx": OLD, "names/tab\tand\rreturn.onnx": OLD, "names/\x1b[31mred\u202e.onnx": PLAIN,
            "names/[a-z]*?{x}.onnx": OLD, "names/$(true) `true` %s 'q\" \\.onnx": OLD, "names/.hidden.onnx": OLD,
            f"names/{'n' * 250}.onnx": OLD, f"names/{'😀' * 62}.onnx": OLD, "names/.onnx": OLD,
        }
    )  # fmt: skip
    del zoo.outcomes["--to"]  # it is no model by its name
    zoo.others.append("--to")


def _broken(zoo: Troubles) -> None:
    content = OLD.read_bytes()
    for cut in (1, 9, 500, len(content) // 2, len(content) - 7):
        zoo.put(f"broken/cut-{cut}.onnx", content[:cut], _UNREADABLE)
    zoo.put("broken/empty.onnx", b"", _UNREADABLE)
    zoo.put("broken/zeros.onnx", bytes(4096), _UNREADABLE)
    zoo.put("broken/page.onnx", b"<!doctype html><title>404</title>", _UNREADABLE)
    zoo.put("broken/pointer.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", _UNREADABLE)


def _hostile(zoo: Troubles) -> None:
    deep = b""
    for _ in range(200):  # a graph in an attribute of a node of a graph ...
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            deep = tag + _varint(len(deep)) + deep
    zoo.put("hostile/deep.onnx", b"\x08\x08\x3a" + _varint(len(deep)) + deep, _UNREADABLE)
    zoo.put("hostile/long.onnx", b"\x08\x08\x3a" + _varint(2**62), _UNREADABLE)
    zoo.put("hostile/endless.onnx", b"\x08" + b"\xff" * 100, _UNREADABLE)
    zoo.put("hostile/names.onnx", OLD.read_bytes().replace(b"stateN", b"\xff\xfeateN"), _UNREADABLE)
    huge = onnx.load(OLD)
    weight = max(huge.graph.initializer, key=lambda one: len(one.raw_data))
    weight.dims[:] = [2**40, 2**22]
    zoo.put("hostile/huge.onnx", huge.SerializeToString(), ("refused", "DriveError"))
    circle = onnx.load(OLD)
    circle.graph.node.insert(0, helper.make_node("Relu", ["there"], ["here"]))
    circle.graph.node.insert(0, helper.make_node("Relu", ["here"], ["there"]))
    zoo.put("hostile/circle.onnx", circle.SerializeToString(), ("failed", "RewriteError"))
    twice = onnx.load(OLD)
    twice.graph.input.append(twice.graph.input[0])
    zoo.put("hostile/twice.onnx", twice.SerializeToString(), ("failed", "PlanError"))
    ignored = helper.make_model(
        helper.make_graph(
            [helper.make_node("Relu", ["input"], ["output"]), helper.make_node("Identity", ["state"], ["stateN"])],
            "g",
            [_port("input", ["batch", 256]), _port("state", [2, "batch", 128])],
            [_port("output", ["batch", 256]), _port("stateN", [2, "batch", 128])],
        ),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
    )  # fmt: skip
    zoo.put("hostile/ignored.onnx", ignored.SerializeToString(), ("refused", "VacuousCheck"))


def _data(zoo: Troubles) -> None:
    root = zoo.root
    with_shared_data(root / "shared", "one.onnx", "two.onnx", location="weights of both.bin")
    zoo.outcomes |= {"shared/one.onnx": _CONVERTED, "shared/two.onnx": _CONVERTED}
    zoo.put("shared/cut.onnx", (root / "shared" / "two.onnx").read_bytes()[:-9], _UNREADABLE)
    with_shared_data(root / "deep", "top.onnx", location="a/b/w.bin")
    zoo.outcomes["deep/top.onnx"] = _CONVERTED
    zoo.data += ["shared/weights of both.bin", "deep/a/b/w.bin"]
    for name, location in (
        ("missing", "missing.bin"), ("empty", "empty.bin"), ("short", "short.bin"), ("linked", "linked.bin"),
    ):  # fmt: skip
        with_shared_data(root / "data", f"{name}.onnx", location=location)
        zoo.outcomes[f"data/{name}.onnx"] = _DATA
    content = (root / "data" / "short.bin").read_bytes()
    (root / "data" / "missing.bin").unlink()
    (root / "data" / "empty.bin").write_bytes(b"")
    (root / "data" / "short.bin").write_bytes(content[:-1])
    (root / "data" / "linked.bin").rename(root.parent / "away.bin")
    (root / "data" / "linked.bin").symlink_to(root.parent / "away.bin")
    for name, location in (("above", "../../away.bin"), ("absolute", str(root.parent / "away.bin"))):
        proto = onnx.load(root / "data" / "missing.onnx", load_external_data=False)
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        zoo.put(f"data/{name}.onnx", proto.SerializeToString(), _DATA)
    zoo.others += ["data/empty.bin", "data/short.bin", "data/linked.bin"]


def _links(zoo: Troubles) -> None:
    folder = zoo.root / "links"
    folder.mkdir()
    shutil.copyfile(OLD, zoo.root.parent / "blob")
    (folder / "model.onnx").symlink_to(zoo.root.parent / "blob")
    (folder / "dangling.onnx").symlink_to("nowhere")
    (folder / "loop.onnx").symlink_to("loop.onnx")
    (folder / "up").symlink_to("..")
    (folder / "here").symlink_to(".")
    (folder / "away").symlink_to(zoo.root.parent)
    (folder / "same").symlink_to("../a")
    zoo.outcomes |= {
        "links/model.onnx": _CONVERTED, "links/dangling.onnx": _UNREADABLE, "links/loop.onnx": _UNREADABLE,
    }  # fmt: skip
    zoo.gaps |= {f"links/{name}": False for name in ("up", "here", "away", "same")}


def _no_files(zoo: Troubles) -> None:
    folder = zoo.root / "odd"
    folder.mkdir()
    os.mkfifo(folder / "pipe.onnx")
    os.mkfifo(folder / "pipe")
    here = Path.cwd()
    os.chdir(folder)  # a socket's address is short
    try:
        with socket.socket(socket.AF_UNIX) as own:
            own.bind("socket.onnx")
    finally:
        os.chdir(here)
    zoo.put("odd/folder.onnx/inner.onnx", OLD, _CONVERTED)
    zoo.outcomes |= {"odd/pipe.onnx": _UNREADABLE, "odd/socket.onnx": _UNREADABLE}
    zoo.gaps["odd/pipe"] = False
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.onnx")).write_bytes(OLD.read_bytes())
    zoo.gaps["odd/\\udcff.onnx"] = True


def _locked(zoo: Troubles) -> None:
    zoo.put("locked/model.onnx", OLD, _CONVERTED)
    del zoo.outcomes["locked/model.onnx"]  # nobody gets there
    zoo.gaps["locked"] = True
    zoo.put("unreadable.onnx", OLD, _UNREADABLE)
    (zoo.root / "secret.txt").write_text("s")
    zoo.gaps["secret.txt"] = True
    zoo.locked += ["locked", "unreadable.onnx", "secret.txt"]


def _processes(zoo: Troubles) -> None:
    for fault, outcome in FAULTS.items():
        zoo.put(f"faults/{fault}.onnx", OLD, outcome)


def _varint(number: int) -> bytes:
    pieces = bytearray()
    while number >= 128:
        pieces.append(number & 127 | 128)
        number >>= 7
    return bytes([*pieces, number])


def _port(name: str, dims: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)


def everything(folder: Path) -> dict[str, tuple[object, ...]]:
    """Returns all that is in a folder, by path: kind and rights, time, and bytes or where it leads."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content: object = None
        if stat.S_ISLNK(status.st_mode):
            content = path.readlink()
        elif stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        found[os.fsdecode(path.relative_to(folder))] = (status.st_mode, status.st_mtime_ns, content)
    return found
