"""The zoo that is migrated: many copies of a few models, each with a number in it, and some that are broken.

It is made once, into a folder that git ignores. Its files follow from its breeds alone: made again, they have the same
bytes.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import onnx
from models import HERE, Design, exported

SAMPLES = HERE.parent / "sample_models"
TARGETS = {"speech": "wenet-kv", "text": "optimum", "vad": "silero-hc"}
"""What the models of a folder shall speak."""
DATA = "weights.data"  # models of one breed share it
LARGE = 512  # bytes; larger weights go to the data file


class Form(StrEnum):
    """How a model is written down."""

    WHOLE = ""
    WITH_DATA = "with-data"
    WITHOUT_DATA = "without-data"
    TRUNCATED = "truncated"


@dataclass(frozen=True)
class Breed:
    """Models that are alike.

    Attributes:
        folder: Where they lie: one of `TARGETS`.
        base: What they are copies of.
        count: How many there are.
        outcome: What becomes of them, as the journal calls it.
        form: How they are written down.
    """

    folder: str
    base: Callable[[], Path]
    count: int
    outcome: str = "converted"
    form: Form = Form.WHOLE


def sample(name: str) -> Callable[[], Path]:
    """Returns what gives a sample model."""
    return lambda: SAMPLES / f"{name}.onnx"


def large(network: str, layers: int, width: int) -> Callable[[], Path]:
    """Returns what gives a larger one of the same networks, exported when it is first needed."""
    return lambda: exported(Design(network, layers, width))


@dataclass(frozen=True)
class Inmate:
    """One model of a zoo.

    Attributes:
        path: Where it lies, below the zoo.
        size: Bytes of its file.
        breed: What it is.
    """

    path: str
    size: int
    breed: Breed

    @property
    def target(self) -> str:
        """What it shall speak."""
        return TARGETS[self.breed.folder]


@dataclass(frozen=True)
class Zoo:
    """A zoo on the disk.

    Attributes:
        root: Its folder.
        inmates: Its models.
    """

    root: Path
    inmates: Sequence[Inmate]

    @property
    def outcomes(self) -> Counter[str]:
        """How many models have each outcome."""
        return Counter(inmate.breed.outcome for inmate in self.inmates)

    def some(self, count: int, most: int) -> list[Inmate]:
        """Returns a few of the models that are converted: as many of each breed as that has part in the zoo.

        Args:
            count: How many.
            most: Bytes that none has more of.
        """
        small = [
            one
            for one in self.inmates
            if one.size <= most and one.breed.outcome == "converted" and one.breed.form is Form.WHOLE
        ]
        return [small[index * len(small) // count] for index in range(min(count, len(small)))]


def make_zoo(root: Path, breeds: Iterable[Breed]) -> Zoo:
    """Makes a zoo, and takes what is there of it already."""
    print(f"zoo: {root.name}", file=sys.stderr)
    inmates = [inmate for breed in breeds for inmate in _make(root, breed)]
    write_rules(root)
    return Zoo(root, sorted(inmates, key=lambda inmate: inmate.path))


def write_rules(root: Path) -> None:
    """Writes what the models shall speak."""
    rules = [f'[[rule]]\nmodels = "{folder}/**"\nto = "{to}"\n' for folder, to in TARGETS.items()]
    root.mkdir(parents=True, exist_ok=True)
    (root / "onnxfix.toml").write_text("\n".join(rules), encoding="utf-8")


def part_of(zoo: Zoo, inmates: Sequence[Inmate], root: Path) -> Zoo:
    """Makes a zoo of some models of another."""
    for inmate in inmates:
        (root / inmate.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(zoo.root / inmate.path, root / inmate.path)
    write_rules(root)
    return Zoo(root, inmates)


def _make(root: Path, breed: Breed) -> Iterator[Inmate]:
    base = breed.base()
    content, data = base.read_bytes(), b""
    if breed.form in (Form.WITH_DATA, Form.WITHOUT_DATA):
        content, data = _taken_apart(base)
    name = "-".join(filter(None, (base.stem, breed.form)))
    for number in range(breed.count):
        path = root / breed.folder / name / f"{number:03}.onnx"
        if breed.form is Form.TRUNCATED:
            _write(path, content[: len(content) // 2])
        else:
            # Fields of a message may stand in its file in any order: what is appended is part of the model.
            _write(path, content + onnx.ModelProto(doc_string=f"{name}, number {number}").SerializeToString())
        if breed.form is Form.WITH_DATA:
            _write(path.with_name(DATA), data)
        yield Inmate(path.relative_to(root).as_posix(), path.stat().st_size, breed)


def _write(path: Path, content: bytes) -> None:
    if path.exists() and path.stat().st_size == len(content):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_bytes(content)
    partial.replace(path)


def _taken_apart(base: Path) -> tuple[bytes, bytes]:
    """Returns a model whose weights lie in a data file, and that file's bytes."""
    proto, data = onnx.load(base), bytearray()
    for tensor in proto.graph.initializer:
        if len(tensor.raw_data) > LARGE:
            place = (("location", DATA), ("offset", len(data)), ("length", len(tensor.raw_data)))
            data += tensor.raw_data
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in place:
                tensor.external_data.add(key=key, value=str(value))
    return proto.SerializeToString(deterministic=True), bytes(data)
