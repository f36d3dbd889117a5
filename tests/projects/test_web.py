"""The page of each project in a real browser: its answers are those of infer, and it asks nothing of anybody else.

The folder is served by `python -m http.server`, below a path, as static hosts do.
"""

import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from core.errors import UserError
from core.web import fetch_runtime
from tests.conftest import Program
from tests.projects.browser import Browser, chromium, requests_in, static_host
from tests.projects.sample_data import recent_rows
from tests.smoke import Smoke

FILE = "input[type=file]"
SET = """
    const control = document.querySelector(args[0]);
    control.value = args[1];
    control.dispatchEvent(new Event(control.tagName === "SELECT" ? "change" : "input"))"""
CAMERA = """
    const button = document.querySelector("form button");
    button.click();
    while (!document.querySelector("video")) await new Promise((later) => setTimeout(later, 50));
    document.body.dataset.state = "asked";
    button.click()"""
TEXTS = (
    "The acting isn't superb — it's a <img src=x> DELIGHT!",
    "dull, stale jokes ... <br /> and ½ of it ﬁller; ไทย ΣΑΣ don’t",
    "[UNK] \u0065\u0301t\u00e9 " + "a long story " * 40,
)


class Page(NamedTuple):
    """A project's page in the browser, and the way to ask infer the same."""

    browser: Browser
    infer: Callable[..., list[dict[str, Any]]]
    folder: Path

    def ask(self, selector: str, value: Any, state: str = "done") -> Any:
        """What the page answers after a control is set, a field or a file. selector: of the control, as in CSS.

        state: in which the page has to end; what it says of a failed one is the answer.
        """
        self.browser.run("document.body.dataset.state = 'asked'")
        if isinstance(value, Path):
            self.browser.choose_file(selector, value)
        else:
            self.browser.run(SET, selector, value)
        shown = "return document.querySelector('#error').textContent"
        assert self.browser.wait_for("done", "failed") == state, self.browser.run(shown)
        if state == "failed":
            return self.browser.run(shown)
        return json.loads(
            self.browser.run("return decodeURIComponent(document.querySelector('#json').href.split(',')[1])")
        )


@pytest.fixture(scope="module")
def runtime() -> Path:
    """The folder of onnxruntime-web."""
    try:
        return fetch_runtime()
    except UserError as error:
        pytest.skip(f"onnxruntime-web is not here: {error}")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, runtime: Path) -> Iterator[Browser]:
    """One browser for all projects, which can reach nothing but this machine."""
    alone = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    camera = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    quick = "--js-flags=--liftoff-only --wasm-lazy-compilation"  # optimizing the runtime takes longer than all answers
    folder = tmp_path_factory.mktemp("chromium")
    with chromium(folder, alone, quick, *camera) as started:
        yield started
    requests = requests_in(folder / "net.json")
    assert any(address.endswith("/page/model.onnx") for _, address in requests)  # of a worker
    assert not [(origin, address) for origin, address in requests if not address.startswith(f"{origin}/")]


