"""Every kind of table is read alike; what is wrong with a row is said with its line, and the other rows are read."""

from pathlib import Path

import pytest

from core.errors import UserError
from projects.sentiment.tables import Columns, Fault, read_table, similar_labels

ANY = Columns(None, None)


def read(path: Path, wanted: Columns = ANY) -> tuple[list[tuple[str, str | None]], list[Fault], Columns]:
    faults: list[Fault] = []
    rows, columns = read_table(path, wanted, faults)
    return [(row.text, row.label) for row in rows], faults, columns


def put(tmp_path: Path, name: str, content: bytes | str) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'text,label\nfine film,1\n"bad, ""very"" bad",0\n'),
        ("a.csv", '\ufefftext,label\r\nfine film,1\r\n"bad, ""very"" bad",0\r\n'),
        ("a.csv", 'text;label\nfine film;1\n"bad, ""very"" bad";0'),
        ("a.CSV", '"text","label","C","D"\n"fine film",1,,\n\n"bad, ""very"" bad",0,,\n'),
        ("a.tsv", 'label\tsentence\n1\tfine film\n0\tbad, "very" bad\n'),
        ("a.csv", 'text,label\rfine film,1\r"bad, ""very"" bad",0\r'),
        ("a.csv", '"text";"C, D";"label"\nfine film;;1\n"bad, ""very"" bad";;0'),
        ("a.csv", 'text,label\nfine film,1\n"bad, ""very"" bad",0\n'.encode("utf-16")),
        ("a.TSV", 'label\tsentence\r1\tfine film\r0\tbad, "very" bad\r'),
        ("a.tsv", 'label\tsentence\r\n1\tfine film\r\n0\tbad, "very" bad'.encode("utf-16")),
        ("a.jsonl", '{"label": 1, "text": "fine film"}\n\n{"text": "bad, \\"very\\" bad", "label": "0"}\n'),
    ],
)
def test_all_kinds_give_the_same_rows(name: str, content: str | bytes, tmp_path: Path) -> None:
    rows, faults, _ = read(put(tmp_path, name, content))
    assert rows == [("fine film", "1"), ('bad, "very" bad', "0")]
    assert faults == []


def test_a_text_may_hold_line_breaks_and_lines_are_counted_on(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", 'text,label\n"one\ntwo\n\nthree",1\n,0\n')
    rows, faults, _ = read(path)
    assert rows == [("one\ntwo\n\nthree", "1")]
    assert faults == [Fault("empty text", f"{path} line 6")]


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        ("review,sentiment,C,D", ("review", "sentiment")),
        ("id,Sentence,Label", ("Sentence", "Label")),
        ("stars,date,body", ("body", "stars")),
        ("content,title", ("content", None)),
    ],
)
def test_columns_are_guessed_from_the_header(header: str, chosen: tuple[str, str | None], tmp_path: Path) -> None:
    assert read(put(tmp_path, "a.csv", header + "\n"))[2] == chosen


