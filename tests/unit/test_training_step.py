"""Losses and gradients of a step, beside LyCORIS on the same models with kohya's arithmetic."""

import pytest
import torch
from diffusers import DDPMScheduler
from shinymas_loha.loha.training.network.loha_network import LohaNetwork
from shinymas_loha.loha.training.objective import loss as loss_module
from shinymas_loha.loha.training.objective.loss import Step
from shinymas_loha.loha.training.objective.noise import Draw

CAPTIONS = ["girl, smile", "a much longer caption, " * 9]


def _draw(seed=3):
    generator = torch.Generator().manual_seed(seed)
    noise, posterior = torch.randn(2, 2, 4, 8, 8, generator=generator)
    return Draw(noise, posterior, torch.tensor([37, 811]))


def _perturbed(network, seed=5):
    """The zero factors moved, so that every gradient is at work."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return network


def _ours(models, settings, latents, drawn):
    network = _perturbed(LohaNetwork(models, settings))
    with network.attached():
        losses = Step(models, settings, "fp32").losses(latents, drawn, CAPTIONS)
        losses.mean().backward()
    return network, losses.detach()


def _lycoris(models, network):
    """LyCORIS's modules on the same layers, with the same factors."""
    from lycoris.modules.loha import LohaModule

    made = {}
    for name, factors in network.factors.items():
        module = LohaModule(name, models.layers[name], 1.0, factors.rank, factors.alpha,
                            use_tucker=factors.hada_t1 is not None)
        module.load_state_dict({key: value.detach() for key, value in factors.state_dict().items()}, strict=False)
        module.apply_to()
        made[name] = module
    return made


def _kohya_states(models, max_length, clip_skip):
    """Text states as kohya-ss/sd-scripts makes them: transformers' own forward, its hidden states."""
    text = models.text
    rows = []
    for caption in CAPTIONS:
        ids = [text.begin, *text.tokenize(caption)[:max_length], text.end]
        rows.append(ids + [text.end] * (max_length + 2 - len(ids)))
    ids = torch.tensor(rows)
    if max_length > 75:
        chunks = [torch.cat((ids[:, :1], ids[:, at:at + 75], ids[:, -1:]), 1) for at in range(1, max_length, 75)]
        ids = torch.stack(chunks, 1).reshape(-1, 77)
    out = text.model(ids, output_hidden_states=True)
    states = text.model.final_layer_norm(out.hidden_states[-clip_skip])
    if max_length > 75:
        states = states.reshape(len(CAPTIONS), -1, states.shape[-1])
        parts = [states[:, :1], *(states[:, at:at + 75] for at in range(1, states.shape[1], 77)), states[:, -1:]]
        states = torch.cat(parts, 1)
    return states


def _reference(models, network, settings, latents, drawn):
    ddpm = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    modules = _lycoris(models, network)
    try:
        states = _kohya_states(models, settings.max_token_length, settings.clip_skip)
        scaled = latents * 0.18215
        noisy = ddpm.add_noise(scaled, drawn.noise, drawn.timesteps)
        predicted = models.unet(noisy, drawn.timesteps, states).sample
        is_v = settings.prediction == "v"
        target = ddpm.get_velocity(scaled, drawn.noise, drawn.timesteps) if is_v else drawn.noise
        losses = torch.nn.functional.mse_loss(predicted, target, reduction="none").mean((1, 2, 3))
        if settings.min_snr_gamma:
            snr = (ddpm.alphas_cumprod / (1 - ddpm.alphas_cumprod))[drawn.timesteps]
            losses = losses * torch.minimum(snr, torch.full_like(snr, settings.min_snr_gamma)) / (snr + is_v)
        losses.mean().backward()
    finally:
        for module in modules.values():
            module.restore()
    return modules, losses.detach()


@pytest.mark.parametrize("chosen", [
    {},
    {"max_token_length": 225, "network_alpha": 4.0},
    {"max_token_length": 150, "clip_skip": 1, "prediction": "v", "min_snr_gamma": 5.0},
    {"module_set": "all", "conv_rank": 3, "conv_alpha": 2.0, "min_snr_gamma": 1.0, "text_encoder_rank": 4},
    {"gradient_checkpointing": True},
], ids=["page", "225", "v-min-snr-150", "with-3x3", "checkpointing"])
def test_losses_and_gradients_equal_lycoris(tiny_models, tiny_settings, chosen):
    settings = tiny_settings(**chosen)
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)) * 5
    drawn = _draw()
    network, losses = _ours(tiny_models, settings, latents, drawn)
    modules, expected = _reference(tiny_models, network, settings, latents, drawn)
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-6)
    for name, factors in network.factors.items():
        for key, parameter in factors.named_parameters():
            wanted = getattr(modules[name], key).grad
            if wanted is None:  # the layer that clip skip leaves out
                assert parameter.grad is None, f"{name}.{key}"
                continue
            error = (parameter.grad - wanted).norm() / wanted.norm().clamp(min=1e-12)
            assert error < 1e-4, f"{name}.{key}: {error}"


