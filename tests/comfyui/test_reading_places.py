"""Where nodes read what a person types: anywhere for this machine alone, else in ComfyUI's folders and allowed ones.

And a server whose console lacks letters.
"""

import importlib
import re
from pathlib import Path

import pytest
from kit.comfyui_server import ComfyUIServer, PromptFailed
from kit.workspace import COMFYUI, PYTHON, add_samples
from PIL import Image
from small_taggers import write_tagger

DATA, SETTINGS = "ShinyMasTrainingData", "ShinyMasTrainingSettings"


def _picture(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64)).save(folder / "a.png")
    return folder


def _allowed(base: Path) -> Path:
    path = base / "user" / "shinymas" / "allowed_folders.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture
def typed_paths(comfy):
    return importlib.import_module("shinymas_loha.nodes.typed_paths")


@pytest.fixture
def listening(comfy, monkeypatch):
    """Sets where ComfyUI listens."""
    from comfy.cli_args import args

    return lambda where: monkeypatch.setattr(args, "listen", where)


@pytest.mark.parametrize(("where", "beyond"), [
    ("127.0.0.1", False), ("127.8.9.1", False), ("::1", False), ("127.0.0.1, ::1", False), ("localhost", False),
    ("0.0.0.0,::", True), ("0.0.0.0", True), ("::", True), ("192.168.1.2", True), ("127.0.0.1,10.0.0.1", True),
    ("", True), ("workstation", True), ("127.0.0.1,", True),
])
def test_what_listens_beyond_this_machine(comfy, listening, where, beyond):
    from shinymas_loha.patcher.comfyui import listens_beyond

    listening(where)
    assert listens_beyond() is beyond


def test_what_only_this_machine_reaches_reads_anywhere(typed_paths, listening, tmp_path, base):
    listening("127.0.0.1")
    assert typed_paths.typed_path(tmp_path) == tmp_path
    assert typed_paths.typed_path("../x") == base / "input" / "../x"


def test_comfyuis_own_folders_are_read(typed_paths, listening, base):
    listening("0.0.0.0")
    (base / "input" / "to models").symlink_to(base / "models")
    for path in (base / "input", "x", "x/../y", base / "models" / "loras" / "x", "../models/x", "to models/loras"):
        assert typed_paths.typed_path(path) == base / "input" / path
    (base / "input" / "to models").unlink()


def test_all_else_is_refused_in_one_sentence_whatever_is_there(typed_paths, listening, tmp_path, base):
    listening("0.0.0.0")
    for name, target in (("out", tmp_path), ("nowhere", tmp_path / "gone"), ("loop", base / "input" / "loop")):
        (base / "input" / name).symlink_to(target)
    refused = ("/", "/etc/passwd", tmp_path, tmp_path / "gone", "..", "../user/shinymas", "../input2", "out", "out/x",
               "nowhere", "x/../../user", "out/../x", base / "custom_nodes", base / "output", "a\0b")
    sentences = set()
    for path in refused:
        with pytest.raises(importlib.import_module("shinymas_loha.loha").FileError) as told:
            typed_paths.typed_path(path)
        sentences.add(re.sub(r"^'[^']*'", "…", str(told.value)))
    for name in ("out", "nowhere", "loop"):
        (base / "input" / name).unlink()
    (sentence,) = sentences
    assert sentence == (
        "… is not read: other machines can reach this server, so what nodes read lies in ComfyUI's input folder, in a "
        "models folder, or in a folder that stands on a line of shinymas/allowed_folders.txt in ComfyUI's user "
        "directory.")


@pytest.mark.parametrize("line", ["{}", '"{}"', "  {}\r", "# a note\n\n{}\n/elsewhere", "\ufeff{}", "{}/"])
def test_folders_in_the_small_file_are_read(typed_paths, listening, tmp_path, base, line):
    listening("0.0.0.0")
    folder, link = tmp_path / "pictures #1 真乃", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder)
    file = _allowed(base)
    file.write_text(line.format(link), encoding="utf-8")
    may_read = typed_paths.reach()
    file.unlink()
    assert may_read(link / "x") and may_read(folder / "x")
    assert not may_read(tmp_path) and not may_read(tmp_path / "link2")
    assert not typed_paths.reach()(folder)


