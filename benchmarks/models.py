"""The models that are measured: exported once, into a folder that git ignores, and taken from there afterwards."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from widen import widen

HERE = Path(__file__).resolve().parent
FOLDER = HERE / ".models"


@dataclass(frozen=True)
class Design:
    """A network (`conformer`, `gpt2` or `vad`), how deep it is and how wide."""

    network: str
    layers: int
    width: int

    @property
    def name(self) -> str:
        """The name of its files."""
        return f"{self.network}_{self.layers}x{self.width}"


def exported(design: Design, convention: str = "source", *, is_simplified: bool = False) -> Path:
    """Returns the file of a network under the source's convention or, `native`, the target's; exports it if need be."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{design.name}_{convention}{'_simplified' if is_simplified else ''}.onnx"
    if not path.exists():
        print(f"exporting {path.name}", file=sys.stderr)
        options = ["--layers", str(design.layers), "--width", str(design.width)]
        options += ["--simplify"] if is_simplified else []
        command = [sys.executable, str(HERE / "export.py"), design.network, convention, str(path), *options]
        subprocess.run(command, check=True)
    return path


def widened(design: Design, width: int, *, is_sparse: bool) -> Path:
    """Returns the file of a Conformer with a data file beside it, `width` wide though it was exported narrow."""
    folder = FOLDER / f"{design.name}_to_{width}{'_sparse' if is_sparse else ''}"
    path = folder / "model.onnx"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        print(f"writing {folder.name}", file=sys.stderr)
        widen(exported(design), path, design.width, width, is_sparse=is_sparse)
    return path
