"""How a file writes its timestamps: read strictly, and written in the same form. No torch.

A form is derived from a column: ISO 8601 with its separator, digits and zone, a format as for strptime
with its zone, or whole seconds or milliseconds since 1970.
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain, combinations

from core.errors import UserError

EPOCH_UNITS = {"s": 1_000_000, "ms": 1_000}  # values of --time-format, and their microseconds
_ISO = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d|\d{8}|\d{4}-W\d\d-\d|\d{4}W\d{3}|\d{4}-W\d\d|\d{4}W\d\d)"
    r"(?:(?P<separator>\D)(?P<clock>\d\d(?::?\d\d(?::?\d\d)?)?)(?P<fraction>[.,]\d+)?(?P<zone>Z|[+-]\d\d[\d:]*)?)?",
    re.ASCII,
)
_DATES = {
    "0000-00-00": "%Y-%m-%d",
    "00000000": "%Y%m%d",
    "0000-W00-0": "%G-W%V-%u",
    "0000W000": "%GW%V%u",
    "0000-W00": "%G-W%V",
    "0000W00": "%GW%V",
}
_CLOCKS = {"00": "%H", "00:00": "%H:%M", "0000": "%H%M", "00:00:00": "%H:%M:%S", "000000": "%H%M%S"}
_PADDED = {"%d": "day", "%m": "month", "%H": "hour"}  # what some programs write without a leading zero
_ZONE = re.compile(r"[+-]\d\d:?\d\d(?::?\d\d)?|[A-Za-z]+", re.ASCII)
_PROBE = datetime(2001, 2, 3, 4, 5, 6)
_NUM_SHORTEST = 50


@dataclass(frozen=True)
class TimeForm:
    """How times are written.

    pattern: as for strftime, or s or ms. digits: of a second's fraction, after `point`. zone: the text behind it.
    unpadded: directives that are written without a leading zero.
    """

    pattern: str
    digits: int = 0
    point: str = "."
    zone: str = ""
    unpadded: tuple[str, ...] = ()

    def write(self, moment: datetime) -> str:
        """A time without a zone as text."""
        if self.pattern in EPOCH_UNITS:
            return str((moment - datetime(1970, 1, 1)) // timedelta(microseconds=EPOCH_UNITS[self.pattern]))
        pattern = self.pattern
        for directive in self.unpadded:
            pattern = pattern.replace(directive, str(getattr(moment, _PADDED[directive])))
        fraction = f"{moment.microsecond:06d}".ljust(self.digits, "0")[: self.digits]
        return moment.strftime(pattern) + (self.point + fraction if self.digits else "") + self.zone


def check_time_format(time_format: str | None) -> None:
    """Raises UserError for a --time-format that cannot be read with, or does not name a day."""
    if time_format is None or time_format in EPOCH_UNITS:
        return
    plain = time_format.replace("%Z", "UTC")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python warns of days without a year, which are refused below
            again = datetime.strptime(_PROBE.strftime(plain), plain)
    except (ValueError, re.error, OverflowError) as error:
        todo = "give s, ms, or a format such as %d.%m.%Y %H:%M"
        raise UserError("not a format of times", f"--time-format {time_format} ({error})", todo) from error
    if again.year != _PROBE.year:
        raise UserError("a format of times without a year", f"--time-format {time_format}", "add %Y, or give s or ms")


def parse_time(cell: str, time_format: str | None) -> datetime | None:
    """A cell as a time; None where it is none."""
    try:
        if time_format in EPOCH_UNITS:
            if not re.fullmatch(r"-?[0-9]{1,15}", cell):
                return None
            return datetime(1970, 1, 1) + timedelta(microseconds=int(cell) * EPOCH_UNITS[time_format or ""])
        return datetime.strptime(cell, time_format) if time_format else datetime.fromisoformat(cell)
    except (ValueError, OverflowError):
        return None


def with_its_zone(cell: str, time_format: str | None) -> tuple[str | None, str]:
    """A format whose %Z or %z is replaced by the zone that a cell has, and that zone's text; ("", "") for no zone.

    strptime reads few names of zones, and keeps none of them.
    """
    for directive in ("%Z", "%z"):
        if time_format and directive in time_format:
            for zone in (match.group() for match in _ZONE.finditer(cell)):
                literal = time_format.replace(directive, zone)
                if parse_time(cell, literal) is not None:
                    return literal, zone
    return time_format, ""


def find_form(cells: Sequence[str], time_format: str | None) -> TimeForm | None:
    """The form that all cells of a column share; None where it cannot be written again.

    Some programs leave the clock out at midnight, so the longest cell of ISO 8601 shows the form. time_format: without
    directives of zones.
    """
    if time_format in EPOCH_UNITS:
        return TimeForm(time_format or "")
    if time_format is not None:
        return _find_padding(cells, time_format)
    longest = max(cells, key=len)
    match = _ISO.fullmatch(longest)
    moment = parse_time(longest, None)
    if match is None or moment is None:
        return None
    pattern = _DATES[re.sub(r"\d", "0", match["date"])]
    if match["clock"] is not None:
        separator = match["separator"].replace("%", "%%")
        pattern += separator + _CLOCKS.get(re.sub(r"\d", "0", match["clock"]), "%%")
    fraction = match["fraction"] or "."
    form = TimeForm(pattern, len(fraction) - 1, fraction[0], match["zone"] or "")
    return form if form.write(moment.replace(tzinfo=None)) == longest else None


def _find_padding(cells: Sequence[str], time_format: str) -> TimeForm:
    """Which numbers the shortest cells write without a leading zero."""
    shortest = sorted(set(cells), key=len)[:_NUM_SHORTEST]
    present = [directive for directive in _PADDED if directive in time_format]
    for unpadded in chain.from_iterable(combinations(present, num) for num in range(len(present) + 1)):
        form = TimeForm(time_format, unpadded=unpadded)
        moments = [(cell, parse_time(cell, time_format)) for cell in shortest]
        if all(moment is not None and form.write(moment) == cell for cell, moment in moments):
            return form
    return TimeForm(time_format)  # names of months in capitals, for example: still read with the same format
