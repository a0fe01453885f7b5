"""The examples do what they say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from onnxfix.cli.verify import verify

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "examples" / "release.sh"
WORKFLOW = (ROOT / "examples" / "release.yml").read_text(encoding="utf-8")


def release(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs the script with `onnxfix` on the path."""
    (folder / "bin").mkdir(exist_ok=True)
    tool = folder / "bin" / "onnxfix"
    code = "from onnxfix.cli import run; run()"
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
    tool.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tool.parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(["bash", str(SCRIPT), *words], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns a folder with a model that has a successor."""
    shutil.copy(ROOT / "sample_models" / "conformer_packed.onnx", tmp_path / "old.onnx")
    return tmp_path


def test_a_model_that_passes_is_released(folder: Path) -> None:
    ran = release(folder, "old.onnx", "out/new model.onnx", "reports", "--ticks", "12")
    assert (ran.returncode, ran.stdout) == (0, "released out/new model.onnx\n")
    assert sorted(path.name for path in (folder / "reports").iterdir()) == ["verify.html", "verify.md", "verify.xml"]
    assert [path.name for path in (folder / "out").iterdir()] == ["new model.onnx"]
    assert "over 12 ticks, all equal to the bit" in (folder / "reports" / "verify.md").read_text(encoding="utf-8")
    assert len(onnx.load(folder / "out" / "new model.onnx").graph.output) == 8


def test_a_model_that_does_not_is_not(folder: Path) -> None:
    ran = release(folder, "old.onnx", "new.onnx", "reports", "--ticks", "0")
    assert ran.returncode == 4
    assert ran.stderr.endswith("not released: see reports/verify.html\n")
    assert sorted(path.name for path in folder.iterdir()) == ["bin", "old.onnx", "reports"]
    assert "nothing is proven" in (folder / "reports" / "verify.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("words", "code"), [((), 2), (("old.onnx",), 2), (("no.onnx", "new.onnx"), 3)])
def test_what_goes_wrong_before_is_told_by_the_exit_code(folder: Path, words: tuple[str, ...], code: int) -> None:
    assert release(folder, *words).returncode == code
    assert not (folder / "new.onnx").exists()


def test_a_failure_leaves_no_reports_of_an_earlier_run(folder: Path) -> None:
    assert release(folder, "old.onnx", "new.onnx", "--ticks", "2").returncode == 0
    before = (folder / "new.onnx").read_bytes()
    assert len(list((folder / "reports").iterdir())) == 3
    assert release(folder, "no.onnx", "new.onnx").returncode == 3
    assert list((folder / "reports").iterdir()) == []
    ran = release(folder, "old.onnx", "new.onnx", "--atol", "nan")
    assert (ran.returncode, ran.stderr.splitlines()[-1]) == (2, "not released")
    assert sorted(path.name for path in folder.iterdir()) == ["bin", "new.onnx", "old.onnx", "reports"]
    assert (folder / "new.onnx").read_bytes() == before


def test_the_script_pleases_shellcheck() -> None:
    for tool in filter(None, [shutil.which("shellcheck")]):
        assert subprocess.run([tool, str(SCRIPT)], capture_output=True, text=True).stdout == ""


def test_the_workflow_uses_what_is_there() -> None:
    (command,) = re.findall(r"scripts/release\.sh (.*)", WORKFLOW)
    options = [word for word in command.split() if word.startswith("--")]
    known = {option for parameter in verify.params for option in parameter.opts}
    assert options
    assert set(options) <= known
    reports = re.findall(r"reports/([\w.]+)", WORKFLOW)
    assert set(reports) == {"verify.md"}
    assert "$reports/verify.md" in SCRIPT.read_text()
