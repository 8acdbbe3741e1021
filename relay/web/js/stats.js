/** Reads what the browser counts of its connections (W3C webrtc-stats) into a few figures; rates come from two readings. */

/** Return {bps, videos: Map(track sid → {fps}), protocol, isRelayed, rttMs, lossShare, bytes, …} of what is received. */
export function readReceived({ report, trackByMid }, before) {
  const found = { ...totals(report, "inbound-rtp", "bytesReceived", before), videos: new Map(), lossShare: null, packets: 0, lost: 0 };
  report?.forEach((entry) => {
    if (entry.type !== "inbound-rtp") return;
    found.packets += entry.packetsReceived ?? 0;
    found.lost += Math.max(0, entry.packetsLost ?? 0);
    if (entry.kind === "video") found.videos.set(trackByMid[entry.mid], { fps: entry.framesPerSecond ?? 0 });
  });
  const lost = found.lost - (before?.lost ?? 0);
  const all = found.packets - (before?.packets ?? 0) + lost;
  if (before && all > 0) found.lossShare = Math.max(0, lost / all);
  return { ...found, ...pathOf(report) };
}

/** Return {bps, videos: [{source, layers: [{height, bps}], limit}], …} of what is sent. */
export function readSent({ report, sourceByMid }, before) {
  const found = { ...totals(report, "outbound-rtp", "bytesSent", before), videos: [], layers: new Map() };
  const bySource = new Map();
  report?.forEach((entry) => {
    if (entry.type !== "outbound-rtp" || entry.kind !== "video") return;
    const source = sourceByMid[entry.mid];
    if (!source) return;
    const key = `${entry.mid} ${entry.rid ?? ""}`;
    found.layers.set(key, { bytes: entry.bytesSent, atMs: entry.timestamp });
    const earlier = before?.layers.get(key);
    const video = bySource.get(source) ?? { source, layers: [], limit: "none" };
    bySource.set(source, video);
    video.layers.push({ height: entry.frameHeight ?? 0, bps: earlier ? rateOf(entry.bytesSent - earlier.bytes, entry.timestamp - earlier.atMs) : 0 });
    if (entry.qualityLimitationReason && entry.qualityLimitationReason !== "none") video.limit = entry.qualityLimitationReason;
  });
  found.videos = [...bySource.values()].map((video) => ({ ...video, layers: video.layers.sort((a, b) => a.height - b.height) }));
  return found;
}

function totals(report, type, field, before) {
  let bytes = 0;
  let atMs = 0;
  report?.forEach((entry) => {
    if (entry.type !== type) return;
    bytes += entry[field] ?? 0;
    atMs = Math.max(atMs, entry.timestamp);
  });
  return { bytes, atMs, bps: before?.atMs ? rateOf(bytes - before.bytes, atMs - before.atMs) : 0 };
}

function rateOf(bytes, ms) {
  return ms > 0 ? Math.max(0, (bytes * 8000) / ms) : 0;
}

function pathOf(report) {
  const found = { protocol: "", isRelayed: false, rttMs: null };
  if (!report) return found;
  let pair = null;
  report.forEach((entry) => {
    if (entry.type === "transport" && entry.selectedCandidatePairId) pair = report.get(entry.selectedCandidatePairId) ?? pair;
    // Firefox names no transport; its pair says `selected`.
    else if (entry.type === "candidate-pair" && entry.selected) pair ??= entry;
  });
  if (!pair) return found;
  const local = report.get(pair.localCandidateId) ?? {};
  found.protocol = report.get(pair.remoteCandidateId)?.protocol ?? local.protocol ?? "";
  found.isRelayed = local.candidateType === "relay";
  if (pair.currentRoundTripTime !== undefined) found.rttMs = pair.currentRoundTripTime * 1000;
  return found;
}
