"""Drawings of the page: plots as SVG, and slices of cases."""
