"""What is done with a run: `nnx train --resume`, `nnx eval`, `nnx predict`."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import error_of
from training import digits

import nnx
from nnx import cli, train
from nnx.train.folder import FILES

OPTIONS = ("--epochs", "4", "--model", "mlp:20", "--optimizer", "momentum", "--save-every", "7")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Left alone by the tests."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert cli.main(["train", *OPTIONS, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def model_of(folder: Path, name: str = "model.safetensors") -> nnx.Layer:
    model = train.build_model("mlp:20", 64, 10)
    nnx.load(model, folder / name)
    return model


# resume


def test_resume_a_complete_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "model.safetensors").read_bytes()
    assert cli.main(["train", "--resume", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "\nresumed after 4 epochs, step 180\n0 epochs in " in shown
    assert "held-out accuracy " in shown and (run / "model.safetensors").read_bytes() == before


def test_resume_for_more_epochs(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--resume", str(run), "--epochs", "6"]) == 0
    shown = capsys.readouterr().out
    assert "\nepoch 5/6" in shown and "\nepoch 6/6" in shown and "\n2 epochs in " in shown
    assert json.loads((run / "config.json").read_text())["arguments"]["epochs"] == 6
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 6
    assert cli.main(["train", "--resume", str(run)]) == 0
    assert "resumed after 6 epochs" in capsys.readouterr().out


def test_resume_what_has_no_checkpoint_yet(run: Path, trained: Path) -> None:
    """Killed in its first moments, it begins anew."""
    for name in set(FILES) - {"config.json"}:
        (run / name).unlink()
    assert cli.main(["train", "--resume", str(run)]) == 0
    for name in ("model.safetensors", "best.safetensors"):
        assert (run / name).read_bytes() == (trained / name).read_bytes()


def test_resume_with_another_number_of_threads(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = json.loads((run / "config.json").read_text())["arguments"]["threads"]
    assert cli.main(["train", "--resume", str(run), "--threads", str(threads + 1)]) == 0
    error = capsys.readouterr().err
    assert error.startswith("nnx: warning: resume: ") and error.count("\n") == 1
    assert f"threads was {threads} and is {threads + 1}" in error


def test_resume_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = error_of(["train", "--resume", str(tmp_path)], capsys)
    assert message == (
        f"there is no run in {str(tmp_path)!r}: it has no config.json; start one with "
        f"`nnx train --out {tmp_path}`"
    )


def test_resume_with_options_of_another_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["--lr", "1", "--batch-size", "3", "--out", "x"]
    message = error_of(["train", "--resume", str(run), *wrong], capsys)
    assert (
        "own options: leave out --batch-size, --lr, --out (what may change: --epochs, " in message
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "mlp:30"}, "checkpoint.safetensors' does not fit: load_state_dict:"),
        ({"optimizer": "adam"}, "checkpoint.safetensors' does not fit: Adam.load_state_dict"),
        ({"model": "cnn"}, "unknown model 'cnn'"),
        ({"speed": "fast"}, "config.json' has arguments that this nnx does not take"),
        ({"epochs": "many"}, "config.json' has arguments that this nnx does not take"),
        ({"lr": [1]}, "config.json' has arguments that this nnx does not take"),
    ],
)
def test_a_changed_configuration(
    change: dict[str, Any], message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((run / "config.json").read_text())
    config["arguments"] |= change
    (run / "config.json").write_text(json.dumps(config))
    before = (run / "checkpoint.safetensors").read_bytes()
    capsys.readouterr()
    assert cli.main(["train", "--resume", str(run)]) == 2
    assert message in capsys.readouterr().err
    assert (run / "checkpoint.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"arguments": 3}', '{"arguments": {}', "[" * 10**5, "\ud55c"]
)
def test_a_damaged_configuration(text: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "config.json").write_text(text, "utf-8")
    for command in (["train", "--resume"], ["eval"]):
        message = error_of([*command, str(run)], capsys)
        assert "config.json' is not what nnx writes: " in message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)


@settings(deadline=None)
@given(data=st.data())
def test_any_configuration_works_or_is_an_error(data: st.DataObject, trained: Path) -> None:
    """Read by `eval`; never another exception than nnx's own."""
    config = json.loads((trained / "config.json").read_text())
    part = data.draw(st.sampled_from([config, config["arguments"], config["data"]]))
    part[data.draw(st.sampled_from(sorted(part)) | st.text(max_size=6))] = data.draw(JSON)
    folder = trained.with_name("fuzzed")
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    images = folder / "x.npy"
    np.save(images, digits().dataset.x[:2])
    for command in (["eval", str(folder)], ["predict", str(folder), str(images)]):
        assert cli.main(command) in (0, 2)


# eval


