"""Synthetic patients: bodies with organs, drawn as CT scans."""
