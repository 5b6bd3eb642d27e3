"""Statistics over cases: intervals, paired comparisons, seeds, ranks.

Pure functions of rows (cases.jsonl) or of arrays; no JAX, no files.
"""
