"""Where shards are prepared: processes of this machine, or Apache Beam."""
