"""A checkpoint: a bundle, plus what the optimizer and the loop remember. It is whole or absent."""

import contextlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from diptych.config import from_dict, to_dict
from diptych.data.images import Preprocess
from diptych.data.tokenizer import Tokenizer
from diptych.errors import ConfigError, DiptychError, WeightsError
from diptych.files import atomic_folder, remove_folder, sha256, write_json
from diptych.model.clip import CLIP, CLIPConfig
from diptych.train.distributed import share_of, whole
from diptych.train.heads import Heads
from diptych.train.int8 import BLOCK, Int8AdamW
from diptych.train.muon import Muon
from diptych.train.optim import CompactAdamW
from diptych.train.shares import stored_tensors
from diptych.weights.bundle import Bundle
from diptych.weights.folder import About

OF_HEADS = "objectives."  # stands before the names of heads' tensors among those of the model
_NAME = re.compile(r"step-\d{8}")
_TENSORS = "training.safetensors"
AVERAGE = "average.safetensors"
_STATE = "training.json"
_SHARES = "shares"
_DIGESTS = "digests.json"
# Of AdamW, for each parameter; with moments of 8 bits also the scales of their blocks.
_MEMORY = ("step", "exp_avg", "exp_avg_sq")
_SCALES = ("exp_avg_scale", "exp_avg_sq_scale")
# Of optimizers from outside: numbers are stored as tensors of that ending, those of groups behind that beginning.
_NUMBER, _GROUPS = "@", "groups."


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a run needs to go on as if it had never stopped."""

    step: int  # updates done
    bundle: Bundle
    optimizer: Mapping[str, Tensor]  # as `optimizer_tensors` gives it; of heads with OF_HEADS before the name
    counts: Mapping[str, Any]  # what the loop counted so far
    metrics: Mapping[str, float]  # of the last evaluation
    recipe: Mapping[str, Any]  # plain data
    precision: str  # that "auto" came to
    data: list[str]  # fingerprints of the sources
    loss_scale: Mapping[str, float] = field(default_factory=dict)  # of float16: the factor, and steps since it changed
    reference: Mapping[str, float] = field(default_factory=dict)  # metrics of the model that a run started from
    average: Mapping[str, Tensor] = field(default_factory=dict)  # of the weights, where the run keeps one; likewise
    heads: Heads = field(default_factory=lambda: Heads(objectives=(), tensors={}))
    # Where the processes of the run wrote all tensors together: those of `bundle` have no values then, see `shares`.
    shares: Path | None = None

    def save(self, folder: Path, *, keep: int) -> Path:
        """Write into `folder` and remove all but the newest `keep` checkpoints there.

        Raises:
            DataError: the disk is full or the folder cannot be written; older checkpoints are untouched.
            WeightsError: the model's features are not finite.
        """
        path = folder / f"step-{self.step:08d}"
        with atomic_folder(path) as aside:
            self.bundle.save(aside)
            self.heads.save(aside)
            # Through bytes: the file writer of safetensors wraps what the disk said.
            for name, tensors in ((_TENSORS, self.optimizer), (AVERAGE, self.average)):
                if tensors or name == _TENSORS:
                    (aside / name).write_bytes(save({name: t.contiguous() for name, t in tensors.items()}))
            write_json(aside / _STATE, self._state())
            _write_digests(aside, {})
        _keep_newest(folder, keep)
        return path

    @contextlib.contextmanager
    def saved_in_shares(self, folder: Path, digests: Mapping[str, str], *, keep: int) -> Iterator[Path]:
        """Like `save`, but for the tensors: those are to be in the folder that it gives when the block ends.

        Args:
            folder: as of `save`.
            digests: SHA-256 by name of what is in that folder when the block ends.
            keep: as of `save`.

        Raises:
            DataError: see `save`.
        """
        path = folder / f"step-{self.step:08d}"
        bundle = self.bundle
        parts = {"model": bundle.model.config, "preprocess": bundle.preprocess, "about": bundle.about}
        with atomic_folder(path) as aside:
            bundle.tokenizer.save(aside)
            write_json(aside / _STATE, self._state() | {name: to_dict(part) for name, part in parts.items()})
            yield aside / _SHARES
            _write_digests(aside, {f"{_SHARES}/{name}": digest for name, digest in digests.items()})
        _keep_newest(folder, keep)

    def _state(self) -> dict[str, Any]:
        names = ("step", "counts", "metrics", "recipe", "precision", "data", "loss_scale", "reference")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def load(cls, path: Path) -> "Checkpoint":
        """Read one checkpoint, after its digests were looked at (see `has_digests`); of shares their place alone.

        Raises:
            WeightsError: a file is missing or broken, or not what was saved; the message names the newest checkpoint
                before it that is whole.
        """
        try:
            check_digests(path)
            if (path / _SHARES).is_dir():
                return cls(**_read_parts(path), shares=path / _SHARES)
            bundle, heads = Bundle.load(path), Heads.load(path)
            optimizer = load_file(path / _TENSORS)
            average = load_file(path / AVERAGE) if (path / AVERAGE).is_file() else {}
            state = json.loads((path / _STATE).read_text(encoding="utf-8"))
            return cls(bundle=bundle, heads=heads, optimizer=optimizer, average=average, **state)
        except (DiptychError, OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
            reason = str(error).rstrip(".")
            raise WeightsError(f"{path} must be a whole checkpoint: {reason}. {_way_on(path)}") from error


def _read_parts(path: Path) -> dict[str, Any]:
    """All of a checkpoint in shares but the tensors."""
    state = json.loads((path / _STATE).read_text(encoding="utf-8"))
    config = from_dict(CLIPConfig, state.pop("model"))
    bundle = Bundle(
        model=CLIP(config),
        preprocess=from_dict(Preprocess, state.pop("preprocess")),
        tokenizer=Tokenizer.load(path, context_length=config.text.context_length),
        about=from_dict(About, state.pop("about")),
    )
    return {"bundle": bundle, "optimizer": {}, **state}


def _write_digests(aside: Path, known: Mapping[str, str]) -> None:
    names = sorted(file.relative_to(aside).as_posix() for file in aside.rglob("*") if file.is_file())
    write_json(aside / _DIGESTS, {name: known.get(name) or sha256(aside / name) for name in names})


def _keep_newest(folder: Path, keep: int) -> None:
    for old in list_checkpoints(folder)[:-keep]:
        remove_folder(old)


def has_digests(path: Path) -> bool:
    """Whether a checkpoint lists the SHA-256 of its files; those of diptych before November 2026 do not."""
    return (path / _DIGESTS).is_file()


def check_digests(path: Path) -> None:
    """Compare the files of a checkpoint with their SHA-256, where it lists them.

    Raises:
        WeightsError: a file is missing or is not what was saved.
    """
    if not has_digests(path):
        return
    try:
        digests = json.loads((path / _DIGESTS).read_text(encoding="utf-8"))
        wrong = [name for name, digest in digests.items() if sha256(path / name) != digest]
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"its files cannot be compared with {_DIGESTS}: {error}") from error
    if wrong:
        raise WeightsError(f"{', '.join(wrong)} is not what was saved: its SHA-256 is not the one in {_DIGESTS}")


def _way_on(path: Path) -> str:
    """What to do about a damaged checkpoint."""
    for before in reversed([other for other in list_checkpoints(path.parent) if other.name < path.name]):
        try:
            check_digests(before)
        except WeightsError:
            continue
        return f"Remove it to go on from {before.name}, the one before."
    return f"There is no whole one before it: remove {path.parent.parent} to start over."


def list_checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob("step-*") if _NAME.fullmatch(path.name))


def with_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of heads, called as they are among those of the model."""
    return {f"{OF_HEADS}{name}": value for name, value in tensors.items()}


