"""The memory that the merges of one load share: there while ComfyUI loads, gone when it has."""

import importlib

import pytest
from shinymas_loha.loha.kernels import Workspace


@pytest.fixture
def patched(comfy, small_model, sample_loha):
    nodes = importlib.import_module("shinymas_loha.nodes")
    loha = nodes.LoadLoha.execute(sample_loha).result[0]
    model, clip, _ = nodes.ApplyLoha.execute(small_model[0], loha, 0.8, 0.8, True, clip=small_model[1]).result
    return {"unet": model, "text encoder": clip.patcher}


def shared(patcher) -> Workspace:
    found = {id(patches[0][1].workspace): patches[0][1].workspace for patches in patcher.patches.values()}
    (one,) = found.values()
    return one


@pytest.mark.parametrize("which", ["unet", "text encoder"])
def test_one_workspace_for_a_load_and_none_after_it(comfy, patched, which, monkeypatch):
    patcher, kept = patched[which], []
    workspace = shared(patcher)
    original = comfy.model_patcher.ModelPatcher.patch_weight_to_device

    def watched(self, *args, **kwargs):
        done = original(self, *args, **kwargs)
        kept.append(workspace.nbytes)
        return done

    monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "patch_weight_to_device", watched)
    comfy.model_management.load_models_gpu([patcher])
    assert len([size for size in kept if size]) >= len(patcher.patches)
    assert max(kept) < 16 << 20
    assert workspace.nbytes == 0


def test_a_load_that_fails_gives_it_back_too(comfy, patched, monkeypatch):
    patcher = patched["unet"]
    workspace = shared(patcher)
    original, calls, kept = comfy.model_patcher.ModelPatcher.patch_weight_to_device, [], []

    def failing(self, key, *args, **kwargs):
        calls.extend([key] * (key in self.patches))
        if len(calls) > 5:
            kept.append(workspace.nbytes)
            raise MemoryError
        return original(self, key, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(comfy.model_patcher.ModelPatcher, "patch_weight_to_device", failing)
        comfy.model_management.load_models_gpu([patcher])
    assert kept[0]
    assert workspace.nbytes == 0
