"""What samples are drawn of: a prompt a line, with kohya's options behind it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....text import show
from ...errors import FileError, SettingsError
from .toml import is_path, parse, read_text

_ENDINGS = (".txt", ".toml", ".json")
_LEAST, _MOST, _STRIDE = 64, 4096, 8  # pixels
_OPTION = re.compile(r"([a-z]+) +(.*)", re.IGNORECASE | re.DOTALL)
# Of other models and of other samplers: they change nothing here.
_WITHOUT_MEANING = ("g", "ss", "cn", "ctr", "rcfg", "fs")


@dataclass(frozen=True)
class SamplePrompt:
    """One sample; what is None is as for all samples.

    Args:
        width, height: in pixels, multiples of 8.
        scale: of classifier-free guidance.
    """

    text: str
    negative: str | None = None
    width: int | None = None
    height: int | None = None
    seed: int | None = None
    scale: float | None = None
    steps: int | None = None


def is_prompt_file(text: str) -> bool:
    """Whether sample prompts name a file instead: one line that ends in .txt, .toml or .json."""
    line = text.strip()
    return "\n" not in line and line.lower().endswith(_ENDINGS)


def read_prompts(path: Path) -> str:
    """A file of kohya's sample prompts as lines, for `sample_prompts` (library/train_util.py, load_prompts).

    Of a .txt each line; a .json is a list of such lines, or of tables; a .toml has [prompt] with what all samples
    share and a [[prompt.subset]] for each.

    Raises:
        FileError: the file cannot be read.
        SettingsError: it holds no prompts. Nothing of what stands in it is told.
    """
    try:
        if is_path(str(path)):
            if path.suffix.lower() == ".json":
                found = json.loads(read_text(path))
            else:
                table = parse(str(path))[0]["prompt"]
                shared = {key: value for key, value in table.items() if key != "subset"}
                found = [{**shared, **subset} for subset in table["subset"]]
            if not isinstance(found, list):
                raise TypeError
            lines = [one if isinstance(one, str) else _line(one) for one in found]
        else:
            lines = read_text(path).splitlines()
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, SettingsError | FileError):
            raise
        raise SettingsError(f"sample_prompts: {show(path, 200)} holds no sample prompts of kohya's scripts: a .txt has "
                            "one a line, a .json a list of them, a .toml [[prompt.subset]]") from None
    return "\n".join(lines)


def parse_prompts(text: str) -> list[SamplePrompt]:
    """The prompts of lines such as `girl, smile --n bad hands --w 512 --h 768 --d 1 --l 7 --s 28`.

    As kohya-ss/sd-scripts (library/train_util.py, line_to_prompt_dict): ` --` begins an option, in upper or lower
    case; steps are held to 1 … 1000, sizes to whole eighths of at least 64; empty lines, and those with # first, are
    none.

    Raises:
        SettingsError: an option that is not known, or whose value is none, with the line's number.
    """
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if not line.startswith("#"))
    return [_prompt(line, number) for number, line in lines if line]


def _prompt(line: str, number: int) -> SamplePrompt:
    text, *options = line.split(" --")
    values: dict[str, Any] = {}
    for option in options:
        match = _OPTION.fullmatch(option.strip())
        name = (match[1] if match else option.strip()).lower()
        if name in _WITHOUT_MEANING:
            continue
        if name not in _OPTIONS:
            raise SettingsError(f"sample_prompts: line {number}: --{show(name, 20)} is not one of "
                                f"{', '.join(f'--{one}' for one in _OPTIONS)}")
        field, convert = _OPTIONS[name]
        try:
            values[field] = convert(match[2].strip())
        except (ValueError, TypeError):
            raise SettingsError(
                f"sample_prompts: line {number}: --{name} needs a value such as {_EXAMPLES[name]}") from None
    return SamplePrompt(text.strip(), **values)


def _line(table: Mapping[str, Any]) -> str:
    """A table of a .toml or .json as a line."""
    options = ((name, table.get(key)) for key, name in _KEYS.items())
    return " --".join([_one_line(table["prompt"]), *(
        f"{name} {_one_line(value)}" for name, value in options if value not in (None, ""))])


def _one_line(value: Any) -> str:
    return " ".join(str(value).split())


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise ValueError
    return int(text)


def _size(text: str) -> int:
    size = max(_LEAST, _whole(text))
    if size > _MOST:
        raise ValueError
    return size - size % _STRIDE


def _seed(text: str) -> int:
    if (seed := _whole(text)) >= 1 << 64:
        raise ValueError
    return seed


def _steps(text: str) -> int:
    return max(1, min(1000, _whole(text)))


def _scale(text: str) -> float:
    if not re.fullmatch(r"[\d.]+", text, re.ASCII):
        raise ValueError
    return float(text)


def _words(text: str) -> str:
    return text


_OPTIONS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "n": ("negative", _words), "w": ("width", _size), "h": ("height", _size), "d": ("seed", _seed),
    "l": ("scale", _scale), "s": ("steps", _steps),
}
_EXAMPLES = {"n": "bad hands", "w": f"512, at most {_MOST}", "h": f"768, at most {_MOST}", "d": "1", "l": "7.5",
             "s": "28"}
_KEYS = {"negative_prompt": "n", "width": "w", "height": "h", "seed": "d", "scale": "l", "sample_steps": "s"}


def is_due(at_first: bool, every_steps: int, every_epochs: int, step: int, epoch: int | None) -> bool:
    """Whether samples are drawn after `step` steps, in between (`epoch` None) or at the end of an epoch (from 1).

    As kohya-ss/sd-scripts (library/train_util.py, sample_images_common): where it is said how often by epochs,
    steps do not count.
    """
    if step == 0:
        return at_first and epoch is None
    if every_epochs:
        return epoch is not None and epoch % every_epochs == 0
    return bool(every_steps) and epoch is None and step % every_steps == 0
