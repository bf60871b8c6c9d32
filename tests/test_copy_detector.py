import torch

from diptych.model.copy_detector import CopyDetector
from diptych.torch_runtime import generator


def pictures(count: int) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, CopyDetector.side, CopyDetector.side), generator=generator(1), dtype=torch.uint8
    )


@torch.no_grad()
def test_features_are_of_unit_length_and_do_not_hang_on_the_batch():
    torch.manual_seed(0)
    detector = CopyDetector().eval()
    some = pictures(5)
    features = detector(some)
    assert features.shape == (5, CopyDetector.embed_dim)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(5))
    # In training mode, too: no statistics of the batch, which would give away a copy in it.
    torch.testing.assert_close(detector.train()(some[2:3]), features[2:3], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_light_changes_next_to_nothing():
    torch.manual_seed(0)
    detector = CopyDetector().eval()
    dark = pictures(3).float() * 0.4
    assert (detector(dark) * detector(dark * 1.5 + 60)).sum(dim=1).min() > 0.995
