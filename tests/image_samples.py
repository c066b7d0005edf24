"""Sample arguments of the ops on images, and of normalisation; see samples.py."""

from __future__ import annotations

from makers import Case, apart, case, normal, positive

# Options of a convolution: kernel, channels in and out, and what else is given.
CONV2D: list[Case] = [
    case(normal(2, 2, 4, 5), normal(3, 2, 3, 2), normal(3)),
    case(normal(1, 2, 5, 4), normal(2, 2, 3, 3), None, padding=1),
    case(normal(2, 2, 5, 4), normal(2, 2, 2, 3), stride=2, padding=(1, 0)),
    case(normal(1, 1, 6, 5), normal(2, 1, 2, 2), normal(2), dilation=(2, 3)),
    case(normal(1, 2, 4, 4), normal(2, 2, 3, 2), padding="same"),
    case(normal(1, 2, 4, 4), normal(2, 2, 2, 2), padding="valid", stride=(1, 3)),
    case(normal(1, 1, 4, 3), normal(1, 1, 3, 2), padding=((0, 2), (1, 0))),
    case(normal(2, 4, 3, 4), normal(6, 2, 2, 2), normal(6), groups=2, padding=1, stride=2),
    case(normal(2, 3, 4, 3), normal(6, 1, 3, 3), groups=3, padding=1),
    case(normal(2, 3, 3, 4), normal(2, 3, 1, 1), normal(2)),
    case(normal(1, 3, 3, 4), normal(2, 3, 1, 1), stride=2),
    case(normal(1, 1, 3, 2), normal(1, 1, 3, 2)),
    case(normal(1, 2, 3, 3), normal(2, 2, 2, 2), padding=3),
    case(normal(0, 2, 4, 4), normal(3, 2, 3, 3), normal(3)),
]

TRANSPOSED: list[Case] = [
    case(normal(2, 2, 3, 2), normal(2, 3, 2, 3), normal(3)),
    case(normal(1, 2, 3, 3), normal(2, 1, 3, 3), stride=2, padding=1, output_padding=1),
    case(normal(1, 2, 2, 3), normal(2, 2, 3, 2), None, stride=(3, 2), output_padding=(2, 0)),
    case(normal(1, 1, 3, 2), normal(1, 2, 2, 2), normal(2), dilation=(2, 1), stride=2),
    case(normal(2, 4, 2, 3), normal(4, 3, 2, 2), normal(6), groups=2),
    case(normal(1, 1, 3, 3), normal(1, 1, 3, 3), padding=((0, 1), (1, 0))),
    case(normal(1, 2, 2, 2), normal(2, 3, 1, 1), normal(3)),
    case(normal(0, 2, 3, 3), normal(2, 3, 2, 2), normal(3)),
]

CONV1D: list[Case] = [
    case(normal(2, 2, 6), normal(3, 2, 3), normal(3)),
    case(normal(1, 2, 7), normal(2, 2, 3), None, stride=2, padding=1, dilation=2),
    case(normal(2, 4, 5), normal(4, 2, 2), normal(4), groups=2, padding="same"),
    case(normal(1, 1, 5), normal(1, 1, 2), padding=((2, 0),)),
    case(normal(0, 2, 4), normal(3, 2, 3), normal(3)),
]

POOLS = [
    {"size": 2}, {"size": 2, "stride": 1}, {"size": (2, 3), "stride": (2, 1)},
    {"size": 3, "stride": 2, "padding": 1}, {"size": (3, 2), "padding": (1, 0)},
    {"size": 2, "padding": ((0, 1), (1, 0))}, {"size": 1}, {"size": 2, "stride": 3},
]  # fmt: skip

NORMED = ((2, 3), (4, 2, 3), (1, 1), (0, 3))

