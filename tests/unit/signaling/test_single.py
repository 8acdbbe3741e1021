"""One connection for both directions, as its client sees it on the WebSocket, against a real relay without media."""

import re

from livekit import api
from livekit.protocol import models, rtc

from relay.signaling import answering
from tests.support.local_relay import SECRET, token
from tests.support.sdp_text import audio, data
from tests.support.sdp_text import offer as sections
from tests.unit.signaling.descriptions import CHROMIUM, recorded, without_sending

AUDIO, VIDEO = models.TrackType.AUDIO, models.TrackType.VIDEO
# Three sections of each kind to receive on, and data.
PLACEHOLDERS = recorded("chromium_placeholders")
DATA_ALONE = recorded("chromium_data_only")


def joining(sdp: str = "", **fields) -> rtc.JoinRequest:
    request = rtc.JoinRequest(client_info=models.ClientInfo(protocol=16), **fields)
    request.connection_settings.auto_subscribe = True
    if sdp:
        request.publisher_offer.CopyFrom(rtc.SessionDescription(type="offer", sdp=sdp, id=1))
    return request


async def offer(signal, sdp: str, number: int) -> rtc.SessionDescription:
    await signal.send(offer=rtc.SessionDescription(type="offer", sdp=sdp, id=number))
    return await signal.until("answer")


async def publish_both(signal) -> None:
    """Publish sound and a picture over v0."""
    for kind, type_ in (("audio", AUDIO), ("video", VIDEO)):
        await signal.publish(CHROMIUM[kind], type=type_)
    await offer(signal, recorded("chromium_sendrecv"), 1)


def direction(sdp: str, mid: str) -> str:
    section = next(s for s in sdp.split("\r\nm=") if f"\r\na=mid:{mid}\r\n" in s)
    return re.search(r"a=(sendonly|inactive|recvonly|sendrecv)\r\n", section)[1]


def mids_of(sdp: str, kind: str) -> list[str]:
    return [re.search(r"a=mid:(\S+)", s)[1] for s in sdp.split("\r\nm=")[1:] if s.startswith(kind)]


async def test_the_answer_follows_the_join_and_the_client_is_not_offered_anything(connect) -> None:
    ana = await connect("ana", single=joining(PLACEHOLDERS))
    assert not ana.join.subscriber_primary and ana.join.fast_publish
    answer = await ana.until("answer")
    assert (answer.id, dict(answer.mid_to_track_id)) == (1, {})
    assert answer.sdp.count("a=inactive") == 6 and "m=application 9" in answer.sdp
    assert not {"offer", "media_sections_requirement"} & set(await ana.kinds_until_pong())


async def test_what_is_published_later_is_asked_for_and_sent_in_free_sections(connect) -> None:
    ana = await connect("ana", single=joining(PLACEHOLDERS))
    await ana.until("answer")
    bo = await connect("bo")
    await publish_both(bo)
    wanted = await ana.until("media_sections_requirement")
    assert (wanted.num_audios, wanted.num_videos) == (0, 0)
    answer = await offer(ana, PLACEHOLDERS, 2)
    while len(answer.mid_to_track_id) < 2:
        await ana.until("media_sections_requirement")
        answer = await offer(ana, PLACEHOLDERS, answer.id + 1)
    told = dict(answer.mid_to_track_id)
    assert set(told) == {mids_of(PLACEHOLDERS, "audio")[0], mids_of(PLACEHOLDERS, "video")[0]}
    for mid, track in told.items():
        assert direction(answer.sdp, mid) == "sendonly"
        assert f"a=msid:{bo.sid}|{track} {track}\r\n" in answer.sdp
    assert answer.sdp.count("a=inactive") == 4
    # Every answer names all of them: browsers forget what it does not name.
    assert dict((await offer(ana, PLACEHOLDERS, 9)).mid_to_track_id) == told
    assert "media_sections_requirement" not in await ana.kinds_until_pong()


async def test_what_ends_is_asked_for_once_and_its_section_stays_empty(connect) -> None:
    bo = await connect("bo")
    await publish_both(bo)
    ana = await connect("ana", single=joining(PLACEHOLDERS))
    answer = await ana.until("answer")
    while len(answer.mid_to_track_id) < 2:
        await ana.until("media_sections_requirement")
        answer = await offer(ana, PLACEHOLDERS, answer.id + 1)
    before = set(answer.mid_to_track_id)
    await bo.send(offer=rtc.SessionDescription(type="offer", sdp=without_sending(recorded("chromium_sendrecv")), id=2))
    await ana.until("media_sections_requirement")
    answer = await offer(ana, PLACEHOLDERS, 7)
    while answer.mid_to_track_id:
        await ana.until("media_sections_requirement")
        answer = await offer(ana, PLACEHOLDERS, answer.id + 1)
    assert answer.sdp.count("a=inactive") == 6 and "a=msid:PA" not in answer.sdp
    assert "media_sections_requirement" not in await ana.kinds_until_pong()
    # What comes then does not come under a mid that its client knows by another name.
    await publish_both(await connect("cy"))
    while len(answer.mid_to_track_id) < 2:
        await ana.until("media_sections_requirement")
        answer = await offer(ana, PLACEHOLDERS, answer.id + 1)
    assert not before & set(answer.mid_to_track_id)


