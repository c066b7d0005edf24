"""The CSV reader: tables, what targets become, every way a file can be wrong, and mutated text."""

from __future__ import annotations

import csv
import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnx
from nnx.data import read_csv
from nnx.errors import DataError, LabelError, NnxError, OptionError, ShapeError

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(content: str | bytes, name: str = "file.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def test_numbers_without_a_header(write: Write) -> None:
    ds = read_csv(write("1,2.5,0\n-3e1,4,2\n"))
    assert ds.x.tolist() == [[1, 2.5], [-30, 4]] and ds.t.tolist() == [0, 2]
    assert (ds.x.dtype, ds.t.dtype) == (np.float32, np.int64)
    assert (ds.classes, ds.class_names, ds.name) == (None, None, "file.csv")
    assert read_csv(write("1,2,3,4,0\n"), image_shape=(2, 2)).image_shape == (2, 2)


def test_a_header_and_the_target_by_name_or_number(write: Write) -> None:
    path = write("\ufefflabel, a ,b\r\n1,2,3\r\n\r\n0,4,5\r\n")
    for target in ("label", 0, -3):
        ds = read_csv(path, target, classes=2)
        assert ds.x.tolist() == [[2, 3], [4, 5]] and ds.t.tolist() == [1, 0]
    assert read_csv(path, "b").t.tolist() == [3, 5]
    assert read_csv(write("7,8\n1,2\n"), header=True).x.tolist() == [[1]]
    assert read_csv(write("7,8\n1,2\n"), "8", header=True).t.tolist() == [2]
    with pytest.raises(DataError, match=r"line 1, column '0': 'a' is not a finite"):
        read_csv(write("a,b\n1,2\n"), header=False)


def test_texts_are_names_of_classes(write: Write) -> None:
    path = write('1,"spam, or so"\n2,ham\n3,ham\n')
    ds = read_csv(path)
    assert ds.t.tolist() == [1, 0, 0] and ds.class_names == ("ham", "spam, or so")
    assert read_csv(path, classes=["spam, or so", "ham", "egg"]).t.tolist() == [0, 1, 1]
    assert read_csv(path, classes=2).classes == 2
    with pytest.raises(DataError, match=r"line 1: the target is 'spam, or so', expected one of 'h"):
        read_csv(path, classes=["ham"])
    with pytest.raises(DataError, match=r"the targets are 2 names, expected 1 classes; leave"):
        read_csv(path, classes=1)
    with pytest.raises(DataError, match=r"line 2: the target is '', expected a number or the name"):
        read_csv(write("1,a\n2,\n"))
    with pytest.raises(
        OptionError, match="read_csv: classes='ham', expected the number of classes"
    ):
        read_csv(path, classes="ham")
    # Names that look like numbers, and ids with names.
    assert read_csv(write("1,10\n2,2\n"), classes=["10", "2"]).t.tolist() == [0, 1]
    assert read_csv(write("1,1\n2,0\n"), classes=["no", "yes"]).t.tolist() == [1, 0]


def test_other_numbers_are_values(write: Write) -> None:
    ds = read_csv(write("1,0.5\n2,1\n"))
    assert ds.t.tolist() == [[0.5], [1]] and ds.t.dtype == np.float32 and ds.classes is None
    for wrong in ("nan", "1e39", "-inf"):
        with pytest.raises(DataError, match=rf"line 2: the target is '{wrong}', expected a finite"):
            read_csv(write(f"1,0.5\n2,{wrong}\n"))


def test_another_delimiter(write: Write) -> None:
    assert read_csv(write("1;2;3\n"), delimiter=";").x.tolist() == [[1, 2]]
    assert read_csv(write("1\t2\n"), delimiter="\t").t.tolist() == [2]
    wrong: Any
    for wrong in ("", ";;", "\n", '"', 3):
        with pytest.raises(OptionError, match=r"read_csv: delimiter=.*, expected one character"):
            read_csv(write("1,2\n"), delimiter=wrong)


WRONG: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "has no rows; expected numbers and a target in each"),
    "header alone": ("a,b\n", "has no rows"),
    "one column": ("1\n2\n", r"has one column, expected .*read_csv\(path, delimiter=';'\)"),
    "ragged": ("1,2,3\n\n1,2\n", "line 3: 2 fields, expected 3 as in the first row"),
    "text": ("a,b,t\n1,2,0\n1,x,0\n", "line 3, column 'b': 'x' is not a finite float32 number"),
    "missing": ("1,2,0\n,2,0\n", "line 2, column '0': '' is not a finite"),
    "nan": ("nan,2,0\n", "line 1, column '0': 'nan' is not a finite"),
    "too large": ("1,2,0\n1,1e39,0\n", "line 2, column '1': '1e39' is not a finite"),
    "quote": ('1,2\n3,"4\n', "line 2: unexpected end of data"),
    "after a quote": ('1,2\n"3"x,4\n', "line 2: ',' expected after"),
    "long field": ("1,2\n" + "1" * 140_000 + ",2\n", "line 2: field larger than field limit"),
    "not text": (b"\xff\xfe\0\1", "is not UTF-8 text .*expected a CSV file"),
    "zero bytes": (b"1,2\n\0\0\0,3\n", "line 2"),
}


