"""What is written where, and that nothing else changes: not even when the disk is full or the process dies."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from onnxfix.errors import DataFileError, ModelWriteError
from onnxfix.model import atomic, encoding
from onnxfix.model.model import Model
from tests.model.files import CORPUS, contents, external, rich_model, sum_model, tensor, with_data, written

X = np.array([1, 2, 3, 4], np.float32)


def run(path: Path) -> list[float]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [float(value) for value in session.run(None, {"x": X})[0]]


def test_an_untouched_model_is_written_with_the_bytes_that_were_read(tmp_path: Path) -> None:
    # Fields in another order than the one that protobuf writes, which means the same.
    parts = onnx.ModelProto(), onnx.ModelProto()
    parts[0].CopyFrom(sum_model(tensor("w", X)))
    parts[0].ClearField("ir_version")
    parts[1].ir_version = 8
    unusual = parts[0].SerializeToString() + parts[1].SerializeToString()
    source = tmp_path / "model.onnx"
    source.write_bytes(unusual)
    assert onnx.load(source).SerializeToString() != unusual
    Model.load(source).save(tmp_path / "new.onnx")
    assert (tmp_path / "new.onnx").read_bytes() == unusual
    model = Model.load(source)
    model.set_metadata("a", "b")
    model.save(tmp_path / "new.onnx")
    assert Model.load(tmp_path / "new.onnx").metadata == {"a": "b"}


def test_fields_that_onnx_does_not_know_survive(tmp_path: Path) -> None:
    future = b"\xfa\x3f\x06future"
    source = tmp_path / "model.onnx"
    source.write_bytes(sum_model(tensor("w", X)).SerializeToString() + future)
    model = Model.load(source)
    model.set_metadata("a", "b")
    model.save(source)
    assert future in source.read_bytes()


def test_old_and_new_may_be_one_file(tmp_path: Path) -> None:
    source = with_data(tmp_path)
    model = Model.load(source)
    model.proto.doc_string = "new"
    model.save(source)
    assert Model.load(source).proto.doc_string == "new"
    assert sorted(contents(tmp_path)) == ["model.data", "model.onnx"]


def test_in_its_own_folder_a_model_shares_its_data(tmp_path: Path) -> None:
    source = with_data(tmp_path)
    before = (tmp_path / "model.data").stat()
    Model.load(source).save(tmp_path / "new.onnx")
    after = (tmp_path / "model.data").stat()
    assert (before.st_ino, before.st_mtime_ns, after.st_nlink) == (after.st_ino, after.st_mtime_ns, 1)
    assert run(tmp_path / "new.onnx") == [3, 4, 5, 6]


def test_elsewhere_its_data_is_copied(tmp_path: Path) -> None:
    source = with_data(tmp_path / "old", data="sub/model.data")
    (tmp_path / "new").mkdir()
    Model.load(source).save(tmp_path / "new" / "model.onnx")
    assert contents(tmp_path / "new") == contents(tmp_path / "old")
    assert (tmp_path / "new/sub/model.data").stat().st_ino != (tmp_path / "old/sub/model.data").stat().st_ino
    assert not (tmp_path / "new/sub/model.data").is_symlink()
    assert run(tmp_path / "new/model.onnx") == [3, 4, 5, 6]


def test_a_hole_in_a_data_file_stays_a_hole(tmp_path: Path) -> None:
    size = 64 << 20
    with (tmp_path / "model.data").open("wb") as data:
        data.seek(size - 16)
        data.write(X.tobytes())
    location = external("w", [4], location="model.data", offset=size - 16, length=16)
    source = written(tmp_path / "model.onnx", sum_model(location))
    (tmp_path / "new").mkdir()
    Model.load(source).save(tmp_path / "new/model.onnx")
    assert run(tmp_path / "new/model.onnx") == [2, 4, 6, 8]
    taken = (tmp_path / "model.data").stat().st_blocks
    assert (tmp_path / "new/model.data").stat().st_blocks <= max(taken, 64)


@pytest.mark.parametrize("fault", [errno.EXDEV, errno.EOPNOTSUPP, "copies nothing", "is missing"])
def test_data_is_copied_where_the_kernel_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int | str
) -> None:
    def broken(*_: object) -> int:
        if isinstance(fault, int):
            raise OSError(fault, "cannot")
        return 0

    if fault == "is missing":
        monkeypatch.delattr(os, "copy_file_range", raising=False)
        monkeypatch.delattr(os, "SEEK_DATA", raising=False)
    else:
        monkeypatch.setattr(os, "copy_file_range", broken, raising=False)
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(os.urandom(3 * atomic.CHUNK + 7))
    made = atomic.NewFile(copy)
    made.copy(source)
    made.move(copy)
    assert copy.read_bytes() == source.read_bytes()


def test_data_that_is_there_already_is_kept(tmp_path: Path) -> None:
    source = with_data(tmp_path / "old")
    with_data(tmp_path / "new", name="other.onnx")
    before = (tmp_path / "new/model.data").stat()
    Model.load(source).save(tmp_path / "new/model.onnx")
    assert (tmp_path / "new/model.data").stat().st_mtime_ns == before.st_mtime_ns


def test_two_models_that_name_their_data_alike_fit_into_one_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for fill, name in ((1.0, "a"), (2.0, "b"), (2.0, "b")):
        Model.load(with_data(tmp_path / name, fill=fill)).save(tmp_path / "out" / f"{name}.onnx")
    assert sorted(contents(tmp_path / "out")) == ["a.onnx", "b.model.data", "b.onnx", "model.data"]
    assert run(tmp_path / "out/a.onnx") == [3, 4, 5, 6]
    assert run(tmp_path / "out/b.onnx") == [5, 6, 7, 8]


def test_the_model_in_memory_keeps_the_names_of_its_own_data(tmp_path: Path) -> None:
    model = Model.load(with_data(tmp_path / "old"))
    with_data(tmp_path / "new", fill=7.0)
    before = model.proto.SerializeToString()
    model.save(tmp_path / "new/other.onnx")
    assert model.proto.SerializeToString() == before


def nothing(folder: Path) -> Path:
    return folder / "new.onnx"


def a_folder(folder: Path) -> Path:
    (folder / "new.onnx").mkdir()
    return folder / "new.onnx"


def no_folder(folder: Path) -> Path:
    return folder / "gone" / "new.onnx"


def below_a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file" / "new.onnx"


def its_own_data(folder: Path) -> Path:
    return folder.parent / "old" / "model.data"


def other_data(folder: Path) -> Path:
    for name in ("model.data", "new.model.data"):
        (folder / name).write_bytes(b"of another model")
    return folder / "new.onnx"


def a_read_only_folder(folder: Path) -> Path:
    if os.geteuid() == 0:
        # A place where even root cannot create a file.
        return Path("/proc/new.onnx")
    folder.chmod(0o500)
    return folder / "new.onnx"


def too_long_a_name(folder: Path) -> Path:
    return folder / ("n" * 300 + ".onnx")


def a_name_with_a_nul(folder: Path) -> Path:
    return folder / "a\0b.onnx"


def a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "new.onnx")
    return folder / "new.onnx"


def here(folder: Path) -> Path:
    return Path()


def a_loop(folder: Path) -> Path:
    (folder / "new.onnx").symlink_to(folder / "other.onnx")
    (folder / "other.onnx").symlink_to(folder / "new.onnx")
    return folder / "new.onnx"


def below_a_loop(folder: Path) -> Path:
    return a_loop(folder) / "newer.onnx"


@pytest.mark.parametrize(
    ("destination", "message"),
    [
        (a_folder, "the destination is a folder"),
        (no_folder, "there is no folder"),
        (below_a_file, "there is no folder"),
        (its_own_data, "the destination is a data file of the model"),
        (other_data, "the data file `model.data` cannot be copied: another file of that name stands in"),
        (a_read_only_folder, "cannot be written"),
        (too_long_a_name, "File name too long"),
        (a_name_with_a_nul, "embedded null byte"),
        (a_pipe, "the destination is no regular file"),
        (here, "the destination is a folder"),
        (a_loop, "Too many levels of symbolic links"),
        (below_a_loop, "Too many levels of symbolic links"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_destination_that_cannot_be_written_stays_as_it_is(
    tmp_path: Path, destination: Callable[[Path], Path], message: str
) -> None:
    model = Model.load(with_data(tmp_path / "old"))
    (tmp_path / "new").mkdir()
    path = destination(tmp_path / "new")
    before = contents(tmp_path)
    with pytest.raises(ModelWriteError) as caught:
        model.save(path)
    assert message in caught.value.message
    assert caught.value.where == str(path)
    assert contents(tmp_path) == before


def test_data_that_has_vanished_since_is_reported(tmp_path: Path) -> None:
    model = Model.load(with_data(tmp_path))
    (tmp_path / "model.data").unlink()
    with pytest.raises(DataFileError, match="is missing"):
        model.save(tmp_path / "new.onnx")
    assert sorted(contents(tmp_path)) == ["model.onnx"]


@pytest.mark.parametrize("limit", [100, 10_000])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, limit: int) -> None:
    # The first limit strikes while the model is written, the second while its data is copied, halfway.
    old = tmp_path / "old"
    old.mkdir()
    (old / "w.data").write_bytes(os.urandom(40_000))
    model = Model.load(written(old / "model.onnx", sum_model(external("w", [10_000], location="w.data"))))
    (tmp_path / "new").mkdir()
    destination = tmp_path / "new/model.onnx"
    destination.write_bytes(b"the old one")
    before = contents(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(ModelWriteError, match="there is not enough space"):
            model.save(destination)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(tmp_path) == before


STEPS = ("open", "write", "fsync", "copy_file_range", "rename", "replace")
"""The functions of `os` that change the disk."""


def count_down(monkeypatch: pytest.MonkeyPatch, step: int, error: BaseException) -> list[int]:
    """Lets the `step`th change of the disk fail; the list counts down to it."""
    left = [step]

    def counting(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **options: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                raise error
            return real(*args, **options)

        return call

    for name in STEPS:
        monkeypatch.setattr(os, name, counting(getattr(os, name)))
    return left


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_at_whatever_step_it_fails_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    model = Model.load(with_data(tmp_path / "old"))
    (tmp_path / "new").mkdir()
    destination = tmp_path / "new/model.onnx"
    failed = 0
    for step in range(1, 100):
        destination.write_bytes(b"the old one")
        (tmp_path / "new/model.data").unlink(missing_ok=True)
        before = contents(tmp_path)
        with monkeypatch.context() as patch:
            left = count_down(patch, step, error)
            with contextlib.suppress(ModelWriteError, KeyboardInterrupt):
                model.save(destination)
        if left[0] > 0:
            break
        if destination.read_bytes() == b"the old one":
            failed += 1
            assert contents(tmp_path) == before, f"step {step}"
        else:
            # Where the model is in place, it is complete, and there is no rest of anything.
            assert run(destination) == [3, 4, 5, 6]
            assert sorted(contents(tmp_path / "new")) == ["model.data", "model.onnx"]
    assert failed >= 8
    assert run(destination) == [3, 4, 5, 6]


KILLED = """
import os, sys
from pathlib import Path
from onnxfix.model.model import Model

