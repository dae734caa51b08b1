"""Optimisers of packages that are not always there: as kohya's scripts make them, and a run goes on with each."""

import sys

import pytest
import torch
from shinymas_loha.loha import files
from shinymas_loha.loha.errors import SettingsError
from shinymas_loha.loha.training.data import Latents
from shinymas_loha.loha.training.kohya.training_file import read_settings
from shinymas_loha.loha.training.optimisation.optimisers import check_optimiser, make_optimiser
from shinymas_loha.loha.training.run.folder import STATE_FILE, RunFolder, read_state
from shinymas_loha.loha.training.run.loop import Training
from shinymas_loha.loha.training.run.progress import Stopped, Watcher
from shinymas_loha.loha.training.settings import TrainingSettings

ADAFACTOR = "transformers.optimization.Adafactor"
# Name, where it lies, arguments, learning rate.
PACKAGED = [
    ("Prodigy", "prodigyopt.Prodigy", "weight_decay=0.01 d_coef=2.0 use_bias_correction=True", 1.0),
    ("ProdigyPlusScheduleFree", "prodigyplus.ProdigyPlusScheduleFree", "", 1.0),
    ("AdamWScheduleFree", "schedulefree.AdamWScheduleFree", "warmup_steps=2 weight_decay=0.1", 1e-2),
    ("RAdamScheduleFree", "schedulefree.RAdamScheduleFree", "", 1e-2),
    ("SGDScheduleFree", "schedulefree.SGDScheduleFree", "momentum=0.8", 1e-2),
    ("CAME", "came_pytorch.CAME", "weight_decay=0.01", 1e-3),
    ("pytorch_optimizer.CAME", "pytorch_optimizer.CAME", "", 1e-3),
    ("Lion", "lion_pytorch.Lion", "betas=0.9,0.95", 1e-4),
    ("DAdaptAdam", "dadaptation.DAdaptAdam", "decouple=True", 1.0),
    ("DAdaptAdaGrad", "dadaptation.DAdaptAdaGrad", "", 1.0),
    ("DAdaptAdan", "dadaptation.DAdaptAdan", "", 1.0),
    ("DAdaptLion", "dadaptation.DAdaptLion", "", 1.0),
    ("DAdaptSGD", "dadaptation.DAdaptSGD", "", 1.0),
    ("DAdaptation", "dadaptation.experimental.DAdaptAdamPreprint", "", 1.0),
    ("DAdaptAdanIP", "dadaptation.experimental.DAdaptAdanIP", "", 1.0),
    ("transformers.Adafactor", ADAFACTOR, "", 1e-3),
    ("transformers.Adafactor", ADAFACTOR, "relative_step=False scale_parameter=False", 1e-3),
    ("transformers.Adafactor", ADAFACTOR, "relative_step=False warmup_init=True", 1e-3),
    ("SGDNesterov", "torch.optim.SGD", "", 1e-3),
]
MUON = ("Muon", "torch.optim.Muon", "weight_decay=0.01", 1e-3)
IDS = [f"{name}-{text}" for name, _, text, _ in PACKAGED]
FREE = [one for one in PACKAGED if one[0].endswith("ScheduleFree")]


def _class(path):
    module, _, name = path.rpartition(".")
    return getattr(pytest.importorskip(module, reason=f"{module.partition('.')[0]} is not installed"), name)


def _kohyas(kind, parameters, name, text, rate):
    """kohya-ss/sd-scripts, library/train_util.py: get_optimizer, of one group."""
    keywords = {key: eval(value) for key, value in (part.split("=") for part in text.split())}  # noqa: S307
    group = {"params": parameters, "lr": rate}
    if name == "SGDNesterov":
        keywords |= {"nesterov": True, "momentum": 0.9}
    if name == "transformers.Adafactor":
        keywords.setdefault("relative_step", True)
        if not keywords["relative_step"] and keywords.get("warmup_init", False):
            keywords["relative_step"] = True
        if keywords["relative_step"]:
            group.pop("lr")
            rate = None
    optimiser = kind([group], lr=rate, **keywords)
    if hasattr(optimiser, "train"):
        optimiser.train()
    return optimiser


def _parameters():
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((4, 3), (5,), (2, 3, 3, 3))]


def _steps(optimiser, parameters, number=8):
    generator = torch.Generator().manual_seed(1)
    for _ in range(number):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimiser.step()
    return parameters


@pytest.mark.parametrize(("name", "path", "text", "rate"), PACKAGED, ids=IDS)
def test_steps_are_kohyas(name, path, text, rate):
    kind, mine, theirs = _class(path), _parameters(), _parameters()
    optimiser, _ = make_optimiser(name, [{"params": mine, "lr": rate}], text)
    assert type(optimiser) is kind
    _steps(optimiser, mine)
    _steps(_kohyas(kind, theirs, name, text, rate), theirs)
    assert all(torch.equal(one, other) for one, other in zip(mine, theirs, strict=True))
    assert not torch.equal(mine[0], _parameters()[0])
    check_optimiser(name, text)


@pytest.fixture
def training(tiny_models, tiny_data, tiny_settings, tmp_path):
    def make(folder=None, **chosen):
        settings = tiny_settings(**{"lr_scheduler": "constant", "max_train_epochs": 3, "save_every_n_epochs": 0,
                                    "module_filter": "*mid_block*attn1*,lora_te_*_0_*", **chosen})
        data = tiny_data()
        if folder is None:
            folder = RunFolder.create(tmp_path / "loras", settings)
        return Training(tiny_models, data, Latents(data, tiny_models.encode), settings, session="7",
                        precision="fp32", folder=folder)

    return make


