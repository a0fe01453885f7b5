"""Zoos and destinations in a store that speaks S3: the same tree and journal, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dask_cluster import Programs, kill
from distant import everything, names, shown, told, unseen, upload
from s3_server import READER, Server
from zoo_models import NEW, OLD, ONNXFIX, PLAIN, command, journal, make_zoo, tree, with_shared_data

_NAMES = itertools.count()
_TO = ("--to", "silero-hc", "--no-verify")


@pytest.fixture
def bucket(server: Server) -> str:
    """Returns the URL of a new bucket."""
    import s3fs

    name = f"bucket-{next(_NAMES)}"
    s3fs.S3FileSystem().mkdir(name)
    return f"s3://{name}"


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Returns where temporary files lie; none stays there."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    assert not [path for path in folder.iterdir() if "onnxfix" in path.name]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a zoo in a folder: models that share data, broken, unchanged and plain ones, and other files."""
    folder = tmp_path_factory.mktemp("zoos") / "zoo"
    make_zoo(folder, {"a.onnx": OLD, "sub/new.onnx": NEW, "p [1] ü%*?#.onnx": PLAIN, "z/z.onnx": OLD})
    with_shared_data(folder / "s", "x.onnx", "y.onnx", location="data/w.bin")
    (folder / "cut.onnx").write_bytes(b"\x08\x08")
    (folder / "sub" / "tokens.txt").write_text("t")
    (folder / "onnxfix.toml").write_text('[[rule]]\nmodels = "z/*"\nticks = 9')
    return folder


@pytest.fixture(scope="module")
def expected(zoo: Path) -> tuple[dict[str, bytes], dict[str, dict[str, object]]]:
    """Returns the tree and the journal of the same zoo, migrated on this machine."""
    out = zoo.parent / "expected"
    assert command(zoo, out, *_TO).returncode == 3
    return tree(out), journal(out)


def _run(words: tuple[object, ...], code: int, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    ran = subprocess.run(
        [*ONNXFIX, "migrate", *map(str, words), "--jobs", "1", "--state", str(home)],
        capture_output=True, text=True, timeout=120, env={**os.environ, **variables},
    )  # fmt: skip
    assert ran.returncode == code, ran.stderr
    return ran


def _migrate(*words: object, code: int = 3, home: Path, **variables: str) -> dict[str, object]:
    """Runs `onnxfix migrate`, and returns what it tells programs."""
    return dict(json.loads(_run((*words, "--json"), code, home, **variables).stdout))


def _error(*words: object, code: int, home: Path, **variables: str) -> str:
    """Returns the one error that a command ends with."""
    error = _run(words, code, home, **variables).stderr
    assert error.count("error:") == 1, error
    assert len(error.splitlines()) == 2, error
    return error


def _state(home: Path) -> set[str]:
    return {path.name for path in home.glob("*/*")} - {"report.html", "report.json", "report.csv", "junit.xml"}


def test_from_a_bucket_and_into_one(zoo: Path, bucket: str, expected: tuple[object, object], tmp_path: Path) -> None:
    upload(zoo, f"{bucket}/zoo")
    before = everything(f"{bucket}/zoo")
    out, home = f"{bucket}/out", tmp_path / "home"
    checked = _migrate(f"{bucket}/zoo", out, *_TO, "--check", home=home)
    assert checked["counts"] == {"would-change": 4, "unchanged": 1, "skipped": 1, "failed": 1}
    assert everything(bucket).keys() == {f"zoo/{path}" for path in before}
    first = _migrate(f"{bucket}/zoo", out, *_TO, home=home)
    assert (first["kept"], first["copied"]) == (0, 1)
    assert (shown(out), told(out, tmp_path), unseen(out)) == (*expected, {"journal.sqlite"})
    assert _state(home) == {"id", "journal.origin", "journal.sqlite", "lock"}
    again = _migrate(f"{bucket}/zoo", out, *_TO, home=tmp_path / "another machine")
    assert (again["kept"], again["copied"]) == (6, 0)
    _migrate(f"{bucket}/zoo", tmp_path / "out", *_TO, home=home)
    assert (tree(tmp_path / "out"), journal(tmp_path / "out")) == expected
    assert everything(f"{bucket}/zoo") == before


def test_proven_and_reported(zoo: Path, bucket: str, tmp_path: Path) -> None:
    upload(zoo / "s", f"{bucket}/zoo")
    out, home = f"{bucket}/out", tmp_path / "home"
    _migrate(f"{bucket}/zoo", out, *_TO, home=home, code=0)
    before = everything(out)
    reader = {"AWS_ACCESS_KEY_ID": READER.key, "AWS_SECRET_ACCESS_KEY": READER.secret}  # who may write nothing
    proven = _migrate("--verify-only", out, home=tmp_path / "another", code=0, **reader)
    assert proven["counts"] == {"verified": 2}
    assert everything(out) == before
    words = [*ONNXFIX, "report", out, "--state", str(tmp_path / "third")]
    subprocess.run([*words, "--csv", str(tmp_path / "t.csv")], check=True, env={**os.environ, **reader})
    assert "y.onnx" in (tmp_path / "t.csv").read_text()
    subprocess.run(words, check=True, stderr=subprocess.PIPE)
    assert everything(out).keys() == before.keys()
    refused = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **reader})
    assert (refused.returncode, "access is refused" in refused.stderr) == (3, True)


