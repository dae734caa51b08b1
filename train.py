"""Train a LoHa from the command line, on one GPU or several.

    python train.py config.toml --data FOLDER
    torchrun --nproc-per-node=2 train.py config.toml --data FOLDER

config.toml is a training configuration of kohya's scripts, such as the model page's. Its batch size is
that of one process: the page's "4 x 2" is two processes of 4. Ctrl-C saves and stops; go on with
--resume and the file that was written. Ends with 0 when done, 1 when something cannot be used,
2 for a wrong command line, 130 when stopped.
"""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
import time
from hashlib import sha256
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent
_PACKAGE = "shinymas_loha"
_STOPPED = 130


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = _parser()
    given = parser.parse_args(argv)
    comfyui = given.comfyui or ROOT.parent.parent
    if not (comfyui / "comfy" / "sd.py").is_file():
        parser.error(f"{comfyui} is no ComfyUI; say with --comfyui where it is")
    _enter_comfyui(comfyui.resolve(), given.cpu)
    import torch
    from shinymas_loha.loha import LohaError
    from shinymas_loha.loha.training.run import processes

    if torch.cuda.is_available() and not given.cpu:
        torch.cuda.set_device(processes.local_device())
    world = processes.join(on_cpu=given.cpu)
    from shinymas_loha.patcher.trainer.run import memory_advice

    try:
        with memory_advice(lambda text: print(f"error: {text}", file=sys.stderr)):
            return _train(given, world)
    except LohaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        processes.leave(world)


def _train(given: argparse.Namespace, world) -> int:
    import folder_paths
    import torch
    from shinymas_loha.loha import files
    from shinymas_loha.loha.errors import SettingsError
    from shinymas_loha.loha.training.data import TrainingData, describe_data, index_pictures
    from shinymas_loha.loha.training.kohya.training_file import read_settings
    from shinymas_loha.loha.training.run.folder import check_output_name
    from shinymas_loha.loha.training.run.progress import Stopped, Watcher
    from shinymas_loha.patcher.trainer.run import prepare
    from tqdm import tqdm

    found = read_settings(str(given.config))
    settings, say = found.settings, print if world.is_first else lambda *_: None
    output = given.output or Path(folder_paths.get_folder_paths("loras")[0])
    check_output_name(output, settings)
    for line in found.lines():
        say(line)
    if settings.sample_every_n_epochs:
        say("ignored: sample_every_n_epochs: samples are drawn inside ComfyUI alone")
    options = _data_options(given, found)
    data = TrainingData(index_pictures(options), options)
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
            cache=Path(folder_paths.get_user_directory()) / "shinymas" / "latents",
            model_sha256=_hash(checkpoint) if world.is_first else "")
    stop = _StopAtSignals()
    training = run.training
    with tqdm(total=training.total_steps, initial=training.done, disable=not world.is_first, unit="step") as bar:

        def on_step(progress) -> None:
            bar.update(progress.step - bar.n)
            bar.set_postfix(epoch=progress.epoch, loss=f"{progress.loss:.4f}", lr=f"{progress.learning_rate:.2e}")

        try:
            loha = run.go(Watcher(on_step=on_step, should_stop=lambda: stop.asked))
        except Stopped as stopped:
            say(f"{stopped}; go on with --resume and the newest file in {run.folder}")
            return _STOPPED
    say(run.report(loha, time.monotonic() - began))
    return 0


class _StopAtSignals:
    """Ctrl-C, and the signal that torchrun passes on, ask for an end after the step; the second one kills."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: object) -> None:
        self.asked = True
        signal.signal(number, signal.SIG_DFL)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="training TOML")
    pictures = parser.add_mutually_exclusive_group()
    pictures.add_argument("--data", type=Path, metavar="FOLDER", help="pictures, instead of the TOML's train_data_dir")
    pictures.add_argument("--dataset", type=Path, metavar="TOML", help="kohya's dataset TOML")
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


def _load_pack() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        _PACKAGE, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    module = sys.modules[_PACKAGE] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _data_options(given: argparse.Namespace, found):
    """The pictures' options: a dataset TOML's, or the training TOML's with the folder given."""
    from shinymas_loha.loha.errors import SettingsError
    from shinymas_loha.loha.training.kohya.dataset_file import data_options, read_dataset

    if given.dataset:
        return read_dataset(str(given.dataset)).options
    folder = {"train_data_dir": str(given.data)} if given.data else {}
    options = data_options({**found.data, **folder})
    if not options.folders:
        raise SettingsError("no pictures: give --data FOLDER or --dataset TOML, or train_data_dir in the TOML")
    return options


def _model_file(kind: str, name: str, option: str) -> Path:
    """A path as given, or a name in ComfyUI's folder of this kind."""
    import folder_paths
    from shinymas_loha.loha import FileError
    from shinymas_loha.text import show

    for path in (Path(name), Path(folder_paths.get_full_path(kind, name) or "")):
        if name and path.is_file():
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


def _hash(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
