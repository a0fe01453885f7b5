"""The groups of packages that come from npm: `python tests/packages/npm_groups.py` unpacks them beside those of Python.

What a group consists of stands in `requirements/NAME.npm`, by version; it needs `npm`, and runs nothing of a package.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from groups import INSTALLED, REQUIREMENTS


def install(group: str) -> None:
    """Unpacks each package of a group into a folder called as its archive."""
    folder = INSTALLED / group
    shutil.rmtree(folder, ignore_errors=True)
    lines = (REQUIREMENTS / f"{group}.npm").read_text(encoding="utf-8").splitlines()
    with tempfile.TemporaryDirectory() as packed:
        names = [line for line in lines if line and not line.startswith("#")]
        subprocess.run(["npm", "pack", "--silent", "--pack-destination", packed, *names], check=True)
        for archive in sorted(Path(packed).glob("*.tgz")):
            with tarfile.open(archive) as members:
                members.extractall(folder / archive.stem, filter="data")


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in REQUIREMENTS.glob("*.npm")):
        install(name)
