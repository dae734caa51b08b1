"""A picture file is read through once: what is remembered, and when it is not believed."""

import json
import os
import time

import numpy as np
import pytest
from PIL import Image
from shinymas_loha.loha.training.data import DataOptions, FolderOptions, contents, index, index_pictures


@pytest.fixture
def look(tmp_path, monkeypatch):
    """Index `tmp_path/pictures` with a memory: (contents in hex by name, names of the files that were read)."""
    folder, read = tmp_path / "pictures", []
    original = contents._hash
    monkeypatch.setattr(contents, "_hash", lambda path: read.append(path.name) or original(path))

    def run(ledgers=tmp_path / "ledgers", **more):
        read.clear()
        found = index_pictures(DataOptions((FolderOptions(folder),), **more), ledgers=ledgers)
        return dict(zip(found.names, (row.tobytes().hex() for row in found.contents), strict=True)), sorted(read)

    return run


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Three pictures that nobody has touched for a while."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        paint(folder / f"{number}.png", number)
    monkeypatch.setattr(contents, "_SETTLED", -10**9)  # as if they had been there for long
    monkeypatch.setattr(index, "DECODE_UP_TO", 0)  # as if they were many
    return folder


def paint(path, seed):
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)


def test_a_file_is_read_once(look, pictures):
    first, read = look()
    assert read == ["0.png", "1.png", "2.png"]
    assert look() == (first, [])
    assert len(set(first.values())) == 3


def test_without_a_place_to_remember_every_look_reads(look, pictures):
    assert look(None) == look(None)
    assert look(None)[1] == ["0.png", "1.png", "2.png"]


def test_what_was_written_over_is_read_again_even_with_its_size_and_time_put_back(look, pictures):
    before, _ = look()
    path = pictures / "1.png"
    stat, raw = path.stat(), bytearray(path.read_bytes())
    raw[100] ^= 1  # inside the pixels: still a picture of this size
    path.write_bytes(raw)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    after, read = look()
    assert read == ["1.png"]
    assert [name for name in before if before[name] != after[name]] == ["1.png"]


def test_what_was_replaced_by_a_rename_is_read_again(look, pictures):
    before, _ = look()
    Image.new("RGB", (64, 64), "red").save(pictures / "other.tmp", "PNG")
    os.replace(pictures / "other.tmp", pictures / "2.png")
    after, read = look()
    assert read == ["2.png"] and before["2.png"] != after["2.png"]


def test_a_file_that_has_just_changed_is_not_remembered(look, pictures, monkeypatch):
    monkeypatch.setattr(contents, "_SETTLED", 3600 * 10**9)
    look()
    assert look()[1] == ["0.png", "1.png", "2.png"]


def test_few_pictures_are_looked_through_each_time_and_leave_nothing(look, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(index, "DECODE_UP_TO", 3)
    look()
    assert look()[1] == ["0.png", "1.png", "2.png"]
    assert not (tmp_path / "ledgers").exists()


def test_files_that_are_gone_are_forgotten(look, pictures, tmp_path):
    look()
    (pictures / "0.png").unlink()
    look()
    (ledger,) = (tmp_path / "ledgers").iterdir()
    assert sorted(json.loads(ledger.read_bytes())["pictures"]) == ["1.png", "2.png"]


def test_a_cancelled_look_keeps_what_it_has_found(pictures, tmp_path, look, monkeypatch):
    monkeypatch.setattr(index, "_CHUNK", 1)

    def cancel(done, total):
        if done == 2:
            raise KeyboardInterrupt

    options = DataOptions((FolderOptions(pictures),))
    with pytest.raises(KeyboardInterrupt):
        index_pictures(options, cancel, ledgers=tmp_path / "ledgers")
    assert look()[1] == ["2.png"]


@pytest.mark.parametrize("spoil", [
    lambda raw: raw[:-20], lambda raw: b"[]", lambda raw: b"\xff", lambda raw: raw.replace(b"64", b'"64"'),
    lambda raw: raw.replace(b'"layout": 2', b'"layout": 99'), lambda raw: raw.replace(b'"pictures": {', b'"x": {'),
    lambda raw: b"[" * 100_000,
])
def test_a_spoilt_ledger_is_read_past(look, pictures, tmp_path, spoil):
    first, _ = look()
    (ledger,) = (tmp_path / "ledgers").iterdir()
    ledger.write_bytes(spoil(ledger.read_bytes()))
    assert look() == (first, ["0.png", "1.png", "2.png"])
    assert look() == (first, [])


def test_a_place_that_cannot_be_written_stops_nothing(look, pictures, tmp_path):
    (tmp_path / "ledgers").write_text("a file where the folder should be", encoding="utf-8")
    assert look()[1] == ["0.png", "1.png", "2.png"]
    assert look()[1] == ["0.png", "1.png", "2.png"]


def test_folders_of_one_name_in_two_places_do_not_mix(tmp_path, pictures):
    other = tmp_path / "b" / "pictures"
    other.mkdir(parents=True)
    paint(other / "0.png", 5)
    found = [index_pictures(DataOptions((FolderOptions(folder),)), ledgers=tmp_path / "ledgers").contents[0].tobytes()
             for folder in (pictures, other, pictures, other)]
    assert found[0] == found[2] != found[1] == found[3]


def test_looking_at_many_pictures_again_reads_none_of_them(tmp_path, monkeypatch):
    """100 000 of them take seconds the second time; here that not one file is opened again."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    paint(folder / "0.png", 0)
    for number in range(1, 300):
        os.link(folder / "0.png", folder / f"{number}.png")
    time.sleep(0.01)
    monkeypatch.setattr(contents, "_SETTLED", 0)
    monkeypatch.setattr(index, "DECODE_UP_TO", 0)
    options = DataOptions((FolderOptions(folder),))
    first = index_pictures(options, ledgers=tmp_path / "ledgers")

    def never(*args):
        raise AssertionError("opened again")

    monkeypatch.setattr(contents, "read_header", never)
    second = index_pictures(options, ledgers=tmp_path / "ledgers")
    assert np.array_equal(first.contents, second.contents) and len(second) == 300
