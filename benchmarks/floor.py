"""The least that any tool must do: load a model without its weights and save it; `--copy` copies the data, too."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import onnx


def main() -> None:
    """Reads `SOURCE` and writes `DESTINATION`."""
    source, destination = map(Path, sys.argv[1:3])
    proto = onnx.load(source, load_external_data=False)
    destination.write_bytes(proto.SerializeToString())
    if "--copy" in sys.argv:
        for path in source.parent.glob("*.data"):
            shutil.copyfile(path, destination.parent / path.name)


if __name__ == "__main__":
    main()
