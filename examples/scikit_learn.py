"""More metrics than nnx has: scikit-learn's, on `nnx.to_numpy`.   pip install scikit-learn"""

import numpy as np
from sklearn.metrics import classification_report, roc_auc_score

import nnx
from nnx import layers as L
from nnx import optim

nnx.seed(0)
train, test = nnx.data.load("digits"), nnx.data.load("digits", split="test")
net = L.Sequential(L.Linear(64, 50), L.Relu(), L.Linear(50, 10))
trainer = nnx.Trainer(net, optim.Adam(net.parameters(), lr=1e-2))
trainer.fit(nnx.data.DataLoader(train, batch_size=32, shuffle=True, seed=0), epochs=5)

# The model's outputs are arrays of its backend: one call brings them to the host.
probabilities = nnx.to_numpy(nnx.softmax(trainer.predict(test.x)))
predicted = probabilities.argmax(axis=1)

print(classification_report(test.t, predicted, digits=3))
rows = probabilities.astype(np.float64)
rows /= rows.sum(axis=1, keepdims=True)  # it asks for sums of 1 in float64
print(f"area under the ROC curve: {roc_auc_score(test.t, rows, multi_class='ovr'):.4f}")

result = trainer.evaluate(nnx.data.DataLoader(test, batch_size=1000))
print(f"accuracy, as nnx has it: {result.accuracy:.4f}, {np.mean(predicted == test.t):.4f}")
