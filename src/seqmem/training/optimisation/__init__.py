"""Optimisers, schedules of the learning rate, and the parameter groups that both act on."""
