"""Whether the trainer teaches: small people, a small U-Net that can draw them, characters that it learns by name.

Needs the pack as `shinymas_loha` (`suite.session.load_pack`) before it is imported; no ComfyUI.
"""
