"""ShinyMas Scene in a real ComfyUI: what is sampled is what the regions ask for, by either method."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from shinymas_loha.loha import files

HIORI = "outdoors, 2girls, 1girl, Kazano Hiori, black hair, long hair, ponytail, purple eyes, mole, mole under mouth"
LONG = ", ".join(f"a thing of colour {number}" for number in range(22))


@pytest.fixture
def pack(comfy):
    """The parts under test, and ComfyUI's own nodes."""
    from shinymas_loha.nodes import scene
    from shinymas_loha.patcher import attention_couple, patching, regional_prompts

    import nodes

    return SimpleNamespace(scene=scene, couple=attention_couple, regional=regional_prompts.regional,
                           encode=regional_prompts.encode, patching=patching, core=nodes)


@pytest.fixture
def run(pack, small_model):
    """The node with its defaults but for what is given: model, positive, negative, text, layout."""

    def execute(people, model=None, clip=None, **given):
        inputs = {"shared": "outdoors", "negative": "blurry", "model_version": "v2.1", "tag_set": "identity",
                  "method": "attention couple", "feather": 0.0, "width": 64, "height": 64, **given}
        return pack.scene.Scene.execute(model or small_model[0], clip or small_model[1], people, **inputs).result

    return execute


@pytest.fixture
def sample(comfy, pack):
    def draw(model, positive, negative, *, size=(8, 8), batch=1, sampler="euler", cfg=5.0, steps=2, seed=3):
        with torch.inference_mode():
            latent = torch.zeros(batch, 4, *size)
            noise = comfy.sample.prepare_noise(latent, seed)
            return comfy.sample.sample(model, noise, steps, cfg, sampler, "normal", positive, negative, latent,
                                       seed=seed)

    return draw


def halves(height=8, width=8):
    """Two hard regions side by side, as a mask each."""
    masks = torch.zeros(2, height, width)
    masks[0, :, : width // 2], masks[1, :, width // 2:] = 1, 1
    return masks


def near(one, other, tolerance=1e-5):
    assert torch.isfinite(one).all()
    assert (one - other).abs().max() <= tolerance * other.abs().max()


def test_one_person_who_fills_the_picture_is_the_plain_prompt_to_the_bit(run, sample, pack, small_model):
    model, clip, _ = small_model
    coupled, positive, negative, text, _ = run("Hiori")
    masked = run("Hiori | whole", method="masked conditioning")
    assert coupled is model and text == masked[3] == HIORI.replace("2girls, ", "")
    plain = sample(model, pack.encode(clip, text), pack.encode(clip, "blurry"))
    assert torch.equal(sample(coupled, positive, negative), plain)
    assert torch.equal(sample(*masked[:3]), plain)


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "ddim", "uni_pc"])
def test_two_regions_with_one_text_are_the_plain_prompt(pack, sample, small_model, sampler):
    model, clip, _ = small_model
    coupled, positive = pack.regional(model, clip, [HIORI, HIORI], halves().numpy(), "attention couple")
    negative = pack.encode(clip, "blurry")
    plain = sample(model, pack.encode(clip, HIORI), negative, sampler=sampler)
    near(sample(coupled, positive, negative, sampler=sampler), plain)
    other = pack.regional(model, clip, [HIORI, "a dog"], halves().numpy(), "attention couple")
    assert (sample(*other, negative, sampler=sampler) - plain).abs().max() > 1e-3 * plain.abs().max()


@pytest.mark.parametrize(("size", "batch", "texts"), [
    ((8, 8), 3, (HIORI, HIORI)), ((7, 11), 1, (HIORI, HIORI)), ((9, 5), 2, (LONG, LONG)),
], ids=["batch of 3", "odd size", "150 tokens, batch of 2, odd size"])
def test_batches_sizes_and_lengths(pack, sample, small_model, size, batch, texts):
    """A feathered third region too; the negative is 75 tokens long whatever the prompts are."""
    model, clip, _ = small_model
    ramp = torch.linspace(0, 1, 40).expand(30, 40)
    masks = torch.stack([ramp * 0.5, 1 - ramp, ramp * 0.5])
    coupled, positive = pack.regional(model, clip, [*texts, texts[0]], masks.numpy(), "attention couple")
    negative = pack.encode(clip, "blurry")
    plain = sample(model, pack.encode(clip, texts[0]), negative, size=size, batch=batch)
    near(sample(coupled, positive, negative, size=size, batch=batch), plain)


def test_a_prompt_of_75_beside_one_of_150_tokens(pack, sample, small_model):
    """Repeating a context changes no attention: a long text alone in its region, to the tolerance of sums."""
    model, clip, _ = small_model
    negative = pack.encode(clip, "blurry")
    assert [pack.encode(clip, text)[0][0].shape[1] for text in (HIORI, LONG)] == [77, 154]
    only = torch.stack([torch.ones(8, 8), torch.zeros(8, 8)]).numpy()
    for texts in ((HIORI, LONG), (LONG, HIORI)):
        coupled, positive = pack.regional(model, clip, list(texts), only, "attention couple")
        near(sample(coupled, positive, negative), sample(model, pack.encode(clip, texts[0]), negative))


