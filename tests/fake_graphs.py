"""Stand-ins for CUDA graphs on the CPU: they too keep their tensors at fixed addresses, and share memory with each other."""

from torch.fx.experimental.proxy_tensor import make_fx

from seqmem.ops.gpu.captures import Captured

WAITS = ("_local_scalar_dense", "nonzero", "_linalg_check_errors", "rand", "bernoulli", "linalg_matrix_exp", "lift_fresh")
"""Parts of the names of operations that wait for a GPU, copy from the CPU or draw random numbers."""


class Recomputed:
    """Replay a function by computing it again into the same results; the results of all other graphs become NaN meanwhile."""

    def __init__(self):
        self.made = self.replayed = 0
        self._results = []

    def __call__(self, function, tensors):
        self.made += 1
        again = self.prepared(function)
        results = [None if value is None else value.clone() for value in function()]
        self._results.append(results)

        def replay():
            self.replayed += 1
            for value in (value for other in self._results for value in other if value is not None):
                value.fill_(float("nan") if value.is_floating_point() or value.is_complex() else -1)
            for place, value in zip(results, again(), strict=True):
                if place is not None:
                    place.copy_(value)

        return Captured(replay, results)

    def prepared(self, function):
        return function


class Traced(Recomputed):
    """Replay the operations that ran when the function was captured, whatever Python would do now."""

    def __init__(self):
        super().__init__()
        self.operations = set()

    def prepared(self, function):
        traced = make_fx(function)()
        self.operations |= {str(node.target) for node in traced.graph.nodes if node.op == "call_function"}
        return traced
