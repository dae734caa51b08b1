"""Folders to an index: repeats, captions, what is left out, and what stops everything."""

import os
from pathlib import Path

import pytest
from PIL import Image
from shinymas_loha.loha.errors import FileError, SettingsError
from shinymas_loha.loha.training.data import (
    CaptionOptions,
    DataOptions,
    FolderOptions,
    TrainingData,
    describe_data,
    folders_digest,
    index_pictures,
)


def _save(path: Path, size=(128, 128), caption: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "red").save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")


def _options(*folders: Path | FolderOptions, **values) -> DataOptions:
    return DataOptions(
        tuple(each if isinstance(each, FolderOptions) else FolderOptions(each) for each in folders),
        **{"resolution": 256, **values},
    )


def test_kohyas_layout_with_repeats_and_names(tmp_path):
    _save(tmp_path / "10_Sakuragi Mano" / "b.png", caption="Sakuragi Mano, smile")
    _save(tmp_path / "10_Sakuragi Mano" / "a.png")
    _save(tmp_path / "2_風野灯織" / "a.png")
    _save(tmp_path / "plain" / "a.png")
    _save(tmp_path / "root.png", caption="")
    _save(tmp_path / "plain" / "deeper" / "never.png")
    _save(tmp_path / ".hidden" / "never.png")
    index = index_pictures(_options(tmp_path))
    assert [(index.folder(at).label, index.names[at], index.folder(at).repeats, index.captions[at])
            for at in range(len(index))] == [
        (tmp_path.name, "root.png", 1, ""),
        ("10_Sakuragi Mano", "a.png", 10, "Sakuragi Mano"),
        ("10_Sakuragi Mano", "b.png", 10, "Sakuragi Mano, smile"),
        ("2_風野灯織", "a.png", 2, "風野灯織"),
        ("plain", "a.png", 1, "plain"),
    ]
    assert index.caption_sources == {"file": 1, "folder": 3, "empty": 1}
    assert len(TrainingData(index, _options(tmp_path))) == 1 + 20 + 2 + 1


def test_a_number_of_repeats_takes_one_folder_alone(tmp_path):
    _save(tmp_path / "5_a" / "a.png")
    _save(tmp_path / "5_a" / "3_b" / "never.png")
    index = index_pictures(_options(FolderOptions(tmp_path / "5_a", repeats=7, name="Mano")))
    assert len(index) == 1 and index.folder(0).repeats == 7 and index.captions == ("Mano",)
    assert index_pictures(_options(tmp_path / "5_a")).folder(0).repeats == 5


def test_caption_files_by_ending(tmp_path):
    for name in ("a", "b", "c.d"):
        _save(tmp_path / f"{name}.png")
    (tmp_path / "a.TXT").write_text("from txt", encoding="utf-8")
    (tmp_path / "a.caption").write_text("from caption", encoding="utf-8")
    (tmp_path / "b.caption").write_text("b", encoding="utf-8")
    (tmp_path / "c.d.txt").write_text("c", encoding="utf-8")
    (tmp_path / "a.png.txt").write_text("a downloader's", encoding="utf-8")
    (tmp_path / "b.png.TXT").write_text("from a downloader", encoding="utf-8")
    assert index_pictures(_options(tmp_path)).captions == ("from txt", "from a downloader", "c")
    chosen = FolderOptions(tmp_path, captions=CaptionOptions(extension=".caption"), name="-")
    assert index_pictures(_options(chosen)).captions == ("from caption", "b", "-")


