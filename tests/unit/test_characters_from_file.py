"""What a file says of its names: by hash, by the tags that its trainer counted, else as a person chose."""

import json
from dataclasses import replace
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shinymas_loha.characters import DEFAULT_CAST, EMBEDDED, Cast, Character, ModelVersion, build, read
from shinymas_loha.characters.from_file import names_in_file, trigger_words

CAST = read(EMBEDDED, DEFAULT_CAST)
V21 = "dd92eca6e881b10f84928f7eb7a94912304a700334cfe78eeedc096b726314d5"


def tags(*folders):
    return {"ss_tag_frequency": json.dumps({str(number): folder for number, folder in enumerate(folders)})}


def trigger(name, version="v2.1", sha256="", metadata=(), cast=CAST):
    """The trigger that the prompt gets, and the notes."""
    names = names_in_file([cast], version, sha256, dict(metadata))
    who = cast.find(name)
    return build(names.cast_for(cast, who), who, version=names.version, max_tags=0).positive, names.notes


def test_by_hash_whatever_is_chosen():
    assert trigger("Hiori", "v2.1", V21) == ("Kazano Hiori", ())
    assert trigger("Hiori", "v1.0", V21.upper()) == ("Kazano Hiori", (
        "note: the file is v2.1 (shinymas-v2.1-000014) by its hash; model_version says v1.0 and is not used",))
    assert trigger("Ikaruga Luca", "v1.0", V21)[0] == "Ikaruga Luca"


def test_by_the_hash_of_another_cast():
    own = Cast("mine", (Character("Yamada Hanako", ()),))
    known = replace(CAST, models=MappingProxyType({
        "v1.0": replace(CAST.models["v1.0"], sha256={"v1": "ab" * 32})}))
    names = names_in_file([own, known], "v2.1", "ab" * 32, {})
    who = own.characters[0]
    assert build(names.cast_for(own, who), who, version=names.version, max_tags=0).positive == "Hanako Yamada"


@pytest.mark.parametrize(("metadata", "version", "expected", "note"), [
    (tags({"Hiori Kazano": 5, "1girl": 900}), "v2.1", "Hiori Kazano",
     "note: the file's tags (ss_tag_frequency) write the names given first; model_version v2.1 would write them "
     "family first and is not followed"),
    (tags({"kazano_hiori": 5}, {"Sakuragi Mano": 3}), "v1.0", "Kazano Hiori",
     "note: the file's tags (ss_tag_frequency) write the names family first; model_version v1.0"),
    (tags({"hiori kazano": 9, "Sakuragi Mano": 1}), "v1.0", "Hiori Kazano",
     "write the names given first 9 times and family first 1 times; they are written given first"),
    (tags({"Hiori Kazano": 5}), "v1.0", "Hiori Kazano", ""),
    (tags({"Sakuragi Mano": 5, "Mano Sakuragi": 5}), "v1.0", "Hiori Kazano", ""),
    (tags({"1girl": 5, "smile": 3}), "v1.0", "Hiori Kazano", ""),
    ({}, "v1.0", "Hiori Kazano", ""),
])
def test_by_the_tags_that_were_counted(metadata, version, expected, note):
    text, notes = trigger("Hiori", version, metadata=metadata)
    assert text == expected
    assert note in " ".join(notes) and bool(note) == bool(notes)


def test_a_foreign_files_own_spelling_of_a_name():
    assert trigger("Osaki Tenka", metadata=tags({"oosaki tenka": 4, "Kazano Hiori": 3}))[0] == "oosaki tenka"
    assert trigger("Hiori", metadata=tags({"風野灯織": 4}))[0] == "風野灯織"
    assert trigger("Hiori", metadata=tags({"hiori": 4, "kazano hiori": 1}))[0] == "Kazano Hiori"
    assert trigger("Mano", metadata=tags({"風野灯織": 4}))[0] == "Sakuragi Mano"


def test_whom_the_file_has_seen_no_version_denies():
    assert trigger("Ikaruga Luca", "v1.0", metadata=tags({"Luca Ikaruga": 4}))[0] == "Luca Ikaruga"


def test_a_trigger_of_its_own_kind_stays():
    own = Cast("mine", (Character("Yamada Hanako", ()),), {"v2.1": ModelVersion("v2.1", "photo of {given}")})
    assert trigger("Hanako Yamada", cast=own, metadata=tags({"Yamada Hanako": 9})) == ("photo of Hanako", ())


NONSENSE = st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
                        lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)), max_leaves=8)


@settings(max_examples=150, deadline=None)
@given(st.one_of(NONSENSE.map(json.dumps), st.text(), st.just("[" * 100_000)))
def test_any_metadata_leaves_a_prompt(text):
    assert trigger("Hiori", metadata={"ss_tag_frequency": text}) == ("Kazano Hiori", ())


@pytest.mark.parametrize("name", [
    "{kazano} hiori", "kazano, hiori", "kazano\u202e hiori", "kazano" + "." * 200 + "hiori"])
def test_a_spelling_that_could_be_no_trigger_is_not_taken_over(name):
    assert trigger("Hiori", "v9", metadata=tags({name: 9}))[0].lower() == "kazano hiori"


def test_trigger_words_by_hash_are_everyone_in_its_order():
    words = trigger_words([CAST], V21, {})
    assert len(words) == 26 and words["Kazano Hiori"] == "Kazano Hiori"


def test_trigger_words_are_spelled_as_in_the_tags():
    assert trigger_words([CAST], "", tags({"hiori_kazano": 3, "1girl": 90}, {"Mano Sakuragi": 2})) == {
        "Sakuragi Mano": "Mano Sakuragi", "Kazano Hiori": "hiori kazano"}


def test_trigger_words_of_nobody_we_know_are_those_of_the_files_own_cast():
    own = json.dumps({"version": 1, "characters": [
        {"name": "Yamada Hanako", "cards": 5, "tags": []}, {"name": "large breasts"}, {"name": 5}]})
    assert trigger_words([CAST], "", {"shinymas_cast": own}) == {"Yamada Hanako": "Yamada Hanako"}


@pytest.mark.parametrize("own", ["", "[", "[]", "{}", '{"characters": 5}', '{"characters": [5]}', "[" * 100_000])
def test_an_unusable_cast_has_no_trigger_words(own):
    assert trigger_words([CAST], "", {"shinymas_cast": own, "ss_tag_frequency": own}) == {}
