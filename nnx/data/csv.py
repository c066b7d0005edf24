"""CSV: a row of numbers for each example, one column of which is its target."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence

import numpy as np

from ..errors import DataError, OptionError
from ..files import reason
from .dataset import ArrayDataset, HostArray, check_names


def read_csv(
    path: str | os.PathLike[str],
    target: int | str = -1,
    classes: int | Sequence[str] | None = None,
    *,
    header: bool | None = None,
    delimiter: str = ",",
    image_shape: tuple[int, ...] | None = None,
) -> ArrayDataset:
    """The data set in a CSV file (UTF-8): x float32 (N, columns - 1), and a target in each row.

    target       the target's column: a name in the header, or a number from 0 (-1 is the last)
    classes      the number of classes, or their names in the order of their ids
    header       whether the first row has the columns' names; None: it has if it is not numbers
    delimiter    between fields, which may be quoted as in "a, b"
    image_shape  see `ArrayDataset`

    Targets that are all whole numbers are class ids, int64 (N,); other numbers are values to be
    learnt, float32 (N, 1). Text is the name of a class: `class_names` are those in `classes`, else
    all in the order of the alphabet. Empty lines are passed over.

    Memory is four bytes for each number and the different targets' text, never the file at once.

    Raises DataError, with the line and the column, for what is no finite number, rows of unequal
    length and names that are not in `classes`; DataError for a file that cannot be read or has no
    rows; OptionError for a column that is not there; and what `ArrayDataset` raises.
    """
    import csv

    name = os.fspath(path)
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '\r\n"':
        raise OptionError(f"read_csv: delimiter={delimiter!r}, expected one character, as ','")
    if isinstance(classes, np.integer):
        classes = int(classes)
    elif not (classes is None or isinstance(classes, int)):
        classes = check_names("read_csv", classes)
    table = _Table(name, target, header)
    try:
        with open(name, encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, delimiter=delimiter, strict=True)
            try:
                table.read((rows.line_num, row) for row in rows if row)
            except csv.Error as error:
                raise DataError(f"{name}, line {rows.line_num}: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 text ({error}); expected a CSV file") from error
    except (OSError, ValueError) as error:
        if isinstance(error, DataError | OptionError):
            raise
        raise DataError(f"{name} cannot be read ({reason(error)}); expected a CSV file") from error
    x = np.frombuffer(table.values, np.float32).reshape(table.count, -1)
    t, classes = table.targets(classes)
    return ArrayDataset(x, t, classes, name=os.path.basename(name), image_shape=image_shape)


LARGEST = float(np.finfo(np.float32).max)


class _Table:
    """Rows so far: their numbers, and which of the different targets each has."""

    def __init__(self, name: str, target: int | str, header: bool | None) -> None:
        self.name, self.target, self.header = name, target, header
        self.values, self.ids = array("f"), array("q")
        self.texts: dict[str, int] = {}
        self.first_lines: list[int] = []  # where each text was first
        self.columns: list[str] = []

    @property
    def count(self) -> int:
        return len(self.ids)

    def read(self, rows: Iterator[tuple[int, list[str]]]) -> None:
        at: int | None = None
        for line, row in rows:
            if at is None:
                at = self._begin(row)
                if self.header:
                    continue
            if len(row) != len(self.columns):
                raise DataError(
                    f"{self.name}, line {line}: {len(row)} fields, expected {len(self.columns)} as "
                    f"in the first row"
                )
            text = row.pop(at).strip()
            before = len(self.texts)
            self.ids.append(self.texts.setdefault(text, before))
            if len(self.texts) > before:
                self.first_lines.append(line)
            self.values.frombytes(self._numbers(row, line, at).tobytes())
        if not self.count:
            raise DataError(f"{self.name} has no rows; expected numbers and a target in each")

    def _begin(self, row: list[str]) -> int:
        """Learn the columns from the first row; the target's number."""
        if len(row) < 2:
            raise DataError(
                f"{self.name} has one column, expected at least two: numbers and a target; if its "
                f"fields are separated otherwise: read_csv(path, delimiter=';')"
            )
        at = self._column(row) if isinstance(self.target, int) else None
        if self.header is None:
            rest = [text for i, text in enumerate(row) if i != at]
            self.header = at is None or any(_number(text) is None for text in rest)
        self.columns = row if self.header else [str(i) for i in range(len(row))]
        self.columns = [column.strip() for column in self.columns]
        return self._column(self.columns) if at is None else at

    def _column(self, row: Sequence[str]) -> int:
        n = len(row)
        if isinstance(self.target, int) and not isinstance(self.target, bool):
            if -n <= self.target < n:
                return self.target % n
            raise OptionError(
                f"read_csv: target={self.target}, but {self.name} has {n} columns: expected a "
                f"number in {-n}..{n - 1}"
            )
        if row.count(str(self.target)) == 1:
            return row.index(str(self.target))
        held = ", ".join(map(repr, row[:20])) + (", ..." if n > 20 else "")
        raise OptionError(
            f"read_csv: target={self.target!r} is not the name of one column of {self.name}; it "
            f"has {held}"
        )

    def _numbers(self, row: list[str], line: int, at: int) -> HostArray:
        try:
            values = np.array([float(text) for text in row])
        except ValueError:
            values = np.array([np.nan if (v := _number(text)) is None else v for text in row])
        with np.errstate(over="ignore"):
            made = values.astype(np.float32)
        if not np.isfinite(made).all():
            bad = int(np.flatnonzero(~np.isfinite(made))[0])
            column = self.columns[bad + (bad >= at)]
            raise DataError(
                f"{self.name}, line {line}, column {column!r}: {row[bad][:40]!r} is not a finite "
                f"float32 number"
            )
        return made

    def targets(
        self, classes: int | Sequence[str] | None
    ) -> tuple[HostArray, int | Sequence[str] | None]:
        """t, and the classes or their names."""
        ids, texts = np.frombuffer(self.ids, np.int64), list(self.texts)
        counted = classes is None or isinstance(classes, int)
        names = sorted(self.texts) if isinstance(classes, int | None) else [*classes]
        wholes = [_whole(text) for text in texts]
        if None not in wholes and (counted or not set(texts) & set(names)):
            return np.array(wholes, np.int64)[ids], classes
        numbers = [_number(text) for text in texts]
        if None not in numbers and classes is None:
            self._check_finite(texts, numbers)
            return np.array(numbers, np.float32)[ids][:, None], None
        known = {name: i for i, name in enumerate(names)}
        if isinstance(classes, int) and len(names) > classes:
            raise DataError(
                f"{self.name}: the targets are {len(names)} names, expected {classes} classes; "
                f"leave classes out, or list the names"
            )
        if counted and "" in known:
            self._unknown("", "a number or the name of a class")
        for text in texts:
            if text not in known:
                self._unknown(text, "one of " + ", ".join(map(repr, names[:20])))
        return np.array([known[text] for text in texts])[ids], names

    def _check_finite(self, texts: list[str], numbers: list[float | None]) -> None:
        for text, number in zip(texts, numbers, strict=True):
            if not abs(number or 0.0) <= LARGEST:
                self._unknown(text, "a finite float32 number")

    def _unknown(self, text: str, expected: str) -> None:
        line = self.first_lines[self.texts[text]]
        raise DataError(
            f"{self.name}, line {line}: the target is {text[:40]!r}, expected {expected}"
        )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _whole(text: str) -> int | None:
    """The int64 that the text spells, and no other way of writing a number."""
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not (digits.isascii() and digits.isdigit() and len(digits) < 19):
        return None
    return int(text)
