"""Pictures of any kind become what a person sees; what is no picture is named; folders are read in order."""

import contextlib
import io
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.errors import UserError
from core.images import MAX_PIXELS, Squares, decode, list_folder, load_squares, square

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def stored(folder: Path, picture: Image.Image, name: str, **options: Any) -> Path:
    """The picture in a file."""
    picture.save(folder / name, **options)
    return folder / name


def halves(mode: str = "RGB", size: tuple[int, int] = (6, 4)) -> Image.Image:
    """Red on the left, blue on the right."""
    picture = Image.new("RGB", size, RED)
    picture.paste(BLUE, (size[0] // 2, 0, *size))
    return picture.convert(mode)


def test_a_palette_is_resolved(tmp_path: Path) -> None:
    image = decode(stored(tmp_path, halves("P"), "x.png"))
    assert (image.shape, image.dtype) == ((4, 6, 3), np.uint8)
    assert (tuple(image[0, 0]), tuple(image[0, 5])) == (RED, BLUE)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    image = decode(stored(tmp_path, halves("CMYK"), "x.tiff"))
    assert (tuple(image[0, 0]), tuple(image[0, 5])) == (RED, BLUE)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_lies_on_white(mode: str, tmp_path: Path) -> None:
    picture = halves("RGBA")
    picture.putalpha(Image.new("L", picture.size, 0))
    name = "x.tiff" if mode == "PA" else "x.png"
    if mode == "PA":
        pytest.importorskip("PIL.TiffImagePlugin")
    image = decode(stored(tmp_path, picture.convert("LA") if mode != "RGBA" else picture, name))
    assert np.all(image == 255)


def test_a_transparent_color_of_a_palette_lies_on_white(tmp_path: Path) -> None:
    picture = halves("P")
    image = decode(stored(tmp_path, picture, "x.png", transparency=picture.getpixel((0, 0))))
    assert (tuple(image[0, 0]), tuple(image[0, 5])) == (WHITE, BLUE)


@pytest.mark.parametrize("name", ["x.png", "x.tiff"])
@pytest.mark.parametrize("values", [[0, 25_700, 65_535], [0, 100, 200]])
def test_16_bit_grey_is_scaled_down(name: str, values: list[int], tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([values], dtype=np.uint16))
    image = decode(stored(tmp_path, picture, name))
    assert image[0, :, 0].tolist() == [value // 257 for value in values]


def test_a_rotated_photo_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the left side is the top
    image = decode(stored(tmp_path, halves(), "x.png", exif=exif))
    assert image.shape == (6, 4, 3)
    assert (tuple(image[0, 0]), tuple(image[5, 0])) == (RED, BLUE)


def test_of_an_animation_the_first_picture_counts(tmp_path: Path) -> None:
    path = stored(
        tmp_path, Image.new("RGB", (3, 3), GREEN), "x.gif", save_all=True, append_images=[halves(size=(3, 3))]
    )
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
    "text": b"not a picture at all\n" * 50,
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n",
    "half a jpeg": jpeg()[: len(jpeg()) // 2],
    "bomb": header_only(60_000, 60_000),
    "large": header_only(MAX_PIXELS // 1000 + 1, 1000),
    "no pixels": header_only(0, 0),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_picture_is_a_user_error_that_names_it(kind: str, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(BAD[kind])
    with pytest.raises(UserError, match=r"holiday\.jpg") as caught:
        decode(tmp_path / "holiday.jpg")
    assert "\n" not in str(caught.value)


def test_a_folder_and_a_missing_file_are_no_pictures(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.png"):
        with pytest.raises(UserError, match=path.name):
            decode(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM"])
def test_a_damaged_file_is_a_picture_or_a_user_error_but_nothing_else(kind: str, tmp_path: Path) -> None:
    buffer, choose = io.BytesIO(), random.Random(0)
    halves(size=(16, 16)).save(buffer, kind)
    whole, path = buffer.getvalue(), tmp_path / "x.jpg"
    for number in range(150):
        damaged = bytearray(whole[: choose.randrange(len(whole))] if number % 3 == 0 else whole)
        for _ in range(number % 4 if damaged else 0):
            damaged[choose.randrange(min(len(damaged), 200))] = choose.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(UserError):
            assert decode(path).dtype == np.uint8


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (7, 1), (5, 8), (33, 32), (32, 100), (31, 31), (64, 64)])
@pytest.mark.parametrize("size", [16, 31])
def test_a_square_is_a_square_whatever_the_shape(height: int, width: int, size: int) -> None:
    result = square(np.full((height, width, 3), 77, dtype=np.uint8), size)
    assert (result.shape, result.dtype) == ((size, size, 3), np.uint8)
    assert np.all(result == 77)


def test_a_square_is_the_center_and_a_fitting_picture_stays_as_it_is() -> None:
    wide = np.zeros((8, 24, 3), dtype=np.uint8)
    wide[:, 8:16] = 200
    assert np.all(square(wide, 8) == 200)
    exact = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert np.array_equal(square(exact, 8), exact)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes with two pictures each, and a note."""
    for name in ("dog", "cat"):
        (tmp_path / name).mkdir()
        for number in (2, 1):
            stored(tmp_path / name, halves(), f"{number}.PNG")
    (tmp_path / "cat" / "note.txt").write_text("x", encoding="utf-8")
    return tmp_path


def test_a_folder_is_listed_by_class_and_name(root: Path) -> None:
    listing = list_folder(root)
    assert list(listing.classes) == ["cat", "dog"]
    assert [str(path.relative_to(root)) for path in listing.paths] == [
        "cat/1.PNG",
        "cat/2.PNG",
        "dog/1.PNG",
        "dog/2.PNG",
    ]
    assert listing.labels.tolist() == [0, 0, 1, 1]
    assert list_folder(root, classes=["ant", "cat", "dog"]).labels.tolist() == [1, 1, 2, 2]


def test_a_folder_that_cannot_be_a_data_set_is_a_user_error(root: Path) -> None:
    for bad in (root / "cat", root / "nowhere", root / "cat" / "note.txt"):
        with pytest.raises(UserError, match="fewer than two class folders"):
            list_folder(bad)
    with pytest.raises(UserError, match="dog"):
        list_folder(root, classes=["cat", "cow"])
    (root / "empty").mkdir()
    with pytest.raises(UserError, match="empty"):
        list_folder(root)


def test_pictures_load_at_once_or_one_by_one_and_a_broken_one_is_named(root: Path) -> None:
    listing = list_folder(root)
    together, single = load_squares(listing.paths, 4), Squares(listing, np.array([3, 0]), 4)
    image, label, index = single.load(0, np.random.default_rng(0))
    assert np.array_equal(image, together[3])
    assert (label, index, len(single), single.name(0)) == (1, 0, 2, str(listing.paths[3]))
    listing.paths[2].write_bytes(b"x")
    with pytest.raises(UserError, match=r"dog/1\.PNG"):
        load_squares(listing.paths, 4)
