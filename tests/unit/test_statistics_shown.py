"""Statistics as the model page writes them, as a cast, as a picture, as repeats; and out of a LoHa's metadata."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest
import tomllib
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from shinymas_loha.characters import EMBEDDED, CastError, parse, read
from shinymas_loha.characters import statistics as S
from shinymas_loha.characters.statistics.captions import name_key, name_of
from shinymas_loha.characters.statistics.tallies import Place, Tallies
from shinymas_loha.loha.training.kohya.dataset_file import read_dataset
from trained_captions import count

CAST = read(EMBEDDED, "shinymas")
NAMES = [who.name for who in CAST.characters]
# The model page's own, to the letter.
DISTRIBUTION = """\
            character  cards
1       Sakuragi Mano     52
2        Kazano Hiori     49
3    Hachimiya Meguru     47
4         Osaki Tenka     46
5        Morino Rinze     45
6     Tsukioka Kogane     44
7   Arisugawa Natsuha     44
8    Kuwayama Chiyuki     44
9         Osaki Amana     43
10         Saijo Juri     43
11        Komiya Kaho     43
12      Tanaka Mamimi     42
13      Yukoku Kiriko     42
14    Mitsumine Yuika     40
15     Sonoda Chiyoko     40
16     Serizawa Asahi     39
17     Shirase Sakuya     38
18          Izumi Mei     35
19    Mayuzumi Fuyuko     34
20       Asakura Toru     28
21     Higuchi Madoka     28
22    Ichikawa Hinana     26
23     Fukumaru Koito     25
24   Nanakusa Nichika     23
25       Aketa Mikoto     22
26       Ikaruga Luca      4"""


def tallied(*characters, told_by=S.BY_FOLDER):
    """Counts of (name, pictures, tag → pictures), each in a folder of her own with a picture a caption."""
    tallies = Tallies(told_by)
    for name, pictures, tags in characters:
        tally = tallies.of(name)
        tally.pictures += pictures
        tally.tags.update(tags)
        tally.add_name(name, pictures)
        tallies.captions += pictures
        tallies.places.append(Place(f"/pictures/{name}", 1, pictures, ".txt", Counter({name_key(name): pictures})))
    return tallies


@pytest.fixture(scope="module")
def page_data(tmp_path_factory):
    """Captions of which the page's tables are the statistics: 966 files, her tags in her order."""
    root = tmp_path_factory.mktemp("cards")
    for who in CAST.characters:
        folder = root / f"1_{who.name}"
        folder.mkdir()
        for number in range(who.cards):
            # Of equal counts the alphabet would decide: four pictures cannot put twenty tags into an order.
            tags = [tag for place, tag in enumerate(who.tags)
                    if number < who.cards * (21 - place) // 21 or who.cards < 20]
            random.Random(number).shuffle(tags)
            (folder / f"{number}.txt").write_text(", ".join(tags), encoding="utf-8")
            (folder / f"{number}.png").touch()
    return root


@pytest.fixture(scope="module")
def page(page_data):
    tallies = count(page_data)
    return S.summarise(tallies, 20, CAST.withheld, NAMES)


def test_the_pages_own_tables(page):
    assert S.distribution(page) == DISTRIBUTION
    text = S.page_text(page)
    for who in CAST.characters:
        tags = who.tags if who.cards >= 20 else sorted(who.tags)
        assert f"{who.name},\n{', '.join(tags)}\n\n" in text
    assert text.startswith("Sakuragi Mano,\nbrown eyes, smile,")
    assert text.endswith(f"\n\nData distribution:\n{DISTRIBUTION}")


def test_the_table_holds_wide_letters():
    found = S.summarise(tallied(("風野灯織", 12, {}), ("Mano", 3, {})), 20, ())
    assert S.distribution(found) == "   character  cards\n1   風野灯織     12\n2       Mano      3"


def test_the_cast_is_read_back(page):
    cast = parse(S.cast_yaml(page, CAST.withheld).encode(), "page.yaml", "page")
    assert cast.withheld == CAST.withheld
    for back, who, found in zip(cast.characters, CAST.characters, page.characters, strict=True):
        assert (back.name, back.cards, set(back.tags)) == (who.name, who.cards, set(who.tags))
        assert back.identity == found.identity and back.identity
        assert not set(back.identity) & set(CAST.withheld)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=30), st.integers(1, 99), st.lists(st.text(max_size=20), max_size=6)),
                min_size=1, max_size=4))
def test_any_captions_make_a_cast_that_is_read_back(tmp_path_factory, characters):
    root = tmp_path_factory.mktemp("any")
    for number, (name, pictures, tags) in enumerate(characters):
        text = ",".join([name, *tags]).encode("utf-8", "replace")
        for copy in range(min(pictures, 3)):
            (root / f"{number}-{copy}.txt").write_bytes(text)
    tallies = count(root, S.BY_FIRST_TAG)
    if not tallies.by_key:
        return
    found = S.summarise(tallies, 20, ("breasts",))
    cast = parse(S.cast_yaml(found, ("breasts",)).encode(), "any.yaml", "any")
    assert [(who.name, who.cards, who.tags, who.identity) for who in cast.characters] == [
        (who.name, who.pictures, tuple(tag.tag for tag in who.tags), who.identity) for who in found.characters]