# Whatever happens meanwhile.


def _until(seen: Callable[[set[str]], bool], out: str, process: subprocess.Popen[bytes]) -> None:
    """Waits until something is seen at a destination."""
    while not seen(names(out)):
        assert process.poll() is None, "it was done before"
        time.sleep(0.01)


def _is_staged(found: set[str]) -> bool:
    return any("/stage/" in path for path in found)


def _has_shown(count: int) -> Callable[[set[str]], bool]:
    return lambda found: sum(path.endswith(".onnx") and "/stage/" not in path for path in found) >= count


def test_killed_at_several_moments_it_ends_as_if_undisturbed(
    zoo: Path, bucket: str, expected: tuple[object, object], tmp_path: Path
) -> None:
    upload(zoo, f"{bucket}/zoo")
    out, home = f"{bucket}/out", tmp_path / "home"
    words = [*ONNXFIX, "migrate", f"{bucket}/zoo", out, *_TO, "--jobs", "2", "--quiet", "--state", str(home)]
    for moment in (lambda found: ".onnxfix/lease.json" in found, _is_staged, _has_shown(3)):
        with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
            _until(moment, out, process)
            process.kill()
        # What people see is whole, and nothing that they should not see is there.
        seen = shown(out)
        assert seen.items() <= expected[0].items()  # type: ignore[attr-defined]
    _migrate(f"{bucket}/zoo", out, *_TO, home=home)
    assert (shown(out), told(out, tmp_path), unseen(out)) == (*expected, {"journal.sqlite"})
    assert _state(home) == {"id", "journal.origin", "journal.sqlite", "lock"}


