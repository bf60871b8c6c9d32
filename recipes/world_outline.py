"""The outline of the world that the page of `diptych serve` draws and names countries by.

    npm pack world-atlas@2.0.2 && tar xzf world-atlas-2.0.2.tgz
    python recipes/world_outline.py package src/diptych/serve/page/world.json

Natural Earth (public domain) as the package world-atlas (ISC) has it: its smallest scale, and the countries that it
leaves out, Singapore or Malta, at the next one. Rings are longitude and latitude in hundredths of a degree.
"""

import json
import sys
from pathlib import Path
from typing import Any

_STEPS = 100  # of a degree


def rings_of(topology: dict[str, Any]) -> dict[str, list[list[int]]]:
    """Rings of each country by its name, flat: longitude, latitude, longitude and so on."""
    (a, b), (c, d) = topology["transform"]["scale"], topology["transform"]["translate"]
    arcs = []
    for arc in topology["arcs"]:
        x = y = 0
        points = []
        for dx, dy in arc:
            x, y = x + dx, y + dy
            points.append((round(_STEPS * (x * a + c)), round(_STEPS * (y * b + d))))
        arcs.append(points)
    countries: dict[str, list[list[int]]] = {}
    for shape in topology["objects"]["countries"]["geometries"]:
        polygons = [shape["arcs"]] if shape["type"] == "Polygon" else shape.get("arcs", [])
        for ring in (ring for polygon in polygons for ring in polygon):
            points: list[tuple[int, int]] = []
            for number in ring:
                arc = arcs[number] if number >= 0 else arcs[~number][::-1]
                points += [point for point in arc if not points or point != points[-1]]
            if len(points) > 3:
                countries.setdefault(shape["properties"]["name"], []).append(
                    [part for point in points for part in point]
                )
    return countries


def main(package: Path, out: Path) -> None:
    small, large = (json.loads((package / f"countries-{scale}m.json").read_text()) for scale in (110, 50))
    countries = rings_of(small)
    countries |= {name: rings for name, rings in rings_of(large).items() if name not in countries}
    lines = [
        f"{json.dumps(name, ensure_ascii=False)}: {json.dumps(rings, separators=(',', ':'))}"
        for name, rings in sorted(countries.items())
    ]
    out.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{len(countries)} countries, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
