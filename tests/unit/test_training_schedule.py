"""Learning rates against torch's own classes, the page's claim, and resuming."""

import math
from dataclasses import replace

import pytest
import torch
from shinymas_loha.loha.errors import SettingsError
from shinymas_loha.loha.training.optimisation.schedules import build, course, curve, run_length
from shinymas_loha.loha.training.settings.hyper_parameters import TrainingSettings
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LinearLR, SequentialLR

NAMES = ("model card", "cosine_with_restarts", "cosine", "constant", "linear")
STEPS = 20


def _optimizer(rate: float = 1e-3) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)


def _rates(schedule, optimizer, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def test_the_page_over_31_epochs_is_torchs_own():
    optimizer = _optimizer()
    n = STEPS
    printed = SequentialLR(optimizer, [
        LinearLR(optimizer, 0.1, total_iters=n),
        CosineAnnealingWarmRestarts(optimizer, n * 2, T_mult=2),
    ], [n])
    ours = curve("model card", learning_rate=1e-3, steps_per_epoch=n, total_steps=31 * n)
    assert ours == _rates(printed, optimizer, 31 * n)


def test_the_page_follows_its_formula_and_bottoms_after_3_7_15_and_31_epochs():
    ours = curve("model card", learning_rate=1e-3, steps_per_epoch=STEPS, total_steps=31 * STEPS)
    expected = [1e-3 * (0.1 + 0.9 * step / STEPS) for step in range(STEPS)]
    for epochs in (2, 4, 8, 16):
        length = epochs * STEPS
        expected += (0.5e-3 * (1 + math.cos(math.pi * step / length)) for step in range(length))
    assert ours == pytest.approx(expected, rel=1e-9, abs=1e-12)
    lowest = [step + 1 for step in range(1, len(ours))
              if ours[step] < ours[step - 1] and (step + 1 == len(ours) or ours[step + 1] > ours[step])]
    assert lowest == [3 * STEPS, 7 * STEPS, 15 * STEPS, 31 * STEPS]


def test_warm_up_rises_in_a_line_and_meets_the_shape():
    ours = curve("cosine", learning_rate=1.0, steps_per_epoch=10, total_steps=50, warmup=10)
    assert ours[:11] == pytest.approx([step / 10 for step in range(11)])
    assert ours[30] == pytest.approx(0.5)
    assert ours[-1] == pytest.approx(0.5 * (1 + math.cos(math.pi * 39 / 40)))


def test_restarts_start_again_at_the_peak():
    ours = curve("cosine_with_restarts", learning_rate=1.0, steps_per_epoch=10, total_steps=40, cycles=4)
    assert [ours[at] for at in (0, 10, 20, 30)] == pytest.approx([1.0] * 4)
    assert ours[9] < 0.05


def test_linear_and_constant():
    assert curve("linear", learning_rate=1.0, steps_per_epoch=1, total_steps=4) == [1.0, 0.75, 0.5, 0.25]
    assert curve("constant", learning_rate=0.5, steps_per_epoch=1, total_steps=3) == [0.5] * 3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stop", [1, STEPS - 1, STEPS, STEPS + 1, 3 * STEPS, 77])
def test_resuming_continues_to_the_bit(name, stop):
    total = 7 * STEPS
    settings = {"steps_per_epoch": STEPS, "total_steps": total, "warmup": 0 if name == "model card" else 5}
    whole = curve(name, learning_rate=1e-3, **settings)
    first = _optimizer()
    schedule = build(name, first, **settings)
    _rates(schedule, first, stop)
    second = _optimizer()
    resumed = build(name, second, **settings)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    assert _rates(resumed, second, total - stop) == whole[stop:]


def test_groups_keep_their_own_peaks():
    groups = [{"params": [torch.zeros(1)], "lr": rate} for rate in (1e-3, 5e-4)]
    optimizer = torch.optim.SGD(groups)
    build("model card", optimizer, steps_per_epoch=4, total_steps=28)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-4, 5e-5])


def test_unknown_names_and_empty_runs_are_refused():
    with pytest.raises(SettingsError, match="'wave' is not one of model card"):
        build("wave", _optimizer(), steps_per_epoch=1, total_steps=1)
    with pytest.raises(SettingsError, match="10 steps of warm-up leave nothing of a run of 10: lower it"):
        build("linear", _optimizer(), steps_per_epoch=1, total_steps=10, warmup=10)


