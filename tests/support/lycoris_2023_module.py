"""Save one Tucker module of an old LyCORIS, as after training, and its ΔW: run as `lycoris_2023_module.py PATH`.

Its forward pass never reads `hada_t2`, which so keeps its start values.
"""

import sys

import torch
from lycoris.modules.loha import LohaModule


def main(path: str) -> None:
    torch.manual_seed(0)
    module = LohaModule("conv", torch.nn.Conv2d(7, 11, 3), lora_dim=4, alpha=2, use_tucker=True)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name != "hada_t2":
                parameter.add_(torch.randn_like(parameter) * 0.2)
        delta = module.get_weight()
    tensors = {name: tensor.float() for name, tensor in module.state_dict().items()}
    torch.save({"tensors": tensors, "delta": delta}, path)


if __name__ == "__main__":
    main(sys.argv[1])
