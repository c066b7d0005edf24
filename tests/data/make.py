"""Writes the files of this version of nnx's formats: once, when a version is released.

python tests/data/make.py
"""

from pathlib import Path

import nnx
from nnx import train
from nnx.optim import schedules

HERE = Path(__file__).parent


def main() -> None:
    nnx.seed(0)
    model = train.build_model("mlp:4", 64, 10)
    images = nnx.data.load("digits")
    trainer = nnx.Trainer(
        model, train.build_optimizer("adam", model.parameters()),
        schedule=schedules.warmup(1, schedules.cosine()), clip_norm=1.0,
    )  # fmt: skip
    batches = nnx.data.DataLoader(images, 100, shuffle=True, seed=0)
    trainer.fit(batches, nnx.data.DataLoader(images, 1000), epochs=2)
    train.checkpoint.gather(trainer).write(
        HERE / f"checkpoint-{train.checkpoint.VERSION}.safetensors"
    )
    nnx.save(model, HERE / f"model-{nnx.io.VERSION}.safetensors")


if __name__ == "__main__":
    main()