def test_the_page_answers_as_infer_does_and_asks_nobody_else(
    smoke: Smoke, project: str, browser: Browser, runtime: Path, program: Program, tmp_path: Path
) -> None:
    def run(name: str, *arguments: object) -> str:
        done = program(f"projects.{project}.{name}", model, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    model, site = smoke.run_dir / "model.onnx", tmp_path / "site"
    site.mkdir()
    made = run("web", "--output", site / "page", "--runtime", runtime)
    assert str(site / "page") in made

    def infer(*arguments: object) -> list[dict[str, Any]]:
        return [json.loads(line) for line in run("infer", *arguments).splitlines()]

    with static_host(site) as host:
        browser.open(f"{host}/page/")
        assert browser.wait_for("ready", "done", "failed") != "failed"
        CHECKS[project](Page(browser, infer, tmp_path))
        assert not browser.complaints()


def write_photographs(folder: Path) -> list[Path]:
    """Images of several sizes and modes: plain, lying on its side, and with transparent parts."""
    folder.mkdir()
    random = np.random.default_rng(0)
    soft = Image.fromarray(random.integers(0, 255, (5, 7, 4)).astype(np.uint8), "RGBA")
    soft.resize((90, 61), Image.Resampling.BICUBIC).convert("RGB").save(folder / "plain.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    soft.resize((75, 120), Image.Resampling.BICUBIC).convert("RGB").save(folder / "turned.png", exif=exif)
    soft.resize((64, 64)).save(folder / "clear.png")
    return [folder / name for name in ("plain.png", "turned.png", "clear.png")]


def check_classifier(page: Page) -> None:
    paths = write_photographs(page.folder / "photographs")
    for path, expected in zip(paths, page.infer(*paths, "--json", "--top", 1000), strict=True):
        record = page.ask(FILE, path)
        assert [record["label"], len(record["top"])] == [expected["label"], len(expected["top"])]
        own = {each["label"]: each["probability"] for each in record["top"]}
        for each in expected["top"]:
            assert own[each["label"]] == pytest.approx(each["probability"], abs=2e-3 if "clear" in path.name else 1e-4)


def check_camera(page: Page) -> None:
    check_classifier(page)
    page.browser.run(CAMERA)
    assert page.browser.wait_for("done", "failed") == "done"
    assert page.browser.run("return document.querySelector('.preview img').naturalWidth") > 100
    (page.folder / "no.png").write_text("no image")
    assert "not an image" in page.ask(FILE, page.folder / "no.png", "failed")


def check_detector(page: Page) -> None:
    paths = write_photographs(page.folder / "photographs")[:2]
    for path, expected in zip(paths, page.infer(*paths, "--json", "--threshold", 0.1), strict=True):
        page.ask(FILE, path)
        record = page.ask("input[type=range]", 0.1)
        assert [record["width"], record["height"]] == [expected["width"], expected["height"]]
        assert len(record["detections"]) == len(expected["detections"])
        for own, other in zip(record["detections"], expected["detections"], strict=True):
            assert own["label"] == other["label"]
            assert own["score"] == pytest.approx(other["score"], abs=1e-3)
            assert own["box"] == pytest.approx(other["box"], abs=0.1)


def check_texts(page: Page) -> None:
    for text, expected in zip(TEXTS, page.infer(*TEXTS, "--json", "--top", 1000), strict=True):
        record = page.ask("textarea", text)
        assert (record["text"], record["label"]) == (text, expected["label"])
        assert record["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-5)
        assert sorted(each["word"] for each in record["words"]) == sorted(each["word"] for each in expected["words"])
        for name in ("weight", "attention"):  # infer rounds them, and orders words by the rounded weight
            own, others = (sorted(each[name] for each in words["words"]) for words in (record, expected))
            np.testing.assert_allclose(own, others, atol=2e-4)
        assert page.browser.run("return document.querySelector('#answer img')") is None


def check_forecast(page: Page) -> None:
    path = Path(str(recent_rows(page.folder)[0]))
    record = page.ask(FILE, path)
    expected = page.infer(path, "--json", "--output", page.folder)
    assert len(record["rows"]) == len(expected)
    for own, other in zip(record["rows"], expected, strict=True):
        assert list(own) == list(other)
        assert own["time"] == other["time"]
        assert list(own.values())[1:] == pytest.approx(list(other.values())[1:], rel=1e-4, abs=1e-4)
    (page.folder / "other.csv").write_text("time,homes\n2024-01-01,1\n2024-01-02,2\n")
    assert "no such column: offices" in page.ask(FILE, page.folder / "other.csv", "failed")


def check_painter(page: Page) -> None:
    path = write_photographs(page.folder / "photographs")[0]
    page.ask(FILE, path)
    record = page.ask("select", 4)  # the photograph's own size
    page.infer(path, "--output", page.folder / "painted.png", "--json")
    compare_pixels(pixels_of(record["image"]), np.asarray(Image.open(page.folder / "painted.png")))


def check_generator(page: Page) -> None:
    for number in (0, 2_718_281_828_459):
        record = page.ask("input[type=number]", number)
        folder = page.folder / f"seed {number}"
        expected = page.infer("--num", 16, "--seed", number, "--output", folder, "--json")
        for own, other in zip(record["images"], expected, strict=True):
            assert own["label"] == other["label"]
            compare_pixels(pixels_of(own["image"]), np.asarray(Image.open(other["path"]).convert("RGB")))


def pixels_of(address: str) -> NDArray[np.uint8]:
    """The pixels of a data URL, uint8 [H, W, 3]."""
    content = base64.b64decode(address.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def compare_pixels(own: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    """Fails where two images differ by more than a rounding."""
    assert own.shape == expected.shape
    assert np.abs(own.astype(int) - expected.astype(int)).max() <= 1


CHECKS: dict[str, Callable[[Page], None]] = {
    "cifar10": check_camera,
    "transfer": check_classifier,
    "sentiment": check_texts,
    "forecast": check_forecast,
    "style": check_painter,
    "gan": check_generator,
    "detection": check_detector,
}
