"""Models by hub name: what one model needs of a repository, downloaded once, cached and checked.

huggingface-hub does the transport and owns the cache; it is imported when a name is asked for, and not before. Its
progress bars show on a terminal; elsewhere nothing is printed.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.data.translations import TRANSLATIONS
from diptych.errors import ConfigError, WeightsError
from diptych.files import sha256
from diptych.weights.folder import CONFIG, OPEN_CLIP_CONFIG
from diptych.weights.not_weights import check_no_adapter, check_not_quantised
from diptych.weights.published import published_models
from diptych.weights.unopened import what_it_is
from diptych.weights.weights_file import ENDINGS, INDEX, ChosenWeights, choose_weights

HUB_PREFIX = "hf:"

# Of a config.json whose weights diptych opens.
MODEL_TYPES = (
    *("clip", "metaclip_2", "siglip", "siglip2", "altclip", "chinese_clip", "align", "blip"),
    *("clipseg", "owlvit", "owlv2", "xclip"),  # the CLIP inside
    "diptych-clip",
)
_TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model")  # one of them is in every whole repository
_SMALL = (
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    TRANSLATIONS,
    *_TOKENIZERS,
)
_PLAIN = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]|\.(?!\.))*"  # no separator, no leading dot, no ".."
_FILE = "|".join(re.escape(ending) for ending in ENDINGS)
_WITHIN = "0_CLIPModel/"  # where sentence-transformers keeps the model of a repository
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SECONDS = 5.0  # to wait for the first answer; without a network, that is the whole delay


@dataclass(frozen=True, kw_only=True)
class HubRevision:
    """One revision of a repository, as far as a model needs it."""

    name: str  # hf:org/name
    revision: str  # the commit, 40 hexadecimal digits
    folder: Path  # in the cache of huggingface-hub; it may hold files that others asked for
    weights: str  # the weights file in `folder`, or the index of its parts
    sha256: dict[str, str]  # of each file that a model needs, by its name


class _UnreachableError(Exception):
    """The hub gave no usable answer; the text says why."""


def fetch(name: str, *, revision: str | None = None) -> HubRevision:
    """The files of a model on the hub: from the cache where they are, else downloaded.

    A commit whose files are all cached is opened without asking the network. A branch or tag is looked up each time;
    without a network, what the cache knows of it is taken.

    Args:
        name: "hf:org/name" or "hf:org/name@revision"; of several files of weights one is meant by "hf:org/name/file".
        revision: a branch, tag or commit, where `name` has none; by default "main".

    Raises:
        ConfigError: the name or the revision is not of this form.
        WeightsError: the repository is missing, closed, or holds no model that diptych opens; a file is damaged or
            cannot be written; or the hub cannot be reached and the cache has no such model.
    """
    repo, asked, wanted = _parse(name, revision)
    folder = _cached(repo, wanted)
    if folder is None or not _COMMIT.fullmatch(wanted) or not _is_whole(folder, asked):
        try:
            folder = _download(repo, wanted, asked)
        except _UnreachableError as error:
            if folder is None or not _weights_files(folder, asked):
                raise WeightsError(_what_to_bring(repo, str(error))) from None
    files = _weights_files(folder, asked)
    small = [file for file in (CONFIG, OPEN_CLIP_CONFIG, *_SMALL) if file in _names(folder)]
    return HubRevision(
        name=HUB_PREFIX + repo,
        revision=_commit(folder),
        folder=folder,
        weights=files[0],
        sha256={file: _checked_sha256(folder / file) for file in (*small, *files)},
    )


def _parse(name: str, revision: str | None) -> tuple[str, str, str]:
    """Repository, file ("" where none is named) and revision."""
    match = re.fullmatch(rf"{HUB_PREFIX}({_PLAIN}/{_PLAIN})(?:/({_PLAIN}(?:{_FILE})))?(?:@(.+))?", name)
    if not match or "--" in match[1] or len(match[1]) > 96:  # the hub's own rule: its cache writes "/" as "--"
        raise ConfigError(
            f"a hub name must be {HUB_PREFIX}org/name, of letters, digits, '.', '_' and '-'. Got {name!r}."
        )
    if match[3] and revision and match[3] != revision:
        raise ConfigError(f"{name} names a revision itself. Got revision={revision!r} too: give one of them.")
    wanted: str = match[3] or revision or "main"
    if not re.fullmatch(rf"{_PLAIN}(?:/{_PLAIN})*", wanted):
        raise ConfigError(f"a revision must be a branch, a tag or a commit of {HUB_PREFIX}{match[1]}. Got {wanted!r}.")
    return match[1], match[2] or "", wanted


def _download(repo: str, revision: str, asked: str) -> Path:
    """Get what is missing in the cache; the folder of the model is returned, that of the snapshot or one within."""
    from huggingface_hub import HfApi

    api = HfApi(library_name="diptych")
    with _sentences(repo, revision):
        info = api.model_info(repo, revision=revision, timeout=_SECONDS)
        everything = {sibling.rfilename for sibling in info.siblings or ()}
        within = "" if {CONFIG, OPEN_CLIP_CONFIG} & everything or _WITHIN + CONFIG not in everything else _WITHIN
        listed = {name.removeprefix(within) for name in everything if name.startswith(within)}
        if not asked:
            check_no_adapter(listed, HUB_PREFIX + repo)
        configs = [file for file in (CONFIG, OPEN_CLIP_CONFIG) if file in listed]
        if not configs:
            raise WeightsError(f"{HUB_PREFIX}{repo} must hold {CONFIG} or {OPEN_CLIP_CONFIG}. Is it a CLIP model?")
        # Asked for by the revision's name, so that the cache learns which commit it stands for.
        folder = Path(api.hf_hub_download(repo, within + configs[0], revision=revision)).parent

        def get(file: str) -> None:
            api.hf_hub_download(repo, within + file, revision=_commit(folder))

        for file in configs[1:]:
            get(file)
        weights = _chosen(folder, listed, asked, HUB_PREFIX + repo)
        _judge(repo, folder, weights.config)  # its weights may be gigabytes
        for file in _SMALL:
            if file in listed:
                get(file)
        get(weights.name)
        for file in _parts(folder / weights.name, listed) if INDEX.fullmatch(weights.name) else ():
            get(file)
    return folder


def _chosen(folder: Path, listed: Collection[str], asked: str, where: str) -> ChosenWeights:
    """The weights of a repository that its configs, which are in `folder`, describe.

    Raises:
        WeightsError: there are none, or several; it says what is there instead.
    """
    described = _described(folder, listed)
    weights = choose_weights(listed, described, where=where, asked=asked)
    if weights is not None:
        return weights
    if asked:
        raise WeightsError(f"{where} must hold {asked}, and a config that describes it. Check the name on its page.")
    if not described:
        kind = _read_json(folder / CONFIG).get("model_type") if CONFIG in listed else None
        raise WeightsError(
            f"{where} must hold the weights of a CLIP or SigLIP model, and its {CONFIG} is of none (model_type "
            f"{kind!r}): it is {what_it_is(kind)}. Nothing more was got. `diptych models` lists models that open."
        )
    others = sorted(name for name in listed if name.endswith((".onnx", ".h5", ".gguf", ".tflite", ".mlpackage")))
    found = f"{', '.join(others[:3])}{', ...' if len(others) > 3 else ''}" if others else "none at all"
    raise WeightsError(
        f"{where} must hold weights as safetensors, a pickle of PyTorch's or flax_model.msgpack. Got {found}. Look for "
        "the repository that it was made from"
        + (", or bring the folder, which opens in onnxruntime." if any(map(_is_graph, others)) else ".")
    )


def _is_graph(name: str) -> bool:
    return name.endswith(".onnx")


def _described(folder: Path, names: Collection[str]) -> list[str]:
    """The configs that are a CLIP's. timm's config.json beside open_clip's is not."""
    is_clip = CONFIG in names and _read_json(folder / CONFIG).get("model_type") in MODEL_TYPES
    return [*([CONFIG] if is_clip else []), *([OPEN_CLIP_CONFIG] if OPEN_CLIP_CONFIG in names else [])]


