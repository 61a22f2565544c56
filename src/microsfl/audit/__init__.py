"""What a run gives away: attacks on its smashed data and gradients, and fronts trained to give away less."""
