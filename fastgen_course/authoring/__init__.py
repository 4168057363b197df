"""Tools for the course's authors: run and check notebooks, README's tables, public links."""
