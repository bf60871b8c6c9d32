import tracemalloc

import pytest

from diptych.data.tar import TarSample
from diptych.pairs.packed import PackedSamples

SAMPLES = [
    TarSample("a", {"jpg": (512, 70_000), "txt": (71_168, 12)}),
    TarSample("folder/ü", {"txt": (5_000_000_000, 3), "jpg": (2, 1)}),  # in another order, beyond 32 bits
    TarSample("\udcff.x", {}),  # a byte that is no UTF-8
    TarSample("b", {"jpg": (1, 0), "txt": (0, 0)}),
]


def test_samples_come_back_as_they_were():
    packed = PackedSamples(SAMPLES)
    assert list(packed) == SAMPLES
    assert [list(sample.parts) for sample in packed] == [list(sample.parts) for sample in SAMPLES]
    assert len(packed) == 4
    assert (packed[-1], packed[1:3]) == (SAMPLES[-1], SAMPLES[1:3])
    with pytest.raises(IndexError):
        packed[4]
    assert list(PackedSamples([])) == []
    for alike in (SAMPLES[:1], [SAMPLES[0], SAMPLES[3]], [SAMPLES[2]] * 3):  # keys of one length, and as many parts
        assert list(PackedSamples(alike)) == alike


def test_a_sample_takes_tens_of_bytes():
    tracemalloc.start()
    samples = [
        TarSample(f"{n:09d}", {"jpg": (n * 20_000, 18_000), "txt": (n * 20_000 + 19_000, 80)}) for n in range(10_000)
    ]
    objects, _ = tracemalloc.get_traced_memory()
    packed = PackedSamples(samples)
    both, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert packed.nbytes <= (both - objects) < packed.nbytes + 4_000
    assert packed.nbytes / len(samples) < 27  # 9 of the key, 2 spans of 8, and 1
    assert objects / len(samples) > 400
