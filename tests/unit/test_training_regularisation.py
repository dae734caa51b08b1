"""Regularisation pictures: how often they are shown, what they weigh, where they do not count."""

import json
from dataclasses import replace
from itertools import chain, cycle
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from shinymas_loha.loha.errors import FileError, SettingsError
from shinymas_loha.loha.training.data import (
    DataOptions,
    FolderOptions,
    Latents,
    LossWeights,
    TrainingData,
    describe_data,
    index_pictures,
    training_data,
)
from shinymas_loha.loha.training.data.preview import previews
from shinymas_loha.loha.training.data.tags import cast_of
from shinymas_loha.loha.training.kohya.dataset_file import read_dataset
from shinymas_loha.loha.training.kohya.run_file import read_run
from shinymas_loha.loha.training.objective.loss import Step
from shinymas_loha.loha.training.objective.noise import Draw, draw
from shinymas_loha.loha.training.run.loop import Training
from shinymas_loha.loha.training.run.memory import latent_bytes
from shinymas_loha.loha.training.run.metadata import RunFacts, training_metadata
from shinymas_loha.loha.training.settings.fields import chosen, later


@pytest.fixture
def pictures(tmp_path):
    """Make a folder of so many pictures."""
    def make(label, count):
        folder = tmp_path / label
        folder.mkdir()
        for number in range(count):
            colour = (number * 20, 90, 200 - number * 10)
            Image.new("RGB", (64, 64), colour).save(folder / f"{number:02}.png")
        return folder

    return make


def _data(*folders, **values) -> TrainingData:
    options = DataOptions(folders, **{"resolution": 64, "bucket_min": 64, "batch_size": 3, **values})
    return training_data(index_pictures(options), options)


def _dealt(wanted, repeats):
    """Showings of each regularisation picture, dealt one after the other until there are enough."""
    shown, total = [0] * len(repeats), 0
    deal = chain(enumerate(repeats), ((place, 1) for place in cycle(range(len(repeats)))))
    while total < wanted:
        place, times = next(deal)
        shown[place] += times
        total += times
    return shown


@pytest.mark.parametrize("seed", range(12))
def test_each_datasets_regularisation_pictures_are_as_many_as_its_others(pictures, seed):
    chance = Random(seed)
    folders = [
        FolderOptions(pictures(f"{kind} {dataset}", chance.randint(1, 6)), repeats=chance.randint(1, 5),
                      is_reg=kind != "trained", dataset=dataset)
        for dataset in range(2) for kind in ("trained", "first", "second")]
    data = _data(*folders)
    found: dict[tuple[int, bool], list[tuple[int, int]]] = {}
    for picture in range(len(data.index)):
        folder = data.index.folder(picture)
        found.setdefault((folder.options.dataset, folder.options.is_reg), []).append(
            (folder.repeats, data.showings(picture)))
    for dataset in range(2):
        trained, regular = found[dataset, False], found[dataset, True]
        assert all(repeats == shown for repeats, shown in trained)
        wanted = sum(shown for _, shown in trained)
        assert [shown for _, shown in regular] == _dealt(wanted, [repeats for repeats, _ in regular])
        assert sum(shown for _, shown in regular) >= wanted
    shown = [item.picture for batch in data.epoch(0, 0) for item in batch.items]
    assert len(shown) == len(data) == sum(times for pairs in found.values() for _, times in pairs)
    assert all(shown.count(picture) == data.showings(picture) for picture in range(len(data.index)))


def test_a_regularisation_picture_weighs_as_chosen(tiny_models, tiny_settings):
    def random(seed):
        return torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(seed))

    prediction, drawn = random(1), Draw(random(2), random(3), torch.tensor([10, 500, 900]))
    models = replace(tiny_models, predict=lambda noisy, timesteps, states: prediction)
    squares = (prediction.double() - drawn.noise.double()).numpy() ** 2
    weights = torch.tensor([1.0, 0.25, 1.0]).view(-1, 1, 1, 1)
    for settings in (tiny_settings(), tiny_settings(min_snr_gamma=5.0), tiny_settings(loss_type="huber")):
        with torch.no_grad():
            step = Step(models, settings, "fp32")
            plain, weighed = (step.losses(random(4), drawn, ["a"], given) for given in (None, weights))
        np.testing.assert_allclose(weighed.double(), plain.double() * torch.tensor([1, 0.25, 1]), rtol=1e-6)
        if settings == tiny_settings():
            np.testing.assert_allclose(plain.double(), squares.mean((1, 2, 3)), rtol=1e-6)
            before = (prediction - drawn.noise).square().mean(dim=(1, 2, 3))
            assert torch.equal(plain, before), "not the same bits as before"


