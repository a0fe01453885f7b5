"""Makes the sample models: `python sample_models/make.py [--only GLOB]` writes them beside this file.

Needs PyTorch and onnxscript, which neither onnxfix nor its tests need.
"""

from __future__ import annotations

import argparse
from fnmatch import fnmatch
from pathlib import Path

from agreement import hold_together
from exporting import export
from families import conformer
from networks.conformer import Sizes, make_conformer

FOLDER = Path(__file__).resolve().parent
LARGEST = 300_000  # bytes


def main() -> None:
    """Exports all recipes, holds the results together, and writes those that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="*", metavar="GLOB", help="write the models whose name matches")
    only = parser.parse_args().only

    sizes = Sizes()
    recipes = list(conformer.recipes(make_conformer(sizes)))
    models = {recipe.name: export(recipe) for recipe in recipes}
    for group in conformer.groups(sizes):
        print(group.title)
        for name, distance in hold_together(group, models).items():
            print(f"  {name}: {distance or 'equal bits'}")

    for name, model in models.items():
        if fnmatch(name, only):
            contents = model.SerializeToString(deterministic=True)
            assert len(contents) <= LARGEST, f"{name} has {len(contents)} bytes"
            (FOLDER / f"{name}.onnx").write_bytes(contents)


if __name__ == "__main__":
    main()
