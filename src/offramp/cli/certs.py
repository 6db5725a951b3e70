"""`offramp certs init`, `issue` and `revoke`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Argument(help="Folder of the authority.")]
Name = Annotated[str, typer.Argument(help="edge, or a device's --id.")]

certs = typer.Typer(
    name="certs", help="Certificates for mutual TLS between edge and devices.", no_args_is_help=True
)


@certs.command()
def init(folder: Folder) -> None:
    """Make an authority."""
    from offramp.runtime import certificates

    certificates.init(folder)
    typer.echo(f"{folder}: ca.pem, ca.key (keep it here), crl.pem")


@certs.command()
def issue(
    folder: Folder,
    name: Name,
    host: Annotated[
        list[str] | None, typer.Option("--host", help="Name or address that an edge is reached by; repeat.")
    ] = None,
    days: Annotated[int, typer.Option("--days", help="How long it is valid.")] = 365,
) -> None:
    """Issue the certificate of an edge or a device."""
    from offramp.runtime import certificates

    local = ["localhost", "127.0.0.1", "::1"] if name == certificates.EDGE else []
    certificates.issue(folder, name, [*(host or []), *local], days)
    typer.echo(f"{folder}: {name}.pem, {name}.key; its machine also needs ca.pem")


@certs.command()
def revoke(folder: Folder, name: Name) -> None:
    """Revoke a certificate; edges that use this folder notice by themselves."""
    from offramp.runtime import certificates

    certificates.revoke(folder, name)
    typer.echo(f"{folder}: {name} is revoked; give crl.pem to every edge")
