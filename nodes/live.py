"""What the pack's own script in the browser asks before anything runs: the finished prompt, and who there is.

Both routes only read. They answer ComfyUI's own page and no other: a page of somebody else's must not be able to ask.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web
from comfy_api.latest import io

from ..characters import Cast, CastError, Casts, Character, Prompt, scene
from ..characters.roster import read_favourites
from ..characters.tags import tag_key
from ..characters.withheld import holds_any
from ..loha import LohaError
from ..patcher.messages import add_route, user_folder
from ..patcher.tokens import count_tokens
from . import load, prompt
from . import scene as scene_node
from .model_version import FileSays
from .prompt import CharacterPrompt, load_casts, unlisted_choice
from .scene import Scene
from .sheet import thumbnails

LARGEST = 100_000  # bytes of a question
_MOST_PREVIOUS = 8  # people before her, each by a node of her own
_TYPES = {"INT": int, "FLOAT": (int, float), "STRING": str, "COMBO": str}
_KINDS = {int: "a whole number", (int, float): "a number", str: "text"}
_MOST_ROWS = 20  # of a scene that is shown, also where it is refused
_COVERED = 200  # pixels of a side, to see whether boxes leave anything of a picture free
Json = dict[str, Any]


def serve() -> None:
    """Add the routes to ComfyUI's server; once, before it starts."""
    add_route("POST", "/shinymas/prompt", _answer_prompt)
    add_route("GET", "/shinymas/casts", _answer_casts)


async def _answer_prompt(request: web.Request) -> web.Response:
    """What a node would write. Asked: `{node, inputs, open}`, `open` names inputs that only a run will know."""
    _check_origin(request)
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="a question is JSON")
    try:
        asked = json.loads(await _body(request))
        node = asked["node"]
        inputs, unknown = _question(asked)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise web.HTTPBadRequest(text="no question of the ShinyMas nodes") from None
    answer = _ANSWERS.get(node) if isinstance(node, str) else None
    if answer is None:
        raise web.HTTPBadRequest(text="no node that has a prompt")
    return web.json_response(await asyncio.to_thread(answer, inputs, unknown))


async def _answer_casts(request: web.Request) -> web.Response:
    """Everyone in every cast, as the picker shows them."""
    _check_origin(request)
    return web.json_response(await asyncio.to_thread(_everyone, user_folder(request)))


