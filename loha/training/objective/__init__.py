"""What a step minimises: noise and timesteps, the captions' states, the loss."""
