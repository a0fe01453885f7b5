"""Exports one network under one convention: the only part that needs PyTorch, in a process of its own.

`python export.py conformer source FILE --layers 12 --width 256`. The networks are those of the sample models, and
`--simplify` leaves what onnxfix's first step leaves of the graph.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sample_models"))

if TYPE_CHECKING:
    from exporting import Recipe

HEAD = 64  # the dim of a head, in networks that are wide enough


def conformer(convention: str, layers: int, width: int) -> Recipe:
    """Gives WeNet's streaming encoder, caches packed (the source) or one per layer and key or value (native)."""
    from families import conformer_cpu
    from networks.conformer import Sizes, make_conformer

    sizes = Sizes(
        features=80,
        channels=width,
        heads=3 if width % 4 else 4,
        layers=layers,
        kernel=16,
        hidden=8 * width,
        subsampling_channels=width,
        positions=4096,
    )
    network = make_conformer(sizes)
    mode, _ = conformer_cpu.modes(sizes)
    make_convention = conformer_cpu.packed if convention == "source" else conformer_cpu.per_layer
    return conformer_cpu.traced(network, mode, make_convention(network, mode.cache_length))


def gpt2(convention: str, layers: int, width: int) -> Recipe:
    """Gives the decoder, keys and values stacked (the source) or one tensor each (native)."""
    from families import gpt2
    from networks.gpt2 import Sizes, make_gpt2

    sizes = Sizes(
        vocabulary=8192,
        positions=2304,
        width=width,
        heads=max(4, width // HEAD),
        layers=layers,
        hidden=4 * width,
    )
    network = make_gpt2(sizes)
    return gpt2.stacked(network) if convention == "source" else gpt2.per_layer(network)


def vad(convention: str, layers: int, width: int) -> Recipe:
    """Gives the detector, its two states in one tensor (the source) or apart (native); it has one layer."""
    from families import vad
    from networks.vad import Sizes, make_vad

    assert layers == 1, "there is no deeper one"
    recipes = {recipe.name: recipe for recipe in vad.recipes(make_vad(Sizes(channels=width, width=width)))}
    return recipes["vad_state" if convention == "source" else "vad_hc"]


def main() -> None:
    """Exports, and writes the file at once or not at all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("network", choices=("conformer", "gpt2", "vad"))
    parser.add_argument("convention", choices=("source", "native"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--simplify", action="store_true")
    arguments = parser.parse_args()
    try:
        from exporting import export
    except ImportError as error:
        sys.exit(f"{error}: exporting needs PyTorch (pip install torch)")
    make_recipe = {"conformer": conformer, "gpt2": gpt2, "vad": vad}[arguments.network]
    proto = export(make_recipe(arguments.convention, arguments.layers, arguments.width))
    if arguments.simplify:
        from onnxfix.model.model import Model
        from onnxfix.surgery.simplify import simplify

        model = Model.from_proto(proto)
        simplify(model)
        proto = model.proto
    partial = arguments.file.with_suffix(".part")
    partial.write_bytes(proto.SerializeToString(deterministic=True))
    partial.replace(arguments.file)


if __name__ == "__main__":
    main()
