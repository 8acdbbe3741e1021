"""What importing a session brings into the process (DESIGN, direction rule 6)."""

import subprocess
import sys

import pytest

NAMES = "Certificate, Transport, SrtpKeysReady, ChannelFull, TransportState"


@pytest.mark.parametrize("forbidden", ["av", "aiortc", "relaycore", "asyncio"])
def test_importing_a_session_loads_neither_codecs_nor_a_loop(forbidden: str) -> None:
    program = f"import sys; from relay.session import {NAMES}; print({forbidden!r} in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert found == "False\n"


def test_a_whole_call_maps_no_codec_library() -> None:
    program = (
        "from tests.support.session_link import Link; l = Link(); l.connected(); l.client.open_channel('c'); l.run(500);"
        "l.close(); print(open('/proc/self/maps').read())"
    )
    maps = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert "usrsctp" in maps
    assert not [name for name in ("libav", "vpx", "opus", "dav1d", "x264", "ctranslate2") if name in maps]


def test_names_that_do_not_exist_say_so() -> None:
    import relay.session

    with pytest.raises(AttributeError, match="'relay.session' has no attribute 'Nothing'"):
        relay.session.Nothing  # noqa: B018
    assert all(getattr(relay.session, name) for name in relay.session.__all__)
