"""What a person should know of the pictures, one `key: value` a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice

from ....text import show
from ..settings.hyper_parameters import KOHYA
from .captions import Layout
from .dataset import TrainingData
from .index import PictureIndex
from .tags import few_pictures, pictures_by_character

_SHOWN = 50
_LAYOUTS = {
    Layout.LIST: "taken as one list, joined with commas",
    Layout.SPACED: "taken as one list, with commas in between",
    Layout.FIRST: "the first line is the caption, the others are not read",
}
# A tag and its comma take two tokens at least, and no caption has more than 225.
_MOST_TAGS = 113


def describe_data(data: TrainingData, processes: int = 1) -> str:
    """Counts, folders, buckets, captions and what was left out. Names are escaped."""
    index, options = data.index, data.options
    in_folder = Counter(index.folder_of.tolist())
    sources = index.caption_sources
    lines = [
        f"pictures: {len(index)}",
        f"shown per epoch: {len(data)}",
        f"batches per epoch: {data.batches_per_epoch(processes)}",
        f"left out: {len(index.left_out)}",
        f"resolution: {options.resolution}",
        f"batch size: {options.batch_size}",
        f"latent cache: {options.latent_cache}",
        *([f"buckets: by kohya's rule, in steps of {options.bucket_step}"] if options.bucketing == KOHYA else []),
        f"checked: {'every picture decoded' if index.was_decoded else 'headers and ends of files'}",
        f"captions: {sources['file']} from files, {sources['folder']} from folder names, "
        f"{sources['empty']} empty",
    ]
    lines += _uncaptioned(index)
    lines += (f"{layout.value}: {len(index.layouts[layout])} of these files, such as "
              f"{show(index.names[index.layouts[layout][0]])}'s: {what}"
              for layout, what in _LAYOUTS.items() if layout in index.layouts)
    lines += (
        f"folder: {show(folder.label)} · {in_folder[position]} × {folder.repeats}"
        for position, folder in enumerate(index.folders) if in_folder[position] and not folder.options.is_reg
    )
    lines += _regularisation(data, in_folder)
    if masked := sum(data.has_mask(picture) for picture in range(len(index))):
        files = sum(index.mask(picture) is not None for picture in range(len(index)))
        lines.append(f"masks: {files} from files, {masked - files} from transparency")
    lines += _datasets(data)
    lines += (f"bucket: {width}x{height} · {count}" for (width, height), count in data.bucket_counts().items())
    lines += _some("left out", [f"{show(path, 200)}: {reason}" for path, reason in index.left_out])
    passed_over = index.passed_over
    if passed_over.folders:
        lines.append(f"not looked into: {len(passed_over.folders)} deeper folder(s): give them as the folder, or move "
                     "their pictures up")
    lines += _some("not looked into", [show(path, 200) for path in passed_over.folders])
    lines += _some("caption of no picture", [show(path, 200) for path in passed_over.captions])
    if passed_over.endings:
        counts = (f"{count} {show(ending) or 'without an ending'}" for ending, count in passed_over.endings.items())
        lines.append(f"files not read: {', '.join(islice(counts, _SHOWN))}")
    lines += _validation(data)
    lines += (f"few pictures: {one}" for one in islice(few_pictures(pictures_by_character(data.index)), _SHOWN))
    lines += (f"cut: {path}: {tags} tags, 225 tokens hold {_MOST_TAGS} at most" for path, tags in _too_long(data))
    return "\n".join(lines)


def _uncaptioned(index: PictureIndex) -> list[str]:
    """Who trains without captions learns of it before the hours of training, not after them."""
    if not index.caption_sources["folder"]:
        return []
    # Regularisation pictures are meant to be called as their folder.
    folders = [None if folder.options.is_reg else folder.name for folder in index.folders]
    bare = [folders[at] for at, caption in zip(index.folder_of, index.captions, strict=True) if caption == folders[at]]
    return [f"note: {len(bare)} of {len(index)} pictures have no caption beside them: all they teach is their folder's "
            f"name, '{show(bare[0])}'. A caption is a text file with the picture's name; Tag Images writes them"
            ] if bare else []


def _datasets(data: TrainingData) -> list[str]:
    """Resolution and batch size of each dataset, where datasets differ."""
    if not any(folder.options.own for folder in data.index.folders):
        return []
    own = {folder.options.dataset: data.options.of(folder.options) for folder in data.index.folders}
    return [f"dataset {number + 1}: resolution {one.resolution}, batch size {one.batch_size}"
            for number, one in sorted(own.items())]


def _regularisation(data: TrainingData, in_folder: Counter[int]) -> list[str]:
    """Folders of regularisation pictures, and how often their pictures are shown in all."""
    shown: Counter[int] = Counter()
    for picture, folder in enumerate(data.index.folder_of.tolist()):
        shown[folder] += data.showings(picture)
    return [f"regularisation: {show(folder.label)} · {in_folder[position]} picture(s), shown {shown[position]} times "
            f"an epoch, weight {data.options.prior_loss_weight:g}"
            for position, folder in enumerate(data.index.folders) if in_folder[position] and folder.options.is_reg]


def _validation(data: TrainingData) -> list[str]:
    """How many pictures are set apart for validation, and of whom."""
    if data.validation is None:
        return []
    lines = [f"set apart for validation: {len(data.validation.index)} picture(s), never trained on"]
    apart = pictures_by_character(data.validation.index)
    lines += (f"set apart of {show(name)}: {count}" for name, count in islice(apart.most_common(), _SHOWN))
    return lines


def _some(key: str, values: list[str]) -> list[str]:
    """A line for each of the first values, and one on how many more there are."""
    more = len(values) - _SHOWN
    return [f"{key}: {value}" for value in values[:_SHOWN]] + ([f"{key}: … and {more} more"] if more > 0 else [])


def _too_long(data: TrainingData) -> Iterator[tuple[str, int]]:
    """The first pictures whose captions are cut however long each tag is, with their number of tags."""
    counts = ((picture, caption.count(",") + 1) for picture, caption in enumerate(data.index.captions))
    found = ((picture, tags) for picture, tags in counts if tags > _MOST_TAGS)
    return ((show(data.index.path(picture), 200), tags) for picture, tags in islice(found, _SHOWN))
