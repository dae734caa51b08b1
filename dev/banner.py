"""Draw web/banner.jpg, the pack's banner in the Comfy registry: `python dev/banner.py`.

Two grids of colours and the grid of their products, as a LoHa multiplies: the colours are the idols'.
"""

from __future__ import annotations

import numpy as np
from kit.canvas import CHROMIUM
from kit.workspace import ROOT, library
from playwright.sync_api import sync_playwright

SIZE = (1260, 540)  # 21:9, as the registry asks
_SIDE = 5  # cells of a grid
_PAGE = """<style>
  body {{ margin: 0; width: {width}px; height: {height}px; background: #17181c; color: #fff; display: flex;
         flex-direction: column; align-items: center; justify-content: center; gap: 34px;
         font-family: 'Noto Sans CJK JP', 'Noto Sans', sans-serif; }}
  .row {{ display: flex; align-items: center; gap: 34px; font-size: 64px; }}
  .grid {{ display: grid; grid-template-columns: repeat({side}, 50px); gap: 4px; }}
  .grid i {{ height: 50px; border-radius: 8px; }}
  .words {{ text-align: center; }}
  h1 {{ margin: 0; font-size: 54px; }} p {{ margin: 0; font-size: 25px; color: #c9ced8; }}
</style>
<div class="row">{first}<span>∘</span>{second}<span>=</span>{product}</div>
<div class="words"><h1>ShinyMas LoHa</h1><p>load · apply · train · prompt — for ComfyUI, unofficial</p></div>"""


def main() -> None:
    characters = library("characters")
    everyone = characters.read(characters.EMBEDDED, characters.DEFAULT_CAST).characters
    colours = np.array([list(bytes.fromhex(one.colour)) for one in everyone[:_SIDE**2]]) / 255
    # What is multiplied must stay light, or the product is black.
    first = 0.35 + 0.65 * colours.reshape(_SIDE, _SIDE, 3)
    second = first.transpose(1, 0, 2)[::-1]
    page_text = _PAGE.format(width=SIZE[0], height=SIZE[1], side=_SIDE, first=_grid(first), second=_grid(second),
                             product=_grid(first * second))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport=dict(zip(("width", "height"), SIZE, strict=True)))
        page.set_content(page_text)
        page.screenshot(path=ROOT / "web" / "banner.jpg", type="jpeg", quality=88)
        browser.close()


def _grid(colours: np.ndarray) -> str:
    cells = "".join(f'<i style="background: rgb({", ".join(str(round(255 * part)) for part in cell)})"></i>'
                    for cell in colours.reshape(-1, 3))
    return f'<div class="grid">{cells}</div>'


if __name__ == "__main__":
    main()
