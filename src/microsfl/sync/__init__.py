"""Versions, contributions and commits on a store."""
