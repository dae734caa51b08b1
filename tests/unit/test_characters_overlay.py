"""A person's own casts beside and over the embedded one."""

import os

import pytest
from shinymas_loha.characters import CastError, build, cast_stamps, load_casts

SHIPPED = ("shinymas", "cinderella-girls")
HANAKO = "version: 1\ncharacters:\n  - name: Yamada Hanako\n    tags: [1girl, green hair, large breasts]\n"


@pytest.fixture
def user(tmp_path):
    (tmp_path / "shinymas").mkdir()

    def write(name, text):
        (tmp_path / "shinymas" / name).write_text(text, encoding="utf-8")

    return tmp_path, write


def test_without_a_folder_there_are_the_packs_casts(tmp_path):
    casts = load_casts(tmp_path)
    assert tuple(casts.by_name) == SHIPPED and casts.problems == ()


@pytest.mark.parametrize("name", ["mine.yaml", "mine.yml"])
def test_a_file_is_a_cast_of_its_own(user, name):
    folder, write = user
    write(name, HANAKO)
    casts = load_casts(folder)
    assert [c.name for c in casts.get("mine").characters] == ["Yamada Hanako"]
    assert len(casts.get("shinymas").characters) == 26
    assert casts.character_names()[-1] == "Yamada Hanako"
    assert len(casts.character_names()) == 26 + 193 + 1


def test_withheld_tags_are_withheld_in_every_cast(user):
    folder, write = user
    write("mine.yaml", HANAKO + "withheld: [hat]\n")
    cast = load_casts(folder).get("mine")
    assert cast.withheld == ("breasts", "large breasts", "cleavage", "hat")
    prompt = build(cast, cast.characters[0], tag_set="top", after="white hat")
    assert prompt.positive == "Yamada Hanako, 1girl, green hair"


def test_a_broken_file_is_reported_and_leaves_the_rest(user):
    folder, write = user
    write("bad.yaml", "version: 1\ncharacters: 5\n")
    write("mine.yaml", HANAKO)
    casts = load_casts(folder)
    assert tuple(casts.by_name) == (*SHIPPED, "mine")
    assert casts.problems == (
        "cast file left out: bad.yaml, line 2: characters: must be a list, such as [one, two]",
    )
    listed = "there is no cast 'bad'; there are shinymas, cinderella-girls, mine; .*bad.yaml, line 2"
    with pytest.raises(CastError, match=listed):
        casts.get("bad")


def test_shinymas_yaml_lies_over_the_embedded_cast(user):
    folder, write = user
    write("shinymas.yaml", HANAKO + "  - name: Kazano Hiori\n    tags: [hairpin]\n")
    cast = load_casts(folder).get("shinymas")
    assert [c.name for c in cast.characters][-1] == "Yamada Hanako" and len(cast.characters) == 27
    assert cast.characters[1].tags == ("hairpin",)
    assert cast.models["v1.0"].without == ("Ikaruga Luca",)


def test_an_overlay_whose_alias_is_anothers_is_reported(user):
    folder, write = user
    write("shinymas.yaml", HANAKO + "    aliases: [Mano]\n")
    casts = load_casts(folder)
    assert len(casts.get("shinymas").characters) == 26
    assert "'mano' would find both Sakuragi Mano and Yamada Hanako" in casts.problems[0]


def test_an_edited_file_is_read_anew(user):
    folder, write = user
    write("mine.yaml", HANAKO)
    before, names = cast_stamps(folder), load_casts(folder).character_names()
    write("mine.yaml", HANAKO.replace("Hanako", "Haruko"))
    os.utime(folder / "shinymas" / "mine.yaml", ns=(1, 1))
    assert cast_stamps(folder) != before
    assert load_casts(folder).character_names() == (*names[:-1], "Yamada Haruko")


@pytest.mark.skipif(os.name == "nt", reason="symlinks and FIFOs need a POSIX system")
def test_nothing_outside_the_folder_is_read_and_nothing_hangs(user):
    folder, write = user
    (folder / "secret.yaml").write_text(HANAKO, encoding="utf-8")
    (folder / "shinymas" / "link.yaml").symlink_to(folder / "secret.yaml")
    (folder / "shinymas" / "directory.yaml").mkdir()
    os.mkfifo(folder / "shinymas" / "pipe.yaml")
    casts = load_casts(folder)
    assert tuple(casts.by_name) == SHIPPED
    assert [problem.split(": ", 2)[1:] for problem in casts.problems] == [
        ["directory.yaml", "is not a file"],
        ["link.yaml", "points out of shinymas/; put the file itself there"],
        ["pipe.yaml", "is not a file"],
    ]


