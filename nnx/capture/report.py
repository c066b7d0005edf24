"""What a plan does and holds, to be printed."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Report:
    """What a plan does and holds.

    kernels         how often a replay calls each kernel, the most frequent first
    fused           kernels that were replaced, several by one: how often each such
    buffers         places in the shared memory
    shared_bytes    the memory that results share whose lifetimes do not overlap
    kept_bytes      results that last (outputs, gradients, constants) and scratch
    input_bytes     buffers that the arguments are copied to; 0 for those that are read in place
    eager_bytes     the most that a call without the plan holds at once
    made_bytes      all results of such a call
    code            the replay, as the Python that it is
    """

    kernels: dict[str, int]
    fused: dict[str, int]
    buffers: int
    shared_bytes: int
    kept_bytes: int
    input_bytes: int
    eager_bytes: int
    made_bytes: int
    code: str = field(repr=False)

    @property
    def planned_bytes(self) -> int:
        return self.shared_bytes + self.kept_bytes

    def __str__(self) -> str:
        ratio = self.planned_bytes / self.eager_bytes if self.eager_bytes else 1.0
        return (
            f"kernels   {sum(self.kernels.values())}: {_counted(self.kernels)}\n"
            f"fused     {_counted(self.fused) or 'none'}\n"
            f"buffers   {self.buffers} in {self.shared_bytes:,} shared bytes\n"
            f"planned   {self.planned_bytes:,} bytes: {self.shared_bytes:,} shared, "
            f"{self.kept_bytes:,} kept (outputs, gradients, constants, scratch)\n"
            f"eager     {self.eager_bytes:,} bytes at once, {self.made_bytes:,} in all; "
            f"planned / eager at once = {ratio:.2f}\n"
            f"inputs    {self.input_bytes:,} bytes"
        )

    def _repr_html_(self) -> str:
        from ..html import lines, table

        rows = [line.split(maxsplit=1) for line in str(self).splitlines()]
        code = f"<details><summary>code</summary>{lines(self.code)}</details>"
        return table((), rows) + code


def _counted(names: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in names.items())
