"""Starts a training on several processes: local, SLURM, Kubernetes, TPU VM."""
