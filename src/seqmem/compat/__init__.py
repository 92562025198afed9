"""Interfaces with the names and signatures of the packages that this project's models come from."""
