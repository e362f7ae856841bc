"""Where does the page of an artefact lie?"""

from pathlib import Path

from compress.report import load
from headrace.report_page import page
from headrace.whole_file import write_whole

FILE = "report.html"


def write_page(folder: Path) -> Path:
    """Writes an artefact's page beside its report, with the artefacts beside it to compare with. Raises FileError."""
    from headrace.artefacts import found

    others = [report for path, report in found([folder.parent]) if path != folder]
    write_whole(folder / FILE, page(load(folder), others))
    return folder / FILE
