"""A recorded run that waits for one alike."""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

from ..errors import CaptureError
from ..tensor import Tensor
from .compare import Entry
from .log import Line, shown
from .recording import Recording
from .state import State

Options = list[tuple[dict[str, Any], dict[str, Any]]]


class Pending(NamedTuple):
    """One run, to be compared with later ones from the same state.

    outside   memory from outside that it read, known by its id as long as it is held here
    made      memory that it made, of which some may last: state made at first use
    sources   what its optimizers computed numbers from
    fixed     of `outside` what it did not write
    """

    entries: list[Entry]
    state: State
    tensors: list[Tensor]
    outside: list[Any]
    made: list[weakref.ref[Any]]
    sources: list[Any]
    fixed: list[Any]

    @classmethod
    def of(cls, record: Recording, found: list[Entry]) -> Pending:
        storages = record.storages.values()
        outside = [s.root for s in storages if s.label[0] == "outside"]
        written = {id(record.memory.root(a)) for c in record.calls for a in c.writes}
        return cls(
            found,
            State(record, list(record.leaves.values())),
            [leaf.tensor for leaf in record.leaves.values()],
            outside,
            [weakref.ref(s.root) for s in storages if s.label[0] == "result"],
            record.sources,
            [root for root in outside if id(root) not in written],
        )

    def holds(self) -> bool:
        """Whether optimizers are as they were: a run with others need not do the same."""
        return all([s.holds() for s in self.sources])

    def options(self) -> Options:
        """Its optimizers' groups, and a copy of each's options."""
        groups = [s.group for s in self.sources]
        return [(g, {k: v for k, v in g.items() if k != "params"}) for g in groups]

    def explains(self, record: Recording) -> bool:
        """Whether the later run reads what this one made: then the two may well differ."""
        lasting = {id(root) for ref in self.made if (root := ref()) is not None}
        return not lasting.isdisjoint(record.storages)


def verify(before: Options, line: Line) -> None:
    """A run leaves the options of optimizers alone: a replay reads them and changes none."""
    for group, options in before:
        for name, value in options.items():
            if group[name] != value:
                raise CaptureError(
                    f"{shown(line)}: the captured function changed its optimizer's {name} from "
                    f"{value} to {group[name]}, which a replay would not repeat: set it outside, "
                    f"before the call"
                )
