"""Tag Statistics in the real front end: what was counted stands in the node itself."""

from __future__ import annotations

_ALONE = """() => {
    app.graph.clear();
    app.graph.add(LiteGraph.createNode("ShinyMasTagStatistics"));
}"""
_SAID = "() => app.graph.nodes[0].widgets.find((widget) => widget.name === 'shinymas_said').value"


def test_the_node_says_what_it_counted(front_end, tmp_path):
    folder = tmp_path / "10_Kazano Hiori"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.txt").write_text("black hair, blonde hair, 1girl")
    front_end.page.evaluate(_ALONE)
    front_end.set_widget("ShinyMasTagStatistics", "folder", str(tmp_path))
    front_end.set_widget("ShinyMasTagStatistics", "write_cast", "from-the-page")
    front_end.run()
    said = front_end.page.evaluate(_SAID)
    assert said.startswith("cast: ")
    assert "Kazano Hiori, contradiction in 3 captions, two of hair colour: black hair + blonde hair 3" in said
    assert "Kazano Hiori: 3 × 10 = 30, as before" in said
    assert (front_end.user / "shinymas" / "from-the-page.yaml").is_file()