@pytest.mark.parametrize(("name", "path", "text", "rate"), [*PACKAGED, MUON], ids=[*IDS, "Muon"])
def test_a_run_goes_on_bit_for_bit_with_each(training, name, path, text, rate):
    _class(path)
    chosen = {"optimizer": name, "optimizer_args": text, "learning_rate": rate}
    whole = training(**chosen)
    whole.run()
    first, asked = training(**chosen), iter([False, False, False, True])
    with pytest.raises(Stopped):
        first.run(Watcher(should_stop=lambda: next(asked)))
    second = training(folder=first.keeper.folder, **chosen)
    assert second.resume(read_state(first.keeper.folder.path / STATE_FILE))
    second.run()
    assert second.losses == whole.losses
    one, other = second.network.state_dict(), whole.network.state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)
    fresh = training(**chosen).network.state_dict()
    assert any(not torch.equal(one[key], fresh[key]) for key in one)


@pytest.mark.parametrize(("name", "path", "text", "rate"), FREE, ids=[one[0] for one in FREE])
def test_what_is_given_out_is_the_mean_and_training_goes_on_as_if_nothing_was(training, name, path, text, rate):
    """Saved, sampled and validated are the parameters of `eval()`; the steps are those of a run that never looks."""
    _class(path)
    chosen = {"optimizer": name, "optimizer_args": text, "learning_rate": rate}
    plain, busy = training(**chosen), training(save_every_n_steps=1, **chosen)
    seen = []
    plain.run()
    busy.run(Watcher(wants_loha=lambda done: True, on_loha=lambda done, loha: seen.append(loha())))
    assert busy.losses == plain.losses
    one, other = busy.network.state_dict(), plain.network.state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)
    written = files.read(plain.keeper.folder.path / "tiny.safetensors")
    trained = plain.network.modules_for_file()
    plain.update.optimiser.eval()  # the package's own
    for name, module in plain.network.modules_for_file().items():
        assert torch.equal(written.modules[name].w1_a, module.w1_a)
        assert torch.equal(seen[-1].modules[name].w1_a, module.w1_a)
    assert any(not torch.equal(written.modules[name].w2_b, module.w2_b) for name, module in trained.items())


def test_a_schedule_free_run_has_no_schedule(training):
    pytest.importorskip("schedulefree", reason="schedulefree is not installed")
    chosen = {"optimizer": "AdamWScheduleFree", "learning_rate": 1e-2}
    constant, cosine = training(**chosen), training(lr_scheduler="cosine", **chosen)
    constant.run(), cosine.run()
    assert constant.losses == cosine.losses and not constant.notes
    assert cosine.learning_rates() == [1e-2] * 9
    assert "AdamWScheduleFree has no schedule: lr_scheduler is not used" in cosine.notes[0]


def test_an_adafactor_that_finds_its_rate_says_so(training):
    run = training(optimizer="transformers.Adafactor", lr_scheduler="cosine", unet_lr=1e-4)
    assert "Adafactor finds its own rate (relative_step)" in run.notes[0]
    other = training(optimizer="transformers.Adafactor")
    run.run(), other.run()
    assert run.losses == other.losses


def test_a_mean_of_its_own_takes_no_other():
    with pytest.raises(SettingsError, match="ema_decay 0.9 and AdamWScheduleFree exclude each other"):
        TrainingSettings(optimizer="AdamWScheduleFree", ema_decay=0.9)


@pytest.mark.parametrize(("name", "module"), [("Prodigy", "prodigyopt"), ("DAdaptAdam", "dadaptation")])
def test_one_rate_for_all_and_not_a_low_one(name, module):
    pytest.importorskip(module, reason=f"{module} is not installed")
    groups = [{"params": [parameter], "lr": rate} for parameter, rate in zip(_parameters(), (1e-3, 5e-4), strict=False)]
    with pytest.raises(SettingsError, match=f"optimizer {name} takes one learning rate for all, .* 0.0005 and 0.001"):
        make_optimiser(name, groups)
    note = make_optimiser(name, groups[:1])[1]
    assert note == f"{name} finds its own rate, times learning_rate: 0.001 is low, 1 is usual"
    assert not make_optimiser(name, [{"params": _parameters(), "lr": 1.0}])[1]


@pytest.mark.parametrize(("name", "module", "distribution"), [
    ("ProdigyPlusScheduleFree", "prodigyplus", "prodigy-plus-schedule-free"), ("CAME", "came_pytorch", "came-pytorch"),
    ("AdamWScheduleFree", "schedulefree", "schedulefree"),
    ("DAdaptation", "dadaptation.experimental", "dadaptation"),
])
def test_what_to_install_is_said(monkeypatch, name, module, distribution):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SettingsError, match=rf"{module} cannot be imported|\(pip install {distribution}\)") as caught:
        check_optimiser(name)
    assert f"pip install {distribution}" in str(caught.value)


def test_kohyas_names_in_a_configuration():
    assert read_settings('optimizer_type = "AdaFactor"').settings.optimizer == "transformers.Adafactor"
    assert read_settings('optimizer_type = "SGDNesterov"\noptimizer_args = ["momentum=0.8"]').settings
    optimiser, _ = make_optimiser("Adafactor", [{"params": _parameters(), "lr": 1e-3}])
    assert type(optimiser) is torch.optim.Adafactor


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_muon_takes_matrices_alone(training):
    """Every factor of a flat LoHa is one; a Tucker core is none."""
    check_optimiser("Muon")
    with pytest.raises(SettingsError, match="Muon.*2D"):
        training(optimizer="Muon", learning_rate=1e-3, module_set="all", use_tucker=True, module_filter="*conv1")
