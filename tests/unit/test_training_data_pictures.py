"""Strange pictures: what is read right, and what is left out with which words."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from shinymas_loha.loha.training.data.pictures import PictureError, check_decodes, fitted, read_header, read_pixels


def _photo(width: int = 96, height: int = 128) -> Image.Image:
    """Red left half, blue right half, a green line on top."""
    image = Image.new("RGB", (width, height), (255, 0, 0))
    image.paste((0, 0, 255), (width // 2, 0, width, height))
    image.paste((0, 255, 0), (0, 0, width, 16))
    return image


def _near(pixel, expected) -> bool:
    return all(abs(a - b) < 40 for a, b in zip(pixel, expected, strict=True))


def _rotation(ending: str, kept_in: str, orientation: int) -> dict:
    """Options of `save` that say how the picture is to be turned, in EXIF or in XMP alone."""
    if kept_in == "exif":
        exif = Image.Exif()
        exif[0x0112] = orientation
        return {"exif": exif}
    xmp = ('<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
           '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
           f'tiff:Orientation="{orientation}"/></rdf:RDF></x:xmpmeta>')
    if ending != "png":
        return {"xmp": xmp.encode()}
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", xmp)
    return {"pnginfo": text}


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
@pytest.mark.parametrize("kept_in", ["exif", "xmp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotation_in_every_format(tmp_path, ending, kept_in, orientation):
    stored = _photo()
    path = tmp_path / f"a.{ending}"
    stored.save(path, **_rotation(ending, kept_in, orientation))
    header = read_header(path)
    seen = read_pixels(path)
    assert (header.width, header.height) == seen.size == ((128, 96) if orientation >= 5 else (96, 128))
    assert header.ends_well
    # The green line lies on the side that the orientation's definition gives.
    width, height = seen.size
    middle = {"top": (width // 2, 4), "bottom": (width // 2, height - 5),
              "left": (4, height // 2), "right": (width - 5, height // 2)}
    side = ["top", "top", "bottom", "bottom", "left", "right", "right", "left"][orientation - 1]
    assert _near(seen.getpixel(middle[side]), (0, 255, 0))
    assert sum(_near(seen.getpixel(at), (0, 255, 0)) for at in middle.values()) == 1


@pytest.mark.parametrize("options", [{"quality": 80}, {"lossless": True}, {"quality": 80, "exif": b"Exif\0\0"}])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_webp_headers_of_every_kind(tmp_path, options, mode):
    path = tmp_path / "a.webp"
    image = Image.new(mode, (130, 71), "red")
    if mode == "RGBA":
        image.putalpha(100)
    image.save(path, **options)
    header = read_header(path)
    assert (header.width, header.height) == (130, 71) == read_pixels(path).size


def test_transparency_lands_on_white(tmp_path):
    clear = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    palette = Image.new("P", (64, 64), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    for name, image, options in (
        ("rgba.png", clear, {}), ("rgba.webp", clear, {"lossless": True}), ("la.png", clear.convert("LA"), {}),
        ("palette.png", palette, {"transparency": 0}),
        ("keyed.png", Image.new("RGB", (64, 64), (1, 2, 3)), {"transparency": (1, 2, 3)}),
    ):
        image.save(tmp_path / name, **options)
        assert read_pixels(tmp_path / name).getpixel((5, 5)) == (255, 255, 255), name


def test_every_mode_comes_out_as_8_bit_rgb(tmp_path):
    for name, image, expected in (
        ("grey16.png", Image.fromarray(np.full((64, 64), 32896, np.uint16)), (128, 128, 128)),
        ("grey.png", Image.new("L", (64, 64), 128), (128, 128, 128)),
        ("bit.png", Image.new("1", (64, 64), 1), (255, 255, 255)),
        ("palette.png", Image.new("RGB", (64, 64), (10, 20, 30)).quantize(4), (10, 20, 30)),
        ("cmyk.jpg", Image.new("CMYK", (64, 64), (0, 0, 0, 128)), (127, 127, 127)),
        ("grey.jpg", Image.new("L", (64, 64), 200), (200, 200, 200)),
    ):
        image.save(tmp_path / name)
        seen = read_pixels(tmp_path / name)
        assert seen.mode == "RGB"
        assert np.abs(np.array(seen.getpixel((9, 9))) - np.array(expected)).max() <= 2, name


def test_16_bit_colour(tmp_path):
    path = tmp_path / "a.png"
    row = b"\0" + struct.pack(">3H", 65535, 32896, 0) * 64
    _write_png(path, 64, 64, 16, 2, row * 64)
    assert read_pixels(path).getpixel((1, 1)) == (255, 128, 0)


def _write_png(path, width, height, depth, colour, rows: bytes) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("width", "height", "reason"), [
    (10_000, 10_001, "10000×10001, over 100 megapixels"),
    (65_000, 65_000, "over 100 megapixels"),
    (1, 1, "1×1, smaller than 64 pixels"),
    (2000, 63, "2000×63, smaller than 64 pixels"),
    (4100, 1000, "4100×1000, longer than 4 times its width"),
])
def test_sizes_that_are_left_out_by_the_header_alone(tmp_path, width, height, reason):
    path = tmp_path / "a.png"
    _write_png(path, width, height, 8, 0, b"")
    with pytest.raises(PictureError, match="Mend it or take it out") as caught:
        read_header(path)
    assert caught.value.reason.startswith(reason)
    with pytest.raises(PictureError):
        read_pixels(path)


@pytest.mark.parametrize("ending", ["png", "webp"])
def test_animated_pictures_are_left_out(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    _photo().save(path, save_all=True, append_images=[Image.new("RGB", (96, 128))])
    with pytest.raises(PictureError, match="animated"):
        read_header(path)


def test_a_jpeg_with_a_second_picture_in_it_is_still(tmp_path):
    path = tmp_path / "a.jpg"
    _photo().save(path, format="MPO", save_all=True, append_images=[Image.new("RGB", (96, 128))])
    assert read_header(path).width == 96
    assert _near(read_pixels(path).getpixel((4, 100)), (255, 0, 0))


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
@pytest.mark.parametrize("part", [0.98, 0.5])
def test_truncated_files_are_seen_at_their_end_and_refused(tmp_path, ending, part):
    path = tmp_path / f"a.{ending}"
    noise = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    raw = path.read_bytes()
    path.write_bytes(raw[:int(len(raw) * part)])
    try:
        assert not read_header(path).ends_well
    except PictureError:
        return
    with pytest.raises(PictureError, match="broken or truncated|not a JPEG"):
        check_decodes(path)
    with pytest.raises(PictureError):
        read_pixels(path)


def test_damage_inside_is_found_by_decoding(tmp_path):
    path = tmp_path / "a.png"
    noise = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 255
    path.write_bytes(raw)
    assert read_header(path).ends_well
    with pytest.raises(PictureError, match="broken"):
        check_decodes(path)


@pytest.mark.parametrize(("name", "body", "reason"), [
    ("a.png", b"", "an empty file"),
    ("b.jpg", b"<html>not found</html>", "not a JPEG, PNG or WebP"),
    ("c.png", b"version https://git-lfs.github.com/spec/v1\n", "not a JPEG, PNG or WebP"),
    ("d.webp", b"RIFF\x10\0\0\0WEBPVP8 ", "broken or truncated"),
    ("e.png", b"GIF89a" + b"\1" * 60, "not a JPEG, PNG or WebP"),
    ("f.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "broken|not a JPEG"),
])
def test_things_that_are_no_pictures(tmp_path, name, body, reason):
    path = tmp_path / name
    path.write_bytes(body)
    with pytest.raises(PictureError, match=reason):
        read_header(path)


def test_a_jpeg_under_the_name_of_a_png_is_read(tmp_path):
    path = tmp_path / "a.png"
    _photo().save(path, format="JPEG")
    assert read_header(path).height == 128


def test_a_missing_file_is_a_picture_error(tmp_path):
    for read in (read_header, read_pixels, check_decodes):
        with pytest.raises(PictureError, match="cannot be read"):
            read(tmp_path / "gone.png")


@pytest.mark.parametrize("own", [(640, 640), (1136, 640), (641, 999), (70, 64)])
@pytest.mark.parametrize("bucket", [(640, 640), (832, 448), (64, 64), (448, 832)])
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_fitting_fills_the_bucket_exactly(own, bucket, fit):
    array = fitted(Image.new("RGB", own, "black"), bucket, fit)
    assert array.shape == (bucket[1], bucket[0], 3)
    if fit == "crop":
        assert array.max() == 0, "a crop shows no canvas"
    else:
        # The canvas is white along one direction at most.
        white = array[..., 0] > 128
        assert not white[bucket[1] // 2].any() or not white[:, bucket[0] // 2].any()


def test_a_crop_keeps_the_middle():
    image = Image.new("RGB", (300, 100), "black")
    image.paste("red", (100, 0, 200, 100))
    array = fitted(image, (64, 64), "crop")
    assert (array[:, 2:-2, 0] > 200).all()