def _commit(folder: Path) -> str:
    return (folder.parent if folder.name == _WITHIN.strip("/") else folder).name


def _judge(repo: str, folder: Path, config: str) -> None:
    """Refuse a model that diptych does not have by its config alone; say where a copy lies that opens.

    Raises:
        WeightsError: it is such a model.
    """
    from diptych.weights.verdict import check_config  # torch comes with it

    data = _read_json(folder / config)
    check_not_quantised(data, HUB_PREFIX + repo)
    try:
        if config == OPEN_CLIP_CONFIG:
            model_cfg = data.get("model_cfg")
            if not isinstance(model_cfg, dict):
                raise ConfigError(f"{config} must hold model_cfg as a JSON object. Got {model_cfg!r}.")
            data = model_cfg
        check_config(data)
    except ConfigError as error:
        twin = next((model for model in published_models() if HUB_PREFIX + repo in model.also), None)
        cure = f" The same model opens as {twin.hub}." if twin else " `diptych models` lists models that open."
        raise WeightsError(f"{HUB_PREFIX}{repo} is refused before its weights are got. {error}{cure}") from error


def _cached(repo: str, revision: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for config in (CONFIG, OPEN_CLIP_CONFIG, _WITHIN + CONFIG):
        path = try_to_load_from_cache(repo, config, revision=revision)
        if isinstance(path, str):
            return Path(path).parent
    return None


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def _is_whole(folder: Path, asked: str) -> bool:
    """Whether it has weights and a tokenizer, and no link to a file that was deleted."""
    has_dead_links = any(path.is_symlink() and not path.exists() for path in folder.iterdir())
    return bool(_weights_files(folder, asked)) and not _names(folder).isdisjoint(_TOKENIZERS) and not has_dead_links


def _weights_files(folder: Path, asked: str) -> list[str]:
    """The weights file, or the index and its parts; nothing when one of them is missing."""
    names = _names(folder)
    weights = choose_weights(names, _described(folder, names), where=str(folder), asked=asked)
    if weights is None or not INDEX.fullmatch(weights.name):
        return [weights.name] if weights else []
    parts = _parts(folder / weights.name)
    return [weights.name, *parts] if all(part in names for part in parts) else []


def _parts(path: Path, listed: Collection[str] | None = None) -> list[str]:
    """The weights files that an index names; `listed`: the files of the repository, where they are known."""
    match = INDEX.fullmatch(path.name)
    assert match
    ending = match[1].rpartition(".")[2]
    where = _read_json(path).get("weight_map")
    parts = list(where.values()) if isinstance(where, dict) else []
    for part in parts:
        if not isinstance(part, str) or not re.fullmatch(rf"{_PLAIN}\.{ending}", part):
            raise WeightsError(f"{path} must name .{ending} files beside it. Got {part!r}: do not trust this model.")
        if listed is not None and part not in listed:
            raise WeightsError(f"{path} names {part}, which the repository does not have. Ask its owner.")
    if not parts:
        raise WeightsError(f"{path} must say in which file each tensor is (weight_map). Ask its owner.")
    return sorted(set(parts))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} must be JSON: {error}. Delete {path.resolve()} and try again.") from error
    if not isinstance(data, dict):
        raise WeightsError(f"{path} must hold a JSON object. Got {type(data).__name__}: it is no model's.")
    return data


