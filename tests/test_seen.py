import torch

from diptych.model.clip import CLIPOutput
from diptych.train.seen import Outputs


def test_outputs_without_rows_keep_their_widths_and_their_place_in_the_graph():
    features = torch.ones(1, 4, requires_grad=True)
    losses = (features.sum(dim=1, keepdim=True) * 3).expand(1, 2)
    none = Outputs(CLIPOutput(features, features, torch.tensor(1.0), None), losses).without_rows()
    assert none.features is not None
    assert none.losses is not None
    assert (none.features.image_features.shape, none.losses.shape) == ((0, 4), (0, 2))
    (none.losses.sum() + none.features.text_features.sum()).backward()
    assert features.grad is not None
    assert features.grad.tolist() == [[0.0] * 4]
    assert Outputs(None, None).without_rows() == (None, None)
