"""Cases of a small problem, and all sequences of a split."""

import torch

CASES = [([[1.0, 2.0]], "a"), ([[3.0, 4.0]], "b"), ([[5.0, 4.0]], "b")]


def everything(data, split):
    return data.batch(split, torch.arange(data.sizes[split]))
