"""Faces: identities to train on, pairs to verify."""
