"""Each rule of the mark view and of the stop is needed: without it a test of publications that are not as declared turns red."""

import pytest

from tests.unit.relaycore.test_wire_mutants import build_and_test

# A compiler run for each of many: `make mutants`. However busy the machine is, each takes the time that it takes.
pytestmark = [pytest.mark.matrix, pytest.mark.slow, pytest.mark.timeout(1200)]

TESTS = ("markprobe", "engine_opaque", "engine_stops")
# name: (module, what stands there, what the mutant puts there)
MUTANTS = {
    "nothing stops": ("markprobe", "_count_bits(k.verdicts) >= BAD_LIMIT", "False"),
    "nine of ten stop": ("markprobe", "BAD_LIMIT = 8", "BAD_LIMIT = 9"),
    "seven of ten stop": ("markprobe", "BAD_LIMIT = 8", "BAD_LIMIT = 7"),
    "a stop is forgotten": ("markprobe", "if p.reason != STOP_NOT:\n        return False", "p.reason = STOP_NOT"),
    "a stopped publication is judged on": ("markprobe", "if p.reason != STOP_NOT:\n        return False", "pass"),
    "unjudged frames pass for ever": ("markprobe", "k.unjudged_packets >= UNJUDGED_LIMIT", "False"),
    "the length of the IV is not looked at": ("markprobe", "tail[12] != LIVEKIT_IV_BYTES or ", ""),
    "any key index": ("markprobe", "tail[13] >= LIVEKIT_KEYS or ", ""),
    "any timestamp": ("markprobe", " or get_u32(tail + 4) != m.rtp_ts", ""),
    "any SSRC": ("markprobe", "if ssrc == k.ssrc:", "if True:"),
    "another encoding's SSRC is foreign": ("markprobe", "if p.tracks[i].started and p.tracks[i].ssrc == ssrc:", "if False:"),
    "H264 is not unescaped": ("markprobe", "if zeros >= 2 and src[i] == 3:", "if False:"),
    "a gap makes frames bad": ("markprobe", "UNKNOWN if m.has_gap and m.tail_bytes < wanted else UNMARKED", "UNMARKED"),
    "a mark across packets is lost": ("markprobe", "kept = min(<Py_ssize_t>m.tail_bytes, MARK_TAIL_BYTES - n)", "kept = 0"),
    "any KID": ("markprobe", " or not _is_announced(p, kid)", ""),
    "any CTR": ("markprobe", " or not _counts_on(k, kid, ctr, m.rtp_ts)", ""),
    "a CTR may come again": ("markprobe", "elif ctr <= k.ctr:", "elif ctr < k.ctr:"),
    "a CTR may leap": ("markprobe", "is_next = ctr - k.ctr <= most", "is_next = True"),
    "time lets no CTR grow": ("markprobe", "CTR_STEP + ((rtp_ts - k.counter_ts) >> CTR_TICKS_SHIFT)", "CTR_STEP"),
    "keys may change in turn": ("markprobe", "is_next = kid > k.highest_kid or k.frames_under_kid >= KID_FRAMES", "is_next = True"),
    "keys may not change": ("markprobe", "is_next = kid > k.highest_kid or k.frames_under_kid >= KID_FRAMES", "is_next = False"),
    "one header is believed": ("markprobe", "if k.steps < STEPS:", "if False:"),
    "longer headers are let pass": ("markprobe", "if value[0] < 8 or (size > 1 and p[at] == 0):", "if False:"),
    "SFrame for H264": ("markprobe", "if m.codec == CODEC_H264:\n        # There", "if False:\n        # There"),
    "VP8 has no clear byte": ("markprobe", "begin[0] = 1\n", "begin[0] = 0\n"),
    "marked is as good as encrypted": (
        "markprobe",
        "return k.plain_run >= PLAIN_RUN or k.plain_keyframes >= PLAIN_KEYFRAMES",
        "return False",
    ),
    "only runs count as plain": (
        "markprobe",
        "k.plain_run >= PLAIN_RUN or k.plain_keyframes >= PLAIN_KEYFRAMES",
        "k.plain_run >= PLAIN_RUN",
    ),
    "only keyframes count as plain": (
        "markprobe",
        "k.plain_run >= PLAIN_RUN or k.plain_keyframes >= PLAIN_KEYFRAMES",
        "k.plain_keyframes >= PLAIN_KEYFRAMES",
    ),
    "late packets begin frames": ("markprobe", "if ext_seq < k.next_seq:", "if False:"),
    "another timestamp goes on the frame": ("markprobe", "elif h.rtp_ts != k.frame.rtp_ts:", "elif False:"),
    "keys need not be announced": ("markprobe", "return p.kind == FRAMES_SFRAME and p.key_range_count == 0", "return False"),
    "clear frames are not watched": ("markprobe", "if 5 * k.window_bad >= 3 * k.window_frames", "if False"),
    "a few bad frames are enough to tell": ("markprobe", "5 * k.window_bad >= 3 * k.window_frames", "k.window_bad > 0"),
    "a mark in clear frames is not seen": (
        "markprobe",
        "if _bears_livekit(p, k, m):\n        return False",
        "if False:\n        return False",
    ),
    "a count in clear frames is not seen": ("markprobe", "if k.steps == CLEAR_STEPS:", "if False:"),
    "one count in clear frames is a sign": ("markprobe", "CLEAR_STEPS = 4", "CLEAR_STEPS = 1"),
    "VP8 of any size": ("codecheads", "return bool(m.has_gap) or fixed + partition <= m.frame_bytes", "return True"),
    "fragments keep their headers": (
        "markprobe",
        "if codec == CODEC_H264 and n > FU_BYTES and body[0] & 0x1f == FU_A and not body[1] & FU_START:",
        "if False:",
    ),
    "repairs are judged": ("receive", "    if is_repair:\n        # No news", "    if False:\n        # No news"),
    "repairs are free": ("markprobe", "    k.unjudged_packets += 1\n    return", "    return"),
    "one judged frame pays for all": ("markprobe", "min(k.unjudged_packets, JUDGED_WEIGHT * k.frame_packets)", "k.unjudged_packets"),
    "nothing may be lost": ("markprobe", "JUDGED_WEIGHT = 8 ", "JUDGED_WEIGHT = 2 "),
    "new keys come slowly": ("markprobe", "kid > k.highest_kid or ", ""),
    "what was kept is sent again": ("halt", "source_clear(r.encodings[i].stream.history, e.slab)", "pass"),
    "what the sockets have not taken leaves": ("halt", "return g != NULL and g.receiver == r.index", "return False"),
    "all that the sockets have not taken goes": ("halt", "return g != NULL and g.receiver == r.index", "return True"),
    "mirrors are not told": ("mirrors", "if r != NULL and signal.kind == SIGNAL_STOP and r.home", "if False and r.home"),
    "anybody may stop a mirror": ("mirrors", "SIGNAL_STOP and r.home == <int32_t>source:", "SIGNAL_STOP:"),
    "a stop that found no room is lost": (
        "mirrors",
        "if e.has_stops_untold:\n        _tell_stops_again",
        "if False:\n        _tell_stops_again",
    ),
    "packets under way pass a mirror": ("mirrors", "elif r.is_stopped:", "elif False:"),
    "jobs go on": ("forward", " or r.is_stopped:\n        # It waited", ":\n        # It waited"),
    "a stopped publication is received": ("receive", "if _is_shut(e, r, now_ns):", "if False:"),
    "a stop lets its own packet pass": (
        "receive",
        "_stop_receiver(e, r, now_ns)\n        return False",
        "_stop_receiver(e, r, now_ns)\n        return True",
    ),
    "a queue goes on": ("forward", " or r.is_stopped:\n        return\n    if _starts", ":\n        return\n    if _starts"),
    "a format may change": ("engine", "return E_OK if r.probe.kind == <int>kind else E_STATE", "return E_OK"),
    "a format may come late": ("engine", "if r.egress_count or r.exports:", "if False:"),
}


@pytest.mark.parametrize("module", ["markprobe"])
def test_the_unchanged_copy_is_green(module, tmp_path):
    code, output = build_and_test(tmp_path, module, lambda text: text, TESTS)
    assert code == 0, output


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_found(name, tmp_path):
    module, old, new = MUTANTS[name]

    def mutate(text):
        assert text.count(old) == 1, "the mutant no longer fits the source"
        return text.replace(old, new)

    code, output = build_and_test(tmp_path, module, mutate, TESTS)
    # 1 is failed tests; a mutant that reads out of bounds may also die.
    assert code == 1 or code < 0, output
