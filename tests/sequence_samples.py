"""Sample arguments of the ops on sequences; see samples.py."""

from __future__ import annotations

from makers import Case, case, ids, mask, normal, unit

QKV = (normal(2, 4, 3), normal(2, 5, 3), normal(2, 5, 2))

SAMPLES: dict[str, list[Case]] = {
    "embedding": [
        case(normal(5, 3), ids(4, below=5)), case(normal(4, 2), ids(2, 3, below=4)),
        case(normal(4, 3), ids(below=4)),
        case(normal(3, 2), ids(6, below=3), padding=1, smooth=False),
        case(normal(3, 2), ids(4, below=3, dtype="int32"), padding=0, smooth=False),
        case(normal(3, 2), ids(0, below=3)),
    ],
    "attention": [
        case(*QKV), case(normal(4, 3), normal(4, 3), normal(4, 3), causal=True),
        case(*QKV, normal(2, 4, 5), scale=0.5), case(*QKV, normal(5), mask(4, 5), rows=2),
        case(*QKV, None, mask(2, 1, 5)), case(*QKV, causal=True, rows=1),
        case(*QKV, normal(4, 1), mask(4, 1), causal=True, rows=3),
        case(normal(4, 3), normal(2, 3), normal(2, 3), causal=True),
        case(*QKV, None, None, unit(2, 4, 5), p=0.3),
        case(*QKV, normal(4, 5), mask(4, 5), unit(2, 4, 5), p=0.5, causal=True, rows=2),
        case(normal(2, 3, 4, 2), normal(2, 1, 3, 2), normal(1, 3, 3, 2), normal(3, 1, 1)),
        case(normal(0, 4, 2), normal(0, 3, 2), normal(0, 3, 2), causal=True),
        case(normal(0, 2), normal(3, 2), normal(3, 2)),
    ],
    "rnn": [
        case(normal(3, 2, 4), normal(4, 4), normal(2, 4)),
        case(normal(3, 2, 2), normal(2, 2), normal(2, 2), nonlinearity="relu"),
        case(normal(3, 3, 2), normal(2, 2), normal(3, 2), ids(3, below=4), reverse=True),
        case(normal(1, 0, 2), normal(2, 2), normal(0, 2)),
    ],
    "lstm": [
        case(normal(3, 2, 12), normal(3, 12), normal(2, 3), normal(2, 3)),
        case(normal(3, 3, 8), normal(2, 8), normal(3, 2), normal(3, 2), ids(3, below=4)),
        case(normal(4, 2, 4), normal(1, 4), normal(2, 1), normal(2, 1), reverse=True),
        case(normal(3, 3, 8), normal(2, 8), normal(3, 2), normal(3, 2), ids(3, below=4),
             reverse=True),
        case(normal(1, 0, 8), normal(2, 8), normal(0, 2), normal(0, 2)),
    ],
    "gru": [
        case(normal(3, 2, 9), normal(3, 9), normal(9), normal(2, 3)),
        case(normal(3, 3, 6), normal(2, 6), normal(6), normal(3, 2), ids(3, below=4)),
        case(normal(3, 3, 6), normal(2, 6), normal(6), normal(3, 2), ids(3, below=4), reverse=True),
        case(normal(1, 0, 6), normal(2, 6), normal(6), normal(0, 2)),
    ],
}  # fmt: skip
