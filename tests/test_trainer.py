"""The training loop; PyTorch is the oracle for losses and whole runs."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training import bits, digits, figures, network, shuffled, trainer

import nnx
from nnx import layers as L
from nnx import train
from nnx.data import ArrayDataset, DataLoader
from nnx.optim import schedules


def test_two_epochs_are_pytorchs() -> None:
    """The same weights, batches, cosine rates and clipping: the same losses and weights."""
    nnx.seed(0)
    model = train.build_model("mlp:16", 64, 10).astype("float64")
    twin = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10))
    twin.double()
    with torch.no_grad():
        for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
            theirs.copy_(torch.tensor(mine.numpy().T))
    batches = digits("train", 64, shuffle=True, seed=3, dtype="float64")
    optimizer = train.build_optimizer("momentum", model.parameters())
    run = nnx.Trainer(model, optimizer, schedule=schedules.cosine(), clip_norm=0.5)
    epochs = run.fit(batches, epochs=2)

    sgd = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, T_max=2 * len(batches))
    again = digits("train", 64, shuffle=True, seed=3, dtype="float64")
    for epoch in epochs:
        losses, hits = [], 0
        for x, t in again:
            y, target = twin(torch.tensor(x)), torch.tensor(t)
            losses += torch.nn.functional.cross_entropy(y, target, reduction="none").tolist()
            hits += int((y.argmax(1) == target).sum())
            sgd.zero_grad()
            loss: Any = torch.nn.functional.cross_entropy(y, target)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
            sgd.step()
            schedule.step()
        assert math.isclose(epoch["train_loss"], sum(losses) / len(losses), rel_tol=1e-9)
        assert math.isclose(epoch["train_accuracy"], hits / len(losses), rel_tol=1e-9)
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(mine.numpy().T, theirs.detach().numpy(), rtol=0, atol=1e-12)


def test_digits_are_learnt() -> None:
    run = trainer(optimizer="momentum", schedule=schedules.cosine())
    history = run.fit(shuffled(32), digits("test"), epochs=15)
    last = history[-1]
    assert last["train_accuracy"] > 0.9 and last["test_accuracy"] > 0.9
    assert [(e["epoch"], e["step"]) for e in history] == [(i, 45 * i) for i in range(1, 16)]
    assert last["lr"] < 1e-4 < history[0]["lr"] <= 0.1
    assert last["rows_per_second"] > 0 and last["seconds"] > 0
    assert (run.epoch, run.batch, run.step) == (15, 0, 675) and run.stopped is None
    again = run.evaluate(digits("test", 7))
    assert again.accuracy == pytest.approx(last["test_accuracy"])
    assert again.scores["loss"] == pytest.approx(last["test_loss"], rel=1e-5)
    y = nnx.to_numpy(run.predict(digits("test").dataset.x, batch_size=100))
    assert (y.argmax(1) == digits("test").dataset.t).mean() == pytest.approx(again.accuracy)


def test_same_seed_same_result() -> None:
    runs = [trainer(seed) for seed in (1, 1, 2)]
    a, b, c = [(figures(r.fit(shuffled(), digits("test"), epochs=2)), bits(r.model)) for r in runs]
    assert a == b and a[1] != c[1]


def test_a_captured_run_equals_an_eager_one() -> None:
    """With dropout, a schedule and clipping, to the last bit."""
    made = []
    for eager in (False, True):
        run = trainer(1, schedule=schedules.warmup(1, schedules.cosine()), clip_norm=1, eager=eager)
        made.append((figures(run.fit(shuffled(), digits("test"), epochs=3)), bits(run.model)))
    assert made[0] == made[1]


def test_fit_counts_epochs_over_calls() -> None:
    whole, parts = trainer(), trainer()
    whole.fit(shuffled(), epochs=4)
    for epochs in (1, 3, 3, 4):
        parts.fit(shuffled(), epochs=epochs)
    assert bits(whole.model) == bits(parts.model)
    assert figures(whole.history) == figures(parts.history)


def test_loss_and_metrics_of_ones_own() -> None:
    """Regression: the mean squared error is PyTorch's."""
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(30, 3)).astype("f"), rng.normal(size=(30, 2)).astype("f")
    batches = DataLoader(ArrayDataset(x, t), 8)
    nnx.seed(0)
    model = L.Sequential(L.Linear(3, 2))
    W, b = (np.array(p.numpy()) for p in model.parameters())

    def worst(y: Any, t: Any) -> Any:
        xp = nnx.get_backend().xp
        return xp.max(xp.abs(xp.subtract(y, t)))

    run = nnx.Trainer(
        model, nnx.optim.SGD(model.parameters(), lr=1e-9),
        loss=nnx.mean_squared_error, metrics={"worst": worst}, monitor="test_worst",
    )  # fmt: skip
    (entry,) = run.fit(batches, batches, epochs=1)
    expected = torch.nn.functional.mse_loss(torch.tensor(x @ W + b), torch.tensor(t))
    assert entry["train_loss"] == pytest.approx(float(expected), rel=1e-5)
    parts = [np.abs(x[i : i + 8] @ W + b - t[i : i + 8]).max() * len(x[i : i + 8])
             for i in range(0, 30, 8)]  # fmt: skip
    assert entry["test_worst"] == pytest.approx(sum(parts) / 30, rel=1e-4)
    assert "train_accuracy" not in entry and run.evaluation is not None
    with pytest.raises(nnx.OptionError, match=r"no confusion matrix: .* scores are loss, worst"):
        _ = run.evaluation.accuracy
    assert run.best == {"epoch": 1, "value": entry["test_worst"]}


