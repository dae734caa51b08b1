"""kohya's keys that change nothing here, and those that may only have one value."""

from __future__ import annotations

from typing import Any

_SPEED = "memory and speed are chosen by ComfyUI and the kernels"
_LOADER = "pictures are read without worker processes"
_LOGS = "the losses are in the report and in the log"
_STATE = "every checkpoint holds the whole state"
_HUB = "nothing is uploaded"

# Key → why leaving it out changes nothing of what is learnt.
IGNORED: dict[str, str] = {
    **dict.fromkeys(("xformers", "sdpa", "mem_eff_attn", "lowram", "highvram", "torch_compile", "no_half_vae",
                     "vae_batch_size", "fp8_base", "opt_channels_last", "dynamo_backend"), _SPEED),
    **dict.fromkeys(("max_data_loader_n_workers", "persistent_data_loader_workers"), _LOADER),
    **dict.fromkeys(("log_prefix", "log_with", "logging_dir", "log_tracker_name", "log_tracker_config",
                     "wandb_api_key", "wandb_run_name", "log_config", "console_log_level",
                     "console_log_simple", "console_log_file"), _LOGS),
    **dict.fromkeys(("save_state", "save_state_on_train_end", "save_last_n_epochs_state",
                     "save_last_n_steps_state"), _STATE),
    **dict.fromkeys(("huggingface_repo_id", "huggingface_repo_type", "huggingface_path_in_repo",
                     "huggingface_token", "huggingface_repo_visibility", "async_upload",
                     "save_state_to_huggingface"), _HUB),
    "output_dir": "files go to the folder of the run",
    "prior_loss_weight": "there are no regularisation pictures",
    "sample_sampler": "samples are drawn with one sampler, so that they compare",
    "training_comment": "not kept",
    "lr_scheduler_power": "no polynomial schedule",
    "tokenizer_cache_dir": "the tokenizer is ComfyUI's",
    "ddp_timeout": "the default is kept",
    "config_file": "this is the configuration",
}

_ZERO: tuple[Any, ...] = (0, 0.0)
_SD1 = "this trainer is for SD 1.5"
_LOSS = "the loss is the page's: plain mean squared error, min-SNR and noise offset apart"

# Key → (values that mean "off" or the one thing done here, why another cannot be honoured).
ONLY: dict[str, tuple[tuple[Any, ...], str]] = {
    **dict.fromkeys(("v2", "sdxl", "v3", "flux"), ((False,), _SD1)),
    **dict.fromkeys(("scale_v_pred_loss_like_noise_pred", "debiased_estimation_loss",
                     "zero_terminal_snr", "masked_loss", "noise_offset_random_strength",
                     "ip_noise_gamma_random_strength", "weighted_captions"), ((False,), _LOSS)),
    **dict.fromkeys(("multires_noise_iterations", "adaptive_noise_scale", "ip_noise_gamma",
                     "v_pred_like_loss"), (_ZERO, _LOSS)),
    "loss_type": (("l2",), _LOSS),
    "min_timestep": (_ZERO, "all 1000 timesteps are trained"),
    "max_timestep": ((1000,), "all 1000 timesteps are trained"),
    "save_model_as": (("safetensors",), "other formats can run code when loaded"),
    "no_metadata": ((False,), "ranks, hashes and the cast stand in the metadata"),
    "save_every_n_steps": (_ZERO, "files are saved by epochs: set save_every_n_epochs"),
    "sample_every_n_steps": (_ZERO, "samples are drawn by epochs: set sample_every_n_epochs"),
    "sample_at_first": ((False,), "samples are drawn after an epoch: set sample_every_n_epochs"),
    "resume": (("",), "kohya's state folders cannot be read: connect the LoHa to go on from"),
    "dim_from_weights": ((False,), "set network_dim"),
    "scale_weight_norms": (_ZERO, "the factors' norm is not limited: lower the learning rate"),
    "base_weights": (([],), "load and apply the LoHa to the model before training"),
    "full_bf16": ((False,), "the factors are trained in fp32"),
    "lr_scheduler_type": (("",), "no schedule is loaded from other packages: set lr_scheduler"),
    "lr_scheduler_args": (([],), "set lr_warmup_steps and lr_scheduler_num_cycles"),
    "use_8bit_adam": ((False,), "set optimizer_type to AdamW8bit"),
    "use_lion_optimizer": ((False,), "set optimizer_type to Lion"),
    "reg_data_dir": (("",), "regularisation pictures are not trained on"),
    "in_json": (("",), "captions are read from text files"),
    "dataset_class": (("",), "no code is loaded from a configuration"),
    "dataset_config": (("",), "give the dataset's TOML to LoHa Training Data"),
    "debug_dataset": ((False,), "the info output of LoHa Training Data shows the pictures"),
    "deepspeed": ((False,), "several GPUs run through torchrun"),
}
