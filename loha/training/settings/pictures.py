"""What a person chooses about the pictures. Defaults are the model page's v2.0 run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from ....text import show
from ...errors import SettingsError
from .fields import MAX_SEED, check, option
from .hyper_parameters import KOHYA

BUCKET_STEP = 64
NEAREST = "nearest"
# Fields of `DataOptions` in which a run's datasets may differ.
OF_A_DATASET = frozenset({"resolution", "batch_size", "buckets", "bucket_min", "bucket_max", "upscale", "bucket_step"})
MAX_REPEATS = 10_000


@dataclass(frozen=True)
class CaptionOptions:
    """How a caption is varied each time its picture is seen."""

    shuffle: bool = option(False, "Shuffle the tags of a caption each time.")
    keep_tokens: int = option(0, "Leave the first n tags in place: the character's name.", low=0, high=1000)
    caption_dropout: float = option(0.0, "Chance to train without the caption.", low=0.0, high=1.0)
    tag_dropout: float = option(0.0, "Chance to drop each tag but the first n.", low=0.0, high=1.0)
    prefix: str = option("", "Put before every caption; its tags are counted by keep_tokens, shuffled and dropped.")
    extension: str = option("", "Ending of caption files; empty: .txt, else .caption.")
    suffix: str = option("", "Put behind every caption.", since="0.2.0")
    keep_tokens_separator: str = option(
        "", "Where a caption has this mark, the tags before it, and behind a second one, stay in place instead of the "
        "first n.", since="0.2.0")
    secondary_separator: str = option(
        "", "This mark, such as ;;;, joins tags that are shuffled and dropped together; a comma in the end.",
        since="0.2.0")
    wildcards: bool = option(
        False, "Choose one of the words between curly brackets, and one of a file's lines, each time.", since="0.2.0")
    token_warmup_min: int = option(1, "Tags at the start of token_warmup_step.", low=1, high=1000, since="0.2.0")
    token_warmup_step: float = option(
        0.0, "Steps over which ever more tags of a caption are trained; below 1 a share of the run, 0 is off.",
        low=0.0, high=10_000_000.0, since="0.2.0")
    dropout_every_n_epochs: int = option(
        0, "Train every n-th epoch without captions; 0: none.", low=0, high=100_000, since="0.2.0")

    def __post_init__(self) -> None:
        check(self)
        if self.extension and not self.extension.startswith("."):
            raise SettingsError(f"extension: {show(repr(self.extension))} does not begin with a dot: write .txt")

    @property
    def varies(self) -> bool:
        """Whether a picture's caption takes many forms; left out altogether, it is one more."""
        return self.shuffle or self.tag_dropout > 0 or self.wildcards or self.token_warmup_step > 0

    @property
    def without_chance(self) -> CaptionOptions:
        """The same, but that a caption is as it was written each time: for validation."""
        return replace(self, shuffle=False, caption_dropout=0.0, tag_dropout=0.0, token_warmup_step=0.0,
                       dropout_every_n_epochs=0)


@dataclass(frozen=True)
class FolderOptions:
    """One folder of pictures.

    Args:
        path: the folder.
        repeats: None for kohya's layout (sub folders `N_name`; pictures in the folder itself and
            in sub folders without a number count once). A number takes this one folder, n times.
        flip: mirror each picture half of the times.
        name: caption of pictures without a caption file; empty takes the folder's name.
        validation_split: share of its pictures that is set apart, validated on and never trained on; 1 for all.
        is_reg: whether its pictures are for regularisation.
        dataset: from 0, where a run has several; its regularisation pictures are as many as its others.
        alpha_mask: whether pictures' transparency says how much each place counts in the loss; below it the colours
            of the file are trained, not white.
        random_crop: whether a picture is cut anew each time, not in its middle.
        masks: folder of pictures' masks, each called and as large as its picture; they go before `alpha_mask`.
        own: options of its dataset, where they differ from the run's in what is `OF_A_DATASET`.
    """

    path: Path
    repeats: int | None = None
    captions: CaptionOptions = CaptionOptions()
    flip: bool = False
    name: str = ""
    validation_split: float = 0.0
    is_reg: bool = option(False, "Pictures for regularisation.", since="0.2.0", widget=False)
    dataset: int = option(0, "Number of the dataset.", low=0, high=MAX_SEED, since="0.2.0", widget=False)
    alpha_mask: bool = option(False, "What is transparent does not count in the loss.", since="0.2.0", widget=False)
    random_crop: bool = option(False, "Cut out another part each time.", since="0.2.0", widget=False)
    masks: Path | None = None
    own: DataOptions | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.validation_split <= 1.0:  # NaN is not either
            raise SettingsError(
                f"validation_split of {show(self.path, 200)}: {self.validation_split} is not a share from 0 to 1")
        if self.repeats is not None and not 1 <= self.repeats <= MAX_REPEATS:
            raise SettingsError(
                f"repeats of {show(self.path, 200)}: {self.repeats} is outside 1 to {MAX_REPEATS}"
            )


