"""What a good file becomes: layouts, names, PEFT's scale, the source."""

import hashlib
import json
import shutil

import peft
import pytest
import torch
from shinymas_loha.loha.errors import FileError
from shinymas_loha.loha.files import file_stamp, read
from shinymas_loha.tests.unit.files_helpers import file_bytes, flat, tucker


def _read(tmp_path, tensors, metadata=None):
    (tmp_path / "a.safetensors").write_bytes(file_bytes(tensors, metadata))
    return read(tmp_path / "a.safetensors")


def test_every_number_arrives(tmp_path):
    """Unaligned on purpose: the helper packs an 11-byte tensor before the rest."""
    tensors = {"odd.diff": torch.arange(11, dtype=torch.int8)} | flat("a.b", dtype=torch.float32) | tucker("t")
    loha = _read(tmp_path, tensors, {"ss_output_name": "シャニ"})
    found = {f"{name}.{suffix}": tensor for name, module in loha.modules.items()
             for suffix, tensor in module.tensors().items()}
    assert found.keys() == {name for name in tensors if not name.endswith((".alpha", ".diff"))}
    assert all(torch.equal(tensor, tensors[name]) and tensor.dtype == tensors[name].dtype
               for name, tensor in found.items())
    assert torch.equal(loha.others["odd"]["diff"], tensors["odd.diff"])
    assert loha.metadata == {"ss_output_name": "シャニ"}
    assert [module.layout for module in loha.modules.values()] == ["flat", "tucker"]
    assert loha.modules["t"].delta_shape == (6, 5, 3, 3)


def test_a_name_may_end_in_weight(tmp_path):
    name = "diffusion_model.input_blocks.1.1.proj_in.weight"
    assert list(_read(tmp_path, flat(name)).modules) == [name]


@pytest.mark.parametrize("kernel", [(3,), (1, 1), (3, 3, 3)])
def test_tucker_cores_of_one_to_three_kernel_dimensions(tmp_path, kernel):
    assert _read(tmp_path, tucker(kernel=kernel)).modules["m"].delta_shape == (6, 5, *kernel)


def test_trailing_and_unflattened_dimensions_become_two(tmp_path):
    tensors = flat(in_=45)
    spread = {"m.hada_w1_a": tensors["m.hada_w1_a"].view(6, 2, 1, 1),
              "m.hada_w1_b": tensors["m.hada_w1_b"].view(2, 5, 3, 3)}
    module = _read(tmp_path, tensors | spread).modules["m"]
    assert torch.equal(module.w1_a, tensors["m.hada_w1_a"])
    assert torch.equal(module.w1_b, tensors["m.hada_w1_b"])


