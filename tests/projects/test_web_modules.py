"""What the pages compute beside the network equals Python's: tokens, random numbers, rows of tables and their times.

Run in a real browser, without onnxruntime-web.
"""

import csv
import io
import random
import shutil
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import UserError
from projects.forecast.config import NO_TIME_COLUMN
from projects.forecast.frequency import DAY, HOUR, Frequency
from projects.forecast.series import read_series
from projects.sentiment.tokenizer import Kind, train_tokenizer
from tests.conftest import ROOT
from tests.projects.browser import Browser, chromium, static_host

SNIPPETS = (
    *(
        "isn't",
        "It’s",
        "ca n't",
        "n't",
        "wouldn't've",
        "...",
        "..",
        "<br />",
        "<BR/>",
        "-LRB-",
        "[UNK]",
        "[PAD]",
        "[unk]",
    ),
    *(
        "Straße",
        "ΣΑΣ",
        "İstanbul",
        "ﬁne",
        "½",
        "x²",
        "e\u0301",
        "a\u0323\u0301",
        "한국어",
        "\u1112\u1161\u11ab",
        "日本語",
        "ไทย",
    ),
    *(
        "▁",
        "a▁b",
        "_a_",
        "\u00a0",
        "\t",
        "\n",
        "\u0085",
        "\ufeff",
        "👩‍👩‍👧",
        "１２３",
        "ｶﾞ",
        "١٢",
        "the",
        "good",
        "superb",
    ),
)
MODULES = ("core/pages/random.js", "projects/sentiment/tokenizer.js", "projects/forecast/series.js")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser on a folder that holds the modules."""
    site = tmp_path_factory.mktemp("site")
    (site / "index.html").write_text("<!doctype html><title>modules</title>")
    for name in MODULES:
        shutil.copy(ROOT / name, site)
    with chromium(tmp_path_factory.mktemp("chromium")) as started, static_host(site) as host:
        started.open(host)
        yield started


def odd_texts(num: int) -> list[str]:
    """Texts of difficult snippets and of any character of Unicode 3.2, which all Pythons know alike."""
    pick, unicode = random.Random(0), unicodedata.ucd_3_2_0
    characters = [chr(code) for code in range(0x20, 0x30000) if unicode.category(chr(code)) not in ("Cn", "Co", "Cs")]

    def one() -> str:
        pieces = (pick.choice((" ", "", "-")) + pick.choice(pick.choice((SNIPPETS, characters))) for _ in range(12))
        return "".join(pieces)

    return ["", " ", *(one() for _ in range(num))]


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_the_page_gives_a_text_the_tokens_that_python_gives_it(browser: Browser, kind: Kind) -> None:
    texts = odd_texts(1_500)
    tokenizer = train_tokenizer([*texts[:100], "the acting isn't superb", "the plot was good"] * 2, kind, 400, 1, 15)
    script = "const m = await import('/tokenizer.js'); return args[1].map(m.makeTokenizer(args[0], args[2]))"
    found = browser.run(script, tokenizer.to_json(), texts, tokenizer.max_length)
    for text, own, tokens in zip(texts, found, tokenizer.encode(texts), strict=True):
        words, numbers = tokenizer.words(text)
        assert own["tokens"] == tokens.tolist(), ascii(text)
        assert own["numbers"] == numbers.tolist(), ascii(text)
        if unicodedata.is_normalized("NFKC", text) and "-LRB-" not in text:  # Python shows a part of others
            assert own["words"] == words, ascii(text)


def test_a_seed_stands_for_the_same_numbers_as_in_numpy(browser: Browser) -> None:
    script = "const m = await import('/random.js'); return Array.from(m.standardNormal(args[0], args[1]))"
    for seed in (0, 1, 2**32, 2**53 - 1):
        own = np.asarray(browser.run(script, seed, 20_000), dtype=np.float32)
        expected = np.random.default_rng(seed).standard_normal(20_000, np.float32)
        np.testing.assert_allclose(own, expected, rtol=0, atol=1e-6)


HOURLY, DAILY = Frequency("microsecond", HOUR), Frequency("microsecond", DAY)
MONTHLY, WORKDAYS = Frequency("month", 1, 31), Frequency("business day", 1)
DAYS = [f"2024-01-{day:02}" for day in range(1, 13)]
WORKED = [day for day in DAYS if day not in ("2024-01-06", "2024-01-07")]
ENDS = ["2023-10-31", "2023-11-30", "2023-12-31", "2024-01-31"]
QUARTERS = ["2023-01-15T00:00Z", "2023-04-15T00:00Z", "2023-07-15T00:00Z"]
EUROPEAN = [f"{day}.1.2024 {hour:02}:00" for day in (9, 10) for hour in range(24)]
TABLES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "hours that leave midnight out": (["2024-02-28 23:00", "2024-02-29", "2024-02-29 01:00"], {"frequency": HOURLY}),
    "fractions and a zone": ([f"2024-01-0{day}T06:00:00.50+02:00" for day in range(1, 5)], {"frequency": DAILY}),
    "a missing day, filled": ([*DAYS[:5], *DAYS[6:]], {"frequency": DAILY, "fill": "linear"}),
    "a missing day, repeated": ([*DAYS[:5], *DAYS[6:]], {"frequency": DAILY, "fill": "previous"}),
    "a missing day, refused": ([*DAYS[:5], *DAYS[6:]], {"frequency": DAILY}),
    "working days": (WORKED, {"frequency": WORKDAYS}),
    "months' ends": (ENDS, {"frequency": MONTHLY}),
    "quarters on another day": (QUARTERS, {"frequency": Frequency("month", 3, 31)}),
    "seconds since 1970": (["86400", "90000", "93600"], {"frequency": HOURLY, "time_format": "s"}),
    "a format without zeros": (EUROPEAN, {"frequency": HOURLY, "time_format": "%d.%m.%Y %H:%M"}),
    "two hours apart": ([f"2024-01-01 0{hour}:00" for hour in (0, 2, 4, 6)], {"frequency": HOURLY}),
    "going back": ([DAYS[0], DAYS[2], DAYS[1]], {"frequency": DAILY}),
    "a day that is none": ([*DAYS[:3], "2024-02-30"], {"frequency": DAILY}),
    "no times": (["x", "y", "z"], {"frequency": Frequency("row", 1), "time_column": None}),
    "several series": (DAYS, {"frequency": DAILY, "series_column": "name"}),
    "a cell that is no number": (DAYS, {"frequency": DAILY, "bad": "1,5"}),
    "a missing number": (DAYS, {"frequency": DAILY, "bad": "n/a"}),
    "a missing number, filled": (DAYS, {"frequency": DAILY, "bad": "n/a", "fill": "linear"}),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_page_reads_and_continues_a_table_as_python_does(browser: Browser, name: str, tmp_path: Path) -> None:
    times, given = TABLES[name]
    facts = {"time_column": "when", "time_format": None, "series_column": None, "fill": "none", **given}
    bad = facts.pop("bad", None)
    text = io.StringIO()
    writer = csv.writer(text, delimiter=";" if "series" in name else ",", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(["when", "name", "a", 'b "quoted"'])
    for number, time in enumerate(times):
        cells = [time, "one" if number < len(times) // 2 else "two", number**2 / 7, -number]
        writer.writerow([*cells[:2], bad, cells[3]] if bad and number == 4 else cells)
    path = tmp_path / "table.csv"
    path.write_text(text.getvalue())
    columns = ('b "quoted"', "a")
    script = """
        const m = await import('/series.js');
        try {
          const timesOf = (s) => [1, 2, 3, 40].map((k) => m.writeTime(s, k));
          return m.readSeries(args[0], args[1]).map((s) => [s.name, s.values, timesOf(s)]);
        } catch (error) { return error.message }"""
    plain = {**facts, "frequency": asdict(facts["frequency"]), "columns": columns, "lookback": 2}
    found = browser.run(script, text.getvalue(), plain)
    time_column = facts.pop("time_column") or NO_TIME_COLUMN
    try:
        series = read_series(path, time_column=time_column, target=columns, **facts)
        assert all(each.frequency.is_like(facts["frequency"]) for each in series)
    except (UserError, AssertionError):
        assert isinstance(found, str)
        return
    assert not isinstance(found, str), found
    for (own_name, values, following), each in zip(found, series, strict=True):
        assert own_name == each.name
        np.testing.assert_allclose(values, each.values, rtol=1e-12)
        assert following == [each.write_time(each.times_after(40)[k - 1]) for k in (1, 2, 3, 40)]