@dataclass(frozen=True)
class DataOptions:
    """The pictures of a run and how they become batches. Construction raises `SettingsError`."""

    folders: tuple[FolderOptions, ...] = field(default=())
    resolution: int = option(
        640, "Pictures are trained at about this many pixels squared; the page's v2.1 has 768.",
        low=64, high=2048, step=BUCKET_STEP)
    batch_size: int = option(
        4, "Pictures in a batch, per process; the page has 4 in two processes, v2.1 half.", low=1, high=1024)
    buckets: bool = option(True, "Keep each picture's shape. Off: a square out of the middle.")
    bucket_min: int = option(256, "Shortest side of a bucket.", low=64, high=2048, step=BUCKET_STEP)
    bucket_max: int = option(1024, "Longest side of a bucket.", low=64, high=8192, step=BUCKET_STEP)
    upscale: bool = option(False, "Enlarge small pictures. Off: they get a smaller bucket.")
    fit: str = option(
        "crop", "crop: cover the bucket, cut what sticks out. pad: show all of it on white.",
        choices=("crop", "pad"))
    latent_cache: str = option(
        "none", "none: encode afresh each time, as the page did. memory, disk: encode once.",
        choices=("none", "memory", "disk"))
    validation_seed: int = option(
        0, "Which pictures are set apart for validation, where a share of them is, and its noise, follow from it.",
        low=0, high=MAX_SEED, since="0.2.0")
    bucketing: str = option(
        NEAREST, "Rule for buckets and scaling. nearest: this trainer's. kohya: that of kohya's scripts, as in runs of "
        "their files.", choices=(NEAREST, KOHYA), since="0.2.0", widget=False)
    bucket_step: int = option(
        BUCKET_STEP, "Sides of buckets are multiples of this.", low=64, high=2048, step=BUCKET_STEP, since="0.2.0",
        widget=False)
    prior_loss_weight: float = option(
        1.0, "Weight of regularisation pictures in the loss.", low=0.0, high=1000.0, since="0.2.0", widget=False)

    def __post_init__(self) -> None:
        check(self)
        if self.latent_cache != "none" and any(folder.random_crop for folder in self.folders):
            raise SettingsError(f"random_crop and latent_cache {self.latent_cache} exclude each other: what is kept "
                                "has one cut. Turn one of them off (cache_latents).")
        if any(folder.random_crop and not self.of(folder).buckets for folder in self.folders):
            raise SettingsError("random_crop needs buckets here; without them kohya's scripts cut pictures without "
                                "scaling them. Write enable_bucket = true, or take random_crop out.")
        if self.bucketing != KOHYA and any(folder.random_crop for folder in self.folders):
            raise SettingsError(f"random_crop is of the bucketing {KOHYA}: choose that, or take random_crop out.")
        if self.bucketing == KOHYA and self.fit == "pad":
            raise SettingsError("bucketing kohya and fit pad exclude each other: kohya's scripts cut. Choose crop, or "
                                f"the bucketing {NEAREST}.")
        if self.bucketing != KOHYA and self.bucket_step != BUCKET_STEP:
            raise SettingsError(f"bucket_step {self.bucket_step} is of the bucketing {KOHYA}: choose that, or "
                                f"{BUCKET_STEP}.")
        if self.buckets and not self.bucket_min <= self.resolution <= self.bucket_max:
            raise SettingsError(
                f"resolution {self.resolution} is outside bucket_min {self.bucket_min} to bucket_max "
                f"{self.bucket_max}: change one of them"
            )

    def of(self, folder: FolderOptions) -> DataOptions:
        """What counts for a folder's pictures: its dataset's, where datasets differ."""
        return folder.own or self
