"""What the training nodes' widgets say, as options and settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from ..loha.errors import SettingsError
from ..loha.training.kohya.dataset_file import read_dataset
from ..loha.training.kohya.sample_prompts import is_prompt_file, parse_prompts, read_prompts
from ..loha.training.kohya.toml import is_path
from ..loha.training.kohya.training_file import read_settings
from ..loha.training.optimisation.optimisers import check_optimiser
from ..loha.training.optimisation.schedules import check_schedule
from ..loha.training.run.folder import check_output_name
from ..loha.training.settings.fields import coerced, describe
from ..loha.training.settings.hyper_parameters import MODEL_CARD, TrainingSettings
from ..loha.training.settings.pictures import CaptionOptions, DataOptions, FolderOptions
from ..patcher import loras
from ..text import show
from .typed_paths import bare, typed_path


def data_options(values: dict) -> tuple[DataOptions, list[str]]:
    """Options out of widgets or the TOML, and notes on it. Paths are as `typed_path` takes them."""
    if values["dataset"].strip():
        found = read_dataset(_source(values["dataset"]), defaults=values.get("defaults") or MODEL_CARD)
        folders = tuple(
            dataclasses.replace(one, path=typed_path(one.path), masks=one.masks and typed_path(one.masks))
            for one in found.options.folders)
        notes = [*_not_used(_data_said(values, found.options), "here"), *found.lines()]
        return dataclasses.replace(found.options, folders=folders), notes
    folder = bare(values["folder"])
    if not folder:
        raise SettingsError("folder: empty. Give the folder that holds the pictures.")
    captions = CaptionOptions(**_known(CaptionOptions, values))
    chosen = [FolderOptions(typed_path(folder), captions=captions, flip=bool(values["flip"]),
                            validation_split=values.get("validation_split") or 0.0)]
    if validation := bare(values.get("validation_folder") or ""):
        chosen.append(FolderOptions(typed_path(validation), captions=captions, validation_split=1.0))
    return DataOptions(tuple(chosen), **_known(DataOptions, values)), []


def training_settings(values: dict) -> tuple[TrainingSettings, list[str]]:
    """Settings out of widgets or the TOML, and notes on it. A file of sample prompts is read."""
    settings, notes = _training_settings(values)
    prompts = bare(settings.sample_prompts)
    if is_prompt_file(prompts):
        settings = dataclasses.replace(settings, sample_prompts=read_prompts(typed_path(prompts)))
    parse_prompts(settings.sample_prompts)
    return settings, notes


def _training_settings(values: dict) -> tuple[TrainingSettings, list[str]]:
    if not (values.get("config") or "").strip():
        settings = TrainingSettings(**coerced(TrainingSettings, _known(TrainingSettings, values)))
        check_optimiser(settings.optimizer, settings.optimizer_args)
        check_schedule(settings)
        check_output_name(loras.folder(), settings)
        return settings, []
    found = read_settings(_source(values["config"]), values.get("defaults") or MODEL_CARD)
    check_output_name(loras.folder(), found.settings)
    former = {name: dict(field.former) for name, field in describe(TrainingSettings).items()}
    said = [(former[name].get(value, value), getattr(found.settings, name))
            for name, value in _known(TrainingSettings, values).items() if name != "defaults"]
    found = dataclasses.replace(found, given=found.given - {"base_model", "vae", "logging_dir"})
    notes = [*_not_used(said, "below"), *found.lines()]
    if found.data:
        notes.append(f"pictures: {', '.join(map(show, found.data))}: for LoHa Training Data, not read here")
    if found.has_dataset:
        notes.append("pictures: the folders in it: give it to LoHa Training Data too, as dataset")
    if found.settings.base_model or found.settings.vae:
        # Otherwise the trained file would name a checkpoint that nobody loaded.
        notes.append("ignored: checkpoint and VAE of the configuration: the connected ones are trained on")
    if found.settings.logging_dir:
        notes.append("ignored: logging_dir: in ComfyUI logs go to output/shinymas/NAME/logs")
    return dataclasses.replace(found.settings, base_model="", vae="", logging_dir=""), notes


def refuse_early(read: Callable[[dict], object], source: str, values: dict, inputs: Iterable[str],
                 *kinds: type) -> None:
    """Raise at queue time what `read` would raise in the run.

    Args:
        read: `data_options` or `training_settings`.
        source: the widget whose TOML, if it has one, stands for all others.
        values: None, or missing, where a widget is connected: what it will say is not known yet.
        inputs: the node's inputs that every prompt names.
        kinds: the dataclasses that the widgets are fields of. Where one is connected the others are
            still held against their ranges and choices, as ComfyUI would if this were not done here.

    Raises:
        LohaError: what `read` raises. Raised, not returned: ComfyUI would repeat a returned text for each widget.
    """
    toml = values.get(source)
    if toml is None:
        return
    if toml.strip() or all(values.get(name) is not None for name in inputs):
        read(values)
        return
    for kind in kinds:
        coerced(kind, _known(kind, values))


def _known(kind: type, values: dict) -> dict:
    """The fields of `kind` in `values`. A connected widget is None before the run: it keeps its default."""
    return {name: values[name] for name in describe(kind) if values.get(name) is not None}


def _data_said(values: dict, options: DataOptions) -> list[tuple[object, object]]:
    """Each widget beside a dataset's TOML, with what counts instead: of its folders, those that say otherwise."""
    of_folders = [(name, [getattr(one.captions, name) for one in options.folders]) for name in describe(CaptionOptions)]
    of_folders += [("flip", [one.flip for one in options.folders]), ("folder", [""]), ("validation_folder", [""]),
                   ("validation_split", [one.validation_split for one in options.folders])]
    pairs = [(value, getattr(options, name)) for name, value in _known(DataOptions, values).items()]
    return pairs + [
        (values[name], next((one for one in counting if one != values[name]), values[name]))
        for name, counting in of_folders if values.get(name) is not None]


def _not_used(pairs: Iterable[tuple[object, object]], where: str) -> list[str]:
    """A line on the widgets that say something else than what counts, if there are any."""
    count = sum(said != counts for said, counts in pairs)
    words = f"1 setting {where} differs and is" if count == 1 else f"{count} settings {where} differ and are"
    return [f"note: {words} not used"] if count else []


def _source(widget: str) -> str:
    """A TOML's text as it is; a path as `typed_path` takes it."""
    return str(typed_path(bare(widget))) if is_path(bare(widget)) else widget


def differences(settings: TrainingSettings) -> list[str]:
    """`key: value` lines of what is not the model page's v2.0 run."""
    page = TrainingSettings()
    return [f"{field.name}: {show(getattr(settings, field.name), 200)}" for field in dataclasses.fields(settings)
            if getattr(settings, field.name) != getattr(page, field.name)] or ["as the model page's v2.0 run"]


def with_known_start(settings: TrainingSettings) -> TrainingSettings:
    """A TOML's network_weights, looked for in the loras folder: a graph from elsewhere opens no other file."""
    if not settings.init_from:
        return settings
    name = settings.init_from.replace("\\", "/").rpartition("/")[2]
    path = loras.path_of(name)
    if path is None:
        raise SettingsError(f"network_weights: {show(name)} is not in the models/loras folder. Put it there, or load "
                            "it with Load LoHa and connect it to `resume`.")
    return dataclasses.replace(settings, init_from=path)
