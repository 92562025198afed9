"""A recurrent network: layers of one cell and a linear head."""

from typing import Annotated, Any

import torch
from pydantic import Field, PositiveInt

from seqmem import cells
from seqmem.arguments import check, checked
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.models.layered import LayeredNetwork


class RecurrentNetwork(LayeredNetwork):
    """Embedding of tokens, ``num_layers`` cells, and a head for the outputs that the data set defines.

    Args:
        spec: spec of the data set.
        cell: name of a registered cell, see ``seqmem.cells.names()``.
        cell_args: arguments of the cell other than ``input_size``.
        num_layers: number of cells; the inputs of each are the outputs of the one below.
        embedding_size: width of a learned embedding of tokens; None for the data set's own (imdb: 100), or for one-hot tokens
            if it has none. Only for tokens.
        output_hiddens: widths of linear layers, without activations, before the head.
        dropout: probability of dropping an output channel of a layer for a whole sequence (Gal and Ghahramani, 2016).

    Raises:
        UserError: an argument of the wrong type or range, an unknown cell, or an unknown argument of the cell.
    """

    name = "recurrent"

    @checked
    def __init__(
        self,
        spec: DataSpec,
        cell: str = "legs",
        cell_args: dict[str, Any] = {},  # noqa: B006
        num_layers: PositiveInt = 1,
        embedding_size: PositiveInt | None = None,
        output_hiddens: list[PositiveInt] = [],  # noqa: B006
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ):
        check(cells.get(cell), cell_args, "model.cell_args", skip=("input_size",))
        super().__init__(spec, [(cell, cell_args)] * num_layers, embedding_size, output_hiddens, dropout)

    @classmethod
    def check(cls, arguments: dict[str, Any]) -> None:
        """Check arguments as a config gives them, without building anything."""
        checked = check(cls, arguments, "model", skip=("spec",))
        kind = cells.get(checked["cell"])
        check(kind, checked["cell_args"], "model.cell_args", skip=("input_size",))
        try:
            with torch.device("meta"):
                kind(input_size=2, **checked["cell_args"])  # a channel for the times and one for a feature
        except UserError as error:
            raise UserError(f"model.cell_args.{error}") from None

    @classmethod
    def label(cls, arguments: dict[str, Any]) -> str:
        """Return the cell's name."""
        return str(arguments["cell"])
