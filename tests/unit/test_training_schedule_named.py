"""Schedules by name: torch's own classes and diffusers' functions are the oracles; a run goes on with each."""

import json
from ast import literal_eval

import pytest
import torch
from shinymas_loha.loha.errors import SettingsError
from shinymas_loha.loha.training.data import Latents
from shinymas_loha.loha.training.kohya.training_file import read_settings
from shinymas_loha.loha.training.optimisation.schedules import build, curve, run_length
from shinymas_loha.loha.training.run.folder import STATE_FILE, RunFolder, read_state
from shinymas_loha.loha.training.run.loop import Training
from shinymas_loha.loha.training.run.progress import Stopped, Watcher
from shinymas_loha.loha.training.settings import TrainingSettings

NAMED = [
    ("StepLR", "step_size=4 gamma=0.5"), ("MultiStepLR", "milestones=[2,4,9] gamma=0.3"),
    ("ConstantLR", "factor=0.25 total_iters=3"), ("LinearLR", "start_factor=0.1 total_iters=5"),
    ("ExponentialLR", "gamma=0.9"), ("PolynomialLR", "total_iters=9 power=2.0"),
    ("CosineAnnealingLR", "T_max=7 eta_min=1e-5"), ("CosineAnnealingWarmRestarts", "T_0=2 T_mult=2"),
    ("CyclicLR", "base_lr=1e-4 max_lr=1e-2 step_size_up=3 cycle_momentum=False"),
    ("OneCycleLR", "max_lr=1e-2 total_steps=20"),
]


def _theirs(make, steps, rate=1e-3):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
    schedule, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize(("name", "text"), NAMED)
@pytest.mark.parametrize("home", ["", "torch.optim.lr_scheduler."])
def test_torchs_by_name(home, name, text):
    keywords = {key: literal_eval(value) for key, value in (part.split("=") for part in text.split())}
    expected = _theirs(lambda optimizer: getattr(torch.optim.lr_scheduler, name)(optimizer, **keywords), 20)
    assert curve("cosine", learning_rate=1e-3, steps_per_epoch=5, total_steps=20, kind=home + name,
                 arguments=text) == expected


@pytest.mark.parametrize(("name", "text"), NAMED)
def test_a_run_goes_on_bit_for_bit_with_each(tiny_models, tiny_data, tiny_settings, tmp_path, name, text):
    settings = tiny_settings(lr_scheduler_type=name, lr_scheduler_args=text, module_filter="*mid_block*attn1*")

    def run(folder=None):
        data = tiny_data()
        return Training(tiny_models, data, Latents(data, tiny_models.encode), settings, session="7",
                        precision="fp32", folder=folder)

    whole = run()
    whole.run()
    folder = RunFolder.create(tmp_path / "loras", settings)
    first, asked = run(folder), iter([False, False, True])
    with pytest.raises(Stopped):
        first.run(Watcher(should_stop=lambda: next(asked)))
    second = run(folder)
    assert second.resume(read_state(folder.path / STATE_FILE))
    second.run()
    assert second.losses == whole.losses
    assert second.update.state_dicts()[1] == whole.update.state_dicts()[1]
    one, other = second.network.state_dict(), whole.network.state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("rules", ["1:10,0.1:20,0.01:30,0.005", "0.5", "1:5,0.25", "0.1:12,1:3,0.5"])
def test_piecewise_constant_is_diffusers(rules):
    from diffusers.optimization import get_piecewise_constant_schedule

    expected = _theirs(lambda optimizer: get_piecewise_constant_schedule(optimizer, step_rules=rules), 40)
    # diffusers' has no warm-up, and kohya's scripts pass none on.
    assert curve("piecewise_constant", learning_rate=1e-3, steps_per_epoch=5, total_steps=40, warmup=7,
                 arguments=f"step_rules='{rules}'") == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("name", "text", "theirs"), [
    ("cosine", "num_cycles=1.5", {"num_cycles": 1.5}),
    ("polynomial", "lr_end=1e-5", {"lr_end": 1e-5}),
    ("cosine_with_min_lr", "min_lr=2e-4", {"min_lr": 2e-4, "num_cycles": 0.5}),
])
def test_what_kohyas_scripts_pass_on_to_transformers(name, text, theirs):
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, SchedulerType

    make = TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(name)]
    expected = _theirs(lambda optimizer: make(optimizer, num_warmup_steps=5, num_training_steps=40, **theirs), 40)
    found = curve(name, learning_rate=1e-3, steps_per_epoch=5, total_steps=40, warmup=5, arguments=text)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(("text", "words"), [
    ('lr_scheduler_type = "os.system"', "type: 'os.system' is not one of torch's that take numbers: StepLR"),
    ('lr_scheduler_type = "LambdaLR"', "is not one of torch's that take numbers"),
    ('lr_scheduler_type = "ReduceLROnPlateau"', "is not one of torch's"),
    ('lr_scheduler_type = "StepLR"', "lr_scheduler_type StepLR does not take '': .*step_size"),
    ('lr_scheduler_type = "StepLR"\nlr_scheduler_args = ["step_size=0"]', "'step_size=0' makes no learning rate"),
    ('lr_scheduler_type = "StepLR"\nlr_scheduler_args = ["step_size=1", "optimizer=1"]', "optimizer is not taken here"),
    ('lr_scheduler_type = "StepLR"\nlr_scheduler_args = ["step_size=open(1)"]', "args: .*neither a number"),
    ('lr_scheduler_type = "StepLR"\nlr_scheduler_args = ["step_size=1"]\nlr_warmup_steps = 5',
     "lr_warmup_steps 5 and lr_scheduler_type exclude each other"),
    ('lr_scheduler = "piecewise_constant"', "piecewise_constant needs step_rules such as"),
    ('lr_scheduler = "piecewise_constant"\nlr_scheduler_args = ["step_rules=\'1-2\'"]', "needs step_rules such as"),
    ('lr_scheduler = "cosine"\nlr_scheduler_args = ["power=2"]', "power is not taken by cosine, which takes num"),
    ('lr_scheduler = "linear"\nlr_scheduler_args = ["num_cycles=2"]', "is not taken by linear, which takes none"),
    ('lr_scheduler = "cosine"\nlr_scheduler_args = ["num_cycles=\'2\'"]', "'2' is no value of num_cycles"),
    ('lr_scheduler = "cosine_with_min_lr"\nlr_scheduler_args = ["min_lr=1e-5"]\nlr_scheduler_min_lr_ratio = 0.1',
     "exclude each other"),
])
def test_what_cannot_be_had_is_said_when_the_file_is_read(text, words):
    with pytest.raises(SettingsError, match=words):
        read_settings(text)


def test_a_schedule_that_ends_before_the_run_is_named_before_it():
    settings = TrainingSettings(lr_scheduler_type="OneCycleLR", lr_scheduler_args="max_lr=1e-2 total_steps=20")
    with pytest.raises(SettingsError, match="OneCycleLR ends after 20 steps, and the run has 31"):
        run_length(settings, 1)


def test_kohyas_lists_are_joined():
    made = read_settings('lr_scheduler_type = "MultiStepLR"\nlr_scheduler_args = ["milestones=[10, 20]", "gamma=0.5"]')
    assert made.settings.lr_scheduler_args == "milestones=[10,20] gamma=0.5"
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    json.dumps(build("cosine", optimizer, steps_per_epoch=1, total_steps=1, kind="MultiStepLR",
                     arguments=made.settings.lr_scheduler_args).state_dict())
