"""The tables and the plot of python -m core.machine."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core import plots

_VERSIONS = ("python", "torch", "numpy", "onnxruntime")


def tera_operations(size: int, seconds: float) -> float:
    """10¹² floating-point operations a second of a product of two square matrices."""
    return 2 * size**3 / seconds / 1e12


def tables(found: Mapping[str, Any]) -> str:
    """What core.machine.measure found, for a terminal."""
    about = found["environment"]
    parts = [
        f"processor  {about['processor']}, {about['threads']} threads of torch",
        f"gpu        {about['gpu'] or 'none: torch finds no usable GPU, so only the processor is measured'}",
        f"versions   {', '.join(f'{name} {about[name]}' for name in _VERSIONS if name in about)}",
    ]
    for device, by_dtype in found["matrix_product_seconds"].items():
        sizes = sorted({int(size) for by_size in by_dtype.values() for size in by_size})
        rows = [[str(size), *(_rate(size, by_size.get(size)) for by_size in by_dtype.values())] for size in sizes]
        parts.append(_table(f"matrix products, {device}, 10⁹ operations a second", ["size", *by_dtype], rows))
    rows = [[row["way"], str(row["megabytes"]), f"{row['gigabytes_per_second']:,.1f}"] for row in found["copies"]]
    parts.append(_table("copies", ["way", "MB", "GB a second"], rows))
    if found["memory"]:
        keys = list(found["memory"][0])
        rows = [[str(row[key]) for key in keys] for row in found["memory"]]
        parts.append(_table("memory of one operation on 64 MB, in MB", keys, rows))
    if found["gpu_wins_from_size"]:
        rows = [
            [dtype, *("never" if size is None else str(size) for size in sizes.values())]
            for dtype, sizes in found["gpu_wins_from_size"].items()
        ]
        parts.append(_table("the GPU wins from this size on", ["dtype", "data on the gpu", "with copies"], rows))
    return "\n\n".join(["\n".join(parts[:3]), *parts[3:]])


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Operations a second over the size of a matrix, and the rates of copies."""
    drawn, grid = plots.figure(12, 4.4, 1, 2)
    products, copies = grid[0]
    for device, by_dtype in found["matrix_product_seconds"].items():
        for dtype, by_size in by_dtype.items():
            sizes = sorted(by_size)
            rates = [1e3 * tera_operations(size, by_size[size]) for size in sizes]
            products.plot(sizes, rates, "o-" if device == "cpu" else "s--", label=f"{device}, {dtype}", markersize=4)
    products.set(xscale="log", yscale="log", xlabel="rows of a square matrix", ylabel="10⁹ operations a second")
    products.set_title("matrix products")
    for axis in (products.xaxis, products.yaxis):
        axis.set_major_formatter("{x:g}")  # the default writes powers as formulas, which plots.figure turns off
    products.grid(alpha=0.3)
    products.legend(fontsize=8)
    ways = [f"{row['way']}, {row['megabytes']} MB" for row in found["copies"]]
    copies.barh(ways, [row["gigabytes_per_second"] for row in found["copies"]])
    copies.set(xlabel="GB a second", title="copies")
    copies.grid(alpha=0.3, axis="x")
    plots.save_figure(drawn, path)


def _rate(size: int, seconds: float | None) -> str:
    """10⁹ operations a second; a dash where it was not measured."""
    return "–" if seconds is None else f"{1e3 * tera_operations(size, seconds):,.1f}"


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns wide enough for what stands in them; the first one to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        return "  ".join([cells[0].ljust(widths[0]), *padded[1:]])

    return "\n".join([title, line(heads), *(line(row) for row in rows)])
