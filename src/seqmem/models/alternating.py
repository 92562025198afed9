"""A recurrent network whose layers are different cells in turn."""

from typing import Annotated, Any

from pydantic import Field, PositiveInt

from seqmem.arguments import check, checked
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.models.layered import LayeredNetwork
from seqmem.models.recurrent import RecurrentNetwork


class AlternatingNetwork(LayeredNetwork):
    """Embedding of tokens, layers of several cells in turn, and a head for the outputs that the data set defines.

    Four layers of LMU and LSTM are the hybrid of the LMU's paper (Voelker et al., 2019).

    Args:
        spec: spec of the data set.
        cells: cells in turn; each is a name, or a dict of its name, ``cell``, and its arguments other than ``input_size``.
        num_layers: number of layers; the inputs of each are the outputs of the one below.
        embedding_size: width of a learned embedding of tokens; None for the data set's own (imdb: 100), or for one-hot tokens
            if it has none. Only for tokens.
        output_hiddens: widths of linear layers, without activations, before the head.
        dropout: probability of dropping an output channel of a layer for a whole sequence (Gal and Ghahramani, 2016).

    Raises:
        UserError: an argument of the wrong type or range, an unknown cell, an unknown argument of a cell, no cell, or more
            cells than layers.
    """

    name = "alternating"

    @checked
    def __init__(
        self,
        spec: DataSpec,
        cells: list[str | dict[str, Any]],
        num_layers: PositiveInt = 4,
        embedding_size: PositiveInt | None = None,
        output_hiddens: list[PositiveInt] = [],  # noqa: B006
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ):
        in_turn = _checked_cells(cells, num_layers)
        layers = [in_turn[k % len(in_turn)] for k in range(num_layers)]
        super().__init__(spec, layers, embedding_size, output_hiddens, dropout)

    @classmethod
    def check(cls, arguments: dict[str, Any]) -> None:
        """Check arguments as a config gives them, without building anything."""
        checked = check(cls, arguments, "model", skip=("spec",))
        _checked_cells(checked["cells"], checked["num_layers"])

    @classmethod
    def label(cls, arguments: dict[str, Any]) -> str:
        """Return the cells' names."""
        return "_".join(str(_described(each)["cell"]) for each in arguments["cells"])


def _described(cell: str | dict[str, Any]) -> dict[str, Any]:
    return {"cell": cell} if isinstance(cell, str) else cell


def _checked_cells(cells: list[str | dict[str, Any]], num_layers: int) -> list[tuple[str, dict[str, Any]]]:
    """Return name and arguments of each cell."""
    found = []
    for place, given in enumerate(map(_described, cells)):
        if "cell" not in given:
            raise UserError(f"model.cells: got {given} without a name, expected for example {{cell: lstm, hidden_size: 25}}")
        arguments = {name: value for name, value in given.items() if name != "cell"}
        try:
            RecurrentNetwork.check({"cell": given["cell"], "cell_args": arguments})
        except UserError as error:
            raise UserError(str(error).replace("model.cell_args", f"model.cells.{place}")) from None
        found.append((given["cell"], arguments))
    if not 0 < len(cells) <= num_layers:
        raise UserError(f"model.cells: got {len(cells)} cells, expected at least one and at most model.num_layers={num_layers}")
    return found
