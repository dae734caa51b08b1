"""ComfyUI's page in Chromium: drop a graph on the canvas, read it back, set widgets, run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from kit.comfyui_server import ComfyUIServer

CHROMIUM = "/usr/bin/chromium"
_FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
_TIMEOUT_MS = 120_000  # some 5 s on a free machine
_RUN_TIMEOUT_MS = 400_000  # a run: some 20 s on a free machine, minutes beside another job

# What greets a new user would cover the canvas.
_SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Notification.ShowVersionUpdates": False}

# What was there is marked: the graph that replaces it may have the same id.
_DROP = """text => {
    for (const node of app.graph.nodes) node.wasThere = true;
    const data = new DataTransfer();
    data.items.add(new File([text], "graph.json", { type: "application/json" }));
    document.getElementById("graph-canvas").dispatchEvent(
        new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true, clientX: 500, clientY: 400 }));
}"""

_SET_WIDGET = """([type, name, value]) => {
    const [node, ...more] = app.graph.nodes.filter((node) => node.type === type);
    if (!node || more.length) throw new Error(`not one ${type} on the canvas`);
    const widget = node.widgets.find((widget) => widget.name === name);
    if (!widget) throw new Error(`${type} has no widget ${name}`);
    widget.value = value;
    widget.callback?.(value, app.canvas, node);
}"""

# Ends with the run: what each node showed, and the error where there was one.
_RUN = """(timeout) => new Promise((resolve) => {
    const { api } = app;
    const shown = {};
    const stop = (error) => resolve({ shown, error });
    setTimeout(() => stop("no end of the run was reported"), timeout);
    api.addEventListener("executed", ({ detail }) => { shown[detail.node] = detail.output; });
    api.addEventListener("execution_success", () => stop(null), { once: true });
    api.addEventListener("execution_error", ({ detail }) => stop(detail.exception_message), { once: true });
    app.queuePrompt(0).then(() => {
        const refused = Object.values(app.lastNodeErrors ?? {});
        if (refused.length) stop(`the prompt was refused: ${JSON.stringify(refused)}`);
    });
})"""


class Canvas:
    """One page of ComfyUI's front end, loaded and ready for a drop. `page` is Playwright's own."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        page.set_default_timeout(_TIMEOUT_MS)
        page.goto(url)
        self.wait_until_loaded()

    def wait_until_loaded(self) -> None:
        """After a load or a reload: until a graph can be dropped."""
        # The default graph is the last thing to load: dropped earlier, a file would be replaced by it.
        self.page.wait_for_function(
            "window.app?.graph?.nodes.length && window.app.extensionManager?.workflow?.activeWorkflow")

    def drop(self, path: Path) -> None:
        """Drop a graph file on the canvas, as a person does with the mouse, and wait until it is the graph."""
        text = path.read_text(encoding="utf-8")
        self.page.evaluate(_DROP, text)
        self.page.wait_for_function(
            "id => app.graph.id === id && app.graph.nodes.length && !app.graph.nodes.some((node) => node.wasThere)",
            arg=json.loads(text)["id"])

    def graph(self) -> dict[str, Any]:
        """The graph as the page would save it."""
        return json.loads(self.page.evaluate("JSON.stringify(app.graph.serialize())"))

    def set_setting(self, name: str, value: Any) -> None:
        self.page.evaluate("([name, value]) => app.extensionManager.setting.set(name, value)", [name, value])

    def set_widget(self, kind: str, name: str, value: Any) -> None:
        """Set a widget of the only node of this type, as an edit by hand does."""
        self.page.evaluate(_SET_WIDGET, [kind, name, value])

    def run(self) -> dict[str, Any]:
        """Queue the graph from the page and wait: node id → what the node showed. Raises RuntimeError on its error."""
        done = self.page.evaluate(_RUN, _RUN_TIMEOUT_MS)
        if done["error"] is not None:
            raise RuntimeError(done["error"])
        return done["shown"]


@contextmanager
def canvas(server: ComfyUIServer, *, size: tuple[int, int] = (1600, 900), scale: float = 1) -> Iterator[Canvas]:
    """Chromium on this server's page; `size` in CSS pixels, `scale` device pixels each."""
    settings = server.base / "user" / "default" / "comfy.settings.json"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(json.dumps(_SETTINGS), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_FLAGS))
        try:
            viewport = {"width": size[0], "height": size[1]}
            page = browser.new_page(viewport=viewport, device_scale_factor=scale)
            yield Canvas(page, server.url)
        finally:
            browser.close()
