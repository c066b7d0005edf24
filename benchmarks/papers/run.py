"""Trains a published network on MNIST and prints our test error beside the published one.

    python benchmarks/papers/run.py lenet5 --data-dir DIR
    python benchmarks/papers/run.py all --data-dir DIR --seeds 0,1,2 --json FILE

DIR holds MNIST's four IDX files. With --json the runs are added to FILE, and FILE's table is
written beside it as Markdown.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from networks import PAPERS, Paper

import nnx
from nnx.data import ArrayDataset, DataLoader

Run = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=[*PAPERS, "all"])
    parser.add_argument("--data-dir", required=True, metavar="DIR")
    parser.add_argument("--seeds", default="0", metavar="N,N", help="of weights and order")
    parser.add_argument("--epochs", type=int, metavar="N", help="instead of the network's own")
    parser.add_argument("--rows", type=int, metavar="N", help="of the images, to try it out")
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--threads", type=int, metavar="N", help="of large products (all cores)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    a = parser.parse_args()
    nnx.set_backend(a.backend)
    if a.threads is not None:
        nnx.set_num_threads(a.threads)
    for name in PAPERS if a.name == "all" else [a.name]:
        for seed in map(int, a.seeds.split(",")):
            run = trained(name, seed, a.data_dir, a.epochs, a.rows)
            print(line(run), flush=True)
            if a.json is not None:
                add(a.json, run)


def trained(name: str, seed: int, folder: str, epochs: int | None, rows: int | None) -> Run:
    paper = PAPERS[name]
    nnx.seed(seed)
    net = paper.network()
    trainer = nnx.Trainer(net, paper.optimizer(net.parameters()), **paper.options())
    train = DataLoader(
        images(paper, folder, "train", rows), paper.batch_size, shuffle=True, seed=seed
    )
    start, epochs = time.perf_counter(), epochs or paper.epochs
    trainer.fit(train, epochs=epochs)
    seconds = time.perf_counter() - start
    result = trainer.evaluate(DataLoader(images(paper, folder, "test", None), 1000))
    error = 100 * (1 - result.scores["accuracy"])
    return {
        "name": name, "seed": seed, "epochs": epochs, "seconds": seconds, "error": error,
        "parameters": sum(p.size for p in net.parameters()), "backend": nnx.get_backend().name,
        "numpy": np.__version__, "threads": nnx.get_num_threads(),
        "machine": platform.machine(), "date": datetime.date.today().isoformat(),
    }  # fmt: skip


def images(paper: Paper, folder: str, split: str, rows: int | None) -> ArrayDataset:
    found = nnx.data.load("mnist", folder, split=split)
    x, t = found.x[:rows], found.t[:rows]
    if paper.onehot:
        t = np.eye(10, dtype=np.float32)[t]
    return ArrayDataset(x.reshape(len(x), *paper.shape), t, 10)


def line(run: Run) -> str:
    paper = PAPERS[run["name"]]
    published = "as a curve only" if paper.published is None else f"{paper.published:.2f} %"
    return (
        f"{run['name']}: test error {run['error']:.2f} %, published {published} ({paper.source}); "
        f"seed {run['seed']}, {run['epochs']} epochs, {run['seconds']:.0f} s"
    )


def add(path: Path, run: Run) -> None:
    """Put the run in the file, in place of an earlier one of its network and seed."""
    runs = json.loads(path.read_text()) if path.exists() else []
    key = run["name"], run["seed"]
    runs = [*(r for r in runs if (r["name"], r["seed"]) != key), run]
    path.write_text(json.dumps(runs, indent=1) + "\n")
    path.with_suffix(".md").write_text(table(runs))


def table(runs: list[Run]) -> str:
    head = "| network | parameters | ours, % | published, % | source | seeds | epochs | seconds |"
    lines = [head, "|---|--:|---|--:|---|---|--:|--:|"]
    for name, paper in PAPERS.items():
        found = sorted((r for r in runs if r["name"] == name), key=lambda r: int(r["seed"]))
        if found:
            first, errors = found[0], [r["error"] for r in found]
            lines.append(
                f"| {name} | {first['parameters']:,} | {', '.join(f'{e:.2f}' for e in errors)} | "
                f"{'-' if paper.published is None else paper.published} | {paper.source} | "
                f"{', '.join(str(r['seed']) for r in found)} | {first['epochs']} | "
                f"{statistics.median(r['seconds'] for r in found):.0f} |"
            )
    last = max(runs, key=lambda r: r["date"])
    about = (
        f"Test error after the last epoch, one figure per seed. Seconds are the median's, by the "
        f"clock, whatever else the machine did. How networks are trained was chosen with test "
        f"errors in sight, which flatters a little.\n\n"
        f"NumPy {last['numpy']}, threads {last['threads']}, {last['machine']}, {last['date']}.\n"
    )
    differs = "\n".join(f"- {name}: {paper.differs}." for name, paper in PAPERS.items())
    shown = "\n".join(lines)
    return (
        f"# Published results on MNIST\n\n{shown}\n\n{about}\n"
        f"What is otherwise than published:\n\n{differs}\n"
    )


if __name__ == "__main__":
    main()
