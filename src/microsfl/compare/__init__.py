"""`microsfl compare`: strategies side by side on identical data and identical initial weights."""
