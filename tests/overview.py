"""The image at the top of the README: python -m tests.overview [RUNS] makes it from a short run of each project.

RUNS is a folder for the runs, or one that holds them already; without it they are made in a temporary folder, which
takes about six minutes on two cores.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).parent.parent
OUTPUT = ROOT / "projects" / "overview.jpg"
# Project, the plot of its run that shows what it makes, the caption, flags of its run (--smoke where there are none).
SHOWN = (
    ("cifar10", "mistakes", "cifar10: classes of images, here the worst mistakes", ""),
    ("transfer", "gradcam", "transfer: where the fine-tuned network looked", ""),
    ("detection", "boxes", "detection: true and detected boxes", ""),
    (
        "gan",
        "samples",
        "gan: generated digits",
        "--data digits --width 32 --augment translation --epochs 16 --epoch-steps 500",
    ),
    ("style", "held_out", "style: photographs painted in given styles", ""),
    ("forecast", "forecasts", "forecast: series with intervals", ""),
    ("sentiment", "confusion", "sentiment: labels of texts", ""),
)
WIDTH, HEIGHT, CAPTION, COLUMNS = 400, 330, 26, 4


def main() -> None:
    """Makes what runs are missing, and writes the image."""
    with tempfile.TemporaryDirectory() as temporary:
        runs = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        tiles = []
        for project, plot, caption, flags in SHOWN:
            run_dir = runs / project
            if not (run_dir / "summary.json").exists():
                program = [sys.executable, "-m", f"projects.{project}.train", *(flags or "--smoke").split()]
                subprocess.run([*program, "--run-dir", str(run_dir)], check=True, cwd=ROOT)
            tiles.append(tile(run_dir / "plots" / f"{plot}.png", caption))
    rows = -(-len(tiles) // COLUMNS)
    image = Image.new("RGB", (COLUMNS * WIDTH, rows * HEIGHT), "white")
    for number, each in enumerate(tiles):
        image.paste(each, (number % COLUMNS * WIDTH, number // COLUMNS * HEIGHT))
    image.save(OUTPUT, quality=82, optimize=True, progressive=True)
    print(f"{OUTPUT}  {OUTPUT.stat().st_size / 1e3:.0f} kB")


def tile(path: Path, caption: str) -> Image.Image:
    """A plot on white, as large as fits, with a line of text above it."""
    result = Image.new("RGB", (WIDTH, HEIGHT), "white")
    with Image.open(path) as plot:
        shown = plot.convert("RGB")
    if shown.height > 1.2 * shown.width:  # of a tall grid the upper part, larger
        shown = shown.crop((0, 0, shown.width, round(0.85 * shown.width)))
    scale = min((WIDTH - 16) / shown.width, (HEIGHT - CAPTION - 12) / shown.height)
    size = round(scale * shown.width), round(scale * shown.height)
    shown = shown.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)
    result.paste(shown, ((WIDTH - shown.width) // 2, CAPTION + 4))
    ImageDraw.Draw(result).text((10, 7), caption, "black", ImageFont.load_default(14))
    return result


if __name__ == "__main__":
    main()
