"""What a trained file says of itself."""

import json
import re
from dataclasses import replace

import pytest
from PIL import Image
from shinymas_loha.loha.training.data import (
    CaptionOptions,
    DataOptions,
    FolderOptions,
    TrainingData,
    index_pictures,
    training_data,
)
from shinymas_loha.loha.training.kohya.training_file import read_settings
from shinymas_loha.loha.training.run.metadata import BaseFiles, RunFacts, training_metadata
from shinymas_loha.loha.training.settings.hyper_parameters import TrainingSettings

RUN = RunFacts(
    session_id="123", started_at=1_680_000_000.0, finished_at=1_680_003_600.5, epoch=2, steps=20,
    total_steps=310, optimizer="torch.optim.adamw.AdamW", processes=2,
    base=BaseFiles("0123abcd", "ab" * 32, "4567cdef", "cd" * 32),
)
# Every key that the project's list of facts demands, hashes of the base model apart.
DEMANDED = [
    "network_module", "network_dim", "network_alpha", "network_args", "learning_rate", "unet_lr",
    "text_encoder_lr", "optimizer", "lr_scheduler", "max_grad_norm", "num_train_images",
    "num_epochs", "epoch", "steps", "batch_size_per_device", "total_batch_size", "resolution",
    "bucket_info", "clip_skip", "max_token_length", "mixed_precision", "seed", "session_id",
    "training_started_at", "training_finished_at", "output_name", "base_model_version",
    "sd_model_name", "sd_model_hash", "dataset_dirs", "tag_frequency",
]


@pytest.fixture
def data(tmp_path):
    captions = {
        "10_Sakuragi Mano": ["sakuragi_mano, Smile, 1girl", "1girl, smile, solo", None],
        "風野灯織": ["mole, 1girl"],
    }
    for label, texts in captions.items():
        for at, text in enumerate(texts):
            path = tmp_path / label / f"{at}.png"
            path.parent.mkdir(exist_ok=True)
            Image.new("RGB", (320, 256 if at else 320)).save(path)
            if text is not None:
                path.with_suffix(".txt").write_text(text, encoding="utf-8")
    options = DataOptions((FolderOptions(tmp_path),), resolution=256)
    return TrainingData(index_pictures(options), options)


def test_every_demanded_key_is_there_as_text(data):
    metadata = training_metadata(TrainingSettings(base_model="C:\\models\\anime.ckpt"), data, RUN)
    assert not [key for key in DEMANDED if f"ss_{key}" not in metadata]
    assert all(type(key) is str and type(value) is str for key, value in metadata.items())
    assert all(re.match(r"ss_|modelspec\.|shinymas_cast$", key) for key in metadata)
    assert metadata["ss_sd_model_name"] == "anime.ckpt"
    assert (metadata["ss_sd_model_hash"], metadata["ss_new_sd_model_hash"]) == ("0123abcd", "ab" * 32)
    assert (metadata["ss_vae_hash"], metadata["ss_new_vae_hash"]) == ("4567cdef", "cd" * 32)
    assert metadata["ss_training_comment"] == "None"
    noted = training_metadata(TrainingSettings(training_comment="for tests"), data, RUN)
    assert noted["ss_training_comment"] == "for tests"
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("16", "1.0")
    assert json.loads(metadata["ss_network_args"]) == {"algo": "loha", "conv_dim": "0"}
    assert metadata["ss_resolution"] == "(256, 256)"
    assert (metadata["ss_batch_size_per_device"], metadata["ss_total_batch_size"]) == ("4", "8")
    assert metadata["ss_optimizer"] == "torch.optim.adamw.AdamW()"
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert metadata["modelspec.prediction_type"] == "epsilon"
    assert metadata["modelspec.date"] == "2023-03-28T11:40:00"