def test_read_in_inference_mode_can_still_be_trained(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(file_bytes(flat(dtype=torch.float32)))
    with torch.inference_mode():
        factor = read(tmp_path / "a.safetensors").modules["m"].w1_a
    (factor.clone().requires_grad_() * factor).sum().backward()


def test_the_source_tells_a_replaced_file(tmp_path):
    loha = _read(tmp_path, flat())
    path = tmp_path / "a.safetensors"
    source = loha.source
    before = file_stamp(path)
    assert before[:3] == (source.path, source.size, source.mtime_ns)
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    shutil.copy2(path, tmp_path / "b")
    (tmp_path / "b").replace(path)
    assert file_stamp(path)[:3] == before[:3] and file_stamp(path) != before
    path.unlink()
    with pytest.raises(FileError, match="cannot be read"):
        file_stamp(path)


class _Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(5, 7)
        self.second = torch.nn.Linear(7, 6)
        self.conv = torch.nn.Conv2d(3, 4, 3)

    def forward(self, value):
        return self.second(self.first(value))


def _saved_by_peft(folder, **settings):
    torch.manual_seed(0)
    config = peft.LoHaConfig(target_modules=["first", "second", "conv"], init_weights=False, **settings)
    model = peft.get_peft_model(_Net(), config)
    model.save_pretrained(folder)
    return model, folder / "adapter_model.safetensors"


def test_peft_scale_comes_from_the_configuration(tmp_path):
    model, path = _saved_by_peft(tmp_path, r=4, alpha=6, use_effective_conv2d=True,
                                 rank_pattern={"second": 2}, alpha_pattern={"second": 5})
    loha = read(path)
    assert loha.notes == ()
    assert {name: (module.alpha, module.rank, module.layout) for name, module in loha.modules.items()} == {
        "base_model.model.first": (6.0, 4, "flat"),
        "base_model.model.second": (5.0, 2, "flat"),
        "base_model.model.conv": (6.0, 4, "tucker"),
    }
    for name in ("first", "second"):
        module = loha.modules[f"base_model.model.{name}"]
        delta = (module.w1_a @ module.w1_b) * (module.w2_a @ module.w2_b) * module.scale
        expected = model.base_model.model.get_submodule(name).get_delta_weight("default")
        torch.testing.assert_close(delta, expected)


def _config(**changes):
    return json.dumps({"peft_type": "LOHA", "alpha": 6, "r": 4} | changes).encode()


@pytest.mark.parametrize(("content", "reason"), [
    (None, "is missing"),
    (b"{", "is not a valid LoHa configuration"),
    (b"[" * 100_000, "is not a valid LoHa configuration"),
    (b"[]", "is not a valid LoHa configuration"),
    (_config(alpha="6"), "is not a valid LoHa configuration"),
    (_config(alpha=float("nan")), "is not a valid LoHa configuration"),
    (_config(alpha_pattern=[1]), "is not a valid LoHa configuration"),
    (_config(peft_type="LORA"), "is not a valid LoHa configuration"),
    (b" " * 1_000_001, "is larger than 1000000 bytes"),
    (_config(r=8), "is for rank 8, the file has rank 4"),
])
def test_peft_without_a_usable_configuration_is_a_guess(tmp_path, content, reason):
    _, path = _saved_by_peft(tmp_path, r=4, alpha=6)
    (tmp_path / "adapter_config.json").unlink()
    if content is not None:
        (tmp_path / "adapter_config.json").write_bytes(content)
    loha = read(path)
    assert {module.scale for module in loha.modules.values()} == {1.0}
    (doubt,) = loha.doubts
    assert doubt.startswith("The scale is a guess (1): ") and reason in doubt


@pytest.mark.parametrize("patterns", [
    {".*ond": 3}, {"(.*)*second": 3, "first": 2}, {"^(fir|sec)(st|ond)": 3}, {"f.*": 3, "first": 2}, {"fir": 3},
    {"[a-f]\\w{4}": 3, "con\\w?": 2}, {"first|second": 3}, {"s.cond": 3},
])
def test_peft_patterns_are_matched_as_peft_matches_them(tmp_path, patterns):
    model, path = _saved_by_peft(tmp_path, r=4, alpha=6, alpha_pattern=patterns)
    loha = read(path)
    assert loha.doubts == ()
    for name in ("first", "second", "conv"):
        layer = model.base_model.model.get_submodule(name)
        assert loha.modules[f"base_model.model.{name}"].alpha == layer.alpha["default"]


@pytest.mark.parametrize("pattern", [
    r"(a)\1", "(?=first).*", "((((a{1,99}){1,99}){1,99}){1,99})*", "(", "a" * 900_000 + "*"])
def test_peft_patterns_that_cannot_be_followed_are_a_guess(tmp_path, pattern):
    _, path = _saved_by_peft(tmp_path, r=4, alpha=6)
    (tmp_path / "adapter_config.json").write_bytes(_config(alpha_pattern={pattern: 3}))
    (doubt,) = read(path).doubts
    assert "The scale is a guess (1)" in doubt and "patterns that are not followed" in doubt


@pytest.mark.parametrize("targets", [["first", "second", "conv"], ".*(first|second|conv)"])
def test_peft_files_under_another_prefix_have_their_scale_too(tmp_path, targets):
    (tmp_path / "adapter_config.json").write_bytes(_config(r=2, target_modules=targets, rank_pattern={".*cond": 3}))
    loha = _read(tmp_path, flat("unet.block.first", alpha=None) | flat("unet.block.second", alpha=None, rank=3))
    assert [module.alpha for module in loha.modules.values()] == [6.0, 6.0] and not loha.doubts


def test_a_configuration_beside_another_tools_file_is_ignored(tmp_path):
    (tmp_path / "adapter_config.json").write_bytes(_config())
    loha = _read(tmp_path, flat("unet.first", alpha=None))
    assert loha.modules["unet.first"].scale == 1.0 and loha.notes == () == loha.doubts


def test_the_scale_of_a_peft_lora_is_a_guess_too(tmp_path):
    """PEFT's LoRA and LoKr files hold no alpha either; ComfyUI's adapters then scale by 1, whatever was trained."""
    names = {"base_model.model.first.lora_A.weight": torch.ones(4, 8), "unet.own.lora_A.weight": torch.ones(4, 8),
             "base_model.model.first.lora_B.weight": torch.ones(8, 4), "unet.own.lora_B.weight": torch.ones(8, 4)}
    (doubt,) = _read(tmp_path, names).doubts
    assert doubt.startswith("The scale of 1 module of another kind is a guess (1): ") and "adapter_config.json" in doubt
    assert not _read(tmp_path, names | {"base_model.model.first.alpha": torch.tensor(2.0)}).doubts
