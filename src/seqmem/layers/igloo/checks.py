"""Checks of the arguments of an IGLOO layer against each other."""

from seqmem.errors import UserError


def check_sequence_output(steps: int, stretch_factor: int, nb_sequences: int, max_pooling_kernel: int) -> None:
    """Check the arguments of a layer with one output per step.

    Raises:
        UserError: an argument does not fit the number of steps, or is for an output per sequence.
    """
    if steps % stretch_factor:
        divisors = (divisor for divisor in range(1, steps + 1) if steps % divisor == 0)
        nearest = min(divisors, key=lambda divisor: abs(divisor - stretch_factor))
        raise UserError(
            f"stretch_factor: got {stretch_factor}, expected a divisor of the {steps} steps; did you mean {nearest}?"
        )
    if nb_sequences != -1 and not 1 <= nb_sequences <= steps:
        raise UserError(f"nb_sequences: got {nb_sequences}, expected -1 for all steps, or 1 to {steps}, the number of steps")
    if max_pooling_kernel != 1:
        raise UserError(f"max_pooling_kernel: got {max_pooling_kernel}, expected 1, since return_sequences keeps every step")


def check_single_output(steps: int, stretch_factor: int, nb_sequences: int, max_pooling_kernel: int) -> None:
    """Check the arguments of a layer with one output per sequence.

    Raises:
        UserError: an argument does not fit the number of steps, or is for an output per step.
    """
    for name, value, neutral in (("stretch_factor", stretch_factor, 1), ("nb_sequences", nb_sequences, -1)):
        if value != neutral:
            raise UserError(
                f"{name}: got {value}, expected {neutral} for one output per sequence; return_sequences=True gives one per step"
            )
    if max_pooling_kernel > steps:
        raise UserError(f"max_pooling_kernel: got {max_pooling_kernel}, expected at most {steps}, the number of steps")
