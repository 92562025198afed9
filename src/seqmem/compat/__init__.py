"""Thin faces with the names of the packages whose models are here."""
