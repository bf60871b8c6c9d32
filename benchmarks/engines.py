"""What engines make of the same weights in a second, and how near they stay: our four, and what others do.

    OMP_NUM_THREADS=1 python benchmarks/engines.py [--open-clip /tmp/oc/bin/python] [--models diptych-photo]
    OMP_NUM_THREADS=2 python benchmarks/engines.py --threads 2                          # on a quiet machine

Models are diptych-photo and a ViT-B/32 of random weights. Engines take turns, batch by batch; the least time of all
rounds counts. With one thread it is processor time, which other work on the machine changes little; with more it is
time by the clock. Beside our engines stand, on the same weights: `transformers` (this environment's) and open_clip (its
own environment's, in a process of its own) where they have the architecture, and what onnxruntime's quantiser makes
with its defaults. Near is the cosine with torch in float32 on 64 of the embedded drawings and 64 sentences, mean and
worst. Pictures go in batches of 16, sentences of 32; texts of open_clip are always 77 tokens. Graphs in --work are
not made again. Writes results/engines.json.
"""

import argparse
import json
import logging
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import history
from diptych.data.embedded import HELD_OUT, data_path
from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.runtime import hardware, instruction_sets
from diptych.sets.open import read_labelled
from diptych.torch_runtime import generator
from diptych.weights.bundle import Bundle
from diptych.weights.engines import load
from diptych.weights.registry import load_in_torch