@pytest.mark.parametrize(("content", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_files_say_where(write: Write, content: str | bytes, message: str) -> None:
    path = write(content, "wrong.csv")
    with pytest.raises(DataError, match=message) as caught:
        read_csv(path)
    assert str(path) in str(caught.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path, "a\0b"):
        with pytest.raises(DataError, match=r"cannot be read .*expected a CSV file"):
            read_csv(path)


def test_columns_that_are_not_there(write: Write) -> None:
    path = write("a,b,b\n1,2,3\n")
    wrong: Any
    for wrong in ("c", "b", True):
        with pytest.raises(OptionError, match=r"is not the name of one column of .*'a', 'b', 'b'"):
            read_csv(path, wrong)
    for wrong in (3, -4):
        with pytest.raises(OptionError, match=r"has 3 columns: expected a number in -3\.\.2"):
            read_csv(path, wrong)


def test_what_the_data_set_refuses(write: Write) -> None:
    with pytest.raises(LabelError, match=r"file\.csv: t\[1\] is 7, expected a class id in 0\.\.1"):
        read_csv(write("1,0\n1,7\n"), classes=2)
    with pytest.raises(ShapeError, match=r"expected .*a flattened image in each row"):
        read_csv(write("1,2,0\n"), image_shape=(2, 2))


def test_memory_is_that_of_the_numbers(write: Write) -> None:
    rows, columns = 2000, 500
    path = write(("0.123456789," * columns + "3\n") * rows)
    tracemalloc.start()
    try:
        assert read_csv(path).x.shape == (rows, columns)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * 4 * rows * columns < path.stat().st_size


numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)


@settings(max_examples=100, deadline=None)
@given(
    x=st.integers(1, 4).flatmap(
        lambda n: st.lists(st.lists(numbers, min_size=n, max_size=n), min_size=1, max_size=5)
    ),
    data=st.data(),
)
def test_what_csv_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, x: list[list[float]], data: st.DataObject
) -> None:
    labels = data.draw(st.lists(names.map(lambda s: "c" + s), min_size=len(x), max_size=len(x)))
    path = tmp_path_factory.getbasetemp() / "written.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([*row, label] for row, label in zip(x, labels, strict=True))
    ds = read_csv(path)
    assert np.array_equal(ds.x, np.array(x, np.float32))
    assert [ds.class_names[i] for i in ds.t] == [s.strip() for s in labels]  # type: ignore[index]


SEEDS = [b"a,b,label\n1,2,yes\n3,4.5,no\n", b"1,2,0\r\n3,4,1\r\n", b'\xef\xbb\xbf"x",y\n"1",2e3\n']
BYTES = st.sampled_from([b",", b"\n", b"\r", b'"', b"\0", b"\xff", b"nan", b"-", b"9" * 400, b"_"])


@settings(max_examples=400, deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=60),
        st.tuples(st.sampled_from(SEEDS), st.integers(0, 30), BYTES, st.integers(0, 3)).map(
            lambda a: a[0][: a[1]] + a[2] + a[0][a[1] + a[3] :]
        ),
    ),
    target=st.one_of(st.integers(-4, 4), st.sampled_from(["label", "x", ""])),
    header=st.sampled_from([None, True, False]),
    classes=st.sampled_from([None, 2, ["yes", "no"]]),
)
def test_any_bytes_give_an_nnx_error_or_the_table(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, target: Any, header: Any, classes: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_bytes(content)
    try:
        ds = read_csv(path, target, classes, header=header)
    except NnxError:
        return
    rows = [r for r in csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")) if r]
    assert len(rows) - len(ds) in ((0, 1) if header is None else (int(header),))
    assert ds.x.shape[1] == len(rows[0]) - 1 and np.isfinite(ds.x).all()
    for row, x in zip(rows[-len(ds) :], ds.x, strict=True):
        at = rows[0].index(target) if isinstance(target, str) else target
        rest = [float(text) for i, text in enumerate(row) if i != at % len(row)]
        assert rest == pytest.approx(x.tolist(), rel=1e-6, abs=1e-37)


def test_it_is_public() -> None:
    assert nnx.data.read_csv is read_csv
