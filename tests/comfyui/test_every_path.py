"""What people build around a LoHa, in a real server: another strength gives the picture of a server just started.

Each arrangement is run at strengths a, b, a, 0 in one server and, each time from nothing, in another: the same bits.
Where ComfyUI's own loader reads the file rightly, its picture is ours within the rounding of the weights.
`SHINYMAS_TEST_ALL=1` takes every kind of file through every arrangement, else each arrangement has one.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kit.comfyui_server import ComfyUIServer
from kit.workspace import COMFYUI, LOHA, PYTHON, add_samples
from safetensors.torch import load_file, save_file

STRENGTHS = (0.7, -0.3, 0.7, 0.0)
KINDS = ("loha", "tucker", "dora", "mixed")
SHARED = "core.safetensors"
# No checkpoint of SD 1.5 has it: ComfyUI saves what its memory happens to hold.
UNSET = "text_projection.weight"
CONV = {"lora_unet_down_blocks_0_resnets_0_conv1": (320, 320), "lora_unet_mid_block_resnets_1_conv2": (320, 320),
        "lora_unet_up_blocks_0_resnets_0_conv1": (320, 640)}


@pytest.fixture(scope="module")
def lohas(base):
    """Four kinds of file that fit the sample checkpoint, and a LoRA for ComfyUI's own nodes."""
    folder = base / "models" / "loras"
    plain = load_file(folder / LOHA)
    generator = torch.Generator().manual_seed(5)

    def drawn(*shape, size=0.2):
        return (torch.randn(shape, generator=generator) * size).half()

    names = sorted({key.partition(".")[0] for key in plain})
    shapes = {name: (plain[f"{name}.hada_w1_a"].shape[0], plain[f"{name}.hada_w1_b"].shape[1]) for name in names}

    def lora(name):
        rows, columns = shapes[name]
        return {f"{name}.lora_up.weight": drawn(rows, 4), f"{name}.lora_down.weight": drawn(4, columns),
                f"{name}.alpha": torch.tensor(4.0)}

    def lokr(name):
        rows, columns = shapes[name]
        return {f"{name}.lokr_w1": drawn(4, 4), f"{name}.lokr_w2": drawn(rows // 4, columns // 4)}

    def kept(name):
        return {key: tensor for key, tensor in plain.items() if key.partition(".")[0] == name}

    tucker = {f"{name}.{key}": tensor for name, (rows, columns) in CONV.items() for key, tensor in {
        "hada_t1": drawn(4, 4, 3, 3, size=0.5), "hada_w1_a": drawn(4, rows, size=0.5),
        "hada_w1_b": drawn(4, columns, size=0.5), "hada_t2": drawn(4, 4, 3, 3, size=0.5),
        "hada_w2_a": drawn(4, rows, size=0.5), "hada_w2_b": drawn(4, columns, size=0.5), "alpha": torch.tensor(1.0),
    }.items()}
    dora = {f"{name}.dora_scale": drawn(rows, 1, size=0.1).abs() + 0.5
            for name, (rows, _) in shapes.items() if "attn" in name}
    kinds = (lora, lokr, kept)
    mixed = {key: tensor for number, name in enumerate(names) for key, tensor in kinds[number % 3](name).items()}
    shared = {key: tensor for name in names[::3] for key, tensor in lora(name).items()}
    for file, tensors in (("tucker", plain | tucker), ("dora", plain | dora), ("mixed", mixed), ("core", shared)):
        save_file(tensors, folder / f"{file}.safetensors")
    return {"loha": LOHA} | {kind: f"{kind}.safetensors" for kind in KINDS[1:]}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory, lohas, base):
    """Another server, which is made to forget everything before each prompt."""
    folder = tmp_path_factory.mktemp("fresh")
    add_samples(folder, "tests")
    for path in (base / "models" / "loras").glob("*.safetensors"):
        if not (folder / "models" / "loras" / path.name).exists():
            (folder / "models" / "loras" / path.name).symlink_to(path)
    with ComfyUIServer(COMFYUI, folder, python=PYTHON) as running:
        yield running


class Graph:
    """An API prompt that grows node by node."""

    def __init__(self, node: Callable[..., dict[str, Any]], lora: str, checkpoint: str, core: bool = False) -> None:
        self.prompt: dict[str, Any] = {}
        self._node, self._lora, self._core = node, lora, core
        self._loha = None if core else self.add("ShinyMasLoadLoha", lora_name=lora)
        self.checkpoint = self.add("CheckpointLoaderSimple", ckpt_name=checkpoint)
        self.model, self.clip, self.vae = ([self.checkpoint, number] for number in range(3))

    def add(self, kind: str, **inputs: Any) -> str:
        key = str(len(self.prompt))
        self.prompt[key] = self._node(kind, **inputs)
        return key

    def apply(self, model: Any, clip: Any, strength: float) -> tuple[Any, Any]:
        """The LoHa on both models, by this pack's nodes or by ComfyUI's."""
        given = {"model": model, "clip": clip, "strength_model": strength, "strength_clip": strength}
        key = self.add("LoraLoader", lora_name=self._lora, **given) if self._core else self.add(
            "ShinyMasApplyLoha", loha=[self._loha, 0], **given)
        return [key, 0], [key, 1]

    def hook(self, strength: float) -> Any:
        """The LoHa as a hook, by this pack's node or by ComfyUI's."""
        given = {"strength_model": strength, "strength_clip": strength}
        key = self.add("CreateHookLora", lora_name=self._lora, **given) if self._core else self.add(
            "ShinyMasHookLoha", loha=[self._loha, 0], **given)
        return [key, 0]

    def cores_hook(self, strength: float = 0.4) -> Any:
        return [self.add("CreateHookLora", lora_name=SHARED, strength_model=strength, strength_clip=strength), 0]

    def hooked(self, clip: Any, hooks: Any, schedule: bool = False) -> Any:
        return [self.add("SetClipHooks", clip=clip, hooks=hooks, apply_to_conds=True, schedule_clip=schedule), 0]

    def text(self, clip: Any, text: str = "girl, smile") -> Any:
        return [self.add("CLIPTextEncode", clip=clip, text=text), 0]

    def sample(self, model: Any, positive: Any, negative: Any, latent: Any = None, **more: Any) -> Any:
        latent = latent or [self.add("EmptyLatentImage", width=64, height=64), 0]
        return [self.add("KSampler", **{
            "model": model, "positive": positive, "negative": negative, "latent_image": latent, "steps": 2,
            "sampler_name": "euler", "scheduler": "normal", "seed": 3, "cfg": 3.0} | more), 0]

    def draw(self, model: Any, clip: Any, latent: Any = None) -> Any:
        return self.sample(model, self.text(clip), self.text(clip, "blurry"), latent)

    def save(self, latent: Any) -> None:
        self.add("SaveLatent", samples=latent, filename_prefix="latents/path")


def plain(graph, strength):
    graph.save(graph.draw(*graph.apply(graph.model, graph.clip, strength)))


def hooks_before(graph, strength):
    model, clip = graph.apply(graph.model, graph.hooked(graph.clip, graph.cores_hook()), strength)
    graph.save(graph.draw(model, clip))


def hooks_after(graph, strength):
    model, clip = graph.apply(graph.model, graph.clip, strength)
    graph.save(graph.draw(model, graph.hooked(clip, graph.cores_hook())))


def hook(graph, strength):
    graph.save(graph.draw(graph.model, graph.hooked(graph.clip, graph.hook(strength))))


def hook_on_one_prompt(graph, strength):
    hooked = graph.hooked(graph.clip, graph.hook(strength))
    graph.save(graph.sample(graph.model, graph.text(hooked), graph.text(graph.clip, "blurry")))


def hook_and_apply(graph, strength):
    """Both, and the hook's strength stays while that of the patch changes."""
    model, clip = graph.apply(graph.model, graph.hooked(graph.clip, graph.hook(0.2)), strength)
    graph.save(graph.draw(model, clip))


def keyframes(graph, strength):
    frames = graph.add("CreateHookKeyframesInterpolated", strength_start=1.0, strength_end=0.2, interpolation="linear",
                       start_percent=0.0, end_percent=1.0, keyframes_count=3, print_keyframes=False)
    scheduled = graph.add("SetHookKeyframes", hooks=graph.hook(strength), hook_kf=[frames, 0])
    graph.save(graph.draw(graph.model, graph.hooked(graph.clip, [scheduled, 0], schedule=True)))


def masked(graph, strength):
    """The hook acts in the left half alone."""
    mask = graph.add("SolidMask", value=1.0, width=32, height=64)
    whole = graph.add("SolidMask", value=0.0, width=64, height=64)
    left = graph.add("MaskComposite", destination=[whole, 0], source=[mask, 0], x=0, y=0, operation="add")
    here = graph.add("ConditioningSetProperties", cond_NEW=graph.text(graph.clip), strength=1.0,
                     set_cond_area="default", mask=[left, 0], hooks=graph.hook(strength))
    there = graph.add("ConditioningSetDefaultCombine", cond=[here, 0], cond_DEFAULT=graph.text(graph.clip, "sky"))
    graph.save(graph.sample(graph.model, [there, 0], graph.text(graph.clip, "blurry")))


def two_samplers(graph, strength):
    """The second goes on from the first, at another strength over the same checkpoint."""
    first = graph.draw(*graph.apply(graph.model, graph.clip, strength))
    graph.save(graph.draw(*graph.apply(graph.model, graph.clip, 0.4), first))


def hooked_then_not(graph, strength):
    model, clip = graph.apply(graph.model, graph.clip, strength)
    first = graph.draw(model, graph.hooked(clip, graph.cores_hook()))
    graph.save(graph.draw(model, clip, first))


def chained(graph, strength):
    graph.save(graph.draw(*graph.apply(*graph.apply(graph.model, graph.clip, 0.4), strength)))


def after_cores_loader(graph, strength):
    first = graph.add("LoraLoader", model=graph.model, clip=graph.clip, lora_name=SHARED, strength_model=0.5,
                      strength_clip=0.5)
    graph.save(graph.draw(*graph.apply([first, 0], [first, 1], strength)))


def clones(graph, strength):
    """Clones of a clone: sampling, guidance, skip of text layers."""
    model, clip = graph.apply(graph.model, graph.clip, strength)
    model = [graph.add("ModelSamplingDiscrete", model=model, sampling="eps", zsnr=False), 0]
    model = [graph.add("RescaleCFG", model=model, multiplier=0.7), 0]
    graph.save(graph.draw(model, [graph.add("CLIPSetLastLayer", clip=clip, stop_at_clip_layer=-2), 0]))


def free_u(graph, strength):
    before = graph.add("FreeU_V2", model=graph.model, b1=1.1, b2=1.2, s1=0.9, s2=0.8)
    graph.save(graph.draw(*graph.apply([before, 0], graph.clip, strength)))


def merged(graph, strength):
    model, clip = graph.apply(graph.model, graph.clip, strength)
    both = graph.add("ModelMergeSimple", model1=model, model2=graph.model, ratio=0.25)
    texts = graph.add("CLIPMergeSimple", clip1=clip, clip2=graph.clip, ratio=0.25)
    graph.save(graph.draw([both, 0], [texts, 0]))


def onto_a_merge(graph, strength):
    other, _ = graph.apply(graph.model, graph.clip, 0.4)
    both = graph.add("ModelMergeSimple", model1=graph.model, model2=other, ratio=0.5)
    graph.save(graph.draw(*graph.apply([both, 0], graph.clip, strength)))


def model_saved(graph, strength):
    model, clip = graph.apply(graph.model, graph.clip, strength)
    graph.add("ModelSave", model=model, filename_prefix="saved/path")
    graph.save(graph.draw(model, clip))


def checkpoint_saved(graph, strength):
    model, clip = graph.apply(graph.model, graph.clip, strength)
    graph.add("CheckpointSave", model=model, clip=clip, vae=graph.vae, filename_prefix="saved/path")
    graph.save(graph.draw(model, clip))


def text_saved(graph, strength):
    model, clip = graph.apply(graph.model, graph.hooked(graph.clip, graph.cores_hook()), strength)
    graph.add("CLIPSave", clip=clip, filename_prefix="saved/path")
    graph.save(graph.draw(model, clip))


PATHS = (plain, hooks_before, hooks_after, hook, hook_on_one_prompt, hook_and_apply, keyframes, masked, two_samplers,
         hooked_then_not, chained, after_cores_loader, clones, free_u, merged, onto_a_merge, model_saved,
         checkpoint_saved, text_saved)
PAIRS = (tuple(itertools.product(PATHS, KINDS)) if os.environ.get("SHINYMAS_TEST_ALL")
         else tuple(zip(PATHS, itertools.cycle(KINDS), strict=False)))


def _drawn(server, graph):
    """The latent that the graph draws, and what else it saves: name → tensor."""
    for old in (server.base / "output" / "saved").glob("*"):
        old.unlink()
    outputs = server.run(graph.prompt)
    ((saved,),) = [output["latents"] for output in outputs.values() if "latents" in output]
    found = load_file(server.base / "output" / saved["subfolder"] / saved["filename"])
    for path in sorted((server.base / "output" / "saved").glob("*")):
        found |= {f"{path.name}: {name}": tensor for name, tensor in load_file(path).items()
                  if not name.endswith(UNSET)}
        path.unlink()
    return found


def _from_nothing(fresh, graph):
    fresh.post("/free", {"unload_models": True, "free_memory": True})
    return _drawn(fresh, graph)


def _assert_same(mine, theirs, where):
    assert mine.keys() == theirs.keys(), where
    assert not [name for name in mine if not torch.equal(mine[name], theirs[name])], where


@pytest.mark.parametrize(("path", "kind"), PAIRS, ids=[f"{path.__name__}-{kind}" for path, kind in PAIRS])
def test_a_changed_strength_draws_as_a_server_just_started(path, kind, node, lohas, server, fresh, checkpoint):
    def graph(strength, core=False):
        made = Graph(node, lohas[kind], checkpoint, core)
        path(made, strength)
        return made

    truth = {strength: _from_nothing(fresh, graph(strength)) for strength in set(STRENGTHS)}
    for strength in STRENGTHS:
        _assert_same(_drawn(server, graph(strength)), truth[strength], strength)
    one, other, none = (truth[strength]["latent_tensor"] for strength in STRENGTHS[1:])
    assert not (torch.equal(one, other) or torch.equal(one, none))
    if kind != "dora":  # core normalises by the norm of another weight than LyCORIS
        core = _from_nothing(fresh, graph(STRENGTHS[1], core=True))["latent_tensor"]
        assert (one - core).abs().max() <= 2e-3 * core.abs().max()


@pytest.mark.parametrize("options", [("--cache-none",), ("--fast",)], ids=lambda options: options[0])
def test_options_of_the_server(options, node, lohas, fresh, checkpoint, tmp_path):
    add_samples(tmp_path, "tests")
    (tmp_path / "models" / "loras" / SHARED).symlink_to((fresh.base / "models" / "loras" / SHARED).resolve())
    with ComfyUIServer(COMFYUI, tmp_path, python=PYTHON, options=options) as server:
        for path, strength in itertools.product((plain, hooks_before, two_samplers), STRENGTHS):
            graph = Graph(node, LOHA, checkpoint)
            path(graph, strength)
            _assert_same(_drawn(server, graph), _from_nothing(fresh, graph), (path.__name__, strength))
