"""What a run leaves for people at its end: plots, and the lines of the closing report."""

from collections.abc import Mapping

from torch import Tensor

from core import plots as core_plots
from core.errors import printable
from core.run import RunFolder
from projects.gan import plots
from projects.gan.config import INCEPTION_FILE, Config, Facts
from projects.gan.evaluation import Evaluation


def plot_all(
    run: RunFolder[Config, Facts],
    generate: plots.Generate,
    samples: Tensor,
    neighbors: Tensor,
    real_distance: float,
) -> None:
    """Samples, interpolation, nearest training images, the animation, curves.

    samples, neighbors: uint8 [N, S, S, C], samples and the training images nearest to them.
    """
    folder, num_classes = run.path / "plots", len(run.facts.labels)
    plots.fixed_grid(generate, run.config, num_classes, folder / "samples.png")
    plots.interpolation(generate, run.config, num_classes, folder / "interpolation.png")
    plots.nearest(samples, neighbors, folder / "nearest.png")
    plots.animation(folder / "samples", folder / "training.webp")
    core_plots.curves(run.path, ["loss", "generator_loss", "recall", "diversity"])
    plots.distance_curve(run.path, real_distance, run.facts.classifier.title)


def results(
    run: RunFolder[Config, Facts], numbers: Mapping[str, float], evaluation: Evaluation, num: int
) -> dict[str, str]:
    """The lines of the closing report, by name; num: of samples."""
    facts = run.facts
    lines = {
        "Fréchet dist.": f"{numbers['frechet']:.4g} in {facts.classifier.title}; {num:,} samples",
        "compared to": f"real images {numbers['frechet_real']:.4g}, untrained generator "
        f"{numbers['frechet_untrained']:.4g} ({numbers['frechet_share']:.1%} of it is left)",
        "samples": f"precision {numbers['precision']:.2f}, recall {numbers['recall']:.2f}, "
        f"diversity {numbers['diversity']:.2f} of the real images'",
    }
    if "classes_covered" in numbers:
        missing = f"; missing: {printable(', '.join(evaluation.missing))}" if evaluation.missing else ""
        asked = f"; {numbers['label_accuracy']:.0%} are of the class asked for" if "label_accuracy" in numbers else ""
        lines["classes"] = f"{numbers['classes_covered']:.0f} of {len(facts.classes)}{missing}{asked}"
    lines["copies"] = (
        f"{numbers['copies']:.1%}; nearest training image at {numbers['nearest_gray_levels']:.1f} "
        f"gray levels, of held-out images at {numbers['nearest_gray_levels_held_out']:.1f}"
    )
    if "frechet_lite0" in numbers:
        distance, real = numbers["frechet_lite0"], numbers["frechet_lite0_real"]
        lines["in Lite0"] = f"Fréchet distance {distance:.4g} in EfficientNet-Lite0 (ImageNet), real images {real:.4g}"
    lines["FID, KID"] = f"not measured: they need torch-fidelity and {INCEPTION_FILE}"
    if "fid" in numbers:
        lines["FID, KID"] = f"{numbers['fid']:.2f}, {numbers['kid']:.4f} ± {numbers['kid_deviation']:.4f}"
    lines["collapse"] = evaluation.collapsed or "none"
    lines["animation"] = str(run.path / "plots" / "training.webp")
    return lines
