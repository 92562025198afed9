"""The minimal gated recurrent unit whose gate depends on the inputs alone."""

from seqmem.layers.minimal import MinimalRecurrence


class MinGRU(MinimalRecurrence):
    """Minimal GRU, whose gate depends on the inputs alone.

    The states h_t = (1 - z_t) h_{t-1} + z_t g(k_t) with z_t = sigmoid(W_z x_t) and k_t = W_h x_t have the outputs W_o h_t. g(k)
    is k + 1/2 for k >= 0 and sigmoid(k) below, so that the states stay positive (Feng et al., 2024, section 3.1). The defaults
    are those of lucidrains' implementation: no biases, and W_o only where the number of units differs from that of the outputs.
    The authors' form is ``bias=True, projection=True, learned_state=True``.

    Parameters: ``weight_in`` (2 E, C), rows of k and of z, and ``bias_in`` (2 E,) with ``bias``; ``weight_out`` W_o (H, E) with
    ``projection``, ``bias_out`` (H,) with both; ``initial`` (E,) with ``learned_state``, without weight decay;
    ``convolution.weight`` (C, k) and ``convolution.bias`` (C,) with ``kernel_size``.
    """

    name = "mingru"
    form = "gru"
    rows = 2
