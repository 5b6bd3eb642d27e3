"""Other libraries, each in a process of its own, so that none shares ours."""
