"""``fluvial ca``, ``fluvial revoke``: who may sign in a task, and who may no longer."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from fluvial.commands.tasks import check_known_region, region_option, task_option
from fluvial.terminal.invocation import Invocation, json_option, pass_invocation
from fluvial.terminal.key_place import TokenPlace, operator_key_option
from fluvial.terminal.numbers import Number

if TYPE_CHECKING:
    from collections.abc import Callable

    from backends.keys import Keeping

ROLES: Final = ("device", "worker", "merger", "operator", "guardian", "edge")

encrypt_option = click.option(
    "--encrypt", is_flag=True, help="Keep the key encrypted, with FLUVIAL_KEY_PASSPHRASE (docs/deploy.md)."
)
token_option = click.option(
    "--key",
    "uri",
    type=TokenPlace(),
    help="Make no key: certify the one in a token, a pkcs11: URI.",
)


def _cohort_option(text: str) -> Callable[[Any], Any]:
    return click.option("--cohort", metavar="NAME", help=text)


def _keeping(*, encrypt: bool, uri: str | None) -> Keeping:
    from backends.environment import load_key_settings
    from backends.keys import Keeping

    if encrypt and uri:
        raise click.UsageError("--encrypt and --key: a key in a token is in no file that could be encrypted")
    return Keeping(load_key_settings(), encrypt, uri or "")


_DAYS: Final = Number(0, 36_500, min_open=True)


@click.group()
def ca() -> None:
    """Make a region's certificate authority, issue certificates."""


@ca.command("init")
@task_option
@click.option("--region", required=True, help="A region, or `control` (mergers, operators and guardians).")
@encrypt_option
@token_option
@json_option
@pass_invocation
def ca_init(
    invocation: Invocation, *, task_name: str | None, region: str, encrypt: bool, uri: str | None
) -> None:
    """Make the certificate authority of a region. One that is there already is left as it is.

    With --encrypt its key is encrypted, also of one that is there.
    """
    from backends.keys import authority_path, certificate_serial, create_authority, provider_name

    keeping, folder = _keeping(encrypt=encrypt, uri=uri), _folder_for_init(invocation, task_name, region)
    if uri and authority_path(folder, region).exists():
        raise click.UsageError(
            f"the CA of {region} is there already, and its key stays: a task knows no other"
        )
    path = create_authority(folder, region, keeping)
    kept = provider_name(path)
    invocation.output.document(
        {"region": region, "path": str(path), "serial": certificate_serial(path), "key": kept}
    )
    invocation.output.print(f"CA of {region}: {path} (key: {kept})")


def _folder_for_init(invocation: Invocation, task_name: str | None, region: str) -> Path:
    """A CA may be made before its task; once the task is created, its regions are fixed."""
    from backends.tasks import keys_folder, read_task_file, task_names
    from learning.names import check_task_name
    from schemas.certificates import CONTROL

    if task_name is not None and task_name not in task_names(invocation.home):
        return keys_folder(invocation.home, check_task_name(task_name, "--task"))
    file = read_task_file(invocation.home, task_name)
    if region != CONTROL:
        check_known_region(file, region)
    return keys_folder(invocation.home, file.task)


