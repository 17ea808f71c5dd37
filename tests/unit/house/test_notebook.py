"""The analysts' notebook says what their script says."""

from __future__ import annotations

import nbformat

from tests import notebook


def test_the_notebook_is_the_script_cell_by_cell() -> None:
    written = nbformat.read(notebook.NOTEBOOK, as_version=4)
    assert written == notebook.notebook_of(notebook.SCRIPT.read_text()), (
        "python -m tests.notebook writes it anew"
    )
