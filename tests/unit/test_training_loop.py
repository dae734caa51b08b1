"""The loop: resume, cancel, non-finite numbers."""

from dataclasses import replace

import pytest
import torch
from shinymas_loha.loha import files
from shinymas_loha.loha.training.data import Latents
from shinymas_loha.loha.training.network.loha_network import LohaNetwork
from shinymas_loha.loha.training.run.folder import STATE_FILE, RunFolder, read_state, state_beside
from shinymas_loha.loha.training.run.loop import Training
from shinymas_loha.loha.training.run.progress import Stopped, TrainingError, Watcher


class Cancelled(Exception):
    pass


@pytest.fixture
def training(tiny_models, tiny_data, tiny_settings, tmp_path):
    """Make a run: settings by keyword; `folder`, `resume`, `models` and `data` options apart."""

    def make(folder=None, resume=None, models=tiny_models, data=None, precision="fp32", **chosen):
        settings = tiny_settings(**chosen)
        data = tiny_data(**(data or {}))
        if folder is None:
            folder = RunFolder.create(tmp_path / "loras", settings)
        run = Training(
            models, data, Latents(data, models.encode), settings, session="7", precision=precision, folder=folder)
        assert resume is None or run.resume(resume)
        return run

    return make


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one) and one.keys() == other.keys()


def stop_after(step):
    def on_step(progress):
        if progress.step == step:
            raise Cancelled

    return Watcher(on_step=on_step)


@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_cancelled_run_goes_on_bit_for_bit(training, step):
    whole = training(lr_scheduler="model card")
    whole.run()
    first = training(lr_scheduler="model card")
    with pytest.raises(Cancelled):
        first.run(stop_after(step))
    state = read_state(first.keeper.folder.path / STATE_FILE)
    assert state.step == step
    second = training(folder=first.keeper.folder, resume=state, lr_scheduler="model card")
    second.run()
    assert second.losses == whole.losses
    assert same(second.network.state_dict(), whole.network.state_dict())
    assert same(second.state().optimiser["state"][0], whole.state().optimiser["state"][0])


def test_a_cancelled_run_leaves_a_loha_to_go_on_from(training):
    run = training(save_every_n_epochs=0)
    with pytest.raises(Cancelled):
        run.run(stop_after(2))
    kept = sorted(path.name for path in run.keeper.folder.path.iterdir())
    assert kept == ["tiny-step00000002.safetensors", STATE_FILE]
    loha = files.read(run.keeper.folder.path / kept[0])
    assert len(loha.modules) == len(run.network.factors)
    assert state_beside(loha).step == 2


@pytest.mark.parametrize("steps", [0, 3])
def test_a_run_cancelled_at_the_end_of_an_epoch_keeps_the_epoch(training, steps):
    """It goes on behind it, and would never write its file."""
    run = training(save_every_n_steps=steps)

    def names():
        return {path.stem for path in run.keeper.folder.path.iterdir()}

    with pytest.raises(Cancelled):
        run.run(stop_after(3))
    assert names() == {"tiny-000001", "training"} | ({"tiny-step00000003"} if steps else set())
    state = state_beside(files.read(run.keeper.folder.path / "tiny-000001.safetensors"))
    training(folder=run.keeper.folder, resume=state, save_every_n_steps=steps).run()
    assert names() == {"tiny-000001", "tiny-000002", "tiny", "training"} | (
        {"tiny-step00000003", "tiny-step00000006"} if steps else set())


def test_cancelling_in_the_middle_of_a_step_keeps_the_last_whole_one(training, tiny_models):
    run = training()
    forwards, before = [], [module.__dict__.get("forward") for module in tiny_models.unet.modules()]

    def interrupt(module, args):
        forwards.append(module)
        if len(forwards) == 3:
            raise Cancelled

    handle = tiny_models.unet.mid_block.register_forward_pre_hook(interrupt)
    try:
        with pytest.raises(Cancelled):
            run.run()
    finally:
        handle.remove()
    assert read_state(run.keeper.folder.path / STATE_FILE).step == 2
    assert [module.__dict__.get("forward") for module in tiny_models.unet.modules()] == before


def test_should_stop_ends_the_run_after_the_step(training):
    run = training()
    asked = iter([False, True])
    with pytest.raises(Stopped, match="after step 2 of 6"):
        run.run(Watcher(should_stop=lambda: next(asked)))
    assert read_state(run.keeper.folder.path / STATE_FILE).step == 2


