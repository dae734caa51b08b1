"""Rates of blocks and of modules by their names: kohya's arithmetic, and what a step makes of them."""

import math
import re

import pytest
import torch
from shinymas_loha.loha.errors import SettingsError
from shinymas_loha.loha.training.data import Latents
from shinymas_loha.loha.training.kohya.training_file import read_settings
from shinymas_loha.loha.training.run.event_log import EventLog, lacking
from shinymas_loha.loha.training.run.folder import STATE_FILE, RunFolder, read_state
from shinymas_loha.loha.training.run.loop import Training
from shinymas_loha.loha.training.run.progress import Stopped, Watcher
from shinymas_loha.loha.training.settings import TrainingSettings
from shinymas_loha.loha.training.settings.module_rates import block_of, kohyas_blocks

ONES = ",".join(["1.0"] * 25)


def _kohyas(down, mid, up, threshold):
    """kohya-ss/sd-scripts, networks/lora.py: parse_block_lr_kwargs and get_block_lr_weight."""
    def curve(text):
        name, *base = text.split("+")
        base = float(base[0]) if base else 0.0
        places = {"cosine": reversed(range(12)), "sine": range(12), "linear": range(12),
                  "reverse_linear": reversed(range(12)), "zeros": range(12)}[name]
        if name == "zeros":
            return [base] * 12
        shape = (lambda i: math.sin(math.pi * (i / 11) / 2)) if name in ("cosine", "sine") else (lambda i: i / 11)
        return [shape(i) + base for i in places]

    def numbers(text):
        return [float(one) if one else 0.0 for one in text.split(",")]

    made = []
    for text, length in ((down, 12), (mid, 1), (up, 12)):
        if not text:
            made += [1.0] * length
            continue
        values = numbers(text) if length == 1 or "," in text else curve(text)
        values = (values[:length] + [1.0] * (length - len(values)))
        made += [value if value > threshold else 0 for value in values]
    return made


@pytest.mark.parametrize("down", ["", "cosine", "sine+.25", "linear", "reverse_linear+0.1", "zeros", "0,0.5,,1",
                                  ",".join(map(str, range(14)))])
@pytest.mark.parametrize("mid", ["", "0.5", "0"])
@pytest.mark.parametrize("up", ["", "sine", "0.1,0.2"])
@pytest.mark.parametrize("threshold", [0.0, 0.15])
def test_factors_are_kohyas(down, mid, up, threshold):
    found = [float(one) for one in kohyas_blocks(down, mid, up, threshold).split(",")]
    assert found == pytest.approx(_kohyas(down, mid, up, threshold), abs=1e-12)


@pytest.mark.parametrize(("name", "block"), [
    ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", 1),
    ("lora_unet_down_blocks_0_downsamplers_0_conv", 3), ("lora_unet_down_blocks_3_resnets_1_conv2", 11),
    ("lora_unet_mid_block_attentions_0_proj_in", 12), ("lora_unet_up_blocks_0_resnets_0_conv1", 13),
    ("lora_unet_up_blocks_2_upsamplers_0_conv", 21), ("lora_unet_up_blocks_3_attentions_2_proj_out", 24),
    ("lora_unet_conv_in", None), ("lora_unet_time_embedding_linear_1", None),
])
def test_blocks_are_kohyas(name, block):
    assert block_of(name) == block


@pytest.fixture
def training(tiny_models, tiny_data, tiny_settings):
    def make(folder=None, **chosen):
        made = tiny_settings(**{"optimizer": "SGD", "learning_rate": 0.5, "lr_scheduler": "constant",
                                "max_grad_norm": 0.0, "max_train_steps": 1, "max_train_epochs": 0, **chosen})
        data = tiny_data()
        return Training(tiny_models, data, Latents(data, tiny_models.encode), made, session="7", precision="fp32",
                        folder=folder)

    return make


def moved(run):
    """Name → how far a step of SGD moved a module's parameters."""
    before = {key: value.clone() for key, value in run.network.state_dict().items()}
    run.run()
    return {key: (value - before[key]).double() for key, value in run.network.state_dict().items()}


