"""The command `convert`: a file of weights becomes a model folder."""

from pathlib import Path
from typing import Annotated

import typer

from expunge.cli.options import DataOption, OverwriteOption, SetOption


def convert(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Weights of a network: .safetensors, or a pickle such as .pth.")],
    data: DataOption,
    network: Annotated[str, typer.Option(help="timm's name, torchvision:NAME, transformers:KIND or MODULE:NAME.")],
    out: Annotated[Path, typer.Option(help="Model folder to make.")],
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read FILE though it is a pickle: tensors alone, no code.")
    ] = False,
    assignments: SetOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Make a model folder of a file of weights; data give classes and inputs. --set: dataset.KEY, network.args.KEY."""
    from expunge.convert import convert_file
    from expunge.network import Network
    from expunge.settings import build, from_assignments, from_mapping, sort_out

    chosen = sort_out(from_assignments(assignments or []), home=None, tables=("dataset", "network"))
    convert_file(
        file,
        from_mapping(Network, {"name": network} | chosen["network"]),
        build("datasets", {"name": data} | chosen["dataset"]),
        out,
        allow_pickle=allow_pickle,
        overwrite=overwrite,
    )
    context.obj.say(f"{file} as {network}.\n{out}")
    context.obj.value({"out": str(out)})
