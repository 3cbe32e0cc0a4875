"""Revisions of the control store, in the order of their numbers."""
