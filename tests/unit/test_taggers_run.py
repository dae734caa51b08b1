"""A folder of pictures to captions: what is written, what is never touched, and what an early end leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image
from shinymas_loha.loha.errors import FileError
from shinymas_loha.taggers.options import TaggingOptions
from shinymas_loha.taggers.run import TaggingRun
from shinymas_loha.taggers.tagger import Tagger
from small_taggers import LAYOUTS, write_tagger

TESTS = Path(__file__).resolve().parents[1]
ALWAYS = "long hair, ^_^, hair (style), smile"
RED, LIME = (f"sakuragi mano, {tag}, {ALWAYS}" for tag in ("red sky", "green grass"))

# A run of its own process: its folder, its tagger, what is to become of captions, and more to be done before.
PROCESS = """
import sys
sys.path[:0] = [{tests!r}]
import conftest
from pathlib import Path
from shinymas_loha.taggers.options import TaggingOptions
from shinymas_loha.taggers.run import TaggingRun
from shinymas_loha.taggers.tagger import Tagger
tagger = Tagger(Path({model!r}))
run = TaggingRun(Path({folder!r}), tagger, TaggingOptions(existing={existing!r}, batch_size=2))
{before}
print("ready", flush=True)
run.go(lambda done, total: None)
"""


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    return Tagger(write_tagger(tmp_path_factory.mktemp("wd")))


@pytest.fixture
def folder(tmp_path):
    """Three pictures: two red, one green."""
    made = tmp_path / "pictures"
    for name, colour in (("a.png", "red"), ("b.jpg", "lime"), ("c.webp", "red")):
        draw(made / name, colour)
    return made


def draw(path, colour="red", size=(64, 96)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def go(folder, tagger, progress=lambda done, total: None, **options):
    run = TaggingRun(folder, tagger, TaggingOptions(**options))
    run.go(progress)
    return facts(run.report())


def facts(report):
    """key → values, as the report has them."""
    found = {}
    for line in report.splitlines():
        key, _, value = line.partition(": ")
        found.setdefault(key, []).append(value)
    return found


def captions(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and path.suffix in (".txt", ".caption")}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_captions_of_every_layout_to_the_byte(tmp_path, folder, layout):
    said = go(folder, Tagger(write_tagger(tmp_path / "tagger", layout)), batch_size=2)
    # JPEG's and WebP's green and red are as good as pure
    assert captions(folder) == {name: f"{text}\n".encode() for name, text in (
        ("a.txt", RED), ("b.txt", LIME), ("c.txt", RED))}
    assert said["layout"][0].startswith(f"{layout}, ") and said["written"] == ["3"]
    assert ("note" in said) == (layout != "WD")


def test_the_report(folder, tagger):
    assert "\n".join(f"{key}: {value}" for key, values in go(folder, tagger).items() for value in values) == (
        f"tagger: {tagger.files.model.parent.name}/model.onnx\nlayout: WD, 448 × 448 pixels, 11 tags\nruns on: CPU\n"
        "thresholds: general 0.35, character 0.85\npictures: 3\nwritten: 3\ncaptioned already: 0\nunchanged: 0\n"
        "left out: 0")


def test_the_authors_thresholds(tmp_path, folder):
    tagger = Tagger(write_tagger(tmp_path / "tagger", "cl_tagger"))
    said = go(folder, tagger, threshold=0.0, character_threshold=0.0)
    assert said["thresholds"] == ["general 0.55, character 0.6"] and "note" not in said
    assert captions(folder)["a.txt"] == b"sakuragi mano, kazano hiori, red sky, long hair, ^_^\n"
    assert go(folder, tagger)["note"] == [
        "its authors advise 0.55 for general tags and 0.6 for characters; a threshold of 0 takes theirs"]


def test_folders_in_it_and_none_below(folder, tagger):
    """As LoHa Training Data looks for pictures."""
    draw(folder / "10_mano" / "d.png", "lime")
    draw(folder / "10_mano" / "deep" / "e.png")
    draw(folder / ".hidden" / "f.png")
    assert go(folder, tagger, prefix="mano")["written"] == ["4"]
    assert captions(folder).keys() == {"a.txt", "b.txt", "c.txt", "10_mano/d.txt"}
    assert captions(folder)["10_mano/d.txt"] == f"mano, {LIME}\n".encode()


def test_the_name_of_a_folder_comes_first_where_asked(folder, tagger):
    draw(folder / "10_Kazano Hiori" / "d.png", "lime")
    go(folder, tagger, folder_name=True, prefix="idol", character_tags=False)
    tags = "green grass, long hair, ^_^, hair (style), smile"
    assert captions(folder)["10_Kazano Hiori/d.txt"] == f"Kazano Hiori, idol, {tags}\n".encode()
    assert captions(folder)["b.txt"] == f"pictures, idol, {tags}\n".encode()



def test_only_where_missing(folder, tagger):
    (folder / "a.txt").write_bytes(b"mine")
    (folder / "b.caption").write_bytes(b"mine too\n")
    said = go(folder, tagger)
    assert (said["written"], said["captioned already"]) == (["1"], ["2"])
    assert captions(folder) == {"a.txt": b"mine", "b.caption": b"mine too\n", "c.txt": f"{RED}\n".encode()}
    said = go(folder, tagger)
    assert (said["written"], said["captioned already"]) == (["0"], ["3"])


def test_append(folder, tagger):
    (folder / "a.txt").write_bytes(b"Mine, long_hair")
    (folder / "b.caption").write_bytes(f"{LIME}, and more".encode())
    said = go(folder, tagger, existing="append")
    assert (said["written"], said["unchanged"]) == (["2"], ["1"])
    wanted = {"a.txt": b"Mine, long_hair, sakuragi mano, red sky, ^_^, hair (style), smile\n",
              "b.caption": f"{LIME}, and more".encode(), "c.txt": f"{RED}\n".encode()}
    assert captions(folder) == wanted
    assert go(folder, tagger, existing="append")["unchanged"] == ["3"] and captions(folder) == wanted


def test_replace(folder, tagger):
    (folder / "a.txt").write_bytes(b"mine\r\nof several lines")
    (folder / "b.txt").write_bytes("ラテン".encode("shift-jis"))
    (folder / "c.txt").write_bytes(RED.encode())
    said = go(folder, tagger, existing="replace")
    assert (said["written"], said["unchanged"]) == (["2"], ["1"])
    assert captions(folder) == {"a.txt": f"{RED}\n".encode(), "b.txt": f"{LIME}\n".encode(), "c.txt": RED.encode()}


def test_what_is_no_text_is_not_appended_to(folder, tagger):
    (folder / "a.txt").write_bytes("風野灯織".encode("shift-jis"))
    (folder / "b.txt").write_bytes("風野灯織".encode("utf-16-le"))
    said = go(folder, tagger, existing="append")
    assert said["left out"] == ["2", "a.png: a.txt is not UTF-8 (byte 0): save it as UTF-8.",
                                "b.jpg: b.txt is not UTF-8 (byte 0): save it as UTF-8."]
    assert captions(folder)["a.txt"] == "風野灯織".encode("shift-jis")


@pytest.mark.parametrize("existing", ["only where missing", "append", "replace"])
def test_links_are_not_written_through(folder, tagger, tmp_path, existing):
    (tmp_path / "theirs.txt").write_bytes(b"theirs")
    (folder / "a.txt").symlink_to(tmp_path / "theirs.txt")
    (folder / "b.txt").symlink_to(tmp_path / "not there yet")
    (folder / "c.txt").mkdir()
    said = go(folder, tagger, existing=existing)
    assert (tmp_path / "theirs.txt").read_bytes() == b"theirs" and not (tmp_path / "not there yet").exists()
    assert (folder / "a.txt").is_symlink() and (folder / "b.txt").is_symlink() and said["written"] == ["0"]
    if existing == "only where missing":
        assert said["captioned already"] == ["2"] and said["left out"] == ["1", "c.webp: c.txt is no regular file"]
    else:
        assert said["left out"] == ["3", "a.png: a.txt is a symbolic link, which is not written through",
                                    "b.jpg: b.txt is a symbolic link, which is not written through",
                                    "c.webp: c.txt is no regular file"]


def test_links_that_lead_out_are_not_read(folder, tagger, tmp_path):
    """Where others reach the server, as LoHa Training Data has it."""
    draw(tmp_path / "theirs" / "x.png")
    (folder / "link.png").symlink_to(tmp_path / "theirs" / "x.png")
    (folder / "linked").symlink_to(tmp_path / "theirs")
    run = TaggingRun(folder, tagger, TaggingOptions(), may_read=lambda path: path.resolve().is_relative_to(folder))
    run.go(lambda done, total: None)
    said = facts(run.report())
    assert said["written"] == ["3"] and not list((tmp_path / "theirs").glob("*.txt"))
    assert said["left out"][1] == "link.png: a link to where nothing may be read"


def test_pictures_that_cannot_be_tagged(folder, tagger):
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:60])
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("no picture")
    draw(folder / "old.gif")
    os.mkfifo(folder / "pipe.png")
    draw(folder / "long.png", size=(16_385, 1))
    draw(folder / "dot.png", size=(1, 1))  # small ones can be
    said = go(folder, tagger)
    assert said["written"] == ["4"]
    assert said["left out"][0] == "6"
    assert sorted(said["left out"][1:]) == [
        "broken.png: broken or truncated (image file is truncated)",
        "empty.png: not a JPEG, PNG or WebP picture, or a broken one",
        "long.png: 16385×1, a side over 16384 pixels",
        "old.gif: gif is not supported: convert it to PNG, JPEG or WebP",
        "pipe.png: not a regular file",
        "text.jpg: not a JPEG, PNG or WebP picture, or a broken one"]
    assert "broken.txt" not in captions(folder)


def test_two_pictures_of_one_name(folder, tagger):
    """The first has the caption; the other is not written over it, however often it is run."""
    draw(folder / "a.webp", "lime")
    for existing in ("only where missing", "replace"):
        said = go(folder, tagger, existing=existing)
        assert captions(folder)["a.txt"] == f"{RED}\n".encode()
    assert said["left out"] == ["1", "a.webp: a.txt is the caption of a.png: rename one"]


def test_nothing_reaches_the_threshold(folder, tagger):
    said = go(folder, tagger, threshold=1.0, character_tags=False)
    names = ("a.png", "b.jpg", "c.webp")
    assert said["left out"] == ["3", *(f"{name}: no tag reaches the threshold" for name in names)]
    assert captions(folder) == {}
    assert go(folder, tagger, threshold=1.0, character_tags=False, prefix="mano")["written"] == ["3"]
    assert captions(folder)["a.txt"] == b"mano\n"


def test_many_are_left_out_in_few_words(folder, tagger):
    for number in range(60):
        (folder / f"{number:02d}.png").touch()
    said = go(folder, tagger)
    assert said["left out"][0] == "60" and len(said["left out"]) == 52 and said["left out"][-1] == "… and 10 more"


def test_a_name_cannot_forge_the_report(folder, tagger):
    (folder / "x\nwritten: 99\u202e.png").touch()
    assert go(folder, tagger)["left out"] == [
        "1", "x\\x0awritten: 99\\u202e.png: not a JPEG, PNG or WebP picture, or a broken one"]


@pytest.mark.parametrize(("names", "text"), [
    ([], "no pictures in it, nor in the folders in it (JPEG, PNG or WebP). Give the folder that holds them."),
    (["x.gif", "a.txt"], "(JPEG, PNG or WebP); x.gif: gif is not supported: convert it to PNG, JPEG or WebP."),
])
def test_a_folder_without_pictures(tmp_path, tagger, names, text):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(FileError) as refused:
        TaggingRun(tmp_path, tagger, TaggingOptions())
    assert text in str(refused.value)


def test_a_folder_that_is_not_there(tmp_path, tagger):
    with pytest.raises(FileError, match="nowhere: no such folder. Give the folder that holds the pictures."):
        TaggingRun(tmp_path / "nowhere", tagger, TaggingOptions())


def test_progress_counts_what_there_is_to_do(folder, tagger):
    (folder / "a.txt").write_bytes(b"mine")
    told = []
    go(folder, tagger, lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]
    told.clear()
    go(folder, tagger, lambda done, total: told.append((done, total)))
    assert told == []


class Cancelled(Exception):
    pass


def test_a_cancelled_run_leaves_whole_captions_and_goes_on(folder, tagger):
    for number in range(20):
        draw(folder / f"{number:02d}.png", "lime")

    def cancel(done, total):
        assert total == 23
        if done == 7:
            raise Cancelled

    run = TaggingRun(folder, tagger, TaggingOptions(batch_size=2))
    with pytest.raises(Cancelled):
        run.go(cancel)
    assert facts(run.report())["written"] == ["6"]
    assert captions(folder) == {f"{number:02d}.txt": f"{LIME}\n".encode() for number in range(6)}
    assert not [one for one in threading.enumerate() if one.name.startswith("tagging")]
    said = go(folder, tagger)
    assert (said["captioned already"], said["written"]) == (["6"], ["17"])


def started(folder, tagger, existing, before=""):
    script = PROCESS.format(tests=str(TESTS), model=str(tagger.files.model), folder=str(folder), existing=existing,
                            before=before)
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


def test_a_killed_run_leaves_whole_captions(folder, tagger):
    """kill -9 as soon as some are written: each caption is the old or the new one, whole; another run goes on."""
    for number in range(300):
        draw(folder / f"{number:03d}.png", "lime", (8, 8))
        (folder / f"{number:03d}.txt").write_bytes(b"old\n")
    new = {f"{LIME}\n".encode(), f"{RED}\n".encode()}
    process = started(folder, tagger, "replace")
    while process.poll() is None and (folder / "020.txt").read_bytes() == b"old\n":
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    there = list(captions(folder).values())
    assert set(there) == {b"old\n", f"{LIME}\n".encode()}  # it was in the middle
    left = [path for path in folder.iterdir() if path.name.endswith(".tmp")]
    for path in left:
        os.utime(path, (0, 0))  # as of long ago: a run that still goes keeps its own
    go(folder, tagger, existing="replace")
    assert set(captions(folder).values()) == new and not [path for path in left if path.exists()]


def test_a_full_disk_stops_the_run_and_harms_nothing(folder, tagger):
    (folder / "b.txt").write_bytes(b"old\n")
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); " \
            "resource.setrlimit(resource.RLIMIT_FSIZE, (8, 8))"
    process = started(folder, tagger, "replace", limit)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "a.txt: cannot be written (File too large); nothing was changed. Check the free space" in said
    assert captions(folder) == {"b.txt": b"old\n"} and not list(folder.glob(".*"))