@ca.command("issue")
@task_option
@region_option
@click.option("--role", type=click.Choice(ROLES), default="device", show_default=True)
@click.option("--days", type=_DAYS, default=365.0, show_default=True, help="Validity.")
@_cohort_option("Of a device: the cohort that its certificate names (selection.cohorts in docs/policy.md).")
@encrypt_option
@token_option
@click.argument("name")
@json_option
@pass_invocation
def ca_issue(
    invocation: Invocation,
    *,
    task_name: str | None,
    region: str,
    role: str,
    days: float,
    cohort: str | None,
    encrypt: bool,
    uri: str | None,
    name: str,
) -> None:
    """Issue a key and certificate to NAME. One that is there already is left as it is.

    A region's CA vouches for its devices and workers, and for those of edges below it (`--region eu.e1`); the control
    CA (`--region control`) for mergers, operators and guardians. With --key the file that is written has no key: only
    the certificate, and where the key lies.
    """
    from backends.keys import certificate_cohort, certificate_serial, issue, provider_name, signer_path
    from backends.tasks import keys_folder, read_task_file
    from schemas.certificates import CONTROL, ISSUED_BY_CONTROL, Role

    file = read_task_file(invocation.home, task_name)
    kind = Role(role)
    if kind not in ISSUED_BY_CONTROL or region != CONTROL:
        check_known_region(file, region, edges=True)
    region = CONTROL if kind in ISSUED_BY_CONTROL else region
    folder = keys_folder(invocation.home, file.task)
    is_new = not signer_path(folder, region, kind, name).exists()
    if not is_new and (encrypt or uri):
        raise click.UsageError(
            f"{role} {name} has a key already: `fluvial ca renew` puts another in its place"
        )
    keeping = _keeping(encrypt=encrypt, uri=uri)
    path = issue(folder, region, kind, name, keeping, days=days, cohort=cohort or "")
    serial, named = certificate_serial(path), certificate_cohort(path)
    if cohort is not None and cohort != named:
        raise click.UsageError(
            f"{role} {name} has a certificate of the cohort {named or 'none'!r}: `fluvial ca renew --cohort` "
            "puts another in its place"
        )
    invocation.output.document(
        {
            "task": file.task,
            "region": region,
            "role": role,
            "name": name,
            "path": str(path),
            "serial": serial,
            "cohort": named,
            "key": provider_name(path),
            "new": is_new,
        }
    )
    invocation.output.print(
        f"{role} {name} ({region}{_of(named)}){'' if is_new else ', issued before'}: {path}   serial {serial}"
    )


@ca.command("renew")
@task_option
@region_option
@click.option("--role", type=click.Choice(ROLES), default="device", show_default=True)
@click.option("--days", type=_DAYS, default=365.0, show_default=True, help="Validity.")
@click.option("--keep-key", is_flag=True, help="A new certificate for the key that is there.")
@_cohort_option('Of a device: another cohort, "" for none. Default: the one that it has.')
@encrypt_option
@token_option
@click.argument("name")
@json_option
@pass_invocation
def ca_renew(
    invocation: Invocation,
    *,
    task_name: str | None,
    region: str,
    role: str,
    days: float,
    keep_key: bool,
    cohort: str | None,
    encrypt: bool,
    uri: str | None,
    name: str,
) -> None:
    """Give NAME a new certificate in the place of the one that is there, and a new key. What it signed stays valid.

    A process reads its key when it starts: start it again before its old certificate ends. A key stays encrypted that
    was so; one in a token stays, unless --key or --encrypt says otherwise.
    """
    from backends.keys import (
        certificate_cohort,
        certificate_expires_s,
        certificate_serial,
        provider_name,
        renew,
        signer_path,
    )
    from backends.tasks import keys_folder, read_task_file
    from schemas.certificates import CONTROL, ISSUED_BY_CONTROL, Role

    if keep_key and (uri or encrypt):
        raise click.UsageError("--keep-key: --key and --encrypt are for another key, or another place of it")
    keeping = _keeping(encrypt=encrypt, uri=uri)
    file, kind = read_task_file(invocation.home, task_name), Role(role)
    if kind not in ISSUED_BY_CONTROL or region != CONTROL:
        check_known_region(file, region, edges=True)
    region = CONTROL if kind in ISSUED_BY_CONTROL else region
    folder = keys_folder(invocation.home, file.task)
    before = certificate_serial(signer_path(folder, region, kind, name))
    path = renew(folder, region, kind, name, keeping, days=days, keep_key=keep_key, cohort=cohort)
    serial, ends = certificate_serial(path), dt.datetime.fromtimestamp(certificate_expires_s(path), dt.UTC)
    named = certificate_cohort(path)
    invocation.output.document(
        {
            "task": file.task,
            "region": region,
            "role": role,
            "name": name,
            "path": str(path),
            "serial": serial,
            "serial_before": before,
            "cohort": named,
            "key": provider_name(path),
            "expires": ends.isoformat(timespec="seconds"),
        }
    )
    invocation.output.print(
        f"{role} {name} ({region}{_of(named)}), renewed: {path}   serial {serial}, was {before}"
    )
    invocation.output.print(
        f"ends {ends:%Y-%m-%d %H:%M} UTC; start its process again before the old one ends"
    )


