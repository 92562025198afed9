"""Hydra's configuration tree, and in ``commandline`` how a command line becomes a checked config."""
