"""Is this machine fit for microsfl? Each check says what it found and what to do; none leaves anything behind."""