@ca.command("list")
@task_option
@json_option
@pass_invocation
def ca_list(invocation: Invocation, *, task_name: str | None) -> None:
    """List authorities and issued certificates on this machine."""
    from backends.tasks import keys_folder, read_task_file

    file = read_task_file(invocation.home, task_name)
    entries = [_describe_key(path) for path in _key_paths(keys_folder(invocation.home, file.task))]
    invocation.output.document({"task": file.task, "certificates": entries})
    columns = ("region", "role", "name", "cohort", "expires", "serial", "key")
    invocation.output.table(columns, [[entry[column] for column in columns] for entry in entries])


def _of(cohort: str) -> str:
    return f", cohort {cohort}" if cohort else ""


def _key_paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("*-ca.pem")) + sorted(folder.glob("*/*/*.pem"))


def _describe_key(path: Path) -> dict[str, str]:
    from cryptography import x509

    from backends.keys import certificate_cohort, certificate_pem, provider_name

    certificate = x509.load_pem_x509_certificate(certificate_pem(path).encode())
    is_authority = path.name.endswith("-ca.pem") and path.parent.name == "keys"
    return {
        "region": path.name.removesuffix("-ca.pem") if is_authority else path.parent.parent.name,
        "role": "CA" if is_authority else path.parent.name,
        "name": "" if is_authority else path.stem,
        "cohort": "" if is_authority else certificate_cohort(path),
        "expires": certificate.not_valid_after_utc.strftime("%Y-%m-%d %H:%M"),
        "serial": f"{certificate.serial_number:x}",
        "key": provider_name(path),
        "path": str(path),
    }


@click.command()
@task_option
@click.option(
    "--region", required=True, help="A region of the task, or `control` (mergers, operators and guardians)."
)
@click.option("--role", type=click.Choice(ROLES), default="device", show_default=True)
@click.option("--certificate", is_flag=True, help="Of a device: bar a certificate, not the device id.")
@click.option(
    "--serial", default="", metavar="HEX", help="Of that certificate. Default: the one on this machine."
)
@click.option("--reason", required=True, help="For people; it stands in the log for ever.")
@operator_key_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.argument("name")
@json_option
@pass_invocation
def revoke(
    invocation: Invocation,
    *,
    task_name: str | None,
    region: str,
    role: str,
    certificate: bool,
    serial: str,
    reason: str,
    key: Path | str | None,
    yes: bool,
    name: str,
) -> None:
    """Bar NAME from a task, from now on: a device, or the certificate of a worker, a merger, an operator or a
    guardian.

    What was accepted before stays counted. A certificate that is revoked stays so: who goes on needs another one.
    """
    from backends.tasks import read_task_file
    from fluvial.local.revoking import Revocation

    settings, output = invocation.settings("operator"), invocation.output
    revocation = Revocation.of(
        settings,
        read_task_file(invocation.home, task_name),
        region=region,
        role=role,
        name=name,
        serial=serial,
        by_certificate=certificate,
        key=key,
    )
    for warning in revocation.warnings():
        output.say(warning, style="bold yellow")
    output.confirm(f"bar {revocation.what} from {revocation.task} for ever?", yes=yes)
    positions = revocation.write(reason)
    places = [{"topic": p.topic, "partition": p.partition, "offset": p.offset} for p in positions]
    record = revocation.record(reason)
    output.document(record | {"region": revocation.region, "role": role, "positions": places})
    output.print(f"revoked {revocation.what} ({revocation.region}): {reason}")
    for position in positions:
        output.print(f"  from {position.topic}[{position.partition}]@{position.offset} on")
