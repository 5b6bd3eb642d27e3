"""Label maps go in; scores by case and organ, statistics, tables and pictures out."""
