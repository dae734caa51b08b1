"""What programs around kohya's scripts write, and files that are something else."""

import json
from pathlib import Path

import pytest
from shinymas_loha.loha.errors import SettingsError
from shinymas_loha.loha.training.kohya.dataset_file import read_dataset
from shinymas_loha.loha.training.kohya.run_file import read_run
from shinymas_loha.loha.training.kohya.training_file import read_settings

# As a notebook writes them: sections of its own, values as it has them in variables.
NOTEBOOK = """
[additional_network_arguments]
unet_lr = 0.0005
text_encoder_lr = 0.0001
network_dim = 16
network_alpha = 8
network_module = "lycoris.kohya"
network_args = ["algo=loha", "preset=full", "conv_dim=8", "conv_alpha=4"]
[optimizer_arguments]
learning_rate = 0.0005
lr_scheduler = "cosine_with_restarts"
lr_scheduler_num_cycles = 3
lr_warmup_steps = 50
optimizer_type = "AdamW"
optimizer_args = ["weight_decay=0.1", "betas=[0.9,0.99]"]
[training_arguments]
max_train_steps = 900
save_every_n_epochs = 1
save_last_n_epochs = 10
train_batch_size = 2
clip_skip = 2
min_snr_gamma = 5.0
weighted_captions = false
seed = 42
max_token_length = 225
xformers = true
lowram = true
max_data_loader_n_workers = 8
persistent_data_loader_workers = true
save_precision = "fp16"
mixed_precision = "fp16"
output_dir = "drive/output"
logging_dir = "drive/log"
output_name = "idol"
log_prefix = "idol"
[model_arguments]
pretrained_model_name_or_path = "drive/model.safetensors"
v2 = false
[saving_arguments]
save_model_as = "safetensors"
[dreambooth_arguments]
prior_loss_weight = 1.0
[dataset_arguments]
cache_latents = true
"""
NOTEBOOKS_DATASET = """
[[datasets]]
[[datasets.subsets]]
num_repeats = 10
image_dir = "drive/dataset"
[general]
resolution = 512
shuffle_caption = true
keep_tokens = 1
flip_aug = false
caption_extension = ".txt"
enable_bucket = true
bucket_reso_steps = 64
bucket_no_upscale = false
min_bucket_reso = 256
max_bucket_reso = 1024
"""
# As LyCORIS's example for kohya's scripts is laid out, with everything that can be off switched off.
LYCORIS = """
[Basics]
pretrained_model_name_or_path = "model"
train_data_dir = "dataset"
resolution = "512"
seed = 23
max_train_steps = 10000
max_train_epochs = 2
clip_skip = 2
[Save]
output_name = "name"
save_every_n_epochs = 10
save_state = false
save_last_n_steps_state = 1
[Network_setup]
network_dim = 8
network_alpha = 4
dim_from_weights = false
network_dropout = 0
resume = false
[LyCORIS]
network_module = "lycoris.kohya"
network_args = ["preset=attn-mlp", "algo=loha"]
[Optimizer]
train_batch_size = 8
optimizer_type = "AdamW8bit"
unet_lr = 2e-4
text_encoder_lr = 2e-4
optimizer_args = ["weight_decay=0.1", "betas=0.9,0.99"]
[Lr_scheduler]
lr_scheduler_type = ""
lr_scheduler = "constant"
lr_scheduler_args = ""
lr_scheduler_power = 1.0
[Further_improvement]
min_snr_gamma = 5
adaptive_noise_scale = 0
multires_noise_discount = 0.3
multires_noise_iterations = 0
[ARB]
enable_bucket = true
min_bucket_reso = 320
max_bucket_reso = 960
[Captions]
caption_extension = ".txt"
caption_dropout_rate = 0.05
caption_dropout_every_n_epochs = 0
max_token_length = 150
token_warmup_min = 1
token_warmup_step = 0
[Dataset]
dataset_repeats = 1
[Regularization]
prior_loss_weight = 1.0
"""
GUI = {
    "LoRA_type": "LyCORIS/LoHa", "LyCORIS_preset": "full",
    "additional_parameters": "--log_prefix=idol --noise_offset 0.05", "adaptive_noise_scale": 0, "block_dims": "",
    "bucket_no_upscale": True, "bucket_reso_steps": 64, "cache_latents": True, "caption_extension": ".txt",
    "clip_skip": "2", "conv_alpha": 4, "conv_dim": 8, "down_lr_weight": "", "enable_bucket": True, "epoch": 5,
    "flux1_checkbox": False, "gradient_accumulation_steps": 2.0, "keep_tokens": "1", "learning_rate": "1e-4",
    "lora_network_weights": "", "lr_scheduler": "cosine", "lr_scheduler_num_cycles": "", "lr_warmup": 0,
    "max_resolution": "512,512", "max_token_length": "75", "max_train_epochs": "", "max_train_steps": 0,
    "min_snr_gamma": 5, "mixed_precision": "bf16", "multires_noise_discount": 0.2, "multires_noise_iterations": 8,
    "network_alpha": 16, "network_dim": 32, "noise_offset": 0, "noise_offset_type": "Original", "optimizer": "AdamW",
    "optimizer_args": "weight_decay=0.05 betas=0.9,0.98", "output_name": "idol", "rank_dropout": 0,
    "save_every_n_epochs": 1, "scale_weight_norms": 0, "sdxl": False, "seed": "17415", "t5xxl": "",
    "text_encoder_lr": 0, "train_batch_size": 3, "train_data_dir": "img", "unet_lr": 0.002, "use_cp": False,
    "xformers": "xformers",
}
EASY = """
[[subsets]]
num_repeats = 10
keep_tokens = 1
caption_extension = ".txt"
shuffle_caption = true
random_crop = false
is_reg = false
name = "subset 1"
image_dir = "pictures"
[train_mode]
train_mode = "lora"
[noise_args]
[general_args.args]
pretrained_model_name_or_path = "model.safetensors"
mixed_precision = "bf16"
seed = 23
max_train_epochs = 2
cache_latents = true
[general_args.dataset_args]
resolution = 768
batch_size = 2
[network_args.args]
network_dim = 8
network_alpha = 1.0
min_timestep = 0
max_timestep = 1000
[network_args.args.network_args]
conv_dim = 4
conv_alpha = 1.0
algo = "loha"
[optimizer_args.args]
optimizer_type = "AdamW"
lr_scheduler = "cosine"
learning_rate = 0.0001
[optimizer_args.args.optimizer_args]
weight_decay = 0.1
betas = "0.9,0.99"
[bucket_args.dataset_args]
enable_bucket = true
bucket_reso_steps = 64
[saving_args.args]
output_name = "idol"
save_toml = true
"""
SCRIPTS = """
model_train_type = "sd-lora"
pretrained_model_name_or_path = "./sd-models/model.safetensors"
train_data_dir = "./train/idol"
resolution = "640,640"
enable_bucket = true
unet_lr = "1e-4"
text_encoder_lr = "1e-5"
lr_scheduler = "cosine_with_restarts"
lr_scheduler_num_cycles = 2
optimizer_type = "AdamW"
optimizer_args_custom = ["weight_decay=0.1"]
network_module = "lycoris.kohya"
network_dim = 16
network_alpha = 8
lycoris_algo = "loha"
conv_dim = 4
conv_alpha = 1
dropout = 0
train_norm = false
enable_preview = false
max_train_epochs = 10
max_token_length = 225
"""


