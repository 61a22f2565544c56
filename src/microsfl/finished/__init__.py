"""Runs from Python: start one, look at a finished one, use its model."""
