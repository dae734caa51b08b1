"""Captions counted: against a naive count, and what files of all kinds come to."""

from __future__ import annotations

import os
import random
import re
import tempfile
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shinymas_loha.characters import EMBEDDED, CastError, read
from shinymas_loha.characters import statistics as S
from shinymas_loha.characters.statistics.captions import tag_of
from shinymas_loha.characters.statistics.tallies import Tallies
from trained_captions import count, trained

CAST = read(EMBEDDED, "shinymas")
TAGS = ("smile", "Smile", "long_hair", "long hair", " long  hair ", "^_^", ">_<", "o_o", ":d", ":D", "1girl", "１girl",
        "笑顔", "écharpe", "rose \\(flower\\)", "rose (flower)", "solo", "", "  ", "x" * 300, "a\u200bb",
        "😀", "no humans")
FOLDERS = {"10_Kazano Hiori": "hiori", "kazano_hiori": "hiori", "3_風野灯織": "風野灯織", "Mano": "mano",
           "Mano/deeper": "mano"}
SEPARATORS = (",", ", ", "\n", ",\r\n", "，", "、", " ,, ")


def counted(root, told_by=S.BY_FOLDER, names="", top=20, withheld=(), known=()):
    tallies = count(root, told_by, S.known_names(names, CAST.characters))
    return S.summarise(tallies, top, withheld, known)


def written(root, captions):
    """Files out of (folder, text) pairs."""
    for number, (folder, text) in enumerate(captions):
        path = Path(root) / folder / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def _naive_tag(text):
    text = unicodedata.normalize("NFKC", text).casefold().replace("\\(", "(").replace("\\)", ")")
    text = " ".join("".join(c for c in text if c.isprintable()).split())
    two = any(a.isalnum() and b.isalnum() for a, b in zip(text, text[1:], strict=False))
    text = text.replace("_", " ") if two else text
    return text if len(text) <= 200 else ""


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(
    st.sampled_from(sorted(FOLDERS)),
    st.lists(st.tuples(st.sampled_from(TAGS), st.sampled_from(SEPARATORS)), max_size=8)), min_size=1, max_size=12),
    st.integers(1, 6))
def test_counts_are_those_of_a_naive_count(captions, top):
    """Of what the trainer reads in the files, whatever it makes of their lines."""
    pictures, tags = Counter(), {}
    with tempfile.TemporaryDirectory() as root:
        written(root, [(folder, "".join(tag + gap for tag, gap in pieces)) for folder, pieces in captions])
        for folder, name in FOLDERS.items():
            for path in (Path(root) / folder).glob("*.txt"):
                pictures[name] += 1
                tags.setdefault(name, Counter()).update(set(map(_naive_tag, re.split("[,，、]", trained(path)))) - {""})
        found = counted(root, top=top)
    expected = sorted((pictures[name], sorted(tags[name].items(), key=lambda pair: (-pair[1], pair[0]))[:top])
                      for name in pictures)
    assert sorted((one.pictures, [(tag.tag, tag.pictures) for tag in one.tags]) for one in found.characters) == expected
    assert [one.pictures for one in found.characters] == sorted(pictures.values(), reverse=True)
    for one in found.characters:
        for tag in one.tags:
            everywhere = sum(counts[tag.tag] for counts in tags.values())
            assert tag.share == tag.pictures / one.pictures <= 1
            assert tag.lift == pytest.approx(tag.share * len(captions) / everywhere)


@given(st.text(max_size=40))
def test_a_tags_spelling_is_settled_at_once(text):
    once = tag_of(text)
    assert tag_of(once) == once
    assert "," not in once and once.isprintable() and once == once.strip()


def test_ties_go_by_the_alphabet_and_the_casts_order(tmp_path):
    written(tmp_path, [("b b", "y, x, z"), ("a a", "x, y"), ("Kazano Hiori", "q")])
    found = counted(tmp_path, top=2, known=("Kazano Hiori",))
    assert [one.name for one in found.characters] == ["Kazano Hiori", "a a", "b b"]
    assert [tag.tag for tag in found.characters[2].tags] == ["x", "y"]