def settings_of(run, *names):
    return tuple(getattr(run.settings, name) for name in names)


def test_a_notebooks_two_files():
    run = read_run(NOTEBOOK, dataset=NOTEBOOKS_DATASET)
    assert settings_of(run, "network_rank", "network_alpha", "conv_rank", "conv_alpha", "module_set") == (
        16, 8.0, 8, 4.0, "all")
    assert settings_of(run, "unet_lr", "text_encoder_lr", "lr_scheduler", "lr_num_cycles", "lr_warmup_steps") == (
        5e-4, 1e-4, "cosine_with_restarts", 3, 50)
    assert settings_of(run, "max_train_epochs", "max_train_steps", "keep_last", "min_snr_gamma") == (0, 900, 10, 5.0)
    assert (run.options.batch_size, run.options.resolution, run.options.latent_cache) == (2, 512, "memory")
    assert run.options.buckets and run.options.upscale and run.options.folders[0].captions.keep_tokens == 1


def test_lycoris_example():
    run = read_run(LYCORIS)
    assert settings_of(run, "network_rank", "module_set", "max_train_epochs", "max_train_steps") == (
        8, "attention-mlp", 2, 0)
    assert run.settings.max_token_length == 150
    assert (run.options.resolution, run.options.batch_size, run.options.bucket_min) == (512, 8, 320)
    assert run.options.folders[0].repeats is None and run.options.folders[0].captions.caption_dropout == 0.05


