"""Every error that nnx raises on purpose.

    NnxError
    ├── BackendError            a backend cannot be used
    │   ├── UnknownBackendError     no backend of that name is installed
    │   ├── BackendPackageError     its package is missing, broken, doubled or too old
    │   ├── DeviceError             its package is there, the device is not
    │   ├── DeviceMemoryError       the device's memory is full (also a MemoryError)
    │   └── MixedBackendsError      arrays of two backends (or devices) meet in one call
    ├── ShapeError              (also a ValueError)
    ├── DtypeError              (also a TypeError)
    ├── LabelError              a class id outside 0..C-1 (also a ValueError)
    ├── StateError              a call at the wrong moment (also a RuntimeError)
    ├── CaptureError            a captured function that cannot be replayed (also a RuntimeError)
    ├── DivergedError           a training run whose loss is not finite (also an ArithmeticError)
    ├── GradientError           a derivative that differences contradict (also an AssertionError)
    ├── OptionError             an unknown option or a value out of range (also a ValueError)
    ├── TransferError           a transfer that nnx.transfers forbids (also a RuntimeError)
    ├── DataError               a file or data set that cannot be read (also a ValueError)
    └── PackageError            what an extra brings is missing, or fails (also an ImportError)

A message says what was given, what was expected and the call that fixes it. An error that
passes through a layer also names the layer.
"""

from __future__ import annotations

__all__ = [
    "BackendError",
    "BackendPackageError",
    "CaptureError",
    "DataError",
    "DeviceError",
    "DeviceMemoryError",
    "DivergedError",
    "DtypeError",
    "GradientError",
    "LabelError",
    "MixedBackendsError",
    "NnxError",
    "OptionError",
    "PackageError",
    "ShapeError",
    "StateError",
    "TransferError",
    "UnknownBackendError",
]


class NnxError(Exception):
    """Root of all errors of nnx; `layer` names the layer in which it arose, if any."""

    layer: str | None = None

    def __str__(self) -> str:
        message = super().__str__()
        return f"in {self.layer}: {message}" if self.layer else message


class BackendError(NnxError):
    """A backend cannot be used."""


class UnknownBackendError(BackendError):
    """No installed package registers a backend of that name."""


class BackendPackageError(BackendError):
    """A backend's package is missing, fails to import, is registered twice or is outdated."""


class DeviceError(BackendError):
    """A backend's package is installed but the device is missing or refuses."""


class DeviceMemoryError(BackendError, MemoryError):
    """A device's memory is full: the message says what was asked for and what is held."""


class MixedBackendsError(BackendError):
    """Arrays of two backends, or of two devices, meet in one call."""


class ShapeError(NnxError, ValueError):
    """Shapes do not fit."""


class DtypeError(NnxError, TypeError):
    """dtypes do not fit, or two float widths are mixed."""


class LabelError(NnxError, ValueError):
    """A class id lies outside 0..C-1."""


class StateError(NnxError, RuntimeError):
    """A call at the wrong moment: backward before forward, a freed graph, a changed parameter."""


class CaptureError(NnxError, RuntimeError):
    """What `nnx.capture` recorded cannot be replayed: the message names the line."""


class DivergedError(NnxError, ArithmeticError):
    """The loss of a training run is not finite: the message names the step and the layer."""


class GradientError(NnxError, AssertionError):
    """A derivative is not what differences say: the message is the report of `nnx.gradcheck`."""


class OptionError(NnxError, ValueError):
    """An unknown option, or an option's value out of range."""


class DataError(NnxError, ValueError):
    """A file or data set that cannot be read: missing, truncated, of another format."""


class TransferError(NnxError, RuntimeError):
    """Something crossed between host and device that nobody asked for, where that is forbidden."""


class PackageError(NnxError, ImportError):
    """An optional package or program is missing, or fails: matplotlib, Graphviz."""