def test_eval_prints_what_train_printed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--resume", str(run)]) == 0
    trained = capsys.readouterr().out.splitlines()
    assert cli.main(["eval", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "digits (test): 359 images"
    start = trained.index(lines[1])
    assert trained[start : start + len(lines) - 1] == lines[1:]
    assert cli.main(["eval", str(run), "--best", "--backend", "numba"]) == 0
    assert "held-out accuracy" in capsys.readouterr().out


def test_eval_the_best_epoch(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nnx.seed(9)
    nnx.save(train.build_model("mlp:20", 64, 10), run / "best.safetensors")
    expected = train.evaluate(model_of(run, "best.safetensors"), digits("test"))
    capsys.readouterr()
    assert cli.main(["eval", str(run), "--best"]) == 0
    assert f"{expected.errors} of 359 images" in capsys.readouterr().out


def idx(array: np.ndarray[Any, Any]) -> bytes:
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return struct.pack(">BBBB", 0, 0, 8, array.ndim) + sizes + array.tobytes()


def test_eval_on_data_of_another_form(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for prefix in ("train", "t10k"):
        images, labels = np.zeros((3, 28, 28), np.uint8), np.zeros(3, np.uint8)
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images))
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(labels))
    options = ["--data", "mnist", "--data-dir", str(tmp_path)]
    message = error_of(["eval", str(run), *options], capsys)
    assert message.startswith("mnist (test) has 784 numbers per image and 10 classes; the model of")
    assert message.endswith("takes 64 and tells 10 apart")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_eval_without_a_run(name: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / name).unlink()
    message = error_of(["eval", str(run)], capsys)
    assert name in message and ("cannot read" in message or "there is no run" in message)


# predict


@pytest.fixture
def images(tmp_path: Path) -> Any:
    """8x8 images of the held-out digits, uint8 with 17 grey levels."""
    x = digits("test").dataset.x[:7].reshape(7, 8, 8)
    return np.rint(x * 16).astype(np.uint8)


def expected(run: Path, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    x = images.reshape(len(images), -1).astype(np.float32) / 16
    return np.asarray(nnx.softmax(model_of(run).eval().forward(x)))


@pytest.mark.parametrize("form", ["npy", "idx", "idx.gz", "float", "flat", "float64", "fortran"])
def test_predict_reads(
    form: str, run: Path, images: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / ("x-idx3-ubyte" if form.startswith("idx") else "x.npy")
    if form == "idx":
        path.write_bytes(idx(images))
    elif form == "idx.gz":
        path = path.with_suffix(".gz")
        path.write_bytes(gzip.compress(idx(images)))
    elif form == "fortran":
        np.save(path, np.asfortranarray(images))
    elif form in ("float", "float64"):
        np.save(path, (images / 16).astype("float32" if form == "float" else "float64"))
    else:
        np.save(path, images.reshape(7, 64) if form == "flat" else images)
    capsys.readouterr()
    assert cli.main(["predict", str(run), str(path)]) == 0
    header, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    assert header == ["class", *[f"p{i}" for i in range(10)]]
    p = expected(run, images)
    assert [int(row[0]) for row in rows] == p.argmax(1).tolist()
    np.testing.assert_allclose(np.array([r[1:] for r in rows], float), p, rtol=1e-4, atol=1e-6)


def test_predict_writes(
    run: Path, images: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", images)
    command = ["predict", str(run), str(tmp_path / "x.npy")]
    capsys.readouterr()
    assert cli.main(command) == 0
    text = capsys.readouterr().out
    for name in ("p.csv", "p.npy"):
        out = tmp_path / name
        assert cli.main([*command, "--out", str(out)]) == 0
        assert capsys.readouterr().out == f"7 images: classes and probabilities in {out}\n"
    assert (tmp_path / "p.csv").read_text() == text
    found = np.load(tmp_path / "p.npy", allow_pickle=False)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected(run, images))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((0, 64)), "has shape (0, 64); expected at least one image of 64 numbers each"),
        (np.zeros((2, 63)), "has shape (2, 63); expected at least one image of 64 numbers each: ("),
        (np.zeros((8, 8)), "has shape (8, 8); expected at least one image of 64 numbers each: (N"),
        (np.float32(3), "has shape (); expected at least one image of 64 numbers each: (N, 64)"),
        (np.full((2, 64), "a"), "holds <U1, expected numbers"),
        (np.full((2, 64), None), "Object arrays cannot be loaded"),
        (np.diag([0, np.nan] * 32), "image 1 holds numbers from nan to nan, expected finite ones"),
        (np.diag([0, 0, -np.inf] + [0] * 61), "image 2 holds numbers from -inf to 0.0, expected"),
        (np.full((2, 64), 3e38), "image 0 gives no probabilities: it holds numbers from 3e+38 to"),
    ],
)
def test_what_is_no_image(
    array: Any, message: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    assert message in error_of(["predict", str(run), str(tmp_path / "x.npy")], capsys)


@settings(deadline=None)
@given(data=st.data())
def test_any_file_is_read_or_an_error(data: st.DataObject, trained: Path) -> None:
    """Any bytes, and a good file with one of its bytes changed."""
    if data.draw(st.booleans()):
        content: Any = data.draw(st.binary(max_size=200))
    else:
        out = io.BytesIO()
        np.save(out, digits().dataset.x[:1])
        content = bytearray(out.getvalue())
        content[data.draw(st.integers(0, 140))] = data.draw(st.integers(0, 255))
    path = trained.with_name("any.npy")
    path.write_bytes(bytes(content))
    assert cli.main(["predict", str(trained), str(path)]) in (0, 2)


def test_predict_to_nowhere(
    run: Path, images: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", images)
    command = ["predict", str(run), str(tmp_path / "x.npy"), "--out"]
    message = error_of([*command, "p.txt"], capsys)
    assert message == "--out p.txt: expected a file's name that ends in .csv or .npy"
    message = error_of([*command, str(tmp_path / "no" / "p.csv")], capsys)
    assert "there is no folder" in message
    if sys.platform == "linux":
        (tmp_path / "full.csv").symlink_to("/dev/full")
        assert "is a device" in error_of([*command, str(tmp_path / "full.csv")], capsys)
