"""The data files that a model names, whether they are there or not: what has to be fetched before it is opened."""

from __future__ import annotations

from pathlib import Path

from onnxfix.model import external, reading


def named_files(path: Path) -> tuple[str, ...]:
    """Returns the locations of a model's data files, as the model writes them, sorted.

    Raises:
        ModelReadError: It cannot be read, or is no ONNX model.
        DataFileError: What it says of a data file makes no sense.
    """
    proto = reading.parse(reading.read(path), path)
    return tuple(sorted({tensor.location for tensor in external.external_tensors(proto)}))
