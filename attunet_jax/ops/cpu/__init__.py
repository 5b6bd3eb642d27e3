"""Forms of the operations for one CPU device, each equal to its plain form."""