def test_strange_pictures_are_named_and_the_rest_is_used(tmp_path):
    _save(tmp_path / "good.png")
    _save(tmp_path / "tiny.png", (1, 1))
    _save(tmp_path / "ribbon.png", (64, 640))
    (tmp_path / "half.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "moving.gif").write_bytes(b"GIF89a")
    (tmp_path / "notes.md").write_text("not a picture", encoding="utf-8")
    Image.new("RGB", (64, 64)).save(
        tmp_path / "evil\u202egnp.png", save_all=True, append_images=[Image.new("RGB", (64, 64), "red")])
    options = _options(tmp_path)
    data = TrainingData(index_pictures(options), options)
    lines = describe_data(data).splitlines()
    assert lines[:4] == ["pictures: 1", "shown per epoch: 1", "batches per epoch: 1", "left out: 5"]
    assert all(": " in line for line in lines)
    text = "\n".join(lines)
    for wanted in ("tiny.png: 1×1, smaller than 64 pixels", "ribbon.png: 64×640, longer than 4 times",
                   "half.jpg: ", "moving.gif: gif is not supported", "evil\\u202egnp.png: animated"):
        assert wanted in text
    assert "bucket: 128x128 · 1" in lines and "files not read: 1 .md" in lines


def _described(*folders: Path | FolderOptions) -> list[str]:
    options = _options(*folders)
    return describe_data(TrainingData(index_pictures(options), options)).splitlines()


@pytest.mark.parametrize(("text", "line"), [
    ("black hair\nsmile", "one tag a line: 2 of these files, such as a.png's: taken as one list, joined with commas"),
    ("1girl black_hair red_eyes smile",
     "tags between spaces: 2 of these files, such as a.png's: taken as one list, with commas in between"),
    ("a girl, smiling\na girl, laughing",
     "several lines: 2 of these files, such as a.png's: the first line is the caption, the others are not read"),
])
def test_how_captions_were_understood_is_said(tmp_path, text, line):
    for name in "abc":
        _save(tmp_path / f"{name}.png", caption=text if name != "c" else "black hair, smile")
    said = _described(tmp_path)
    assert said[said.index("captions: 3 from files, 0 from folder names, 0 empty") + 1] == line
    assert len([one for one in said if "of these files" in one]) == 1


def test_pictures_without_captions_are_noted_by_what_they_learn(tmp_path):
    for name in "abc":
        _save(tmp_path / f"{name}.png", caption="smile" if name == "c" else None)
    _save(tmp_path / "sky" / "d.png")
    _save(tmp_path / "captioned" / "e.png", caption="smile")
    note = (f"note: 2 of 4 pictures have no caption beside them: all they teach is their folder's name, "
            f"'{tmp_path.name}'. A caption is a text file with the picture's name; Tag Images writes them")
    # Regularisation pictures are meant to be called as their folder.
    said = _described(FolderOptions(tmp_path, repeats=1), FolderOptions(tmp_path / "sky", repeats=1, is_reg=True))
    assert [line for line in said if line.startswith("note: ")] == [note]
    assert not [line for line in _described(FolderOptions(tmp_path / "sky", repeats=1, is_reg=True),
                                            tmp_path / "captioned") if line.startswith("note: ")]


def test_what_lies_in_the_folders_and_is_not_used_is_named(tmp_path):
    _save(tmp_path / "1_a" / "good.png", caption="good")
    _save(tmp_path / "1_a" / "deeper" / "never.png")
    for name in ("a.jpe", "b.JFIF", "c.apng", "d.jp2", "e.psd", "f.avif", "g.JXL", "h.bmp", "c.txt", "good.json",
                 "good.caption", "other.json", "other.txt", "noending"):
        (tmp_path / "1_a" / name).write_bytes(b"x")
    lines = _described(tmp_path)
    folder = tmp_path / "1_a"
    assert [line for line in lines if "a/" in line] == [
        f"left out: {folder}/a.jpe: jpe is not read: rename it to .jpg",
        f"left out: {folder}/b.JFIF: jfif is not read: rename it to .jpg",
        *(f"left out: {folder}/{name}: {ending} is not supported: convert it to PNG, JPEG or WebP" for name, ending in (
            ("c.apng", "apng"), ("d.jp2", "jp2"), ("e.psd", "psd"), ("f.avif", "avif"), ("g.JXL", "jxl"),
            ("h.bmp", "bmp"))),
        f"not looked into: {folder}/deeper",
        f"caption of no picture: {folder}/other.txt",
    ]
    assert "not looked into: 1 deeper folder(s): give them as the folder, or move their pictures up" in lines
    assert "files not read: 1 .caption, 2 .json, 1 without an ending" in lines
    assert f"not looked into: {folder}" in _described(FolderOptions(folder / "deeper"), FolderOptions(tmp_path, 1))


def test_a_folder_called_as_a_caption_or_a_picture_is_none(tmp_path):
    _save(tmp_path / "1_a" / "a.png")
    for name in ("a.txt", "b.png"):
        (tmp_path / "1_a" / name).mkdir()
    assert index_pictures(_options(tmp_path)).captions == ("a",)
    (tmp_path / "1_a" / "a.png.txt").write_text("hers", encoding="utf-8")
    index = index_pictures(_options(tmp_path))
    assert index.captions == ("hers",) and not index.left_out
    assert [path.name for path in index.passed_over.folders] == ["a.txt", "b.png"]


def test_folders_and_links_that_lead_where_nothing_may_be_read(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    _save(inside / "a.png", caption="hers")
    _save(outside / "b.png", caption="secret")
    (inside / "link.png").symlink_to(outside / "b.png")
    (inside / "gone.png").symlink_to(outside / "gone.png")
    (inside / "1_all").symlink_to(outside)
    (inside / "2_own").symlink_to(inside)

    def may_read(path: Path) -> bool:
        return path.resolve().is_relative_to(inside)

    options = _options(inside)
    index = index_pictures(options, may_read=may_read)
    assert index.captions == ("hers", "hers")
    assert {path.name: reason for path, reason in index.left_out} == dict.fromkeys(
        ("link.png", "gone.png", "1_all"), "a link to where nothing may be read")
    before = folders_digest(options, may_read)
    (outside / "b.txt").write_text("another secret", encoding="utf-8")
    assert folders_digest(options, may_read) == before
    (inside / "a.txt").unlink()
    (inside / "a.txt").symlink_to(outside / "b.txt")
    with pytest.raises(FileError, match=r"a\.txt: a link to where nothing may be read"):
        index_pictures(options, may_read=may_read)
    assert index_pictures(options).captions[0] == "another secret"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_a_fifo_does_not_hang_nor_a_link_to_itself_stop_all(tmp_path):
    _save(tmp_path / "good.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert [path.name for path, _ in index_pictures(_options(tmp_path)).left_out] == ["loop.png", "pipe.png"]


def test_nothing_usable_is_an_error_that_says_why(tmp_path):
    with pytest.raises(FileError, match="no JPEG, PNG or WebP picture in it or one folder below$"):
        index_pictures(_options(tmp_path))
    _save(tmp_path / "a" / "b" / "too deep.png")
    with pytest.raises(FileError, match="(?s)one folder below:\n.*a/b: not looked into, it lies too deep"):
        index_pictures(_options(tmp_path))
    _save(tmp_path / "tiny.png", (2, 2))
    with pytest.raises(FileError, match=r"none of 1 picture\(s\) can be used:\ntiny.png: 2×2"):
        index_pictures(_options(tmp_path))
    with pytest.raises(FileError, match="no such folder"):
        index_pictures(_options(tmp_path / "gone"))
    with pytest.raises(SettingsError, match="no folder of pictures"):
        index_pictures(_options())


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000, "a\0b", "a\ud800b"])
def test_a_folder_that_no_system_has_is_said_so(tmp_path, name):
    for look in (index_pictures, folders_digest):
        with pytest.raises(FileError, match=r"cannot be read \(.+\)\. Give the folder that holds the pictures"):
            look(_options(tmp_path / name))


def test_a_name_that_is_no_unicode_makes_a_caption(tmp_path):
    _save(tmp_path / os.fsdecode(b"2_Mano \xff") / "a.png")
    assert index_pictures(_options(tmp_path)).captions == ("Mano ?",)


def test_captions_in_other_encodings_are_all_named(tmp_path):
    for name in ("a", "b", "c"):
        _save(tmp_path / f"{name}.png")
    (tmp_path / "a.txt").write_bytes("黒髪".encode("cp932"))
    (tmp_path / "c.txt").write_bytes("black".encode("utf-16"))
    with pytest.raises(FileError, match=r"(?s)2 caption file\(s\).*a\.txt: not UTF-8.*c\.txt.*UTF-16"):
        index_pictures(_options(tmp_path))


@pytest.mark.parametrize("label", ["0_a", "10001_a", "9" * 30 + "_a"])
def test_repeats_beyond_reason(tmp_path, label):
    _save(tmp_path / label / "a.png")
    with pytest.raises(SettingsError, match="repeats, outside 1 to 10000: rename it"):
        index_pictures(_options(tmp_path))


def test_cancelling_passes_through(tmp_path):
    class Cancelled(Exception):
        pass

    def progress(done: int, total: int) -> None:
        raise Cancelled

    _save(tmp_path / "a.png")
    with pytest.raises(Cancelled):
        index_pictures(_options(tmp_path), progress)


def test_the_fingerprint_follows_the_folder(tmp_path):
    _save(tmp_path / "1_a" / "a.png")
    options = _options(tmp_path)
    before = folders_digest(options)
    assert folders_digest(options) == before
    (tmp_path / "1_a" / "a.txt").write_text("new", encoding="utf-8")
    after = folders_digest(options)
    assert after != before
    assert folders_digest(_options(tmp_path, batch_size=2)) != after
