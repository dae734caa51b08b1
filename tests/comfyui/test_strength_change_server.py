"""A changed strength in a real server: no weight is loaded again."""

import pytest


@pytest.fixture
def graph(node, checkpoint, sample_loha):
    """A prompt that samples one step under the LoHa at this strength."""
    def make(strength):
        return {
            "checkpoint": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
            "loha": node("ShinyMasLoadLoha", lora_name=sample_loha),
            "apply": node("ShinyMasApplyLoha", model=["checkpoint", 0], clip=["checkpoint", 1], loha=["loha", 0],
                          strength_model=strength, strength_clip=strength),
            "text": node("CLIPTextEncode", clip=["apply", 1], text="girl"),
            "latent": node("EmptyLatentImage", width=64, height=64),
            "sampler": node("KSampler", model=["apply", 0], positive=["text", 0], negative=["text", 0],
                            latent_image=["latent", 0], steps=1, sampler_name="euler", scheduler="normal"),
            "save": node("SaveLatent", samples=["sampler", 0], filename_prefix="latents/strength"),
        }

    return make


def test_a_changed_strength_loads_nothing(graph, run_graph, server):
    run_graph(graph(0.31))
    before = server.log.read_text(encoding="utf-8", errors="replace").count("loaded completely")
    assert before
    for strength in (0.62, -0.2, 0.31):
        run_graph(graph(strength))
    assert server.log.read_text(encoding="utf-8", errors="replace").count("loaded completely") == before
