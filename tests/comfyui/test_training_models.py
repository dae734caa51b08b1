"""ComfyUI's models as the trainer sees them give what ComfyUI itself gives."""

from dataclasses import replace

import psutil
import pytest
import torch


@pytest.fixture
def loaded(comfy, small_model):
    """The pack's view of the sample checkpoint; imported late, after ComfyUI is on the path."""
    from shinymas_loha.patcher.trainer.models import TrainingModels

    model, clip, vae = small_model
    view = TrainingModels(model, clip, vae, "fp16")
    view.load()
    return view.models(), model, clip


def test_text_states_are_cores(loaded):
    from shinymas_loha.loha.training.objective.text_states import encode

    models, _, clip = loaded
    caption = "Kazano Hiori, black hair, mole under mouth"
    clip.clip_layer(-2)
    with torch.no_grad():
        cores = clip.encode_from_tokens(clip.tokenize(caption))
        ours = encode(models.text, [caption], 75, 2, models.device)
    torch.testing.assert_close(ours, cores.to(ours), rtol=1e-3, atol=1e-4)


def test_the_prediction_is_the_epsilon_of_core(loaded):
    from shinymas_loha.loha.training.objective.noise import NoiseSchedule

    models, model, _ = loaded
    generator = torch.Generator().manual_seed(0)
    noisy, states = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 77, 768, generator=generator)
    timesteps = torch.tensor([50, 900])
    sampling = model.model.model_sampling
    sigmas = sampling.sigma(timesteps.float())
    kept = NoiseSchedule(models.device).alphas_cumprod[timesteps]
    torch.testing.assert_close(kept, 1 / (1 + sigmas**2), rtol=1e-3, atol=1e-6)
    spread = sigmas.view(-1, 1, 1, 1)
    with torch.no_grad():
        scaled = noisy * (spread**2 + 1).sqrt()
        denoised = model.model.apply_model(scaled, sigmas, c_crossattn=states)
        ours = models.predict(noisy, timesteps, states)
    torch.testing.assert_close(ours, (scaled - denoised) / spread, rtol=1e-2, atol=2e-3)


def test_every_module_of_the_small_model_has_kohyas_name(loaded):
    models, model, clip = loaded
    from comfy.lora import model_lora_keys_clip, model_lora_keys_unet

    keys = model_lora_keys_clip(clip.cond_stage_model, model_lora_keys_unet(model.model, {}))
    assert [name for name in models.layers if name not in keys] == []
    assert sum(name.startswith("lora_te_") for name in models.layers) == 72


def test_a_real_vae_gives_its_posterior(comfy):
    """An untrained VAE of SD's own shape: mean and deviation, not the mode alone."""
    from diffusers import AutoencoderKL
    from shinymas_loha.patcher.trainer.models import _posterior

    torch.manual_seed(0)
    reference = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4).eval()
    vae = comfy.sd.VAE(sd=dict(reference.state_dict()), dtype=torch.float32)
    pixels = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        wanted = reference.encode(pixels * 2 - 1).latent_dist
        found = _posterior(vae, pixels)
    torch.testing.assert_close(found.mean, wanted.mean, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.std, wanted.std, rtol=1e-3, atol=1e-4)
    assert float(found.std.min()) > 0


def test_running_out_of_memory_passes_through_with_advice(comfy):
    from shinymas_loha.patcher.trainer.run import memory_advice

    allocator = RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
    for error in (torch.cuda.OutOfMemoryError("CUDA out of memory"), MemoryError(), allocator):
        told = []
        with pytest.raises(type(error)) as raised, memory_advice(told.append):
            raise error
        assert raised.value is error
        assert "lower the batch size" in told[0]
    with pytest.raises(RuntimeError), memory_advice(pytest.fail):
        raise RuntimeError("something else")


def test_a_checkpoint_without_a_vae_is_said_before_training(comfy, small_model):
    from shinymas_loha.loha.errors import SettingsError
    from shinymas_loha.patcher.trainer.models import TrainingModels

    model, clip, _ = small_model
    empty = comfy.sd.VAE(sd={})  # what ComfyUI makes of such a checkpoint
    with pytest.raises(SettingsError, match="there is no VAE"):
        TrainingModels(model, clip, empty, "fp32")


