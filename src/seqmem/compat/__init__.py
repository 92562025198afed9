"""Thin faces with the names and signatures of the packages whose models live here now."""
