"""Small real models and pictures for the tests of the trainer."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image


def _models(seed=0):
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from shinymas_loha.loha.training.data import Posterior
    from shinymas_loha.loha.training.models import Models, TextEncoder
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.set_num_threads(1)  # layers this small cost more to share out than to compute
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=4, cross_attention_dim=32,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4)
    text = CLIPTextModel(CLIPTextConfig(
        vocab_size=200, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=77, bos_token_id=198, eos_token_id=199, pad_token_id=199))
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4)
    for model in (unet, text, vae):
        model.eval().requires_grad_(False)

    def encode(pixels):
        found = vae.encode(pixels * 2 - 1).latent_dist
        return Posterior(found.mean, found.std)

    encoder = getattr(text, "text_model", text)
    layers = {f"lora_unet_{name.replace('.', '_')}": module for name, module in unet.named_modules()}
    layers |= {f"lora_te_text_model_{name.replace('.', '_')}": module for name, module in encoder.named_modules()}
    return Models(
        unet=unet, predict=lambda x, t, states: unet(x, t, states).sample,
        text=TextEncoder(encoder, 4, lambda caption: [ord(char) % 190 for char in caption], 198, 199),
        layers={name: layer for name, layer in layers.items() if hasattr(layer, "weight")}, encode=encode,
        device=torch.device("cpu"), blocks=tuple(unet.down_blocks))


@pytest.fixture(scope="session")
def tiny_models():
    """A U-Net, CLIP and VAE of the real classes, a few thousand times smaller; never written."""
    return _models()


@pytest.fixture
def tiny_settings():
    """Settings that fit `tiny_models`: float32, rank 2, quick."""
    from shinymas_loha.loha.training.settings.hyper_parameters import TrainingSettings

    def make(**chosen):
        base = TrainingSettings(
            network_rank=2, optimizer="AdamW", mixed_precision="fp32", max_token_length=75, save_precision="fp32",
            max_train_epochs=2, output_name="tiny")
        return replace(base, **chosen)

    return make


@pytest.fixture
def tiny_data(tmp_path):
    """Five pictures of 64 × 64 with captions, in batches of two."""
    from shinymas_loha.loha.training.data import DataOptions, FolderOptions, TrainingData, index_pictures

    folder = tmp_path / "1_pictures"
    folder.mkdir()
    colours = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    for number, pixels in enumerate(colours):
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"girl {number}, smile", encoding="utf-8")

    def make(**chosen):
        options = DataOptions(
            folders=(FolderOptions(folder, repeats=1),), resolution=64, bucket_min=64, bucket_max=64,
            **{"batch_size": 2, "latent_cache": "memory", **chosen})
        return TrainingData(index_pictures(options), options)

    return make
