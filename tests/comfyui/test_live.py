"""The live prompt: what the route answers is what the node then writes; whom it answers, and what it refuses."""

from __future__ import annotations

import http.client
import json
import random
import shutil
import urllib.request

import pytest
from kit.comfyui_server import PromptFailed
from shinymas_loha.loha import Loha, files

WHO = {"character": "Kazano Hiori", "model_version": "v2.1", "tag_set": "identity", "pick": "selected"}


@pytest.fixture
def send(server):
    """A request as it is: (status, body)."""

    def post(body, method="POST", path="/shinymas/prompt", **headers):
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
        sent = {"Content-Type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
        connection.request(method, path, body, sent)
        answer = connection.getresponse()
        return answer.status, answer.read()

    return post


@pytest.fixture
def ask(send):
    def question(node="ShinyMasCharacterPrompt", unknown=(), **inputs):
        status, body = send(json.dumps({"node": node, "inputs": inputs, "open": list(unknown)}))
        assert status == 200, body
        return json.loads(body)

    return question


@pytest.mark.parametrize("inputs", [
    {}, {"character": "Ikaruga Luca", "after": "<lora:x:1>, (hat:1.2), (hat:0.8)"}, {"pick": "random", "seed": 77},
    {"tag_set": "top", "max_tags": 3, "weight": 1.2, "before": "", "exclude": "smile"},
    {"previous": "Sakuragi Mano, brown hair"}, {"cast": "cinderella-girls", "character": "Shimamura Uzuki"},
    {"tags": "Kazano Hiori: smile, (mole:1.2)"}, {"tags": "Sakuragi Mano: smile"}, {"after": "large breasts, hat"},
])
def test_the_answer_is_what_the_node_writes(ask, run_graph, node, inputs):
    made = node("ShinyMasCharacterPrompt", **(WHO | inputs))
    outputs = run_graph({"who": made, "shown": {"class_type": "PreviewAny", "inputs": {"source": ["who", 0]}},
                         "without": {"class_type": "PreviewAny", "inputs": {"source": ["who", 1]}}})
    answer = ask(**made["inputs"])
    assert [answer["positive"]] == outputs["who"]["text"] and answer["notes"] == outputs["who"]["notes"]
    assert [answer["negative"]] == outputs["without"]["text"]


def test_the_file_counts_as_it_does_in_the_node(ask, base, sample_loha):
    loras = base / "models" / "loras"
    metadata = {"ss_tag_frequency": json.dumps({"1_a": {"hiori kazano": 30}})}
    files.save(Loha(files.read(loras / sample_loha).modules, metadata=metadata), loras / "live.safetensors",
               overwrite=True)
    answer = ask(**WHO, loha="live.safetensors")
    assert ", hiori kazano, black hair" in answer["positive"].lower()
    assert answer["notes"][0].startswith("note: the file's tags (ss_tag_frequency) write the names given first")
    for name in ("../../secret.safetensors", "gone.safetensors", ""):
        answer = ask(**WHO, loha=name)
        assert answer["notes"] == ["note: until loha can be read, the names are written as model_version has them: "
                                   f"'{name}' is not in the models/loras folder"]
        assert ", Kazano Hiori, " in answer["positive"]
    assert ask(**WHO, loha=["1", 0])["error"] == "loha: is no file's name"


def test_tokens_are_those_of_the_text_encoder(ask, comfy, small_model):
    for after in ("", "a cat, " * 40, "(weighted words:1.3) and \\(brackets\\)"):
        answer = ask(**WHO, after=after)
        chunks = small_model[1].tokenize(answer["positive"], return_word_ids=True)["l"]
        assert answer["tokens"] == [sum(word != 0 for chunk in chunks for *_, word in chunk), 75 * len(chunks)]


def test_tags_are_offered_in_order_without_the_withheld_ones(ask):
    tags = ask(**WHO)["tags"]
    assert [tag for tag, *_ in tags[:3]] == ["black hair", "mole", "mole under mouth"]
    assert "breasts" not in [tag for tag, *_ in tags] and len(tags) == 19
    on = {tag: (identity, weight) for tag, identity, weight in tags if weight}
    assert on["black hair"] == (True, 1) and on["1girl"] == (False, 1) and "smile" not in on
    on = {tag: weight for tag, _, weight in ask(**WHO, tags="Kazano Hiori: smile, (mole:1.2)")["tags"] if weight}
    assert on == {"smile": 1, "mole": 1.2}


def test_people_before_her_are_written_too(ask):
    mano = {"inputs": WHO | {"character": "Sakuragi Mano"}}
    answer = ask(**WHO, previous=mano)
    assert answer["positive"].startswith("masterpiece, best quality, Sakuragi Mano, ")
    assert ", Kazano Hiori, black hair" in answer["positive"] and "2girls" in answer["positive"]
    for _ in range(20):
        mano = {"inputs": WHO | {"previous": mano}}
    assert ask(**WHO, previous=mano)["error"] == "previous: more than 8 prompts one after another"
    assert ask(**WHO, previous={"inputs": 5})["error"] == "previous: is no prompt"


def test_what_only_a_run_knows_is_said(ask):
    assert ask(**WHO, unknown=["after", "loha", 5, "x"])["notes"] == [
        "note: after, loha of another node: known when it runs, and not in this text"]
    assert ask(unknown=["character"])["error"] == (
        "character comes from another node: the prompt is known when it runs")


@pytest.mark.parametrize(("inputs", "message"), [
    ({"character": "Kazano Hiory"}, "'Kazano Hiory' is not in the cast 'shinymas'; did you mean Kazano Hiori"),
    ({"character": "Ikaruga Luca", "model_version": "v1.0"}, "v1.0 does not know Ikaruga Luca"),
    ({"cast": "gone"}, "cast: 'gone' is not one of shinymas"), ({"pick": "all"}, "pick: 'all' is not one of"),
    ({"max_tags": -1}, "max_tags: -1 is not from 0 to 200"), ({"weight": "1"}, "weight: is not a number"),
    ({"weight": float("nan")}, "weight: nan is not from 0.0 to 3.0"), ({"seed": True}, "seed: is not a whole number"),
    ({"before": 5}, "before: is not text"), ({"after": "\ud800"}, "after: holds half a character"),
])
def test_what_the_node_would_not_take_is_told(ask, inputs, message):
    assert message in ask(**(WHO | inputs))["error"]


def test_a_scene_comes_with_everyones_text_and_box(ask):
    answer = ask("ShinyMasScene", people="Hiori | left | smile | 1.1\nMano | 60-100", shared="sky")
    hiori, mano, rest = answer["people"]
    assert hiori["name"] == "Kazano Hiori" and hiori["colour"] == "144384" and hiori["box"] == [0, 0, 0.5, 1]
    assert "(Kazano Hiori:1.1)" in hiori["text"] and hiori["text"].endswith("smile") and hiori["tokens"][1] == 75
    assert mano["box"] == [0.6, 0, 1, 1] and rest["box"] is None and rest["text"] == "sky, 2girls"
    assert answer["rows"] == [[1, "Hiori", "left", "smile", "1.1"], [2, "Mano", "60-100", "", ""]]
    assert answer["positive"].splitlines()[0] == f"Kazano Hiori (0-50, 0-100): {hiori['text']}"


def test_a_refused_scene_still_has_its_rows(ask):
    answer = ask("ShinyMasScene", people="Hiori | nowhere\n\nMano")
    assert answer["error"].startswith("line 1: 'nowhere' is no box")
    assert answer["rows"] == [[1, "Hiori", "nowhere", "", ""], [3, "Mano", "", "", ""]]


@pytest.fixture
def own(base):
    """A person's own folder for the picker, for this test alone."""
    folder = base / "user" / "default" / "shinymas"
    (folder / "thumbnails" / "shinymas").mkdir(parents=True)
    yield folder
    shutil.rmtree(folder)


def test_everyone_is_listed_for_the_picker(server, own):
    (own / "thumbnails" / "shinymas" / "Sakuragi Mano.webp").write_bytes(b"x")
    (own / "favourites.json").write_text('["Kazano Hiori", 5]', encoding="utf-8")
    listed = server.get("/shinymas/casts")
    assert [cast["name"] for cast in listed["casts"]][:2] == ["shinymas", "cinderella-girls"]
    mano, hiori = listed["casts"][0]["characters"][:2]
    assert mano.pop("picture") > 0 and hiori["picture"] is None
    assert mano == {"name": "Sakuragi Mano", "ja": "櫻木真乃", "kana": "さくらぎ まの", "aliases": ["Mano"],
                    "unit": "illumination STARS", "colour": "FFBAD6", "cards": 52}
    assert listed["favourites"] == ["Kazano Hiori"]


GOOD = json.dumps({"node": "ShinyMasCharacterPrompt", "inputs": WHO})


def test_only_comfyuis_own_page_may_ask(server, send):
    host = server.url.removeprefix("http://")
    for headers in ({}, {"Sec_Fetch_Site": "same-origin"}, {"Origin": server.url}):
        assert send(GOOD, **headers)[0] == 200
        assert send(None, "GET", "/shinymas/casts", **headers)[0] == 200
    for headers in ({"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"}, {"Sec_Fetch_Site": "x"},
                    {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": f"http://evil.{host}"},
                    {"Origin": "http://127.0.0.1:1"}, {"Host": "localhost:1", "Origin": server.url}):
        assert send(GOOD, **headers)[0] == 403, headers
        assert send(None, "GET", "/shinymas/casts", **headers)[0] == 403, headers


@pytest.mark.parametrize(("body", "status"), [
    (b"", 400), (b"{", 400), (b"[]", 400), (b"null", 400), (b"\xff", 400), (b"[" * 50_000, 400),
    (b'{"node": "SaveImage", "inputs": {}}', 400), (b'{"node": [], "inputs": {}}', 400),
    (b'{"node": "ShinyMasScene", "inputs": []}', 400), (b'{"node": "ShinyMasScene", "inputs": {}, "open": 5}', 400),
    (b" " * 100_001, 413),
])
def test_what_is_no_question_is_refused(send, body, status):
    assert send(body)[0] == status


def test_a_body_of_unknown_length_is_bounded_too(server):
    request = urllib.request.Request(f"{server.url}/shinymas/prompt", (b" " * 1000 for _ in range(1000)),
                                     {"Content-Type": "application/json"})
    with pytest.raises(OSError):
        urllib.request.urlopen(request, timeout=60)
    assert "413" in str(pytest.raises(urllib.error.HTTPError, urllib.request.urlopen, urllib.request.Request(
        f"{server.url}/shinymas/prompt", b" " * 200_000, {"Content-Type": "application/json"})).value)


def test_a_form_cannot_ask(send):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert send(GOOD, Content_Type=kind)[0] == 415


def _anything(chance, depth=0):
    pieces = ("", "(", ")", "[", "{a|b}", "BREAK", "|", "\n", "\0", "‮", "𝕊", "Hiori", "1girl", "<lora:x:1>", "a" * 3000,
              "((((" * 200, ",", ":1.2)", "embedding:x", "\ud800", "../../etc/passwd", "%00")
    kind = chance.randrange(9 if depth < 4 else 6)
    if kind < 3:
        return "".join(chance.choices(pieces, k=chance.randrange(6)))
    if kind < 6:
        return chance.choice([None, True, 0, -1, 1e308, float("inf"), float("nan"), 2**70])
    if kind < 8:
        return {chance.choice(["inputs", "character", "previous", "x"]): _anything(chance, depth + 1)}
    return [_anything(chance, depth + 1) for _ in range(chance.randrange(3))]


@pytest.mark.parametrize("kind", ["ShinyMasCharacterPrompt", "ShinyMasScene"])
def test_hostile_inputs_are_answered(send, kind, object_info):
    chance = random.Random(11)
    spec = object_info[kind]["input"]
    names = [*spec["required"], *spec["optional"]]
    for _ in range(300):
        inputs = (WHO if kind == "ShinyMasCharacterPrompt" else {}) | {
            name: _anything(chance) for name in chance.sample(names, chance.randrange(1, 5))}
        status, body = send(json.dumps({"node": kind, "inputs": inputs, "open": [_anything(chance)]}))
        assert status in (200, 413), (inputs, body)
        if status == 200:
            assert {"error", "positive"} & json.loads(body).keys()


def test_a_refusal_of_the_route_is_one_of_the_node(ask, run_graph, node):
    """What is told live is told of the run too."""
    bad = WHO | {"character": "Nobody"}
    with pytest.raises(PromptFailed, match="Nobody"):
        run_graph({"who": node("ShinyMasCharacterPrompt", **bad),
                   "shown": {"class_type": "PreviewAny", "inputs": {"source": ["who", 0]}}})
    assert "'Nobody' is not in the cast" in ask(**bad)["error"]
