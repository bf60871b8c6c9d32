"""Pictures, shards and an encoder small enough to see through, for the tests of evaluation sets."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from diptych.measures.unit_length import unit_length


def png(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(file, "PNG")
    return file.getvalue()


def pack(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


class ToyEncoder:
    """A picture's feature is its mean colour; a text's is the colour it names, or what the table says."""

    def __init__(self, texts: dict[str, list[float]] | None = None) -> None:
        self.texts = texts
        self.text_batches: list[list[str]] = []
        self.image_batches: list[int] = []

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        self.image_batches.append(len(images))
        return unit_length(np.array([np.asarray(image).mean(axis=(0, 1)) for image in images]))

    def logits_per_image(self, image_features: np.ndarray, text_features: np.ndarray) -> np.ndarray:
        return 10 * image_features @ text_features.T

    def probabilities(self, logits_per_image: np.ndarray) -> np.ndarray:
        powers = np.exp(logits_per_image)
        return powers / powers.sum(axis=1, keepdims=True)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        self.text_batches.append(list(texts))
        if self.texts:
            return np.array([self.texts[text] for text in texts], np.float32)
        named = np.array([[word in text for word in ("red", "green", "blue")] for text in texts], np.float32)
        return unit_length(named + 0.01)


def draw(folder: Path, **colours: str) -> None:
    """Pictures by path, with "__" for "/"."""
    for name, colour in colours.items():
        path = folder / f"{name.replace('__', '/')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(colour))


def nine_kinds(data: Path) -> Path:
    """A folder with a tiny set of each of the nine kinds, eight of them rows of the table of tasks."""
    colours = {"red": "red", "green": "lime", "blue": "blue"}
    for split in ("train", "test"):
        for name, colour in colours.items():
            draw(data / "cifar10" / split, **{f"{name}__{i}": colour if i else "red" for i in range(4)})
    voc = data / "voc2007" / "VOC2007"
    (voc / "ImageSets" / "Main").mkdir(parents=True)
    (voc / "JPEGImages").mkdir()
    for number, colour in enumerate(("red", "blue", "purple", "lime"), start=1):
        (voc / "JPEGImages" / f"{number}.jpg").write_bytes(png(colour))
    (voc / "ImageSets" / "Main" / "cat_test.txt").write_text("1 1\n2 -1\n3 1\n4 0\n")
    (voc / "ImageSets" / "Main" / "dog_test.txt").write_text("1 -1\n2 1\n3 1\n4 -1\n")
    draw(data / "ucf101", ApplyLipstick__a__0="red", ApplyLipstick__a__1="red", ApplyLipstick__b__0="blue")
    draw(data / "ucf101", BabyCrawling__c__0="blue", BabyCrawling__d__0="lime")
    (data / "ucf101" / "testlist01.txt").write_text("ApplyLipstick/a.avi\nBabyCrawling/c.avi\n")
    (data / "ucf101" / "testlist02.txt").write_text("ApplyLipstick/b.avi\nBabyCrawling/d.avi\n")
    draw(data / "imagenet_vid", **{"airplane__a__0": "red", "airplane__a__-9": "blue", "dog__b__0": "lime"})
    draw(data / "imagenet_vid", **{"dog__c__0": "blue", "dog__c__1": "red"})
    rows = ["1,x,0,1,0,cut,apple,1", "2,y,0,1,0,cut,apple,0", "3,z,0,1,1,blend,phone,1", "4,x,0,1,1,blend,phone,2"]
    draw(data / "rareact", **{"1__0": "red", "2__0": "blue", "3__0": "lime", "4__0": "purple"})
    (data / "rareact" / "rareact.csv").write_text(
        "\n".join(["id,video_id,start,end,class_id,verb,noun,annotation", *rows])
    )
    shard = {"a.png": png("red"), "a.txt": b"a red kite\na kite", "b.png": png("blue"), "b.txt": b"a blue boat\na boat"}
    pack(data / "captions" / "test" / "0.tar", shard | {"c.png": png("lime"), "c.txt": b"grass"})
    (data / "captions" / "test" / "nshards.txt").write_text("1")
    (data / "captions" / "dataset_type.txt").write_text("retrieval")
    draw(data / "iiit5k", a="red", b="blue", c="lime")
    words = [("a.png", "OPEN", ["SHUT", "DOOR"]), ("b.png", "SHUT", ["OPEN"]), ("c.png", "EXIT", ["SALE", "OPEN"])]
    lines = [json.dumps({"image": image, "word": word, "lexicon": others}) for image, word, others in words]
    (data / "iiit5k" / "words.jsonl").write_text("\n".join(lines))
    draw(data / "im2gps", q="red", r="blue", s="lime", far="orange", near="navy")
    (data / "im2gps" / "places.csv").write_text("image,latitude,longitude\nq.png,0,0\nr.png,0,0\ns.png,0,10\n")
    (data / "im2gps" / "reference.csv").write_text("image,latitude,longitude\nfar.png,0,10\nnear.png,0,0.1\n")
    draw(data / "sugarcrepe", a="red", b="blue")
    choice = {"filename": "a.png", "caption": "a red cup", "negative_caption": "a blue cup"}
    other = {"filename": "b.png", "caption": "a boat at sea", "negative_caption": "a sea at boat"}
    (data / "sugarcrepe" / "swap_att.json").write_text(json.dumps({"0": choice, "1": other}))
    (data / "sugarcrepe" / "add_att.json").write_text(json.dumps({"0": choice | {"negative_caption": "a mug"}}))
    return data
