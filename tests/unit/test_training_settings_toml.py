"""The page's configuration as it is, and what happens to keys that it does not have."""

import re
import sys
from dataclasses import replace

import pytest
from shinymas_loha.loha.errors import FileError, LohaError, SettingsError
from shinymas_loha.loha.training.kohya.dataset_file import read_dataset
from shinymas_loha.loha.training.kohya.run_file import read_run
from shinymas_loha.loha.training.kohya.training_file import read_settings
from shinymas_loha.loha.training.settings.hyper_parameters import TrainingSettings

# As the model page prints it.
PAGE = """\
[model_arguments]
v2 = false
v_parameterization = false
pretrained_model_name_or_path = "animefull-final-pruned.ckpt"

[additional_network_arguments]
no_metadata = false
network_module = "lycoris.kohya"
network_dim = 16
network_alpha = 1
network_args = [ "conv_dim=0", "algo=loha",]
network_train_unet_only = false
network_train_text_encoder_only = false
cache_latents = false

[optimizer_arguments]
optimizer_type = "AdamW8bit"
learning_rate = 0.001
max_grad_norm = 1.0
lr_scheduler = "custom"

[dataset_arguments]
debug_dataset = false
# batch size: 4 x 2
# resolution: 640

[training_arguments]
output_name = "shinymas-v2.0"
save_precision = "fp16"
save_every_n_epochs = 1
max_token_length = 225
mem_eff_attn = false
xformers = true
max_train_epochs = 31
max_data_loader_n_workers = 0
persistent_data_loader_workers = false
gradient_checkpointing = false
gradient_accumulation_steps = 1
mixed_precision = "fp16"
clip_skip = 2
log_prefix = "shinymas-v2.0"
lowram = true

[sample_prompt_arguments]

[saving_arguments]
save_model_as = "safetensors"
"""


def test_the_pages_configuration_is_the_default():
    read = read_settings(PAGE)
    assert read.settings == replace(TrainingSettings(), base_model="animefull-final-pruned.ckpt")
    assert read.found.unknown == []
    assert {key for key, _ in read.found.ignored} == {"xformers", "log_prefix", "lowram"}
    assert read.found.unused == [
        "v2", "no_metadata", "debug_dataset", "mem_eff_attn", "max_data_loader_n_workers",
        "persistent_data_loader_workers", "save_model_as"]
    data = read_run(PAGE, folder="pictures").options
    assert (data.resolution, data.batch_size, data.latent_cache) == (640, 4, "none")


@pytest.mark.parametrize("parser", ["tomllib", "tomli", "toml"])
def test_every_parser_reads_the_page_the_same(parser, monkeypatch):
    pytest.importorskip(parser, reason=f"this Python has no {parser}")
    for other in {"tomllib", "tomli", "toml"} - {parser}:
        monkeypatch.setitem(sys.modules, other, None)
    assert read_settings(PAGE).settings.network_alpha == 1.0


