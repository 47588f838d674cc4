"""A classifier of the features: train, evaluate, predict, export."""