VIT = "ViT-B-32, random weights"
Encode = Callable[[np.ndarray], np.ndarray]  # pixels or tokens to features
_BATCH, _NEAR = 16, 64
_OPEN_CLIP = """
import json, sys, time
import numpy as np, open_clip, torch
asked = json.loads(sys.stdin.readline())
torch.set_num_threads(asked["threads"])
model, _, _ = open_clip.create_model_and_transforms("ViT-B-32", pretrained=asked["weights"], force_quick_gelu=True)
model.eval()
clock = time.process_time if asked["threads"] == 1 else time.perf_counter
batches = {"image": torch.randn(asked["batch"], 3, 224, 224), "text": torch.ones(32, 77, dtype=torch.long)}
with torch.inference_mode():
    for line in sys.stdin:
        tower = line.strip()
        encode = model.encode_image if tower == "image" else model.encode_text
        start = clock()
        encode(batches[tower], normalize=True)
        print(clock() - start, flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["diptych-photo", VIT], choices=("diptych-photo", VIT))
    parser.add_argument("--open-clip", type=Path, help="a Python that has it")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--photos", help="a labelled set that int8 is calibrated on, beside the drawings")
    parser.add_argument("--work", type=Path, default=Path("runs/engines"))
    parser.add_argument("--out", type=Path, default=history.RESULTS / "engines.json")
    options = parser.parse_args()
    os.environ["XDG_CACHE_HOME"] = str(options.work.resolve() / "cache")
    import torch

    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    for model in options.models:
        for row in measured(model, options):
            rows.append({"model": model, "threads": options.threads, **row})
            print(json.dumps(rows[-1]), flush=True)
    there = json.loads(options.out.read_text(encoding="utf-8"))["rows"] if options.out.is_file() else []
    keys = ("model", "threads", "tower", "engine")
    kept = [old for old in there if all(any(old[key] != row[key] for key in keys) for row in rows)]
    result = {"hardware": hardware(), "instructions": instruction_sets(), "rows": [*kept, *rows]}
    history.write(options.out, result, keys=keys, measured={"rows": rows})


def measured(model: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    whole = bundle_of(model)
    folders = exported(model, whole, options)
    drawings, rng = read_labelled(data_path(HELD_OUT)), np.random.default_rng(1)
    some = rng.permutation(len(drawings))[:_NEAR].tolist()
    near = {
        "image": np.stack([whole.preprocess.pixels(drawings.open(row)) for row in some]),
        "text": cut(whole, [f"a photo of a {drawings.classnames[row]}." for row in some]),
    }
    batches = {"image": near["image"][:_BATCH], "text": near["text"][:32]}
    expected = {"image": whole.encode_pixels(near["image"]), "text": whole.encode_tokens(near["text"])}
    rows = []
    for tower in ("image", "text"):
        engines = engines_of(tower, whole, folders, options)
        peer = OpenClip(whole, options) if options.open_clip and model == VIT else None
        seconds: dict[str, list[float]] = {}
        clock = time.process_time if options.threads == 1 else time.perf_counter
        for number in range(options.rounds + 1):
            for name, encode in engines.items():
                start = clock()
                encode(batches[tower])
                if number:
                    seconds.setdefault(name, []).append(clock() - start)
            if peer and (taken := peer.seconds(tower)) and number:
                seconds.setdefault("open_clip", []).append(taken)
        plain = min(seconds["torch, float32"])
        for name, some_seconds in seconds.items():
            row = {"tower": tower, "engine": name, "a second": round(len(batches[tower]) / min(some_seconds), 1)}
            row["times torch"] = round(plain / min(some_seconds), 2)
            if name in engines:
                found = engines[name](near[tower])
                cosines = (found * expected[tower]).sum(axis=1) / np.linalg.norm(found, axis=1)
                row |= {"cosine": round(float(cosines.mean()), 5), "worst": round(float(cosines.min()), 4)}
            rows.append(row)
    return rows


def bundle_of(model: str) -> Bundle:
    if model != VIT:
        return load_in_torch(model)
    plain = load_in_torch("diptych-pictogram")  # its recipe and tokenizer, for other sizes
    from dataclasses import replace

    sizes = preset("ViT-B-32")
    clip = CLIP(sizes, generator(0)).eval()
    tokenizer = plain.tokenizer.with_context_length(sizes.text.context_length)
    return Bundle(model=clip, preprocess=replace(plain.preprocess, image_size=224), tokenizer=tokenizer)


def cut(bundle: Bundle, texts: list[str]) -> np.ndarray:
    """Tokens up to the longest text."""
    tokens = bundle.tokenizer.encode(texts, truncate=True)
    return tokens[:, : int((tokens == bundle.tokenizer.end_token_id).argmax(axis=1).max()) + 1]


def exported(model: str, bundle: Bundle, options: argparse.Namespace) -> dict[str, Path]:
    """Folders of the model with graphs: float32, and in 8 bits whatever its gate says of random weights."""
    from diptych.export.gate import MEASURES
    from diptych.export.int8_folder import export_int8
    from diptych.export.model_folder import export_model

    place = options.work.resolve() / model
    folders = {"float32": place / "float32", "int8": place / "int8"}
    if not folders["float32"].exists():
        export_model(bundle, folders["float32"], format="onnx")
    if not folders["int8"].exists():
        data = read_labelled(Path(options.photos) if options.photos else data_path(HELD_OUT))
        export_int8(bundle, folders["int8"], data, accepted=MEASURES if model == VIT else ())
    return folders


def engines_of(tower: str, whole: Bundle, folders: dict[str, Path], options: argparse.Namespace) -> dict[str, Encode]:
    import torch

    name = "encode_pixels" if tower == "image" else "encode_tokens"
    encode: Encode = getattr(whole, name)

    def in_bfloat16(batch: np.ndarray) -> np.ndarray:
        with torch.autocast("cpu", torch.bfloat16):
            return encode(batch)

    found: dict[str, Encode] = {"torch, float32": encode}
    if "avx512_bf16" in instruction_sets():
        found["torch, bfloat16"] = in_bfloat16
    from diptych.weights.onnx_towers import OnnxTowers

    for kind, folder in folders.items():
        towers = OnnxTowers(folder, threads=options.threads)
        made = load(folder, engine="onnx")
        object.__setattr__(made, "towers", towers)
        found[f"onnx, {kind}"] = getattr(made, name)
    try:
        openvino = OnnxTowers(folders["float32"], engine="openvino", threads=options.threads)
        found["openvino, float32"] = getattr(openvino, name)
    except Exception as error:
        logging.warning("OpenVINO is left out: %s", error)
    if whole.model.config.image.kind == "vit":
        found |= of_transformers(tower, whole)
    found["onnxruntime's quantiser, defaults"] = of_onnxruntime(tower, whole, options.threads)
    return found


def of_transformers(tower: str, whole: Bundle) -> dict[str, Encode]:
    import torch
    import transformers

    from diptych.weights.normalise import normalise

    with tempfile.TemporaryDirectory() as folder:
        whole.save(Path(folder) / "model")
        theirs = transformers.CLIPModel.from_pretrained(Path(folder) / "model").eval()

    @torch.inference_mode()
    def encode(batch: np.ndarray) -> np.ndarray:
        if tower == "image":
            features = theirs.get_image_features(pixel_values=normalise(whole.preprocess, torch.from_numpy(batch)))
        else:
            features = theirs.get_text_features(input_ids=torch.from_numpy(batch))
        features = getattr(features, "pooler_output", features)
        return torch.nn.functional.normalize(features, dim=-1).numpy()

    return {"transformers, float32": encode}


def of_onnxruntime(tower: str, whole: Bundle, threads: int) -> Encode:
    """`quantize_dynamic` of transformers, `quantize_static` of convolutions, as they are without an option."""
    import onnx
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, quantize_dynamic, quantize_static

    from diptych.export.onnx_graphs import NATIVE, image_graph, text_graph, to_bytes
    from diptych.export.quantise import has_convolutions

    graph = image_graph(whole.model, whole.preprocess, NATIVE) if tower == "image" else text_graph(whole.model, NATIVE)
    content = to_bytes(graph)
    drawings = read_labelled(data_path(HELD_OUT))
    pixels = np.stack([whole.preprocess.pixels(drawings.open(row)) for row in range(32)])

    class Pictures(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = iter([{"pixels": pixels[start : start + 4]} for start in range(0, 32, 4)])

        def get_next(self):
            return next(self._batches, None)

    with tempfile.TemporaryDirectory() as folder:
        plain, out = f"{folder}/plain.onnx", f"{folder}/out.onnx"
        Path(plain).write_bytes(content)
        logging.disable(logging.WARNING)
        if has_convolutions(onnx.load_from_string(content)):
            quantize_static(plain, out, Pictures())
        else:
            quantize_dynamic(plain, out)
        logging.disable(logging.NOTSET)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(out, settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


class OpenClip:
    """open_clip in its own environment, with the same weights; a process that measures when it is told to."""

    def __init__(self, whole: Bundle, options: argparse.Namespace) -> None:
        folder = options.work.resolve() / "open_clip"
        whole.save(folder, layout="open_clip")
        self._process = subprocess.Popen(
            [str(options.open_clip), "-c", _OPEN_CLIP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": ""},
        )  # fmt: skip
        asked = {"threads": options.threads, "weights": str(folder / "open_clip_model.safetensors"), "batch": _BATCH}
        self._say(json.dumps(asked))

    def seconds(self, tower: str) -> float:
        self._say(tower)
        assert self._process.stdout is not None
        return float(self._process.stdout.readline())

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


if __name__ == "__main__":
    main()
