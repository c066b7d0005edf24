"""A character-level GPT on a text, in nnx and in PyTorch: the loss curve, and the time.

    python benchmarks/chargpt.py --data input.txt --out benchmarks/results/sequences/NAME

nanoGPT's published settings for a CPU: 4 layers of 4 heads, 128 wide, context 64, batches of 12,
2,000 steps, no dropout; a validation loss of 1.88. Its learning rate is 0.001; `nnx train` takes
0.003, which learns more in so few steps; --lr 0.001 takes nanoGPT's.

Both begin from the same weights and see the same batches; every 250 steps both are evaluated on the
whole held-out tenth of the text. They take turns, 250 steps each, so that both meet the same load
of the machine. Time is that of the steps.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import nnx
from nnx import optim, train
from nnx.bench.machine import _cpu, usable_cores
from nnx.capture import capture
from nnx.cli import options
from nnx.cli.chars import BETAS, Chars

GOAL = 1.88  # nanoGPT's README, "I only have a macbook"


def in_torch(model: nnx.layers.GPT) -> tuple[list[Any], Callable[[Any], Any]]:
    """The model's weights as PyTorch's, and its function."""
    W = {n: torch.tensor(p.numpy().copy(), requires_grad=True) for n, p in model.named_parameters()}
    heads = model.blocks[0].attention.heads

    def forward(ids: Any) -> Any:
        x = F.embedding(ids, W["tokens.W"]) + W["positions.P"]
        n, length, width = x.shape
        for i in range(len(model.blocks)):

            def w(name: str, at: str = f"blocks.{i}") -> Any:
                return W[f"{at}.{name}"]

            h = F.layer_norm(x, (width,), w("norm1.gamma")) @ w("attention.qkv.W")
            q, k, v = (
                a.view(n, length, heads, width // heads).transpose(1, 2) for a in h.split(width, -1)
            )
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + y.transpose(1, 2).reshape(n, length, width) @ w("attention.out.W")
            h = F.layer_norm(x, (width,), w("norm2.gamma")) @ w("mlp.0.W")
            x = x + F.gelu(h) @ w("mlp.3.W")
        return F.layer_norm(x, (width,), W["norm.gamma"]) @ W["tokens.W"].T

    return list(W.values()), forward


class Nnx:
    """A captured training step, as `nnx train` has it."""

    def __init__(self, task: Chars, model: nnx.layers.GPT) -> None:
        self.model, self.optimizer = model, task.optimizer(model)
        self.step = capture(self._step)

    def _step(self, x: Any, t: Any) -> Any:
        self.optimizer.zero_grad()
        loss = nnx.softmax_cross_entropy(self.model(nnx.Tensor(x)), t)
        loss.backward()
        optim.clip_grad_norm(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.data

    def rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def loss(self, task: Chars) -> float:
        return train.evaluate(self.model, task.tests()).loss


class Torch:
    """The same in PyTorch, eager."""

    def __init__(self, task: Chars, model: nnx.layers.GPT) -> None:
        self.weights, self.forward = in_torch(model)
        groups = [
            {"params": [w for w in self.weights if w.ndim > 1], "weight_decay": 0.1},
            {"params": [w for w in self.weights if w.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=task.a.lr, betas=BETAS)

    def step(self, x: Any, t: Any) -> Any:
        self.optimizer.zero_grad()
        logits = self.forward(torch.from_numpy(x))
        loss = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(t).flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        return loss.item()

    def rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def loss(self, task: Chars) -> float:
        total, rows = 0.0, 0
        with torch.no_grad():
            for x, t in task.tests():
                logits = self.forward(torch.from_numpy(x))
                loss = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(t).flatten())
                total, rows = total + loss.item() * len(x), rows + len(x)
        return total / rows


def run(a: argparse.Namespace) -> dict[str, Any]:
    argv = ["train", "--task", "chars", "--data", a.data, "--epochs", str(a.epochs)]
    argv += ["--seed", str(a.seed), *(["--lr", str(a.lr)] if a.lr else [])]
    task = Chars(options.filled(options.parser().parse_args(argv)))
    nnx.seed(a.seed)
    model = task.model()
    factor = nnx.optim.schedules.named(task.a.schedule)
    both = {"nnx": Nnx(task, model), "torch": Torch(task, model)}
    found: dict[str, Any] = {
        name: {"steps": [0], "losses": [one.loss(task)], "seconds": [0.0], "step_ms": []}
        for name, one in both.items()
    }
    steps = task.a.steps
    for epoch in range(a.epochs):
        for name, one in both.items():
            spent = []
            for i, (x, t) in enumerate(task.train().batches(epoch)):
                now = nnx.optim.schedules.Progress(epoch * steps + i, steps, a.epochs)
                one.rate(task.a.lr * factor(now))
                begun = time.perf_counter()
                one.step(x, t)
                spent.append(time.perf_counter() - begun)
            row = found[name]
            row["steps"].append((epoch + 1) * steps)
            row["seconds"].append(row["seconds"][-1] + sum(spent))
            row["step_ms"].append(1e3 * float(np.median(spent)))
            row["losses"].append(one.loss(task))
            shown = f"{row['losses'][-1]:.4f} after {row['seconds'][-1]:.1f} s"
            print(name, row["steps"][-1], shown, flush=True)
    ids = train.generate(model, task.vocabulary.encode("\n"), 300, context=task.a.context,
                         temperature=0.8, rng=np.random.default_rng(0))  # fmt: skip
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{_cpu()}, {usable_cores()} cores", "threads": a.threads, "goal": GOAL,
        "torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version(),
        "load": os.getloadavg()[0],
        "parameters": sum(p.size for p in model.parameters()), "runs": found,
        "rate": task.a.lr, "seed": a.seed,
        "text": task.vocabulary.decode(ids),
    }  # fmt: skip


def written(r: dict[str, Any]) -> str:
    ours, theirs = r["runs"]["nnx"], r["runs"]["torch"]
    rows = [
        f"| {step:,} | {a:.4f} | {b:.4f} | {s:.0f} | {u:.0f} |"
        for step, a, b, s, u in zip(
            ours["steps"], ours["losses"], theirs["losses"], ours["seconds"], theirs["seconds"],
            strict=True,
        )
    ]  # fmt: skip
    pairs = list(zip(ours["step_ms"], theirs["step_ms"], strict=True))
    ratios = sorted(t / n for n, t in pairs)
    return "\n".join([
        "# A character-level GPT, nnx beside PyTorch", "",
        f"{r['date']}, {r['machine']}; threads {r['threads']}, load of the machine "
        f"{r['load']:.1f}; PyTorch {r['torch']}, NumPy {r['numpy']}.", "",
        f"nanoGPT's settings for a CPU: {r['parameters']:,} parameters, context 64, batches of "
        f"12; rate {r['rate']:g}, seed {r['seed']}. Published validation loss: {r['goal']}. "
        f"Made by `benchmarks/chargpt.py`.", "",
        "| step | nnx: held-out loss | PyTorch | nnx: seconds | PyTorch |", "|---|---|---|---|---|",
        *rows, "",
        f"A step's median: nnx {min(n for n, _ in pairs):.1f} ms, PyTorch "
        f"{min(t for _, t in pairs):.1f} ms in the quietest 250 steps of each. PyTorch's time over "
        f"nnx's, of 250 steps each that follow one another: {ratios[len(ratios) // 2]:.2f} "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f}); above 1 nnx is faster.", "",
        "What nnx's model writes:", "", "```text", r["text"].strip(), "```", "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--lr", type=float, help="instead of that of nnx train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args()
    nnx.set_num_threads(a.threads)
    torch.set_num_threads(a.threads)
    result = run(a)
    a.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    a.out.with_suffix(".md").write_text(written(result))
    assert math.isfinite(result["runs"]["nnx"]["losses"][-1])


if __name__ == "__main__":
    main()
