"""Places in buckets, gs:// and s3://, and local folders that stand for them."""
