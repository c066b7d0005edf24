"""Data sets on the host and the loader that brings their batches to a backend."""

from .dataset import ArrayDataset
from .idx import read_idx
from .loader import DataLoader
from .sources import load
from .text import Characters, RandomWindows, Windows, read_text

__all__ = [
    "ArrayDataset",
    "Characters",
    "DataLoader",
    "RandomWindows",
    "Windows",
    "load",
    "read_idx",
    "read_text",
]
