"""All that a person is told of a configuration: refused, ignored, off and unknown keys, defaults, in one message."""

import pytest
from shinymas_loha.loha.errors import SettingsError
from shinymas_loha.loha.training.kohya.dataset_file import read_dataset
from shinymas_loha.loha.training.kohya.run_file import read_run
from shinymas_loha.loha.training.kohya.training_file import read_settings

OFF = ("false", '""', '" "', "0", "0.0", "[]", '[""]', '"none"', '"None"')


def told(read, *arguments, **options):
    with pytest.raises(SettingsError) as refused:
        read(*arguments, **options)
    return str(refused.value).splitlines()


def test_everything_that_must_change_is_in_one_message():
    text = """
network_module = "lycoris.kohya"
network_args = ["algo=loha", "dora_wd=True", "conv_dim=x"]
network_dim = 0
optimizer_type = "Nadir"
gradient_checkpointing = 1
sdxl = true
resume = "a/state"
lr_scheduler = "wave"
xformers = true
lowram = true
output_dir = "out"
scale_weight_norms = 0
lr_scheduler_args = ""
max_train_epoch = 3
"""
    found = told(read_settings, text)
    assert found.pop(8).startswith("refused: optimizer: 'Nadir' is not known. Known: Adadelta")
    assert found == [
        "the pasted configuration cannot be run as it is, 8 things to change:",
        "refused: sdxl = true: this trainer is for SD 1.5. Take it out, or write sdxl = false",
        'refused: resume = "a/state": kohya\'s state folders cannot be read. Take it out, and connect the LoHa to go '
        "on from to resume, or give it to train.py with --resume",
        "refused: network_dim = 0: 0 is outside 1 to 128",
        "refused: gradient_checkpointing = 1: expected true or false",
        "refused: lr_scheduler = \"wave\": 'wave' is not one of model card, cosine_with_restarts, cosine, constant, "
        "linear, polynomial, cosine_with_min_lr, inverse_sqrt, warmup_stable_decay, piecewise_constant",
        'refused: network_args = "conv_dim=x": conv_dim is not a whole number',
        'refused: network_args = "dora_wd=True": this LoHa does not have it: take it out',
        "ignored: xformers, lowram: memory and speed are chosen by ComfyUI and the kernels",
        "ignored: output_dir: files go to the folder of the run: --output, or ComfyUI's models/loras",
        "off, or as it is anyway: scale_weight_norms, lr_scheduler_args",
        "unknown: max_train_epoch (did you mean max_train_epochs?)",
    ]


def test_everything_that_must_change_in_a_dataset_is_in_one_message():
    text = """
odd = 1
[general]
resolution = 640
color_aug = true
cache_info = true
learning_rate = 1e-4
[[datasets]]
bucket_reso_steps = 32
[[datasets.subsets]]
image_dir = "a"
is_reg = true
face_crop_aug_range = ""
num_repeats = 0
[[datasets.subsets]]
num_repeats = 2
"""
    assert told(read_dataset, text) == [
        "the pasted configuration cannot be run as it is, 4 things to change:",
        "refused: color_aug = true in [general]: pictures are trained in their own colours. Take it out, or "
        "write color_aug = false",
        "refused: bucket_reso_steps = 32 in [[datasets]] 1: expected a multiple of 64 up to 2048, as kohya's scripts "
        "do for SD 1.5. Write 64",
        "refused: num_repeats = 0 for a: 0 is outside 1 to 10000",
        "refused: datasets.subsets: image_dir is missing: name the folder of the pictures",
        "ignored: cache_info: memory and speed are chosen by ComfyUI and the kernels",
        "ignored: learning_rate: of the training configuration, not of a dataset",
        "off, or as it is anyway: face_crop_aug_range",
        "unknown: odd",
    ]


def test_both_files_of_a_run_are_in_one_message(tmp_path):
    (tmp_path / "train.toml").write_text('network_dim = 0\ncolor_aug = true\n', encoding="utf-8")
    (tmp_path / "pictures.toml").write_text(
        '[[datasets]]\nresolution = 100\n[[datasets.subsets]]\nimage_dir = "a"\n', encoding="utf-8")
    text = "\n".join(told(read_run, str(tmp_path / "train.toml"), dataset=str(tmp_path / "pictures.toml")))
    assert text.replace(str(tmp_path), "") == (
        "/train.toml cannot be run as it is, 1 thing to change:\n"
        "refused: network_dim = 0: 0 is outside 1 to 128\n"
        "/pictures.toml cannot be run as it is, 2 things to change:\n"
        "refused: color_aug = true in the training configuration: pictures are trained in their own colours. Take it "
        "out, or write color_aug = false\n"
        "refused: resolution = 100 in [[datasets]] 1: 100 is not a multiple of 64")


