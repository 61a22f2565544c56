"""`microsfl plan`: what a run will take, before it is run."""
