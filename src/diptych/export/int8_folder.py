"""A model in 8 bits as a folder, behind the gate: what is not near enough to float32 is refused, with the numbers."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from diptych.classify import class_weights
from diptych.config import to_dict
from diptych.data.ahead import decoded_ahead
from diptych.data.prompts import PLAIN
from diptych.errors import ConfigError, DataError
from diptych.export.gate import GateReport, Likeness, Thresholds, check_accepted, found_again, likeness
from diptych.export.one_file import facts_of
from diptych.export.onnx_graphs import NATIVE, image_graph, text_graph, to_bytes
from diptych.export.quantise import LEFT_OUT, has_convolutions, outputs, quantised_convolutions, quantised_products
from diptych.files import atomic_folder, sha256, write_json
from diptych.measures.compare import compare_correct
from diptych.measures.metrics import top_k_correct
from diptych.model.vocabulary import text_lengths
from diptych.sets.labelled import LabelledImages
from diptych.weights.bundle import Bundle
from diptych.weights.folder import CONFIG, WEIGHTS, digests, read_json, read_seal, write_config
from diptych.weights.golden import golden_of
from diptych.weights.graph_bundle import GraphBundle
from diptych.weights.graphs import GRAPHS, IMAGE_GRAPH, TEXT_GRAPH

if TYPE_CHECKING:
    import onnx

Tower = Literal["image", "text"]
GATE = "gate.json"
_CALIBRATED, _CHOSEN, _JUDGED = 32, 32, 200  # pictures that scales, layers and the gate are found on, none in two
_TEXTS = 300
_NEAR = Thresholds(cosine=0.995, worst=0.97)  # that layers are left out for: the gate's pictures may be others


@dataclass(frozen=True, kw_only=True)
class InEightBits:
    """What became of a model in 8 bits."""

    report: GateReport
    left_out: Mapping[Tower, int]  # layers of each tower that stay float32
    faults: dict[str, str]  # that were accepted, by the measure
    megabytes: float


def export_int8(
    bundle: Bundle,
    out: Path,
    data: LabelledImages,
    *,
    accepted: Sequence[str] = (),
    thresholds: Thresholds = Thresholds(),  # noqa: B008, frozen
    seed: int = 0,
) -> InEightBits:
    """Write a model with its products in 8 bits, if it passes the gate. No torch is needed to use it.

    Args:
        bundle: on the CPU.
        out: a folder that is not there yet. It holds no weights in float32.
        data: pictures like those that the model is for, 264 at least, with classes; some serve to find scales.
        accepted: measures of the gate that may be missed, see `diptych.export.gate.MEASURES`.
        thresholds: of the gate.
        seed: of which pictures serve for what.

    Raises:
        ConfigError: it does not pass, and what is missed was not accepted; or a tower cannot be exported.
        DataError: there are too few pictures, or one cannot be read; or the folder cannot be written.
        MissingExtraError: the extra for export is not installed.
    """
    check_accepted(tuple(accepted))
    needed = _CALIBRATED + _CHOSEN + _JUDGED
    if len(data) < needed:
        raise DataError(
            f"{data.name} must have at least {needed} pictures, to find scales and to judge. It has {len(data)}."
        )
    order = np.random.default_rng(seed).permutation(len(data))[:needed].tolist()
    with decoded_ahead(lambda row: bundle.preprocess.pixels(data.open(row)), order, 64) as pictures:
        pixels = np.stack(list(pictures))
    calibrated, chosen, judged = np.split(pixels, [_CALIBRATED, _CALIBRATED + _CHOSEN])
    names = [name if isinstance(name, str) else name[0] for name in data.classnames]
    texts = [template.replace("{}", name) for template in (data.templates or PLAIN) for name in names][:_TEXTS]
    tokens = bundle.tokenizer.encode(texts, truncate=True)
    lengths = text_lengths(tokens, bundle.tokenizer.end_token_id, bundle.tokenizer.pad_token_id)
    image = _graph(to_bytes(image_graph(bundle.model, bundle.preprocess, NATIVE)))
    text = _graph(to_bytes(text_graph(bundle.model, NATIVE)))
    before = {"image": bundle.encode_pixels(chosen), "text": bundle.encode_tokens(tokens)}
    whole = [tokens[row : row + 1, : (None if bundle.reads_padding else length)] for row, length in enumerate(lengths)]
    asked: dict[Tower, tuple[onnx.ModelProto, list[np.ndarray]]] = {
        "image": (image, np.split(chosen, len(chosen))),
        "text": (text, whole),
    }
    graphs: dict[Tower, onnx.ModelProto] = {}
    left_out: dict[Tower, int] = {}
    for tower, (graph, rows) in asked.items():
        make = functools.partial(quantised_products, graph)
        if has_convolutions(graph):
            make = functools.partial(quantised_convolutions, graph, calibrated)
        graphs[tower], left_out[tower] = _nearest(make, rows, before[tower])
    apart: tuple[Tower, ...] = tuple(tower for tower, (graph, _) in asked.items() if not has_convolutions(graph))
    with atomic_folder(out) as aside:
        made = _write(aside, bundle, graphs, apart)
        targets = torch.from_numpy(data.targets[order[-_JUDGED:]])
        report = _judged(bundle, made, judged, texts, data, targets)
        faults = report.faults(thresholds)
        if missed := [sentence for measure, sentence in faults.items() if measure not in accepted]:
            raise ConfigError(
                f"in 8 bits this model is not what it was: {'; '.join(missed)}. Name what you accept: --accept "
                f"{' --accept '.join(measure for measure in faults if measure not in accepted)}."
            )
        conditions = {"data": data.name, "pictures": _JUDGED, "texts": len(texts), "seed": seed, "left_out": left_out}
        write_json(aside / GATE, {"thresholds": to_dict(thresholds), **conditions, **dataclasses.asdict(report)})
        size = sum(file.stat().st_size for file in aside.iterdir()) / 1e6
    return InEightBits(report=report, left_out=left_out, faults=faults, megabytes=size)


def _graph(content: bytes) -> "onnx.ModelProto":
    import onnx

    return onnx.load_from_string(content)


def _nearest(
    make: Callable[..., "onnx.ModelProto"], rows: Sequence[np.ndarray], before: np.ndarray
) -> tuple["onnx.ModelProto", int]:
    """The graph with the fewest layers in float32 that is near enough; else the nearest of all that were tried."""
    tried: list[tuple[Likeness, int, onnx.ModelProto]] = []
    for count in LEFT_OUT:
        graph = make(left_out=count)
        found = likeness(before, outputs(graph, rows))
        if found.mean >= _NEAR.cosine and found.percentile1 >= _NEAR.worst:
            return graph, count
        tried.append((found, count, graph))
    _, count, graph = max(tried, key=lambda one: one[0].mean)
    return graph, count


def _write(
    folder: Path, bundle: Bundle, graphs: Mapping[Tower, "onnx.ModelProto"], apart: tuple[Tower, ...]
) -> GraphBundle:
    """The folder, whose golden features are those in 8 bits."""
    bundle.save(folder / "whole")
    for file in (folder / "whole").iterdir():
        if file.name != WEIGHTS:
            file.rename(folder / file.name)
    (folder / "whole" / WEIGHTS).unlink()
    (folder / "whole").rmdir()
    (folder / IMAGE_GRAPH).write_bytes(graphs["image"].SerializeToString(deterministic=True))
    (folder / TEXT_GRAPH).write_bytes(graphs["text"].SerializeToString(deterministic=True))
    digest = {name: sha256(folder / name) for name in (IMAGE_GRAPH, TEXT_GRAPH)}
    own = hashlib.sha256(json.dumps([bundle.fingerprint(), digest], sort_keys=True).encode()).hexdigest()
    kind = {"dtype": "int8", "computes": "int8", "one_at_a_time": apart}
    write_json(folder / GRAPHS, to_dict(dataclasses.replace(facts_of(bundle), sha256=digest, fingerprint=own, **kind)))
    config = read_json(folder / CONFIG)
    seal = read_seal(folder / CONFIG, config)
    assert seal is not None
    made = GraphBundle.load(folder, verify=False)
    names = [name for name in seal.sha256 if name != WEIGHTS]
    seal = dataclasses.replace(seal, golden=golden_of(made), sha256=digests(folder, names), own="").sealed()
    write_config(folder / CONFIG, {key: value for key, value in config.items() if key != "diptych"}, seal)
    return GraphBundle.load(folder)


def _judged(
    bundle: Bundle,
    made: GraphBundle,
    pixels: np.ndarray,
    texts: Sequence[str],
    data: LabelledImages,
    targets: torch.Tensor,
) -> GateReport:
    before = bundle.encode_pixels(pixels), bundle.encode_texts(texts, truncate=True)
    after = made.encode_pixels(pixels), made.encode_texts(texts, truncate=True)
    right = []
    for encoder, (images, _) in ((bundle, before), (made, after)):
        weights = class_weights(encoder, data.classnames, data.templates or PLAIN)
        right.append(top_k_correct(images @ weights.T, targets, 1))
    return GateReport(
        images=likeness(before[0], after[0]),
        texts=likeness(before[1], after[1]),
        found=found_again(before, after),
        top1=compare_correct(*right),
    )
