"""Looking at runs from a terminal: which there are, how one of them is, and what its processes log."""
