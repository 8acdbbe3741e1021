"""What a client is told when it is back: answers in order, the newest word on what changes, nothing that it reads anew."""

from livekit.protocol import models, rtc

from relay.signaling.livekit.missed import MAX_KEPT, MAX_KEPT_BYTES, Missed

R = rtc.SignalResponse


def speakers(sid: str, level: float) -> R:
    return R(speakers_changed=rtc.SpeakersChanged(speakers=[models.SpeakerInfo(sid=sid, level=level, active=level > 0)]))


def refused(number: int, message: str = "no") -> R:
    return R(request_response=rtc.RequestResponse(request_id=number, message=message))


def test_answers_are_told_in_their_order_and_once() -> None:
    missed = Missed()
    answers = [refused(1), R(track_unpublished=rtc.TrackUnpublishedResponse(track_sid="TR_a")), refused(2)]
    for answer in answers:
        missed.add(answer)
    assert missed.take(()) == answers
    assert missed.take(()) == []


def test_of_what_changes_the_newest_word_is_told_once_for_those_who_are_here() -> None:
    missed = Missed()
    for level in (0.5, 1.0, 0.0):
        missed.add(speakers("PA_a", level))
    missed.add(speakers("PA_gone", 0.5))
    for quality in (models.ConnectionQuality.GOOD, models.ConnectionQuality.EXCELLENT):
        info = rtc.ConnectionQualityInfo(participant_sid="PA_a", quality=quality)
        missed.add(R(connection_quality=rtc.ConnectionQualityUpdate(updates=[info])))
    for state in (rtc.StreamState.PAUSED, rtc.StreamState.ACTIVE):
        info = rtc.StreamStateInfo(participant_sid="PA_a", track_sid="TR_a", state=state)
        missed.add(R(stream_state_update=rtc.StreamStateUpdate(stream_states=[info])))
    told = missed.take({"PA_a"})
    assert [message.WhichOneof("message") for message in told] == [
        "speakers_changed", "connection_quality", "stream_state_update"
    ]  # fmt: skip
    (speaker,) = told[0].speakers_changed.speakers
    assert (speaker.sid, speaker.active) == ("PA_a", False)
    assert [info.quality for info in told[1].connection_quality.updates] == [models.ConnectionQuality.EXCELLENT]
    assert [info.state for info in told[2].stream_state_update.stream_states] == [rtc.StreamState.ACTIVE]


def test_what_is_told_anew_is_not_kept() -> None:
    missed = Missed()
    for message in (R(update=rtc.ParticipantUpdate()), R(room_update=rtc.RoomUpdate()), R(offer=rtc.SessionDescription()),
                    R(answer=rtc.SessionDescription()), R(pong=1), R(refresh_token="t")):  # fmt: skip
        for _ in range(2 * MAX_KEPT):
            missed.add(message)
    assert missed.take(()) == [] and not missed.is_too_much


def test_too_much_is_noticed_and_not_kept() -> None:
    many, large = Missed(), Missed()
    for number in range(MAX_KEPT + 1):
        assert not many.is_too_much
        many.add(refused(number))
    large.add(refused(1, "x" * MAX_KEPT_BYTES))
    for missed in (many, large):
        assert missed.is_too_much and missed.take(()) == []