@given(st.text(max_size=150))
def test_a_name_is_one_that_a_cast_holds(text):
    name = name_of(text)
    if name:
        cast = {"version": 1, "characters": [{"name": name, "tags": []}]}
        assert parse(yaml.safe_dump(cast).encode(), "f", "n").characters[0].name == name
    assert name_of(name) == name


def test_the_report_says_what_a_person_should_know(page):
    lines = S.report_text(page).splitlines()
    assert lines[:3] == ["captions: 966", "characters: 26, told apart by folder", "Sakuragi Mano: 52 pictures"]
    assert "Ikaruga Luca: 4 pictures, few: expect a poor likeness" in lines
    assert "Kazano Hiori, identity: black hair, long hair, ponytail, purple eyes, mole, mole under mouth" in lines
    (distinctive,) = [line for line in lines if line.startswith("Kazano Hiori, distinctive: ")]
    assert distinctive.startswith("Kazano Hiori, distinctive: mole under mouth × 19.7, mole × ")
    assert "Sakuragi Mano, contradiction in the list, people: solo 71%, multiple girls 13%" in lines
    assert ("Sakuragi Mano, contradiction in the list, hair colour: blonde hair 8%, brown hair 81%, light brown hair "
            "62%") in lines
    assert "Sakuragi Mano, contradiction in 7 captions, solo among several: solo + multiple girls 7" in lines


def test_two_colours_in_captions_of_one_person(tmp_path):
    for number, tags in enumerate(("1girl, brown hair, red hair", "brown hair, red hair", "1girl, black hair, red hair",
                                   "2girls, black hair, red hair")):
        (tmp_path / f"{number}.txt").write_text(tags)
    found = S.summarise(count(tmp_path), 20, ())
    assert S.report_text(found).endswith(
        ", contradiction in 3 captions, two of hair colour: brown hair + red hair 2, black hair + red hair 1")


def test_a_stranger_forges_no_line_of_the_report():
    found = S.summarise(tallied(("a\u202eb", 1, {"x\u2028y": 1})), 20, ())
    assert "\u202e" not in S.report_text(found) and len(S.report_text(found).splitlines()) == 6


def test_few_pictures_meet_many(page, page_data):
    repeats = {one.name: one.repeats for one in S.balance(page)}
    assert (repeats["Sakuragi Mano"], repeats["Ikaruga Luca"], repeats["Aketa Mikoto"]) == (1, 13, 2)
    assert all(one.balanced <= 1.34 * 52 and one.balanced >= 52 / 1.5 for one in S.balance(page))
    lines = S.balance_text(S.balance(page)).splitlines()
    assert lines[0] == "an epoch: 966 pictures as it is, 1200 balanced"
    assert lines[1] == "Sakuragi Mano: 52 × 1 = 52, as before"
    assert lines[26:] == ["Ikaruga Luca: 4 × 13 = 52, before 4",
                          "note: pictures seen 10 times in every epoch are learnt by heart: better more pictures of "
                          "Ikaruga Luca"]


def test_the_dataset_is_read_back_by_the_trainer(page, page_data):
    before = sorted(path.name for path in page_data.iterdir())
    text, changes = S.dataset_toml(page)
    folders = read_dataset(text).options.folders
    assert {one.name: one.repeats for one in folders} == {one.name: one.repeats for one in S.balance(page)}
    assert {str(one.path) for one in folders} == {str(page_data / name) for name in before}
    assert {one.captions.extension for one in folders} == {".txt"}
    assert len(changes) == 8
    assert f"repeats: {page_data}/1_Ikaruga Luca: 1 → 13" in changes
    assert sorted(path.name for path in page_data.iterdir()) == before


def test_repeats_that_are_there_count(tmp_path):
    for label, number in (("10_Mano", 6), ("20_Hiori", 2), ("5_Hiori/more", 1), ("60_Luca", 1)):
        folder = tmp_path / label
        folder.mkdir(parents=True)
        for one in range(number):
            (folder / f"{one}.caption").write_text("smile")
            (folder / f"{one}.png").touch()
    found = S.summarise(count(tmp_path), 20, ())
    assert [(one.name, one.pictures, one.seen, one.repeats) for one in S.balance(found)] == [
        ("Mano", 6, 60, 10), ("Hiori", 3, 41, 20), ("Luca", 1, 60, 60)]
    text, changes = S.dataset_toml(found)
    assert [subset["num_repeats"] for subset in tomllib.loads(text)["datasets"][0]["subsets"]] == [10, 20, 20, 60]
    assert {subset["caption_extension"] for subset in tomllib.loads(text)["datasets"][0]["subsets"]} == {".caption"}
    assert changes == [f"repeats: {tmp_path}/5_Hiori/more: 1 → 20"]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_any_folders_name_stands_in_a_toml(name):
    tallies = tallied(("Mano", 1, {}))
    tallies.places[:] = [Place(name, 1, 1, ".txt", Counter({"mano": 1}))]
    text, _ = S.dataset_toml(S.summarise(tallies, 20, ()))
    assert tomllib.loads(text)["datasets"][0]["subsets"][0]["image_dir"] == name