def of_heads(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The reverse of `with_prefix`: those of heads alone."""
    return {name.removeprefix(OF_HEADS): value for name, value in tensors.items() if name.startswith(OF_HEADS)}


def optimizer_tensors(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's memory: PARAMETER.step, PARAMETER.exp_avg, PARAMETER.exp_avg_sq, and scales where it has some;
    of what Muon moves PARAMETER.momentum.

    Of an optimizer from outside, all that it keeps of each parameter. Whole tensors, also where each process holds a
    share; then all processes must call.

    Raises:
        ConfigError: an optimizer from outside keeps something else than tensors and numbers.
    """
    return {name: whole(value) for name, value in held_optimizer_tensors(model, optimizer).items()}


def held_optimizer_tensors(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The same as this process holds them: the tensors that the optimizer changes."""
    found = {}
    for name, parameter in _trained(model):
        state = optimizer.state[parameter]
        if memory := _memory(optimizer, parameter):
            found |= {f"{name}.{key}": state[key] for key in memory}
        else:
            found |= dict(_stored(f"{name}.{key}", value) for key, value in state.items())
    return found


def group_numbers(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimizer from outside counts in its groups, all processes alike; ours count nothing there."""
    if _is_ours(optimizer):
        return {}
    return {
        f"{_GROUPS}{number}.{key}{_NUMBER}": _as_tensor(value)
        for number, group in enumerate(optimizer.param_groups)
        for key, value in group.items()
        if isinstance(value, bool | int | float)
    }


def restore_group_numbers(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The reverse of `group_numbers`."""
    for name, value in tensors.items():
        if name.startswith(_GROUPS):
            number, _, key = name.removeprefix(_GROUPS).removesuffix(_NUMBER).partition(".")
            optimizer.param_groups[int(number)][key] = value.item()


def _stored(name: str, value: Any) -> tuple[str, Tensor]:
    if isinstance(value, Tensor):
        return name, value
    if isinstance(value, bool | int | float):
        return f"{name}{_NUMBER}", _as_tensor(value)
    raise ConfigError(
        "train.optimizer must keep tensors and numbers alone for each parameter, or its state is not saved. "
        f"Got {name.rpartition('.')[2]}: {type(value).__name__}."
    )


def restore_optimizer(model: torch.nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimizer the memory that `optimizer_tensors` took.

    Raises:
        WeightsError: it is not of this model.
    """
    for name, parameter in _trained(model):
        if not (memory := _memory(optimizer, parameter)):
            _restore_of_others(name, parameter, optimizer, tensors)
        for key in memory:
            shape = torch.Size([math.ceil(parameter.numel() / BLOCK)]) if key in _SCALES else parameter.shape
            value, shape = tensors.get(f"{name}.{key}"), torch.Size() if key == "step" else shape
            if value is None or value.shape != shape:
                raise WeightsError(f"{_TENSORS} must hold {name}.{key} {list(shape)}. Is it of another model?")
            like = _memory_like(parameter, key, value.shape, value.dtype)
            optimizer.state[parameter][key] = like.copy_(share_of(value, like))


def make_room(model: torch.nn.Module, optimizer: torch.optim.Optimizer, shares: Path, prefix: str = "") -> None:
    """Give an optimizer the tensors that the `optimizer` of a checkpoint in shares fits into, without values.

    Args:
        model: whose parameters it moves.
        optimizer: that has no memory yet.
        shares: of the checkpoint.
        prefix: before the names of the parameters there.

    Raises:
        WeightsError: it is not of this model.
    """
    facts = stored_tensors(shares)
    for parameter_name, parameter in _trained(model):
        for key in _memory(optimizer, parameter):
            name = f"optimizer.{prefix}{parameter_name}.{key}"
            if name not in facts:
                raise WeightsError(f"{shares} must hold {name}. Is it of another model?")
            optimizer.state[parameter][key] = _memory_like(parameter, key, *facts[name])


def _memory_like(parameter: Tensor, key: str, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """On the device and in the memory order of the parameter, as the optimizer makes it itself."""
    if shape == parameter.shape and key != "step":
        return torch.empty_like(parameter, dtype=dtype)
    return torch.empty(shape, dtype=dtype, device=parameter.device)


def _as_tensor(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None)


def _restore_of_others(
    name: str, parameter: torch.nn.Parameter, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    prefix = f"{name}."
    for key, value in tensors.items():
        own = key.removeprefix(prefix)
        if own == key or "." in own:  # of another parameter
            continue
        if own.endswith(_NUMBER):
            optimizer.state[parameter][own.removesuffix(_NUMBER)] = value.item()
        elif value.shape == parameter.shape:
            like = torch.empty_like(parameter, dtype=value.dtype)
            optimizer.state[parameter][own] = like.copy_(share_of(value, like))
        else:
            optimizer.state[parameter][own] = value.to(parameter.device, copy=True)


def _memory(optimizer: torch.optim.Optimizer, parameter: Tensor) -> tuple[str, ...]:
    """What is kept of a parameter; nothing is known of an optimizer from outside."""
    if not _is_ours(optimizer):
        return ()
    if isinstance(optimizer, Muon) and (own := optimizer.memory_of(parameter)):
        return own
    return (*_MEMORY, *_SCALES) if isinstance(optimizer, Int8AdamW) else _MEMORY


def _is_ours(optimizer: torch.optim.Optimizer) -> bool:
    # Not isinstance: what is derived from torch's may keep more, as it does itself with amsgrad.
    ours = (Muon, Int8AdamW, CompactAdamW, torch.optim.AdamW)
    return type(optimizer) in ours and not optimizer.defaults.get("amsgrad")


def _trained(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
