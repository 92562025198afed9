"""How a decoder knows the length of a sequence that it is not told."""

from seqmem.errors import UserError


class RememberedLength:
    """Shared by an encoder and its decoder: the number of steps of what was encoded last.

    Attributes:
        steps: None before anything was encoded.
    """

    steps: int | None = None

    def resolve(self, seq_len: int | None) -> int:
        """``seq_len``, or what is remembered where it is None.

        Raises:
            UserError: it is None and nothing has been encoded yet, or it is not positive.
        """
        if seq_len is None:
            seq_len = self.steps
        if seq_len is None:
            raise UserError("decoder: nothing has been encoded yet whose length could be meant; give seq_len")
        if seq_len < 1:
            raise UserError(f"decoder: got seq_len={seq_len}, expected at least 1")
        return seq_len
