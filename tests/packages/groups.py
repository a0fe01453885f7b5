"""The packages that the tests here need: each group of them in a folder of its own, so that none is in another's way.

`python tests/packages/groups.py` installs all groups, `python tests/packages/groups.py NAME ...` some of them. What a
group consists of stands in `requirements/NAME.txt`, all of it and by version: nothing else is installed with it, and
what runs with it takes NumPy, PyTorch and ONNX Runtime from the environment.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements"
INSTALLED = HERE.parents[1] / "build" / "packages"


def install(group: str) -> None:
    """Installs a group anew."""
    shutil.rmtree(INSTALLED / group, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([*pip, "--target", str(INSTALLED / group), "-r", str(REQUIREMENTS / f"{group}.txt")], check=True)


def folder(group: str) -> Path:
    """Returns where a group's packages lie.

    Raises:
        FileNotFoundError: They are not installed.
    """
    path = INSTALLED / group
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is not there: python tests/packages/groups.py {group}")
    return path


def requirements(group: str) -> str:
    """Returns what a group consists of."""
    return (REQUIREMENTS / f"{group}.txt").read_text(encoding="utf-8")


def kept(told: str, make: Callable[[Path], object]) -> Path:
    """Returns a folder with what a package makes, from an earlier run where there was one.

    Args:
        told: All that it depends on.
        make: Fills a folder.
    """
    path = INSTALLED / "made" / hashlib.sha256(told.encode()).hexdigest()[:16]
    if not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
            made = Path(folder) / "made"
            make(made)
            made.rename(path)
    return path


def run(group: str, *command: str, timeout: float = 300) -> str:
    """Runs Python with a group's packages, in a process of its own, and returns what it prints.

    Args:
        group: The group.
        command: A script and its arguments, or `-m`, a module and its arguments.
        timeout: Seconds.

    Raises:
        AssertionError: It failed; with the last of what it said.
    """
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(folder(group)), str(HERE)]))
    # Whatever is not there shall fail at once, instead of being asked for.
    environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in REQUIREMENTS.glob("*.txt")):
        install(name)
