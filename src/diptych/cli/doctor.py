"""`diptych doctor`: what this machine has, which engine is soonest on it, and what is missing."""

import json
from dataclasses import asdict

from diptych.cli.console import complain, print_table
from diptych.weights.packaged import check_model_name


def doctor(model: str | None = None, *, json_: bool = False) -> None:
    """Say what this machine has, measure which engine is soonest for a model on it, and name what is not installed.

    What is measured is kept: `--engine auto` goes by it for many pictures, until machine, model or a version change.

    Parameters
    ----------
    model
        A name from `diptych models`, or a bundle's folder. By default the model that ships with diptych.
    json_
        Print JSON.
    """
    check_model_name(model)

    from diptych.doctor import diagnose

    found = diagnose(model, on_note=complain)
    if json_:
        print(json.dumps(asdict(found), indent=2))
        return
    facts = " ".join(found.instructions) or "no instruction sets told"
    print(f"{found.machine['cpu']}, {found.machine['cores']} cores, {facts}, {found.memory / 2**30:.0f} GiB")
    print(f"python {found.machine['python']}\n\n{found.model}")
    rows = []
    for one in found.engines:
        speed = "" if one.pictures_per_second is None else f"{one.pictures_per_second:,.1f} pictures/s"
        said = "taken for many pictures" if one.name == found.taken else "" if one.opens_model else "does not open it"
        rows.append((one.name, one.version or "not installed", ", ".join(one.devices), speed, said))
    print_table(rows, header=("engine", "version", "devices", "speed", ""), numbers=[3])
    if found.missing:
        print("\nNot installed")
        table = [(f"pip install 'diptych[{extra}]'", ", ".join(names)) for extra, names in found.missing.items()]
        print_table(table)