def test_a_version_that_knows_nobody_is_said(user):
    folder, write = user
    write("mine.yaml", HANAKO + "models:\n  v2.1: {trigger: '{name}', without: [Yamada Hanako]}\n")
    cast = load_casts(folder).get("mine")
    assert len(cast.members("v2.0")) == 1
    with pytest.raises(CastError, match="v2.1 knows nobody of the cast 'mine'"):
        cast.members("v2.1")


@pytest.mark.parametrize("text", ["Yamada Hanako", "hanako yamada", "ハナコ", "はなこ", "Green"])
def test_a_character_of_another_cast_brings_it_along(user, text):
    folder, write = user
    write("mine.yaml", HANAKO + "    kana: やまだ はなこ\n    unit: Green\n")
    found = load_casts(folder).find("shinymas", text)
    assert (found.cast.name, found.character.name) == ("mine", "Yamada Hanako")
    assert found.notes == ("cast: Yamada Hanako is from the cast 'mine', which is used",)
    assert load_casts(folder).find("mine", text).notes == ()
    with pytest.raises(CastError, match="'Nobody' is not in the cast 'mine'"):
        load_casts(folder).find("mine", "Nobody")


def test_a_given_name_of_two_is_of_the_first_and_said(user):
    folder, write = user
    sato = "  - {name: Sato Hanako, kana: さとう はなこ, tags: [1girl]}\n"
    write("mine.yaml", HANAKO + "    kana: やまだ はなこ\n" + sato)
    found = load_casts(folder).find("mine", "ハナコ")
    assert found.character.name == "Yamada Hanako"
    assert found.notes == (
        "character: 'ハナコ' is Yamada Hanako, Sato Hanako; the first of them stands in the prompt",)


def test_versions_of_casts_are_offered_after_the_embedded_ones(user):
    folder, write = user
    write("mine.yaml", HANAKO + "models:\n  mine-v1: {trigger: '{name}'}\n  v2.1: {trigger: '{name}'}\n")
    assert load_casts(folder).versions() == ("v2.1", "v2.0", "v1.0", "mine-v1")


@pytest.mark.parametrize("name", ["Hanako", "Yamada Hanako", "Yamada no Hanako"])
@pytest.mark.parametrize("trigger", ["{name}", "{family} {given}", "hnk {name} style"])
def test_any_trigger_counts_and_is_weighed_like_a_name(user, trigger, name):
    folder, write = user
    character = HANAKO.replace("Yamada Hanako", name)
    write("mine.yaml", character + f"models:\n  mine-v1: {{trigger: '{trigger}'}}\n")
    casts = load_casts(folder)
    cast, mano = casts.get("mine"), casts.find("shinymas", "Mano").character
    said = trigger.replace("{name}", name).replace("{family} {given}", name)

    def write_her(**settings):
        return build(cast, cast.characters[0], version="mine-v1", max_tags=0, **settings).positive

    assert write_her() == said
    assert write_her(after=f"({said}:1.2)") == f"({said}:1.2)"
    both = build(casts.get("shinymas"), mano, previous=said, max_tags=0, others=casts.by_name.values()).positive
    assert both == f"{said}, 2girls, Sakuragi Mano"


def test_two_files_of_one_name_are_told(user):
    folder, write = user
    write("mine.yaml", HANAKO)
    write("mine.yml", HANAKO.replace("Hanako", "Haruko"))
    casts = load_casts(folder)
    assert casts.get("mine").characters[0].name == "Yamada Hanako"
    assert casts.problems == ("cast file left out: mine.yml: mine.yaml is the cast 'mine' already; rename one",)


def test_a_given_name_that_several_have_finds_them_all(user):
    folder, write = user
    write("mine.yaml", HANAKO + "  - name: Suzuki Hanako\n    tags: []\n")
    assert [who.name for who in load_casts(folder).get("mine").called("hanako")] == ["Yamada Hanako", "Suzuki Hanako"]
    (note,) = load_casts(folder).find("mine", "Hanako").notes
    assert note == "character: 'Hanako' is Yamada Hanako, Suzuki Hanako; the first of them stands in the prompt"


def test_a_file_called_as_a_cast_of_the_pack_lies_over_that(user):
    folder, write = user
    write("cinderella-girls.yaml", "version: 1\ncharacters:\n  - name: Shimamura Uzuki\n    tags: [brown hair]\n")
    cast = load_casts(folder).get("cinderella-girls")
    assert len(cast.characters) == 193 and cast.find("Uzuki").tags == ("brown hair",)
