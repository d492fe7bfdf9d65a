"""Verbs that make pages for a browser: page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caloforge.cli.app import JsonFlag, answer, app


@app.command()
def page(
    models: Annotated[
        list[Path], typer.Argument(help="Exported ONNX files (target plain), one per detector.")
    ],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("showers.html"),
    as_json: JsonFlag = False,
) -> None:
    """Write one HTML file in which a browser makes showers, without server or network.

    Example: caloforge page par04-siw.onnx par04-scipb.onnx --out showers.html
    """
    from caloforge.deploy.page import write_page

    written = write_page(models, out)
    size = written.stat().st_size
    values = {"page": written, "bytes": size, "models": models}
    answer(values, as_json, f"wrote {written} ({size / 1e6:.1f} MB): open it in a browser")