@pytest.mark.parametrize(("place", "text"), [
    (Place("/p", 1, 0, ".txt", Counter({"mano": 1})), "the captions have no pictures beside them"),
    (Place("/p", 1, 2, ".txt", Counter({"mano": 1, "hiori": 1})), "/p holds pictures of 2 characters, and repeats are"),
    (Place("/p\udcff", 1, 2, ".txt", Counter({"mano": 1})), r"/p\\udcff: not UTF-8, so it cannot stand in a TOML"),
])
def test_folders_that_repeats_cannot_be_written_for(place, text):
    tallies = tallied(("Mano", 1, {}), ("Hiori", 1, {}))
    tallies.places.append(place)
    if place.pictures == 0:
        tallies.places[:-1] = [Place(one.path, 1, 0, ".txt", one.captions) for one in tallies.places[:-1]]
    with pytest.raises(CastError, match=text):
        S.dataset_toml(S.summarise(tallies, 20, ()))


def test_the_chart_shows_who_has_how_many(page):
    chart = S.draw_chart(page, S.balance(page))
    assert chart.dtype.name == "float32" and chart.shape[2] == 3 and chart.min() >= 0 and chart.max() <= 1
    bars = [(abs(chart[64 + 24 * row + 10] * 255 - colour) < 1).all(axis=1).sum()
            for row, colour in ((0, (0, 114, 178)), (20, (0, 114, 178)), (25, (213, 94, 0)))]
    assert bars[0] == pytest.approx(bars[1] * 52 / 28, abs=3) == pytest.approx(bars[2] * 13, abs=13)


def test_a_chart_of_very_many_ends():
    many = S.summarise(tallied(*((f"Character number {number} " + "長い名前" * 20, 1, {"glasses": 1})
                                 for number in range(300))), 20, ())
    assert S.draw_chart(many, S.balance(many)).shape[0] < 2600
    assert S.report_text(many).endswith("note: 100 more characters are in `table` and `yaml`")


def metadata(frequency, folders=None):
    said = {"ss_tag_frequency": json.dumps(frequency)}
    return said if folders is None else said | {"ss_dataset_dirs": json.dumps(folders)}


def test_what_a_lohas_trainer_counted():
    counted = {"10_Kazano Hiori": {"Kazano Hiori": 4, "mole": 3, "Mole": 2, "smile": 3},
               "2_Sakuragi_Mano": {"smile": 9}, "!": {"x": 1}}
    found = S.summarise(S.count_metadata(metadata(counted, {"10_Kazano Hiori": {"n_repeats": 10, "img_count": 5}}),
                                         S.BY_FOLDER, {}), 20, (), NAMES)
    assert [(one.name, one.pictures, [(tag.tag, tag.pictures) for tag in one.tags]) for one in found.characters] == [
        ("Sakuragi Mano", 9, [("smile", 9)]), ("Kazano Hiori", 5, [("mole", 5), ("smile", 3)])]
    assert found.nobody == 1 and found.captions == 15
    assert [(one.seen, one.repeats) for one in S.balance(found)] == [(18, 6), (50, 10)]


def test_names_in_a_lohas_counts():
    names = S.known_names("", CAST.characters)
    found = S.summarise(S.count_metadata(metadata({"img": {"kazano hiori": 49, "hiori_kazano": 1, "smile": 90}}),
                                         S.BY_NAME, names), 20, ())
    assert [(one.name, one.pictures, one.tags) for one in found.characters] == [("Kazano Hiori", 50, ())]
    report = S.report_text(found)
    assert "note: the file does not say which tags stood beside a name: choose 'folder' for tags" in report
    assert "note: how many pictures a folder had is not in the file: as many as its top tag" in report
    assert parse(S.cast_yaml(found, ()).encode(), "f", "n").characters[0].cards == 50


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"a": 1}', '{"a": {"b": "c"}}', "[" * 100_000,
                                  '{"a": {"b": true, "c": -1, "d": 1e300}}'])
def test_metadata_that_counts_nothing(text):
    with pytest.raises(CastError, match="no ss_tag_frequency: its trainer counted no tags"):
        S.count_metadata({"ss_tag_frequency": text}, S.BY_FOLDER, {})


def test_a_loha_does_not_know_the_first_tag():
    with pytest.raises(CastError, match="does not say which tag came first; choose 'folder', or 'name in tags'"):
        S.count_metadata(metadata({"a": {"b": 1}}), S.BY_FIRST_TAG, {})


def test_odd_facts_about_a_lohas_folders_are_passed_over():
    for folders in ([], {"a": 1}, {"a": {"img_count": "many", "n_repeats": -1}}, {"a": {"img_count": True}}):
        (one,) = S.summarise(S.count_metadata(metadata({"a": {"b": 2}}, folders), S.BY_FOLDER, {}), 20, ()).characters
        assert one.pictures == 2
