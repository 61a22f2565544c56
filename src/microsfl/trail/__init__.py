"""The audit trail from the command line: `microsfl audit`. Imports no torch."""
