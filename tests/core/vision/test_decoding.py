"""Images of any kind become what a person sees; what is no image is named, whatever is wrong with it."""

import contextlib
import io
import os
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.errors import UserError
from core.vision.decoding import (
    MAX_ASPECT,
    MAX_FILE_BYTES,
    MAX_PIXELS,
    center_square,
    decode,
    decode_bytes,
    image_size,
    load_squares,
)

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def stored(folder: Path, image: Image.Image, name: str, **options: Any) -> Path:
    """The image in a file."""
    image.save(folder / name, **options)
    return folder / name


def halves(mode: str = "RGB", size: tuple[int, int] = (6, 4)) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return image.convert(mode)


@pytest.mark.parametrize(("mode", "name"), [("P", "x.png"), ("CMYK", "x.tiff"), ("RGB", "x.bmp")])
def test_palettes_and_other_colors_become_rgb(mode: str, name: str, tmp_path: Path) -> None:
    image = decode(stored(tmp_path, halves(mode), name))
    assert image.shape == (4, 6, 3)
    assert image.dtype == np.uint8
    assert (tuple(image[0, 0]), tuple(image[0, 5])) == (RED, BLUE)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_on_white(mode: str, tmp_path: Path) -> None:
    image = halves("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    assert np.all(decode(stored(tmp_path, image.convert(mode), "x.png")) == 255)


def test_a_transparent_color_of_a_palette_lies_on_white(tmp_path: Path) -> None:
    palette = halves("P")
    image = decode(stored(tmp_path, palette, "x.png", transparency=palette.getpixel((0, 0))))
    assert (tuple(image[0, 0]), tuple(image[0, 5])) == (WHITE, BLUE)


@pytest.mark.parametrize("name", ["x.png", "x.tiff", "x.pgm"])
@pytest.mark.parametrize("values", [[0, 25_700, 65_535], [0, 100, 200]])
def test_16_bit_gray_is_scaled_down(name: str, values: list[int], tmp_path: Path) -> None:
    array = np.array([values], dtype=np.uint16)
    if name.endswith("pgm"):
        (tmp_path / name).write_bytes(b"P5 3 1 65535\n" + array.astype(">u2").tobytes())
    else:
        stored(tmp_path, Image.fromarray(array), name)
    image = decode(tmp_path / name)
    assert image[0, :, 0].tolist() == [value // 257 for value in values]
    assert np.all(image == image[:, :, :1])


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_values_without_a_known_range_are_refused(dtype: type, tmp_path: Path) -> None:
    path = stored(tmp_path, Image.fromarray(np.array([[0, 1], [2, 70_000]], dtype=dtype)), "deep.tiff")
    with pytest.raises(UserError, match=r"deep\.tiff.*range"):
        decode(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("name", "options"), [("x.png", {}), ("x.tiff", {}), ("x.tif", {"compression": "tiff_lzw"})])
def test_every_orientation_is_undone_once_and_the_size_is_that_of_the_decoded_image(
    orientation: int, name: str, options: dict[str, str], tmp_path: Path
) -> None:
    upright = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    stored_pixels = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = stored(tmp_path, Image.fromarray(np.ascontiguousarray(stored_pixels)), name, exif=exif, **options)
    assert np.array_equal(decode(path), upright)
    assert image_size(path) == (6, 4)


def test_damaged_metadata_beside_sound_pixels_is_passed_over(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 1
    exif[0x010E] = "x" * 40
    whole = bytearray(stored(tmp_path, halves(size=(16, 16)), "x.jpg", exif=exif).read_bytes())
    expected = decode(tmp_path / "x.jpg")
    begin = whole.index(b"Exif\0\0") + 6
    choose = random.Random(0)
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[begin + choose.randrange(40)] = choose.randrange(256)
        (tmp_path / "x.jpg").write_bytes(damaged)
        assert decode(tmp_path / "x.jpg").size == expected.size


def test_of_an_animation_the_first_image_counts(tmp_path: Path) -> None:
    others = [halves(size=(3, 3))]
    path = stored(tmp_path, Image.new("RGB", (3, 3), GREEN), "x.gif", save_all=True, append_images=others)
    assert np.all(decode(path) == GREEN)


def header_only(width: int, height: int) -> bytes:
    """A PNG that says it is large, and has no pixels."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def jpeg() -> bytes:
    """A whole JPEG file."""
    buffer = io.BytesIO()
    halves(size=(64, 64)).save(buffer, "JPEG")
    return buffer.getvalue()


BAD = {
    "empty": b"",
    "text": b"not an image at all\n" * 50,
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n",
    "half a jpeg": jpeg()[: len(jpeg()) // 2],
    "bomb": header_only(60_000, 60_000),
    "large": header_only(MAX_PIXELS // 1000 + 1, 1000),
    "no pixels": header_only(0, 0),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_image_is_a_user_error_that_names_it(kind: str, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(BAD[kind])
    with pytest.raises(UserError, match=r"holiday\.jpg") as caught:
        decode(tmp_path / "holiday.jpg")
    assert "\n" not in str(caught.value)


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    for path in (tmp_path, tmp_path / "missing.png", tmp_path / "fifo.png", tmp_path / "sparse.png", Path("/dev/zero")):
        for look in (decode, image_size):
            with pytest.raises(UserError, match=path.name):
                look(path)


def test_links_are_followed(tmp_path: Path) -> None:
    path = stored(tmp_path, halves(), "x.png")
    (tmp_path / "y.png").symlink_to(path)
    assert np.array_equal(decode(tmp_path / "y.png"), decode(path))
    assert np.array_equal(decode_bytes(path.read_bytes(), path), decode(path))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM"])
def test_a_damaged_file_is_an_image_or_a_user_error_but_nothing_else(kind: str, tmp_path: Path) -> None:
    buffer, choose = io.BytesIO(), random.Random(0)
    halves(size=(16, 16)).save(buffer, kind)
    whole, path = buffer.getvalue(), tmp_path / "x.jpg"
    for number in range(150):
        damaged = bytearray(whole[: choose.randrange(len(whole))] if number % 3 == 0 else whole)
        for _ in range(number % 4 if damaged else 0):
            damaged[choose.randrange(min(len(damaged), 200))] = choose.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(UserError):
            height, width, _ = decode(path).shape
            assert image_size(path) == (width, height)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (7, 1), (5, 8), (33, 32), (32, 100), (31, 31), (2, 900)])
@pytest.mark.parametrize("size", [16, 31])
def test_a_square_is_a_square_whatever_the_shape(height: int, width: int, size: int) -> None:
    result = center_square(np.full((height, width, 3), 77, dtype=np.uint8), size)
    assert result.shape == (size, size, 3)
    assert result.dtype == np.uint8
    assert np.all(result == 77)


def test_a_square_is_the_center_and_a_fitting_image_stays_as_it_is() -> None:
    wide = np.zeros((8, 24, 3), dtype=np.uint8)
    wide[:, 8:16] = 200
    assert np.all(center_square(wide, 8) == 200)
    exact = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert np.array_equal(center_square(exact, 8), exact)


def test_of_extreme_sides_the_middle_is_used_and_memory_stays_small() -> None:
    long = np.zeros((1, 100_000, 3), dtype=np.uint8)
    middle = slice(50_000 - MAX_ASPECT // 2, 50_000 + MAX_ASPECT // 2)
    long[:, middle] = 200
    assert np.all(center_square(long, 224) == 200)
    assert np.all(center_square(long.transpose(1, 0, 2), 224) == 200)


def test_many_load_at_once_and_a_broken_one_is_named(tmp_path: Path) -> None:
    paths = [stored(tmp_path, halves(size=(size, 4)), f"{size}.png") for size in (4, 8, 9)]
    squares = load_squares(paths, 4)
    assert all(np.array_equal(squares[row], center_square(decode(path), 4)) for row, path in enumerate(paths))
    paths[2].write_bytes(b"x")
    with pytest.raises(UserError, match=r"9\.png"):
        load_squares(paths, 4)
