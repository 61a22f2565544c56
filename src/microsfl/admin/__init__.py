"""What an operator does about who takes part, and what a site does to be in. Imports no torch."""
