"""Cases on disk and the batches made of them: records, shards, data sets, pipeline."""