def test_a_step_is_as_long_as_the_rates_say(training):
    weights = [0.0] * 25
    weights[1], weights[12] = 0.25, 2.0
    plain = moved(training())
    found = moved(training(block_lr_weights=",".join(map(str, weights)), module_lrs="attn2_to_k=0.125, te_.*_0_=0"))
    assert any(bool(value.any()) for value in plain.values())
    for key, step in plain.items():
        name = key.split(".")[1]
        if "attn2_to_k" in name:
            factor = 0.25
        elif name.startswith("lora_te"):
            factor = 0.0 if re.search("te_.*_0_", name) else 1.0
        else:
            factor = 1.0 if block_of(name) is None else weights[block_of(name)]
        torch.testing.assert_close(found[key], factor * step, rtol=1e-3, atol=1e-7)


def test_frozen_modules_do_not_count_in_the_gradients_norm(training):
    norms = []
    watcher = Watcher(on_step=lambda progress: norms.append(progress.gradient_norm))
    training().run(watcher)
    training(module_lrs="unet=0").run(watcher)
    alone = training(train_unet=False)
    alone.run(watcher)
    assert norms[1] < norms[0] and norms[1] == pytest.approx(norms[2], rel=1e-6)


def test_nothing_chosen_is_no_other_bit(training):
    plain, ones = training(optimizer="AdamW"), training(optimizer="AdamW", block_lr_weights=ONES)
    assert "name" not in plain.update.optimiser.param_groups[0]
    plain.run(), ones.run()
    one, other = plain.network.state_dict(), ones.network.state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_run_goes_on_bit_for_bit(training, tmp_path):
    chosen = {"optimizer": "AdamW", "learning_rate": 1e-3, "max_train_steps": 4, "max_grad_norm": 1.0,
              "lr_scheduler": "cosine", "module_lrs": "ff=1e-4",
              "block_lr_weights": kohyas_blocks("sine", "0", "", 0.2)}
    whole = training(**chosen)
    whole.run()
    folder = RunFolder.create(tmp_path / "loras", TrainingSettings(output_name="tiny"))
    first, asked = training(folder=folder, **chosen), iter([False, True])
    with pytest.raises(Stopped):
        first.run(Watcher(should_stop=lambda: next(asked)))
    second = training(folder=folder, **chosen)
    assert second.resume(read_state(folder.path / STATE_FILE))
    second.run()
    one, other = second.network.state_dict(), whole.network.state_dict()
    assert second.losses == whole.losses and all(torch.equal(one[key], other[key]) for key in one)
    assert training(**{**chosen, "module_lrs": "ff=2e-4"}).compare(whole.state()).differences == (
        "module_lrs: ff=2e-4, was ff=1e-4",)


def test_the_groups_are_called_as_kohyas(training):
    run = training(block_lr_weights=kohyas_blocks("", "0.5", "", 0), module_lrs="attn2=1e-4")
    names = [group["name"] for group in run.update.optimiser.param_groups]
    assert {"unet_block1", "unet_block12", "unet reg_lr_0", "textencoder"} <= set(names)
    assert names[-1] == "textencoder" and len(names) == len(set(names))
    rates = dict(zip(names, run.update.learning_rates(), strict=True))
    assert (rates["unet_block12"], rates["unet reg_lr_0"], rates["unet_block1"]) == (0.25, 1e-4, 0.5)


@pytest.mark.skipif(bool(lacking(TrainingSettings(log_with="tensorboard"))), reason="tensorboard is not installed")
def test_each_groups_rate_is_logged(training, tmp_path):
    run = training(module_lrs="attn2=1e-4")
    log = EventLog(tmp_path, run, TrainingSettings(log_with="tensorboard"))
    run.run(log.watching(Watcher()))
    log.close()


