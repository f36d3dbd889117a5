"""Where the forecaster's series come from: the four ETT files, generated hours, or the user's own table.

ETT: Zhou et al. 2021, "Informer" (arXiv 2012.07436), https://github.com/zhouhaoyi/ETDataset. No torch.
"""

from pathlib import Path

from core.download import RemoteFile, fetch
from projects.forecast.config import ETT, Config
from projects.forecast.series import Series, read_series
from projects.forecast.synthetic import generate

_MIRRORS = (
    "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small",
    "https://huggingface.co/datasets/thuml/Time-Series-Library/resolve/main/ETT-small",
)
FILES = {
    name: RemoteFile(name=f"{file}.csv", size=size, sha256=sha256, urls=[f"{host}/{file}.csv" for host in _MIRRORS])
    for name, file, size, sha256 in (
        ("etth1", "ETTh1", 2_589_657, "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066"),
        ("etth2", "ETTh2", 2_417_960, "a3dc2c597b9218c7ce1cd55eb77b283fd459a1d09d753063f944967dd6b9218b"),
        ("ettm1", "ETTm1", 10_360_719, "6ce1759b1a18e3328421d5d75fadcb316c449fcd7cec32820c8dafda71986c9e"),
        ("ettm2", "ETTm2", 9_677_236, "db973ca252c6410a30d0469b13d696cf919648d0f3fd588c60f03fdbdbadd1fd"),
    )
}


def load_series(config: Config) -> tuple[Series, ...]:
    """The series that the settings name, downloaded, generated or read. Raises UserError."""
    if config.data == "synthetic":
        return (generate(config.num_synthetic, config.seed),)
    return read_series(
        fetch(FILES[config.data]) if config.data in ETT else Path(config.data),
        time_column=config.time_column,
        time_format=config.time_format,
        series_column=config.series_column,
        target=config.parse_target(),
        fill=config.fill,
    )
