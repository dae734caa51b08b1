"""ComfyUI's MODEL, CLIP and VAE for the trainer, and what ComfyUI shows of a run."""
