"""The published datasets, read from their archives without unpacking: SST-2 and the IMDB reviews.

SST-2: the Stanford Sentiment Treebank (Socher et al. 2013) in the two-class form of GLUE (Wang et al. 2019, arXiv
1804.07461, https://gluebenchmark.com). IMDB: Maas et al. 2011, https://ai.stanford.edu/~amaas/data/sentiment/.
"""

import tarfile
import zipfile
from pathlib import Path, PurePosixPath

from core.download import RemoteFile, fetch
from core.errors import UserError
from projects.sentiment.tables import Row

SST2 = RemoteFile(
    name="SST-2.zip",
    size=7_439_277,
    sha256="d67e16fb55739c1b32cdce9877596db1c127dc322d93c082281f64057c16deaa",
    urls=("https://dl.fbaipublicfiles.com/glue/data/SST-2.zip", "https://bj.bcebos.com/dataset/glue/SST.zip"),
)
IMDB = RemoteFile(
    name="aclImdb_v1.tar.gz",
    size=84_125_825,
    sha256="c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
    urls=(
        "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
        "https://d2l-data.s3-accelerate.amazonaws.com/aclImdb_v1.tar.gz",
        "https://dataset.bj.bcebos.com/imdb%2FaclImdb_v1.tar.gz",
    ),
)
SST2_SIZES = {"train": 67_349, "dev": 872}  # the labels of its third part are not public
IMDB_SIZE = 12_500  # reviews of each label in each part


def read_sst2() -> dict[str, list[Row]]:
    """Phrases of the training sentences, and the sentences of dev. Raises UserError for other content."""
    path, names = fetch(SST2), {"0": "negative", "1": "positive"}
    rows: dict[str, list[Row]] = {}
    with zipfile.ZipFile(path) as archive:
        for part, size in SST2_SIZES.items():
            member = f"SST-2/{part}.tsv"
            lines = archive.read(member).decode("utf-8").split("\n")[1:]
            pairs = [line.rstrip("\r").split("\t") for line in lines if line]
            if len(pairs) != size or any(len(pair) != 2 or pair[1] not in names for pair in pairs):
                raise UserError(
                    "not the SST-2 sentences", f"{member} in {path}", f"they have {size} lines of two columns"
                )
            where = f"{path.name}/{member} line "
            rows[part] = [Row(t.strip(), names[y], f"{where}{n}") for n, (t, y) in enumerate(pairs, start=2)]
    return rows


def read_imdb() -> dict[str, list[Row]]:
    """The labeled reviews of both parts. Raises UserError for other content."""
    path, names = fetch(IMDB), {"neg": "negative", "pos": "positive"}
    rows: dict[tuple[str, str], list[Row]] = {(part, name): [] for part in ("train", "test") for name in names}
    with tarfile.open(path) as archive:  # members are read as streams, in the archive's order
        for member in archive:
            parts = PurePosixPath(member.name).parts
            if len(parts) == 4 and parts[1:3] in rows and member.isfile():
                stream = archive.extractfile(member)
                assert stream is not None
                text = stream.read().decode("utf-8").strip()
                rows[parts[1], parts[2]].append(Row(text, names[parts[2]], f"{path.name}/{member.name}"))
    for (part, name), labeled in rows.items():
        if len(labeled) != IMDB_SIZE:
            where = f"{len(labeled)} in aclImdb/{part}/{name} of {path}"
            raise UserError("not the IMDB reviews", where, f"there are {IMDB_SIZE}")
        labeled.sort(key=lambda row: int(Path(row.where).stem.split("_")[0]))
    return {part: [*rows[part, "neg"], *rows[part, "pos"]] for part in ("train", "test")}
