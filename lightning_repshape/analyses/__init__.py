"""Analyses of a representation: computations on features, whatever model they come from."""
