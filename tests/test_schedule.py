import math

import pytest

from diptych.train.schedule import learning_rate


def rates(**options) -> list[float]:
    return [learning_rate(step, **options) for step in range(options["steps"])]


def test_a_short_run_worked_by_hand():
    # Up in quarters; then 1/2 (1 + cos) of 0, 45, 90 and 135 degrees.
    half = math.sqrt(0.5)
    expected = [0.25, 0.5, 0.75, 1, 1, (1 + half) / 2, 0.5, (1 - half) / 2]
    assert rates(peak=1.0, warmup_steps=4, steps=8) == pytest.approx(expected)


def test_the_rate_scales_with_its_peak():
    small, large = rates(peak=1.0, warmup_steps=3, steps=20), rates(peak=4.0, warmup_steps=3, steps=20)
    assert large == pytest.approx([4 * rate for rate in small])


def test_it_rises_then_falls_and_is_never_zero_within_the_run():
    all_rates = rates(peak=1.0, warmup_steps=10, steps=100)
    assert all_rates[:10] == sorted(all_rates[:10])
    assert all_rates[10:] == sorted(all_rates[10:], reverse=True)
    assert min(all_rates) > 0  # no step is wasted
    assert learning_rate(100, peak=1.0, warmup_steps=10, steps=100) == 0


def test_without_a_warm_up_it_starts_at_the_peak():
    assert learning_rate(0, peak=3.0, warmup_steps=0, steps=10) == 3.0


def test_a_warm_up_longer_than_the_run_never_reaches_the_peak():
    assert rates(peak=1.0, warmup_steps=10, steps=3) == pytest.approx([0.1, 0.2, 0.3])
