"""Replay recorded requests through a pipeline in simulated time, to try other sampling rules on them."""
