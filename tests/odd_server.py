"""A server of MNIST's files that cuts, corrupts, refuses or stalls as its address says."""

from __future__ import annotations

import gzip
import http.server
import threading
from typing import Any

import numpy as np
from idx_files import idx


def contents() -> dict[str, bytes]:
    """MNIST's four files, with 50 and 10 images of noise."""
    made = {}
    for prefix, n in (("train", 50), ("t10k", 10)):
        pixels = np.random.default_rng(n).integers(0, 256, n * 784).tolist()
        images, labels = idx(pixels, (n, 28, 28)), idx([i % 10 for i in range(n)], (n,))
        made[f"{prefix}-images-idx3-ubyte.gz"] = gzip.compress(images)
        made[f"{prefix}-labels-idx1-ubyte.gz"] = gzip.compress(labels)
    return made


FILES = contents()
IMAGES = "train-images-idx3-ubyte.gz"


ODD = {
    "nonsense": b"220 ready\r\n\r\n",
    "misleads": b"HTTP/1.1 302 Found\r\nLocation: http://[::1/\r\n\r\n",
    "overflows": b"HTTP/1.1 302 X\r\nLocation: /\r\nContent-Length: 9223372036854775808\r\n\r\n",
}


class Handler(http.server.BaseHTTPRequestHandler):
    """The first part of the path says how the file is served."""

    log: list[tuple[str, str | None]] = []  # noqa: RUF012 - cleared by the fixture

    def do_GET(self) -> None:
        how, file = self.path.strip("/").split("/")
        asked = self.headers["Range"]
        self.log.append((self.path, asked))
        if how.isdigit():
            return self.send_error(int(how))
        if how in ODD:
            self.wfile.write(ODD[how])
            return None
        start = int(asked[6:-1]) if asked and how != "ignores" else 0
        body = FILES[file][start:]
        if how == "corrupts":
            body = body[:-9] + b"?" + body[-8:]
        if how == "long":
            body += b"more"
        self.send_response(206 if start else 200)
        if start:
            at = start + 1 if how == "shifts" else start
            self.send_header("Content-Range", f"bytes {at}-{len(FILES[file]) - 1}/*")
        if how != "unmeasured":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cuts = {"cuts": 10_000, "stalls": 10_000, "ignores": 10_000, "starves": 0, "shifts": 10_000}
        self.wfile.write(body[: cuts.get(how, len(body))])
        if how == "stalls" and not start:
            released.wait(60)
        return None

    def log_message(self, *_: Any) -> None:
        pass


released = threading.Event()