SAMPLES: dict[str, list[Case]] = {
    "conv1d": CONV1D,
    "conv2d": CONV2D,
    "conv_transpose2d": TRANSPOSED,
    "max_pool2d": [
        *(case(apart(2, 2, 5, 4), **options) for options in POOLS), case(apart(0, 2, 4, 4), size=2),
    ],
    "avg_pool2d": [
        *(case(normal(2, 2, 5, 4), **options) for options in POOLS),
        *(
            case(normal(1, 2, 5, 4), count_include_pad=False, **options)
            for options in POOLS if "padding" in options
        ),
        case(normal(0, 2, 4, 4), size=2),
    ],
    "upsample": [
        case(normal(2, 1, 2, 3), scale=2), case(normal(1, 2, 3, 2), scale=(1, 3)),
        case(normal(1, 2, 3, 2), size=(4, 3)), case(normal(1, 1, 4, 5), size=3),
        case(normal(2, 1, 2, 3), scale=2, mode="bilinear"),
        case(normal(1, 2, 3, 4), size=(5, 2), mode="bilinear"),
        case(normal(1, 2, 3, 4), size=(5, 2), mode="bilinear", align_corners=True),
        case(normal(1, 1, 1, 2), size=(2, 1), mode="bilinear", align_corners=True),
        case(normal(0, 2, 3, 3), scale=2, mode="bilinear"),
    ],
    "windows": [
        case(normal(5), size=3), case(normal(2, 6), size=2, stride=3), case(normal(2, 7), size=3,
        stride=2, dilation=2), case(normal(5, 2), size=2, axis=0), case(normal(2, 4, 3), size=2,
        axis=-2, dilation=3), case(normal(0, 3), size=3), case(normal(3, 0), size=2, axis=0),
    ],
    "fold": [
        case(normal(3, 3), length=5, axis=0), case(normal(2, 2, 2), length=5, axis=1, stride=3),
        case(normal(2, 2, 3), length=8, axis=1, stride=2, dilation=2),
        case(normal(4, 2, 2), length=5, axis=0), case(normal(0, 1, 3), length=3, axis=1),
        case(normal(2, 1, 2, 3), length=4, axis=1, dilation=3),
    ],
    "pad": [
        case(normal(), widths=()), case(normal(2, 3), widths=((1, 0), (0, 2))),
        case(normal(2, 3), widths=((2, 1),), value=1.5), case(normal(2, 3), widths=((0, 0),)),
        case(normal(0, 3), widths=((1, 1), (0, 1))), case(normal(2, 0), widths=((1, 2),)),
    ],
    "batch_norm": [
        case(normal(4, 3), positive(3), normal(3)), case(normal(4, 3)),
        case(normal(3, 2, 2), positive(2), normal(2), eps=0.1),
        case(normal(2, 2, 3, 2), positive(2), normal(2)), case(normal(2, 3, 2), None, normal(3)),
        case(normal(1, 2), positive(2), normal(2), eps=0.5), case(normal(2, 0, 3)),
    ],
    "layer_norm": [
        *(case(normal(*s), positive(s[-1]), normal(s[-1])) for s in NORMED),
        case(normal(2, 3)), case(normal(5), positive(5)), case(normal(2, 3), None, normal(3)),
        case(normal(2, 3, 4), positive(3, 4), normal(3, 4), ndim=2, eps=0.1),
    ],
    "rms_norm": [
        *(case(normal(*s), positive(s[-1])) for s in NORMED), case(normal(2, 3)),
        case(normal(5), positive(5)), case(normal(2, 3, 4), positive(3, 4), ndim=2, eps=0.1),
    ],
    "group_norm": [
        case(normal(2, 6), positive(6), normal(6), groups=2), case(normal(2, 4, 3), groups=4),
        case(normal(2, 4, 2, 2), positive(4), normal(4), groups=2, eps=0.1),
        case(normal(2, 3, 2), positive(3), None, groups=1),
        case(normal(0, 2, 3), positive(2), normal(2), groups=1),
    ],
}  # fmt: skip

NEEDS_AN_AXIS = set(SAMPLES) - {"pad"}