def test_models_of_other_kinds_are_said_before_training(comfy, small_model, monkeypatch):
    from comfy.taesd.taesd import TAESD
    from shinymas_loha.loha.errors import SettingsError
    from shinymas_loha.patcher.trainer.models import TrainingModels

    model, clip, vae = small_model
    other = comfy.sd.VAE(sd=TAESD(latent_channels=16).state_dict())
    with pytest.raises(SettingsError, match="latents have 16 channels, SD 1.x's 4: connect the checkpoint's own"):
        TrainingModels(model, clip, other, "fp32")
    monkeypatch.setattr(model.model.diffusion_model, "in_channels", 9)
    with pytest.raises(SettingsError, match="an inpainting or editing one"):
        TrainingModels(model, clip, vae, "fp32")


@pytest.fixture
def many_pictures(tmp_path):
    """A picture of 2048 × 2048, shown under a quarter of a million names: half a terabyte of latents."""
    import numpy as np
    from PIL import Image
    from shinymas_loha.loha.training.data import DataOptions, FolderOptions, TrainingData, index_pictures

    Image.new("L", (2048, 2048)).save(tmp_path / "a.png")
    options = DataOptions((FolderOptions(tmp_path, repeats=1),), resolution=2048, bucket_max=2048,
                          latent_cache="memory")
    index, count = index_pictures(options), 2**18
    rows = "folder_of", "sizes", "buckets", "contents"
    wide = {name: np.repeat(getattr(index, name), count, axis=0) for name in rows}
    return TrainingData(replace(index, names=index.names * count, captions=index.captions * count, **wide), options)


def test_latents_that_cannot_be_kept_are_said_before_training(small_model, many_pictures, tmp_path):
    from shinymas_loha.loha.training.run.memory import MemoryLacking
    from shinymas_loha.loha.training.settings.hyper_parameters import TrainingSettings
    from shinymas_loha.patcher.trainer.run import prepare

    settings = TrainingSettings(network_rank=1, module_filter="*attn2_to_q", mixed_precision="fp32")
    with pytest.raises(MemoryLacking, match=r"the latents of all pictures \(latent_cache memory\) take 512.0 GiB at "
                                            r"least, and .* GiB is free. Set latent_cache to disk or none"):
        prepare(*small_model, many_pictures, settings, output=tmp_path / "loras", cache=tmp_path)
    assert not (tmp_path / "loras").exists()
    # A run that ends within its first epoch never keeps them all.
    short = replace(settings, max_train_steps=2)
    run = prepare(*small_model, many_pictures, short, output=tmp_path / "loras", cache=tmp_path)
    assert run.training.memory()[1] == 0


def test_a_network_that_the_device_cannot_hold_is_said_before_training(
        comfy, small_model, many_pictures, tmp_path, monkeypatch):
    from shinymas_loha.loha.training.run.memory import MemoryLacking
    from shinymas_loha.loha.training.settings.hyper_parameters import TrainingSettings
    from shinymas_loha.patcher.trainer.run import prepare

    settings = TrainingSettings(network_rank=4, optimizer="AdamW", max_train_steps=2, mixed_precision="fp32")
    fits = prepare(*small_model, many_pictures, settings, output=tmp_path, cache=tmp_path).training
    numbers = sum(parameter.numel() for parameter in fits.network.computed_parameters())
    assert fits.memory()[0] == 12 * numbers
    free = 12 * numbers - 1 - psutil.swap_memory().free
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda *_: free)
    with pytest.raises(MemoryLacking, match="gradients and the optimiser's state take .* MiB at least, and .* MiB is "
                                            "free. Lower network_rank, or narrow module_set or module_filter."):
        prepare(*small_model, many_pictures, settings, output=tmp_path / "loras", cache=tmp_path)
    assert not (tmp_path / "loras").exists()


def test_names_and_warm_up_are_judged_before_any_model_is_looked_at(comfy, many_pictures, tmp_path):
    from shinymas_loha.loha.errors import LohaError
    from shinymas_loha.loha.training.settings.hyper_parameters import TrainingSettings
    from shinymas_loha.patcher.trainer.run import prepare

    for chosen, words in (({"output_name": "a?"}, "output_name: 'a\\?' cannot be a file name"),
                          ({"lr_scheduler": "linear", "lr_warmup_steps": 9, "max_train_steps": 9}, "run of 9: lower")):
        with pytest.raises(LohaError, match=words):
            prepare(None, None, None, many_pictures, TrainingSettings(**chosen), output=tmp_path, cache=tmp_path)
