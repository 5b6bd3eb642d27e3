"""Predicts label maps of whole scans, on the scans' own grids."""
