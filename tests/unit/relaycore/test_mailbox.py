"""Commands and events across two threads: order, bounds, wake-ups, who owns a payload."""

import os
import select

from relaycore import mailbox

EV_ACK, EV_DTLS, EV_STOPPED = 1, 2, 9
COMMAND_RING, EVENT_RING, EVENT_RESERVE = 1024, 8192, 2048
E_NO_SPACE = -12


def readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def test_a_command_arrives_whole_and_rings():
    box = mailbox.MailboxFace()
    assert not readable(box.fds()[0])
    assert box.submit(6, 17, 3, b"datagram") == 0
    assert readable(box.fds()[0])
    assert box.take_command() == (6, 17, 3, b"datagram")
    assert box.take_command() is None


def test_a_full_command_ring_refuses_and_serves_again_after_a_take():
    box = mailbox.MailboxFace()
    for number in range(COMMAND_RING):
        assert box.submit(0, number) == 0
    assert box.submit(0, 9999) == E_NO_SPACE
    assert box.take_command()[1] == 0
    assert box.submit(0, COMMAND_RING) == 0
    assert [box.take_command()[1] for _ in range(COMMAND_RING)] == list(range(1, COMMAND_RING + 1))


def test_order_holds_over_many_turns_of_the_ring():
    box = mailbox.MailboxFace()
    for number in range(5 * COMMAND_RING):
        box.submit(0, number)
        if number % 3:
            continue
        while (command := box.take_command()) is not None:
            last = command[1]
        assert last == number


def test_events_wake_the_reader_once_per_flush():
    box = mailbox.MailboxFace()
    fd = box.fds()[1]
    for number in range(10):
        box.emit(EV_DTLS, number, bytes([number]))
    assert not readable(fd)
    box.flush()
    assert int.from_bytes(os.read(fd, 8), "little") == 1
    box.flush()
    assert not readable(fd)
    assert [box.take_event() for _ in range(10)] == [(EV_DTLS, n, bytes([n])) for n in range(10)]


def test_a_reset_forgets_old_rings_and_hears_new_ones():
    box = mailbox.MailboxFace()
    box.submit(0, 1)
    box.reset()
    assert not readable(box.fds()[0])
    box.submit(0, 2)
    assert readable(box.fds()[0])


def test_acknowledgements_find_room_when_events_have_none():
    box = mailbox.MailboxFace()
    for number in range(EVENT_RING - EVENT_RESERVE):
        assert box.emit(EV_DTLS, number) == 0
    assert box.emit(EV_DTLS) == E_NO_SPACE
    for number in range(EVENT_RESERVE - 1):
        assert box.emit(EV_ACK, number) == 0
    assert box.emit(EV_STOPPED) == 0
    assert box.emit(EV_ACK) == E_NO_SPACE
    assert box.counts() == (0, EVENT_RING)


def test_a_mailbox_closes_its_descriptors_and_frees_what_is_queued():
    before = mailbox.fds_open()
    box = mailbox.MailboxFace()
    fds = box.fds()
    box.submit(6, 1, 1, b"x" * 1000)
    box.emit(EV_DTLS, 1, b"y" * 1000)
    assert mailbox.fds_open() == before + 2
    del box
    assert mailbox.fds_open() == before
    assert not any(
        os.path.exists(f"/proc/self/fd/{fd}") and "eventfd" in os.readlink(f"/proc/self/fd/{fd}") for fd in fds
    )


def test_two_threads_lose_and_disorder_nothing():
    assert mailbox.stress(150_000) == (0, 0, 0)