def test_files_of_a_run(training):
    run = training(max_train_epochs=4, save_every_n_epochs=1, keep_last=2)
    seen = []
    loha = run.run(Watcher(on_epoch=lambda epoch, make: seen.append((epoch, len(make().modules)))))
    assert sorted(path.name for path in run.keeper.folder.path.iterdir()) == [
        "tiny-000003.safetensors", "tiny-000004.safetensors", "tiny.safetensors", STATE_FILE]
    written = files.read(run.keeper.folder.path / "tiny.safetensors")
    assert all(torch.equal(written.modules[name].w1_a, module.w1_a) for name, module in loha.modules.items())
    assert [epoch for epoch, _ in seen] == [1, 2, 3, 4]
    assert training(max_train_epochs=1).keeper.folder.path.name == "tiny-2"


def test_files_of_early_ends_count_among_the_last(training):
    run = training(max_train_epochs=4, save_every_n_epochs=1, keep_last=2)
    folder = run.keeper.folder
    with pytest.raises(Cancelled):
        run.run(stop_after(4))
    assert sorted(path.name for path in folder.path.glob("*.safetensors")) == [
        "tiny-000001.safetensors", "tiny-step00000004.safetensors"]
    run.run()
    assert sorted(path.name for path in folder.path.glob("*.safetensors")) == [
        "tiny-000003.safetensors", "tiny-000004.safetensors", "tiny.safetensors"]


def test_files_of_steps(training):
    """Each with its state, so that a killed run loses no more than what came after."""
    run = training(max_train_epochs=2, save_every_n_epochs=0, save_every_n_steps=2)
    folder = run.keeper.folder
    seen = []

    def look(progress):
        if progress.step in (3, 5):
            seen.append(read_state(folder.path / STATE_FILE).step)

    run.run(Watcher(on_step=look))
    assert seen == [2, 4]
    names = [f"tiny-step{step:08d}.safetensors" for step in (2, 4, 6)]
    assert sorted(path.name for path in folder.path.glob("*.safetensors")) == [*names, "tiny.safetensors"]
    assert [files.read(folder.path / name).metadata["ss_steps"] for name in names] == ["2", "4", "6"]
    plain = training(max_train_epochs=2, save_every_n_epochs=0)
    plain.run()
    assert same(run.network.state_dict(), plain.network.state_dict())


def test_an_older_file_means_its_weights_alone(training):
    run = training()
    run.run()
    older = files.read(run.keeper.folder.path / "tiny-000001.safetensors")
    assert state_beside(older) is None
    assert state_beside(files.read(run.keeper.folder.path / "tiny.safetensors")).step == run.total_steps


@pytest.mark.parametrize("where", ["latents", "weight", "gradient"])
def test_nan_stops_with_the_last_good_state(training, tiny_models, where):
    spoilt = {"latents": False}

    def encode(pixels):
        found = tiny_models.encode(pixels)
        return replace(found, mean=found.mean * float("nan")) if spoilt["latents"] else found

    run = training(models=replace(tiny_models, encode=encode), data={"latent_cache": "none"})

    def spoil(progress):
        if progress.step != 2:
            return
        if where == "latents":
            spoilt["latents"] = True
        elif where == "weight":
            with torch.no_grad():
                run.network.factors["lora_unet_mid_block_attentions_0_proj_in"].hada_w1_b[0, 0] = float("inf")
        else:
            factors = run.network.factors["lora_unet_mid_block_attentions_0_proj_in"]
            factors.hada_w2_a.register_hook(lambda grad: grad * float("nan"))

    with pytest.raises(TrainingError, match="step 3 of 6: the (loss|gradient's norm) is nan"):
        run.run(Watcher(on_step=spoil))
    if where != "weight":
        state = read_state(run.keeper.folder.path / STATE_FILE)
        assert state.step == 2
        assert all(tensor.isfinite().all() for tensor in state.parameters.values())


def drops_all(run, step):
    """Whether module dropout leaves no module in a step (from 0)."""
    run.network.begin_step(step, 0)
    try:
        return len(run.network._dropped) == len(run.network.factors)
    finally:
        run.network.end_step()


@pytest.mark.parametrize("scaled", [False, True])
def test_a_step_that_drops_every_module_changes_nothing_and_is_counted(training, scaled):
    chosen = {"module_filter": "*mid_block*proj_in,*mid_block*proj_out", "train_text_encoder": False,
              "module_dropout": 0.7, "seed": 1}

    def make(**more):
        run = training(**more, **chosen)
        if scaled:  # as on a GPU with fp16
            run.update.scaler = torch.amp.GradScaler("cpu")
        return run

    whole = make()
    empty = [drops_all(whole, step) for step in range(whole.total_steps)]
    assert True in empty and False in empty
    norms = []
    whole.run(Watcher(on_step=lambda progress: norms.append(progress.gradient_norm)))
    assert [norm == 0 for norm in norms] == empty
    assert len(whole.losses) == whole.total_steps and min(whole.losses) > 0

    first = make()
    with pytest.raises(Cancelled):
        first.run(stop_after(empty.index(True) + 1))
    state = read_state(first.keeper.folder.path / STATE_FILE)
    second = make(folder=first.keeper.folder)
    assert second.resume(state)
    second.run()
    assert second.losses == whole.losses
    assert same(second.network.state_dict(), whole.network.state_dict())


