"""Sampling decisions: consistent probability, sampling of items, the adaptive engine and the trace scanner."""
