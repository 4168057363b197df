"""python build.py OUT.ipynb: the draft of notebook 10 from cells.py, not executed."""

import sys

import nbformat
from cells import CELLS

notebook = nbformat.v4.new_notebook()
notebook.metadata = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
for index, (kind, text) in enumerate(CELLS):
    make = nbformat.v4.new_markdown_cell if kind == "md" else nbformat.v4.new_code_cell
    cell = make(text.strip("\n"))
    cell["id"] = f"cell-{index:03}"
    notebook.cells.append(cell)
nbformat.validate(notebook)
nbformat.write(notebook, sys.argv[1])
