"""The key table: what every key of kohya's configurations means here, in one row each.

A row says what the key is in kohya's scripts (its default there), what becomes of it here, and which values ask for
nothing. `help_page` writes docs/kohya-keys.md from it. Keys and defaults: kohya-ss/sd-scripts, `train_network.py` and
what it takes from `library/`, as of February 2026; below a heading "of other programs", what those add.
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
    REFUSED = "refused unless it asks for nothing"
    REFUSED_PICTURES = "the same, of a dataset's TOML too"


@dataclass(frozen=True)
class Key:
    """One row.

    Args:
        default: the value that counts in kohya's scripts where the key is not given; None: not used.
        field: which setting it becomes, where it becomes one.
        why: for a setting, what is special; for the others, why it changes nothing or is refused, and what to do.
        instead: what to do about a value that is refused; "": take the key out, or write the default.
        off: values that ask for nothing, besides those of `asks_for_nothing`.
        when_off: what such a value stands for; None: as if the key were not there.
    """

    part: Part
    default: Any = None
    field: str = ""
    why: str = ""
    instead: str = ""
    off: tuple[Any, ...] = ()
    when_off: Any = None

    def asks_for_nothing(self, value: Any) -> bool:
        """Whether kohya's tools mean "not used" by this value: nothing, `none`, and 0 where nothing is counted."""
        if isinstance(value, list | tuple | dict):
            return all(one in ("", None) for one in value)
        if value is None or (isinstance(value, str) and value.strip().lower() in ("", "none", "null")):
            return True
        if self.part in (Part.IGNORED, Part.REFUSED, Part.REFUSED_PICTURES) and value in (0, self.default):
            return True
        return value is False or any(type(value) is type(one) and value == one for one in self.off)


def _same(part: Part, **defaults: Any) -> dict[str, Key]:
    """Keys that are called as their fields are; False by default, false where not used."""
    return {name: Key(part, default, name, when_off=False if default is False else None)
            for name, default in defaults.items()}


def _ignored(why: str, /, **defaults: Any) -> dict[str, Key]:
    return {name: Key(Part.IGNORED, default, why=why) for name, default in defaults.items()}


def _refused(why: str, instead: str = "", /, **defaults: Any) -> dict[str, Key]:
    return {name: Key(Part.REFUSED, default, why=why, instead=instead) for name, default in defaults.items()}


def _refused_pictures(why: str, /, **defaults: Any) -> dict[str, Key]:
    return {name: Key(Part.REFUSED_PICTURES, default, why=why) for name, default in defaults.items()}


_SD1 = "this trainer is for SD 1.5"
_LOSS = "losses and noises are those of the settings, such as loss_type and noise_offset"
_STATE = "Take it out, and connect the LoHa to go on from to resume, or give it to train.py with --resume"
_TEXTS = "captions are the text file's, shuffled and thinned as chosen"
_DEEPSPEED = "several GPUs run through torchrun"

