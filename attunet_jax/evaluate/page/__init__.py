"""The report of evaluated networks as one HTML page that fetches nothing."""
