"""Arguments of an IGLOO layer that do not go together."""

from seqmem.errors import UserError


def check_sequences(steps: int, stretch_factor: int, nb_sequences: int, max_pooling_kernel: int) -> None:
    """Arguments of a layer with an output for each of some steps.

    Raises:
        UserError: one of them does not go with the number of steps, or with such outputs.
    """
    if steps % stretch_factor:
        nearest = min((s for s in range(1, steps + 1) if steps % s == 0), key=lambda s: abs(s - stretch_factor))
        raise UserError(
            f"stretch_factor: got {stretch_factor}, expected a divisor of the {steps} steps; the nearest is {nearest}"
        )
    if nb_sequences != -1 and not 1 <= nb_sequences <= steps:
        raise UserError(
            f"nb_sequences: got {nb_sequences}, expected -1 for all steps, or 1 to {steps}, the steps that there are"
        )
    if max_pooling_kernel != 1:
        raise UserError(f"max_pooling_kernel: got {max_pooling_kernel}, expected 1, since return_sequences keeps every step")


def check_whole(steps: int, stretch_factor: int, nb_sequences: int, max_pooling_kernel: int) -> None:
    """Arguments of a layer with one output for a sequence.

    Raises:
        UserError: one of them does not go with the number of steps, or with such an output.
    """
    for name, given, neutral in (("stretch_factor", stretch_factor, 1), ("nb_sequences", nb_sequences, -1)):
        if given != neutral:
            raise UserError(
                f"{name}: got {given}, expected {neutral}, since a sequence as a whole has one output; "
                "return_sequences=True has one for each step"
            )
    if max_pooling_kernel > steps:
        raise UserError(f"max_pooling_kernel: got {max_pooling_kernel}, expected at most {steps}, the steps that there are")
