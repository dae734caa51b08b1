"""Which base model a file and a model are of; a LoHa for another one is not applied where names and shapes agree."""

import pytest
import torch
from lohas import Layout, random_module, sd15_rows
from shinymas_loha.loha import BindError, Loha, base_models, report
from shinymas_loha.loha.binding import Target, bind

TARGETS = [row.target() for row in sd15_rows()]
SELF = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"  # 320×320, in SDXL too
CROSS = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
TEXT = "lora_te{}_text_model_encoder_layers_0_self_attn_q_proj"


def _loha(metadata=None, **shapes):
    return Loha({name: random_module(Layout(shape)) for name, shape in shapes.items()}, metadata=metadata or {})


@pytest.mark.parametrize("stated, base", [
    ({"ss_base_model_version": "sdxl_base_v1-0"}, "SDXL"),
    ({"ss_base_model_version": "sdxl_1.0"}, "SDXL"),
    ({"ss_base_model_version": "sd_v1"}, "SD 1.5"),
    ({"ss_base_model_version": "sd_1.5"}, "SD 1.5"),
    ({"ss_base_model_version": "sd_v2_v"}, "SD 2"),
    ({"ss_base_model_version": "sd3m"}, "SD 3"),
    ({"ss_base_model_version": "flux1"}, "Flux"),
    ({"ss_base_model_version": "hunyuan_video"}, "HunyuanVideo"),
    ({"ss_base_model_version": "hunyuan_video_1_5"}, ""),
    ({"ss_base_model_version": "flux2"}, ""),
    ({"ss_base_model_version": "wan"}, ""),
    ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, "SDXL"),
    ({"modelspec.architecture": "stable-diffusion-xl-v1-refiner"}, "SDXL refiner"),
    ({"modelspec.architecture": "stable-diffusion-v1/lora"}, "SD 1.5"),
    ({"modelspec.architecture": "stable-diffusion-v2-768-v"}, "SD 2"),
    ({"modelspec.architecture": "stable-diffusion-3-medium/lora"}, "SD 3"),
    ({"modelspec.architecture": "Flux.1-dev/lora"}, "Flux"),
    ({"modelspec.architecture": "flux-1-dev", "ss_base_model_version": "sdxl_base_v1-0"}, ""),
    ({"ss_base_model_version": ""}, ""),
], ids=str)
def test_what_the_metadata_say(stated, base):
    assert base_models.of_file(_loha(stated, **{SELF: (320, 320)})).name == base


@pytest.mark.parametrize("stated, shapes, base, among", [
    ("sd_v1", {CROSS: (640, 2048)}, "SDXL", {"SDXL"}),  # tensors do not err
    ("sd_v1", {CROSS: (640, 100)}, "SD 1.5", {"SD 1.5"}),
    ("sd_v1", {TEXT.format(2): (1280, 1280)}, "", set()),
    ("sd3m", {TEXT.format(1): (768, 768), TEXT.format(2): (1280, 1280)}, "SD 3", {"SD 3"}),
    ("", {TEXT.format(2): (1280, 1280)}, "SDXL", {"SDXL", "SDXL refiner", "SD 3"}),
    ("", {TEXT.format(""): (768, 768)}, "SD 1.5", set()),  # CLIP-L stands in many models
    ("", {CROSS: (640, 768), CROSS.replace("to_k", "to_v"): (640, 2048)}, "", set()),
    ("", {"diffusion_model.transformer_blocks.0.attn2.to_k": (2048, 2048)}, "", set()),  # no U-Net: LTX-Video
])
def test_what_the_tensors_show_and_where_the_metadata_contradict(stated, shapes, base, among):
    found = base_models.of_file(_loha({"ss_base_model_version": stated}, **shapes))
    assert (found.name, set(found.among)) == (base, among)


@pytest.mark.parametrize("metadata, model, why", [
    ({"ss_base_model_version": "sdxl_base_v1-0"}, "", "its metadata says ss_base_model_version sdxl_base_v1-0"),
    ({"modelspec.architecture": "stable-diffusion-xl-v1-base"}, "SD 1.5",
     "its metadata says modelspec.architecture stable-diffusion-xl-v1-base"),
])
def test_a_file_for_another_base_model_goes_on_nothing_though_everything_fits(metadata, model, why):
    binding = bind(_loha(metadata, **{SELF: (320, 320)}), TARGETS, model=model)
    assert (binding.applied, len(binding.skipped)) == (0, 1)
    assert report.binding_lines(binding)[4] == f"left off 1: made for SDXL, and the model is SD 1.5 ({SELF})"
    with pytest.raises(BindError) as error:
        binding.demand(strict=False)
    assert str(error.value) == (
        f"This LoHa was made for SDXL ({why}), and the model is SD 1.5: none of its 1 modules is applied. Choose a "
        "checkpoint of the kind that the LoHa was trained on, or a LoHa for SD 1.5.")


def test_two_text_encoders_are_no_file_for_sd15():
    with pytest.raises(BindError, match=r"made for SDXL \(it has two text encoders\), and the model is SD 1.5: none of "
                                        "its 2 modules"):
        bind(_loha(**{TEXT.format(1): (768, 768), TEXT.format(2): (1280, 1280)}), TARGETS).demand(strict=False)


def test_metadata_are_shown_safely():
    loha = _loha({"ss_base_model_version": "sdxl\n\u202e"}, **{SELF: (320, 320)})
    with pytest.raises(BindError, match=r"ss_base_model_version sdxl\\x0a\\u202e\)"):
        bind(loha, TARGETS).demand(strict=False)


@pytest.mark.parametrize("metadata", [{}, {"ss_base_model_version": "sd_v1"}, {"ss_base_model_version": "my own"}])
def test_where_a_side_is_unknown_or_the_same_it_is_applied(metadata):
    loha = _loha(metadata, **{SELF: (320, 320)})
    assert bind(loha, TARGETS).applied == 1
    nameless = [Target("diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight", (320, 320),
                       torch.float16), Target("diffusion_model.input_blocks.1.1.proj_in.weight", (320, 320),
                                              torch.float16)]
    assert bind(loha, nameless).applied == 1
