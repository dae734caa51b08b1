"""Run a real ComfyUI with this pack in it, in a folder of its own, and talk to it over HTTP.

Standard library only: it runs beside any ComfyUI, whatever Python that one has.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .ending import held, tied_to_us

PACK = Path(__file__).resolve().parents[2]
PACK_NAME = "shinymas-loha"
_BOOT_SECONDS = 300  # some 15 on a free machine
_LOG_TAIL = 4000


class ServerFailed(RuntimeError):
    """ComfyUI did not start, or went away; the text ends with the last lines of its log."""


class PromptFailed(RuntimeError):
    """ComfyUI refused a prompt, or a node raised. `details` is the server's own JSON."""

    def __init__(self, message: str, details: dict[str, Any]) -> None:
        super().__init__(message)
        self.details = details


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ComfyUIServer:
    """A ComfyUI on 127.0.0.1, alive inside a `with` block and stopped however that block ends.

    Signals that come while it is started or stopped wait; where nobody can stop it any more, the kernel does.

    Args:
        comfyui: ComfyUI's own folder. Only read, but for what Python caches in it.
        base: folder for models, custom nodes, user files and pictures; made if missing.
        python: the interpreter that has ComfyUI's requirements.
        port: None picks a free one.
        gpu: let ComfyUI use the machine's GPU. Without it pictures are the same everywhere.
        options: further command-line options, such as `--front-end-root DIR`.
    """

    def __init__(
        self,
        comfyui: Path,
        base: Path,
        *,
        python: str = sys.executable,
        port: int | None = None,
        gpu: bool = False,
        options: tuple[str, ...] = (),
    ) -> None:
        self.base = base.resolve()
        self.url = f"http://127.0.0.1:{port or free_port()}"
        self.log = self.base / "comfyui.log"
        self._comfyui = comfyui.resolve()
        self._command = [
            python, "main.py", *(() if gpu else ("--cpu",)),
            "--listen", "127.0.0.1", "--port", self.url.rpartition(":")[2],
            "--disable-api-nodes", "--disable-auto-launch", "--base-directory", str(self.base),
            "--database-url", f"sqlite:///{self.base / 'comfyui.db'}", *options,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ComfyUIServer:
        self._prepare_base()
        print(f"starting ComfyUI on {self.url} (log: {self.log})", flush=True)
        try:
            with self.log.open("wb") as log, held():
                # A session of its own: Ctrl-C reaches us alone, and we stop the server.
                self._process = subprocess.Popen(
                    self._command,
                    cwd=self._comfyui,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=tied_to_us(),
                )
            self._await_boot()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the server; a second call does nothing."""
        with held():
            if self._process is None or self._process.poll() is not None:
                return
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def get(self, path: str) -> Any:
        """The JSON answer to GET `path`."""
        return json.loads(self.get_bytes(path))

    def get_bytes(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return answer.read()

    def post(self, path: str, body: dict[str, Any]) -> None:
        """POST `body` as JSON, where the answer says nothing."""
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=60).close()

    def queue(self, prompt: dict[str, Any]) -> str:
        """Queue a prompt in API format and return its id. Raises PromptFailed if it is refused."""
        # With a client's name the outputs of nodes that ComfyUI kept from an earlier run are told again.
        body = json.dumps({"prompt": prompt, "client_id": PACK_NAME}).encode()
        request = urllib.request.Request(self.url + "/prompt", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read())["prompt_id"]
        except urllib.error.HTTPError as refused:
            details = json.loads(refused.read())
            raise PromptFailed(f"ComfyUI refused the prompt: {json.dumps(details)}", details) from None

    def run(self, prompt: dict[str, Any], timeout: float = 600) -> dict[str, Any]:
        """Queue a prompt, wait for it, and return its outputs, node id → what the node showed.

        Raises PromptFailed if it is refused or a node raises, ServerFailed if the server dies or
        `timeout` seconds pass.
        """
        prompt_id = self.queue(prompt)
        for _ in self._ticks(timeout, f"prompt {prompt_id}"):
            try:
                entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            except OSError:
                continue  # if it died, the next tick says so
            if entry is not None:
                break
        if entry["status"]["status_str"] != "success":
            events = dict(entry["status"]["messages"])
            details = events.get("execution_error") or events.get("execution_interrupted") or {}
            node, text = details.get("node_type"), details.get("exception_message", "interrupted")
            raise PromptFailed(f"{node}: {text}", details)
        return entry["outputs"]

    def picture(self, image: dict[str, str]) -> bytes:
        """The file behind one entry of an output's `images`."""
        return self.get_bytes("/view?" + urllib.parse.urlencode(image))

    def log_tail(self) -> str:
        return self.log.read_bytes()[-_LOG_TAIL:].decode("utf-8", "replace")

    def wait(self) -> None:
        """Block until the server ends by itself."""
        self._process.wait()

    def _prepare_base(self) -> None:
        for folder in ("custom_nodes", "input", "output", "temp", "user", "models/checkpoints", "models/loras"):
            (self.base / folder).mkdir(parents=True, exist_ok=True)
        link = self.base / "custom_nodes" / PACK_NAME
        # ComfyUI lists custom_nodes one level deep, so that the link back into this very tree is safe.
        if not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(PACK, target_is_directory=True)

    def _await_boot(self) -> None:
        for _ in self._ticks(_BOOT_SECONDS, "ComfyUI's start"):
            try:
                self.get("/system_stats")
                return
            except OSError:
                continue  # not listening yet; if it died, the next tick says so

    def _ticks(self, timeout: float, what: str) -> Iterator[None]:
        """Yield twice a second and show the log's newest line, until the server ends or time is up."""
        start, shown = time.monotonic(), ""
        while (waited := time.monotonic() - start) < timeout:
            if self._process.poll() is not None:
                code = self._process.returncode
                raise ServerFailed(f"ComfyUI ended with code {code} during {what}:\n{self.log_tail()}")
            yield
            lines = self.log_tail().replace("\r", "\n").split("\n")
            newest = next((line.strip()[:100] for line in reversed(lines) if line.strip()), "")
            if newest != shown:
                print(f"  {waited:4.0f} s  {newest}", flush=True)
                shown = newest
            time.sleep(0.5)
        raise ServerFailed(f"{what} took more than {timeout:.0f} s:\n{self.log_tail()}")