def test_no_parser_is_said_clearly(monkeypatch):
    for name in ("tomllib", "tomli", "toml"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SettingsError, match="no TOML parser: use Python 3.11 or newer, or install tomli"):
        read_settings(PAGE)


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_a_file_by_its_path(tmp_path, start):
    path = tmp_path / "config.toml"
    path.write_bytes(start + PAGE.replace("\n", "\r\n").encode())
    assert read_settings(str(path)) == read_settings(PAGE)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FileError, match="no such file"):
        read_settings(str(tmp_path / "gone.toml"))
    (tmp_path / "a.toml").write_bytes('a = "黒"'.encode("cp932"))
    with pytest.raises(FileError, match="is not UTF-8"):
        read_settings(str(tmp_path / "a.toml"))
    (tmp_path / "b.toml").write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(FileError, match="has at most"):
        read_settings(str(tmp_path / "b.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(FileError, match="no such file"):
        read_settings(str(tmp_path / "folder.toml"))


def test_a_path_that_no_system_has(tmp_path):
    with pytest.raises(FileError, match=r"\(\d+ characters\) cannot be read: File name too long"):
        read_settings(f"{tmp_path}/{'x' * 300}.toml")
    with pytest.raises(FileError, match=r"a\\x00.toml cannot be read"):
        read_settings(f"{tmp_path}/a\0.toml")
    with pytest.raises(FileError, match=r"\\ud800.toml cannot be read"):
        read_settings(f"{tmp_path}/\ud800.toml")


@pytest.mark.parametrize("parser", ["tomllib", "toml"])
@pytest.mark.parametrize("text", [
    "root:HUSH:19000:0:99999:7:::", "[HUSH]\n[HUSH]",
    "a = 1\nHUSH = 'HUSH", "HUSH = [1, HUSH]", "a.HUSH = 1\na.HUSH = 2",
    "a = {HUSH = 1, HUSH = 2}", "password = 'HUSH'", "[prod]\npassword = 'HUSH'\n[dev]\npassword = 'HUSH HUSH'",
    "general = 'HUSH'", "datasets = 'HUSH'", "datasets = ['HUSH']", "general = 'HUSH'\ndatasets = []",
    "[[datasets]]\nsubsets = 'HUSH'",
])
def test_nothing_is_told_of_a_file_that_is_no_configuration(tmp_path, text, parser, monkeypatch):
    pytest.importorskip(parser, reason=f"this Python has no {parser}")
    for other in {"tomllib", "tomli", "toml"} - {parser}:
        monkeypatch.setitem(sys.modules, other, None)
    path = tmp_path / "a.toml"
    path.write_text(text, encoding="utf-8")
    for read in (read_settings, read_dataset):
        with pytest.raises(LohaError) as refused:
            read(str(path))
        assert "HUSH" not in str(refused.value)


def test_where_a_file_is_no_toml_is_told(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("network_dim = 4\nnetwork_alpha 1", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"a\.toml is not TOML: see line 2, column 15$"):
        read_settings(str(path))


@pytest.mark.parametrize("text", ["lr", "[a\nb = 1", "a = 1\na = 2", "\x00 = 1", "a = [" * 5000])
def test_text_that_is_not_toml(text):
    with pytest.raises(SettingsError, match="the pasted configuration is not TOML"):
        read_settings(text)


def test_unknown_keys_may_differ_from_section_to_section(tmp_path):
    assert read_settings("seed = 1\n[a]\nx = 1\n[b]\nx = 2").found.unknown == ["x"]
    (tmp_path / "x.toml").write_text("x = 1", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"no configuration of kohya's scripts: none of its 1 key\(s\) says how"):
        read_settings(str(tmp_path / "x.toml"))


def test_unknown_keys_are_listed_in_order_and_escaped():
    read = read_settings('zeta = 1\n"al\\u202epha" = 2\n[x]\nnetwork_dim = 8\nmax_train_epoch = 2')
    assert read.found.unknown == ["zeta", "al\u202epha", "max_train_epoch"] and read.settings.network_rank == 8
    assert read.lines()[-3:] == [
        "unknown: zeta", "unknown: al\\u202epha", "unknown: max_train_epoch (did you mean max_train_epochs?)"]


@pytest.mark.parametrize(("line", "field", "value"), [
    ('lr_scheduler = "cosine_with_restarts"\nlr_scheduler_num_cycles = 4', "lr_num_cycles", 4),
    ('lr_scheduler = "constant_with_warmup"\nlr_warmup_steps = 100', "lr_warmup_steps", 100),
    ('mixed_precision = "no"', "mixed_precision", "fp32"),
    ('save_precision = "float"', "save_precision", "fp32"),
    ("v_parameterization = true", "prediction", "v"),
    ("save_last_n_epochs = 3", "keep_last", 3),
    ("network_train_unet_only = true", "train_text_encoder", False),
    ("text_encoder_lr = 0", "train_text_encoder", False),
    ("network_train_text_encoder_only = true", "train_unet", False),
    ('network_weights = "a.safetensors"', "init_from", "a.safetensors"),
    ('optimizer_args = ["weight_decay = 0.1", "betas=0.9,0.99"]', "optimizer_args",
     "weight_decay=0.1 betas=0.9,0.99"),
    ("unet_lr = 1e-4", "unet_lr", 1e-4),
    ('sample_prompts = ["a", "b"]', "sample_prompts", "a\nb"),
    ('sample_prompts = "prompts.txt"', "sample_prompts", "prompts.txt"),
    ("sample_every_n_steps = 100", "sample_every_n_steps", 100),
    ("sample_at_first = true", "sample_at_first", True),
    ('network_args = ["algo=loha"]\nnetwork_dim = 8', "conv_rank", 8),
    ('network_args = ["algo=loha", "conv_dim=4", "use_tucker=True"]', "use_tucker", True),
    ('network_args = ["algo=loha", "conv_dim=4"]', "module_set", "all"),
    ('network_args = ["algo=loha", "preset=attn-mlp"]', "module_set", "attention-mlp"),
    ('network_args = ["algo=LoHa", "conv_dim=0", "rank_dropout=0.1"]', "rank_dropout", 0.1),
    ('network_args = ["algo=loha", "conv_dim=0", "dropout=0"]', "module_set", "linear"),
])
def test_keys_that_are_honoured(line, field, value):
    read = read_settings(line)
    assert getattr(read.settings, field) == value and not read.found.unknown


@pytest.mark.parametrize(("line", "words"), [
    ("v2 = true", "v2 = true: this trainer is for SD 1.5. Take it out, or write v2 = false"),
    ('network_module = "networks.lora"', 'network_module = "networks.lora": this trains a LoHa: write network_module '
     '= "lycoris.kohya" and network_args = ["algo=loha"]'),
    ('network_args = ["algo=lokr"]', 'network_args = "algo=lokr": algo must be loha, other algorithms are not trained'),
    ('network_args = ["conv_dim=0"]', 'network_args = "algo=lora": algo must be loha'),
    ('network_args = ["algo=loha", "preset=ia3"]', "a preset is one of full, full-lin, attn-mlp, attn-only, unet-only"),
    ('network_args = ["algo=loha", "dora_wd=True"]', 'network_args = "dora_wd=True": this LoHa does not have it: take'),
    ('network_args = ["algo=loha", "dropout=0.5"]', 'network_args = "dropout=0.5": this LoHa does not have it'),
    ('network_args = ["algo=loha", "rnak_dropout=0.5"]', 'network_args = "rnak_dropout=0.5": not known: take it out'),
    ('network_args = ["algo=loha", "conv_dim=x"]', 'network_args = "conv_dim=x": conv_dim is not a whole number'),
    ('network_args = ["algo=loha", "conv_dim=0", "conv_dim=4"]', "conv_dim is given twice, with different values"),
    ('network_args = ["algo=loha", "use_tucker=maybe"]', "use_tucker is neither true nor false"),
    ('network_args = ["algo=loha", "conv_dim=0", "use_tucker=True"]', "use_tucker needs the 3×3"),
    ("network_args = 3", 'network_args = 3: expected a list such as ["conv_dim=0", "algo=loha"]'),
    ("network_dim = 0", "network_dim = 0: 0 is outside 1 to 128"),
    ("network_train_unet_only = true\nnetwork_train_text_encoder_only = true",
     "network_train_unet_only = true: excludes network_train_text_encoder_only = true: keep one"),
    ('network_train_unet_only = "yes"', 'network_train_unet_only = "yes": expected true or false'),
    ("unet_lr = 0\ntext_encoder_lr = 0", "nothing is left to train"),
    ("full_fp16 = true", "full_fp16 = true: the factors are trained in fp32. Take it out; mixed_precision is of the"),
    ("fp16 = true", "fp16 = true: the factors are trained in fp32"),
    ('lr_scheduler = "wave"', "lr_scheduler = \"wave\": 'wave' is not one of model card"),
    ("text_encoder_lr = [1e-4, 2e-4, true]\nunet_lr = nan", "unet_lr = NaN: nan is not a finite number"),
    ('lr_scheduler = "custom"\nlr_warmup_steps = 5', "exclude each other"),
    ('lr_scheduler = "cosine"\nlr_warmup_steps = 1.5', "lr_warmup_steps = 1.5: 1.5 is outside 0.0 to 0.99"),
    ('lr_scheduler = "custom"\nlr_warmup_steps = 0.05', "lr_warmup_steps 0.05 and lr_scheduler model card exclude"),
    ('save_model_as = "ckpt"', 'save_model_as = "ckpt": other formats can run code when they are loaded. Take it out, '
     'or write save_model_as = "safetensors"'),
    ("no_metadata = true", "no_metadata = true: ranks, hashes and the cast stand in the metadata"),
    ('resume = "state"', "kohya's state folders cannot be read. Take it out, and connect the LoHa to go on from"),
    ('optimizer_type = "os.system"', "optimizer: 'os.system' is not known"),
    ('optimizer_args = ["a=open(1)"]', "optimizer_args: 'open(1)' of a is neither"),
    ('base_weights = ["x"]', 'base_weights = ["x"]: no other network is put into the model. Take it out, and apply'),
    ('learning_rate = "fast"', "learning_rate = \"fast\": expected a number, found 'fast'"),
    ("learning_rate = nan", "not a finite number"),
    ("seed = 1\n[a]\nseed = 2", "seed is 1 in [seed] and 2 in [a]: keep one of them"),
    ("max_token_length = [225]", "max_token_length = [225]: expected a whole number"),
    ("mixed_precision = [1]", "mixed_precision = [1]: expected text"),
    ("v2 = 2020-01-01", "v2 = 2020-01-01: this trainer is for SD 1.5"),
])
def test_keys_that_cannot_be_honoured(line, words):
    with pytest.raises(LohaError, match=re.escape(words)):
        read_settings(line)


def test_a_dataset_is_not_a_training_configuration():
    with pytest.raises(SettingsError, match="is the TOML of a dataset .* give it to LoHa Training Data, or to"):
        read_settings("[[datasets]]\nresolution = 640")


def test_keys_about_pictures_go_to_the_data(tmp_path):
    read = read_run(
        f"train_data_dir = '{tmp_path}'\nresolution = \"768,768\"\ntrain_batch_size = 2\nflip_aug = true\n"
        "shuffle_caption = true\nkeep_tokens = 1\ncache_latents = true\ncache_latents_to_disk = true"
    )
    options = read.options
    assert (options.resolution, options.batch_size, options.latent_cache) == (768, 2, "disk")
    folder = options.folders[0]
    assert folder.path == tmp_path and folder.repeats is None and folder.flip
    assert folder.captions.shuffle and folder.captions.keep_tokens == 1
