// The style sheet's colours for what is drawn on a canvas.

const dark = matchMedia("(prefers-color-scheme: dark)");
const cache = new Map<string, string>();

/** The value of a custom property such as `--blue` in the theme of now. */
export function colour(name: string): string {
  let value = cache.get(name);
  if (value === undefined) {
    value = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    cache.set(name, value);
  }
  return value;
}

/** Calls `redraw` when the reader changes between dark and light. */
export function onThemeChange(redraw: () => void): void {
  dark.addEventListener("change", () => {
    cache.clear();
    redraw();
  });
}
