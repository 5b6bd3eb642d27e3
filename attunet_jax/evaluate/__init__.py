"""Scores label maps by case and organ; statistics, the paper's tables, pictures."""