def test_callbacks_see_every_step_and_epoch() -> None:
    seen: list[Any] = []

    def on_step(run: train.Trainer) -> None:
        seen.append((run.epoch, run.batch, run.step, run.meter.rows))

    run = trainer(on_step=[on_step], on_epoch=[lambda r: seen.append(len(r.history))])
    run.fit(digits("train", 500), epochs=2)
    assert seen == [
        (0, 1, 1, 500), (0, 2, 2, 1000), (0, 3, 3, 1438), 1,
        (1, 1, 4, 500), (1, 2, 5, 1000), (1, 3, 6, 1438), 2,
    ]  # fmt: skip


def test_stop_in_the_middle_of_an_epoch_and_go_on() -> None:
    def stop(run: train.Trainer) -> None:
        if run.step in (2, 7):
            run.stop(f"after {run.step}")

    whole, parts = trainer(), trainer(on_step=[stop])
    whole.fit(shuffled(), epochs=2)
    assert parts.fit(shuffled(), epochs=2) == []
    assert (parts.step, parts.batch, parts.stopped) == (2, 2, "after 2")
    parts.fit(shuffled(), epochs=2)
    assert parts.step == 2
    while parts.stopped is not None:
        parts.stopped = None
        parts.fit(shuffled(), epochs=2)
    assert bits(whole.model) == bits(parts.model)
    assert figures(whole.history) == figures(parts.history)


def test_an_epoch_is_ended_with_the_loader_it_began_with() -> None:
    run = trainer(on_step=[lambda r: r.stop()])
    run.fit(shuffled(), epochs=1)
    run.stopped = None
    with pytest.raises(nnx.OptionError, match=r"within an epoch of the loader .*'batch_size': 100"):
        run.fit(shuffled(50), epochs=1)


class Scripted(train.Trainer):
    """Epochs whose held-out losses are given."""

    def script(self, losses: list[float]) -> train.Trainer:
        left = iter(losses)
        self._evaluator = lambda *_: train.Evaluation({"loss": next(left)})  # type: ignore[assignment]
        return self


def scripted(losses: list[float], **options: Any) -> train.Trainer:
    model = network()
    made = Scripted(model, nnx.optim.SGD(model.parameters(), lr=0.1), **options)
    return made.script(losses)


def test_early_stopping_and_the_best_epoch() -> None:
    states: list[Any] = []
    run = scripted(
        [5, 3, 4, 2, 2, 3, 4, 1], patience=3, on_epoch=[lambda r: states.append(bits(r.model))]
    )
    run.fit(shuffled(), digits("test"), epochs=8)
    assert (run.epoch, run.best) == (7, {"epoch": 4, "value": 2})
    assert run.stopped == "test_loss was best in epoch 4"
    assert bits(run.model) == states[6] != states[3]
    run.load_best()
    assert bits(run.model) == states[3]


