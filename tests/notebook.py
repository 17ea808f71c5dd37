"""The analysts' notebook is their script, cell by cell: ``python -m tests.notebook`` writes it anew."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import nbformat
from nbclient import NotebookClient

EXAMPLES: Final = Path(__file__).parents[1] / "docs" / "examples"
SCRIPT: Final = EXAMPLES / "analysis.py"
NOTEBOOK: Final = EXAMPLES / "analysis.ipynb"
FOLDER: Final = "export"
"""What the notebook reads, beside itself."""
CELL_S_MAX: Final = 120


def notebook_of(script: str) -> nbformat.NotebookNode:
    """A cell for the script's docstring, and two for each of its ``# %%`` parts: what it asks, and the code."""
    head, *parts = script.split("# %% ")
    title = head.split('"""')[1].partition("\n")[0]
    read = f"`fluvial parquet {FOLDER}` writes the folder that it reads."
    cells = [nbformat.v4.new_markdown_cell(f"# {title}\n\n{read}")]
    for part in parts:
        question, _, code = part.partition("\n")
        code = re.sub(r"^FOLDER = .*$", f'FOLDER = "{FOLDER}"', code, flags=re.MULTILINE)
        code = code.replace("from __future__ import annotations\n\nimport sys\n\n", "")
        cells += [nbformat.v4.new_markdown_cell(question), nbformat.v4.new_code_cell(code.strip())]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made: nbformat.NotebookNode = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    return made


def executed(folder: Path) -> str:
    """What all cells show, run in ``folder``. Raises what a cell raises."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=CELL_S_MAX, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "\n".join(str(output.get("text", "")) for output in outputs)


if __name__ == "__main__":
    nbformat.write(notebook_of(SCRIPT.read_text()), NOTEBOOK)
