"""Photos to features: decoding, the model, the contract, and the function that tasks run."""
