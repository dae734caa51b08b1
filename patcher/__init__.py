"""A LoHa on ComfyUI's ModelPatcher: bound, patched, rewritten in place; and ComfyUI's models for the trainer.

`comfyui` is the only module that knows ComfyUI's versions and internals. Knows `loha`, never the nodes.
"""