def test_the_guis_json(tmp_path):
    (tmp_path / "gui.json").write_text(json.dumps(GUI), encoding="utf-8")
    run = read_run(str(tmp_path / "gui.json"))
    assert run == read_run(json.dumps(GUI, indent=1))
    assert settings_of(run, "network_rank", "network_alpha", "conv_rank", "conv_alpha") == (32, 16.0, 8, 4.0)
    assert settings_of(run, "learning_rate", "unet_lr", "train_text_encoder", "train_unet") == (
        1e-4, 0.002, False, True)
    assert settings_of(run, "optimizer", "optimizer_args", "gradient_accumulation_steps", "lr_num_cycles") == (
        "AdamW", "weight_decay=0.05 betas=0.9,0.98", 2, 5)
    assert settings_of(run, "max_train_epochs", "max_train_steps", "seed", "clip_skip", "max_token_length") == (
        5, 0, 17415, 2, 75)
    assert run.settings.noise_offset == 0.05  # typed among the additional parameters
    assert (run.options.resolution, run.options.batch_size, run.options.upscale) == (512, 3, False)
    assert run.options.folders[0].captions.keep_tokens == 1
    assert "note: read as a file of kohya_ss, the GUI" in run.lines
    assert ("note: of the GUI itself, of other models or networks, and not read: block_dims, down_lr_weight, t5xxl"
            in run.lines)
    assert "note: multires_noise_iterations is not looked at: noise_offset_type is Original" in run.lines


def gui(**changes):
    return read_run(json.dumps(GUI | changes))


def test_what_the_gui_makes_of_its_widgets():
    both = gui(unet_lr=0, text_encoder_lr=0)
    assert settings_of(both, "train_unet", "train_text_encoder", "unet_lr", "text_encoder_lr") == (True, True, 0, 0)
    assert settings_of(gui(max_train_steps=700), "max_train_epochs", "max_train_steps") == (0, 700)
    assert settings_of(gui(max_train_epochs="3", max_train_steps=700), "max_train_epochs", "max_train_steps") == (3, 0)
    assert gui(use_cp=True).settings.use_tucker
    assert gui(seed="").settings.seed == 0
    multires = gui(noise_offset_type="Multires", additional_parameters="--min_timestep 10")
    assert settings_of(multires, "multires_noise_iterations", "multires_noise_discount", "noise_offset",
                       "min_timestep") == (8, 0.2, 0, 10)
    assert gui(noise_offset_type="Multires", multires_noise_iterations=0, noise_offset=0.1,
               additional_parameters="").settings.noise_offset == 0


@pytest.mark.parametrize(("changes", "words"), [
    ({"LoRA_type": "Standard"}, 'LoRA_type = "Standard": this trains a LoHa. Write LoRA_type = "LyCORIS/LoHa"'),
    ({"sdxl": True}, "sdxl = true: this trainer is for SD 1.5"),
    ({"flux1_checkbox": True}, "flux1_checkbox = true: this trainer is for SD 1.5"),
    ({"lr_warmup": 150}, "lr_warmup_steps = 1.5: 1.5 is outside 0.0 to 0.99"),
    ({"additional_parameters": "--min_timestep 1000"}, "min_timestep = 1000: 1000 is outside 0 to 999"),
    ({"additional_parameters": "loose"}, 'additional_parameters = "loose": loose has no --key before it'),
    ({"additional_parameters": "--a 'b"}, "No closing quotation: write --key=value"),
])
def test_what_of_the_gui_is_refused(changes, words):
    with pytest.raises(SettingsError) as refused:
        gui(**changes)
    assert words in str(refused.value)


def test_easy_training_scripts_have_one_file_for_both(tmp_path):
    run = read_run(EASY)
    assert settings_of(run, "network_rank", "conv_rank", "optimizer_args", "max_train_epochs", "mixed_precision") == (
        8, 4, "weight_decay=0.1 betas=0.9,0.99", 2, "bf16")
    assert (run.options.resolution, run.options.batch_size, run.options.latent_cache) == (768, 2, "memory")
    (folder,) = run.options.folders
    assert (folder.path, folder.repeats, folder.captions.keep_tokens, folder.captions.shuffle) == (
        Path("pictures"), 10, 1, True)
    assert "note: read as a file of LoRA Easy Training Scripts" in run.lines
    # Both nodes take the same text.
    assert read_settings(EASY).settings == run.settings and read_settings(EASY).has_dataset
    assert read_dataset(EASY).options == run.options
    with pytest.raises(SettingsError, match=r'network_module = "networks.lora": this trains a LoHa'):
        read_run(EASY.replace('algo = "loha"', ""))
    share = read_run(EASY.replace("learning_rate", "warmup_ratio = 0.05\nlearning_rate"))
    assert settings_of(share, "lr_warmup_steps", "lr_warmup_share") == (0, 0.05)