@pytest.mark.parametrize(("typed", "path"), [
    (" a b ", "a b"), ('"C:\\a b"', "C:\\a b"), ('vae = "x.toml"', 'vae = "x.toml"'), ('"', ""), ("", "")])
def test_spaces_and_quotes_around_a_path(typed_paths, typed, path):
    assert typed_paths.bare(typed) == path


@pytest.fixture(scope="module")
def open_server(tmp_path_factory):
    """A server at an address of this machine that the pack does not know for one: to it, others reach the server.

    Its console knows no letters but English ones.
    """
    folder = tmp_path_factory.mktemp("open")
    add_samples(folder, "tests")
    write_tagger(folder / "models" / "taggers" / "small")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONIOENCODING", "ascii")
        with ComfyUIServer(COMFYUI, folder, python=PYTHON, options=("--listen", "127.1")) as running:
            yield running


def test_a_console_that_lacks_letters_stops_no_queue(open_server, node):
    for _ in range(2):  # what is said in an error would have stopped all that comes later
        with pytest.raises(PromptFailed, match="真乃: no such folder"):
            open_server.run({"asked": node(DATA, folder="真乃"), "shown": node("PreviewAny", source=["asked", 1])}, 60)
    assert r"\u771f\u4e43: no such folder" in open_server.log.read_text(encoding="ascii")


def test_an_open_server_reads_what_is_allowed(open_server, server, node, tmp_path):
    outside = _picture(tmp_path / "outside")
    (outside / "c.toml").write_text("network_dim = 4", encoding="utf-8")
    (outside / "d.toml").write_text("[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'x'", encoding="utf-8")
    pasted = f"[[datasets]]\n[[datasets.subsets]]\nimage_dir = '{outside}'"

    def run(at, kind, more=None, **inputs):
        return at.run({"asked": node(kind, **inputs), "shown": node("PreviewAny", source=["asked", 1]), **(more or {})})

    asked = [(DATA, "folder", str(outside)), (DATA, "folder", str(outside / "gone")), (DATA, "dataset", pasted),
             (DATA, "dataset", str(outside / "d.toml")), (SETTINGS, "config", str(outside / "c.toml")),
             (SETTINGS, "config", str(outside / "gone.toml"))]
    for kind, name, value in asked:
        with pytest.raises(PromptFailed, match="is not read: other machines can reach this server"):
            run(open_server, kind, **{name: value})
    counted = {"told_apart_by": "folder", "names": "", "write_cast": "", "write_dataset": ""}
    for kind, inputs in (("ShinyMasTagStatistics", counted), ("ShinyMasTagImages", {"model": "small/model.onnx"})):
        with pytest.raises(PromptFailed, match="is not read: other machines can reach this server"):
            run(open_server, kind, folder=str(outside), **inputs)
    link = {"path": node("PrimitiveString", value=str(outside))}
    with pytest.raises(PromptFailed, match=f"{DATA}: .* is not read: other machines can reach this server"):
        run(open_server, DATA, link, folder=["path", 0])
    _picture(open_server.base / "input" / "own")
    (open_server.base / "input" / "own" / "b.png").symlink_to(outside / "a.png")
    lines = run(open_server, DATA, folder="own")["shown"]["text"][0].splitlines()
    assert "pictures: 1" in lines and any(
        line.endswith("own/b.png: a link to where nothing may be read") for line in lines)
    _allowed(open_server.base).write_text(f"# mine\n{outside}\n", encoding="utf-8")
    for at, folder in ((open_server, outside), (server, _picture(tmp_path / "another"))):
        assert "pictures: 1" in run(at, DATA, folder=f'"{folder}"')["shown"]["text"][0].splitlines()
    assert "network_rank: 4" in run(open_server, SETTINGS, config=str(outside / "c.toml"))["shown"]["text"][0]
    lines = run(open_server, DATA, folder="own")["shown"]["text"][0].splitlines()
    assert "pictures: 2" in lines, "what is allowed is part of what a node is remembered by"
