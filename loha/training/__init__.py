"""Training of a LoHa: pictures and captions, settings, network, schedule, loop, metadata.

Knows torch and Pillow; encoders, U-Net and VAE are handed in by whoever runs it.
"""
