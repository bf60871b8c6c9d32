"""`diptych models`: which models there are, and what one of them is."""

import json
from dataclasses import asdict

from cyclopts import App

from diptych.cli.console import complain, print_table

models = App(name="models", help="List the models that --model knows by name, or show one of them.")


@models.default
def list_(*, json_: bool = False) -> None:
    """List the models that --model knows by name.

    Parameters
    ----------
    json_
        Print JSON.
    """
    from diptych.weights.registry import DEFAULT_MODEL, list_models

    infos = list_models()
    if json_:
        print(json.dumps([asdict(info) for info in infos], indent=2))
        return
    if not infos:
        complain("no model ships with this installation. --model also takes the folder of a bundle.")
        return
    print_table(
        [
            (
                info.name + (" (default)" if info.name == DEFAULT_MODEL else ""),
                f"{info.parameters / 1e6:,.1f} M",
                f"{info.embed_dim:,}",
                f"{info.image_size:,} px",
                f"{info.size / 1e6:,.1f} MB",
                info.licence,
                info.architecture,
            )
            for info in infos
        ],
        header=("model", "parameters", "embed_dim", "pictures", "on disk", "licence", "architecture"),
        numbers=range(1, 5),
    )


@models.command
def show(model: str, *, json_: bool = False) -> None:
    """Tell what a model is, without building it.

    Parameters
    ----------
    model
        A name from `diptych models`, or a bundle's folder.
    json_
        Print JSON.
    """
    from diptych.weights.registry import describe, find

    info = describe(find(model))
    if json_:
        print(json.dumps(asdict(info), indent=2))
        return
    facts = {
        "model": info.name,
        "architecture": info.architecture,
        "parameters": f"{info.parameters:,}",
        "embed_dim": f"{info.embed_dim:,}",
        "image_size": f"{info.image_size:,} px",
        "on disk": f"{info.size:,} bytes",
        "licence": info.licence or "not told",
        "trained on": info.data or "not told",
    }
    print_table(list(facts.items()))
