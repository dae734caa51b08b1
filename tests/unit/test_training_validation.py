"""Validation: which pictures are set apart, the loss on them, the best network, the early end."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from shinymas_loha.loha import files
from shinymas_loha.loha.errors import FileError, SettingsError
from shinymas_loha.loha.training.data import (
    CaptionOptions,
    DataOptions,
    FolderOptions,
    Latents,
    TrainingData,
    describe_data,
    index_pictures,
    seed_for,
    training_data,
)
from shinymas_loha.loha.training.data.tags import character_of
from shinymas_loha.loha.training.run.folder import STATE_FILE, RunFolder, read_state
from shinymas_loha.loha.training.run.loop import Training
from shinymas_loha.loha.training.run.outcome import character_lines, validation_lines
from shinymas_loha.loha.training.run.progress import TrainingError, Watcher
from shinymas_loha.loha.training.run.validation import TIMESTEPS


class Cancelled(Exception):
    pass


def paint(folder, numbers, caption="girl {}, smile"):
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
        (folder / f"{number:03d}.txt").write_text(caption.format(number), encoding="utf-8")
    return folder


def options_of(*folders, **chosen):
    return DataOptions(folders, resolution=64, bucket_min=64, bucket_max=64,
                       **{"batch_size": 2, "latent_cache": "memory", **chosen})


def divided(*folders, **chosen):
    options = options_of(*folders, **chosen)
    return training_data(index_pictures(options), options)


def names(index):
    return {(index.folder(picture).label, index.names[picture]) for picture in range(len(index))}


@pytest.fixture
def make_run(tiny_models, tiny_settings, tmp_path):
    def make(data, folder=None, models=tiny_models, **chosen):
        settings = tiny_settings(**{"module_filter": "*attn1*", "save_every_n_epochs": 0, **chosen})
        folder = folder or RunFolder.create(tmp_path / "loras", settings)
        return Training(models, data, Latents(data, models.encode), settings, session="7", precision="fp32",
                        folder=folder)

    return make


@pytest.fixture
def ten(tmp_path):
    """Ten pictures, two of them set apart."""
    return divided(FolderOptions(paint(tmp_path / "1_Kazano Hiori", range(10)), 1, validation_split=0.2))


@pytest.mark.parametrize(("share", "apart"), [(0.1, 1), (0.25, 2), (0.5, 5), (0.94, 9), (0.05, 0)])
def test_a_share_is_counted_as_kohya_counts_it(tmp_path, share, apart):
    folder = FolderOptions(paint(tmp_path / "a", range(10)), 1, validation_split=share)
    if not apart:
        with pytest.raises(SettingsError, match="validation_split 0.05 sets none of 10 pictures apart"):
            divided(folder)
        return
    data = divided(folder)
    assert len(data.validation.index) == apart == round(10 * share)
    assert names(data.index).isdisjoint(names(data.validation.index))
    assert len(data.index) + apart == 10


def test_the_seed_alone_decides_and_new_pictures_change_nobodys_turn(tmp_path):
    folder = FolderOptions(paint(tmp_path / "a", range(30)), 1, validation_split=0.2)
    first = names(divided(folder).validation.index)
    assert names(divided(folder).validation.index) == first
    others = [names(divided(folder, validation_seed=seed).validation.index) for seed in range(1, 6)]
    assert all(one != first for one in others) and len(set(map(frozenset, others))) > 3
    paint(tmp_path / "a", range(30, 31))
    assert len(names(divided(folder).validation.index) & first) >= 5


def test_every_character_gives_about_its_share_and_one_with_few_pictures_none(tmp_path):
    for at, count in enumerate((52, 40, 22, 4)):
        paint(tmp_path / "all", range(100 * at, 100 * at + count), f"Character {at}, tag {{}}")
    captions = CaptionOptions(keep_tokens=1)
    data = divided(FolderOptions(tmp_path / "all", 1, captions, validation_split=0.1))
    index = data.validation.index
    found = Counter(character_of(index, picture) for picture in range(len(index)))
    assert found == {"Character 0": 5, "Character 1": 4, "Character 2": 2} or found.total() == 12
    assert "Character 3" not in found


def test_a_copy_of_a_picture_that_is_set_apart_is_not_trained_on(tmp_path):
    folder = FolderOptions(paint(tmp_path / "a", range(10)), 1, validation_split=0.2)
    _, apart = min(names(divided(folder).validation.index))
    (tmp_path / "a" / "copy.png").write_bytes((tmp_path / "a" / apart).read_bytes())
    data = divided(folder)
    trained = {content.tobytes() for content in data.index.contents}
    assert not trained & {content.tobytes() for content in data.validation.index.contents}


def test_a_folder_for_validation(tmp_path):
    train, other = paint(tmp_path / "a", range(4)), paint(tmp_path / "b", range(4, 7))
    data = divided(FolderOptions(train, 1), FolderOptions(other, validation_split=1.0))
    assert names(data.index) == {("a", f"{number:03d}.png") for number in range(4)}
    assert names(data.validation.index) == {("b", f"{number:03d}.png") for number in range(4, 7)}


def test_folders_that_cannot_be_validated_on(tmp_path):
    train = FolderOptions(paint(tmp_path / "a", range(4)), 1)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SettingsError, match="empty: no picture to validate on"):
        divided(train, FolderOptions(empty, validation_split=1.0))
    with pytest.raises(SettingsError, match="a: this folder is for validation and trained on too"):
        divided(train, FolderOptions(tmp_path / "a", validation_split=1.0))
    paint(tmp_path / "a" / "inside", range(8, 9))
    with pytest.raises(SettingsError, match="inside: this folder is for validation and trained on too"):
        divided(FolderOptions(tmp_path / "a"), FolderOptions(tmp_path / "a" / "inside", validation_split=1.0))
    copies = paint(tmp_path / "b", range(2, 9))
    with pytest.raises(SettingsError, match=r"2 picture\(s\) of a folder for validation are trained on too, as copies"):
        divided(train, FolderOptions(copies, validation_split=1.0))
    with pytest.raises(SettingsError, match="none is left to train on"):
        divided(FolderOptions(copies, validation_split=1.0))


def test_what_is_told_of_captions_is_of_the_pictures_that_are_left(tmp_path):
    folder = paint(tmp_path / "a", range(10))
    for number in range(10):
        (folder / f"{number:03d}.txt").write_text(f"girl {number}\nsmile\nblue eyes", encoding="utf-8")
    data = divided(FolderOptions(folder, 1, validation_split=0.3))
    assert {place for of in data.index.layouts.values() for place in of} == set(range(7))
    assert {place for of in data.validation.index.layouts.values() for place in of} == set(range(3))
    assert "set apart for validation: 3 picture(s), never trained on" in describe_data(data).splitlines()


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(tmp_path, share):
    with pytest.raises(SettingsError, match="is not a share from 0 to 1"):
        FolderOptions(tmp_path, validation_split=share)


def test_one_pass_a_picture_at_fixed_noise(make_run, ten, tiny_models):
    passes = []
    handle = tiny_models.unet.register_forward_pre_hook(lambda module, args: passes.append(args[1].tolist()))
    try:
        run = make_run(ten)
        with run.network.attached():
            first = run.validator(1, lambda done, number: None)
        assert passes == [list(TIMESTEPS)] * 2
        with run.network.attached():
            second = run.validator(2, lambda done, number: None)
    finally:
        handle.remove()
    assert replace(second, step=1) == first
    assert first.loss == pytest.approx(sum(first.by_timestep) / 4)
    assert first.by_character == {"Kazano Hiori": pytest.approx(first.loss)}


def test_the_loss_is_the_mean_squared_error_in_float64(make_run, ten, tiny_models):
    """Computed anew: √ᾱ·x + √(1−ᾱ)·ε through the U-Net, against ε."""
    run = make_run(ten)
    seen = []
    predict = tiny_models.predict

    def watched(noisy, timesteps, states):
        out = predict(noisy, timesteps, states)
        seen.append((noisy.double(), timesteps, out.double()))
        return out

    validator = run.validator
    validator._step._models = replace(tiny_models, predict=watched)
    with run.network.attached():
        found = validator(1, lambda done, number: None)
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alphas = torch.from_numpy(np.cumprod(1 - betas))[seen[0][1]].view(-1, 1, 1, 1)
    # Two timesteps of one picture share x: ε follows from either noisy latent.
    losses = []
    for place, (noisy, _, out) in enumerate(seen):
        posterior = validator._latents.of(validator.pictures[place])
        index = validator._data.index
        generator = torch.Generator().manual_seed(
            seed_for(0, "validation", index.folder(place).label, index.names[place]))
        latents = posterior.mean + posterior.std * torch.randn(1, 4, 8, 8, generator=generator)
        epsilon = (noisy - alphas.sqrt() * 0.18215 * latents.double()) / (1 - alphas).sqrt()
        assert epsilon.std() == pytest.approx(1, abs=0.15)
        losses.append((out - epsilon).square().mean())
    assert found.loss == pytest.approx(float(sum(losses) / 2), rel=1e-5)


def test_validating_changes_no_step(make_run, ten, tmp_path):
    plain = make_run(TrainingData(ten.index, ten.options))
    plain.run()
    validated = make_run(ten, validate_every_n_steps=3)
    validated.run()
    assert validated.losses == plain.losses
    assert all(torch.equal(one, other) for one, other in zip(
        validated.network.parameters(), plain.network.parameters(), strict=True))
    assert [one.step for one in validated.validator.found] == [3, 4, 6, 8]
    assert plain.validator.found == []


@pytest.mark.parametrize(("chosen", "steps"), [
    ({"max_train_epochs": 4}, [4, 8, 12, 16]),
    ({"max_train_epochs": 5, "validate_every_n_epochs": 2}, [8, 16, 20]),
    ({"validate_every_n_epochs": 0}, []),
    ({"validate_every_n_epochs": 0, "validate_every_n_steps": 5}, [5]),
    ({"max_train_steps": 6}, [4, 6]),
])
def test_when_it_is_validated(make_run, ten, chosen, steps):
    run = make_run(ten, **chosen)
    run.run()
    assert [one.step for one in run.validator.found] == steps


@pytest.fixture
def learns_by_heart(make_run, tiny_models, tmp_path):
    """Make a run that is trained on one black picture and validated on a white one: what it learns of the first is
    wrong for the second."""
    for name in ("black", "white"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (64, 64), name).save(tmp_path / name / "0.png")
    data = divided(FolderOptions(tmp_path / "black", 1), FolderOptions(tmp_path / "white", validation_split=1.0))

    def encode(pixels):
        found = tiny_models.encode(pixels)
        return replace(found, mean=torch.full_like(found.mean, 8 * (2 * float(pixels.mean()) - 1)), std=found.std * 0)

    models = replace(tiny_models, encode=encode)
    return lambda **chosen: make_run(data, models=models, **{
        "module_filter": "", "learning_rate": 0.2, "lr_scheduler": "constant", "max_train_epochs": 10, **chosen})


def test_a_run_that_overfits_is_ended_and_its_best_network_given(learns_by_heart):
    whole = learns_by_heart()
    whole.run()
    losses = [one.loss for one in whole.validator.found]
    best = losses.index(min(losses))
    assert best < 6, f"not a case of overfitting: {losses}"
    run = learns_by_heart(early_stop=3)
    run.run()
    assert [one.loss for one in run.validator.found] == losses[:best + 4]
    assert run.done == best + 4 < run.total_steps
    file = files.read(run.keeper.folder.best(best + 1))
    assert file.metadata["ss_steps"] == str(best + 1)
    loha = learns_by_heart(max_train_epochs=best + 1).run()
    assert all(torch.equal(file.modules[name].w1_a, module.w1_a) for name, module in loha.modules.items())
    lines = validation_lines(run)
    assert lines[0].startswith(f"best: after epoch {best + 1} (step {best + 1}), validation loss ")
    assert lines[1] == f"best file: {file.source.path}"
    assert lines[2] == (f"ended early: after epoch {best + 4} (step {best + 4}) of 10; 3 validation(s) in a row were "
                        "no better than the best")


def test_validations_survive_cancel_and_kill(make_run, ten):
    chosen = {"max_train_epochs": 3, "save_every_n_epochs": 1}
    whole = make_run(ten, **chosen)
    whole.run()
    first = make_run(ten, **chosen)

    def cancel(done, number):
        if first.done == 8:
            raise Cancelled

    with pytest.raises(Cancelled):
        first.run(Watcher(on_validating=cancel))
    state = read_state(first.keeper.folder.path / STATE_FILE)
    assert (state.step, len(state.validations)) == (8, 1)
    second = make_run(ten, folder=first.keeper.folder, **chosen)
    assert second.resume(state)
    second.run()
    assert second.validator.found == whole.validator.found
    assert second.losses == whole.losses
    assert second.characters.means() == whole.characters.means()
    third = make_run(ten, folder=first.keeper.folder, early_stop=1, **chosen)
    assert third.resume(read_state(first.keeper.folder.path / STATE_FILE)), "patience may change"


def test_a_validation_cancelled_after_the_last_step_is_made_up_for(make_run, ten):
    first = make_run(ten)

    def cancel(done, number):
        if first.done == first.total_steps:
            raise Cancelled

    with pytest.raises(Cancelled):
        first.run(Watcher(on_validating=cancel))
    second = make_run(ten, folder=first.keeper.folder)
    assert second.resume(read_state(first.keeper.folder.path / STATE_FILE))
    second.run()
    assert [one.step for one in second.validator.found] == [4, 8]


def test_the_best_is_found_under_the_name_that_the_run_had(make_run, ten):
    first = make_run(ten, save_every_n_epochs=1)
    first.run()
    best = first.validator.best.step
    second = make_run(ten, RunFolder(first.keeper.folder.path, replace(first._settings, output_name="other")))
    assert second.resume(read_state(first.keeper.folder.path / STATE_FILE))
    second.run()
    file = first.keeper.folder.path / "tiny-best.safetensors"
    assert validation_lines(second)[1] == f"best file: {file}"
    assert files.read(file).metadata["ss_steps"] == str(best)
    first.keeper.folder.write_best(make_run(ten).loha())
    assert validation_lines(second)[1] == "best file: gone; the last LoHa is given out instead", "it is another one"


def test_a_best_that_could_not_be_kept_is_validated_again(make_run, ten):
    first = make_run(ten)
    in_the_way = first.keeper.folder.path / "tiny-best.safetensors"
    in_the_way.mkdir()
    with pytest.raises(FileError):
        first.run()
    in_the_way.rmdir()
    second = make_run(ten, folder=first.keeper.folder)
    assert second.resume(read_state(first.keeper.folder.path / STATE_FILE))
    second.run()
    assert second.validator.found[0].step == 4
    assert files.read(in_the_way).metadata["ss_steps"] == str(second.validator.best.step)


def test_other_pictures_set_apart_are_a_difference(make_run, ten, tmp_path):
    state = make_run(ten).state()
    folder = replace(ten.options.folders[0], validation_split=0.3)
    other = make_run(divided(folder)).compare(state).differences
    assert "validation_split of the folder 1_Kazano Hiori: 0.3, was 0.2" in other
    assert any(one.startswith("pictures to validate on: ") for one in other)


def test_at_most_so_many_pictures(make_run, tmp_path):
    data = divided(FolderOptions(paint(tmp_path / "a", range(12)), 1, validation_split=0.75))
    assert len(make_run(data).validator.pictures) == 9
    assert make_run(data, max_validation_steps=2).validator.pictures == (0, 2, 4, 6)
    assert len(make_run(data, max_validation_steps=50).validator.pictures) == 9


def test_a_loss_that_is_not_finite_names_the_picture(make_run, ten, tiny_models):
    broken = min(name for _, name in names(ten.validation.index))
    pixels = ten.validation.picture(0, False)

    def encode(given):
        found = tiny_models.encode(given)
        return replace(found, mean=found.mean * float("nan")) if torch.equal(given[0], pixels) else found

    with pytest.raises(TrainingError, match=f"validation after step 4: the loss of .*{broken} is not finite"):
        make_run(ten, models=replace(tiny_models, encode=encode)).run()


def test_the_report_tells_characters_and_who_has_few(make_run, tmp_path):
    for count, name in ((9, "Mano"), (8, "Hiori"), (1, "Luca")):
        paint(tmp_path / "all" / f"1_{name}", range(100 * count, 101 * count))
    run = make_run(divided(FolderOptions(tmp_path / "all", validation_split=0.2)), max_train_epochs=1)
    run.run()
    lines = character_lines(run)
    assert [line.split(" · loss")[0] for line in lines[:3]] == [
        "character: Mano · 7 picture(s)", "character: Hiori · 6 picture(s)", "character: Luca · 1 picture(s)"]
    assert lines[3].startswith("few pictures: Luca has 1, half of the 3 characters have 6 or more")
    means = run.characters.means()
    showings = {"Mano": 7, "Hiori": 6, "Luca": 1}
    batches = run._data.epoch(run._settings.seed, 0)
    whole = sum(loss * len(batch) for loss, batch in zip(run.losses, batches, strict=True))
    assert sum(means[name] * count for name, count in showings.items()) == pytest.approx(whole, rel=1e-5)
    assert [line for line in validation_lines(run) if line.startswith("validation of ")] != []
