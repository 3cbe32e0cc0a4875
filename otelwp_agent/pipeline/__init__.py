"""Build a graph of components from a configuration, and forward batches from receivers to exporters."""
