"""Lifecycle of the agent: build, start, run, reload, drain, stop."""
