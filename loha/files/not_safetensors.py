"""What a file that is no safetensors file looks like, in words that help the person who has it."""

from __future__ import annotations

_AGAIN = "download it again"
_PICKLE = "never load a pickle from a stranger; get the .safetensors version"

# Beginnings of files, what they tell, what to do.
_SIGNS = (
    (b"PK\x03\x04", "a zip archive (a PyTorch .pt or .ckpt file, or a packed download)",
     f"unpack it, or, if it is a PyTorch file: {_PICKLE}"),
    (b"\x80\x02", "a Python pickle (an old PyTorch .pt or .ckpt file)", _PICKLE),
    (b"\x80\x03", "a Python pickle", _PICKLE),
    (b"\x80\x04", "a Python pickle", _PICKLE),
    (b"\x80\x05", "a Python pickle", _PICKLE),
    (b"version https://git-lfs", "a git-LFS pointer: the text that stands for the file in git",
     "fetch the file itself with 'git lfs pull', or download it from the web page"),
    (b"GGUF", "a GGUF model", "choose a LoHa in .safetensors format"),
    (b"\x89PNG", "a PNG picture", "choose the LoHa, not its preview"),
    (b"\xff\xd8\xff", "a JPEG picture", "choose the LoHa, not its preview"),
    (b"RIFF", "a WebP picture or another RIFF file", "choose the LoHa, not its preview"),
    (b"\x1f\x8b", "a gzip archive", "unpack it"),
    (b"7z\xbc\xaf", "a 7-Zip archive", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"),
)
_TEXT_SIGNS = (
    (b"<", "a web page (HTML or XML): a log-in or error page saved in the file's place",
     f"{_AGAIN}, logged in if the site asks for it"),
    (b"{", "JSON text", _AGAIN),
)


def looks_like(beginning: bytes) -> str:
    """Return "it looks like …; do …" for the first bytes of a file that is no safetensors file."""
    for sign, kind, remedy in _SIGNS:
        if beginning.startswith(sign):
            return f"it looks like {kind}; {remedy}"
    text = beginning.removeprefix(b"\xef\xbb\xbf").lstrip()
    for sign, kind, remedy in _TEXT_SIGNS:
        if text.startswith(sign):
            return f"it looks like {kind}; {remedy}"
    if not beginning.strip(b"\0"):
        return f"it holds only zero bytes, as after an interrupted download; {_AGAIN}"
    if all(byte in b"\t\n\r" or 0x20 <= byte < 0x7F for byte in beginning):
        return f"it looks like a text file; {_AGAIN}"
    return f"it is damaged or of another format; {_AGAIN}"
