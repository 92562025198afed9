"""Engines that run trials: in this process, in worker processes, on a Ray cluster, over several devices."""