KEYS: dict[str, Key] = {
    # What becomes a setting of the run; `training_file` converts the values of some.
    **_same(Part.RUN, learning_rate=2e-6, max_grad_norm=1.0, gradient_accumulation_steps=1,
            gradient_checkpointing=False, unet_lr=None, min_snr_gamma=None, noise_offset=None,
            output_name="last", save_precision="float", vae=None, optimizer_args=None),
    "sample_every_n_epochs": Key(Part.RUN, None, "sample_every_n_epochs", "goes before sample_every_n_steps; in "
                                 "ComfyUI alone", off=(0,)),
    "sample_every_n_steps": Key(Part.RUN, None, "sample_every_n_steps", "in ComfyUI alone", off=(0,)),
    "sample_at_first": Key(Part.RUN, False, "sample_at_first", "in ComfyUI alone", when_off=False),
    "sample_prompts": Key(Part.RUN, None, "sample_prompts", "a .txt, .toml or .json in ComfyUI's input folder, or the "
                          "prompts as a list; --n, --w, --h, --d, --l, --s as in kohya's; what a line does not say is "
                          "20 steps, scale 7, the pictures' resolution, the line's number as seed"),
    "lr_warmup_steps": Key(Part.RUN, 0, "lr_warmup_steps", "a fraction is a share of the run, `lr_warmup_share`"),
    "lr_scheduler_power": Key(Part.RUN, 1, "lr_scheduler_power", "of polynomial", off=(0,)),
    "lr_scheduler_min_lr_ratio": Key(Part.RUN, None, "lr_scheduler_min_lr_ratio",
                                     "of cosine_with_min_lr and warmup_stable_decay"),
    "lr_decay_steps": Key(Part.RUN, 0, "lr_decay_steps", "of warmup_stable_decay; below 1 a share of the run"),
    "lr_scheduler_timescale": Key(Part.RUN, None, "lr_scheduler_timescale", "of inverse_sqrt", off=(0,)),
    "text_encoder_lr": Key(Part.RUN, None, "text_encoder_lr", "of a list the first: SD 1.5 has one text encoder"),
    "defaults": Key(Part.RUN, field="defaults", why="of this trainer: `kohya` where kohya's own defaults are to count"),
    "network_dim": Key(Part.RUN, 4, "network_rank"),
    "network_alpha": Key(Part.RUN, 1, "network_alpha", "0 is the rank"),
    "network_weights": Key(Part.RUN, None, "init_from"),
    "optimizer_type": Key(Part.RUN, "AdamW", "optimizer", "torch's; and where its package is installed Prodigy, "
                          "ProdigyPlusScheduleFree, the three of schedulefree, CAME, Lion, DAdapt…, bitsandbytes'; "
                          "Adafactor is transformers', as in kohya's scripts"),
    "max_train_steps": Key(Part.RUN, 1600, "max_train_steps", "used where max_train_epochs is not given", off=(0,)),
    "max_train_epochs": Key(Part.RUN, None, "max_train_epochs", "goes before max_train_steps", off=(0,)),
    "seed": Key(Part.RUN, None, "seed", "kohya draws one where none is given; here it is 0"),
    "clip_skip": Key(Part.RUN, 1, "clip_skip", off=(0,)),
    "max_token_length": Key(Part.RUN, 75, "max_token_length"),
    "lr_scheduler": Key(Part.RUN, "constant", "lr_scheduler", "`custom` is the model card's"),
    "lr_scheduler_type": Key(Part.RUN, None, "lr_scheduler_type", "torch's that take numbers, such as "
                             "CosineAnnealingLR, and none of other packages; goes before lr_scheduler", off=(0, 0.0)),
    "lr_scheduler_args": Key(Part.RUN, None, "lr_scheduler_args", "of lr_scheduler_type; step_rules of "
                             "piecewise_constant (which has no warm-up), num_cycles of cosine, lr_end of polynomial, "
                             "min_lr of cosine_with_min_lr", off=(0, 0.0)),
    "lr_scheduler_num_cycles": Key(Part.RUN, 1, "lr_num_cycles", off=(0,)),
    "mixed_precision": Key(Part.RUN, "no", "mixed_precision", "`no` is fp32", when_off="no"),
    "save_every_n_epochs": Key(Part.RUN, None, "save_every_n_epochs", off=(0,), when_off=0),
    "validate_every_n_epochs": Key(Part.RUN, None, "validate_every_n_epochs", "not given: 1; the end is validated too"),
    "validate_every_n_steps": Key(Part.RUN, None, "validate_every_n_steps", "besides those after epochs"),
    "max_validation_steps": Key(Part.RUN, None, "max_validation_steps", "batches; each picture at four timesteps"),
    "save_every_n_steps": Key(Part.RUN, None, "save_every_n_steps", off=(0, 0.0), when_off=0),
    "save_last_n_epochs": Key(Part.RUN, None, "keep_last"),
    "save_last_n_steps": Key(Part.RUN, None, "keep_last_steps", "steps, not files; with save_every_n_steps. Without "
                             "it save_last_n_epochs leaves the files of save_every_n_steps alone", off=(0,)),
    "pretrained_model_name_or_path": Key(Part.RUN, None, "base_model"),
    "v_parameterization": Key(Part.RUN, False, "prediction", "true is v, false epsilon", when_off=False),
    "training_comment": Key(Part.RUN, None, "training_comment", when_off=""),
    **_same(Part.RUN, loss_type="l2", huber_schedule="snr", huber_c=0.1, debiased_estimation_loss=False,
            noise_offset_random_strength=False, ip_noise_gamma_random_strength=False, multires_noise_discount=0.3),
    "huber_scale": Key(Part.RUN, 1.0, "huber_scale", "not of the schedule `snr`, as in kohya's scripts"),
    "min_timestep": Key(Part.RUN, None, "min_timestep", off=(0, 0.0)),
    "max_timestep": Key(Part.RUN, None, "max_timestep", "itself not trained, unless it is min_timestep too",
                        off=(0, 0.0, 1000)),
    "multires_noise_iterations": Key(Part.RUN, None, "multires_noise_iterations",
                                     "sizes are drawn for each picture, not for a batch", off=(0, 0.0)),
    "ip_noise_gamma": Key(Part.RUN, None, "ip_noise_gamma", off=(0, 0.0)),
    "scale_weight_norms": Key(Part.RUN, None, "scale_weight_norms", "as LyCORIS does it, after each step",
                              off=(0, 0.0)),
    "zero_terminal_snr": Key(Part.RUN, False, "zero_terminal_snr", "of the noise; weights of the loss keep the old "
                             "ratios, as in kohya's scripts", when_off=False),
    "scale_v_pred_loss_like_noise_pred": Key(Part.RUN, False, "scale_v_pred_loss_like_noise_pred",
                                             "with v_parameterization", when_off=False),
    "v_pred_like_loss": Key(Part.RUN, None, "v_pred_like_loss", "without v_parameterization", off=(0, 0.0)),
    "adaptive_noise_scale": Key(Part.RUN, None, "adaptive_noise_scale", "with noise_offset; of each picture's latents",
                                off=(0, 0.0)),
    "log_with": Key(Part.RUN, None, "log_with", "`tensorboard`, where it is installed; nothing is sent to wandb"),
    "logging_dir": Key(Part.RUN, None, "logging_dir", "for TensorBoard, also without log_with; of train.py. In ComfyUI "
                       "logs go to output/shinymas/NAME/logs"),
    "log_prefix": Key(Part.NETWORK, None, why="before the time in the name of a folder in logging_dir"),
    "network_module": Key(Part.NETWORK, why="`lycoris.kohya`, or kohya's own `networks.loha`; any other is refused"),
    "network_args": Key(Part.NETWORK, why="`algo=loha` with preset (LyCORIS's, but ia3), conv_dim, conv_alpha, "
                                          "use_tucker, rank_dropout, module_dropout, down_lr_weight and its "
                                          "kin, network_reg_lrs, network_reg_dims; what a LoHa "
                                          "here has not is refused"),
    "network_train_unet_only": Key(Part.NETWORK, False, why="train_text_encoder", when_off=False),
    "network_train_text_encoder_only": Key(Part.NETWORK, False, why="train_unet", when_off=False),

    # What becomes an option of the pictures.
    "resolution": Key(Part.PICTURES, None, "resolution", "one number; buckets keep its area. [[datasets]] may "
                      "differ in it, in batch_size and in buckets"),
    "batch_size": Key(Part.PICTURES, 1, "batch_size", "a dataset's"),
    "train_batch_size": Key(Part.PICTURES, 1, "batch_size", "a dataset's batch_size goes before it"),
    "enable_bucket": Key(Part.PICTURES, False, "buckets", when_off=False),
    "min_bucket_reso": Key(Part.PICTURES, 256, "bucket_min", "rounded down to bucket_reso_steps", off=(0,)),
    "max_bucket_reso": Key(Part.PICTURES, 1024, "bucket_max", "rounded up to bucket_reso_steps", off=(0,)),
    "bucket_reso_steps": Key(Part.PICTURES, 64, "bucket_step", "a multiple of 64, as kohya's scripts ask for SD 1.5",
                             off=(0,)),
    "bucketing": Key(Part.PICTURES, field="bucketing", why="of this trainer: buckets and scaling are kohya's, unless "
                                                           "this is `nearest`, as in its version 0.1.0"),
    "bucket_no_upscale": Key(Part.PICTURES, False, "upscale", "true leaves small pictures small", when_off=False),
    "cache_latents": Key(Part.PICTURES, False, "latent_cache", when_off=False),
    "cache_latents_to_disk": Key(Part.PICTURES, False, "latent_cache", when_off=False),
    "shuffle_caption": Key(Part.CAPTIONS, False, "shuffle", when_off=False),
    "keep_tokens": Key(Part.CAPTIONS, 0, "keep_tokens"),
    "caption_dropout_rate": Key(Part.CAPTIONS, 0.0, "caption_dropout"),
    "caption_tag_dropout_rate": Key(Part.CAPTIONS, 0.0, "tag_dropout"),
    "caption_prefix": Key(Part.CAPTIONS, None, "prefix", "before each line where there are several", when_off=""),
    "caption_suffix": Key(Part.CAPTIONS, None, "suffix", "behind each line where there are several", when_off=""),
    "keep_tokens_separator": Key(Part.CAPTIONS, None, "keep_tokens_separator", when_off=""),
    "secondary_separator": Key(Part.CAPTIONS, None, "secondary_separator", when_off=""),
    "enable_wildcard": Key(Part.CAPTIONS, False, "wildcards", when_off=False),
    "token_warmup_min": Key(Part.CAPTIONS, 1, "token_warmup_min"),
    "token_warmup_step": Key(Part.CAPTIONS, 0, "token_warmup_step", "below 1 a share of the run"),
    "caption_dropout_every_n_epochs": Key(Part.CAPTIONS, 0, "dropout_every_n_epochs"),
    "caption_extension": Key(
        Part.CAPTIONS, ".caption", "extension", "not given: `.txt`, else `.caption`, whatever defaults is",
        when_off=""),
    "caption_extention": Key(Part.CAPTIONS, None, "extension", "the old spelling"),
    "flip_aug": Key(Part.FOLDER, False, "flip", "half of the times", when_off=False),
    "random_crop": Key(Part.FOLDER, False, "random_crop", "with enable_bucket, and without cache_latents", off=(0, 0.0),
                       when_off=False),
    "validation_seed": Key(Part.PICTURES, None, "validation_seed", "not given: 0, where kohya takes the run's seed"),
    "validation_split": Key(Part.FOLDER, 0.0, "validation_split", "share of each folder, 1 for all of it; a folder's "
                            "own goes first", when_off=0.0),
    "train_data_dir": Key(Part.FOLDER, None, "folder", "kohya's folders `N_name`; a dataset's folders go before it"),
    "reg_data_dir": Key(Part.FOLDER, None, "folder", "the same of regularisation pictures"),
    "is_reg": Key(Part.FOLDER, False, "is_reg", "a dataset's folder of regularisation pictures: together shown as "
                  "often as the dataset's others", off=(0, 0.0), when_off=False),
    "masked_loss": Key(Part.FOLDER, False, why="false refuses conditioning_data_dir; alpha_mask does not need it",
                       off=(0, 0.0), when_off=False),
    "alpha_mask": Key(Part.FOLDER, False, "alpha_mask", "a picture's transparency is its mask in the loss",
                      off=(0, 0.0), when_off=False),
    "conditioning_data_dir": Key(Part.FOLDER, None, "masks", "folder of masks, called and as large as their pictures; "
                                 "the red channel counts"),
    "prior_loss_weight": Key(Part.PICTURES, 1.0, "prior_loss_weight", "weight of regularisation pictures in the loss"),
    "dataset_config": Key(Part.FOLDER, None, why="opened by train.py; in ComfyUI give it to LoHa Training Data"),
    "dataset_repeats": Key(Part.FOLDER, 1, why="repeats of a dataset's folders that name none"),
    "image_dir": Key(Part.FOLDER, None, "folder", "a dataset's folder"),
    "num_repeats": Key(Part.FOLDER, 1, "repeats", "of a dataset's folder"),
    "class_tokens": Key(Part.FOLDER, None, "name", "caption of pictures without a caption file", when_off=""),

    # What changes nothing of what is learnt.
    **_ignored("memory and speed are chosen by ComfyUI and the kernels", xformers=False, sdpa=False,
               mem_eff_attn=False, lowram=False, highvram=False, torch_compile=False, dynamo_backend="inductor",
               no_half_vae=False, vae_batch_size=1, fp8_base=False, fp8_base_unet=False, opt_channels_last=False,
               cpu_offload_checkpointing=False, fused_backward_pass=False, skip_cache_check=False, cache_info=False),
    **_ignored("pictures are read without worker processes", max_data_loader_n_workers=8,
               persistent_data_loader_workers=False),
    **_ignored("the losses are in the report and in the log",
               log_tracker_name=None, log_tracker_config=None, wandb_api_key=None, wandb_run_name=None,
               log_config=False, console_log_level=None, console_log_simple=False, console_log_file=None),
    **_ignored("every checkpoint holds the whole state", save_state=False, save_state_on_train_end=False,
               save_last_n_epochs_state=None, save_last_n_steps_state=None),
    **_ignored("nothing is uploaded or downloaded", huggingface_repo_id=None, huggingface_repo_type=None,
               huggingface_path_in_repo=None, huggingface_token=None, huggingface_repo_visibility=None,
               async_upload=False, save_state_to_huggingface=False, resume_from_huggingface=False),
    **_ignored("files go to the folder of the run: --output, or ComfyUI's models/loras", output_dir=None),
    **_ignored("samples are drawn with one sampler, so that they compare", sample_sampler="ddim"),
    **_ignored("not kept", metadata_title=None, metadata_author=None,
               metadata_description=None, metadata_license=None, metadata_tags=None, metadata_usage_hint=None,
               metadata_thumbnail=None, metadata_merged_from=None, metadata_trigger_phrase=None,
               metadata_preprocessor=None, metadata_is_negative_embedding=None),
    **_ignored("pictures are resized one way: averaged down, Lanczos up", resize_interpolation=None),
    **_ignored("the tokenizer is ComfyUI's", tokenizer_cache_dir=None),
    **_ignored("of torch's processes, where the defaults are kept", ddp_timeout=None,
               ddp_gradient_as_bucket_view=False, ddp_static_graph=False),
    **_ignored(_DEEPSPEED, zero_stage=2, offload_optimizer_device=None, offload_optimizer_nvme_path=None,
               offload_param_device=None, offload_param_nvme_path=None, zero3_init_flag=False,
               zero3_save_16bit_model=False, fp16_master_weights_and_gradients=False),
    **_ignored("this is the configuration", config_file=None, output_config=False),
    **_ignored("files are safetensors always", use_safetensors=False),
    **_ignored("of base_weights, which is not done here", base_weights_multiplier=None),
    **_ignored("of other models than SD 1.5", cache_text_encoder_outputs=False,
               cache_text_encoder_outputs_to_disk=False, text_encoder_batch_size=None,
               disable_mmap_load_safetensors=False, weighting_scheme="uniform", logit_mean=0.0, logit_std=1.0,
               mode_scale=1.29, blocks_to_swap=None),

    # What can only be off, or the one thing that is done here.
    **_refused(_SD1, v2=False, sdxl=False, v3=False, flux=False),
    **_refused(_LOSS, weighted_captions=False),
    **_refused("other formats can run code when they are loaded", save_model_as="safetensors"),
    **_refused("ranks, hashes and the cast stand in the metadata", no_metadata=False),
    **_refused("files are kept by epochs", "Write save_every_n_epochs instead", save_n_epoch_ratio=None),
    **_refused("kohya's state folders cannot be read", _STATE, resume=None),
    **_refused("a run goes on by itself", _STATE, skip_until_initial_step=False, initial_step=None),
    "initial_epoch": Key(Part.REFUSED, None, why="a run goes on by itself", instead=_STATE, off=(1,)),
    **_refused("the rank is not read out of a file", "Write network_dim instead", dim_from_weights=False),
    **_refused("a LoHa's dropout is of ranks or modules", "Take it out, or write rank_dropout=… or module_dropout=… in "
               "network_args", network_dropout=None),
    **_refused("no other network is put into the model", "Take it out, and apply the LoHa before Train LoHa",
               base_weights=None),
    **_refused("the factors are trained in fp32", "Take it out; mixed_precision is of the forward pass",
               full_fp16=False, full_bf16=False, fp16=False, bf16=False),
    **_refused("an old name", "Write optimizer_type = \"AdamW8bit\" instead", use_8bit_adam=False),
    **_refused("an old name", "Write optimizer_type = \"Lion\" instead", use_lion_optimizer=False),
    **_refused("captions are read from text files", in_json=None),
    **_refused("no code is loaded from a configuration", dataset_class=None),
    **_refused("the info output of LoHa Training Data shows the pictures", debug_dataset=False),
    **_refused(_DEEPSPEED, deepspeed=False),
    **_refused_pictures("pictures are trained in their own colours", color_aug=False),
    **_refused_pictures("faces are not looked for", face_crop_aug_range=None),
    **_refused_pictures(_TEXTS, caption_separator=",", metadata_file=None, custom_attributes=None),
    **_refused_pictures("every picture counts as much as another", multiplier=1, network_multiplier=1.0),

    # Of other programs: what they write beside kohya's keys, and kohya's scripts do not read.
    **_ignored("of the program that wrote the file; kohya's scripts do not read it either", epoch=None,
               noise_offset_type=None, stop_text_encoder_training=None, lr_restart_cycles=None,
               easy_name=None, save_toml=False, save_toml_location=None, tag_occurrence=False,
               save_tag_occurrence=False, tag_occurrence_location=None, tag_file_location=None, enable_preview=False,
               name=None),
    **_refused(_SD1, model_train_type="sd-lora"),
    **_refused("a LoHa is trained here", train_mode="lora"),
    **_refused("an inpainting model is another one than SD 1.5", train_inpainting=False),
}


def is_of_pictures(key: str) -> bool:
    """Whether a training configuration's value of this key is for the pictures' options."""
    return key in KEYS and KEYS[key].part in (Part.PICTURES, Part.CAPTIONS, Part.FOLDER, Part.REFUSED_PICTURES)
