"""Files: whole or not at all, and nothing earlier lost."""

import errno
import os
import threading
from pathlib import Path

import pytest

from expunge.errors import OutputError
from expunge.files import RESULT, check_free, file_hash, lock, new_folder, settle, write_sum, write_text


def fail_while_writing(path: Path, *, overwrite: bool) -> None:
    with new_folder(path, overwrite=overwrite) as folder:
        (folder / "half.txt").write_text("half")
        raise KeyError


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    with new_folder(tmp_path / "deep" / "run", overwrite=False) as folder:
        (folder / "a.txt").write_text("a")
        assert not (tmp_path / "deep" / "run").exists()
    assert (tmp_path / "deep" / "run" / "a.txt").read_text() == "a"
    assert os.listdir(tmp_path / "deep") == ["run"]


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        fail_while_writing(tmp_path / "run", overwrite=False)
    assert os.listdir(tmp_path) == []


def test_an_earlier_result_is_kept_unless_overwritten(tmp_path: Path) -> None:
    write_text(tmp_path / "result.json", "old", overwrite=False)
    message = "expected nothing at .*result.json, got an earlier result: choose another, or add --overwrite"
    with pytest.raises(OutputError, match=message):
        write_text(tmp_path / "result.json", "new", overwrite=False)
    assert (tmp_path / "result.json").read_text() == "old"
    write_text(tmp_path / "result.json", "new", overwrite=True)
    assert (tmp_path / "result.json").read_text() == "new"
    assert os.listdir(tmp_path) == ["result.json"]


def test_an_earlier_folder_survives_a_failed_overwrite(tmp_path: Path) -> None:
    with new_folder(tmp_path / "run", overwrite=False) as folder:
        (folder / "a.txt").write_text("old")
        write_sum(folder / "a.txt")
    with pytest.raises(KeyError):
        fail_while_writing(tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "a.txt").read_text() == "old"
    with new_folder(tmp_path / "run", overwrite=True) as folder:
        (folder / "b.txt").write_text("new")
    assert os.listdir(tmp_path / "run") == ["b.txt"]
    assert os.listdir(tmp_path) == ["run"]


def test_a_folder_of_other_files_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("of years")
    with pytest.raises(OutputError, match=r"got a folder of other files at .*thesis"):
        check_free(tmp_path / "thesis", overwrite=True)


def test_an_empty_folder_counts_as_free(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    check_free(tmp_path / "run", overwrite=False)


def test_a_place_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"expected a folder that can be written, got .*file for "):
        check_free(tmp_path / "file" / "run", overwrite=False)


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "result.json", "old", overwrite=False)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"expected to write .*result.json, got: No space left on device"):
        write_text(tmp_path / "result.json", "new", overwrite=True)
    assert (tmp_path / "result.json").read_text() == "old"
    assert os.listdir(tmp_path) == ["result.json"]


def test_a_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_hash(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_replacement_that_was_cut_off_between_its_renames_is_finished(tmp_path: Path) -> None:
    for name, text in ((".run-new-abcdefgh", "new"), (".run-new-abcdefgh-old", "old")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(text)
    settle(tmp_path / "run")
    assert os.listdir(tmp_path) == ["run"]
    assert (tmp_path / "run" / "a.txt").read_text() == "new"


def test_an_old_folder_whose_new_one_is_gone_is_put_back(tmp_path: Path) -> None:
    (tmp_path / ".run-new-abcdefgh-old").mkdir()
    settle(tmp_path / "run")
    assert os.listdir(tmp_path) == ["run"]


def test_an_old_folder_that_is_half_removed_is_never_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / ".run-new-abcdefgh-old").mkdir()
    (tmp_path / ".run-new-abcdefgh-old" / "half.txt").write_text("half")
    with monkeypatch.context() as killed:
        killed.setattr("shutil.rmtree", lambda *_, **__: None)
        settle(tmp_path / "run")
    (tmp_path / "run").rmdir()  # as between the two renames of another writer
    settle(tmp_path / "run")
    assert os.listdir(tmp_path) == []


def test_files_are_written_where_the_file_system_has_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", unsupported)
    (tmp_path / ".run-new-abcdefgh").mkdir()
    for text in "ab":
        with new_folder(tmp_path / "run", overwrite=True) as folder:
            (folder / RESULT).write_text(text)
            settle(tmp_path / "run")
        write_text(tmp_path / "file", text, overwrite=True)
    assert [(tmp_path / name).read_text() for name in ("run/result.json", "file")] == ["b", "b"]
    assert sorted(os.listdir(tmp_path)) == [".run-new-abcdefgh", "file", "run"]  # it may be a living one's
    handle = lock(tmp_path / "run")
    assert handle is not None
    os.close(handle)


def test_leftovers_of_dead_processes_go_and_the_work_of_living_ones_stays(tmp_path: Path) -> None:
    (tmp_path / ".run-new-abcdefgh").mkdir()
    (tmp_path / ".run-precious").mkdir()
    with new_folder(tmp_path / "run", overwrite=False) as living:
        settle(tmp_path / "run")
        assert {path.name for path in tmp_path.iterdir()} == {living.name, ".run-precious"}
    assert sorted(os.listdir(tmp_path)) == [".run-precious", "run"]


def test_writers_at_the_same_time_replace_one_another_and_leave_nothing_else(tmp_path: Path) -> None:
    failed: list[BaseException] = []

    def write(path: Path) -> None:
        try:
            for _ in range(5):
                with new_folder(path, overwrite=True) as folder:
                    for name in "ab":
                        (folder / name).write_text(name)
                    write_sum(folder / "a")
        except BaseException as error:
            failed.append(error)

    for trial in range(20):
        path = tmp_path / str(trial) / "result"
        writers = [threading.Thread(target=write, args=(path,)) for _ in range(6)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert os.listdir(path.parent) == ["result"]
        assert sorted(os.listdir(path)) == ["SHA256SUMS", "a", "b"]
    assert failed == []
