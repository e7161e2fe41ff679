"""The `jupyterhub-sidecar` command."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import click

from hub import up as launcher
from hub.cli_output import EXIT_FAILED, OneLineErrors
from hub.identity_cli import identity_commands
from hub.options import UNLISTED_IMAGE
from hub.policy import Policy, json_schema
from hub.policy_file import SHIPPED, Checked, PolicyError, Problem, check_file, load_policy
from hub.profiles import offered_profiles
from hub.quantity import QuantityError, Size
from hub.resolve import Decision, Refused, resolve
from hub.text import table, visible

EXIT_USAGE = 2
EXIT_REFUSED = 3
_LONGEST_PATH = 1000

_policy_option = click.option(
    "--policy",
    "policy_file",
    envvar="HUB_POLICY",
    default=SHIPPED,
    show_default="the shipped one",
    type=click.Path(),
    help="The policy file; also HUB_POLICY.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="A document instead of a table.")
_group_option = click.option("--group", "groups", multiple=True, metavar="G", help="A group of the user; repeatable.")


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="jupyterhub-sidecar")
@click.pass_context
def main(context: click.Context) -> None:
    """A JupyterHub whose notebooks keep their work and whose GPUs are proven to work.

    \b
    Exit codes:
      0  done
      1  the hub could not be started, or the output cannot be written
      2  usage, a broken policy file, or text that is not JSON
      3  refused (decide, manifest)
    """
    if sys.stdout is None and context.invoked_subcommand != "up":  # Python's sign of a closed descriptor
        click.echo("cannot go on: standard output is closed", err=True)
        sys.exit(EXIT_FAILED)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that cannot show an emoji is no error


@main.command()
@click.option("--port", envvar="PORT", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option(
    "--data", envvar="DATA", default=".data", show_default=True, type=click.Path(), help="Everything is here."
)
@click.option(
    "--notebook",
    "notebook_environment",
    default=launcher.NOTEBOOK_ENVIRONMENT,
    type=click.Path(),
    help="A virtual environment with JupyterLab and jupyterhub.  [default: .venv-notebook in the checkout]",
)
@_policy_option
def up(port: int, data: str, notebook_environment: str, policy_file: str) -> None:
    """Start a hub on 127.0.0.1, with demo users, in the foreground.

    The users' password is printed, or taken from HUB_PASSWORD. With LOGIN=oidc, people log in with the OpenID Connect
    provider that OIDC_ISSUER, OIDC_CLIENT_ID and OIDC_CLIENT_SECRET name.

    \b
    Exit codes:
      0  stopped by Ctrl-C
      1  it could not be started: a port in use, a directory that cannot be written, something not installed
      2  usage, or a broken policy file
    """
    if not data:
        raise click.BadParameter("is empty", param_hint="--data (or DATA)")
    try:
        launcher.run_hub(
            port=port, data=data, policy_file=policy_file, notebook_environment=notebook_environment, say=click.echo
        )
    except launcher.CannotStart as error:
        for problem in error.problems:
            click.echo(f"cannot start: {problem}", err=True)
        sys.exit(error.exit_code)


main.add_command(identity_commands)


@main.group()
def policy() -> None:
    """Validate a policy file, or print its schema.

    \b
    Exit codes:
      0  done
      2  usage, or a policy file that is not valid (check)
    """


@policy.command("check")
@click.argument("file", type=click.Path())
@_json_option
def check_policy(file: str, as_json: bool) -> None:
    """Validate FILE, and name every error with its line and key.

    What is probably a mistake, such as a profile that is offered to nobody, is a warning, and FILE is valid.

    \b
    Exit codes:
      0  valid
      2  not valid, or not readable
    """
    checked: Checked | None = None
    errors: list[Problem] = []
    try:
        checked = check_file(file)
    except PolicyError as error:
        errors = error.problems
    warnings = checked.warnings if checked else ()
    if as_json:
        _print_json(
            {
                "schema": 1,
                "file": visible(file, limit=_LONGEST_PATH),
                "valid": checked is not None,
                "errors": [vars(problem) for problem in errors],
                "warnings": [vars(problem) for problem in warnings],
            }
        )
    else:
        for problem in errors:
            click.echo(f"{visible(file, limit=_LONGEST_PATH)}: {problem}", err=True)
        for problem in warnings:
            click.echo(f"{visible(file, limit=_LONGEST_PATH)}: {problem} (a warning)", err=True)
        if checked:
            groups, offered = len(checked.policy.groups), len(checked.policy.profiles)
            click.echo(f"{visible(file, limit=_LONGEST_PATH)}: valid: {groups} groups, {offered} profiles")
    sys.exit(0 if checked else EXIT_USAGE)


@policy.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of the policy file.

    \b
    Exit codes:
      0  printed
      2  usage
    """
    _print_json(json_schema())


@main.command()
@_group_option
@_json_option
@_policy_option
def profiles(groups: tuple[str, ...], as_json: bool, policy_file: str) -> None:
    """Show what a member of these groups is offered; without --group, what everybody is.

    \b
    Exit codes:
      0  shown
      2  usage, or a broken policy file
    """
    document = offered_profiles(groups, _load(policy_file))
    if as_json:
        _print_json(document)
        return
    for line in _lines(document["profiles"]):
        click.echo(line)


