/** A minute of rates as lines: received, sent, and what the path is believed to carry. */

const SECONDS = 60;
const LINES = [
  { field: "estimateBps", color: "--text-2", dash: [3, 4] },
  { field: "sentBps", color: "--amber", dash: [] },
  { field: "receivedBps", color: "--glass", dash: [] },
];

/** Return what draws [{receivedBps, sentBps, estimateBps (null: unknown)}], one a second, newest last. */
export function graph(canvas) {
  const context = canvas.getContext("2d");
  return (history) => {
    const ratio = window.devicePixelRatio || 1;
    const { width, height } = canvas.getBoundingClientRect();
    if (!width) return;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    context.scale(ratio, ratio);
    const style = getComputedStyle(canvas);
    // An estimate far above what runs would flatten what runs.
    const ran = Math.max(100_000, ...history.flatMap(({ receivedBps, sentBps }) => [receivedBps, sentBps]));
    const most = Math.min(2 * ran, Math.max(ran, ...history.map(({ estimateBps }) => estimateBps ?? 0))) * 1.1;
    context.strokeStyle = style.getPropertyValue("--line");
    context.lineWidth = 1;
    for (const share of [0.25, 0.5, 0.75]) line(context, [[0, height * share], [width, height * share]]);
    context.lineWidth = 2;
    context.lineJoin = "round";
    for (const { field, color, dash } of LINES) {
      context.strokeStyle = style.getPropertyValue(color);
      context.setLineDash(dash);
      let points = [];
      history.forEach((entry, index) => {
        if (entry[field] === null) {
          line(context, points);
          points = [];
          return;
        }
        const x = width * (1 - (history.length - 1 - index) / (SECONDS - 1));
        points.push([x, height - 2 - (height - 4) * Math.min(1, entry[field] / most)]);
      });
      line(context, points);
    }
    context.setLineDash([]);
  };
}

function line(context, points) {
  if (points.length === 0) return;
  context.beginPath();
  points.forEach(([x, y], index) => (index ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.stroke();
}
