"""Forms of operations for a single CPU device; see the README.md beside this file."""