def test_names_among_the_tags(tmp_path):
    written(tmp_path, [(".", "1girl, kazano hiori, smile"), (".", "hiori_kazano, Sakuragi Mano, 2girls"), (".", "tree"),
                       ("sub", "風野灯織, smile")])
    found = counted(tmp_path, S.BY_NAME)
    assert [(one.name, one.pictures) for one in found.characters] == [("Kazano Hiori", 3), ("Sakuragi Mano", 1)]
    # Nobody's name is a tag, neither her own nor another's of the picture, but in a script that does not name her here.
    assert [tag.tag for tag in found.characters[0].tags] == ["smile", "1girl", "2girls", "風野灯織"]
    assert (found.nobody, found.several) == (1, 1)
    report = S.report_text(found)
    assert "captions of nobody: 1" in report
    assert "captions of several, counted for each: 1" in report
    typed = counted(tmp_path, S.BY_NAME, names="Tree\nHiori_Kazano")
    assert [(one.name, one.pictures) for one in typed.characters] == [("Hiori Kazano", 2), ("Tree", 1)]


def test_the_first_tag(tmp_path):
    written(tmp_path, [(".", " , Kazano_Hiori, smile"), (".", "Hiori Kazano，smile"), (".", "!!!, smile"), (".", "")])
    found = counted(tmp_path, S.BY_FIRST_TAG)
    (hiori,) = found.characters
    assert hiori.name in ("Kazano Hiori", "Hiori Kazano") and hiori.pictures == 2 and found.nobody == 2
    assert [tag.tag for tag in hiori.tags] == ["smile"]
    assert f"{hiori.name}, also spelt: {hiori.spellings[1]}; counted as one" in S.report_text(found)


def test_spellings_of_a_folders_name_are_one_character(tmp_path):
    written(tmp_path, [(folder, "a") for folder in (
        "10_Kazano Hiori", "10_Kazano Hiori", "hiori_kazano", "KAZANO HIORI")])
    (hiori,) = counted(tmp_path).characters
    assert (hiori.name, hiori.pictures) == ("Kazano Hiori", 4)


def test_files_that_are_no_captions_are_named(tmp_path):
    written(tmp_path, [("a", "smile")])
    folder = tmp_path / "a"
    (folder / "utf16.txt").write_bytes("smile".encode("utf-16"))
    (folder / "zero.txt").write_bytes(b"smile\0")
    (folder / "long.caption").write_bytes(b"x" * (1 << 20) + b"x")
    (folder / "nowhere.txt").symlink_to(tmp_path / "missing")
    (folder / "itself.txt").symlink_to(folder / "itself.txt")
    os.mkfifo(folder / "fifo.txt")
    (folder / "folder.txt").mkdir()
    (folder / ".hidden.txt").write_text("hidden")
    (folder / "bom.txt").write_bytes(b"\xef\xbb\xbfsmile")
    found = counted(tmp_path)
    assert (found.captions, found.refused) == (2, 6)
    assert [(tag.tag, tag.pictures) for tag in found.characters[0].tags] == [("smile", 2)]
    report = S.report_text(found)
    assert "files that are no captions: 6: " in report
    for line in ("a/long.caption: over 1 MB: not a caption", "a/utf16.txt: not UTF-8 (byte 0), it looks like UTF-16",
                 "a/zero.txt: holds zero bytes, it looks like UTF-16: save it as UTF-8"):
        assert line in report


def test_a_caption_counts_with_its_picture(tmp_path):
    written(tmp_path, [("a", "smile")])
    for name in ("0.PNG", "bare.webp", "both.jpg"):
        (tmp_path / "a" / name).touch()
    for name, text in (("readme.txt", "text"), ("both.caption", "second"), ("both.txt", "first, another"),
                       ("both.jpg.txt", "third"), ("0.PNG.caption", "fourth")):
        (tmp_path / "a" / name).write_text(text)
    found = counted(tmp_path)
    assert [tag.tag for tag in found.characters[0].tags] == ["another", "first", "smile"]
    assert found.notes == (
        "captions without a picture, not counted: 1", "pictures without a caption, not counted: 1")


def test_captions_as_downloaders_call_them(tmp_path):
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "a.png.txt").write_text("a")
    (tmp_path / "b.caption").write_text("b")
    (tmp_path / "b.jpg.txt").write_text("counts before .caption")
    found = counted(tmp_path)
    assert [tag.tag for tag in found.characters[0].tags] == ["a", "counts before .caption"] and not found.notes


def test_links_to_folders_count_once_and_end(tmp_path):
    written(tmp_path, [("b", "smile"), ("c/in", "tree")])
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    outside = written(tmp_path.parent / f"{tmp_path.name}-outside", [(".", "sky")])
    (tmp_path / "d").symlink_to(outside)
    (tmp_path / "b" / "link.txt").symlink_to(tmp_path / "b" / "0.txt")
    found = counted(tmp_path)
    assert [(one.name, one.pictures, one.tags[0].tag) for one in found.characters] == [
        ("b", 2, "smile"), ("c", 1, "tree"), ("d", 1, "sky")]