_user_option = click.option("--user", required=True, metavar="U")
_options_option = click.option(
    "--options", "options_text", default="{}", metavar="JSON", help="The options body.  [default: {}]"
)
_running_option = click.option(
    "--running", "running_text", default="{}", metavar="JSON", help='The user\'s servers: {"name": {"cpus": 8, …}}.'
)


@main.command()
@_user_option
@_group_option
@_options_option
@_running_option
@click.option("--json", is_flag=True, expose_value=False, help="No difference: the answer is JSON.")
@_policy_option
def decide(user: str, groups: tuple[str, ...], options_text: str, running_text: str, policy_file: str) -> None:
    """Decide about a server, and print the decision as JSON.

    The options are those that `profiles --json` prints under profile_options; what runs counts against the limits.

    \b
    Exit codes:
      0  granted: {"profile", "image", "cpus", "memory", "gpus"}
      3  refused: {"reason"}
      2  usage, a broken policy file, or text that is not JSON
    """
    decision = _decision(_Request(user, groups, options_text, running_text), policy_file)
    _print_json(decision.to_json(), indent=None)


@main.command()
@_user_option
@_group_option
@_options_option
@_running_option
@click.option("--server", default="", metavar="NAME", help="The server; without it, the unnamed one.")
@click.option("--image", default="", metavar="REF", help="The sidecar's image, where it is not the default.")
@click.option("--no-native", is_flag=True, help="For a cluster before Kubernetes 1.29.")
@_policy_option
def manifest(
    *,
    user: str,
    groups: tuple[str, ...],
    options_text: str,
    running_text: str,
    server: str,
    image: str,
    no_native: bool,
    policy_file: str,
) -> None:
    """Print the pod that a decision leads to, as YAML, without a cluster.

    It is made by the spawner itself. What only a running hub knows is not in it: tokens, addresses, and what its own
    configuration adds.

    \b
    Exit codes:
      0  printed
      3  refused: {"reason"}
      2  usage, a broken policy file, or text that is not JSON
    """
    from hub.manifest import Wanted, pod_manifest, to_yaml  # loads all of KubeSpawner, which takes more than a second

    decision = _decision(_Request(user, groups, options_text, running_text), policy_file)
    wanted = Wanted(user=user, server=server, groups=groups, policy_file=policy_file, native=not no_native, image=image)
    click.echo(to_yaml(pod_manifest(decision, wanted)), nl=False)


class _Request(NamedTuple):
    user: str
    groups: tuple[str, ...]
    options_text: str
    running_text: str


def _decision(request: _Request, policy_file: str) -> Decision:
    """What is granted; where nothing is, the reason is printed and the process exits 3."""
    loaded = _load(policy_file)
    options = _parse("--options", request.options_text)
    running = _running(_parse("--running", request.running_text))
    answer = resolve(request.user, request.groups, options=options, running=running, policy=loaded)
    if isinstance(answer, Refused):
        _print_json({"reason": answer.reason}, indent=None)
        sys.exit(EXIT_REFUSED)
    return answer.decision


def _load(path: str) -> Policy:
    try:
        return load_policy(path)
    except PolicyError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)


def _print_json(document: Mapping[str, Any], *, indent: int | None = 2) -> None:
    # What a terminal cannot show must not become an error, and a replacement would be no JSON.
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    click.echo(json.dumps(document, indent=indent, ensure_ascii=not unicode))


def _parse(option: str, text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        click.echo(f"{option} is not JSON: {visible(str(error))}", err=True)
        sys.exit(EXIT_USAGE)


def _no_constant(name: str) -> Any:
    raise ValueError(f"there is no {name} in JSON")


def _running(document: Any) -> dict[str, Size]:
    if not isinstance(document, dict):
        click.echo('--running must be an object: {"name": {"cpus": 8, "memory": "32G", "gpus": 1}}', err=True)
        sys.exit(EXIT_USAGE)
    running = {}
    for name, size in document.items():
        try:
            running[name] = Size.from_json(size)
        except QuantityError as error:
            click.echo(f"--running: {visible(name)}: {error}", err=True)
            sys.exit(EXIT_USAGE)
    return running


def _lines(entries: list[dict[str, Any]]) -> list[str]:
    """The profiles as a table, then the choices of each and the notes."""
    rows = [("profile", "name", "cores", "memory", "GPUs", "image")]
    for entry in entries:
        slug = entry["slug"] + (" (default)" if entry["default"] else "")
        sizes = (str(entry["cpus"]), entry["memory"], str(entry["gpus"]))
        rows.append((slug, entry["display_name"], *sizes, entry["image"]))
    lines = table(rows)
    for entry in entries:
        for name, option in entry["profile_options"].items():
            choices = ", ".join(
                f"{key} (default)" if choice["default"] else key for key, choice in option["choices"].items()
            )
            other = f", or any allowed image as {UNLISTED_IMAGE}" if "unlisted_choice" in option else ""
            lines.append(f"{entry['slug']}: {name}: {choices}{other}")
    lines += dict.fromkeys(visible(entry["note"], limit=1000) for entry in entries if entry["note"])
    return lines
