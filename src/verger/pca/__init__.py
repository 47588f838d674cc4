"""PCA from moments: sums, fit, scores, plots, and the model in Spark's own format."""