def test_a_state_of_another_precision_or_optimiser_is_not_gone_on_from_exactly(training):
    state = training().state()
    assert training().resume(state)
    assert not training(precision="bf16").resume(state)  # the settings' wish, on a machine with a GPU
    other = training()
    other.update.optimiser = torch.optim.SGD(other.network.parameters())  # such as AdamW in place of AdamW8bit
    assert not other.resume(state)


def test_accumulating_two_batches_is_one_larger_batch(training):
    one = training(gradient_accumulation_steps=2, data={"batch_size": 1}, max_train_steps=1)
    loss, rate = [], []
    one.run(Watcher(on_step=lambda progress: (loss.append(progress.loss), rate.append(progress.gradient_norm))))
    pictures = one._data.epoch(one._settings.seed, 0)[:2]
    by_hand = training(data={"batch_size": 1}, folder=one.keeper.folder)
    by_hand.network.load_state_dict(training(folder=one.keeper.folder).network.state_dict())
    with torch.no_grad(), by_hand.network.attached():
        losses = torch.cat([by_hand._batch_losses(picture) for picture in pictures])
    assert loss[0] == pytest.approx(float(losses.mean()), rel=1e-5)


def test_the_last_group_of_an_epoch_is_divided_as_a_whole_one(training):
    """Three batches in groups of two. accelerate divides every batch's loss by two, and so weighs the third as much."""
    run = training(gradient_accumulation_steps=2, data={"batch_size": 2}, max_grad_norm=0.0)
    assert (run.steps_per_epoch, run.total_steps) == (2, 4)
    told, before = [], {}

    def on_step(progress):
        if progress.step == 1:
            before.update({name: tensor.clone() for name, tensor in run.network.state_dict().items()})
        told.append(progress)

    run.run(Watcher(on_step=on_step))
    third = run._data.epoch(run._settings.seed, 0)[2]
    by_hand = training(folder=run.keeper.folder)
    by_hand.network.load_state_dict(before)
    with by_hand.network.attached():
        by_hand.network.begin_step(1, 0)
        loss = by_hand._batch_losses(third).mean()
        (loss / 2).backward()
        by_hand.network.end_step()
    norm = torch.nn.utils.get_total_norm([factor.grad for factor in by_hand.network.parameters()
                                          if factor.grad is not None])
    assert told[1].gradient_norm == pytest.approx(float(norm), rel=1e-5)
    assert told[1].loss == pytest.approx(float(loss.detach()), rel=1e-6)  # of the loss, the mean is told all the same


def test_a_step_that_the_scaler_leaves_out_does_not_move_the_schedule(training):
    run = training(lr_scheduler="linear", lr_warmup_steps=2, max_train_epochs=3)
    run.update.scaler = torch.amp.GradScaler("cpu")
    next(run.network.parameters()).register_hook(lambda grad: grad if run.done > 1 else grad / 0)  # as fp16 overflows
    start = {name: tensor.clone() for name, tensor in run.network.state_dict().items()}
    moved, rates = [], []

    def on_step(progress):
        moved.append(not same(start, run.network.state_dict()))
        rates.append(progress.learning_rate)

    run.run(Watcher(on_step=on_step))
    assert run.done == 9
    planned = training(lr_scheduler="linear", lr_warmup_steps=2, max_train_epochs=3)
    planned.done = planned.total_steps
    assert rates == [0.0, 0.0, *planned.learning_rates()[:7]]
    assert moved == [False] * 3 + [True] * 6  # a warm-up begins with a rate of zero


def test_a_student_recovers_a_teacher(tiny_models, tiny_settings):
    """The output of a U-Net with a LoHa of rank 2, learnt by another from nothing."""
    settings = tiny_settings(train_text_encoder=False, module_filter="*attn*", learning_rate=1e-2)
    teacher, student = LohaNetwork(tiny_models, settings), LohaNetwork(tiny_models, replace(settings, seed=1))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for factors in teacher.factors.values():
            factors.hada_w2_a.copy_(torch.randn(factors.hada_w2_a.shape, generator=generator) * 2)
    inputs = (torch.randn(4, 4, 8, 8, generator=generator), torch.tensor([10, 300, 600, 900]),
              torch.randn(4, 7, 32, generator=generator))
    with torch.no_grad(), teacher.attached():
        target = tiny_models.predict(*inputs)
    optimiser = torch.optim.AdamW(student.parameters(), lr=2e-2)
    losses = []
    with student.attached():
        for _ in range(60):
            loss = (tiny_models.predict(*inputs) - target).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0], losses[::10]
