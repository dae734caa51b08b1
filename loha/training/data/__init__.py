"""Pictures and captions: folders to an index, an index to batches, batches to latents."""

from ..randomness import seed_for, stream
from ..settings.pictures import CaptionOptions, DataOptions, FolderOptions
from .captions import CaptionError, read_caption, tags_of, varied
from .dataset import Batch, Item, TrainingData
from .folders import ImageFolder, folders_digest
from .index import PictureIndex, index_pictures
from .info import describe_data
from .latents import Latents, Posterior
from .loss_weights import LossWeights
from .pictures import PictureError
from .set_apart import training_data

__all__ = [
    "Batch", "CaptionError", "CaptionOptions", "DataOptions", "FolderOptions", "ImageFolder", "Item",
    "Latents", "LossWeights", "PictureError", "PictureIndex", "Posterior", "TrainingData", "describe_data",
    "folders_digest", "index_pictures", "read_caption", "seed_for", "stream", "tags_of", "training_data",
    "varied",
]