# What sd-scripts' train_network.py writes of a run with nothing but its defaults, as of this page's settings.
ASKED_FOR_NOTHING = {
    "network_dropout": "None", "full_fp16": "False", "lowram": "False", "noise_offset": "None",
    "multires_noise_iterations": "None", "multires_noise_discount": "0.3", "adaptive_noise_scale": "None",
    "zero_terminal_snr": "False", "training_comment": "None", "caption_dropout_rate": "0.0",
    "caption_dropout_every_n_epochs": "0", "caption_tag_dropout_rate": "0.0", "face_crop_aug_range": "None",
    "prior_loss_weight": "1.0", "min_snr_gamma": "None", "scale_weight_norms": "None", "ip_noise_gamma": "None",
    "debiased_estimation": "False", "noise_offset_random_strength": "False",
    "ip_noise_gamma_random_strength": "False", "loss_type": "l2", "huber_schedule": "snr", "huber_scale": "1.0",
    "huber_c": "0.1", "num_validation_images": "0", "validation_seed": "None", "validation_split": "0.0",
    "max_validation_steps": "None", "validate_every_n_epochs": "None", "validate_every_n_steps": "None",
    "resize_interpolation": "None", "color_aug": "False", "flip_aug": "False", "random_crop": "False",
}


def test_what_was_not_asked_for_is_told_as_kohyas_scripts_do(data):
    metadata = training_metadata(TrainingSettings(), data, RUN)
    assert {key: metadata.get(f"ss_{key}") for key in ASKED_FOR_NOTHING} == ASKED_FOR_NOTHING
    # Of kohya's scripts alone, and what nobody chose.
    assert not {"ss_sd_scripts_commit_hash", "ss_min_timestep", "modelspec.timestep_range"} & metadata.keys()


def test_what_was_asked_for_is_told(data, tmp_path):
    settings = TrainingSettings(
        loss_type="huber", huber_c=0.2, scale_weight_norms=1.0, ip_noise_gamma=0.1, multires_noise_iterations=6,
        debiased_estimation_loss=True, noise_offset=0.05, adaptive_noise_scale=0.01, min_timestep=10,
        validate_every_n_steps=5, prediction="v", zero_terminal_snr=True)
    folder = FolderOptions(tmp_path, captions=CaptionOptions(dropout_every_n_epochs=3), validation_split=0.25)
    options = DataOptions((folder,), resolution=256, prior_loss_weight=0.5, validation_seed=7)
    metadata = training_metadata(settings, training_data(index_pictures(options), options), RUN)
    assert {key: metadata[f"ss_{key}"] for key in (
        "loss_type", "huber_c", "scale_weight_norms", "ip_noise_gamma", "multires_noise_iterations",
        "debiased_estimation", "adaptive_noise_scale", "zero_terminal_snr", "min_timestep",
        "caption_dropout_every_n_epochs", "prior_loss_weight", "validation_seed", "validation_split",
        "max_validation_steps", "validate_every_n_epochs", "validate_every_n_steps")} == {
        "loss_type": "huber", "huber_c": "0.2", "scale_weight_norms": "1.0", "ip_noise_gamma": "0.1",
        "multires_noise_iterations": "6", "debiased_estimation": "True", "adaptive_noise_scale": "0.01",
        "zero_terminal_snr": "True", "min_timestep": "10", "caption_dropout_every_n_epochs": "3",
        "prior_loss_weight": "0.5", "validation_seed": "7", "validation_split": "0.25",
        "max_validation_steps": "None", "validate_every_n_epochs": "1", "validate_every_n_steps": "5"}
    assert int(metadata["ss_num_validation_images"]) > 0
    assert metadata["modelspec.timestep_range"] == "10,1000"


def test_the_files_that_were_trained_on_go_before_the_settings(data):
    base = BaseFiles("0123abcd", "ab" * 32, model_name="other.safetensors")
    metadata = training_metadata(TrainingSettings(base_model="a/said.ckpt", vae="b/said.pt"), data,
                                 replace(RUN, base=base))
    assert (metadata["ss_sd_model_name"], metadata["ss_vae_name"]) == ("other.safetensors", "said.pt")
    assert "ss_vae_hash" not in metadata


def test_the_same_facts_make_the_same_metadata(data):
    again = TrainingData(index_pictures(data.options), data.options)
    assert training_metadata(TrainingSettings(), data, RUN) == training_metadata(TrainingSettings(), again, RUN)


