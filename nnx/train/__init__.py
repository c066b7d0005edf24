"""Training: a loop that can be stopped, killed and taken up again, and what it is made of.

train, test = nnx.data.load("digits", split="train"), nnx.data.load("digits", split="test")
model = build_model("mlp:100", 64, 10)
optimizer = build_optimizer("adam", model.parameters())
trainer = nnx.Trainer(model, optimizer, schedule=cosine(), folder="run")
trainer.fit(
    nnx.data.DataLoader(train, batch_size=100, shuffle=True, seed=0),
    nnx.data.DataLoader(test, batch_size=1000),
    epochs=20,
)
"""

from .build import OPTIMIZERS, build_gpt, build_model, build_optimizer
from .evaluation import Evaluation, evaluate, predict
from .folder import RunFolder
from .generation import generate
from .given import Batches
from .meter import Meter
from .trainer import Trainer

__all__ = [
    "OPTIMIZERS",
    "Batches",
    "Evaluation",
    "Meter",
    "RunFolder",
    "Trainer",
    "build_gpt",
    "build_model",
    "build_optimizer",
    "evaluate",
    "generate",
    "predict",
]
