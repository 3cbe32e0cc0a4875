"""Licences: which tier an agent may use, and until when."""
