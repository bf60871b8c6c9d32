"""What stands in the place of a model's weights and is none: told by a few bytes or by names, refused in a sentence.

Pointers of Git LFS and web pages lie where a download went wrong. Adapters and quantised weights are whole files, but
each needs another library to become the numbers of a model.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from diptych.errors import WeightsError

_POINTER, _PAGES = b"version https://git-lfs", (b"<!doctype", b"<html")
_LORA = re.compile(r"\.lora_[A-Za-z_]+\b|\.(hada|lokr|oft|dora)_\w+|_lora\.(up|down)\.|\bia3_l\b")
_QUANTISED = re.compile(
    r"\.(qweight|qzeros|g_idx|SCB|weight_format|weight_packed|weight_scale(_inv)?|weight\.(absmax|quant_state|nested).*)$"
)
ADAPTER_CONFIG = "adapter_config.json"


def check_content(path: Path) -> None:
    """Refuse a file that is no more than a pointer to the real one, or a web page about it.

    Raises:
        WeightsError: it is.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(_POINTER)).lower()
    except OSError:
        return  # told by whoever reads it
    if head == _POINTER:
        raise WeightsError(
            f"{path} is a pointer of Git LFS, and the file itself was never fetched. Run `git lfs pull` in its folder."
        )
    if head.lstrip().startswith(_PAGES):
        raise WeightsError(
            f"{path} is a web page, not the file that it is called after. Download it again; on the Hugging Face hub "
            "the address of a file has /resolve/ where that of its page has /blob/."
        )


def check_names(names: Iterable[str], path: Path) -> None:
    """Refuse tensors that are an adapter's, or quantised by another library.

    Raises:
        WeightsError: they are; one of them is named.
    """
    for name in names:
        if _LORA.search(name):
            raise WeightsError(f"{path} holds an adapter ({name}). {_MERGE}")
        if _QUANTISED.search(name):
            raise WeightsError(f"{path} holds quantised weights ({name}). {_UNQUANTISED}")


def check_no_adapter(names: Iterable[str], where: str) -> None:
    """Refuse a folder or a repository that is an adapter's.

    Raises:
        WeightsError: its names say so.
    """
    if ADAPTER_CONFIG in names:
        raise WeightsError(f"{where} is an adapter, as its {ADAPTER_CONFIG} says. {_MERGE}")


def check_not_quantised(config: Mapping[str, Any], where: str) -> None:
    """Refuse a model whose config says that its weights are quantised.

    Raises:
        WeightsError: it does.
    """
    for key in ("quantization_config", "compression_config"):
        if told := config.get(key):
            how = told.get("quant_method", "") if isinstance(told, Mapping) else ""
            raise WeightsError(f"{where} is quantised ({key}{f': {how}' if how else ''}). {_UNQUANTISED}")


_MERGE = (
    "It needs the model that it was trained on: merge the two with peft (merge_and_unload, then save_pretrained), and "
    "give that folder."
)
_UNQUANTISED = (
    "diptych has 8 bits of its own: take the model as it was before, and `diptych models convert --dtype int8`."
)
