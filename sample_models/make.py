"""Makes the sample models: `python sample_models/make.py [--only GLOB]` writes them beside this file.

Needs einops, and PyTorch and onnxscript, which neither onnxfix nor its tests need. A file is only written if all models
of its family agree, whichever of them are asked for.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import onnx
from agreement import Group, hold_together
from exporting import Recipe, export
from families import conformer_cpu, conformer_others, conformer_speakers, gpt2, plain, small, small_speech, spoken, vad
from networks.conformer import Sizes as ConformerSizes
from networks.conformer import make_conformer
from networks.gpt2 import Sizes as Gpt2Sizes
from networks.gpt2 import make_gpt2
from networks.plain import make_plain
from networks.vad import Sizes as VadSizes
from networks.vad import make_vad

FOLDER = Path(__file__).resolve().parent
LARGEST_FILE = 300_000  # bytes


@dataclass(frozen=True)
class Family:
    """The models of one network, and which of them must agree."""

    recipes: Sequence[Recipe]
    groups: Sequence[Group[Any]]


def families() -> Iterator[Family]:
    """Gives all families."""
    conformer = make_conformer(ConformerSizes())
    conformers = [*conformer_cpu.recipes(conformer), *conformer_others.recipes(conformer)]
    yield Family(conformers, list(conformer_speakers.groups(conformer.sizes)))
    decoder = make_gpt2(Gpt2Sizes())
    yield Family(list(gpt2.recipes(decoder)), list(gpt2.groups(decoder.sizes)))
    detector = make_vad(VadSizes())
    yield Family(list(vad.recipes(detector)), list(vad.groups(detector.sizes)))
    spotter = make_plain()
    yield Family(list(plain.recipes(spotter)), list(plain.groups(spotter)))
    for subject, interfaces in (*small.families(), *small_speech.families()):
        yield Family(list(spoken.recipes(subject, interfaces)), [spoken.group(subject, interfaces)])


def make_models(family: Family) -> dict[str, onnx.ModelProto]:
    """Exports a family and holds its models against each other."""
    models = {recipe.name: export(recipe) for recipe in family.recipes}
    for group in family.groups:
        print(group.title)
        for name, distance in hold_together(group, models).items():
            print(f"  {name}: " + (f"{distance:.1e} apart" if distance else "equal bits"))
    return models


def write(name: str, model: onnx.ModelProto) -> None:
    """Writes a model; refuses one that is too large for a sample."""
    contents = model.SerializeToString(deterministic=True)
    assert len(contents) <= LARGEST_FILE, f"{name} has {len(contents)} bytes"
    (FOLDER / f"{name}.onnx").write_bytes(contents)


def main() -> None:
    """Makes the families that were asked for, and writes the files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="*", metavar="GLOB", help="write only the models whose names match")
    only = parser.parse_args().only
    for family in families():
        wanted = [recipe.name for recipe in family.recipes if fnmatch(recipe.name, only)]
        if wanted:
            models = make_models(family)
            for name in wanted:
                write(name, models[name])


if __name__ == "__main__":
    main()
