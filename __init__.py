"""ShinyMas LoHa: ComfyUI nodes that load, apply, prompt and train LoHa files."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """Called once by ComfyUI (0.3.48 or newer); everything else is imported only then."""
    from .nodes import ShinyMasExtension

    return ShinyMasExtension()