def test_a_run_weighs_them(tiny_models, tiny_settings, pictures):
    folders = FolderOptions(pictures("a", 4), repeats=1), FolderOptions(pictures("b", 2), repeats=1, is_reg=True)
    settings = tiny_settings()
    losses = []
    for weight in (1.0, 0.5):
        data = _data(*folders, prior_loss_weight=weight)
        run = Training(tiny_models, data, Latents(data, tiny_models.encode), settings, session="1", precision="fp32")
        with torch.no_grad(), run.network.attached():
            losses.append({item: float(loss) for batch in data.epoch(0, 0)
                           for item, loss in zip(batch.items, run._batch_losses(batch), strict=True)})
        drawn = draw(data.epoch(0, 0)[0], settings, (4, 8, 8))
        assert drawn.added is None
    assert len(losses[0]) == 8
    for item, loss in losses[0].items():
        factor = 0.5 if data.index.folder(item.picture).options.is_reg else 1.0
        assert losses[1][item] == pytest.approx(factor * loss, rel=1e-6)


def test_without_them_nothing_is_weighed(tiny_data):
    data = tiny_data()
    assert all(LossWeights(data, 0)(batch) is None for batch in data.epoch(0, 0))
    assert not later(data.options.folders[0]) and "prior_loss_weight" not in chosen(data.options)


def test_they_are_nobody_and_are_counted_apart(pictures, tiny_settings):
    data = _data(FolderOptions(pictures("2_Mano", 3)), FolderOptions(pictures("1_girl", 8), is_reg=True),
                 prior_loss_weight=0.5, latent_cache="memory")
    assert [(one.name, one.cards) for one in cast_of(data.index)] == [("Mano", 3)]
    lines = describe_data(data).splitlines()
    assert "folder: 2_Mano · 3 × 2" in lines and "shown per epoch: 12" in lines
    assert "regularisation: 1_girl · 8 picture(s), shown 6 times an epoch, weight 0.5" in lines
    facts = RunFacts("1", 0.0, 1.0, 1, 1, 1, "x")
    metadata = training_metadata(tiny_settings(), data, facts)
    assert (metadata["ss_num_train_images"], metadata["ss_num_reg_images"]) == ("6", "8")
    assert json.loads(metadata["ss_dataset_dirs"]) == {"2_Mano": {"n_repeats": 2, "img_count": 3}}
    assert json.loads(metadata["ss_reg_dataset_dirs"]) == {"1_girl": {"n_repeats": 1, "img_count": 8}}
    heads = [one.head() for one in previews(data, lambda text: text.split(), most=11)]
    assert sum("not shown" in head for head in heads) == 2
    assert latent_bytes(data) == 9 * 64 * 64 // 2, "those that are not shown take no memory"


def test_they_are_never_set_apart(pictures):
    toml = f"""
[general]
resolution = 64
min_bucket_reso = 64
validation_split = 0.5
[[datasets]]
[[datasets.subsets]]
image_dir = '{pictures("a", 4)}'
[[datasets.subsets]]
image_dir = '{pictures("b", 9)}'
is_reg = true
"""
    options = read_dataset(toml).options
    # Copies of what is set apart would go with it.
    for number, path in enumerate(sorted(options.folders[1].path.iterdir())):
        Image.new("RGB", (64, 64), (0, number * 9, 7)).save(path)
    data = training_data(index_pictures(options), options)
    assert [data.index.folder(picture).label for picture in range(len(data.index))] == ["a"] * 2 + ["b"] * 9
    assert len(data.validation.index) == 2 and len(data) == 4


def test_kohyas_keys():
    dataset = '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "{}"\n'
    toml = "{}" + dataset.format("a") + dataset.format("b") + "{}"
    read = read_dataset(toml.format("[general]\nprior_loss_weight = 0.3\n", 'is_reg = true\nnum_repeats = 4\n'))
    assert read.options.prior_loss_weight == 0.3
    assert [(one.is_reg, one.dataset, one.repeats) for one in read.options.folders] == [(False, 0, 1), (True, 1, 4)]
    without = read_dataset(toml.format("", "is_reg = false\n"))
    assert [later(one) for one in without.options.folders] == [{}, {}]
    run = read_run('network_dim = 4\nprior_loss_weight = 2\ntrain_data_dir = "x"\nreg_data_dir = "y"\n')
    assert [(str(one.path), one.repeats, one.is_reg) for one in run.options.folders] == [
        ("x", None, False), ("y", None, True)]
    assert run.options.prior_loss_weight == 2.0


@pytest.mark.parametrize(("text", "words"), [
    ("prior_loss_weight = -1", "prior_loss_weight = -1 in [general]: -1.0 is outside 0.0 to 1000.0"),
    ('prior_loss_weight = "x"', 'prior_loss_weight = "x" in [general]: expected a number'),
    ("is_reg = 1", "is_reg = 1 in [general]: expected true or false"),
])
def test_what_cannot_be_is_said(text, words):
    with pytest.raises(SettingsError) as caught:
        read_dataset(f'[general]\n{text}\n[[datasets]]\n[[datasets.subsets]]\nimage_dir = "a"\n')
    assert words in str(caught.value)


def test_no_pictures_for_it_and_no_others_are_said(pictures, tmp_path):
    (tmp_path / "empty").mkdir()
    trained, empty = FolderOptions(pictures("a", 2), repeats=1), FolderOptions(tmp_path / "empty", 1, is_reg=True)
    with pytest.raises(FileError, match="empty: no regularisation picture in it that can be used. Put some there"):
        _data(trained, empty)
    with pytest.raises(FileError, match="regularisation pictures alone, and none to train on"):
        _data(replace(trained, is_reg=True))
