// Asks again and again, one question at a time, only while somebody looks.

/** Runs `ask` every `interval` milliseconds, measured from its end; at once when the page is looked at again. */
export function poll(interval: number, ask: () => Promise<void>): void {
  let timer = 0;
  let busy = false;
  const turn = async (): Promise<void> => {
    if (busy || document.hidden) return;
    busy = true;
    clearTimeout(timer);
    await ask();
    busy = false;
    timer = window.setTimeout(() => void turn(), interval);
  };
  document.addEventListener("visibilitychange", () => void turn());
  void turn();
}