def test_lora_scripts():
    run = read_run(SCRIPTS)
    assert settings_of(run, "unet_lr", "text_encoder_lr", "conv_rank", "conv_alpha", "optimizer_args") == (
        1e-4, 1e-5, 4, 1.0, "weight_decay=0.1")
    assert "note: read as a file of lora-scripts" in run.lines
    with pytest.raises(SettingsError, match='model_train_type = "sdxl-lora": this trainer is for SD 1.5'):
        read_run(SCRIPTS.replace("sd-lora", "sdxl-lora"))


@pytest.mark.parametrize(("text", "words"), [
    ("", "the pasted configuration is empty: no key that says what to train or how, such as network_dim"),
    ("# a comment\n", "is empty: no key"),
    ("a = 1\n[b]\nc = 2\n", "holds a, c: no key that says what to train or how"),
    ("xformers = true", "holds xformers: no key"),
    ("\n".join(f"k{at} = 1" for at in range(20)), "holds k0, k1, k2, k3, k4, k5, k6, k7, …: no key"),
    ('{"training_method": "LORA", "base_model_name": "x"}', "is a configuration of OneTrainer, whose keys mean other"),
    ('{"nodes": [], "links": []}', "is a ComfyUI workflow: drag it into ComfyUI"),
    ('{"1": {"class_type": "KSampler", "inputs": {}}}', "is a ComfyUI prompt"),
    ('{"peft_type": "LOHA"}', "is PEFT's description of a trained adapter"),
    ('{"job": "extension", "config": {}}', "is a configuration of ai-toolkit"),
    ('{"ss_network_module": "lycoris.kohya"}', "is the metadata of a trained file"),
    ("enable_conv = true\nunet_target_module = []", "is a LyCORIS preset, which says what to train and not how"),
    ("[module_algo_map]\n[module_algo_map.CrossAttention]\nalgo = 'lokr'", "is a LyCORIS preset"),
    ("[model]\ntype = 'sdxl'\n[adapter]\ntype = 'lora'", "is a configuration of diffusion-pipe"),
    ("[[directory]]\npath = 'x'", "is a dataset of diffusion-pipe: write [[datasets]]"),
    ("[prompt]\nwidth = 512\n[[prompt.subset]]\nprompt = 'x'", "is a file of sample prompts: write them as"),
    ("job: extension\nconfig:\n  name: x\n", "is a configuration of ai-toolkit"),
    ("compute_environment: LOCAL_MACHINE\n", "is accelerate's own configuration, of machines"),
    ("_base_:\n  - cfgs/x.yaml\n", "is a configuration of HCP-Diffusion"),
    ("network_dim: 16\nnetwork_alpha: 8\n", "is YAML, and kohya's configurations are TOML"),
    ("accelerate launch train_network.py --network_dim 16", "is a command line: write each option as a line"),
    ('{"network_dim": 16', "is not JSON: Expecting ',' delimiter"),
])
def test_other_files_are_called_what_they_are(text, words):
    with pytest.raises(SettingsError) as refused:
        read_settings(text)
    assert words in str(refused.value)


@pytest.mark.parametrize(("name", "text"), [
    ("a.json", '{"HUSH": "HUSH"}'), ("a.json", '{"a": HUSH}'), ("a.json", '["HUSH"]'), ("a.yaml", "HUSH: HUSH\n"),
    ("a.yml", "- HUSH\n"), ("a.toml", "[project]\nname = 'HUSH'\nHUSH = 1\n"),
])
def test_nothing_is_told_of_what_a_file_holds_that_is_no_configuration(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    for read in (read_settings, read_dataset):
        with pytest.raises(SettingsError) as refused:
            read(str(tmp_path / name))
        assert "HUSH" not in str(refused.value)


def test_plain_json_is_read_too():
    assert read_settings('{"network_dim": 8, "clip_skip": 1}').settings.network_rank == 8
