"""Who may do what: credentials, and the tokens that every service checks by itself. Imports no torch."""
