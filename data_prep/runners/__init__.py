"""Ways to write the shards: processes, job arrays of clusters, Apache Beam."""
