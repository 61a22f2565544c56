"""`microsfl profile`: where the time of a run went."""
