"""The parts of `python -m launch.benchmark`: each measures or counts one thing."""
