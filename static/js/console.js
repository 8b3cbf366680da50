// Everything that a page does beyond links and forms. Each part works alone, and every page
// can be read without any of them.
import { startLive } from "./live.js";
import { startCopying } from "./copy.js";

// On a phone the pages stand in a strip that scrolls: the one that is open is in sight.
function showOpenPage(strip) {
  const open = strip.querySelector("[aria-current]");
  if (!open) return;
  const left = open.offsetLeft - strip.offsetLeft;
  strip.scrollLeft = left - (strip.clientWidth - open.offsetWidth) / 2;
}

showOpenPage(document.querySelector(".nav"));
for (const field of document.querySelectorAll("[data-submit-on-change]")) {
  field.addEventListener("change", () => field.form.requestSubmit());
}
startCopying();
startLive();
if (document.querySelector("[data-chart]")) {
  const { startCharts } = await import("./charts.js");
  startCharts();
}
if (document.querySelector("[data-playground]")) {
  const { startPlayground } = await import("./playground.js");
  startPlayground();
}
