import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from threading import Barrier
from unittest.mock import patch

import pytest

from distill.basis.files import is_temporary, whole_file, whole_folder, write_whole

EACH_SHARED = pytest.mark.parametrize("shared", [False, True])


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder by its path, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (".state.json.tmp", True),
        (".000000.tar.1234.tmp", True),
        (".student.old", True),
        ("state.json", False),
        ("notes.tmp", False),
        ("report.old", False),
        (".hidden", False),
    ],
)
def test_temporary_names(name: str, expected: bool) -> None:
    assert is_temporary(name) is expected


@EACH_SHARED
@pytest.mark.parametrize(
    ("content", "expected"), [("ein Stück\n", "ein Stück\n".encode()), (b"\x00\r\n", b"\x00\r\n")]
)
def test_a_file_is_written_whole(
    tmp_path: Path, content: str | bytes, expected: bytes, shared: bool
) -> None:
    for before in (b"the old one, which is longer", None):
        path = tmp_path / "file"
        if before is None:
            path.unlink()
        write_whole(path, content, shared=shared)
        assert contents(tmp_path) == {"file": expected}


@EACH_SHARED
def test_a_file_appears_only_at_the_end(tmp_path: Path, shared: bool) -> None:
    with whole_file(tmp_path / "file", shared=shared) as temporary:
        temporary.write_text("half")
        assert not (tmp_path / "file").exists()
        assert is_temporary(temporary.name)
        temporary.write_text("whole")
    assert contents(tmp_path) == {"file": b"whole"}


@EACH_SHARED
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [{}, {"file": b"old"}])
def test_nothing_is_left_of_a_file_that_fails(
    tmp_path: Path, error: type[BaseException], before: dict[str, bytes], shared: bool
) -> None:
    for name, content in before.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error):
        _half_a_file(tmp_path / "file", error, shared=shared)
    assert contents(tmp_path) == before


def _half_a_file(path: Path, error: type[BaseException], *, shared: bool) -> None:
    with whole_file(path, shared=shared) as temporary:
        temporary.write_text("half")
        raise error


def test_a_file_that_cannot_be_renamed_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="file"):
        write_whole(tmp_path / "file", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_text_that_is_not_unicode_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "file", "\udcff")
    assert contents(tmp_path) == {}


def test_a_folder_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "missing" / "file", "text")


def test_what_a_killed_process_left_of_a_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".file.tmp").write_text("half of something long")
    write_whole(tmp_path / "file", "text")
    assert contents(tmp_path) == {"file": b"text"}


@EACH_SHARED
@pytest.mark.parametrize("before", [{}, {"a": b"old", "gone/b": b"old"}])
def test_a_folder_is_replaced_whole(tmp_path: Path, before: dict[str, bytes], shared: bool) -> None:
    path = tmp_path / "parent" / "folder"
    for name, content in before.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    with whole_folder(path, shared=shared) as new:
        assert list(new.iterdir()) == []
        (new / "a").write_bytes(b"new")
        if before:
            assert contents(path) == before
        else:
            assert not path.exists()
    assert contents(tmp_path / "parent") == {"folder/a": b"new"}


@EACH_SHARED
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [{}, {"folder/a": b"old"}])
def test_nothing_is_left_of_a_folder_that_fails(
    tmp_path: Path, error: type[BaseException], before: dict[str, bytes], shared: bool
) -> None:
    for name, content in before.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error):
        _half_a_folder(tmp_path / "folder", error, shared=shared)
    assert contents(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {Path(name).parts[0] for name in before}


def _half_a_folder(path: Path, error: type[BaseException], *, shared: bool) -> None:
    with whole_folder(path, shared=shared) as new:
        (new / "b").write_bytes(b"half")
        raise error


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_the_old_folder_comes_back_if_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "a").write_bytes(b"old")
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.suffix == ".tmp":
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(error), whole_folder(path) as new:
        (new / "a").write_bytes(b"new")
    assert contents(tmp_path) == {"folder/a": b"old"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


class TestAfterAKill:
    """What the next process finds, and what it leaves."""

    @pytest.fixture
    def kill(self, tmp_path: Path) -> Callable[[str], None]:
        """Replace ``folder`` in a process that dies at the renaming of a kind of name."""

        def kill(suffix: str) -> None:
            process = multiprocessing.get_context("spawn").Process(
                target=_die_at_rename, args=(tmp_path / "folder", suffix)
            )
            process.start()
            process.join()
            assert process.exitcode == 9

        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "a").write_bytes(b"old")
        return kill

    def test_before_the_renames_the_old_folder_is_there(
        self, tmp_path: Path, kill: Callable[[str], None]
    ) -> None:
        kill("")
        assert contents(tmp_path) == {"folder/a": b"old", ".folder.tmp/a": b"new"}
        assert all(is_temporary(path.name) for path in tmp_path.iterdir() if path.name[0] == ".")

    def test_between_the_renames_it_is_put_back_by_the_next_write(
        self, tmp_path: Path, kill: Callable[[str], None]
    ) -> None:
        kill(".tmp")
        assert contents(tmp_path) == {".folder.old/a": b"old", ".folder.tmp/a": b"new"}
        with pytest.raises(ValueError, match="no"), whole_folder(tmp_path / "folder"):
            raise ValueError("no")
        assert contents(tmp_path) == {"folder/a": b"old"}

    @pytest.mark.parametrize("suffix", ["", ".tmp"])
    def test_the_next_write_removes_what_is_left(
        self, tmp_path: Path, kill: Callable[[str], None], suffix: str
    ) -> None:
        kill(suffix)
        with whole_folder(tmp_path / "folder") as new:
            (new / "b").write_bytes(b"newer")
        assert contents(tmp_path) == {"folder/b": b"newer"}
        assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def _die_at_rename(folder: Path, suffix: str) -> None:
    rename = Path.rename

    def die(self: Path, target: Path) -> Path:
        if self.suffix == suffix:
            os._exit(9)
        return rename(self, target)

    with patch.object(Path, "rename", die), whole_folder(folder) as new:
        (new / "a").write_bytes(b"new")


def test_two_processes_may_write_one_file(tmp_path: Path) -> None:
    """Both are half done at the same time; the file ends up with all the content of one."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    processes = [
        context.Process(target=_write_in_halves, args=(tmp_path / "file", letter, barrier))
        for letter in "ab"
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert contents(tmp_path) in ({"file": b"a" * 2000}, {"file": b"b" * 2000})


def _write_in_halves(path: Path, letter: str, barrier: Barrier) -> None:
    with whole_file(path, shared=True) as temporary, temporary.open("w") as file:
        file.write(letter * 1000)
        file.flush()
        barrier.wait(timeout=60)
        file.write(letter * 1000)
