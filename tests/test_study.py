"""train/study.py, with the real optuna; it skips without."""

import sys

import pytest

from diptych.errors import MissingExtraError
from diptych.train.study import Study
from diptych.train.sweep import Trial, read_axis

AXES = [read_axis("train.learning_rate=1e-4..1e-1"), read_axis("train.batch_size=8..64"), read_axis("seed=1,2")]


def wrong(trial: Trial) -> float:
    return abs(float(trial.options["train.learning_rate"]) - 0.01)


@pytest.mark.filterwarnings("ignore")  # optuna's own
def test_a_study_goes_on_where_it_was_left_and_asks_again_for_what_was_under_way(tmp_path):
    pytest.importorskip("optuna", reason="optuna is not installed: pip install 'diptych[optuna]'")

    def opened() -> Study:
        return Study(AXES, tmp_path, count=5, seed=0, minimises=True)

    first = opened()
    trials = []
    for _ in range(2):
        trial = first.ask()
        assert trial
        assert 8 <= int(trial.options["train.batch_size"]) <= 64
        assert trial.options["seed"] in ("1", "2")
        trials.append(trial)
        first.tell(trial, wrong(trial))
    under_way = first.ask()  # killed now
    again = opened()
    assert again.ask() == under_way
    again.tell(under_way, None)  # it failed
    rest = []
    while trial := again.ask():
        rest.append(trial)
        again.tell(trial, wrong(trial))
    assert len(rest) == 2
    assert again.trials == [*trials, under_way, *rest]
    assert opened().ask() is None


def test_without_the_extra_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"--study needs an extra: pip install 'diptych\[optuna\]'\. A grid"):
        Study(AXES, tmp_path, count=1, seed=0, minimises=True)
