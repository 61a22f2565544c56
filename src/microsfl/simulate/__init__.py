"""A whole federation in one process, without sockets: the same state machine, functions and bytes as the services."""

from .simulation import Simulated, simulate

__all__ = ["Simulated", "simulate"]
