"""What a run leaves for people at its end: pictures in plots/, and the closing lines."""

from collections.abc import Mapping

from torch import Tensor

from core import plots
from core.run import RunFolder
from projects.gan import pictures
from projects.gan.assessment import Assessment
from projects.gan.config import INCEPTION_FILE, Config


def draw_all(run: RunFolder[Config], drawing: pictures.Draw, samples: Tensor, neighbors: Tensor, floor: float) -> None:
    """Samples, interpolation, nearest training pictures, the moving picture, curves."""
    folder, num_classes = run.path / "plots", run.facts["num_classes"]
    pictures.fixed_grid(drawing, run.config, num_classes, folder / "samples.png")
    pictures.interpolation(drawing, run.config, num_classes, folder / "interpolation.png")
    pictures.nearest(samples, neighbors, folder / "nearest.png")
    pictures.animation(folder / "samples", folder / "training.webp")
    plots.curves(run.path, ["loss", "generator_loss", "recall", "diversity"])
    pictures.distance_curve(run.path, floor, run.facts["judge"]["title"])


def report(run: RunFolder[Config], numbers: Mapping[str, float], found: Assessment, num: int) -> str:
    """The closing lines."""
    lines = [
        f"Fréchet dist.  {numbers['frechet']:.4g} in {run.facts['judge']['title']}; {num:,} samples",
        f"               real pictures {numbers['frechet_real']:.4g}, untrained generator "
        f"{numbers['frechet_untrained']:.4g} ({numbers['frechet_share']:.1%} of it is left)",
        f"samples        precision {numbers['precision']:.2f}, recall {numbers['recall']:.2f}, "
        f"diversity {numbers['diversity']:.2f} of the real pictures'",
    ]
    if "classes_covered" in numbers:
        gone = f"; missing: {', '.join(found.missing)}" if found.missing else ""
        asked = f"; {numbers['label_accuracy']:.0%} are of the class asked for" if "label_accuracy" in numbers else ""
        lines.append(f"classes        {numbers['classes_covered']:.0f} of {len(run.facts['classes'])}{gone}{asked}")
    lines.append(
        f"copies         {numbers['copies']:.1%}; nearest training picture at {numbers['nearest_grey_levels']:.1f} "
        f"gray levels, of held-out pictures at {numbers['nearest_grey_levels_held_out']:.1f}"
    )
    if "fid" in numbers:
        lines.append(f"FID {numbers['fid']:.2f}, KID {numbers['kid']:.4f} ± {numbers['kid_deviation']:.4f}")
    else:
        lines.append(f"FID, KID       not measured: they need torchmetrics, torch-fidelity and {INCEPTION_FILE}")
    lines.append(f"collapse       {found.collapsed or 'none'}")
    lines.append(f"run folder     {run.path}  (metrics.jsonl, tensorboard/, checkpoints/)")
    lines.append(f"pictures       {run.path}/plots: samples.png, interpolation.png, nearest.png, training.webp, curves")
    return "\n" + "\n".join([*lines, f"next           python -m projects.gan.export {run.path}"])
