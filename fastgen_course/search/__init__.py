"""Architecture search: a space, a supernet, a latency table, searchers."""
