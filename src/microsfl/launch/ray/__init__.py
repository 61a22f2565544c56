"""The processes of a run on Ray: actors hold them, and Ray places and restarts the actors. Tensors go over HTTP."""
