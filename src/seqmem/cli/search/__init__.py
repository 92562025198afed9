"""Searches by Optuna: their settings, space, study and points."""
