"""Data sets on the host and the loader that brings their batches to a backend."""

from . import transforms
from .csv import read_csv
from .dataset import ArrayDataset
from .idx import read_idx
from .loader import DataLoader
from .npz import read_npz
from .sources import load

__all__ = ["ArrayDataset", "DataLoader", "load", "read_csv", "read_idx", "read_npz", "transforms"]
