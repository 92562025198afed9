"""The minimal gated recurrent unit whose gate depends on the inputs alone."""

from seqmem.layers.minimal import MinimalRecurrence


class MinGRU(MinimalRecurrence):
    """States h_t = (1 - z_t) h_{t-1} + z_t g(k_t) with z_t = sigmoid(W_z x_t) and k_t = W_h x_t, and outputs W_o h_t.

    g(k) is k + 1/2 for k >= 0 and sigmoid(k) below, so that the states stay positive (Feng et al., 2024, section 3.1). The
    defaults are those of lucidrains' implementation: no biases, and W_o only where the number of units differs from that of the
    outputs. The authors' form is ``bias=True, projection=True, learned_state=True``.
    """

    name = "mingru"
    form = "gru"
    rows = 2