def _attention(model, sample, positive, negative, **given):
    """What every cross-attention gave the rows of the positive prompt: (rows, height, width, channels) each."""
    seen = []

    def keep(n, options):
        per = n.shape[0] // len(options["cond_or_uncond"])
        rows = [part for part, kind in zip(n.split(per), options["cond_or_uncond"], strict=True) if kind == 0]
        seen.extend(part.unflatten(1, tuple(options["activations_shape"][2:])).clone() for part in rows)
        return n

    watched = model.clone()
    watched.set_model_attn2_output_patch(keep)
    sample(watched, positive, negative, steps=1, **given)
    assert seen
    return seen


@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
def test_another_text_in_b_changes_no_attention_where_a_stands(pack, sample, small_model, size):
    """On the first step of the first block everything before is the same: to the bit, and different where B stands."""
    model, clip, _ = small_model
    negative = pack.encode(clip, "blurry")
    found = []
    for other in ("a dog", "a very blue house"):
        coupled, positive = pack.regional(model, clip, [HIORI, other], halves(*size).numpy(), "attention couple")
        found.append(_attention(coupled, sample, positive, negative, size=size)[0])
    middle = size[1] // 2
    assert torch.equal(found[0][:, :, :middle], found[1][:, :, :middle])
    assert not torch.equal(found[0][:, :, middle:], found[1][:, :, middle:])


def test_each_region_has_its_own_prompts_attention(pack, sample, small_model):
    model, clip, _ = small_model
    negative, dog = pack.encode(clip, "blurry"), pack.encode(clip, "a dog")
    coupled, positive = pack.regional(model, clip, [HIORI, "a dog"], halves().numpy(), "attention couple")
    mixed = _attention(coupled, sample, positive, negative)[0]
    near(mixed[:, :, :4], _attention(model, sample, pack.encode(clip, HIORI), negative)[0][:, :, :4])
    near(mixed[:, :, 4:], _attention(model, sample, dog, negative)[0][:, :, 4:])


def test_masked_conditioning_is_the_hand_built_graph_to_the_bit(run, sample, pack, small_model):
    """Two people and what they leave free, with the masks that Solid Mask and Mask Composite make."""
    from comfy_extras.nodes_mask import MaskComposite, SolidMask

    model, clip, _ = small_model
    drawn = run("Hiori | 0-50\nMano | 50-100, 25-100 | smile", method="masked conditioning")
    assert drawn[0] is model
    texts = [line.partition("): ")[2] or line.partition(": ")[2] for line in drawn[3].splitlines()]
    assert [line.partition(" (")[0] for line in drawn[3].splitlines()[:2]] == ["Kazano Hiori", "Sakuragi Mano"]
    parts = []
    for text, (x, y, width, height) in zip(texts, [(0, 0, 32, 64), (32, 16, 32, 48), (32, 0, 32, 16)], strict=True):
        black, white = (SolidMask().solid(value, *size)[0] for value, size in ((0.0, (64, 64)), (1.0, (width, height))))
        mask = MaskComposite().combine(black, white, x, y, "add")[0]
        (prompt,) = pack.core.CLIPTextEncode().encode(clip, text)
        parts += pack.core.ConditioningSetMask().append(prompt, mask, "default", 1.0)
    by_hand = pack.core.ConditioningCombine().combine(
        pack.core.ConditioningCombine().combine(parts[0], parts[1])[0], parts[2])[0]
    assert torch.equal(sample(*drawn[:3]), sample(model, by_hand, pack.encode(clip, "blurry")))


@pytest.mark.parametrize("order", ["before", "after"])
def test_apply_loha_before_or_after(pack, sample, small_model, base, sample_loha, order):
    model, clip, _ = small_model
    loha = files.read(base / "models" / "loras" / sample_loha)

    def patched(model):
        binding = pack.patching.bind_to(loha, model, None, pack.patching.Strengths(0.8, 0.0))
        return pack.patching.patch(binding, model, None)[0]

    negative, text = pack.encode(clip, "blurry"), pack.encode(clip, HIORI)
    plain = sample(patched(model), text, negative)
    start = patched(model) if order == "before" else model
    coupled, positive = pack.regional(start, clip, [HIORI, HIORI], halves().numpy(), "attention couple")
    near(sample(coupled if order == "before" else patched(coupled), positive, negative), plain)
    bare = sample(model, text, negative)
    assert (plain - bare).abs().max() > 1e-3 * bare.abs().max()


