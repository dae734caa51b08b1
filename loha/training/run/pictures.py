"""What a trained file says of its pictures, as sd-scripts' `train_network.py` does."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from ..data.dataset import TrainingData
from ..data.index import ImageFolder
from ..data.tags import tag_frequency
from ..settings.pictures import DataOptions


def of_pictures(data: TrainingData, processes: int) -> dict[str, Any]:
    """Keys without `ss_`."""
    options, index = data.options, data.index
    directories: dict[bool, dict[str, dict[str, int]]] = {False: {}, True: {}}  # those of regularisation pictures last
    for position, count in sorted(Counter(index.folder_of.tolist()).items()):
        folder = index.folders[position]
        named = directories[folder.options.is_reg]
        entry = named.setdefault(folder.label, {"n_repeats": folder.repeats, "img_count": 0})
        entry["img_count"] += count
    used = [index.folders[position].options for position in set(index.folder_of.tolist())]
    captions = [folder.captions for folder in used]
    return _datasets(data) | {
        "num_train_images": sum(data.showings(picture) for picture in range(len(index))
                                if not index.folder(picture).options.is_reg),
        "num_reg_images": sum(each["n_repeats"] * each["img_count"] for each in directories[True].values()),
        "num_batches_per_epoch": data.batches_per_epoch(processes),
        "batch_size_per_device": options.batch_size,
        "total_batch_size": options.batch_size * processes,
        "resolution": (options.resolution, options.resolution),
        "enable_bucket": options.buckets,
        "bucket_no_upscale": not options.upscale,
        "min_bucket_reso": options.bucket_min,
        "max_bucket_reso": options.bucket_max,
        "bucket_info": as_json(_buckets(data)),
        "shuffle_caption": any(one.shuffle for one in captions),
        "keep_tokens": max(one.keep_tokens for one in captions),
        "caption_dropout_rate": max(one.caption_dropout for one in captions),
        "caption_tag_dropout_rate": max(one.tag_dropout for one in captions),
        "caption_dropout_every_n_epochs": max(one.dropout_every_n_epochs for one in captions),
        "flip_aug": any(folder.flip for folder in used),
        "random_crop": any(folder.random_crop for folder in used),
        "color_aug": False,
        "face_crop_aug_range": None,
        "resize_interpolation": None,  # averaged down, Lanczos up: what None means in kohya's scripts
        "prior_loss_weight": options.prior_loss_weight,
        "cache_latents": options.latent_cache != "none",
        "dataset_dirs": as_json(directories[False]),
        "reg_dataset_dirs": as_json(directories[True]),
        "tag_frequency": as_json(tag_frequency(index)),
    }


def _datasets(data: TrainingData) -> dict[str, Any]:
    """kohya's `datasets`, where they differ."""
    if not any(folder.options.own for folder in data.index.folders):
        return {}
    own = {folder.options.dataset: data.options.of(folder.options) for folder in data.index.folders}
    return {"datasets": as_json([_dataset(data, number, options) for number, options in sorted(own.items())])}


def _dataset(data: TrainingData, number: int, options: DataOptions) -> dict[str, Any]:
    index, shown = data.index, {False: 0, True: 0}
    for picture in range(len(index)):
        folder = index.folder(picture).options
        if folder.dataset == number:
            shown[folder.is_reg] += data.showings(picture)
    counts = Counter(index.folder_of.tolist())
    return {
        "is_dreambooth": True,
        "batch_size_per_device": options.batch_size,
        "num_train_images": shown[False],
        "num_reg_images": shown[True],
        "resolution": [options.resolution] * 2,
        "enable_bucket": options.buckets,
        "min_bucket_reso": options.bucket_min,
        "max_bucket_reso": options.bucket_max,
        "subsets": [_subset(folder, counts[position]) for position, folder in enumerate(index.folders)
                    if folder.options.dataset == number],
    }


def _subset(folder: ImageFolder, count: int) -> dict[str, Any]:
    captions = folder.options.captions
    return {
        "img_count": count,
        "num_repeats": folder.repeats,
        "color_aug": False,
        "flip_aug": folder.options.flip,
        "random_crop": folder.options.random_crop,
        "shuffle_caption": captions.shuffle,
        "keep_tokens": captions.keep_tokens,
        "keep_tokens_separator": captions.keep_tokens_separator or None,
        "secondary_separator": captions.secondary_separator or None,
        "enable_wildcard": captions.wildcards,
        "caption_prefix": captions.prefix or None,
        "caption_suffix": captions.suffix or None,
        "image_dir": folder.label,
        "class_tokens": folder.name if folder.is_named else None,
        "is_reg": folder.options.is_reg,
    }


def _buckets(data: TrainingData) -> dict[str, Any] | None:
    """kohya's `bucket_info`: sizes with their counts, and how far aspect ratios were bent on average."""
    if not data.options.buckets:
        return None
    sizes, buckets = data.index.sizes.astype(float), data.index.buckets.astype(float)
    bent = abs(sizes[:, 0] / sizes[:, 1] - buckets[:, 0] / buckets[:, 1])
    return {
        "buckets": {
            str(at): {"resolution": list(size), "count": count}
            for at, (size, count) in enumerate(data.bucket_counts().items())
        },
        "mean_img_ar_error": float(bent.mean()),
    }


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
