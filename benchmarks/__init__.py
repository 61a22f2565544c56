"""Measurements side by side: everything that is claimed about speed and size, as ratios of one run.

python -m benchmarks [--quick] [--only NAME ...] [--list]
"""