@pytest.mark.parametrize(("cfg", "negative", "rows"), [
    (1.0, "blurry", [2]), (5.0, "blurry", [4]), (5.0, ", ".join([LONG] * 3), [2, 2]),
], ids=["no negative", "one call", "two calls"])
def test_cfg_in_one_and_in_two_calls(pack, sample, small_model, cfg, negative, rows):
    """A negative of five chunks is more than ComfyUI pads a positive of one to: it goes through by itself."""
    model, clip, _ = small_model
    unwanted = pack.encode(clip, negative)
    calls = []

    def counted(apply_model, given):
        calls.append(given["input"].shape[0])
        return apply_model(given["input"], given["timestep"], **given["c"])

    coupled, positive = pack.regional(model, clip, [HIORI, HIORI], halves().numpy(), "attention couple")
    coupled.set_model_unet_function_wrapper(counted)
    plain = sample(model, pack.encode(clip, HIORI), unwanted, cfg=cfg, batch=2)
    near(sample(coupled, positive, unwanted, cfg=cfg, batch=2), plain)
    assert calls == 2 * rows


def test_a_wrapper_that_cuts_the_batch_and_the_latent_into_pieces(pack, sample, small_model):
    """As packs that sample in tiles do, telling nobody where they lie. Two texts the same: the plain one in tiles."""
    model, clip, _ = small_model
    negative = pack.encode(clip, "blurry")

    def tiled(apply_model, given):
        x, c = given["input"], given["c"]
        rows = []
        for row in range(x.shape[0]):
            own = {**c, "c_crossattn": c["c_crossattn"][row:row + 1]}
            rows.append(torch.cat([apply_model(x[row:row + 1, :, :, part], given["timestep"][row:row + 1], **own)
                                   for part in (slice(0, 6), slice(6, 12))], dim=3))
        return torch.cat(rows)

    def drawn(texts, of):
        coupled, positive = pack.regional(model, clip, texts, of.numpy(), "attention couple")
        coupled.set_model_unet_function_wrapper(tiled)
        return sample(coupled, positive, negative, size=(8, 12), batch=2)

    plain = model.clone()
    plain.set_model_unet_function_wrapper(tiled)
    expected = sample(plain, pack.encode(clip, HIORI), negative, size=(8, 12), batch=2)
    near(drawn([HIORI, HIORI], halves(8, 12)), expected)
    # Where the tiles and the regions are the same, the left tile knows nothing of the right one's text.
    assert torch.equal(drawn([HIORI, "a dog"], halves(8, 12))[..., :6], drawn([HIORI, "a cat"], halves(8, 12))[..., :6])
    near(drawn([HIORI, "a dog"], halves(8, 12))[..., :6], expected[..., :6])


def test_a_latent_that_is_changed_on_the_way_is_an_error_and_no_guess(pack, sample, small_model):
    model, clip, _ = small_model
    coupled, positive = pack.regional(model, clip, [HIORI, "a dog"], halves().numpy(), "attention couple")

    def smaller(apply_model, given):
        part = apply_model(given["input"][..., ::2], given["timestep"], **given["c"])
        return part.repeat_interleave(2, dim=3)

    coupled.set_model_unet_function_wrapper(smaller)
    from shinymas_loha.loha import SettingsError

    with pytest.raises(SettingsError, match="given 4×8 of a latent of 8×8, and cannot tell which part"):
        sample(coupled, positive, pack.encode(clip, "blurry"))


def test_areas_and_other_prompts_beside_the_regions(pack, sample, small_model):
    """Conditioning (Set Area) on a scene, and a plain prompt combined with it: only the scene's rows are mixed."""
    model, clip, _ = small_model
    negative, same = pack.encode(clip, "blurry"), pack.encode(clip, HIORI)
    coupled, positive = pack.regional(model, clip, [HIORI, HIORI], halves(8, 16).numpy(), "attention couple")

    def graph(first):
        (area,) = pack.core.ConditioningSetArea().append(first, 64, 64, 40, 0, 1.0)
        return area + pack.encode(clip, "a dog")

    near(sample(coupled, graph(positive), negative, size=(8, 16)), sample(model, graph(same), negative, size=(8, 16)))
    other = pack.regional(model, clip, ["a cat", HIORI], halves(8, 16).numpy(), "attention couple")
    # The area lies in the right half but for three columns: there the left region's text is not seen.
    seen = _attention(other[0], sample, pack.core.ConditioningSetArea().append(other[1], 64, 64, 64, 0, 1.0)[0],
                      negative, size=(8, 16))[0]
    plain = _attention(model, sample, pack.core.ConditioningSetArea().append(same, 64, 64, 64, 0, 1.0)[0], negative,
                       size=(8, 16))[0]
    near(seen, plain)


