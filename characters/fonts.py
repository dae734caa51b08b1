"""Fonts that this machine has: names are shown in their own script where one is found, none is shipped."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

# Files of families that hold Latin, kana, kanji and more, best first; lower case, without the ending.
_CJK = (
    "notosanscjk-bold", "notosanscjk-regular", "notosanscjkjp-bold", "notosanscjkjp-regular", "notosansjp-bold",
    "notosansjp-regular", "sourcehansans-bold", "sourcehansansjp-bold", "yugothb", "yugothm", "meiryob", "meiryo",
    "msgothic", "hiragino sans gb", "ヒラギノ角ゴシック w6", "ipaexg", "ipagp", "ipag", "takaogothic", "wqy-microhei",
    "wqy-zenhei", "droidsansfallbackfull", "droidsansfallback", "msyhbd", "msyh", "malgunbd", "malgun",
    "notoserifcjk-bold", "notoserifcjk-regular",
)
_ENDINGS = (".ttf", ".ttc", ".otf")
_MOST_FILES = 20_000


def font(size: int, text: str = "") -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font of `size` pixels: one with CJK letters where `text` needs it and this machine has one."""
    path = None if text.isascii() else cjk_font()
    if path is not None:
        try:
            return ImageFont.truetype(path, size)
        except OSError:  # a file that is no font
            pass
    return ImageFont.load_default(size)


@lru_cache(maxsize=1)
def cjk_font() -> str | None:
    """The path of the best font with CJK letters, None where none is found."""
    found: dict[str, str] = {}
    seen = 0
    for folder in _folders():
        for place, _, names in os.walk(folder):
            seen += len(names)
            for name in names:
                stem, ending = os.path.splitext(name.lower())
                if ending in _ENDINGS and stem in _CJK:
                    found.setdefault(stem, os.path.join(place, name))
            if seen > _MOST_FILES:
                break
    return next((found[stem] for stem in _CJK if stem in found), None)


def _folders() -> tuple[Path, ...]:
    home = Path.home()
    if sys.platform == "win32":
        return (Path(os.environ.get("WINDIR", r"C:\Windows")) / "Fonts",
                home / "AppData" / "Local" / "Microsoft" / "Windows" / "Fonts")
    if sys.platform == "darwin":
        return Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library" / "Fonts"
    own = home / ".local" / "share" / "fonts", home / ".fonts"
    return Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), *own
