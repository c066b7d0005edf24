"""`python -m nnx` is the command `nnx`."""

from __future__ import annotations

from .cli import main

raise SystemExit(main())
