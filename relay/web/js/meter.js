/** How loud a microphone is, 0 to 1, some times a second. */

const INTERVAL_MS = 60;
const QUIET_DB = -60;
const LOUD_DB = -12;

/** Call `onLevel` with the level of `track` until the returned function is called. */
export function watchLevel(track, onLevel) {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  analyser.fftSize = 1024;
  context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  // Without a click or key on the page some browsers keep it suspended; the first one will do.
  const wake = () => context.resume().catch(() => {});
  for (const name of ["pointerdown", "keydown"]) window.addEventListener(name, wake);
  wake();

  let level = 0;
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    let sum = 0;
    for (const sample of samples) sum += sample * sample;
    const db = 10 * Math.log10(sum / samples.length + 1e-12);
    const now = Math.min(1, Math.max(0, (db - QUIET_DB) / (LOUD_DB - QUIET_DB)));
    // Up at once, down slowly: a meter that flickers says nothing.
    level = Math.max(now, level * 0.82);
    onLevel(level);
  }, INTERVAL_MS);

  return () => {
    clearInterval(timer);
    for (const name of ["pointerdown", "keydown"]) window.removeEventListener(name, wake);
    context.close().catch(() => {});
    onLevel(0);
  };
}
