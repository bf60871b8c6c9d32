"""open_clip's side of demo_open_clip.py, in open_clip's own environment; what is asked comes as JSON on stdin.

train: registers the model's config and calls `open_clip_train.main.main` with the given words.
measure: zero-shot top-1 and top-5 of a checkpoint, as open_clip's own README does it; JSON on stdout.
"""

import json
import sys
from pathlib import Path
from typing import Any


def train(asked: dict[str, Any]) -> None:
    import open_clip
    from open_clip_train.main import main

    open_clip.add_model_config(asked["config"])
    main(asked["words"])


def measure(asked: dict[str, Any]) -> None:
    import open_clip
    import torch
    from PIL import Image

    open_clip.add_model_config(asked["config"])
    model, _, preprocess = open_clip.create_model_and_transforms(asked["model"])
    saved = torch.load(asked["checkpoint"], map_location="cpu", weights_only=True)["state_dict"]
    model.load_state_dict({name.removeprefix("module."): value for name, value in saved.items()})
    model.eval()
    tokenizer = open_clip.get_tokenizer(asked["model"])
    folder = Path(asked["test"])
    told = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    with torch.no_grad():
        prompts = [template.replace("{}", name) for name in told["names"] for template in told["templates"]]
        texts = torch.cat([model.encode_text(tokenizer(some), normalize=True) for some in _some(prompts)])
        texts = texts.reshape(len(told["names"]), len(told["templates"]), -1).mean(dim=1)
        texts = texts / texts.norm(dim=-1, keepdim=True)
        right = {1: 0, 5: 0}
        for some in _some(list(enumerate(told["targets"]))):
            pictures = [preprocess(Image.open(folder / f"{number}.png")) for number, _ in some]
            images = model.encode_image(torch.stack(pictures), normalize=True)
            best = (images @ texts.T).topk(5).indices
            is_right = best == torch.tensor([target for _, target in some])[:, None]
            for count in right:
                right[count] += int(is_right[:, :count].any(dim=1).sum())
    total = len(told["targets"])
    print(json.dumps({"top-1": right[1] / total, "top-5": right[5] / total}))


def _some(rows: list[Any]) -> list[list[Any]]:
    return [rows[start : start + 256] for start in range(0, len(rows), 256)]


if __name__ == "__main__":
    job = json.load(sys.stdin)
    {"train": train, "measure": measure}[job.pop("job")](job)
