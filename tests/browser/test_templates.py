"""The graphs under Templates: in an order of use, each with its picture, and opened from there."""

from __future__ import annotations

ORDER = ["shinymas-v2.1", "shinymas-v2.0", "shinymas-v1.0", "shinymas-scene", "shinymas-sheet", "shinymas-hook",
         "train-shinymas-v2.0", "train-shinymas-v2.1", "pictures-to-character"]
_CARDS = """() => [...document.querySelectorAll("img[alt*='shinymas-'], img[alt='pictures-to-character']")].filter(
    (picture) => picture.complete).map((picture) => [picture.alt, picture.naturalWidth, picture.naturalHeight])"""


def test_drawing_stands_before_training_and_a_card_opens_its_graph(front_end):
    page = front_end.page
    size = page.viewport_size
    page.set_viewport_size({"width": size["width"], "height": 1600})  # what is out of sight is not on the page
    page.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text("shinymas-loha", exact=True).last.click()
    page.wait_for_function(f"() => ({_CARDS})().length === {len(ORDER)}")
    assert page.evaluate(_CARDS) == [[name, 520, 520] for name in ORDER]
    page.locator("img[alt='shinymas-sheet']").click()
    page.wait_for_function("() => app.graph.nodes.some((node) => node.type === 'ShinyMasSheet')")
    assert not page.locator("h3", has_text="Extensions").is_visible()
    page.set_viewport_size(size)
