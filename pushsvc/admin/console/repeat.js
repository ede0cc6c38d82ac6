/**
 * Does `work` now, and again `period` ms after each time it ended; `hidden` ms while nobody looks at the page.
 * Never twice at once. Returns what ends it.
 *
 * @param {() => Promise<unknown>} work must not throw
 */
export function repeat(work, { period, hidden = 10 * period }) {
  let timer;
  let busy = false;
  let ended = false;
  const turn = async () => {
    if (busy || ended) return;
    clearTimeout(timer);
    busy = true;
    await work();
    busy = false;
    if (!ended) timer = setTimeout(turn, document.hidden ? hidden : period);
  };
  const look = () => {
    if (!document.hidden) turn();
  };
  document.addEventListener("visibilitychange", look);
  turn();
  return () => {
    ended = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", look);
  };
}