def _check_origin(request: web.Request) -> None:
    """Browsers say where a request comes from: by `Sec-Fetch-Site` where they deem a page safe, else by `Origin`."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    is_own = site in ("same-origin", "none") if site else not origin or origin.partition("://")[2] == request.host
    if not is_own:
        raise web.HTTPForbidden(text="only ComfyUI's own page may ask")


async def _body(request: web.Request) -> bytes:
    body = b""
    async for chunk in request.content.iter_any():  # the length that a request claims may be wrong, or missing
        body += chunk
        if len(body) > LARGEST:
            raise web.HTTPRequestEntityTooLarge(LARGEST, len(body), text=f"more than {LARGEST} bytes")
    return body


def _question(asked: Json) -> tuple[Json, list[str]]:
    """The inputs, and the names of those that only a run will know. Raises TypeError or KeyError."""
    inputs, unknown = asked["inputs"], asked.get("open", [])
    if not isinstance(inputs, dict) or not isinstance(unknown, list):
        raise TypeError
    return inputs, unknown


def _character_prompt(inputs: Json, unknown: list[str]) -> Json:
    casts = load_casts()
    try:
        written, notes, values = _write(casts, inputs, unknown)
    except CastError as error:
        return {"error": str(error), "problems": list(casts.problems)}
    who = written.character
    on = {tag.key: tag.weights[0] for tag in written.own}
    withheld = casts.find(values["cast"], who.name).cast.withheld
    return {
        "positive": written.positive, "negative": written.negative, "tokens": _tokens(written.positive),
        "negative_tokens": _tokens(written.negative), "notes": notes, "problems": list(casts.problems),
        "who": _person(who),
        "tags": [[tag, tag in who.identity, on.get(tag_key(tag), 0)] for tag in who.tags
                 if not holds_any(tag, withheld)],
    }


def _write(casts: Casts, inputs: Json, unknown: list[str], depth: int = 0) -> tuple[Prompt, list[str], Json]:
    """The prompt of these inputs; `previous` may be a question of its own. Raises CastError."""
    previous, notes = inputs.get("previous"), _open_notes(unknown)
    if isinstance(previous, dict):
        if depth == _MOST_PREVIOUS:
            raise CastError(f"previous: more than {_MOST_PREVIOUS} prompts one after another")
        try:
            asked = _question(previous)
        except (KeyError, TypeError):
            raise CastError("previous: is no prompt") from None
        written, _, _ = _write(casts, *asked, depth + 1)  # its notes stand under its own node
        inputs = inputs | {"previous": written.positive}
    values = _values(CharacterPrompt, casts, inputs, unknown)
    says, unread = _says(inputs)
    written, more = prompt.write(casts, says, **values)
    return written, [*notes, *unread, *more], values


def _scene(inputs: Json, unknown: list[str]) -> Json:
    casts = load_casts()
    people = inputs.get("people")
    typed = scene.read_fields(people) if isinstance(people, str) else {}
    rows = [[number, *fields] for number, fields in typed.items()][:_MOST_ROWS]
    try:
        values = _values(Scene, casts, inputs, unknown)
        says, unread = _says(inputs)
        planned, notes = scene_node.plan(casts, says, **{name: values[name] for name in (
            "people", "shared", "model_version", "tag_set", "cast")})
    except CastError as error:
        return {"error": str(error), "problems": list(casts.problems), "rows": rows}
    # One that leaves something free is followed there by a prompt for the rest.
    regions = planned.regions(len(scene.region_masks(planned.boxes, _COVERED, _COVERED)))
    return {
        "positive": scene_node.shown(regions), "negative": values["negative"],
        "negative_tokens": _tokens(values["negative"]), "notes": [*_open_notes(unknown), *unread, *notes],
        "problems": list(casts.problems), "rows": rows,
        "people": [{
            **(_person(region.who) if region.who else {}), "colour": scene.hex_colour(region.who, number),
            "box": [region.box.left, region.box.top, region.box.right, region.box.bottom] if region.box else None,
            "text": region.text, "tokens": _tokens(region.text),
        } for number, region in enumerate(regions)],
    }


_ANSWERS: dict[str, Callable[[Json, list[str]], Json]] = {
    "ShinyMasCharacterPrompt": _character_prompt, "ShinyMasScene": _scene}


def _values(node: type[io.ComfyNode], casts: Casts, inputs: Json, unknown: list[str]) -> Json:
    """The node's widgets, missing ones at their defaults. Raises CastError for what the node would not take."""
    if decider := next((name for name in ("character", "people", "cast", "pick") if name in unknown), None):
        raise CastError(f"{decider} comes from another node: the prompt is known when it runs")
    values = {}
    for item in node.define_schema().inputs:
        if not hasattr(item, "default"):
            continue
        first = item.options[0] if item.get_io_type() == "COMBO" else ""
        values[item.id] = inputs.get(item.id, first if item.default is None else item.default)
        _check(item, values[item.id])
    if unlisted := unlisted_choice(casts, values):
        raise CastError(unlisted)
    return values


def _says(inputs: Json) -> tuple[FileSays | None, list[str]]:
    """What the LoHa of this name says; where it cannot be read, a note: the prompt itself lacks nothing."""
    name = inputs.get("loha")
    if name is None:
        return None, []
    if not isinstance(name, str):
        raise CastError("loha: is no file's name")
    try:
        return load.says(name), []
    except LohaError as error:
        why = str(error).partition(";")[0].rstrip(".")
        return None, [f"note: until loha can be read, the names are written as model_version has them: {why}"]


def _check(item: io.Input, value: object) -> None:
    kind = _TYPES[item.get_io_type()]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise CastError(f"{item.id}: is not {_KINDS[kind]}")
    if kind is str:
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise CastError(f"{item.id}: holds half a character")
    elif not item.min <= value <= item.max:
        raise CastError(f"{item.id}: {value} is not from {item.min} to {item.max}")


def _open_notes(unknown: list[str]) -> list[str]:
    names = [name for name in ("before", "after", "previous", "exclude", "shared", "loha", "tags") if name in unknown]
    return [f"note: {', '.join(names)} of another node: known when it runs, and not in this text"] if names else []


def _tokens(text: str) -> list[int]:
    return list(count_tokens(text))


def _everyone(own: Path) -> Json:
    """The casts, with the thumbnails and favourites in a person's own folder."""
    casts = load_casts()
    return {"casts": [_cast(cast, thumbnails(own, cast.name)) for cast in casts.by_name.values()],
            "favourites": sorted(read_favourites(own / "favourites.json")), "problems": list(casts.problems)}


def _cast(cast: Cast, pictures: Mapping[str, int]) -> Json:
    return {"name": cast.name, "characters": [
        _person(who) | {"kana": who.kana, "aliases": who.aliases, "picture": pictures.get(who.name)}
        for who in cast.characters]}


def _person(who: Character) -> Json:
    return {"name": who.name, "ja": who.ja, "unit": who.unit, "colour": who.colour, "cards": who.cards}
