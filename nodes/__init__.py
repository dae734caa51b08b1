"""The ComfyUI nodes: thin, one file per theme; the only part of the pack that imports ComfyUI."""

from comfy_api.latest import ComfyExtension, io

from .apply import ApplyLoha
from .hook import LohaHookNode
from .load import LoadLoha
from .prompt import CharacterPrompt
from .save import SaveLoha
from .sheet import CharacterList, Sheet
from .training import LohaTrainingData, LohaTrainingSettings, TrainLoha


class ShinyMasExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            LoadLoha, ApplyLoha, LohaHookNode, CharacterPrompt, LohaTrainingData, LohaTrainingSettings, TrainLoha,
            SaveLoha, CharacterList, Sheet,
        ]