def test_captions_beside_the_characters_folders_are_nobodys(tmp_path):
    found = counted(written(tmp_path, [(".", "x"), ("a", "y"), ("b", "z")]))
    assert [one.name for one in found.characters] == ["a", "b"] and found.nobody == 1
    assert found.notes == ("captions beside the characters' folders, of nobody: 1",)
    one = written(tmp_path / "12_Ikaruga Luca", [(".", "x"), ("more", "y")])
    assert [(one.name, one.pictures) for one in counted(one).characters] == [("Ikaruga Luca", 1), ("more", 1)]


def test_a_count_in_little_memory_says_what_it_may_lack(tmp_path, monkeypatch):
    """Tags of one picture are dropped; the frequent ones are counted as far as the report says."""
    monkeypatch.setattr(Tallies, "MOST_COUNTS", 300)
    monkeypatch.setattr("shinymas_loha.characters.statistics.counting._BOUND_EVERY", 100)
    chance = random.Random(1)
    captions = [("a", ", ".join(["everywhere", *(f"t{chance.randrange(40)}" for _ in range(3)), f"once {number}"]))
                for number in range(800)]
    exact = Counter(tag for _, text in captions for tag in set(text.split(", ")))
    found = counted(written(tmp_path, captions), top=30)
    assert found.missed > 0
    assert f"a count may lack up to {found.missed} pictures" in S.report_text(found)
    assert (found.characters[0].tags[0].tag, found.characters[0].tags[0].pictures) == ("everywhere", 800)
    for tag in found.characters[0].tags:
        assert 0 <= exact[tag.tag] - tag.pictures <= found.missed


def test_progress_comes_often_and_may_end_it(tmp_path):
    written(tmp_path, [("a", "smile")] * 1200)
    seen = []
    count(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 1200), (500, 1200), (1000, 1200), (1200, 1200)]

    def cancel(done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        count(tmp_path, progress=cancel)


def test_the_stamp_changes_with_the_captions(tmp_path):
    written(tmp_path, [("a", "smile"), ("b", "smile")])
    stamps = [S.folder_stamp(tmp_path)]
    assert S.folder_stamp(tmp_path) == stamps[0]
    for change in (lambda: (tmp_path / "a" / "0.txt").write_text("grin "), lambda: (tmp_path / "a" / "x.txt").touch(),
                   lambda: (tmp_path / "b" / "1.txt").unlink(), lambda: (tmp_path / "a" / "0.png").touch()):
        change()
        stamps.append(S.folder_stamp(tmp_path))
    assert len(set(stamps)) == len(stamps)


def test_folders_that_cannot_be_counted(tmp_path):
    with pytest.raises(CastError, match="nowhere: no such folder. Give the folder that holds the captions"):
        counted(tmp_path / "nowhere")
    with pytest.raises(CastError, match=r"no caption \(.txt or .caption\) and no picture; give the folder"):
        counted(tmp_path)
    (tmp_path / "a.png").touch()
    with pytest.raises(CastError, match=r"no caption .* beside its pictures .1.; write some, with Tag Images"):
        counted(tmp_path)
    (tmp_path / "a.txt").write_text("smile")
    with pytest.raises(CastError, match="none of the 1 captions names anybody, told apart by name in tags; choose"):
        counted(tmp_path, S.BY_NAME)


def test_captions_that_do_not_begin_with_names(tmp_path):
    written(tmp_path, [(".", f"a girl number {number}") for number in range(2001)])
    with pytest.raises(CastError, match="over 2000 characters, such as 'a girl .*': this is not how .* 'first tag'"):
        counted(tmp_path, S.BY_FIRST_TAG)


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000, "a\0b", "a\ud800b"])
def test_a_folder_that_no_system_has_is_said_so(tmp_path, name):
    with pytest.raises(CastError, match="no such folder. Give the folder that holds the captions"):
        S.folder_stamp(tmp_path / name)


def test_folders_that_links_lead_to_where_nothing_may_be_read(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    written(inside, [("10_Arai Yume", "brown hair")])
    written(outside, [("", "secret")])
    (inside / "5_Baba Sora").symlink_to(outside)

    def may_read(path):
        return path.resolve().is_relative_to(inside)

    asked = (inside, S.BY_FOLDER, {}, lambda path: Path(path).read_text(encoding="utf-8"), lambda *_: None)
    assert S.count_captions(*asked, may_read).captions == 1 and S.count_captions(*asked).captions == 2
    before = S.folder_stamp(inside, may_read)
    written(outside, [("", "another secret"), ("", "one more")])
    assert S.folder_stamp(inside, may_read) == before != S.folder_stamp(inside)
