"""Certificates for mutual TLS: an authority in a folder, identities that it issues, and its list of revoked ones.

A folder holds `ca.pem`, `crl.pem`, `ca.key` (on the machine that issues), and for each identity `NAME.pem` and
`NAME.key`. Another machine needs `ca.pem` and its own pair; an edge also needs `crl.pem`.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from offramp.errors import OfframpError
from offramp.runtime.protocol import is_name
from offramp.validation import write_atomically

EDGE = "edge"
"""Name of the edge's own certificate."""
AUTHORITY_DAYS = 3650
IDENTITY_DAYS = 365
_Parsed = TypeVar("_Parsed")
_BACKDATED = dt.timedelta(minutes=5)  # clocks differ a little


@dataclass(frozen=True, slots=True)
class Identity:
    """What one side needs for mutual TLS, PEM-encoded."""

    key: bytes
    certificate: bytes
    authority: bytes


def init(folder: Path) -> None:
    """Make an authority. Raises OfframpError if the folder has one already or cannot be written."""
    if (folder / "ca.key").exists() or (folder / "ca.pem").exists():
        raise OfframpError("certs", str(folder), "holds an authority already", "name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OfframpError(
            "certs", str(folder), f"cannot be made ({error.strerror})", "name another"
        ) from None
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("offramp authority")
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        _draft(name, name, key.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    _write_key(folder / "ca.key", key)
    _write_list(folder, key, certificate, [])
    write_atomically(folder / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM))


def issue(
    folder: Path,
    name: str,
    hosts: Sequence[str],
    days: int = IDENTITY_DAYS,
    now: dt.datetime | None = None,
) -> None:
    """Issue the certificate of a device or an edge; `hosts` are the names and addresses that an edge is reached by.

    It is valid from `now`, the present by default.

    Raises OfframpError for a name that is taken or not plain, and for a folder without an authority.
    """
    if not is_name(name) or name == "ca":
        raise OfframpError(
            "name", name, "1 to 64 letters, digits, dots, dashes, underscores; not ca", "choose another"
        )
    if not 1 <= days <= AUTHORITY_DAYS:
        raise OfframpError("days", days, f"in 1..{AUTHORITY_DAYS}", "choose another")
    if (folder / f"{name}.pem").exists():
        raise OfframpError("name", name, f"has a certificate in {folder} already", "revoke that one first")
    authority_key, authority = _authority(folder)
    key = ec.generate_private_key(ec.SECP256R1())
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
    draft = (
        _draft(_name(name), authority.subject, key.public_key(), days, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(purposes, critical=False)
    )
    if hosts:
        draft = draft.add_extension(
            x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False
        )
    certificate = draft.sign(authority_key, hashes.SHA256())
    _write_key(folder / f"{name}.key", key)
    write_atomically(folder / f"{name}.pem", certificate.public_bytes(serialization.Encoding.PEM))


def revoke(folder: Path, name: str) -> None:
    """Put a certificate on the list of revoked ones and move it aside, so that its name can be issued again.

    A running edge with this folder reads the list again by itself. Raises OfframpError if there is no such
    certificate.
    """
    key, authority = _authority(folder)
    path = folder / f"{name}.pem"
    serial = _certificate(path).serial_number
    revoked = [*_serials(folder, authority), serial]
    _write_list(folder, key, authority, sorted(set(revoked)))
    path.replace(folder / f"{name}.revoked-{serial:x}.pem")
    (folder / f"{name}.key").unlink(missing_ok=True)


def load_identity(folder: Path, name: str) -> Identity:
    """A side's own pair and the authority. Raises OfframpError if one is missing, expired or foreign."""
    certificate, authority = _certificate(folder / f"{name}.pem"), _certificate(folder / "ca.pem")
    if certificate.not_valid_after_utc < dt.datetime.now(dt.UTC):
        raise OfframpError("certs", str(folder / f"{name}.pem"), "has expired", "revoke it and issue another")
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception:  # noqa: BLE001 - several types, which all say that it was not
        raise OfframpError(
            "certs", str(folder / f"{name}.pem"), "is not of the authority in ca.pem", "issue it there"
        ) from None
    return Identity(_read(folder / f"{name}.key"), _read(folder / f"{name}.pem"), _read(folder / "ca.pem"))


class RevokedList:
    """The serial numbers that an authority has revoked, as the folder says now."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = _certificate(folder / "ca.pem")
        self._stamp = 0
        self._known: frozenset[int] = frozenset()
        self.refresh()

    def refresh(self) -> bool:
        """Read the list again if it has changed; whether it had. A bad list leaves the last good one in force."""
        stamp = (self._folder / "crl.pem").stat().st_mtime_ns
        if stamp == self._stamp:
            return False
        self._known = frozenset(_serials(self._folder, self._authority))
        self._stamp = stamp
        return True

    def holds(self, certificate_pem: bytes) -> bool:
        """Whether a certificate has been revoked."""
        return x509.load_pem_x509_certificate(certificate_pem).serial_number in self._known


def _draft(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    days: int,
    now: dt.datetime | None = None,
) -> x509.CertificateBuilder:
    now = now or dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError:
        raise OfframpError("host", host, "a host name or an IP address", "correct it") from None


def _authority(folder: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    certificate = _certificate(folder / "ca.pem")
    return _parsed(
        folder / "ca.key", _authority_key, "is no key of an authority", "run offramp certs init"
    ), certificate


def _authority_key(encoded: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(encoded, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("a key of another kind")
    return key


def _certificate(path: Path) -> x509.Certificate:
    return _parsed(path, x509.load_pem_x509_certificate, "is no certificate", "issue it again")


def _parsed(path: Path, parse: Callable[[bytes], _Parsed], wrong: str, remedy: str) -> _Parsed:
    encoded = _read(path)
    try:
        return parse(encoded)
    except ValueError:
        raise OfframpError("certs", str(path), wrong, remedy) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise OfframpError(
            "certs", str(path), f"cannot be read ({error.strerror})", "run offramp certs init and issue"
        ) from None


def _serials(folder: Path, authority: x509.Certificate) -> list[int]:
    path = folder / "crl.pem"
    listed = _parsed(path, x509.load_pem_x509_crl, "is no list of revoked ones", "restore it")
    key = authority.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not listed.is_signature_valid(key):
        raise OfframpError("certs", str(path), "is not of the authority in ca.pem", "restore it")
    return [entry.serial_number for entry in listed]


def _write_list(
    folder: Path, key: ec.EllipticCurvePrivateKey, authority: x509.Certificate, serials: Sequence[int]
) -> None:
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(now)
        .next_update(now + dt.timedelta(days=AUTHORITY_DAYS))
    )
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        builder = builder.add_revoked_certificate(entry)
    listed = builder.sign(key, hashes.SHA256())
    write_atomically(folder / "crl.pem", listed.public_bytes(serialization.Encoding.PEM))


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    # Nobody else may read it, from its first byte on.
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise OfframpError("certs", str(path), f"cannot be written ({error.strerror})", "remove it") from None
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(encoded)
