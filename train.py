"""Train a LoHa from the command line, on one GPU or several.

    python train.py config.toml
    python train.py config.toml --data FOLDER
    torchrun --nproc-per-node=2 train.py config.toml --data FOLDER

config.toml is a training configuration of kohya's scripts, such as the model page's, or what a program around
them writes (kohya_ss's JSON, LoRA Easy Training Scripts, lora-scripts). Its batch size is that of one process:
the page's "4 x 2" is two processes of 4. Ctrl-C ends the run after the step and keeps
what there is (again, or when the step takes long: before it is done); go on with --resume and the file that
was written. Ends with 0 when done, 1 when something cannot be used or has failed, 2 for a wrong command line,
130 when stopped.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent
_PACKAGE = "shinymas_loha"
_STOPPED = 130
_STOPPED_ONE = "another process of the run was stopped"
_PATIENCE = 5  # seconds for the step that a signal came in: torchrun kills 30 s after it, other managers after 10


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = _parser()
    given = parser.parse_args(argv)
    comfyui = given.comfyui or ROOT.parent.parent
    if not os.path.isfile(comfyui / "comfy" / "sd.py"):
        parser.error(f"{comfyui} is no ComfyUI; say with --comfyui where it is")
    for file in (given.config, given.dataset):
        if file and file.suffix.lower() not in (".toml", ".json", ".yaml", ".yml"):  # it would be taken for TOML itself
            parser.error(f"{file}: a .toml or .json file is needed")
    signals, world = _Signals(), None
    try:
        _enter_comfyui(comfyui.resolve(), given.cpu)
        world = _join(given.cpu)
        code, failure = _outcome(given, world, signals)
        signals.wait()
    except KeyboardInterrupt:
        code, failure = _STOPPED, _STOPPED_ONE
        print("stopped before the first step", file=sys.stderr)
    if world is not None:
        world.leave(code, failure)
    return code


def _join(on_cpu: bool):
    import torch
    from shinymas_loha.loha.training.run import processes

    if torch.cuda.is_available() and not on_cpu:
        torch.cuda.set_device(processes.local_device())
    return processes.join(on_cpu=on_cpu)


def _outcome(given: argparse.Namespace, world, signals: _Signals) -> tuple[int, str]:
    """Train; the exit code, and what the other processes should know where this one failed. Says what went wrong."""
    from shinymas_loha.loha import LohaError
    from shinymas_loha.patcher.trainer.run import OUT_OF_MEMORY, is_out_of_memory

    try:
        return _train(given, world, signals)
    except Exception as error:
        signals.wait()
        if not (isinstance(error, LohaError) or is_out_of_memory(error)):
            traceback.print_exc()
            return 1, f"process {world.rank + 1} of {world.size}: {type(error).__name__}: {error}"
        text = str(error) if isinstance(error, LohaError) else OUT_OF_MEMORY
        if world.is_to_say(text):
            # Another process may be drawing its progress on this line.
            print("\n" * (world.size > 1) + f"error: {text}", file=sys.stderr, flush=True)
        return 1, text


def _train(given: argparse.Namespace, world, signals: _Signals) -> tuple[int, str]:
    import folder_paths
    import torch
    from shinymas_loha.loha import files
    from shinymas_loha.loha.errors import SettingsError
    from shinymas_loha.loha.training.data import describe_data, index_pictures, training_data
    from shinymas_loha.loha.training.kohya.run_file import read_run
    from shinymas_loha.loha.training.run.event_log import lacking
    from shinymas_loha.loha.training.run.folder import check_output_name
    from shinymas_loha.loha.training.run.metadata import BaseFiles
    from shinymas_loha.loha.training.run.outcome import validation_line
    from shinymas_loha.loha.training.run.progress import Stopped, Watcher
    from shinymas_loha.patcher import loras
    from shinymas_loha.patcher.trainer.base import base_files
    from shinymas_loha.patcher.trainer.run import prepare
    from tqdm import tqdm

    found = read_run(str(given.config), dataset=str(given.dataset or ""), folder=str(given.data or ""),
                     defaults=given.defaults)
    settings, options = found.settings, found.options
    say = print if world.is_first else lambda *_: None
    output = given.output or loras.folder()
    check_output_name(output, settings)
    for line in found.lines:
        say(line)
    if settings.sample_every_n_epochs or settings.sample_every_n_steps or settings.sample_at_first:
        say("ignored: sample_prompts: samples are drawn inside ComfyUI alone")
    if lacks := lacking(settings):
        say(f"note: {lacks}")
    user = Path(folder_paths.get_user_directory()) / "shinymas"
    with world.first_before_others("pictures"):  # who then find them examined
        data = training_data(index_pictures(options, ledgers=user / "pictures"), options)
    say(describe_data(data, world.size))
    checkpoint = _model_file("checkpoints", given.checkpoint or settings.base_model, "--checkpoint")
    vae_file = settings.vae and _model_file("vae", settings.vae, "vae")
    with torch.inference_mode():
        model, clip, vae = _load(checkpoint, vae_file)
        if model is None or clip is None:
            raise SettingsError(f"{checkpoint} holds no U-Net or no text encoder: a whole SD 1.5 checkpoint is needed")
        began = time.monotonic()
        run = prepare(
            model, clip, vae, data, settings, world=world,
            start=files.read(given.resume) if given.resume else None,
            output=output,
            cache=user / "latents",
            base=base_files(checkpoint, vae_file or None, user / "hashes.json") if world.is_first else BaseFiles(),
            logs=lambda name: _logs(settings.logging_dir, output / name))
    if run.resumption:
        say(run.resumption)
    training = run.training
    try:
        with tqdm(total=training.total_steps, initial=training.done, disable=not world.is_first, unit="step") as bar:

            def on_step(progress) -> None:
                bar.update(progress.step - bar.n)
                bar.set_postfix(epoch=progress.epoch, loss=f"{progress.loss:.4f}", lr=f"{progress.learning_rate:.2e}")

            def on_validating(done: int, number: int) -> None:
                bar.set_postfix_str(f"validating: picture {done} of {number}")

            def on_validation(validation) -> None:
                bar.write(validation_line(validation, training.validator.best))

            watcher = Watcher(on_step=on_step, should_stop=signals.are_there, breakable=signals.breakable)
            if world.is_first:
                watcher = replace(watcher, on_validating=on_validating, on_validation=on_validation)
            loha = run.go(watcher)
    except Stopped as stopped:
        say(f"{stopped}; {run.kept()}")
        return _STOPPED, ""
    except KeyboardInterrupt:
        say(f"broken off in step {training.done + 1} of {training.total_steps}; {run.kept()}")
        return _STOPPED, _STOPPED_ONE
    except Exception:
        if training.keeper.kept:
            say(run.kept())
        raise
    say(run.report(loha, time.monotonic() - began))
    return 0, ""


class _Signals:
    """Ctrl-C, a closed terminal, and what torchrun passes on: they ask for an end, and never break off what is kept.

    Until the run begins one ends the program at once. Then the first ends the run after its step; the second, or
    `_PATIENCE` seconds, before: KeyboardInterrupt out of a `breakable` block.
    """

    def __init__(self) -> None:
        self._asked = 0
        self._breaks = True  # whether what runs now may be broken off
        self._runs = False
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM"):
            number = getattr(signal, name, None)  # Windows has the first two
            # Under nohup a closed terminal is to be ignored.
            if number and not (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
                signal.signal(number, self._ask)

    def are_there(self) -> bool:
        return self._asked > 0

    def wait(self) -> None:
        """From here to the end: nothing is broken off any more."""
        self._breaks = False
        if hasattr(signal, "alarm"):
            signal.alarm(0)  # Python takes its handlers away before it ends: a late one would kill it

    @contextmanager
    def breakable(self) -> Iterator[None]:
        # Before the run one is enough, and an import may have swallowed what was raised for it.
        enough, self._runs, self._breaks = 2 if self._runs else 1, True, True
        if self._asked >= enough:
            self._break_off()
        try:
            yield
        finally:
            self._breaks = False

    def _ask(self, number: int, frame: object) -> None:
        self._asked += 1
        if self._asked == 1 and self._runs:
            if hasattr(signal, "alarm"):
                signal.alarm(_PATIENCE)
        elif self._breaks:
            self._break_off()

    def _break_off(self) -> None:
        self._breaks = False  # once
        raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="training configuration, .toml or .json")
    pictures = parser.add_mutually_exclusive_group()
    pictures.add_argument("--data", type=Path, metavar="FOLDER",
                          help="pictures, instead of those that the configuration names")
    pictures.add_argument("--dataset", type=Path, metavar="TOML",
                          help="kohya's dataset TOML; what it does not say, the configuration does")
    parser.add_argument("--defaults", choices=("model card", "kohya"), default="model card",
                        help="whose values count where the files say nothing (default: the model card's)")
    parser.add_argument("--checkpoint", metavar="FILE",
                        help="instead of the TOML's pretrained_model_name_or_path: a path, or a name in ComfyUI's "
                             "models/checkpoints")
    parser.add_argument("--output", type=Path, metavar="DIR",
                        help="the run's own folder is made in it (default: ComfyUI's models/loras)")
    parser.add_argument("--resume", type=Path, metavar="LOHA",
                        help="go on: exactly, with a file of an interrupted run; else from its weights")
    parser.add_argument("--comfyui", type=Path, metavar="DIR",
                        help="ComfyUI's folder (default: two above this one, where custom nodes lie)")
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")
    return parser


def _enter_comfyui(comfyui: Path, cpu: bool) -> None:
    """Make ComfyUI's modules and this pack importable, under the names that they have inside of it."""
    # Python put this folder first, and its nodes/ would stand for ComfyUI's nodes.py.
    sys.path[:] = [str(comfyui), *(entry for entry in sys.path if Path(entry or ".").resolve() != ROOT)]
    import torch
    from comfy.cli_args import args

    args.cpu = cpu or not torch.cuda.is_available()
    _load_pack()
    from shinymas_loha.text import let_consoles_escape

    let_consoles_escape()


def _load_pack() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        _PACKAGE, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    module = sys.modules[_PACKAGE] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _model_file(kind: str, name: str, option: str) -> Path:
    """A path as given, or a name in ComfyUI's folder of this kind."""
    import folder_paths
    from shinymas_loha.loha import FileError
    from shinymas_loha.text import show

    for path in (Path(name), Path(folder_paths.get_full_path(kind, name) or "")):
        if name and os.path.isfile(path):
            return path
    raise FileError(f"{show(name) or 'no file given'}: neither a file nor a name in ComfyUI's models/{kind}; "
                    f"say where it is with {option}")


def _load(checkpoint: Path, vae_file: Path | str):
    import comfy.sd
    import comfy.utils

    model, clip, vae = comfy.sd.load_checkpoint_guess_config(str(checkpoint))[:3]
    if vae_file:
        vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(vae_file)))
    return model, clip, vae


def _logs(logging_dir: str, run: Path) -> Path:
    """Where kohya's scripts put a run's logs, beside others of the same configuration; else in the run's folder."""
    if not logging_dir:
        return run / "logs"
    return Path(logging_dir + time.strftime("%Y%m%d%H%M%S", time.localtime())) / "network_train"


if __name__ == "__main__":
    sys.exit(main())
