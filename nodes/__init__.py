"""The ComfyUI nodes: thin, one file per theme; the only part of the pack that imports ComfyUI."""

from comfy_api.latest import ComfyExtension, io

from ..patcher.messages import see_prompts
from ..text import let_consoles_escape
from . import identity, live
from .apply import ApplyLoha
from .hook import LohaHookNode
from .load import LoadLoha
from .prompt import CharacterPrompt, on_prompt
from .recognition import RecognitionReport
from .save import SaveLoha
from .scene import Scene
from .sheet import CharacterList, Sheet
from .statistics import TagStatistics
from .tagging import TagImages, register_folders
from .training import LohaTrainingData, LohaTrainingSettings, TrainLoha


class ShinyMasExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        let_consoles_escape()
        live.serve()
        see_prompts(on_prompt)  # in `on_load` once every ComfyUI calls it: 0.3.75 does not
        register_folders()
        identity.register_folder()
        return [
            LoadLoha, ApplyLoha, LohaHookNode, CharacterPrompt, LohaTrainingData, LohaTrainingSettings, TrainLoha,
            SaveLoha, Scene, CharacterList, Sheet, TagImages, TagStatistics, RecognitionReport,
        ]