def test_the_skipped_text_layer_stays_at_zero(tiny_models, tiny_settings):
    network, _ = _ours(tiny_models, tiny_settings(clip_skip=2), torch.randn(2, 4, 8, 8), _draw())
    without = {name for name, factors in network.factors.items() if factors.hada_w2_a.grad is None}
    assert without == {name for name in network.factors if "_encoder_layers_2_" in name}
    assert len(without) == 6


def test_tucker_gradients_equal_finite_differences(tiny_models, tiny_settings):
    """LyCORIS 3's Tucker backward is wrong, so the loss itself is the judge."""
    settings = tiny_settings(module_set="all", use_tucker=True, module_filter="*conv1,*conv2", train_text_encoder=False)
    network = _perturbed(LohaNetwork(tiny_models, settings))
    step, latents, drawn = Step(tiny_models, settings, "fp32"), torch.randn(2, 4, 8, 8) * 5, _draw()
    generator = torch.Generator().manual_seed(9)
    with network.attached():
        step.losses(latents, drawn, CAPTIONS).mean().backward()
        factors = next(iter(network.factors.values()))
        for parameter in factors.parameters():
            way = torch.randn(parameter.shape, generator=generator)
            slope = []
            with torch.no_grad():
                before = parameter.clone()
                for sign in (1, -1):
                    parameter.copy_(before + sign * 3e-2 * way)
                    slope.append(float(step.losses(latents, drawn, CAPTIONS).double().mean()) * sign)
                parameter.copy_(before)
            measured = sum(slope) / 6e-2
            assert measured == pytest.approx(float((parameter.grad * way).sum()), rel=0.05, abs=2e-5)


def test_one_unet_forward_a_batch(tiny_models, tiny_settings):
    rows = []
    handle = tiny_models.unet.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    try:
        _ours(tiny_models, tiny_settings(), torch.randn(2, 4, 8, 8), _draw())
    finally:
        handle.remove()
    assert rows == [2]


@pytest.mark.parametrize(("trained", "repeat", "room", "made"), [
    (False, True, 9, 2), (False, True, 1, 4), (False, False, 9, 2), (True, True, 9, 2)])
def test_an_untrained_text_encoder_reads_a_caption_once(tiny_models, tiny_settings, monkeypatch, trained, repeat, room,
                                                        made):
    """Where captions repeat (else a batch together) and there is room; and losses do not depend on what is kept."""
    monkeypatch.setattr(loss_module, "_CACHED_STATES", room)
    settings = tiny_settings(train_text_encoder=trained)
    step, latents, drawn = Step(tiny_models, settings, "fp32", captions_repeat=repeat), torch.randn(2, 4, 8, 8), _draw()
    runs = []
    handle = tiny_models.text.model.final_layer_norm.register_forward_hook(lambda *_: runs.append(1))
    try:
        with torch.no_grad():
            losses = [step.losses(latents, drawn, CAPTIONS) for _ in range(2)]
    finally:
        handle.remove()
    assert len(runs) == made
    assert torch.equal(*losses)
    swapped = Step(tiny_models, settings, "fp32")
    with torch.no_grad():
        for captions in (CAPTIONS[::-1], CAPTIONS):
            found = swapped.losses(latents, drawn, captions)
    assert trained or not repeat or torch.equal(found, losses[0])


def test_bf16_runs_the_layers_in_bf16_and_trains_in_fp32(tiny_models, tiny_settings):
    latents, drawn = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)) * 5, _draw()
    _, exact = _ours(tiny_models, tiny_settings(), latents, drawn)
    network = _perturbed(LohaNetwork(tiny_models, tiny_settings()))
    seen = []
    layer = tiny_models.layers["lora_unet_mid_block_attentions_0_proj_in"]
    handle = layer.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    try:
        with network.attached():
            losses = Step(tiny_models, tiny_settings(), "bf16").losses(latents, drawn, CAPTIONS)
            losses.mean().backward()
    finally:
        handle.remove()
    assert seen == [torch.bfloat16]
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses.detach(), exact, rtol=0.05, atol=0)
    grads = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    assert {grad.dtype for grad in grads} == {torch.float32} and all(grad.isfinite().all() for grad in grads)
