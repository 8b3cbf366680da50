// Live parts of a page. A feed says only that something changed; the page then fetches itself
// and puts the new part in place, so that what is shown is always what a reload would show.
// A hidden tab holds no connection; a feed that stops is said to be stale.
const STALE_AFTER_MS = 15_000;
const RECHECK_MS = 1_000;

class Feed {
  constructor(sign) {
    this.sign = sign;
    this.url = sign.dataset.feed;
    this.heardAt = Date.now();
    this.mark = null;
    document.addEventListener("visibilitychange", () => this.follow());
    addEventListener("pagehide", () => this.pause());
    addEventListener("pageshow", (event) => { if (event.persisted) this.follow(); });
    setInterval(() => this.judge(), RECHECK_MS);
    this.follow();
  }

  follow() {
    if (document.hidden) return this.pause();
    if (this.source) return;
    this.heardAt = Date.now();
    this.source = new EventSource(this.url);
    this.source.addEventListener("mark", (event) => this.hear(event.data));
  }

  pause() {
    this.source?.close();
    this.source = null;
    this.show("static", "paused");
  }

  hear(mark) {
    this.heardAt = Date.now();
    this.show("live", this.mark === null ? "live" : null);
    if (this.mark !== mark) {
      const isFirst = this.mark === null;
      this.mark = mark;
      // The page may have been rendered before the first mark: fetch once to be sure.
      if (!isFirst || mark !== this.sign.dataset.mark) this.refresh();
    }
  }

  refresh() {
    for (const part of document.querySelectorAll(this.sign.dataset.refresh)) {
      htmx.trigger(part, "refresh");
    }
  }

  judge() {
    const quiet = Date.now() - this.heardAt;
    if (this.source && quiet > STALE_AFTER_MS) this.show("stale", "stale");
    else if (this.source && quiet < STALE_AFTER_MS && this.mark !== null) this.show("live", "live");
  }

  show(state, word) {
    this.sign.dataset.state = state;
    const place = this.sign.querySelector("[data-live-word]");
    if (word && place) place.textContent = `${word} · updated`;
  }
}

function tellAges() {
  for (const time of document.querySelectorAll("time[data-age]")) {
    const seconds = Math.max(0, Math.floor((Date.now() - Date.parse(time.dateTime)) / 1000));
    const [size, unit] = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]].find(([s]) => seconds >= s) ?? [1, "s"];
    time.textContent = `${Math.floor(seconds / size)} ${unit}`;
  }
}

function keepWhatPeopleOpened() {
  // A refresh must not close what somebody opened, nor redraw a chart that redraws itself.
  Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) =>
    !(name === "open" && node.tagName === "DETAILS");
  Idiomorph.defaults.callbacks.beforeNodeMorphed = (node) => !node.dataset?.chart;
}

function tintNewRows(event) {
  const seen = new Set(event.detail.seen ?? []);
  for (const row of event.detail.elt.querySelectorAll?.("tr[data-row]") ?? []) {
    if (seen.size && !seen.has(row.dataset.row)) row.classList.add("fresh");
  }
}

export function startLive() {
  const signs = document.querySelectorAll("[data-feed]");
  if (!signs.length) return;
  keepWhatPeopleOpened();
  let seen = [];
  document.body.addEventListener("htmx:beforeSwap", (event) => {
    seen = [...document.querySelectorAll("tr[data-row]")].map((row) => row.dataset.row);
  });
  document.body.addEventListener("htmx:afterSettle", (event) => {
    tintNewRows({ detail: { elt: document.body, seen } });
    for (const time of document.querySelectorAll("time[data-refreshed]")) time.dateTime = new Date().toISOString();
    tellAges();
    document.dispatchEvent(new CustomEvent("page-refreshed"));
  });
  for (const sign of signs) new Feed(sign);
  setInterval(tellAges, RECHECK_MS);
}