def test_a_server_that_fails_ends_the_run_and_the_next_one_goes_on(
    zoo: Path, bucket: str, server: Server, expected: tuple[object, object], tmp_path: Path
) -> None:
    upload(zoo, f"{bucket}/zoo")
    out, home = f"{bucket}/out", tmp_path / "home"
    words = [*ONNXFIX, "migrate", f"{bucket}/zoo", out, *_TO, "--jobs", "1", "--quiet", "--state", str(home)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        _until(_has_shown(2), out, process)  # type: ignore[arg-type]
        server.kill()
        try:
            _, error = process.communicate(timeout=120)
        finally:
            server.start()
    assert (process.returncode, error.count("error:")) == (3, 1), error
    assert "the store does not answer" in error
    assert "run the same command again" in error
    assert server.url not in " ".join(shown(out))
    _migrate(f"{bucket}/zoo", out, *_TO, home=home)
    assert (shown(out), told(out, tmp_path), unseen(out)) == (*expected, {"journal.sqlite"})


def test_two_migrations_of_one_bucket_at_once_are_refused(
    zoo: Path, bucket: str, expected: tuple[object, object], tmp_path: Path
) -> None:
    out, home = f"{bucket}/out", tmp_path / "home"
    words = [*ONNXFIX, "migrate", str(zoo), out, *_TO, "--quiet", "--jobs", "1", "--state", str(home)]
    hang = {**os.environ, "ONNXFIX_TEST_FAULT": "hang:z.onnx"}
    with subprocess.Popen(words, stderr=subprocess.DEVNULL, env=hang) as process:
        _until(_has_shown(2), out, process)
        for other in (home, tmp_path / "another machine"):
            error = _error(zoo, out, *_TO, code=2, home=other)
            assert f"another migration is at work here: process {process.pid} on" in error
            assert "wait until it ends" in error
        _until(_has_shown(5), out, process)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
    assert unseen(out) == {"journal.sqlite"}  # it was handed over: another machine goes on at once
    assert _migrate(zoo, out, *_TO, home=tmp_path / "another machine")["kept"] == 5
    assert (shown(out), told(out, tmp_path), unseen(out)) == (*expected, {"journal.sqlite"})


def test_workers_of_a_cluster_read_and_write_the_store_themselves(
    zoo: Path, bucket: str, expected: tuple[object, object], tmp_path: Path
) -> None:
    upload(zoo, f"{bucket}/zoo")
    out, state = f"{bucket}/out", str(tmp_path / "home")
    with Programs(tmp_path) as programs:
        lost = programs.add("--no-nanny")
        programs.add("--no-nanny")
        words = [*ONNXFIX, "migrate", f"{bucket}/zoo", out, *_TO, "--scheduler", programs.address, "--state", state]
        with subprocess.Popen([*words, "--quiet"], stderr=subprocess.PIPE) as process:
            _until(_is_staged, out, process)
            kill(lost)
            assert process.wait(120) == 3, process.stderr.read() if process.stderr else ""
    assert (shown(out), told(out, tmp_path), unseen(out)) == (*expected, {"journal.sqlite"})


# What is refused.


def test_what_cannot_be_reached_is_one_clear_error(zoo: Path, bucket: str, tmp_path: Path) -> None:
    upload(zoo, f"{bucket}/zoo")
    home, out = tmp_path / "home", tmp_path / "out"
    reader = {"AWS_ACCESS_KEY_ID": READER.key, "AWS_SECRET_ACCESS_KEY": READER.secret}
    wrong = {"AWS_SECRET_ACCESS_KEY": "none-of-the-secrets"}
    nobody = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "HOME": str(tmp_path)}
    nowhere = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    for words, code, variables, message, hint in (
        ((f"{bucket}-none/zoo", out), 2, {}, "there is no such folder, file or glob", "name the bucket"),
        ((zoo, f"{bucket}-none/out"), 3, {}, "there is no such file, folder or bucket", "look at its name"),
        ((f"{bucket}/none", out), 2, {}, "there is no such folder, file or glob", "name the bucket"),
        ((zoo, f"{bucket}/out"), 3, reader, "access is refused", "credentials and their rights"),
        ((f"{bucket}/zoo", out), 3, wrong, "access is refused", "credentials and their rights"),
        ((f"{bucket}/zoo", out), 3, nobody, "there are no credentials", "credentials and their rights"),
        ((f"{bucket}/zoo", out), 3, nowhere, "the store does not answer", "see that it can be reached"),
    ):
        error = _error(*words, *_TO, code=code, home=home, **variables)
        place = next(str(word) for word in words if "s3://" in str(word))
        assert f"error: {place}: {message}" in error, error
        assert hint in error, error
        assert "none-of-the-secrets" not in error
        assert not out.exists()
    assert {path.partition("/")[0] for path in everything(bucket)} == {"zoo"}
    with contextlib.suppress(FileNotFoundError):
        assert not list(home.glob("*/journal.sqlite"))
