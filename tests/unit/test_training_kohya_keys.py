"""The key table, and the help page that is written from it."""

from pathlib import Path

import pytest
from shinymas_loha.loha.training.kohya.dataset_file import kohya_options
from shinymas_loha.loha.training.kohya.key_page import key_page
from shinymas_loha.loha.training.kohya.keys import KEYS, Part
from shinymas_loha.loha.training.kohya.training_file import kohya_settings
from shinymas_loha.loha.training.settings.fields import coerced, describe
from shinymas_loha.loha.training.settings.hyper_parameters import TrainingSettings
from shinymas_loha.loha.training.settings.pictures import CaptionOptions, DataOptions

PAGE = Path(__file__).resolve().parents[2] / "docs" / "kohya-keys.md"
KINDS = {Part.RUN: TrainingSettings, Part.PICTURES: DataOptions, Part.CAPTIONS: CaptionOptions}


def test_the_help_page_is_in_step_with_the_table():
    assert PAGE.read_text(encoding="utf-8") == key_page(), "run python dev/write_key_page.py"


@pytest.mark.parametrize("key", KEYS)
def test_every_row_says_what_becomes_of_its_key(key):
    row = KEYS[key]
    if row.part in KINDS:
        assert row.field in describe(KINDS[row.part])
    else:
        assert row.why
    assert f"| `{key}` |" in key_page()


def test_kohyas_defaults_are_settings_of_ours():
    settings = TrainingSettings(**coerced(TrainingSettings, kohya_settings()))
    assert (settings.network_rank, settings.network_alpha, settings.optimizer) == (4, 1.0, "AdamW")
    assert (settings.lr_scheduler, settings.clip_skip, settings.max_token_length) == ("constant", 1, 75)
    assert (settings.mixed_precision, settings.save_precision, settings.learning_rate) == ("fp32", "fp32", 2e-6)
    assert (settings.max_train_steps, settings.max_train_epochs, settings.save_every_n_epochs) == (1600, 0, 0)
    options = DataOptions(**coerced(DataOptions, kohya_options()))
    assert (options.batch_size, options.buckets, options.upscale, options.latent_cache) == (1, False, True, "none")


def test_nothing_is_asked_for_by_what_kohyas_tools_leave_empty():
    for value in (None, False, "", " ", "none", "None", [], [""], {}, 0, 0.0):
        for key in ("resume", "lr_scheduler_args", "masked_loss", "xformers", "scale_weight_norms"):
            assert KEYS[key].asks_for_nothing(value), (key, value)
    for key, value in (("caption_separator", ","), ("max_timestep", 1000), ("initial_epoch", 1),
                       ("max_train_epochs", 0), ("clip_skip", 0), ("network_weights", "")):
        assert KEYS[key].asks_for_nothing(value), key
    for key, value in (("keep_tokens", 0), ("learning_rate", 0), ("unet_lr", 0), ("text_encoder_lr", [0.0]),
                       ("caption_dropout_rate", 0.0), ("seed", 0), ("max_grad_norm", 0), ("loss_type", "l1")):
        assert not KEYS[key].asks_for_nothing(value), key
