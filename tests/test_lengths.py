"""Lengths of batches: the same for every start and every number of processes, within the budget, and all of them."""

import collections

from diptych.pairs.lengths import DrawnLengths, pairs_at

LENGTHS = (16, 36, 64)


def drawn(stop: int, seed: int = 0) -> DrawnLengths:
    return DrawnLengths(LENGTHS, batch_size=10, seed=seed, stop=stop)


def test_a_length_is_a_function_of_the_seed_and_the_number_of_the_batch():
    short, long = drawn(20), drawn(400)
    assert [short.of_batch(n) for n in range(20)] == [long.of_batch(n) for n in range(20)]
    assert [short.samples(n) for n in range(20)] == [long.samples(n) for n in range(20)]
    assert [drawn(20, seed=1).of_batch(n) for n in range(20)] != [short.of_batch(n) for n in range(20)]


def test_each_length_comes_as_often_as_it_is_named():
    counts = collections.Counter(drawn(3000).of_batch(n) for n in range(3000))
    assert set(counts) == set(LENGTHS)
    assert all(abs(count - 1000) < 100 for count in counts.values())  # 4 standard deviations of 26
    twice = DrawnLengths((16, 16, 64), batch_size=10, seed=0, stop=3000)
    assert abs(sum(twice.of_batch(n) == 16 for n in range(3000)) - 2000) < 100


def test_batches_follow_each_other_without_a_gap_and_fill_the_budget_of_patches():
    lengths, end = drawn(50), 0
    for number in range(50):
        samples, length = lengths.samples(number), lengths.of_batch(number)
        assert samples.start == end
        end = samples.stop
        assert len(samples) == {16: 40, 36: 17, 64: 10}[length] == pairs_at(length, lengths=LENGTHS, batch_size=10)
        assert 640 - length < len(samples) * length <= 640
        assert {lengths.of_sample(position) for position in samples} == {length}


def test_parts_are_the_whole_batch_in_order_and_as_even_as_they_can_be():
    lengths = drawn(30)
    for number in range(30):
        parts = [lengths.samples(number, part=part, parts=3) for part in range(3)]
        assert [position for part in parts for position in part] == list(lengths.samples(number))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
