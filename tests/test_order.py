import collections
import itertools

from diptych.pairs.order import WindowedOrder, drawn_with_replacement

ENDS = [3, 5, 9, 10, 16]  # shards of 3, 2, 4, 1 and 6 samples


def shard_of(sample: int) -> int:
    return next(number for number, end in enumerate(ENDS) if sample < end)


def test_an_epoch_visits_every_sample_once_and_each_epoch_in_its_own_order():
    order = WindowedOrder(ENDS, window=2, seed=7)
    epochs = [tuple(order(position) for position in range(16 * epoch, 16 * epoch + 16)) for epoch in range(4)]
    assert all(sorted(epoch) == list(range(16)) for epoch in epochs)
    assert len(set(epochs)) == 4


def test_only_the_shards_of_one_window_are_read_at_a_time():
    order = WindowedOrder(ENDS, window=2, seed=7)
    shards = [shard_of(order(position)) for position in range(16)]
    windows = []
    for shard in shards:
        if not windows or (shard not in windows[-1] and len(windows[-1]) == 2):
            windows.append(set())
        windows[-1].add(shard)
    assert [len(window) for window in windows] == [2, 2, 1]
    assert set.union(*windows) == set(range(5))
    assert any(a != b for a, b in itertools.pairwise(shards[:3]))  # mixed, not one after the other


def test_a_position_is_a_number_whatever_was_asked_before():
    forth, back = WindowedOrder(ENDS, window=2, seed=1), WindowedOrder(ENDS, window=2, seed=1)
    assert [forth(n) for n in range(200)] == [back(n) for n in reversed(range(200))][::-1]
    other = WindowedOrder(ENDS, window=2, seed=2)
    assert [forth(n) for n in range(16)] != [other(n) for n in range(16)]


def test_the_next_window_is_told_when_one_begins():
    told: list[set[int]] = []
    order = WindowedOrder(ENDS, window=2, seed=3, on_window=lambda shards: told.append(set(shards)))
    read: dict[int, set[int]] = collections.defaultdict(set)  # shards by the number of windows told so far
    for position in range(32):
        shard = shard_of(order(position))
        read[len(told)].add(shard)
    assert len(told) == 6  # three windows an epoch, the last of which tells the first of the next
    assert [read[number + 1] for number in range(1, 6)] == told[:5]


def test_draws_with_replacement_are_even_and_independent_of_each_other():
    draws = [drawn_with_replacement(position, count=10, seed=0) for position in range(10_000)]
    counts = collections.Counter(draws)
    assert sorted(counts) == list(range(10))
    assert sum((count - 1000) ** 2 / 1000 for count in counts.values()) < 27.9  # chi-square, 9 degrees, p = 0.001
    pairs = collections.Counter(itertools.pairwise(draws))
    assert len(pairs) == 100
    assert draws[:50] != [drawn_with_replacement(position, count=10, seed=1) for position in range(50)]
