"""Small data sets as users have them on their disks, changes to them, and inputs for inference."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("amber", "blue", "green")


def write_class_folders(root: Path, num: int = 8) -> Path:
    """ROOT/SPLIT/CLASS/*: `num` images of a class for training, 2 for validation and 2 for test."""
    return write_images(root, {"train": num, "val": 2, "test": 2})


def write_images(root: Path, num_per_class: Mapping[str, int]) -> Path:
    """ROOT/SPLIT/CLASS/*: images that their color tells apart, of odd sizes and several modes."""
    random = np.random.default_rng(0)
    for split, num in num_per_class.items():
        for label, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for number in range(num):
                pixels = random.integers(0, 120, (*random.integers(16, 40, 2), 3))
                pixels[..., label] += 120
                mode = ("RGB", "P", "RGBA", "CMYK")[number % 4]
                path = root / split / name / f"{number:02}.{'jpg' if mode == 'CMYK' else 'png'}"
                Image.fromarray(pixels.astype(np.uint8)).convert(mode).save(path)
    return root


def rotate_an_image(root: Path) -> None:
    """Rotates one training image, which leaves names, numbers and mean colors as they are."""
    path = next((root / "train").rglob("00.png"))
    with Image.open(path) as image:
        image.rotate(180).save(path)


def some_images(root: Path) -> list[object]:
    """A folder of images."""
    return [write_class_folders(root / "images", 2) / "test"]


def write_voc(root: Path) -> Path:
    """A folder in Pascal VOC form: images of one colored rectangle, 12 to train on."""
    random = np.random.default_rng(0)
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for split, numbers in {"train": range(12), "val": range(12, 16)}.items():
        for number in numbers:
            pixels = random.integers(90, 140, (60, 70, 3)).astype(np.uint8)
            x, y = (int(value) for value in random.integers(0, 40, 2))
            pixels[y : y + 20, x : x + 25] = ((230, 150, 20), (30, 60, 220))[number % 2]
            Image.fromarray(pixels).save(root / "JPEGImages" / f"{number:02}.png")
            corners = {"xmin": x + 1, "ymin": y + 1, "xmax": x + 25, "ymax": y + 20}
            box = "".join(f"<{name}>{value}</{name}>" for name, value in corners.items())
            thing = f"<object><name>{('amber', 'blue')[number % 2]}</name><bndbox>{box}</bndbox></object>"
            size = "<size><width>70</width><height>60</height><depth>3</depth></size>"
            text = f"<annotation><filename>{number:02}.png</filename>{size}{thing}</annotation>"
            (root / "Annotations" / f"{number:02}.xml").write_text(text)
        stems = "".join(f"{number:02}\n" for number in numbers)
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(stems)
    return root


def rename_a_box(root: Path) -> None:
    """Gives one box another class."""
    path = root / "Annotations" / "00.xml"
    path.write_text(path.read_text().replace("amber", "blue"))


def write_hours(folder: Path) -> Path:
    """An hourly table of a day's wave in two columns."""
    hours = np.arange(300)
    lines = ["date,tide,load"]
    for time, wave in zip(np.datetime64("2024-02-28T00") + hours, np.sin(2 * np.pi * hours / 24), strict=True):
        lines.append(f"{str(time).replace('T', ' ')}:00,{100 + 3 * wave:.3f},{wave * wave:.3f}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder / "table.csv"


def change_the_last_row(table: Path) -> None:
    """Changes a number of the test rows, which no scaler sees."""
    table.write_text(table.read_text().rpartition(",")[0] + ",7\n")


def recent_rows(folder: Path) -> list[object]:
    """Rows like those that the smoke run was trained on."""
    from projects.forecast.synthetic import generate

    series = generate(400, seed=7)
    rows = [f"{series.time_of(number)},{','.join(map(str, values))}" for number, values in enumerate(series.values)]
    (folder / "recent.csv").write_text("\n".join([",".join(["time", *series.columns]), *rows]) + "\n")
    return [folder / "recent.csv"]


def write_table_of_reviews(folder: Path) -> Path:
    """A .csv of reviews."""
    from projects.sentiment.synthetic import write_reviews

    rows = [f'"{text}",{("bad", "good")[label]}' for text, label in zip(*write_reviews(100, 0), strict=True)]
    (folder / "reviews.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    return folder / "reviews.csv"


def add_a_review(table: Path) -> None:
    """Adds a row."""
    table.write_text(table.read_text() + "one more fine text,good\n")
