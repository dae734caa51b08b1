"""The widgets of the training nodes: which are folded away, and what is said of those that do not count."""

import pytest
from PIL import Image

SETTINGS, DATA = "ShinyMasTrainingSettings", "ShinyMasTrainingData"
SHOWN = {
    SETTINGS: {"config", "network_rank", "learning_rate", "max_train_epochs", "output_name"},
    DATA: {"folder", "resolution", "batch_size", "dataset"},
}


@pytest.fixture
def info(node, run_graph):
    def run(kind, **inputs):
        prompt = {"asked": node(kind, **inputs), "shown": node("PreviewAny", source=["asked", 1])}
        return run_graph(prompt)["shown"]["text"][0].splitlines()

    return run


@pytest.mark.parametrize("kind", SHOWN)
def test_all_but_the_first_few_are_folded_away(kind, object_info):
    inputs = object_info[kind]["input"]["required"]
    assert {name for name, (_, options) in inputs.items() if not options.get("advanced")} == SHOWN[kind]


@pytest.mark.parametrize("inputs, note", [
    ({"network_rank": 8, "learning_rate": 5e-4, "seed": 3}, "note: 3 settings below differ and are not used"),
    ({"lr_scheduler": "constant"}, "note: 1 setting below differs and is not used"),
    ({"network_rank": 4}, None),  # what the configuration says too
    ({"network_rank": 4, "lr_scheduler": "page"}, None),  # of another name in 0.1.0
])
def test_a_filled_config_says_what_does_not_count(info, inputs, note):
    lines = info(SETTINGS, **{"config": "network_dim = 4", "network_rank": 4, **inputs})
    assert (lines[0] == note) if note else not [line for line in lines if "not used" in line]
    assert "network_rank: 4" in lines


def test_a_filled_dataset_says_what_does_not_count(info, base):
    folder = base / "input" / "widgets"
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64)).save(folder / "1.png")
    toml = '[general]\nresolution = 256\n[[datasets]]\n[[datasets.subsets]]\nimage_dir = "widgets"\nflip_aug = true\n'
    lines = info(DATA, dataset=toml, folder="elsewhere", resolution=192, batch_size=4, shuffle=True, flip=True,
                 extension=".caption")
    # folder, resolution, shuffle and extension; the batch of 4 is the dataset's too, and so is the flip.
    assert "note: 4 settings here differ and are not used" in lines
