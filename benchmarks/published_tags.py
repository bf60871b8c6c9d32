"""Which of open_clip's published tags open here, and how the refusal of each other reads; nothing is downloaded.

    make parity                        (builds .venv-parity first, and runs this beside parity.py)
    python benchmarks/published_tags.py [--open-clip FOLDER] [--out FILE]

open_clip's own table of tags and its configs are read as data from its installed package, or from FOLDER, where its
wheel is unpacked. Each tag's config is judged as a repository of the hub is: sizes, tokenizer, picture recipe.
What `diptych models` says of each, from the little that published.toml has of its config, must be the same.
Writes results/published_tags.json; docs/parity.md shows it.
"""

import argparse
import ast
import collections
import datetime
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from diptych.errors import DiptychError
from diptych.weights.open_clip import config_from_open_clip, preprocess_from_open_clip
from diptych.weights.published import published_models
from diptych.weights.verdict import check_config, refusals

sys.path.insert(0, str(Path(__file__).parent))
import history

RECIPE = ("mean", "std", "interpolation", "resize_mode")


def package() -> Path:
    """Where open_clip is installed; it is not imported."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None or spec.origin is None:
        sys.exit("open_clip is not installed here: give --open-clip FOLDER.")
    return Path(spec.origin).parent


def tags_of(folder: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Model and tag to what open_clip knows of its weights: the plain assignments of `pretrained.py`, evaluated.

    Only those functions that fill in a recipe, the tables and the loops that copy them are run, without imports.
    """
    names: dict[str, Any] = {"copy": __import__("copy")}
    exec((folder / "constants.py").read_text(encoding="utf-8"), names)
    tree = ast.parse((folder / "pretrained.py").read_text(encoding="utf-8"))
    for node in tree.body:
        is_recipe = isinstance(node, ast.FunctionDef) and node.name.endswith("cfg")
        is_table = isinstance(node, ast.Assign | ast.For | ast.Expr) and "_PRETRAINED" in ast.unparse(node)
        is_part = isinstance(node, ast.Assign) and isinstance(node.value, ast.Call | ast.Dict)
        if is_recipe or is_table or is_part:
            exec(compile(ast.Module([node], []), "pretrained.py", "exec"), names)
    return names["_PRETRAINED"]


def verdict(model_cfg: dict[str, Any], recipe: dict[str, Any]) -> str:
    """Empty where it opens, else the sentence."""
    try:
        check_config(model_cfg)
        config = config_from_open_clip(model_cfg)
        preprocess_from_open_clip({key: recipe[key] for key in RECIPE}, config.image.image_size)
    except DiptychError as error:
        return str(error)
    return ""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--open-clip", type=Path, help="the folder of that package, where it is not installed")
    parser.add_argument("--out", type=Path, default=history.RESULTS / "published_tags.json")
    arguments = parser.parse_args()
    folder = arguments.open_clip or package()
    models = published_models()
    row_of = {address: model for model in models for address in (model.hub, *model.also)}
    listed = refusals(models)
    rows, apart = [], []
    for model, tags in tags_of(folder).items():
        model_cfg = json.loads((folder / "model_configs" / f"{model}.json").read_text(encoding="utf-8"))
        for tag, recipe in tags.items():
            refusal = verdict(model_cfg, recipe)
            row = row_of["hf:" + "/".join(recipe["hf_hub"].strip("/").split("/")[:2])]
            twin = row.hub if refusal and row.hub not in listed else ""
            if bool(refusal) != (row.hub in listed) and not twin:
                apart.append(f"{model}/{tag}: {refusal or 'opens'}; listed: {listed.get(row.hub, 'opens')}")
            tokenizer = model_cfg["text_cfg"].get("hf_tokenizer_name") or "CLIP's merges"
            rows.append({"model": model, "tag": tag, "tokenizer": tokenizer, "refusal": refusal, "opens_as": twin})
    kinds = collections.Counter(row["refusal"].rpartition(": ")[2] for row in rows if row["refusal"])
    result = {
        "what": "open_clip's published tags, judged by their configs",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "open_clip": version_of(folder),
        "tags": len(rows),
        "open": sum(not row["refusal"] for row in rows),
        "refused": sum(bool(row["refusal"]) for row in rows),
        "refused_with_a_copy_that_opens": sum(bool(row["opens_as"]) for row in rows),
        "tokenizers_of_those_that_open": collections.Counter(row["tokenizer"] for row in rows if not row["refusal"]),
        "refusals": dict(kinds.most_common()),
        "rows": rows,
    }
    counts = {key: value for key, value in result.items() if key != "rows"}
    history.write(arguments.out, result, measured=counts)
    print(json.dumps(counts, indent=2))
    if apart:
        sys.exit("`diptych models` says otherwise of:\n" + "\n".join(apart))


def version_of(folder: Path) -> str:
    text = (folder / "version.py").read_text(encoding="utf-8")
    return text.partition("=")[2].strip().strip("'\"")


if __name__ == "__main__":
    main()