@pytest.mark.parametrize("off", OFF)
def test_off_is_off(off):
    keys = ("resume", "lr_scheduler_args", "lr_scheduler_type", "max_train_epochs", "min_timestep", "base_weights",
            "multires_noise_iterations", "save_n_epoch_ratio", "network_weights", "vae", "use_8bit_adam", "v2")
    given = [key for key in keys if not (key in ("network_weights", "vae") and off in ("0", "0.0"))]
    if off == "0.0":
        given.remove("max_train_epochs")
    read = read_settings("network_dim = 8\n" + "\n".join(f"{key} = {off}" for key in given))
    assert read.settings == read_settings("network_dim = 8").settings
    assert sorted(read.found.unused) == sorted(given)
    pictures = read_dataset(f"""
[[datasets]]
resolution = 640
color_aug = {off}
face_crop_aug_range = {off}
[[datasets.subsets]]
image_dir = "a"
is_reg = {off}
metadata_file = {off}
""")
    assert pictures.found.unused == ["color_aug", "face_crop_aug_range", "metadata_file"]
    assert not pictures.options.folders[0].is_reg


@pytest.mark.parametrize("off", OFF)
def test_a_switch_that_is_off_is_false_and_no_default(off):
    """Buckets are on by the model card's defaults."""
    if off not in ("0", "0.0"):  # kohya's own check of a dataset takes true and false alone
        assert not read_dataset(
            f'[[datasets]]\nenable_bucket = {off}\n[[datasets.subsets]]\nimage_dir = "a"').options.buckets
        assert read_settings(f"network_dim = 8\nmixed_precision = {off}").settings.mixed_precision == "fp32"
        assert not read_settings(f"network_dim = 8\ngradient_checkpointing = {off}").settings.gradient_checkpointing


def test_an_alpha_of_zero_is_the_rank():
    assert read_settings("network_dim = 8\nnetwork_alpha = 0").settings.network_alpha == 8.0
    args = 'network_args = ["algo=loha", "conv_dim=4", "conv_alpha=0"]'
    assert read_settings(f"network_dim = 8\n{args}").settings.conv_alpha == 4.0


def test_each_value_says_where_it_came_from():
    text = 'network_dim = 8\nlearning_rate = 1e-4\nmax_train_steps = 100\noutput_name = "a"'
    assert read_settings(text).lines() == [
        "from the file: network_rank, learning_rate, max_train_epochs, max_train_steps, output_name",
        "default: optimizer = AdamW8bit; kohya's is AdamW",
        "default: lr_scheduler = model card; kohya's is constant",
        "default: mixed_precision = fp16; kohya's is fp32",
        "default: clip_skip = 2; kohya's is 1",
        "default: max_token_length = 225; kohya's is 75",
        "default: save_precision = fp16; kohya's is fp32",
        "default: save_every_n_epochs = 1; kohya's is 0",
        "note: these defaults are the model card's; for the others set defaults to kohya",
    ]
    kohya = read_settings(text, "kohya")
    assert kohya.lines()[1:4] == [
        "default: optimizer = AdamW; the model card's is AdamW8bit",
        "default: lr_scheduler = constant; the model card's is model card",
        "default: mixed_precision = fp32; the model card's is fp16"]
    assert kohya.lines()[-1] == "note: these defaults are kohya's; for the others set defaults to model card"
    assert (kohya.settings.optimizer, kohya.settings.clip_skip, kohya.settings.defaults) == ("AdamW", 1, "kohya")


def test_each_value_about_pictures_says_where_it_came_from():
    text = '[[datasets]]\nresolution = 512\n[[datasets.subsets]]\nimage_dir = "a"'
    assert read_dataset(text).lines() == [
        "from the file: resolution",
        "default: batch_size = 4; kohya's is 1",
        "default: buckets = true; kohya's is false",
        "default: upscale = false; kohya's is true",
        "note: these defaults are the model card's; for the others set defaults to kohya",
    ]
    kohya = read_dataset(text, defaults="kohya")
    assert (kohya.options.batch_size, kohya.options.buckets, kohya.options.upscale) == (1, False, True)
    assert kohya.lines()[1] == "default: batch_size = 1; the model card's is 4"


def test_a_file_may_say_whose_defaults_count():
    assert read_settings('defaults = "kohya"\nnetwork_dim = 8').settings.clip_skip == 1
    assert read_settings('defaults = "model card"\nnetwork_dim = 8', "kohya").settings.clip_skip == 2
    assert read_settings('defaults = "kohya"').lines()[0] == (
        "default: network_rank = 4; the model card's is 16")
    assert told(read_settings, 'defaults = "mine"')[1] == (
        "refused: defaults = \"mine\": 'mine' is not one of model card, kohya")