@pytest.mark.parametrize(("chosen", "words"), [
    ({"block_lr_weights": "1,2"}, "block_lr_weights: 2 numbers, and there are 25 blocks"),
    ({"block_lr_weights": "a"}, "is no list of numbers"), ({"block_lr_weights": "-" + ONES}, "outside 0 to 1000"),
    ({"block_lr_weights": ONES.replace("1.0", "nan", 1)}, "outside 0 to 1000"),
    ({"module_lrs": "attn1"}, "'attn1' is not PATTERN=RATE"), ({"module_lrs": "(=1e-4"}, "is not PATTERN=RATE"),
    ({"module_lrs": "a=b"}, "is not PATTERN=RATE"), ({"module_lrs": "a=11"}, "a rate from 0 to 10"),
])
def test_what_cannot_be_read_is_named(chosen, words):
    with pytest.raises(SettingsError, match=words):
        TrainingSettings(**chosen)


def test_no_rate_at_all_is_told(training):
    with pytest.raises(SettingsError, match="leave no module with a learning rate above 0"):
        training(module_lrs="lora_=0")


def test_kohyas_network_args():
    def read(*arguments):
        quoted = ", ".join(f'"{one}"' for one in ("algo=loha", "conv_dim=0", *arguments))
        return read_settings(f'network_module = "lycoris.kohya"\nnetwork_args = [{quoted}]').settings

    made = read("down_lr_weight=sine", "mid_lr_weight=0.5", "block_lr_zero_threshold=0.2",
                "network_reg_lrs=attn1=1e-4,ff_net=0")
    assert made.block_lr_weights == kohyas_blocks("sine", "0.5", "", 0.2)
    assert made.module_lrs == "attn1=1e-4,ff_net=0"
    assert read("block_lr_zero_threshold=0.2").block_lr_weights == ""
    for wrong in ("down_lr_weight=wave", "mid_lr_weight=x", "network_reg_lrs=attn1"):
        with pytest.raises(SettingsError, match=re.escape(wrong.partition("=")[2])):
            read(wrong)


def test_ranks_by_name_are_kohyas(training):
    """networks/lora_flux.py: the first expression found in a name gives its dimension, 0 leaves it out; alpha stays."""
    run = training(network_rank=4, network_alpha=2.0, module_ranks="attn1_to_k=0, attn1=7, te_.*mlp=2")
    plain = training(network_rank=4, network_alpha=2.0)
    expected = {name: 7 if "attn1" in name else 2 if re.search("te_.*mlp", name) else 4
                for name in plain.network.factors if "attn1_to_k" not in name}
    found = {name: module.w1_b.shape[0] for name, module in run.network.modules_for_file().items()}
    assert found == expected and set(found.values()) == {2, 4, 7}
    assert all(module.alpha == 2.0 and module.w2_b.shape[0] == module.rank
               for module in run.network.modules_for_file().values())
    loha = run.run()
    assert len(loha.modules) == len(expected)
    assert "attn1_to_k=0, attn1=7" in loha.metadata["ss_network_args"]
    further = training(network_rank=4, network_alpha=2.0, module_ranks="attn1_to_k=0, attn1=7, te_.*mlp=2")
    further.go_on_from(loha)
    for name, module in further.network.modules_for_file().items():
        assert torch.equal(module.w1_a, loha.modules[name].w1_a), name


@pytest.mark.parametrize(("ranks", "said"), [
    ("attn1", "'attn1' is not PATTERN=RANK"), ("attn1=-1", "from 0 to 128"), ("attn1=129", "from 0 to 128"),
    ("attn1=1.5", "a whole rank"), ("(=4", "is not PATTERN=RANK"), ("lora_=0", "no module is left to train"),
    ("(a+)+x=4", "might never end"), (".*a.*b.*c.*d.*e=4", "might never end"),
])
def test_ranks_that_are_none(training, ranks, said):
    with pytest.raises(SettingsError, match=re.escape(said)):
        training(module_ranks=ranks)


def test_ranks_of_kohyas_network_args():
    text = 'network_module = "lycoris.kohya"\nnetwork_args = ["algo=loha", "conv_dim=0", "network_reg_dims={}"]'
    assert read_settings(text.format("attn1=8,ff_net=0")).settings.module_ranks == "attn1=8,ff_net=0"
    with pytest.raises(SettingsError, match="network_reg_dims.*PATTERN=RANK"):
        read_settings(text.format("attn1"))
