import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from diptych.errors import DataError
from diptych.measures.rare_actions import mean_weighted_precision

ACTIONS = [("cut", "laptop"), ("cut", "phone"), ("hammer", "phone")]


def test_segments_of_one_film_share_a_vote_and_a_tie_counts_against_us():
    targets, judged = np.array([0, 0, 0, 0]), np.array([1, 0, 0, 1])
    film = np.array([0, 1, 1, 2])
    scores = np.zeros((4, 3))
    scores[:, 0] = [0.5, 0.9, 0.5, 0.1]
    # ranks: 0.9 (negative, half a vote), 0.5 (negative, half), 0.5 (positive), 0.1 (positive)
    assert mean_weighted_precision(scores, targets, judged, film, ACTIONS) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_segments_that_show_another_action_are_negative_and_equal_the_plain_twin():
    rng = np.random.default_rng(0)
    targets, judged = rng.integers(3, size=60), rng.integers(5, size=60)
    film = rng.integers(9, size=60)
    scores = rng.normal(size=(60, 3))
    plain = []
    for number, (verb, noun) in enumerate(ACTIONS):
        groups: dict[str, list[int]] = {"positive": [], "hard": [], "easy": []}
        for i in range(60):
            own, other = targets[i] == number, ACTIONS[targets[i]]
            if own:
                groups["positive" if judged[i] == 1 else "easy" if judged[i] == 0 else "hard"].append(i)
            elif judged[i] == 1:
                groups["hard" if (other[0] == verb or other[1] == noun) else "easy"].append(i)
        rows, weights, labels = [], [], []
        for name, members in groups.items():
            for i in members:
                rows.append(scores[i, number])
                weights.append(1 / sum(film[j] == film[i] for j in members))
                labels.append(name == "positive")
        plain.append(average_precision_score(labels, rows, sample_weight=weights))
    assert mean_weighted_precision(scores, targets, judged, film, ACTIONS) == pytest.approx(np.mean(plain))


def test_an_action_that_nobody_shows_has_no_say():
    with pytest.raises(DataError, match="shows its action"):
        mean_weighted_precision(np.zeros((1, 3)), np.array([0]), np.array([2]), np.array([0]), ACTIONS)
