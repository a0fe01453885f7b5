"""Zoos to migrate: copies of small samples, and every kind of trouble."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import onnx
from onnx import TensorProto

from onnxfix.zoo.here import run_here
from onnxfix.zoo.settings import Change

SAMPLES = Path(__file__).parents[2] / "sample_models"
OLD, NEW, PLAIN, OTHER = (
    SAMPLES / name for name in ("vad_state.onnx", "vad_hc.onnx", "plain.onnx", "conformer_packed.onnx")
)
"""A model to convert, one that is what is asked for, one without caches, and one that cannot become it."""
TO = Change(to=("silero-hc",))
here = run_here
"""Works on tasks in this process: what is tested with it is everything but processes."""
ONNXFIX = [str(Path(sys.executable).with_name("onnxfix"))]


def make_zoo(folder: Path, models: dict[str, Path]) -> Path:
    """Returns a folder with copies of models."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in models.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / name)
    return folder


def with_shared_data(folder: Path, *names: str, location: str = "weights.bin") -> None:
    """Writes models to convert that keep their largest weight in one and the same data file."""
    proto = onnx.load(OLD)
    tensor = max(proto.graph.initializer, key=lambda one: len(one.raw_data))
    content = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(len(content)))):
        tensor.external_data.add(key=key, value=value)
    (folder / location).parent.mkdir(parents=True, exist_ok=True)
    (folder / location).write_bytes(content)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(proto.SerializeToString())


def tree(folder: Path) -> dict[str, bytes]:
    """Returns all files that people see, by path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() or path.is_symlink())
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in files if ".onnxfix" not in path.parts
    }  # fmt: skip


def hidden(folder: Path) -> set[str]:
    """Returns the names of all that lies in the hidden folder, but for reports."""
    found = {path.relative_to(folder / ".onnxfix").as_posix() for path in (folder / ".onnxfix").rglob("*")}
    return found - {"report.html", "report.json", "report.csv", "junit.xml"}


def journal(folder: Path) -> dict[str, dict[str, object]]:
    """Returns what the journal of a destination says of each model, but for times."""
    return rows_of(folder / ".onnxfix" / "journal.sqlite")


def rows_of(file: Path) -> dict[str, dict[str, object]]:
    """Returns what a journal says of each model, but for times."""
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    try:
        rows = [dict(row) for row in connection.execute("SELECT * FROM models")]
    finally:
        connection.close()
    for row in rows:
        del row["started"], row["seconds"]
        for key in ("source", "data", "results"):
            row[key] = [mark[:3] for mark in json.loads(row[key] or "[]")]
    return {row["path"]: row for row in rows}


def outcomes(folder: Path) -> dict[str, str]:
    """Returns what the journal says became of each model, in a word."""
    return {path: str(row["outcome"]) for path, row in journal(folder).items()}


def command(*words: object, fault: str = "", **options: object) -> subprocess.CompletedProcess[str]:
    """Runs `onnxfix migrate` in a process of its own."""
    environment = {**os.environ, "ONNXFIX_TEST_FAULT": fault}
    return subprocess.run(
        [*ONNXFIX, "migrate", *map(str, words)], capture_output=True, text=True, env=environment, timeout=300, **options
    )  # type: ignore[call-overload,no-any-return]
