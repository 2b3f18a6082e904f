"""Command of the task serve: the interactive page of runs."""

from dataclasses import dataclass
from pathlib import Path

from vtcav_jax.cli.arguments import run_folder
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.console import emit, info
from vtcav_jax.serve.workspace import open_workspace
from vtcav_jax.settings import SettingError, concerning, required, setting


@dataclass(frozen=True, kw_only=True)
class ServeArguments:
    run: tuple[Path, ...] = required(
        "NAME",
        "run folder of tcav, attribute or motion, or a folder of concepts, or several, separated by commas; a name"
        " without a slash is a folder in runs/",
        convert=lambda names: tuple(map(run_folder, names)),
    )
    port: int = setting(8080, "port on this machine; 0: any free port", minimum=0, maximum=65535)

    def __post_init__(self):
        if len({folder.resolve() for folder in self.run}) < len(self.run):
            raise SettingError(("run", f"{','.join(map(str, self.run))} names a run twice; name each run once"))


def serve(args: ServeArguments, context: CommandContext) -> None:
    """Print the address of the page and serve it until the command is interrupted."""
    try:
        from vtcav_jax.serve.server import run_server
    except ImportError as error:
        raise ValueError(f"serve needs {error.name}; pip install 'vtcav-jax[serve]'") from error
    with concerning("run"):
        workspace = open_workspace(args.run)
    info("Interactive page, on this machine only; Ctrl-C stops it.")
    with concerning("port"):
        run_server(workspace, args.port, emit)
