// Colours and font of the charts: those of tokens.css, in the theme that is shown.
export const TEXT_PX = 11.5;
const SERIES = [1, 2, 3, 4, 5, 6, 7, 8].map((number) => `--c${number}`);

export function ink() {
  // A token holds one colour for each theme; only an element that wears it tells which one counts.
  const probe = document.createElement("span");
  probe.hidden = true;
  document.body.append(probe);
  const colour = (token) => {
    probe.style.color = `var(${token})`;
    return getComputedStyle(probe).color;
  };
  const found = {
    series: SERIES.map(colour),
    text: colour("--ink-2"),
    faint: colour("--ink-3"),
    line: colour("--line"),
    panel: colour("--panel"),
    border: colour("--line-2"),
    font: getComputedStyle(document.documentElement).getPropertyValue("--font").trim(),
  };
  probe.remove();
  return found;
}
