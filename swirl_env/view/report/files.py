"""The files of a report: one HTML page, JSON, CSV, PNG and SVG, in a folder of their own."""

from __future__ import annotations

from pathlib import Path

import msgspec

from swirl_env.errors import StoreError
from swirl_env.store.lines import replace_file
from swirl_env.view.report import tables
from swirl_env.view.report.figures import pictures
from swirl_env.view.report.page import render
from swirl_env.view.report.report import Report

PAGE, JSON = "report.html", "report.json"


def write_report(report: Report, folder: Path) -> Path:
    """Writes a report and returns its page. An earlier report in the folder is replaced; nothing else ever is.

    Raises:
        StoreError: if the folder holds anything else, or cannot be written.
        MissingExtra: if matplotlib or jinja2 is not installed; nothing is written then.
    """
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file, not a folder. Choose another out=.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / JSON).is_file():
        raise StoreError(f"{folder} already holds files that are no report. Choose another out=.")
    drawn = pictures(report)
    texts = {
        PAGE: render(report, drawn),
        JSON: msgspec.json.format(msgspec.json.encode(tables.to_json(report)), indent=1).decode(),
        "runs.csv": tables.to_csv(list(tables.run_values(report))),
        "cells.csv": tables.to_csv(list(tables.cell_values(report))),
        "comparisons.csv": tables.to_csv(list(tables.comparison_values(report))),
    }
    files = {name: text.encode() for name, text in texts.items()}
    for picture in drawn:
        files |= {f"{picture.name}.png": picture.png, f"{picture.name}.svg": picture.svg}
    for name in (JSON, *(name for name in files if name != JSON)):  # first what makes the folder a report
        replace_file(folder / name, files[name])
    return folder / PAGE
