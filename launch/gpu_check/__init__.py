"""The check of a first GPU; README.md of this folder describes how to run it."""
