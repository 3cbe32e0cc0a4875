"""Sampling decisions: consistent probability sampling, item samplers, the adaptive controller and the trace scanner."""
