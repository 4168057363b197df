"""FastGen: a hands-on course on making image generation fast.

The package holds what the notebooks call; see CONTRIBUTING.md for its floor plan. Importing it
imports nothing else, so that `python -m fastgen_course --help` answers at once.
"""

__version__ = "0.1.0"
