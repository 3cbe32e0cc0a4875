"""Command line. This is the only file that ends the process.

Exit status: 0 success, 1 invalid configuration or failure, 2 wrong usage.
"""

from __future__ import annotations

import sys
from importlib import import_module

import click

from otelwp_agent import __version__
from otelwp_agent.errors import AgentError, ConfigError

_COMMANDS = {
    "run": "Run the agent.",
    "validate": "Check a configuration, and list everything that is wrong with it.",
    "tiers": "Explain which tier a configuration needs, and change it for another tier.",
    "components": "List the components that pipelines can use.",
    "print-config": "Print the configuration, merged and expanded, without its secrets.",
    "schema": "Print the JSON Schema of the configuration file, for editors.",
    "generate": "Send sample telemetry.",
    "audit": "Prove that nothing was lost: print every ledger, and whether it balances.",
    "journal": "Verify a journal on disk, and make the key that encrypts it.",
    "dead-letter": "List, show, resend and purge requests that a backend has refused permanently.",
    "sampling": "Explain adaptive sampling, and try other rules on recorded traces.",
    "route": "Explain where the rules of the connector `routing` send telemetry.",
    "new": "Write a package with a component of your own.",
    "control": "Create, upgrade and check the control store of a managed collector.",
    "tenants": "Create, list, show, suspend and resume tenants.",
    "api-keys": "Create, list, revoke and rotate API keys.",
    "keys": "Make, replace and list the keys of sealed envelopes.",
    "plans": "Set, list, show and delete plans of tenants.",
    "license": "Create keys of an issuer; issue, inspect and install licences.",
    "licenses": "Set, list, show, sign, revoke and restore the licences of a licence server.",
    "fleet": "List, show and control installations of plugins; register versions.",
    "operators": "Add, list and remove users of the admin API.",
    "statement": "Verify statements of delivery, and make the key that signs them.",
    "rescue": "Recover dropped traces from the flight recorder of adaptive sampling.",
}
"""Commands with their descriptions. Each command has its own file, which is loaded when the command is called."""

_EXTRAS = {
    "cryptography": "sealing",
    "jwt": "sealing",
    "sqlalchemy": "control",
    "alembic": "control",
    "psycopg": "postgresql",
    "ruamel": "migrate",
}
"""Optional packages that commands need, with the extra that installs them."""


class _Commands(click.Group):
    """Loads a command when it is called, so that `--help` is fast and `run` does not import the other commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names, in the order in which a new user needs them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Load and return one command, or return `None` if there is none of that name."""
        if cmd_name not in _COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        try:
            command: click.Command = getattr(import_module(f"otelwp_agent.cli.{name}"), name)
        except ModuleNotFoundError as error:
            extra = _EXTRAS.get(error.name or "")
            if extra is None:
                raise
            raise AgentError(
                f"`{cmd_name}` needs {error.name}: install it with `pip install 'otelwp-agent[{extra}]'`"
            ) from error
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="otelwp-agent")
def cli() -> None:
    """Forward telemetry from WordPress, or anything that sends OTLP, to your observability backend.

    Start with `otelwp-agent run --config examples/quickstart.yaml`, then `otelwp-agent generate` in another terminal.
    """


def main() -> None:
    """Run the command line and end the process."""
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    """Run a command and return the exit status."""
    try:
        status = cli.main(arguments, prog_name="otelwp-agent", standalone_mode=False)
    except click.exceptions.Abort:
        return 130  # the exit status of shells for Ctrl-C
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (AgentError, BrokenPipeError) as error:
        _explain(error)
        return 1
    return status if isinstance(status, int) else 0


def _explain(error: Exception) -> None:
    """Print an error; print nothing if the reader of the output has closed it (`| head`)."""
    if isinstance(error, ConfigError):
        for problem in error.problems:
            click.echo(str(problem), err=True)
        count = len(error.problems)
        click.echo(f"{count} problem{'s' if count != 1 else ''}; nothing was started", err=True)
    elif isinstance(error, AgentError):
        click.echo(f"error: {error}", err=True)
