"""What a first GPU is asked: README.md of this folder says how to run it."""
