"""Read a LoHa file with LyCORIS's own `create_network_from_weights`: run as `lycoris_read.py PATH`.

Prints, as JSON: the modules found in each model, what of the file was left over, and the largest
difference of each ΔW from what its own factors give. The models have real classes and shapes, and no memory.
"""

import json
import sys

import torch
from diffusers import UNet2DConditionModel
from lycoris.kohya import create_network_from_weights
from transformers import CLIPTextConfig, CLIPTextModel


def main(path: str) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        text = CLIPTextModel(CLIPTextConfig(
            vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12))
    # transformers 5 has lost the level whose name stands in every file of that time.
    encoder = torch.nn.Module()
    encoder.text_model = text
    network, weights = create_network_from_weights(1.0, path, None, encoder, unet)
    found = network.unet_loras + network.text_encoder_loras
    names = {module.lora_name for module in found}
    error = 0.0
    for module in found:
        a1, b1, a2, b2 = (weights[f"{module.lora_name}.hada_{part}"] for part in ("w1_a", "w1_b", "w2_a", "w2_b"))
        delta = (a1 @ b1) * (a2 @ b2) * (float(weights[f"{module.lora_name}.alpha"]) / b1.shape[0])
        error = max(error, float((module.get_weight(module.shape).flatten(1) - delta).abs().max()))
    print(json.dumps({
        "unet": len(network.unet_loras), "text": len(network.text_encoder_loras), "error": error,
        "kinds": sorted({type(module).__name__ for module in found}),
        "left": sorted({name.partition(".")[0] for name in weights} - names),
    }))


if __name__ == "__main__":
    main(sys.argv[1])