def test_no_path_of_the_disk_is_told(data, tmp_path):
    settings = TrainingSettings(init_from=f"{tmp_path}/a.safetensors", base_model=f"{tmp_path}/b.ckpt")
    assert str(tmp_path) not in json.dumps(training_metadata(settings, data, RUN))


def test_folders_tags_and_buckets(data):
    metadata = training_metadata(TrainingSettings(), data, RUN)
    assert json.loads(metadata["ss_dataset_dirs"]) == {
        "10_Sakuragi Mano": {"n_repeats": 10, "img_count": 3}, "風野灯織": {"n_repeats": 1, "img_count": 1},
    }
    frequency = json.loads(metadata["ss_tag_frequency"])
    assert frequency == {
        "10_Sakuragi Mano": {"1girl": 2, "smile": 2, "sakuragi mano": 1, "sakuragi_mano": 1, "solo": 1},
        "風野灯織": {"1girl": 1, "mole": 1},
    }
    assert list(frequency["10_Sakuragi Mano"])[:2] == ["1girl", "smile"]
    info = json.loads(metadata["ss_bucket_info"])
    assert sum(bucket["count"] for bucket in info["buckets"].values()) == len(data) == 31
    assert metadata["ss_num_train_images"] == "31" and info["mean_img_ar_error"] >= 0


def test_the_cast_of_named_folders(data):
    cast = json.loads(training_metadata(TrainingSettings(), data, RUN)["shinymas_cast"])
    assert cast == {"version": 1, "characters": [
        {"name": "Sakuragi Mano", "cards": 3, "tags": ["1girl", "smile", "solo"]},
    ]}


def test_the_cast_of_one_folder_by_its_kept_tags(tmp_path):
    for at, text in enumerate(["Kazano Hiori, mole, 1girl", "Kazano Hiori, mole", "Ikaruga Luca, 1girl", ""]):
        Image.new("RGB", (64, 64)).save(tmp_path / f"{at}.png")
        (tmp_path / f"{at}.txt").write_text(text, encoding="utf-8")

    def cast(keep: int) -> list:
        options = DataOptions((FolderOptions(tmp_path, captions=CaptionOptions(keep_tokens=keep)),))
        data = TrainingData(index_pictures(options), options)
        return json.loads(training_metadata(TrainingSettings(), data, RUN)["shinymas_cast"])["characters"]

    assert cast(0) == []
    assert cast(1) == [
        {"name": "Kazano Hiori", "cards": 2, "tags": ["mole", "1girl"]},
        {"name": "Ikaruga Luca", "cards": 1, "tags": ["1girl"]},
    ]


def test_parts_that_are_not_trained_have_no_rate_and_sets_are_named(data):
    settings = TrainingSettings(
        train_text_encoder=False, module_set="all", conv_rank=4, use_tucker=True, module_dropout=0.1)
    metadata = training_metadata(settings, data, RUN)
    assert metadata["ss_text_encoder_lr"] == "None" and metadata["ss_unet_lr"] == "0.001"
    assert json.loads(metadata["ss_network_args"]) == {
        "algo": "loha", "conv_dim": "4", "conv_alpha": "1.0", "use_tucker": "True", "module_dropout": "0.1",
    }


def test_what_a_configuration_says_of_parts_of_the_network_is_told(data):
    """Attention alone is not attn-mlp, and rates of parts are the run's."""
    weights = {"down_lr_weight": "0,0,0,0,0,0,0,0,0,0.5,0.5,0.5", "mid_lr_weight": "1",
               "up_lr_weight": "2,1,1,1,1,1,1,1,1,1,1,1"}
    rates = "attn2=0.0001,_mid_block_=0"
    given = ["algo=loha", "preset=attn-only", f"network_reg_lrs={rates}", *(f"{key}={text}" for key, text in
                                                                            weights.items())]
    settings = read_settings(f"network_dim = 4\nnetwork_args = {json.dumps(given)}").settings
    told = json.loads(training_metadata(replace(settings, text_encoder_rank=2), data, RUN)["ss_network_args"])
    assert told == {"algo": "loha", "conv_dim": "0", "preset": "attn-mlp", "network_reg_lrs": rates,
                    "module_filter": "*_attn1_*, *_attn2_*, *_self_attn_*", "text_encoder_rank": "2", **weights}
