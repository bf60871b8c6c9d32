import pytest

from diptych.train.laps import BESIDE, SECTIONS, Laps, time_shares


class Clock:
    """A clock that goes on when it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def laps(clock: Clock) -> Laps:
    return Laps(clock)


def test_an_inner_section_is_taken_out_of_the_outer_one_and_the_rest_is_other(clock, laps):
    clock.now += 50  # before the first section nothing counts
    with laps.section("step"):
        clock.now += 3
        with laps.section("communication"):
            clock.now += 4
        clock.now += 1
    clock.now += 2
    assert laps.seconds() == {"step": 4, "communication": 4, "other": 2}
    assert time_shares(laps.seconds()) == {"step": 0.4, "communication": 0.4, "other": 0.2}


def test_a_section_that_an_error_ends_counts_and_is_left(clock, laps):
    def fail() -> None:
        with laps.section("saving"):
            clock.now += 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    clock.now += 2
    assert laps.seconds() == {"saving": 1, "other": 2}


def test_the_wait_for_each_item_counts_and_the_work_on_it_does_not(clock, laps):
    def slow():
        for item in "ab":
            clock.now += 1
            yield item
        clock.now += 5  # until it is known that there is no more

    seen = []
    for item in laps.waits("data", slow()):
        seen.append(item)
        with laps.section("step"):
            clock.now += 10
    assert seen == ["a", "b"]
    assert laps.seconds() == {"data": 7, "step": 20, "other": 0}


def test_a_line_begins_at_the_mark_and_the_whole_at_the_start_of_the_run(clock, laps):
    laps.go_on_from({"data": 30, "step": 70})
    with laps.section("step"):
        clock.now += 1
    laps.mark()
    with laps.section("data"):
        clock.now += 3
    clock.now += 1
    assert laps.since_mark() == {"data": 3, "other": 1}
    assert laps.seconds() == {"data": 33, "step": 71, "other": 1}
    laps.mark()
    assert laps.since_mark() == {"other": 0}


def test_other_threads_stand_beside_the_sum(clock, laps):
    with laps.section("step"):
        clock.now += 10
    laps.beside({"decode": 15.0, "read": 1.0})
    assert time_shares(laps.since_mark()) == {"step": 1.0, "other": 0.0, "read": 0.1, "decode": 1.5}
    assert laps.seconds() == {"step": 10, "other": 0, "decode": 15, "read": 1}


def test_shares_come_in_one_order_and_add_up_to_one():
    seconds = {name: number + 1.0 for number, name in enumerate(reversed(SECTIONS))}
    found = time_shares(seconds | {"decode": 9.0, "unknown": 3.0})
    assert list(found) == [*SECTIONS, "decode"]
    assert sum(found[name] for name in SECTIONS) == pytest.approx(1)
    assert found["data"] == 8 / 36
    assert not set(SECTIONS) & set(BESIDE)
    assert time_shares({}) == time_shares({"step": 0.0}) == {}
