"""The bar of an infer program stands on a terminal's standard error alone."""

import pytest

from core.progress import counted


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_bar_counts_on_a_terminal_and_results_stay_on_standard_output(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("TTY_COMPATIBLE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    if is_terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    for number in counted(iter("abc"), 3, "images"):
        print(number)
    printed = capsys.readouterr()
    assert printed.out == "a\nb\nc\n"
    assert ("3/3" in printed.err, "images" in printed.err, printed.err != "") == (is_terminal,) * 3