source, destination = Path(sys.argv[1]), Path(sys.argv[2])
names = sys.argv[3].split(",")
step = 0
while True:
    step += 1
    child = os.fork()
    if child == 0:
        left = step
        def dying(real):
            def call(*args, **options):
                global left
                left -= 1
                if left == 0:
                    os._exit(9)
                return real(*args, **options)
            return call
        model = Model.load(source)
        for name in names:
            setattr(os, name, dying(getattr(os, name)))
        model.save(destination)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(step, code, destination.read_bytes() == b"the old one", flush=True)
    if code == 0:
        break
"""


def test_whenever_it_is_killed_the_destination_is_old_or_new(tmp_path: Path) -> None:
    source = with_data(tmp_path / "old")
    before = contents(tmp_path / "old")
    (tmp_path / "new").mkdir()
    destination = tmp_path / "new/model.onnx"
    destination.write_bytes(b"the old one")
    command = [sys.executable, "-c", KILLED, str(source), str(destination), ",".join(STEPS)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    outcomes = [line.split()[1:] for line in lines]
    # Killed again and again: first the old file stands, then, complete, the new one.
    assert outcomes[0] == ["9", "True"]
    assert outcomes[-1] == ["0", "False"]
    assert [old for _, old in outcomes] == sorted((old for _, old in outcomes), reverse=True)
    assert contents(tmp_path / "old") == before
    assert run(destination) == [3, 4, 5, 6]


def test_a_staged_model_runs_before_it_is_visible(tmp_path: Path) -> None:
    model = Model.load(with_data(tmp_path / "old"))
    (tmp_path / "new").mkdir()
    with model.stage(tmp_path / "new/model.onnx") as staged:
        assert run(staged.path) == [3, 4, 5, 6]
        assert staged.path.parent == staged.destination.parent
        assert not staged.destination.exists()
    assert contents(tmp_path / "new") == {}
    with model.stage(tmp_path / "new/model.onnx") as staged:
        staged.commit()
    assert sorted(contents(tmp_path / "new")) == ["model.data", "model.onnx"]


def modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


@pytest.mark.parametrize(("mode", "kept"), [(0o600, 0o600), (0o640, 0o640), (0o666, 0o644), (0o444, 0o444)], ids=oct)
def test_new_files_have_the_permissions_of_those_they_are_made_from(tmp_path: Path, mode: int, kept: int) -> None:
    source = with_data(tmp_path / "old")
    for path in (source, tmp_path / "old/model.data"):
        path.chmod(mode)
    (tmp_path / "new").mkdir()
    before = os.umask(0o022)
    try:
        Model.load(source).save(tmp_path / "new/new.onnx")
    finally:
        os.umask(before)
    assert modes(tmp_path / "new") == {"new.onnx": kept, "model.data": kept}
    assert modes(tmp_path / "old") == {"model.onnx": mode, "model.data": mode}


def test_what_stands_at_the_destination_lends_its_permissions(tmp_path: Path) -> None:
    model = Model.load(with_data(tmp_path))
    for mode in (0o600, 0o664, 0o444):
        (tmp_path / "new.onnx").touch()
        (tmp_path / "new.onnx").chmod(mode)
        model.save(tmp_path / "new.onnx")
        assert modes(tmp_path)["new.onnx"] == mode
    (tmp_path / "usual").touch()
    Model.from_proto(sum_model(tensor("w", X))).save(tmp_path / "memory.onnx")
    assert modes(tmp_path)["memory.onnx"] == modes(tmp_path)["usual"]


def test_what_a_killed_run_has_left_is_swept_away(tmp_path: Path) -> None:
    source = with_data(tmp_path / "old")
    (tmp_path / "new").mkdir()
    code = (
        "import os, sys; from onnxfix.model.model import Model; staged = Model.load(sys.argv[1]).stage(sys.argv[2])\n"
    )
    killed = [sys.executable, "-c", code + "os.kill(os.getpid(), 9)", str(source), f"{tmp_path}/new/model.onnx"]
    for _ in range(2):
        assert subprocess.run(killed).returncode == -9
    left = [path.name for path in (tmp_path / "new").glob(".*")]
    assert len(left) == 1, "the second has swept away what the first has left"
    other = tmp_path / "new/.model.onnxfix-0123456789abcdef.onnx"
    other.touch()
    (tmp_path / "new/.model.onnxfix-0123456789ab.data").touch()
    with Model.load(source).stage(tmp_path / "new/other.onnx"):
        assert (tmp_path / "new" / left[0]).exists(), "it belongs to another destination"
    Model.load(source).save(tmp_path / "new/model.onnx")
    assert sorted(contents(tmp_path / "new")) == sorted([
        other.name, ".model.onnxfix-0123456789ab.data", "model.data", "model.onnx",
    ])  # fmt: skip


def test_what_another_run_is_busy_with_stays(tmp_path: Path) -> None:
    model = Model.load(with_data(tmp_path / "old"))
    (tmp_path / "new").mkdir()
    with model.stage(tmp_path / "new/model.onnx") as first:
        with model.stage(tmp_path / "new/model.onnx") as second:
            second.commit()
        assert first.path.exists()
        first.commit()
    assert run(tmp_path / "new/model.onnx") == [3, 4, 5, 6]
    assert sorted(contents(tmp_path / "new")) == ["model.data", "model.onnx"]


def test_a_link_at_the_destination_is_replaced_not_followed(tmp_path: Path) -> None:
    source = with_data(tmp_path)
    before = source.read_bytes()
    (tmp_path / "new.onnx").symlink_to(source)
    model = Model.load(source)
    model.proto.doc_string = "new"
    model.save(tmp_path / "new.onnx")
    assert source.read_bytes() == before
    assert not (tmp_path / "new.onnx").is_symlink()


def test_a_model_beyond_2_gib_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "LIMIT", 1000)
    model = Model.from_proto(sum_model(tensor("w", np.zeros(1000, np.float32))))
    with pytest.raises(ModelWriteError, match="cannot be larger than 2 GiB") as caught:
        model.save(tmp_path / "new.onnx")
    assert "data file" in caught.value.hint
    assert contents(tmp_path) == {}


def test_a_model_written_in_pieces_is_the_model_written_at_once() -> None:
    unknown = sum_model(tensor("w", X))
    unknown.graph.MergeFromString(b"\xfa\x3f\x06future")
    for model in [*map(onnx.load, CORPUS), rich_model(), unknown, onnx.ModelProto(ir_version=8)]:
        assert b"".join(encoding.encoded(model)) == model.SerializeToString()