def test_what_is_best() -> None:
    run = scripted([math.nan, 2, math.nan, 1])
    run.fit(shuffled(), digits("test"), epochs=4)
    assert run.best == {"epoch": 4, "value": 1}
    model = network()
    run = nnx.Trainer(model, nnx.optim.Adam(model.parameters(), lr=0.005), monitor="train_accuracy")
    run.fit(shuffled(), epochs=3)
    assert run.best == {"epoch": 3, "value": run.history[2]["train_accuracy"]}
    with pytest.raises(nnx.StateError, match=r"load_best.* before an epoch is complete: call fit"):
        trainer().load_best()


def test_times_are_of_a_clock_that_cannot_be_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    backwards = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: next(backwards))
    history = trainer().fit(shuffled(), digits("test"), epochs=2)
    assert all(0 < e["seconds"] < 60 and e["rows_per_second"] > 0 for e in history)


def test_two_trainers_in_two_threads() -> None:
    """Each ends as it would alone, dropout and all."""

    def run(made: train.Trainer, seed: int) -> None:
        made.fit(shuffled(20, seed), digits("test"), epochs=3)

    alone, together = ([trainer(seed, clip_norm=1) for seed in (1, 2)] for _ in range(2))
    for seed, made in enumerate(alone):
        run(made, seed)
    threads = [threading.Thread(target=run, args=(m, i)) for i, m in enumerate(together)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [bits(m.model) for m in together] == [bits(m.model) for m in alone]
    assert [figures(m.history) for m in together] == [figures(m.history) for m in alone]


def test_ctrl_c_ends_after_a_step_with_a_checkpoint(tmp_path: Path) -> None:
    def press(run: train.Trainer) -> None:
        if run.step == 5:
            signal.raise_signal(signal.SIGINT)
            seen.append("the step's callbacks are called")

    seen: list[str] = []
    run = trainer(folder=tmp_path / "run", on_step=[press])
    with pytest.raises(KeyboardInterrupt):
        run.fit(shuffled(), epochs=1)
    assert run.step == 5 and seen
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    whole, resumed = trainer(), trainer(seed=3, folder=tmp_path / "run")
    whole.fit(shuffled(), epochs=2)
    assert resumed.resume() and resumed.step == 5
    resumed.fit(shuffled(), epochs=2)
    run.fit(shuffled(), epochs=2)
    assert bits(resumed.model) == bits(whole.model)


def test_a_second_ctrl_c_acts_at_once() -> None:
    def press(run: train.Trainer) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("not reached")

    run = trainer(on_step=[press])
    with pytest.raises(KeyboardInterrupt):
        run.fit(shuffled(), epochs=1)
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_sigterm_and_ctrl_c_while_evaluating(tmp_path: Path) -> None:
    class Slow(DataLoader):
        def __iter__(self) -> Iterator[Any]:
            for i, batch in enumerate(super().__iter__()):
                if i == 1:
                    signal.raise_signal(signal.SIGTERM)
                yield batch

    run = trainer(folder=tmp_path / "run")
    with pytest.raises(SystemExit) as exit_:
        run.fit(shuffled(), Slow(digits("test").dataset, 100), epochs=2)
    assert exit_.value.code == 128 + signal.SIGTERM
    assert run.model.training and run.history == []
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    whole, resumed = trainer(), trainer(seed=3, folder=tmp_path / "run")
    whole.fit(shuffled(), digits("test"), epochs=2)
    resumed.resume()
    resumed.fit(shuffled(), digits("test"), epochs=2)
    assert figures(resumed.history) == figures(whole.history)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == resumed.history


def test_others_handlers_stay() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    try:
        run = trainer(on_step=[lambda r: signal.raise_signal(signal.SIGINT)])
        run.fit(digits("train", 1000), epochs=1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIGINT] * 2 and run.epoch == 1
