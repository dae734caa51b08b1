"""The thumbnails of the shipped graphs: what one gets, and below it what it is.

The page of ComfyUI titles a pack's template with the file's name alone and shows it as a square of some 260 pixels:
title and description are in the picture.
"""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass

from PIL import Image
from playwright.sync_api import Page

SIDE = 520  # pixels
_PAGE = """<style>
  body {{ margin: 0; width: {side}px; height: {side}px; background: #17181c; color: #fff; display: flex;
         flex-direction: column; font-family: 'Noto Sans CJK JP', 'Noto Sans', sans-serif; }}
  .got {{ flex: 1; min-height: 0; display: flex; flex-direction: column; justify-content: center; align-items: center;
         gap: 10px; padding: {top}px 16px 12px; }}
  .got img {{ width: 100%; min-height: 0; object-fit: contain; }}
  .words {{ padding: 12px 20px 18px; background: #26303f; }}
  h1 {{ margin: 0; font-size: 34px; line-height: 1.2; }} p {{ margin: 4px 0 0; font-size: 23px; line-height: 1.3; }}
</style>
<div class="got">{pictures}</div><div class="words"><h1>{title}</h1>{lines}</div>"""
# A front end's badge lies over the upper left corner.
_BADGE = 68


@dataclass(frozen=True)
class Card:
    """The words: a title, and the same in Japanese and Chinese."""

    title: str
    others: tuple[str, str]


CARDS = {
    "shinymas-v2.1": Card("Draw a character · v2.1", ("キャラクターを描く", "画一个角色")),
    "shinymas-v2.0": Card("Draw a character · v2.0", ("キャラクターを描く", "画一个角色")),
    "shinymas-v1.0": Card("Draw a character · v1.0", ("キャラクターを描く", "画一个角色")),
    "shinymas-hook": Card("A LoHa for a part of the steps", ("途中のステップから", "只用一部分步数")),
    "shinymas-scene": Card("Two people in one picture", ("1枚に2人を描く", "一张图里画两个人")),
    "shinymas-sheet": Card("The whole cast on one sheet", ("全員を1枚に並べる", "全员排成一张图")),
    "train-shinymas-v2.0": Card("Train a LoHa, as v2.0", ("自分の画像で学習する", "用自己的图片训练")),
    "train-shinymas-v2.1": Card("Tune a LoHa, as v2.1", ("LoHaを追加学習する", "继续训练 LoHa")),
    "pictures-to-character": Card("From pictures to a character", ("画像からキャラクターへ", "从图片到角色")),
}


def draw(page: Page, card: Card, pictures: list[Image.Image]) -> Image.Image:
    """A card of SIDE × SIDE pixels with the pictures under each other; `page` is any page, and shows it afterwards."""
    shown = "".join(f'<img src="data:image/png;base64,{_encoded(picture)}">' for picture in pictures)
    lines = f"<p>{html.escape(' · '.join(card.others))}</p>"
    page.set_viewport_size({"width": SIDE, "height": SIDE})
    page.set_content(_PAGE.format(side=SIDE, top=_BADGE, pictures=shown, title=html.escape(card.title), lines=lines))
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def _encoded(picture: Image.Image) -> str:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()