def test_the_length_of_a_run_is_known_from_settings_and_batches():
    settings = TrainingSettings(max_train_epochs=3, gradient_accumulation_steps=2)
    assert run_length(settings, 5) == (3, 9)
    assert run_length(replace(settings, max_train_steps=4), 5) == (3, 4)
    assert run_length(replace(settings, max_train_steps=40), 5) == (3, 9)


@pytest.mark.parametrize(("name", "ours", "theirs"), [
    ("polynomial", {"power": 2.5}, {"power": 2.5}),
    ("polynomial", {}, {}),
    ("cosine_with_min_lr", {"floor": 0.1}, {"min_lr_rate": 0.1, "num_cycles": 0.5}),
    ("cosine_with_min_lr", {"floor": 0.2, "cycles": 3}, {"min_lr_rate": 0.2, "num_cycles": 1.5}),
    ("inverse_sqrt", {}, {}),
    ("inverse_sqrt", {"timescale": 50}, {"timescale": 50}),
    ("warmup_stable_decay", {"decay": 12, "floor": 0.1},
     {"num_decay_steps": 12, "min_lr_ratio": 0.1, "num_cycles": 0.5}),
])
@pytest.mark.parametrize("warmup", [0, 7])
def test_schedules_of_transformers(name, ours, theirs, warmup):
    """As kohya's scripts call them: its number of cycles is twice that of transformers' cosines."""
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, SchedulerType

    optimizer, total = _optimizer(), 40
    length = {} if name == "inverse_sqrt" else {"num_training_steps": total}
    if name == "warmup_stable_decay":
        length = {"num_stable_steps": total - warmup - 12}
    wanted = TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(name)](
        optimizer, num_warmup_steps=warmup, **length, **theirs)
    found = curve(name, learning_rate=1e-3, steps_per_epoch=10, total_steps=total, warmup=warmup, **ours)
    assert found == pytest.approx(_rates(wanted, optimizer, total), rel=1e-9, abs=1e-15)


def test_shares_of_the_run_are_whole_steps():
    settings = TrainingSettings(lr_scheduler="warmup_stable_decay", lr_warmup_share=0.05, lr_decay_steps=0.25,
                                max_train_epochs=3)
    made = course(settings, 13, 39)
    assert (made["warmup"], made["decay"]) == (1, 9)
    made = course(replace(settings, lr_warmup_share=0.0, lr_warmup_steps=4, lr_decay_steps=5.0), 13, 39)
    assert (made["warmup"], made["decay"]) == (4, 5)
    assert course(TrainingSettings(lr_decay_steps=0.9), 13, 39)["decay"] == 0  # of another schedule
    with pytest.raises(SettingsError, match="lr_decay_steps: 4 steps of warm-up and 39 of decay are more than a run"):
        run_length(replace(settings, lr_warmup_share=0.0, lr_warmup_steps=4, lr_decay_steps=39.0), 13)
    with pytest.raises(SettingsError, match="lr_warmup_steps 4 and lr_warmup_share 0.05 exclude each other"):
        replace(settings, lr_warmup_steps=4)


def test_kohyas_keys_of_schedules():
    from shinymas_loha.loha.training.kohya.training_file import read_settings

    made = read_settings("""
lr_scheduler = "polynomial"
lr_warmup_steps = 0.1
lr_scheduler_power = 2
text_encoder_lr = [5e-5, 1e-4]
""").settings
    assert (made.lr_scheduler, made.lr_warmup_steps, made.lr_warmup_share, made.lr_scheduler_power) == (
        "polynomial", 0, 0.1, 2.0)
    assert made.text_encoder_lr == 5e-5 and made.train_text_encoder
    assert not read_settings("text_encoder_lr = [0.0]").settings.train_text_encoder
    made = read_settings('lr_scheduler = "warmup_stable_decay"\nlr_decay_steps = 0.2\nlr_scheduler_min_lr_ratio = 0.1')
    assert (made.settings.lr_decay_steps, made.settings.lr_scheduler_min_lr_ratio) == (0.2, 0.1)
