"""The key table: what every key of kohya's configurations means here, in one row each.

A key becomes a setting, is read together with others, changes nothing here and is ignored with a reason, or may
only have values that ask for nothing, with the reason why another is refused. What has no row is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any


class Part(Enum):
    """Whose setting a key becomes, or what else is done with it."""

    RUN = "a field of TrainingSettings"
    PICTURES = "a field of DataOptions"
    CAPTIONS = "a field of CaptionOptions"
    FOLDER = "read with a folder of pictures"
    NETWORK = "read together, by network_args and training_file"
    IGNORED = "changes nothing here"
    ONLY = "of a run: refused unless it asks for nothing"
    ONLY_PICTURES = "of pictures: refused unless it asks for nothing"


@dataclass(frozen=True)
class Key:
    """One row.

    Args:
        field: which setting it becomes, where it becomes one.
        allowed: values that ask for nothing, the one to write first, where only those are taken.
        why: the reason, for what is ignored or refused.
    """

    part: Part
    field: str = ""
    allowed: tuple[Any, ...] = ()
    why: str = ""

    @property
    def is_of_pictures(self) -> bool:
        """Whether a training configuration's value is for the pictures' options."""
        return self.part in (Part.PICTURES, Part.CAPTIONS, Part.FOLDER, Part.ONLY_PICTURES)


def _same(part: Part, *names: str) -> dict[str, Key]:
    return {name: Key(part, name) for name in names}


def _ignored(why: str, *names: str) -> dict[str, Key]:
    return dict.fromkeys(names, Key(Part.IGNORED, why=why))


def _only(allowed: tuple[Any, ...], why: str, *names: str) -> dict[str, Key]:
    return dict.fromkeys(names, Key(Part.ONLY, allowed=allowed, why=why))


def _off(allowed: tuple[Any, ...], *names: str) -> dict[str, Key]:
    return dict.fromkeys(names, Key(Part.ONLY_PICTURES, allowed=allowed))


_FALSE, _ZERO, _EMPTY = (False,), (0, 0.0), ("",)
_SD1 = "this trainer is for SD 1.5"
_LOSS = "the loss is the page's: plain mean squared error, min-SNR and noise offset apart"

KEYS: dict[str, Key] = {
    # What becomes a setting of the run; `training_file` converts the values of some.
    **_same(Part.RUN, "network_alpha", "learning_rate", "unet_lr", "text_encoder_lr", "max_grad_norm",
            "max_train_epochs", "max_train_steps", "gradient_accumulation_steps", "gradient_checkpointing", "seed",
            "clip_skip", "max_token_length", "min_snr_gamma", "noise_offset", "output_name", "save_every_n_epochs",
            "sample_every_n_epochs", "vae", "lr_scheduler", "lr_warmup_steps", "mixed_precision", "save_precision",
            "optimizer_args", "sample_prompts"),
    "network_dim": Key(Part.RUN, "network_rank"),
    "network_weights": Key(Part.RUN, "init_from"),
    "optimizer_type": Key(Part.RUN, "optimizer"),
    "lr_scheduler_num_cycles": Key(Part.RUN, "lr_num_cycles"),
    "save_last_n_epochs": Key(Part.RUN, "keep_last"),
    "pretrained_model_name_or_path": Key(Part.RUN, "base_model"),
    "v_parameterization": Key(Part.RUN, "prediction"),
    **_same(Part.NETWORK, "network_train_unet_only", "network_train_text_encoder_only", "network_module",
            "network_args", "network_dropout", "fp16", "bf16", "full_fp16"),

    # What becomes an option of the pictures.
    "resolution": Key(Part.PICTURES, "resolution"),
    "batch_size": Key(Part.PICTURES, "batch_size"),
    "train_batch_size": Key(Part.PICTURES, "batch_size"),
    "enable_bucket": Key(Part.PICTURES, "buckets"),
    "min_bucket_reso": Key(Part.PICTURES, "bucket_min"),
    "max_bucket_reso": Key(Part.PICTURES, "bucket_max"),
    "bucket_no_upscale": Key(Part.PICTURES, "upscale"),
    "cache_latents": Key(Part.PICTURES, "latent_cache"),
    "cache_latents_to_disk": Key(Part.PICTURES, "latent_cache"),
    "shuffle_caption": Key(Part.CAPTIONS, "shuffle"),
    "keep_tokens": Key(Part.CAPTIONS, "keep_tokens"),
    "caption_dropout_rate": Key(Part.CAPTIONS, "caption_dropout"),
    "caption_tag_dropout_rate": Key(Part.CAPTIONS, "tag_dropout"),
    "caption_prefix": Key(Part.CAPTIONS, "prefix"),
    "caption_extension": Key(Part.CAPTIONS, "extension"),
    **_same(Part.FOLDER, "train_data_dir", "flip_aug"),

    # What changes nothing of what is learnt.
    **_ignored("memory and speed are chosen by ComfyUI and the kernels", "xformers", "sdpa", "mem_eff_attn", "lowram",
               "highvram", "torch_compile", "no_half_vae", "vae_batch_size", "fp8_base", "opt_channels_last",
               "dynamo_backend"),
    **_ignored("pictures are read without worker processes", "max_data_loader_n_workers",
               "persistent_data_loader_workers"),
    **_ignored("the losses are in the report and in the log", "log_prefix", "log_with", "logging_dir",
               "log_tracker_name", "log_tracker_config", "wandb_api_key", "wandb_run_name", "log_config",
               "console_log_level", "console_log_simple", "console_log_file"),
    **_ignored("every checkpoint holds the whole state", "save_state", "save_state_on_train_end",
               "save_last_n_epochs_state", "save_last_n_steps_state"),
    **_ignored("nothing is uploaded", "huggingface_repo_id", "huggingface_repo_type", "huggingface_path_in_repo",
               "huggingface_token", "huggingface_repo_visibility", "async_upload", "save_state_to_huggingface"),
    **_ignored("files go to the folder of the run", "output_dir"),
    **_ignored("there are no regularisation pictures", "prior_loss_weight"),
    **_ignored("samples are drawn with one sampler, so that they compare", "sample_sampler"),
    **_ignored("not kept", "training_comment"),
    **_ignored("no polynomial schedule", "lr_scheduler_power"),
    **_ignored("the tokenizer is ComfyUI's", "tokenizer_cache_dir"),
    **_ignored("the default is kept", "ddp_timeout"),
    **_ignored("this is the configuration", "config_file"),

    # What can only be off, or the one thing that is done here.
    **_only(_FALSE, _SD1, "v2", "sdxl", "v3", "flux"),
    **_only(_FALSE, _LOSS, "scale_v_pred_loss_like_noise_pred", "debiased_estimation_loss", "zero_terminal_snr",
            "masked_loss", "noise_offset_random_strength", "ip_noise_gamma_random_strength", "weighted_captions"),
    **_only(_ZERO, _LOSS, "multires_noise_iterations", "adaptive_noise_scale", "ip_noise_gamma", "v_pred_like_loss"),
    **_only(("l2",), _LOSS, "loss_type"),
    **_only(_ZERO, "all 1000 timesteps are trained", "min_timestep"),
    **_only((1000,), "all 1000 timesteps are trained", "max_timestep"),
    **_only(("safetensors",), "other formats can run code when loaded", "save_model_as"),
    **_only(_FALSE, "ranks, hashes and the cast stand in the metadata", "no_metadata"),
    **_only(_ZERO, "files are saved by epochs: set save_every_n_epochs", "save_every_n_steps"),
    **_only(_ZERO, "samples are drawn by epochs: set sample_every_n_epochs", "sample_every_n_steps"),
    **_only(_FALSE, "samples are drawn after an epoch: set sample_every_n_epochs", "sample_at_first"),
    **_only(_EMPTY, "kohya's state folders cannot be read: connect the LoHa to go on from", "resume"),
    **_only(_FALSE, "set network_dim", "dim_from_weights"),
    **_only(_ZERO, "the factors' norm is not limited: lower the learning rate", "scale_weight_norms"),
    **_only(([],), "load and apply the LoHa to the model before training", "base_weights"),
    **_only(_FALSE, "the factors are trained in fp32", "full_bf16"),
    **_only(_EMPTY, "no schedule is loaded from other packages: set lr_scheduler", "lr_scheduler_type"),
    **_only(([],), "set lr_warmup_steps and lr_scheduler_num_cycles", "lr_scheduler_args"),
    **_only(_FALSE, "set optimizer_type to AdamW8bit", "use_8bit_adam"),
    **_only(_FALSE, "set optimizer_type to Lion", "use_lion_optimizer"),
    **_only(_EMPTY, "regularisation pictures are not trained on", "reg_data_dir"),
    **_only(_EMPTY, "captions are read from text files", "in_json"),
    **_only(_EMPTY, "no code is loaded from a configuration", "dataset_class"),
    **_only(_EMPTY, "give the dataset's TOML to LoHa Training Data", "dataset_config"),
    **_only(_FALSE, "the info output of LoHa Training Data shows the pictures", "debug_dataset"),
    **_only(_FALSE, "several GPUs run through torchrun", "deepspeed"),
    **_off(_FALSE, "is_reg", "color_aug", "random_crop", "enable_wildcard", "alpha_mask"),
    **_off(("", False), "face_crop_aug_range"),
    **_off(_EMPTY, "caption_suffix", "keep_tokens_separator", "secondary_separator", "metadata_file",
           "conditioning_data_dir"),
    **_off((",",), "caption_separator"),
    **_off(_ZERO, "caption_dropout_every_n_epochs", "token_warmup_step"),
    **_off((1,), "token_warmup_min"),
    **_off((64,), "bucket_reso_steps"),
    **_off((1, 1.0), "multiplier"),
}

# A dataset's TOML names its folders by these.
SUBSET_KEYS = ("image_dir", "num_repeats", "class_tokens")
