"""A browser in one network calls through a relay behind 1:1 NAT in another, over HTTPS with a company's own authority.

client 198.51.100.2 -- 198.51.100.1 nat 10.10.0.1 -- 10.10.0.2 relay.   Open towards the relay: TCP 7880, UDP 7882.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.netns import Network, is_possible

ROOT = Path(__file__).resolve().parents[2]
PUBLIC, PRIVATE = "198.51.100.1", "10.10.0.2"
KEY, SECRET = "natkey", "a-secret-of-the-nat-test-with-enough-bytes"
RULES = f"""
table ip relay {{
  chain prerouting {{ type nat hook prerouting priority -100; ip daddr {PUBLIC} dnat to {PRIVATE}; }}
  chain postrouting {{ type nat hook postrouting priority 100; ip saddr {PRIVATE} snat to {PUBLIC}; }}
  chain forward {{
    type filter hook forward priority 0; policy drop;
    ct state established,related accept
    ip daddr {PRIVATE} tcp dport 7880 accept
    ip daddr {PRIVATE} udp dport MEDIA accept
  }}
}}
"""


def certificates(folder: Path) -> None:
    """Write an authority and a certificate for the public address."""
    def named(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])

    now = datetime.datetime.now(datetime.UTC)
    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    def builder(subject: str, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder().subject_name(named(subject)).issuer_name(named("Test authority")).public_key(public)
            .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=7))
        )

    root = builder("Test authority", authority.public_key()).add_extension(x509.BasicConstraints(True, 0), True).sign(
        authority, hashes.SHA256())
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(PUBLIC))])
    leaf = builder(PUBLIC, key.public_key()).add_extension(names, False).sign(authority, hashes.SHA256())
    pem = serialization.Encoding.PEM
    (folder / "authority.pem").write_bytes(root.public_bytes(pem))
    (folder / "relay.pem").write_bytes(leaf.public_bytes(pem))
    (folder / "relay.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


def configuration(folder: Path, advertise: str) -> Path:
    path = folder / "veil.toml"
    path.write_text(f"""
[server]
tls_certificate_file = "{folder}/relay.pem"
tls_key_file = "{folder}/relay.key"
web_origin = "https://{PUBLIC}:7880"
[media]
bind_ips = ["{PRIVATE}"]
{advertise}
[[customers]]
name = "acme"
tier = "free"
[[keys]]
key = "{KEY}"
secret = "{SECRET}"
customer = "acme"
""")
    return path


def call(tmp_path: Path, *, advertise: str, media_port: int = 7882) -> dict | str:
    """Set up the three hosts, run the call; return the frames that each page saw per tile, or what went wrong."""
    certificates(tmp_path)
    config = configuration(tmp_path, advertise)
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "VEIL_TEST_AUTHORITY": str(tmp_path / "authority.pem")}
    with Network() as net:
        net.link("relay", f"{PRIVATE}/24", "nat", "10.10.0.1/24")
        net.link("nat", f"{PUBLIC}/24", "client", "198.51.100.2/24")
        net.run("relay", "ip", "route", "add", "default", "via", "10.10.0.1")
        net.run("client", "ip", "route", "add", "default", "via", PUBLIC)
        net.run("nat", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        net.run("nat", "nft", "-f", "-", text=RULES.replace("MEDIA", str(media_port)))
        veil = [sys.executable, "-m", "relay"]
        invite = subprocess.run([*veil, "token", "invite", "--config", str(config), "--room", "across"], cwd=ROOT, env=environ,
                                capture_output=True, text=True, check=True).stdout.strip()
        log = (tmp_path / "relay.log").open("w")
        relay = subprocess.Popen(net.command("relay", *veil, "serve", "--config", str(config)), cwd=ROOT, env=environ,
                                 stdout=log, stderr=log)
        try:
            until = time.monotonic() + 20
            while "ready" not in (tmp_path / "relay.log").read_text():
                assert relay.poll() is None and time.monotonic() < until, (tmp_path / "relay.log").read_text()
                time.sleep(0.1)
            done = subprocess.run(
                net.command("client", sys.executable, "-m", "tests.interop.nat_caller", invite, str(tmp_path / "nat.png")),
                cwd=ROOT, env=environ, capture_output=True, text=True, timeout=100)
        finally:
            relay.terminate()
            relay.wait(10)
    if done.returncode:
        return done.stderr[-3000:] + done.stdout
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.interop
@pytest.mark.browser
@pytest.mark.timeout(180)
@pytest.mark.skipif(not is_possible(), reason="making network namespaces needs root")
def test_a_call_crosses_one_to_one_nat_with_only_the_advertised_port_open(tmp_path):
    seen = call(tmp_path, advertise=f'advertise_ip = "{PUBLIC}"')
    assert isinstance(seen, dict), seen
    # Each page shows its own camera and the other's: both move.
    for frames in seen.values():
        assert len(frames) == 2 and min(frames) > 40, seen


@pytest.mark.interop
@pytest.mark.browser
@pytest.mark.timeout(180)
@pytest.mark.skipif(not is_possible(), reason="making network namespaces needs root")
@pytest.mark.long
def test_control_without_the_port_no_media_comes(tmp_path):
    seen = call(tmp_path, advertise=f'advertise_ip = "{PUBLIC}"', media_port=9)
    assert isinstance(seen, str) or all(len(frames) < 2 or min(frames) < 10 for frames in seen.values()), seen
