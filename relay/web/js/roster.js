/** Who is in the room: the relay's ParticipantInfo as the page keeps it. */

const SOURCES = {
  CAMERA: "camera",
  MICROPHONE: "microphone",
  SCREEN_SHARE: "screenShare",
  SCREEN_SHARE_AUDIO: "screenAudio",
};

// About -40 dBov: above breath, below speech.
const SPEAKING_LEVEL = 0.01;

/** Return the sids of those whose sound is loud now; `levels` by track sid, 0 to 1. */
export function speakersOf(participants, levels) {
  const isLoud = ({ sid, muted }) => !muted && (levels.get(sid) ?? 0) > SPEAKING_LEVEL;
  return new Set([...participants.values()].filter(({ tracks }) => tracks.some(isLoud)).map(({ sid }) => sid));
}

/** Return {participants, streams} with these entries brought in; what is left out of an entry is gone. */
export function merge({ participants: before, streams: playing, me }, infos) {
  const participants = new Map(before);
  const streams = new Map(playing);
  for (const info of infos) {
    const known = participants.get(info.sid);
    // Versions only grow; an older entry that arrives late says nothing.
    if (known && (info.version ?? 0) < known.version) continue;
    if (info.state === "DISCONNECTED") participants.delete(info.sid);
    else participants.set(info.sid, participantOf(info, me));
    const tracks = participants.get(info.sid)?.tracks ?? [];
    for (const { sid } of known?.tracks ?? []) if (!tracks.some((track) => track.sid === sid)) streams.delete(sid);
  }
  return { participants, streams };
}

function participantOf(info, me) {
  return {
    sid: info.sid,
    identity: info.identity ?? "",
    name: info.name || info.identity || "Guest",
    joinedAtMs: Number(info.joinedAtMs ?? 0) || Number(info.joinedAt ?? 0) * 1000,
    version: info.version ?? 0,
    isLocal: info.sid === me,
    attributes: info.attributes ?? {},
    tracks: (info.tracks ?? []).map(trackOf),
  };
}

function trackOf({ sid, type, source, muted, encryption = "NONE", mimeType = "" }) {
  const kind = type === "VIDEO" ? "video" : "audio";
  return {
    sid,
    kind,
    source: SOURCES[source] ?? (kind === "video" ? "camera" : "microphone"),
    muted: Boolean(muted),
    isEncrypted: encryption !== "NONE",
    mimeType,
  };
}