def test_other_attention_patches_in_the_chain(pack, sample, small_model):
    """A patch on the context, a replaced attention and one on the output, each asking what the rows are."""
    from comfy.ldm.modules.attention import optimized_attention

    model, clip, _ = small_model
    negative = pack.encode(clip, "blurry")

    def scale_by_kind(rows, options, of):
        factors = torch.tensor([of[kind] for kind in options["cond_or_uncond"]])
        return rows * factors.repeat_interleave(rows.shape[0] // len(factors))[:, None, None]

    def replaced(q, k, v, options):
        out = optimized_attention(q, k, v, options["n_heads"])
        return out + scale_by_kind(q, options, (0.2, 0.1))

    def with_patches(model):
        clone = model.clone()
        clone.set_model_attn2_patch(lambda n, k, v, options: (n, k, scale_by_kind(v, options, (1.3, 0.7))))
        clone.set_model_attn2_replace(replaced, "input", 1)
        clone.set_model_attn2_output_patch(lambda n, options: scale_by_kind(n, options, (0.9, 1.2)))
        return clone

    expected = sample(with_patches(model), pack.encode(clip, HIORI), negative, batch=2)
    assert not torch.equal(expected, sample(model, pack.encode(clip, HIORI), negative, batch=2))
    for start, patch_after in ((with_patches(model), False), (model, True)):
        coupled, positive = pack.regional(start, clip, [HIORI, HIORI], halves().numpy(), "attention couple")
        near(sample(with_patches(coupled) if patch_after else coupled, positive, negative, batch=2), expected)


def test_a_scene_upon_a_scene_mixes_once(run, sample):
    first = run("Hiori | left\nMano | right")
    second = run("Hiori | left\nMano | right", model=first[0])
    assert torch.equal(sample(*first[:3]), sample(*second[:3]))
    wrappers = second[0].wrappers
    assert [len(found) for kinds in wrappers.values() for found in kinds.values()] == [1, 1]


@torch.inference_mode()
def _evaluated(comfy, model, positive, negative):
    """One evaluation of the model as it is loaded now, as a sampler does it: both predictions."""
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    conds = {name: comfy.sampler_helpers.convert_cond(cond) for name, cond in (
        ("positive", positive), ("negative", negative))}
    options = comfy.model_patcher.create_model_options_clone(model.model_options)
    comfy.sampler_helpers.prepare_model_patcher(model, conds, options)
    model.pre_run()
    try:
        conds = comfy.samplers.process_conds(model.model, latent, conds, torch.device("cpu"))
        return torch.cat(comfy.samplers.calc_cond_batch(
            model.model, list(conds.values()), latent, torch.tensor([2.0]), options))
    finally:
        model.cleanup()


def test_low_vram_merges_at_every_forward(comfy, pack, small_model, base, sample_loha):
    """Weights that stay outside are patched at each use, as on a small card: the same prediction."""
    model, clip, _ = small_model
    loha = files.read(base / "models" / "loras" / sample_loha)
    binding = pack.patching.bind_to(loha, model, None, pack.patching.Strengths(0.8, 0.0))
    patched = pack.patching.patch(binding, model, None)[0]
    coupled, positive = pack.regional(patched, clip, [HIORI, "a dog"], halves().numpy(), "attention couple")
    negative, found = pack.encode(clip, "blurry"), []
    for memory in (0, 1):
        coupled.detach()
        coupled.model_patches_to(coupled.load_device)
        coupled.patch_model(coupled.load_device, lowvram_model_memory=memory)
        assert coupled.model.model_lowvram == bool(memory)
        found.append(_evaluated(comfy, coupled, positive, negative))
    coupled.detach()
    near(found[1], found[0])


def test_a_latent_gives_the_size_and_one_of_another_model_is_refused(run, pack):
    from shinymas_loha.loha import SettingsError

    drawn = run("Hiori\nMano", latent={"samples": torch.zeros(2, 4, 9, 13)}, method="masked conditioning")
    assert [tuple(entry[1]["mask"].shape) for entry in drawn[1]] == [(1, 72, 104)] * 2
    assert tuple(drawn[4].shape) == (1, 72, 104, 3)
    with pytest.raises(SettingsError, match="latent: it has 16 channels and 2 dimensions, the model's have 4 and 2: "
                                            "it is of another kind of model"):
        run("Hiori\nMano", latent={"samples": torch.ones(1, 16, 8, 8)})


def test_a_text_encoder_of_another_model_is_refused(pack, small_model):
    from shinymas_loha.loha import SettingsError

    model, clip, _ = small_model
    prompt = [[torch.zeros(1, 77, 1024), {}]]
    from shinymas_loha.patcher.regional_prompts import check_width

    check_width(model, pack.encode(clip, "a dog"))
    with pytest.raises(SettingsError, match="clip writes texts 1024 wide and model reads 768"):
        check_width(model, prompt)
