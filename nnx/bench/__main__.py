"""`python -m nnx.bench`: the same as `nnx bench`."""

from __future__ import annotations

import sys

from ..cli import main

sys.exit(main(["bench", *sys.argv[1:]]))
