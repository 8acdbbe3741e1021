"""The dtypes of snapshots against the C structs, laid out a second time by ctypes."""

import ctypes

import numpy as np
import pytest

from relaycore import snapshot
from relaycore.counters import SCALARS

u8, u16, u32, i32, u64, i64 = (
    ctypes.c_uint8,
    ctypes.c_uint16,
    ctypes.c_uint32,
    ctypes.c_int32,
    ctypes.c_uint64,
    ctypes.c_int64,
)

STRUCTS = {
    "TRANSPORT_DTYPE": [
        ("transport", u32),
        ("alive", u32),
        ("packets_received", u64),
        ("bytes_received", u64),
        ("packets_sent", u64),
        ("bytes_sent", u64),
        ("rtt_ns", i64),
        ("keyframes_asked", u64),
        ("keyframes_wanted", u64),
        ("nacks_sent", u64),
        ("nacks_received", u64),
        ("rtx_sent", u64),
        ("rtx_recovered", u64),
        ("remote_family", u8),
        ("remote_ip", u8 * 16),
        ("remote_port", u16),
        ("loss_permille", u32),
        ("estimate_bps", u64),
    ],
    "STREAM_DTYPE": [
        ("receiver", u32),
        ("encoding", i32),
        ("ssrc", u32),
        ("codec", u32),
        ("packets", u64),
        ("bytes", u64),
        ("frames", u64),
        ("keyframes", u64),
        ("lost", i64),
        ("jitter_ticks", u32),
        ("audio_level", u32),
        ("last_packet_ns", i64),
    ],
    "EGRESS_DTYPE": [
        ("egress", u32),
        ("receiver", u32),
        ("encoding", i32),
        ("wanted", i32),
        ("spatial", i32),
        ("temporal", i32),
        ("packets", u64),
        ("bytes", u64),
        ("frames", u64),
        ("fraction_lost", u32),
        ("total_lost", i32),
        ("jitter_ticks", u32),
        ("rtt_ns", i64),
    ],
    "LAYER_DTYPE": [
        ("receiver", u32),
        ("encoding", i32),
        ("spatial", u32),
        ("temporal", u32),
        ("width", u32),
        ("height", u32),
        ("bytes", u64),
        ("frames", u64),
        ("selected_bytes", u64),
    ],
}


@pytest.mark.parametrize("name", STRUCTS)
def test_fields_lie_where_the_c_compiler_puts_them(name):
    struct = type(name, (ctypes.Structure,), {"_fields_": STRUCTS[name]})
    dtype = getattr(snapshot, name)
    assert dtype.itemsize == ctypes.sizeof(struct)
    assert dtype.names == tuple(field for field, _ in STRUCTS[name])
    for field, kind in STRUCTS[name]:
        assert dtype.fields[field][1] == getattr(struct, field).offset, field
        assert dtype.fields[field][0] == np.dtype(kind), field


def test_values_written_in_c_are_read_by_name():
    transports, streams, egresses, layers = snapshot.pattern(3)
    assert transports["transport"].tolist() == [0, 1000, 2000]
    assert transports["rtt_ns"].tolist() == [6, 1006, 2006]
    assert transports[1]["remote_ip"].tolist() == [0] * 15 + [8]
    assert (transports[2]["remote_family"], transports[2]["remote_port"]) == (6, 9)
    assert streams["lost"].tolist() == [-8, -1008, -2008]
    assert streams["last_packet_ns"].tolist() == [11, 1011, 2011]
    assert (streams[0]["codec"], streams[0]["audio_level"], streams[0]["packets"]) == (3, 255, 0)
    assert egresses["wanted"].tolist() == [-1] * 3
    assert egresses["rtt_ns"].tolist() == [10, 1010, 2010]
    assert egresses["total_lost"].tolist() == [-8, -1008, -2008]
    assert layers["encoding"].tolist() == [-1] * 3
    assert layers["height"].tolist() == [5, 1005, 2005]
    assert layers["selected_bytes"].tolist() == [8, 1008, 2008]


def test_copies_are_read_only_and_outlive_their_source():
    transports, *_ = snapshot.pattern(100)
    again, *_ = snapshot.pattern(100)
    assert (transports == again).all()
    with pytest.raises(ValueError):
        transports["alive"][0] = 1


def test_an_empty_snapshot_keeps_its_fields():
    transports, streams, egresses, layers = snapshot.pattern(0)
    assert (len(transports), len(streams), len(egresses), len(layers)) == (0, 0, 0, 0)
    assert egresses.dtype == snapshot.EGRESS_DTYPE


def test_every_error_code_has_a_name_of_its_own():
    assert snapshot.ERROR_NAMES[0] == "E_SHORT"
    assert len(set(snapshot.ERROR_NAMES)) == len(snapshot.ERROR_NAMES) == 21
    assert not set(snapshot.ERROR_NAMES) & set(SCALARS)