async def test_a_connection_that_has_had_many_uses_its_sections_again(connect, monkeypatch) -> None:
    monkeypatch.setattr(answering, "REUSE_FROM", 2)
    two = sections(audio("7", direction="recvonly"), audio("8", direction="recvonly"), data("9"))
    ana = await connect("ana", single=joining(two))
    answer = await ana.until("answer")
    used = []
    for name in ("bo", "cy", "di"):
        other = await connect(name)
        await other.publish(CHROMIUM["audio"], type=AUDIO)
        await offer(other, recorded("chromium_sendrecv"), 1)
        while not answer.mid_to_track_id:
            await ana.until("media_sections_requirement")
            answer = await offer(ana, two, answer.id + 1)
        used += answer.mid_to_track_id
        await other.send(leave=rtc.LeaveRequest())
        while answer.mid_to_track_id:
            await ana.until("media_sections_requirement")
            answer = await offer(ana, two, answer.id + 1)
    assert used == ["7", "8", "7"]


async def test_sections_that_are_lacking_are_counted(connect) -> None:
    bo = await connect("bo")
    await publish_both(bo)
    ana = await connect("ana", single=joining(DATA_ALONE))
    await ana.until("answer")
    wanted = await ana.until("media_sections_requirement")
    if wanted.num_videos == 0:
        await offer(ana, DATA_ALONE, 2)
        wanted = await ana.until("media_sections_requirement")
    assert (wanted.num_audios, wanted.num_videos) == (1, 1)


async def test_who_never_makes_room_is_not_asked_for_ever(connect) -> None:
    bo = await connect("bo")
    await publish_both(bo)
    ana = await connect("ana", single=joining(DATA_ALONE))
    asked = 0
    for number in range(2, 40):
        kinds = await ana.kinds_until_pong()
        asked += kinds.count("media_sections_requirement")
        if "media_sections_requirement" in kinds or number == 2:
            await ana.send(offer=rtc.SessionDescription(type="offer", sdp=DATA_ALONE, id=number))
    assert 1 <= asked <= answering.MAX_IN_VAIN + 2
    # It still is in the call, and something new is a new reason.
    await publish_both(await connect("cy"))
    assert (await ana.until("media_sections_requirement")).num_videos >= 1


async def test_who_does_not_offer_when_asked_is_to_come_back(connect, monkeypatch) -> None:
    monkeypatch.setattr(answering, "ANSWER_TIMEOUT_S", 0.2)
    ana = await connect("ana", single=joining(PLACEHOLDERS))
    await ana.until("answer")
    await publish_both(await connect("bo"))
    leave = await ana.until("leave")
    assert leave.action == rtc.LeaveRequest.Action.RECONNECT and leave.reason == models.DisconnectReason.STATE_MISMATCH


async def test_who_may_not_subscribe_is_sent_nothing(connect) -> None:
    bo = await connect("bo")
    await publish_both(bo)
    ana = await connect("ana", single=joining(PLACEHOLDERS), canSubscribe=False)
    assert not (await ana.until("answer")).mid_to_track_id
    assert "media_sections_requirement" not in await ana.kinds_until_pong()


async def test_who_may_subscribe_later_is_asked_to_offer_then(connect, relay) -> None:
    await publish_both(await connect("bo"))
    ana = await connect("ana", single=joining(PLACEHOLDERS), canSubscribe=False)
    await ana.until("answer")
    rights = models.ParticipantPermission(can_subscribe=True, can_publish=True)
    async with api.LiveKitAPI(f"http://127.0.0.1:{relay.http_port}", "akey", SECRET) as server:
        request = api.UpdateParticipantRequest(room="r", identity="ana", permission=rights)
        await server.room.update_participant(request)
    await ana.until("media_sections_requirement")
    answer = await offer(ana, PLACEHOLDERS, 2)
    while len(answer.mid_to_track_id) < 2:
        await ana.until("media_sections_requirement")
        answer = await offer(ana, PLACEHOLDERS, answer.id + 1)


async def test_a_client_publishes_on_the_connection_it_receives_on(connect, relay) -> None:
    ana = await connect("ana", single=joining())
    await publish_both(ana)
    bo = await connect("bo", single=joining(PLACEHOLDERS))
    answer = await bo.until("answer")
    while len(answer.mid_to_track_id) < 2:
        await bo.until("media_sections_requirement")
        answer = await offer(bo, PLACEHOLDERS, answer.id + 1)
    [hall] = relay.conference.halls
    assert [len(session.transports) for session in hall.sessions.values()] == [1, 1]


async def test_a_session_is_not_resumed_as_one_of_the_other_kind(connect, http, relay) -> None:
    ana = await connect("ana", single=joining(PLACEHOLDERS))
    await ana.until("answer")
    await ana.socket.close()
    url = f"ws://127.0.0.1:{relay.http_port}/rtc?protocol=17&reconnect=1&sid={ana.sid}"
    headers = {"Authorization": f"Bearer {token(sub='ana', name='ana')}"}
    async with http.ws_connect(url, headers=headers, max_msg_size=0) as socket:
        first = rtc.SignalResponse.FromString((await socket.receive(timeout=5)).data)
    assert first.leave.action == rtc.LeaveRequest.Action.RECONNECT
