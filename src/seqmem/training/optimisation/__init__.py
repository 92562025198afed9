"""Optimisers, schedules of the learning rate, and the parameter groups that both act on.

An optimiser or a schedule is a dataclass with a ``name``, by which a config selects it; its fields are its typed arguments.
"""
