"""Where does the page of an artefact lie?"""

import os
from pathlib import Path

from compress.report import load
from headrace.report_page import page

FILE = "report.html"


def write_page(folder: Path) -> Path:
    """Writes an artefact's page beside its report, with the artefacts beside it to compare with. Raises FileError."""
    from headrace.artefacts import found

    others = [report for path, report in found([folder.parent]) if path != folder]
    aside = folder / f".{FILE}.partial"
    aside.write_text(page(load(folder), others))
    os.replace(aside, folder / FILE)
    return folder / FILE
