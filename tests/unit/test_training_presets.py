"""LyCORIS's presets and kohya's own LoHa: the modules of SD 1.5 that they train, by LyCORIS's own tables."""

import pytest
import torch
from lycoris.config import PRESET
from shinymas_loha.loha.errors import SettingsError
from shinymas_loha.loha.training.kohya.training_file import read_settings
from shinymas_loha.loha.training.network.selection import select
from torch import nn

# What kohya's U-Net calls CrossAttention is Attention in diffusers.
_SAME = {"Attention": "CrossAttention"}
# kohya's own network: the blocks of attention, and with conv_dim those of convolutions.
_OWN = {"enable_conv": False, "unet_target_module": ["Transformer2DModel"], "unet_target_name": [],
        "text_encoder_target_module": ["CLIPAttention", "CLIPMLP"]}
_OWN_CONV = _OWN | {"enable_conv": True, "unet_target_module": ["Transformer2DModel", "ResnetBlock2D", "Downsample2D",
                                                               "Upsample2D"]}


@pytest.fixture(scope="module")
def sd15():
    """SD 1.5's U-Net and text encoder without weights, under kohya's prefixes."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)
        text = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
                                            num_attention_heads=12))
    return {"lora_unet_": unet, "lora_te_text_model_": getattr(text, "text_model", text)}


def layers_of(models):
    return {prefix + name.replace(".", "_"): module for prefix, model in models.items()
            for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}


def targeted(models, preset):
    """Linear and 1×1 layers in blocks of the named classes, or of full names; wider ones where convolutions count."""
    found = set()
    for prefix, model in models.items():
        part = "unet" if prefix == "lora_unet_" else "text_encoder"
        classes = preset[f"{part}_target_module"]
        for name, block in model.named_modules():
            kind = type(block).__name__
            if _SAME.get(kind, kind) in classes:
                inside = [f"{name}.{child}".strip(".") for child, _ in block.named_modules()]
            else:
                inside = [name] if part == "unet" and name in preset["unet_target_name"] else []
            found |= {prefix + one.replace(".", "_") for one in inside
                      if is_trained(model.get_submodule(one), preset["enable_conv"])}
    return found


def is_trained(layer, has_conv):
    return isinstance(layer, nn.Linear) or (
        isinstance(layer, nn.Conv2d) and (has_conv or layer.kernel_size == (1, 1)))


def chosen(models, text):
    return set(select(layers_of(models), read_settings(text).settings))


@pytest.mark.parametrize("name", [name for name in PRESET if name != "ia3"])
def test_each_preset_trains_what_lycoris_trains(sd15, name):
    arguments = f'network_args = ["algo=loha", "preset={name}", "conv_dim=CONV"]'
    with_conv = targeted(sd15, PRESET[name])
    assert chosen(sd15, arguments.replace("CONV", "4")) == with_conv
    assert chosen(sd15, arguments.replace("CONV", "0")) == targeted(sd15, PRESET[name] | {"enable_conv": False})


def test_kohyas_own_network(sd15):
    own = 'network_module = "networks.loha"\nnetwork_dim = 8\n'
    assert chosen(sd15, own) == targeted(sd15, _OWN)
    assert chosen(sd15, own + 'network_args = ["conv_dim=4"]') == targeted(sd15, _OWN_CONV)
    made = read_settings(own + 'network_args = ["conv_dim=4", "conv_alpha=2", "use_tucker=True"]').settings
    assert (made.conv_rank, made.conv_alpha, made.use_tucker) == (4, 2.0, True)


def test_lora_plus_is_of_another_network():
    read = read_settings('network_args = ["algo=loha", "conv_dim=0", "loraplus_lr_ratio=16"]')
    assert read.settings == read_settings('network_args = ["algo=loha", "conv_dim=0"]').settings
    assert ("note: loraplus_lr_ratio: changes nothing, as in LyCORIS: the ratio is of lora_up, and a LoHa has none"
            in read.lines())


@pytest.mark.parametrize(("text", "words"), [
    ('network_args = ["algo=loha", "preset=my.toml"]', '"preset=my.toml": a preset is one of full, full-lin, attn-mlp'),
    ('network_module = "networks.loha"\nnetwork_args = ["preset=attn-only"]', '"preset=attn-only": not known'),
    ('network_module = "networks.loha"\nnetwork_args = ["algo=lokr"]', '"algo=lokr": algo must be loha'),
    ('network_args = ["algo=loha", "preset=unet-only"]\nnetwork_train_text_encoder_only = true',
     "nothing is left to train"),
])
def test_what_is_no_network_here(text, words):
    with pytest.raises(SettingsError) as refused:
        read_settings(text)
    assert words in str(refused.value)
