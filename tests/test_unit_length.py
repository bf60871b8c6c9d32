import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diptych.measures.unit_length import unit_length


def test_a_vector_keeps_its_direction_and_has_length_one():
    np.testing.assert_allclose(unit_length(np.array([[3.0, 4.0], [0.0, -0.5]])), [[0.6, 0.8], [0, -1]], rtol=1e-7)
    assert unit_length(np.array([0.0, 2.0], np.float32)).tolist() == [0, 1]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_numbers_of_any_type_become_float32(dtype):
    vectors = np.array([[3, 4], [300, 400]], dtype)  # the square of 300 is too much for float16
    found = unit_length(vectors)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0.6, 0.8]] * 2, rtol=1e-3 if dtype == np.float16 else 1e-6)


def test_zeros_stay_zeros_and_no_vectors_stay_none():
    assert unit_length(np.zeros((2, 3), np.float32)).tolist() == [[0, 0, 0]] * 2
    assert unit_length(np.zeros((0, 3), np.float32)).shape == (0, 3)


def test_what_was_given_is_left_as_it_was():
    vectors = np.array([[3.0, 4.0]], np.float32)
    unit_length(vectors)
    assert vectors.tolist() == [[3, 4]]


@given(st.integers(0, 2**32 - 1), st.floats(-10, 10))
def test_it_is_what_torch_makes_of_it(seed, power):
    vectors = (np.random.default_rng(seed).normal(size=(4, 16)) * 10**power).astype(np.float32)
    expected = torch.nn.functional.normalize(torch.from_numpy(vectors), dim=-1).numpy()
    np.testing.assert_allclose(unit_length(vectors), expected, rtol=1e-6, atol=1e-12)
