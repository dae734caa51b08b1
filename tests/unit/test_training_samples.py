"""Samples in the course of a run: of what, when, and that drawing them changes no step."""

import json
import re

import pytest
import torch
from shinymas_loha.loha.errors import FileError, SettingsError
from shinymas_loha.loha.training.data import Latents
from shinymas_loha.loha.training.kohya.sample_prompts import (
    SamplePrompt,
    is_due,
    is_prompt_file,
    parse_prompts,
    read_prompts,
)
from shinymas_loha.loha.training.run.loop import Training
from shinymas_loha.loha.training.run.progress import Watcher

LINES = """\
girl, smile
# a comment
girl --n bad hands, text --w 515 --h 30 --d 7 --l 4.5 --s 28

1girl, solo  --W 512 --S 5000 --s 0 --ss euler_a --g 3
a--b, x -- y""".splitlines()


def _kohyas(line):
    """kohya-ss/sd-scripts, library/train_util.py: line_to_prompt_dict, and the sizes of sample_image_inference."""
    text, *options = line.split(" --")
    found = {"prompt": text.strip()}
    for option in options:
        for letter, key, kind in (("w", "width", int), ("h", "height", int), ("d", "seed", int),
                                  ("s", "steps", int), ("l", "scale", float), ("n", "negative", str)):
            value = r"(.+)" if kind is str else r"([\d\.]+)" if kind is float else r"(\d+)"
            if match := re.match(f"{letter} {value}", option, re.IGNORECASE):
                found[key] = kind(match.group(1)) if key != "steps" else max(1, min(1000, int(match.group(1))))
                break
    for side in ("width", "height"):
        if side in found:
            found[side] = max(64, found[side] - found[side] % 8)
    return found


def test_lines_are_read_as_kohya_reads_them():
    made = parse_prompts("\n".join(LINES[:-1]))
    expected = [_kohyas(line) for line in LINES[:-1] if line.strip() and line[0] != "#"]
    for one, other in zip(made, expected, strict=True):
        assert one == SamplePrompt(other.pop("prompt"), **other)
    assert made[1] == SamplePrompt("girl", "bad hands, text", 512, 64, 7, 4.5, 28)
    assert parse_prompts("one, two\n  \n#\n three") == [SamplePrompt("one, two"), SamplePrompt("three")]


@pytest.mark.parametrize(("line", "words"), [
    ("girl\ngirl --w wide", "line 2: --w needs a value such as 512"),
    ("girl --w 99999", "line 1: --w needs a value such as 512, at most 4096"),
    ("girl --l 1.2.3", "--l needs a value such as 7.5"), ("girl --l 1e3", "--l needs a value"),
    ("girl --d -1", "--d needs a value such as 1"), (f"girl --d {2**64}", "--d needs a value"),
    ("girl --n", "--n needs a value such as bad hands"), ("girl --steps 3", "--steps is not one of --n, --w"),
    (LINES[-1], "line 1: --y is not one of"),
])
def test_what_cannot_be_read_is_named(line, words):
    with pytest.raises(SettingsError, match=f"sample_prompts: .*{words}"):
        parse_prompts(line)


def test_files_of_all_three_kinds(tmp_path):
    text, table, document = (tmp_path / f"prompts.{ending}" for ending in ("txt", "toml", "json"))
    text.write_text("\ufeff" + "\n".join(LINES[:-1]), encoding="utf-8")
    assert parse_prompts(read_prompts(text)) == parse_prompts("\n".join(LINES[:-1]))
    table.write_text("""[prompt]
width = 512
negative_prompt = "bad\\nhands"
[[prompt.subset]]
prompt = "one"
seed = 3
[[prompt.subset]]
prompt = "two"
width = 768
scale = 5.5
sample_steps = 12
""", encoding="utf-8")
    assert parse_prompts(read_prompts(table)) == [
        SamplePrompt("one", "bad hands", 512, seed=3), SamplePrompt("two", "bad hands", 768, scale=5.5, steps=12)]
    document.write_text(json.dumps(["one --w 64", {"prompt": "two", "height": 128}]), encoding="utf-8")
    assert parse_prompts(read_prompts(document)) == [SamplePrompt("one", width=64), SamplePrompt("two", height=128)]
    assert all(map(is_prompt_file, ("a.txt", " b/c.JSON ", "d.toml"))) and not is_prompt_file("a.txt\nb.txt")


@pytest.mark.parametrize(("name", "text"), [
    ("a.json", "{}"), ("a.json", '{"secret": 1}'), ("a.json", "[1]"), ("a.json", "secret"), ("a.toml", "secret = 1"),
    ("a.toml", "[prompt]\nprompt = 'secret'"), ("a.json", '[{"secret": 1}]'),
])
def test_a_file_without_prompts_is_named_and_not_quoted(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match="a.(json|toml) holds no sample prompts") as caught:
        read_prompts(tmp_path / name)
    assert "secret" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileError, match="no.txt: no such file"):
        read_prompts(tmp_path / "no.txt")


@pytest.mark.parametrize("at_first", [False, True])
@pytest.mark.parametrize(("steps", "epochs"), [(0, 0), (3, 0), (0, 2), (3, 2)])
def test_when_as_kohya_has_it(at_first, steps, epochs):
    """sample_images_common, called before the first step, after each, and at the end of each epoch of 5 steps."""
    def kohyas(step, epoch):
        if step == 0:
            return at_first
        if epochs:
            return epoch is not None and epoch % epochs == 0
        return bool(steps) and step % steps == 0 and epoch is None

    for step in range(21):
        assert is_due(at_first, steps, epochs, step, None) == kohyas(step, None)
        if step and step % 5 == 0:
            assert is_due(at_first, steps, epochs, step, step // 5) == kohyas(step, step // 5)


def test_giving_out_the_loha_in_between_changes_no_step(tiny_models, tiny_data, tiny_settings):
    def run(watcher):
        data = tiny_data()
        training = Training(tiny_models, data, Latents(data, tiny_models.encode), tiny_settings(), session="7",
                            precision="fp32")
        training.run(watcher)
        return training

    before = [module.__dict__.get("forward") for module in tiny_models.unet.modules()]
    seen = []

    def look(done, loha):
        assert [module.__dict__.get("forward") for module in tiny_models.unet.modules()] == before
        seen.append((done, loha().metadata["ss_steps"]))

    shown, plain = run(Watcher(wants_loha=lambda done: done in (0, 2, 3, 4), on_loha=look)), run(Watcher())
    assert seen == [(0, "0"), (2, "2"), (3, "3"), (4, "4")]
    assert shown.losses == plain.losses
    one, other = shown.network.state_dict(), plain.network.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
