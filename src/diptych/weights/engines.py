"""Who computes features: torch, onnxruntime or OpenVINO; which of them can open a model here, and which one does.

A model that carries its graphs (`diptych export`, and those that ship in the package) needs no torch.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Unpack, get_args

from diptych.config import unknown_name
from diptych.errors import ConfigError, WeightsError, missing_extra
from diptych.weights.dual_encoder import DualEncoder
from diptych.weights.engine_speed import keep, kept, measure
from diptych.weights.graph_bundle import GraphBundle
from diptych.weights.graphs import GRAPHS, read_graphs
from diptych.weights.joint import JointEncoder
from diptych.weights.joint_file import read_joint, two_models
from diptych.weights.onnx_folder import OnnxFolder, graphs_in
from diptych.weights.places import ModelPlace, find_model
from diptych.weights.weights_file import may_hold_weights

if TYPE_CHECKING:
    from diptych.weights.untold import Told

Engine = Literal["torch", "onnx", "openvino"]
EngineChoice = Literal["auto", "torch", "onnx", "openvino"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
PACKAGES: dict[Engine, str] = {"torch": "torch", "onnx": "onnxruntime", "openvino": "openvino"}


def load(
    name_or_path: str | Path | None = None,
    *,
    engine: EngineChoice = "auto",
    many: bool | None = None,
    device: str = "auto",
    dtype: Dtype = "auto",
    image_size: int | None = None,
    revision: str | None = None,
    **told: Unpack["Told"],
) -> DualEncoder:
    """A model by its name or from its files, whoever wrote them.

    Args:
        name_or_path: a name from `list_models`; "hf:org/name" for one on the Hugging Face hub, which needs a network
            the first time; else a path, see `Bundle.load`. A name goes before a folder of the same name, which a `Path`
            or "./" in front reaches. None is `DEFAULT_MODEL`.
        engine: who computes. "torch" gives a `Bundle`, whose modules can be trained and changed. "auto" is torch where
            there is a GPU that it computes on; else what starts soonest, onnxruntime where the model carries its
            graphs, or with `many` what is soonest at work.
        many: where it is known, whether so much is to be encoded that it counts how soon an engine is at work, not how
            soon it starts: they are measured, once for a machine, and the soonest is taken. Where it is known to be
            little, onnxruntime makes ready for nothing but the first answers.
        device: "auto", the GPU where there is one that the engine takes; "cpu"; or a name: "cuda", "cuda:1", "mps" of
            torch, "cuda", "coreml", "directml" of onnxruntime.
        dtype: what torch keeps weights and computes in. "auto" is float32, and bfloat16 for whole libraries where the
            machine is quick at it; see `DualEncoder.encode_fast`.
        image_size: S, pixels of one side; another one than the model's own stretches its position grid.
        revision: of a hub name: a branch, a tag or a commit; "hf:org/name@revision" says the same.
        told: what the files may leave out:
            `activation` ("quick_gelu", "gelu" or "gelu_tanh") and `heads` of a bare state dict; `tokenizer`, a folder
            or a file of CLIP's merges, where none lies beside the weights; `mean`, `std`, `resize` ("shortest" or
            "squash") and `interpolation` ("bicubic" or "bilinear") of pictures; `end_token`, its id; `state_dict`,
            which model of a checkpoint. What is assumed instead is said as a warning of the logger "diptych".

    Raises:
        ConfigError: there is neither such a model nor such a path; the nearest name is given. Or the engine, or the
            device, cannot do what is asked for.
        MissingExtraError: what the engine needs is not installed.
        WeightsError: the files are missing, damaged, or of another kind of model, or the hub does not give them.
    """
    if engine not in get_args(EngineChoice):
        raise ConfigError(unknown_name(engine, "", get_args(EngineChoice), "an engine"))
    if dtype not in get_args(Dtype):
        raise ConfigError(unknown_name(dtype, "", get_args(Dtype), "a dtype"))
    place = find_model(name_or_path, revision=revision)
    if joint := read_joint(place.path):
        if image_size is not None or any(value is not None for value in told.values()):
            raise two_models(place.name, joint.photographs, joint.drawings)
        open_part = functools.partial(load, engine=engine, many=many, device=device, dtype=dtype)
        return JointEncoder.of(open_part(joint.photographs), open_part(joint.drawings), joint, name=place.name)
    for_torch = [name for name, value in told.items() if value is not None]
    for_torch += ["image_size"] if image_size is not None else []
    for_torch += ["dtype"] if dtype != "auto" else []
    chosen = _choose(place, engine, device, for_torch)
    if not chosen:
        is_ours = (place.path / GRAPHS).is_file()  # else torch goes first: nobody has sealed the graphs
        seconds = find_fastest(name_or_path, on_note=logging.getLogger("diptych").warning) if many and is_ours else {}
        here = engines_here(place.path)
        chosen = (
            min(seconds, key=lambda one: seconds[one]) if seconds else "onnx" if is_ours and "onnx" in here else here[0]
        )
    if chosen == "torch":
        from diptych.weights.registry import load_in_torch

        return load_in_torch(place, device=device, dtype=dtype, image_size=image_size, **told)
    if not (place.path / GRAPHS).is_file():
        return OnnxFolder.load(place.path, device=device)
    bundle = GraphBundle.load(place.path, engine=chosen, device=device, for_few=many is False)
    return dataclasses.replace(bundle, about=place.about) if place.about else bundle


def find_fastest(
    name_or_path: str | Path | None, *, on_note: Callable[[str], None] = lambda _: None, again: bool = False
) -> dict[Engine, float]:
    """Measure the engines that can open a model here, where there are several; what `load` goes by for many pictures.

    Args:
        name_or_path: as `load` takes it.
        on_note: gets a sentence about what was found, where it was measured now.
        again: also where it was measured before.

    Returns:
        Seconds a picture, by engine; nothing where there is no choice.
    """
    place = find_model(name_or_path)
    if joint := read_joint(place.path):  # its time is that of the model which sees every picture
        return find_fastest(joint.photographs, on_note=on_note, again=again)
    here = engines_here(place.path)
    if len(here) < 2:
        return {}
    seconds = kept(place.path)
    if again or not seconds:
        seconds = measure({name: functools.partial(load, name_or_path, engine=name) for name in here}, on_note=on_note)
        keep(place.path, seconds)
        soonest = sorted(seconds.items(), key=lambda one: one[1])
        told = ", ".join(f"{name} {1 / each:,.1f}" for name, each in soonest)
        on_note(
            f"engines measured once for {place.name} on this machine, pictures/s: {told}. {soonest[0][0]} is taken."
        )
    return {name: seconds[name] for name in here if name in seconds}


def engines_here(path: Path) -> tuple[Engine, ...]:
    """Those that are installed and can open a model that lies there."""
    if joint := read_joint(path):
        parts = [engines_here(find_model(part).path) for part in (joint.photographs, joint.drawings)]
        return tuple(name for name in parts[0] if name in parts[1])
    can: tuple[Engine, ...] = ("torch",)
    if (path / GRAPHS).is_file():
        can = ("torch", "onnx", "openvino")
        with contextlib.suppress(WeightsError):  # a damaged file is told by the engine that needs it; torch does not
            if read_graphs(path / GRAPHS).weights is None:
                can = ("onnx",)  # in 8 bits alone
    elif path.is_dir() and graphs_in(path):
        names = [file.name for file in path.iterdir() if file.is_file()]
        can = ("torch", "onnx") if any(map(may_hold_weights, names)) else ("onnx",)
    return tuple(name for name in can if _is_installed(name))


def _choose(place: ModelPlace, asked: EngineChoice, device: str, for_torch: list[str]) -> Engine | None:
    """The engine that is asked for, or that alone can do it; None where there is a choice."""
    here = engines_here(place.path)
    if asked != "auto":
        if asked not in here:
            raise _cannot(place, asked)
        if asked != "torch" and for_torch:
            raise ConfigError(f"{' and '.join(for_torch)} can be chosen with engine torch alone. Got engine {asked}.")
        return asked
    if not here:
        raise _cannot(place, "torch")
    if for_torch or device.split(":")[0] == "mps" or (device.split(":")[0] == "cuda" and "torch" in here):
        if "torch" not in here:
            raise _cannot(place, "torch")
        return "torch"
    if device == "auto" and "torch" in here and _has_gpu():
        return "torch"
    return None


def _is_installed(engine: Engine) -> bool:
    return importlib.util.find_spec(PACKAGES[engine]) is not None


def _has_gpu() -> bool:
    """Whether torch may find an NVIDIA GPU; without importing it, which takes longer than naming a picture."""
    return any(Path(name).exists() for name in ("/dev/nvidiactl", "/dev/dxg"))  # the latter under Windows' Linux


def _cannot(place: ModelPlace, engine: Engine) -> Exception:
    """Why an engine does not open a model."""
    if not _is_installed(engine):
        without = "Models with graphs (diptych export) need none." if engine == "torch" else ""
        return missing_extra(f"opening {place.name} with {PACKAGES[engine]}", engine, without)
    if engine == "torch" and not (place.path / GRAPHS).is_file():
        return ConfigError(
            f"{place.name} must hold weights to be opened with torch, and holds graphs alone. Choose engine onnx."
        )
    if (place.path / GRAPHS).is_file():
        return ConfigError(f"{place.name} holds graphs in 8 bits alone, which are onnxruntime's. Got engine {engine}.")
    return ConfigError(
        f"{place.name} must carry its graphs to be opened with {PACKAGES[engine]}, and has no {GRAPHS}. "
        f"Write them: diptych export {place.path} OUT"
    )
