"""Classes that were learned: what a file of them gives, and what it refuses."""

import json

import numpy as np
import pytest
import safetensors.numpy

from diptych.errors import ConfigError, DataError, ShapeError
from diptych.probe import PROBE_FORMAT, Probe

WEIGHTS = np.array([[1, 0, 0], [0, 2, 0]], np.float32)
PROBE = Probe(
    labels=("a <b>", "猫"),
    weights=WEIGHTS,
    bias=np.array([0.5, 0], np.float32),
    fingerprint="f" * 64,
    model="tiny",
    about={"examples": 12},
)


class Model:
    """Features that are what is given as pictures."""

    def __init__(self, fingerprint: str = "f" * 64) -> None:
        self._fingerprint = fingerprint

    def encode_images(self, images) -> np.ndarray:
        return np.stack(images).astype(np.float32)

    def fingerprint(self) -> str:
        return self._fingerprint


def test_probabilities_are_the_softmax_of_weights_and_bias():
    features = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    np.testing.assert_allclose(PROBE.logits(features), [[1.5, 0], [0.5, 2]])
    first = np.exp(1.5) / (np.exp(1.5) + 1)
    np.testing.assert_allclose(PROBE.probabilities(features)[0], [first, 1 - first], rtol=1e-6)
    large = Probe(labels=("a", "b"), weights=1e4 * WEIGHTS, bias=PROBE.bias, fingerprint="")
    np.testing.assert_allclose(large.probabilities(features), np.eye(2), atol=1e-6)  # and no overflow
    assert PROBE(Model(), []).shape == (0, 2)
    with pytest.raises(ShapeError):
        PROBE.logits(np.zeros((2, 4), np.float32))


def test_a_file_gives_the_same_again(tmp_path):
    PROBE.save(tmp_path / "my-classes")
    again = Probe.load(tmp_path / "my-classes")
    assert (again.labels, again.fingerprint, again.model, again.about) == (
        PROBE.labels, PROBE.fingerprint, "tiny", {"examples": 12},
    )  # fmt: skip
    np.testing.assert_array_equal(again.weights, PROBE.weights)
    np.testing.assert_array_equal(again.bias, PROBE.bias)
    assert [path.name for path in tmp_path.iterdir()] == ["my-classes"]


def test_another_model_is_refused():
    with pytest.raises(ConfigError, match="learned with the model tiny, and this one is another"):
        PROBE(Model("0" * 64), [])


METADATA = {"format": PROBE_FORMAT, "labels": '["a", "b"]', "fingerprint": "", "model": "", "about": "{}"}
TENSORS = {"weights": WEIGHTS, "bias": PROBE.bias}


@pytest.mark.parametrize(
    ("metadata", "tensors", "message"),
    [
        ({"format": "diptych-probe-9"}, {}, "its format is 'diptych-probe-9', not"),
        ({"labels": '["a", "a"]'}, {}, "two are the same"),
        ({"labels": '["a", "b", "c"]'}, {}, "Got 3 labels, weights"),
        ({"labels": '"ab"'}, {}, "no list of names"),
        ({"labels": "[" * 100_000}, {}, "must be a file of classes"),
        ({"about": "[1]"}, {}, "must be a file of classes"),
        ({}, {"bias": np.array([np.nan, 0], np.float32)}, "must be finite"),
        ({}, {"weights": WEIGHTS.astype(np.float64)}, "in float32"),
        ({}, {"weights": np.zeros(2, np.float32)}, "in float32"),
    ],
)
def test_a_file_that_is_none_is_told_why(tmp_path, metadata, tensors, message: str):
    path = tmp_path / "classes"
    path.write_bytes(safetensors.numpy.save(TENSORS | tensors, metadata=METADATA | metadata))
    with pytest.raises(DataError, match=message):
        Probe.load(path)


def test_what_is_no_file_of_safetensors_is_told(tmp_path):
    (tmp_path / "x").write_bytes(b"\x80\x04.")  # a pickle, which is not run
    with pytest.raises(DataError, match="must be a file of classes"):
        Probe.load(tmp_path / "x")
    with pytest.raises(DataError, match="No such file"):
        Probe.load(tmp_path / "none")
    with pytest.raises(DataError, match="cannot be read"):
        Probe.load(tmp_path)
    (tmp_path / "y").write_bytes(safetensors.numpy.save(TENSORS, metadata={"format": PROBE_FORMAT}))
    with pytest.raises(DataError, match="labels"):
        Probe.load(tmp_path / "y")


def test_what_a_probe_is_about_is_plain():
    assert json.loads(json.dumps(dict(PROBE.about))) == {"examples": 12}
