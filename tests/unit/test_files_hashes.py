"""Hashes of models' files: each file is read once, until it changes."""

import json
import time

import pytest
from shinymas_loha.loha.errors import FileError
from shinymas_loha.loha.files import hashes as hashing
from shinymas_loha.loha.files.hashes import HashLedger, file_hashes


@pytest.fixture
def read_files(monkeypatch):
    """Names of the files that were hashed; all count as settled at once."""
    read, hashes = [], hashing.file_hashes
    monkeypatch.setattr(hashing, "_SETTLED", 0)
    monkeypatch.setattr(hashing, "file_hashes", lambda path, *more: (read.append(path.name), hashes(path, *more))[1])
    return read


def test_a_models_file_is_hashed_once_until_it_changes(tmp_path, read_files):
    model, kept = tmp_path / "モデル", tmp_path / "user" / "hashes.json"
    for content in (b"a", b"b"):
        model.write_bytes(content)
        for _ in range(2):
            time.sleep(0.01)
            assert HashLedger(kept).hashes(model) == file_hashes(model)
    (tmp_path / "other").write_bytes(b"c")
    time.sleep(0.01)
    model.unlink()
    HashLedger(kept).hashes(tmp_path / "other")
    assert read_files == ["モデル", "モデル", "other"]
    assert "other" in kept.read_text() and len(json.loads(kept.read_text())["files"]) == 1, "what is gone is forgotten"


@pytest.mark.parametrize("damage", [
    b"", b"[]", b"{", b'{"layout": 1}', b'{"layout": 1, "files": []}', b'{"layout": 2, "files": {}}', b"\xff",
    b'{"layout": 1, "files": {"WHERE": [1, 2, 3, 4, "0", "0"]}}', b"[" * 100_000])
def test_a_ledger_that_is_none_is_written_anew(tmp_path, read_files, damage):
    model, kept = tmp_path / "model", tmp_path / "hashes.json"
    model.write_bytes(b"x")
    time.sleep(0.01)
    kept.write_bytes(damage.replace(b"WHERE", str(model).encode()))
    assert HashLedger(kept).hashes(model) == HashLedger(kept).hashes(model) == file_hashes(model)
    assert read_files == ["model"]


def test_a_file_that_was_just_written_is_not_remembered(tmp_path):
    (tmp_path / "model").write_bytes(b"x")
    HashLedger(tmp_path / "hashes.json").hashes(tmp_path / "model")
    assert not (tmp_path / "hashes.json").exists()


def test_where_no_ledger_can_be_kept_hashes_are_told_all_the_same(tmp_path, read_files):
    (tmp_path / "model").write_bytes(b"x")
    time.sleep(0.01)
    assert HashLedger(tmp_path / "model" / "hashes.json").hashes(tmp_path / "model") == file_hashes(tmp_path / "model")


def test_hashing_tells_how_far_it_is_and_can_be_ended(tmp_path, read_files, monkeypatch):
    monkeypatch.setattr(hashing, "_BLOCK", 4)
    (tmp_path / "model").write_bytes(b"0123456789")
    told = []
    file_hashes(tmp_path / "model", lambda done, total: told.append((done, total)))
    assert told == [(4, 10), (8, 10), (10, 10)]

    def cancel(done, total):
        raise RuntimeError

    ledger = HashLedger(tmp_path / "hashes.json")
    with pytest.raises(RuntimeError):
        ledger.hashes(tmp_path / "model", cancel)
    assert not (tmp_path / "hashes.json").exists()


def test_what_is_no_file_of_a_model_is_a_sentence(tmp_path):
    for path in (tmp_path, tmp_path / "gone"):
        with pytest.raises(FileError):
            HashLedger(tmp_path / "hashes.json").hashes(path)
