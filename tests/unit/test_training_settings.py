"""The settings themselves: defaults of the page, ranges, what excludes what, one source of help."""

from dataclasses import FrozenInstanceError, fields

import pytest
from shinymas_loha.loha.errors import SettingsError
from shinymas_loha.loha.training.data import CaptionOptions, DataOptions
from shinymas_loha.loha.training.settings.fields import coerced, describe
from shinymas_loha.loha.training.settings.hyper_parameters import TrainingSettings


def test_the_defaults_are_the_pages_run():
    settings = TrainingSettings()
    assert (settings.network_rank, settings.network_alpha, settings.module_set) == (16, 1.0, "linear")
    assert (settings.optimizer, settings.learning_rate, settings.max_grad_norm) == ("AdamW8bit", 1e-3, 1.0)
    assert (settings.lr_scheduler, settings.max_train_epochs, settings.save_every_n_epochs) == ("model card", 31, 1)
    assert (settings.clip_skip, settings.max_token_length, settings.mixed_precision) == (2, 225, "fp16")
    assert settings.train_unet and settings.train_text_encoder
    data = DataOptions()
    assert (data.resolution, data.batch_size, data.latent_cache) == (640, 4, "none")


def test_unset_values_take_the_networks_own():
    settings = TrainingSettings(learning_rate=0.002, text_encoder_lr=0.001, network_rank=8, conv_alpha=4.0)
    assert settings.unet_learning_rate == 0.002 and settings.text_encoder_learning_rate == 0.001
    assert settings.text_encoder_shape == (8, 1.0) and settings.conv_shape == (8, 4.0)


@pytest.mark.parametrize("kind", [TrainingSettings, DataOptions, CaptionOptions])
def test_every_field_has_help_and_a_default_in_its_range(kind):
    described = describe(kind)
    assert [name for name in (field.name for field in fields(kind)) if name not in described] == (
        ["folders"] if kind is DataOptions else []
    )
    for item in described.values():
        assert item.help.endswith(".") or ":" in item.help, item.name
        assert "\n" not in item.help and len(item.help) < 160, item.name
        assert type(item.default) is item.kind
        if item.kind in (int, float):
            assert item.low is not None and item.low <= item.default <= item.high, item.name


def test_settings_do_not_change():
    with pytest.raises(FrozenInstanceError):
        TrainingSettings().seed = 1


@pytest.mark.parametrize(("values", "words"), [
    ({"network_rank": 0}, "network_rank: 0 is outside 1 to 128"),
    ({"network_rank": 129}, "network_rank: 129 is outside"),
    ({"network_rank": "16"}, "network_rank: expected a whole number, found '16'"),
    ({"network_rank": True}, "expected a whole number, found True"),
    ({"network_alpha": 0.0}, "network_alpha"),
    ({"network_alpha": float("nan")}, "network_alpha: nan is not a finite number"),
    ({"learning_rate": float("inf")}, "not a finite number"),
    ({"learning_rate": 0.0}, "learning_rate: 0 trains nothing"),
    ({"max_token_length": 100}, "max_token_length: 100 is not a multiple of 75"),
    ({"module_set": "everything"}, "'everything' is not one of attention-mlp, linear, all"),
    ({"train_unet": False, "train_text_encoder": False}, "nothing is left to train"),
    ({"lr_warmup_steps": 10}, "exclude each other: its schedule warms up"),
    ({"use_tucker": True}, "use_tucker needs the 3×3 convolutions"),
    ({"conv_rank": 4}, "conv_rank 4 needs the 3×3 convolutions"),
    ({"seed": -1}, "seed: -1 is outside"),
    ({"clip_skip": 13}, "clip_skip: 13 is outside 1 to 12"),
])
def test_what_cannot_be(values, words):
    with pytest.raises(SettingsError, match=words):
        TrainingSettings(**values)


def test_only_whole_numbers_turn_into_floats():
    assert coerced(TrainingSettings, {"network_alpha": 1}) == {"network_alpha": 1.0}
    with pytest.raises(SettingsError, match="network_alpha: expected a number, found True"):
        coerced(TrainingSettings, {"network_alpha": True})
