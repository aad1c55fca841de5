"""Data of the experiments: loaders, and generators that are pure functions of a key."""
