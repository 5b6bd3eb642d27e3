"""Anybody's label maps: whose are which, what their values mean, on which grid."""
