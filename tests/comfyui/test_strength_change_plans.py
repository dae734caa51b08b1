"""What a changed strength remembers: made once for all strengths, and never trusted where something has moved."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from shinymas_loha.loha import files
from shinymas_loha.loha.block_weights import BLOCKS

pytestmark = pytest.mark.usefixtures("unloaded")
WEIGHT = "diffusion_model.middle_block.1.proj_in.weight"


@pytest.fixture
def pack(comfy):
    from shinymas_loha.patcher import model_weights, patching, strength_change

    return SimpleNamespace(patching=patching, weights=model_weights, module=strength_change)


@pytest.fixture
def loha(base, sample_loha):
    return files.read(base / "models" / "loras" / sample_loha)


@pytest.fixture
def apply(pack, small_model, loha):
    def put(strength, blocks=None):
        binding = pack.patching.bind_to(loha, small_model[0], None, pack.patching.Strengths(strength, 0.0, blocks))
        return pack.patching.patch(binding, small_model[0], None)[0]

    return put


def _load(comfy, patcher) -> dict[str, torch.Tensor]:
    comfy.model_management.load_models_gpu([patcher])
    return {name: tensor.clone() for name, tensor in patcher.model.state_dict().items()}


def _same(left, right) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture
def counted(pack, monkeypatch):
    """How often the costly parts are entered."""
    calls = dict.fromkeys(("Group", "parameters", "patches_of"), 0)

    def watch(name):
        original = getattr(pack.module, name)

        def counting(*args):
            calls[name] += 1
            return original(*args)

        monkeypatch.setattr(pack.module, name, counting)

    for name in calls:
        watch(name)
    return calls


def test_the_same_patches_again_cost_nothing(comfy, apply, counted):
    patcher = apply(0.6)
    _load(comfy, patcher)
    for name in counted:
        counted[name] = 0
    _load(comfy, patcher.clone())
    _load(comfy, apply(0.6))
    assert not any(counted.values())


def test_strengths_share_adapters_and_one_plan(comfy, apply, counted, pack):
    _load(comfy, apply(0.6))
    patchers = [apply(strength) for strength in (0.9, -0.3, 0.7)]
    assert len({id(patcher.patches[WEIGHT][0][1]) for patcher in patchers}) == 1
    for patcher in patchers:
        _load(comfy, patcher)
    assert counted["Group"] == 1 and len(pack.module._state(patchers[0]).plans) == 1


@pytest.mark.parametrize("exchange", [False, True])
def test_a_weight_that_is_elsewhere_is_merged_where_it_is(comfy, apply, exchange):
    expected = _load(comfy, apply(0.7))
    comfy.model_management.unload_all_models()
    patcher = apply(0.6)
    _load(comfy, patcher)
    _load(comfy, apply(0.9))
    held = comfy.utils.get_attr(patcher.model, WEIGHT)
    before = held.data
    if exchange:
        comfy.utils.set_attr_param(patcher.model, WEIGHT, before.clone())
    else:
        held.data = before.clone()  # as Module.to does
    assert _same(_load(comfy, apply(0.7)), expected)
    assert not torch.equal(before, expected[WEIGHT])


@pytest.mark.parametrize("change", ["in a list", "in place", "taken off"])
def test_patches_that_another_pack_writes_over_are_seen(comfy, apply, change):
    """Without a new `patches_uuid`, which every `add_patches` brings."""
    expected = _load(comfy, apply(0.6))
    patcher = apply(0.9)
    patches = patcher.patches[WEIGHT]
    if change == "in place":
        patches[0] = [*patches[0]]
    _load(comfy, patcher)
    if change == "taken off":
        del patcher.patches[WEIGHT]
        got = _load(comfy, patcher)[WEIGHT]
        assert torch.equal(got, patcher.backup[WEIGHT].weight)
        return
    if change == "in place":
        patches[0][0] = 0.6
    else:
        patches[0] = (0.6, *patches[0][1:])
    assert torch.equal(_load(comfy, patcher)[WEIGHT], expected[WEIGHT])


def test_plans_of_many_block_weights_are_not_all_kept(comfy, apply, pack):
    kept = pack.module._state(apply(0.6))
    _load(comfy, apply(0.6))
    for turn, block in enumerate(("IN01", "IN02", "MID", "OUT03", "OUT04", "OUT05", "IN01")):
        blocks = dict.fromkeys(BLOCKS, 1.0) | {block: 0.0}
        got = _load(comfy, apply(0.6 + turn / 10, blocks))
        assert len(kept.plans) <= 4
    comfy.model_management.unload_all_models()
    assert _same(_load(comfy, apply(0.6 + turn / 10, blocks)), got)


def test_of_another_layout_only_the_very_same_is_alike(pack, small_model):
    patcher = small_model[0].clone()
    entry, numbers = ("odd", torch.ones(2)), torch.ones(2)
    patcher.patches = {WEIGHT: [entry], "other": [(1.0, ("diff", (numbers,)), 1.0, None, None)]}
    before = pack.weights.patches_of(patcher)
    assert pack.weights.changed(patcher, before) == []
    patcher.patches = {WEIGHT: [("odd", entry[1])], "other": [(1.0, ("diff", (numbers,)), 1.0, None, None)]}
    assert pack.weights.changed(patcher, before) == [WEIGHT, "other"]


def test_a_hook_searches_places_once_for_each_part(pack, small_model, loha, monkeypatch):
    parts = [(small_model[0], False), (small_model[1].patcher, True)]

    def bound(file, strength):
        return [pack.patching.bind_part(file, patcher, pack.patching.Strengths(strength, strength), is_text=is_text)
                for patcher, is_text in parts]

    fresh = bound(files.read(loha.source.path), 0.9)
    bound(loha, 0.6)
    monkeypatch.setattr(pack.patching, "find_fits", None)
    for kept, new in zip(bound(loha, 0.9), fresh, strict=True):
        assert new.modules and {name: (one.target, one.strength) for name, one in kept.modules.items()} == {
            name: (one.target, one.strength) for name, one in new.modules.items()}
        assert (kept.skipped, kept.unknown) == (new.skipped, new.unknown)