def test_named_columns_go_before_guessed_ones(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", "text,label,title,kind\na,1,b,2\n")
    assert read(path, Columns("title", "kind"))[0] == [("b", "2")]


@pytest.mark.parametrize(
    ("content", "wanted", "named"),
    [
        ("a,b\n1,2\n", ANY, "--text-column; its first line has a, b"),
        ("text,label\n", Columns("review", None), "--text-column review"),
        ("text,label\n", Columns(None, "stars"), "--label-column stars"),
        ("text,text,label\n", ANY, "text in"),
        ("", ANY, "empty file"),
    ],
)
def test_a_header_that_cannot_be_used_is_explained(content: str, wanted: Columns, named: str, tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", content)
    with pytest.raises(UserError) as caught:
        read(path, wanted)
    assert named in str(caught.value)
    assert str(path) in str(caught.value)


LONG = "x" * 1_000_001
BAD_ROWS = [
    ("a.csv", b"   ,1", "empty text"),
    ("a.csv", b"fine,", "empty label"),
    ("a.csv", b"fine,1,2", "3 columns instead of 2"),
    ("a.csv", b"fine", "1 columns instead of 2"),
    ("a.csv", b"fi\0ne,1", "a NUL character in the text"),
    ("a.csv", b"fi\xff\xfene,1", "text that is not UTF-8"),
    ("a.csv", b"fine,\xc3", "label that is not UTF-8"),
    ("a.csv", LONG.encode() + b",1", "text of more than 1,000,000 characters"),
    ("a.csv", b"fine," + b"y" * 101, "label of more than 100 characters"),
    ("a.tsv", b"fine\t1\t", "3 columns instead of 2"),
    ("a.tsv", b"\t1", "empty text"),
    ("a.jsonl", b'{"text": "fine"}', "empty label"),
    ("a.jsonl", b'{"text": 3, "label": 1}', "text is not a text"),
    ("a.jsonl", b'{"text": "fine", "label": 1.5}', "label is not a text"),
    ("a.jsonl", b'{"text": "fine", "label": [1]}', "label is not a text"),
    ("a.jsonl", b'["fine", 1]', "not a JSON object"),
    ("a.jsonl", b'{"text": "fine"', "not a JSON object"),
    ("a.jsonl", b'{"text": "fine", "text": "dull", "label": 1}', "not a JSON object"),
    ("a.jsonl", b"[" * 100_000, "not a JSON object"),
    ("a.jsonl", b'{"text": "fi\\u0000ne", "label": 1}', "a NUL character in the text"),
    ("a.jsonl", b'{"text": "fi\\ud800ne", "label": 1}', "text that is not UTF-8"),
]


@pytest.mark.parametrize(("name", "row", "what"), BAD_ROWS, ids=[f"{n} {w}"[:60] for n, _, w in BAD_ROWS])
def test_a_bad_row_is_named_by_its_line_and_the_others_are_read(
    name: str, row: bytes, what: str, tmp_path: Path
) -> None:
    header = {"a.csv": b"text,label", "a.tsv": b"text\tlabel", "a.jsonl": b'{"text": "first", "label": 1}'}[name]
    good = {"a.csv": b"last,0", "a.tsv": b"last\t0", "a.jsonl": b'{"text": "last", "label": false}'}[name]
    path = put(tmp_path, name, b"\n".join([header, row, good]))
    rows, faults, _ = read(path)
    assert faults == [Fault(what, f"{path} line 2")]
    assert rows[-1] == ("last", "false" if name == "a.jsonl" else "0")


def test_a_line_of_ten_megabytes_is_named_and_the_next_one_is_read(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", b"text,label\n" + b"word " * 2_000_000 + b",1\nfine,0\n")
    rows, faults, _ = read(path)
    assert rows == [("fine", "0")]
    assert faults == [Fault("text of more than 1,000,000 characters", f"{path} line 2")]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('text,label\na,1\n"no end,0\nb,1\n', 3),
        ('text,label\na,1\n"no end,0\n"b",1\n', 3),
        ('text,label\n"a"b,1\n', 2),
    ],
)
def test_a_broken_quote_is_named_where_it_begins(content: str, line: int, tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", content)
    with pytest.raises(UserError, match="broken row") as caught:
        read(path)
    assert f"{path} line {line} " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_jsonl_that_begins_with_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a JSON object"):
        read(put(tmp_path, "a.jsonl", "text,label\nfine,1\n"))


def test_the_real_reviews_with_ten_empty_columns_load(real_texts: Path) -> None:
    rows, faults, columns = read(real_texts / "reviews" / "imdb-2000.csv")
    assert (len(rows), faults, columns) == (2_000, [], ("review", "sentiment"))
    assert {label for _, label in rows} == {"negative", "positive"}


def test_labels_that_differ_in_case_spacing_or_unicode_form_are_similar() -> None:
    assert similar_labels(["Good", "bad", "good", "caf\u00e9", "cafe\u0301", "ugly"]) == [
        ["Good", "good"],
        ["cafe\u0301", "caf\u00e9"],
    ]
