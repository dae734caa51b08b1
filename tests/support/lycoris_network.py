"""Write the file that LyCORIS's own `create_network` makes for SD 1.5: run as `lycoris_network.py PATH`.

A process of its own, so that an old LyCORIS can be put first on its path. The models that it is
built around have real classes and shapes and no memory.
"""

import sys

import torch
from diffusers import UNet2DConditionModel
from lycoris.kohya import create_network
from transformers import CLIPTextConfig, CLIPTextModel


def main(path: str) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        text = CLIPTextModel(CLIPTextConfig(
            vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12))
    # transformers 5 has lost the level whose name stands in every file of that time.
    encoder = torch.nn.Module()
    encoder.text_model = text
    # conv_dim comes as text from a trainer's command line: the number 0 would be taken for "not given".
    network = create_network(1.0, 16, 1, None, encoder, unet, algo="loha", conv_dim="0")
    network.apply_to(encoder, unet, True, True)
    network.save_weights(path, torch.float16, {"ss_network_module": "lycoris.kohya"})


if __name__ == "__main__":
    main(sys.argv[1])