def _checked_sha256(path: Path) -> str:
    """The SHA-256 of a cached file, which must have the content that the hub announced.

    The cache keeps a file under the name that was announced, the SHA-256 of a large file and git's SHA-1 of a small
    one, and links to it. Where the file system has no links, there is nothing to compare.
    """
    digest = sha256(path)
    announced = path.readlink().name if path.is_symlink() else ""
    if re.fullmatch(r"[0-9a-f]{64}", announced):
        found = digest
    elif _COMMIT.fullmatch(announced):
        content = path.read_bytes()
        found = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    else:
        return digest
    if found != announced:
        raise WeightsError(
            f"{path} is damaged: its digest must be {announced[:12]}..., as the hub announced. Got {found[:12]}... "
            f"Delete {path.resolve()} and try again."
        )
    return digest


@contextlib.contextmanager
def _sentences(repo: str, revision: str) -> Iterator[None]:
    """Errors of huggingface-hub as ours."""
    from huggingface_hub import constants, errors
    from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage]  # of its HTTP library

    login = "log in with `hf auth login` or set HF_TOKEN"
    try:
        yield
    except errors.OfflineModeIsEnabled:
        raise _UnreachableError("offline mode is on (HF_HUB_OFFLINE)") from None
    except errors.GatedRepoError:
        raise WeightsError(
            f"{HUB_PREFIX}{repo} is gated: ask for access on its page at the hub, and {login}."
        ) from None
    except errors.RepositoryNotFoundError:
        raise WeightsError(
            f"{HUB_PREFIX}{repo} is not on the hub, or is private. Check the name; for a private one, {login}."
        ) from None
    except errors.RevisionNotFoundError:
        raise WeightsError(
            f"{HUB_PREFIX}{repo} has no revision {revision}. Give a branch, a tag or a commit."
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status == 429 or status >= 500:
            raise _UnreachableError(f"the hub answers {status}") from None
        raise WeightsError(
            f"{HUB_PREFIX}{repo}: the hub answers {status}. If the model is not public, {login}."
        ) from None
    except (HTTPError, errors.LocalEntryNotFoundError, RuntimeError, ValueError) as error:
        raise _UnreachableError(_first_line(error.__cause__ or error)) from None
    except OSError as error:
        if error.errno is None:  # fewer bytes than announced
            raise _UnreachableError(_first_line(error)) from None
        raise WeightsError(
            f"{HUB_PREFIX}{repo} could not be written to {constants.HF_HUB_CACHE}: {error.strerror}. Make room there, "
            "or set HF_HUB_CACHE to another folder."
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _what_to_bring(repo: str, reason: str) -> str:
    folder = repo.rpartition("/")[2]
    return (
        f"{HUB_PREFIX}{repo} is not whole in the cache, and the hub cannot be reached: {reason}. Try again with a "
        f"network, or bring its {CONFIG}, preprocessor_config.json, tokenizer.json and model.safetensors (or, of an "
        f"open_clip model, {OPEN_CLIP_CONFIG}, tokenizer.json and open_clip_model.safetensors) in one folder, and "
        f'give that: diptych.load("{folder}").'
    )
