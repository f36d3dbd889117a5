"""Changes to a file's bytes: of bits, of blocks, of numbers, of words that readers look for."""

import random
import re

_NUMBER = re.compile(rb"-?\d+(\.\d+)?")
_NUMBERS = (b"0", b"-1", b"1e999", b"nan", b"2147483648", b"18446744073709551616", b"1" * 5000, b"0.5", b"\xd9\xa3")
_WORDS = (
    *(
        b'"',
        b"'",
        b",",
        b";",
        b"\n",
        b"\r",
        b"\0",
        b"{",
        b"}",
        b"[" * 3000,
        b"null",
        b"true",
        b"\xff\xfe",
        b"\xed\xa0\x80",
    ),
    *(
        b"\xef\xbb\xbf",
        b"\x1b]0;x\x07",
        b"../../canary",
        b"/etc/hostname",
        b"<!ENTITY x SYSTEM 'file:///etc/hostname'>",
    ),
    *(b"<?xml version='1.0' encoding='klingon'?>", b"\\ud800", b"x" * 100_000),
)


def mutate(content: bytes, source: random.Random) -> bytes:
    """The content with one to four changes."""
    for _ in range(source.choice((1, 1, 1, 2, 4))):
        at = source.randrange(len(content) + 1)
        end = min(len(content), at + source.choice((1, 2, 8, 64, 1000)))
        kind = source.randrange(8)
        if kind == 0 and content:
            at = min(at, len(content) - 1)
            content = content[:at] + bytes([content[at] ^ 1 << source.randrange(8)]) + content[at + 1 :]
        elif kind == 1:
            content = content[:at]
        elif kind == 2:
            content = content[:at] + content[end:]
        elif kind == 3:
            content = content[:at] + content[at:end] * source.choice((2, 3, 50)) + content[end:]
        elif kind == 4:
            content = content[:at] + source.randbytes(source.choice((1, 4, 16))) + content[end:]
        elif kind == 5:
            content = content[:at] + source.choice(_WORDS) + content[at:]
        else:
            number = _NUMBER.search(content, at, at + (1 << 16)) or _NUMBER.search(content, 0, 1 << 16)
            begin, end = number.span() if number else (at, at)
            content = content[:begin] + source.choice(_NUMBERS) + content[end:]
    return content
