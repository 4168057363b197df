"""The ladder: from the textbook loop to the delivered network, one measured change a rung."""
