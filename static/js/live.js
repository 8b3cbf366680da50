// Live parts of a page. A feed says only that something changed; the page then fetches itself
// and puts the new part in place, so that what is shown is always what a reload would show.
// A hidden tab holds no connection; a feed that stops is said to be stale.
const STALE_AFTER_MS = 15_000;
const RECHECK_MS = 1_000;
// A refresh may take a fifth of the time at most, so that a busy tenant's page does not load the
// server with itself.
const REST_PER_WORK = 4;
const REST_LEAST_MS = 250;

class Feed {
  constructor(sign) {
    this.sign = sign;
    this.url = sign.dataset.feed;
    this.heardAt = Date.now();
    this.mark = null;
    this.fetched = null;
    this.waiting = null;
    this.restUntil = 0;
  }

  start() {
    document.addEventListener("visibilitychange", () => this.follow());
    addEventListener("pagehide", () => this.pause());
    addEventListener("pageshow", (event) => {
      if (event.persisted) this.follow();
    });
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
    this.show("live", "live");
    if (this.mark !== mark) {
      this.mark = mark;
      // Also the first time: what happened between rendering and connecting must not be missed.
      this.refresh();
    }
  }

  refresh() {
    if (this.waiting) return;
    const rest = Math.max(0, this.restUntil - performance.now());
    this.waiting = setTimeout(() => this.fetchNow(), rest);
  }

  fetchNow() {
    const part = document.querySelector(this.sign.dataset.refresh);
    const began = performance.now();
    const done = () => {
      const took = performance.now() - began;
      this.restUntil = performance.now() + Math.max(REST_LEAST_MS, REST_PER_WORK * took);
      this.waiting = null;
      if (this.mark !== this.fetched) this.refresh();
    };
    this.fetched = this.mark;
    document.body.addEventListener("htmx:afterRequest", done, { once: true });
    htmx.trigger(part, "refresh");
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
    const [size, unit] = [
      [86400, "d"],
      [3600, "h"],
      [60, "min"],
      [1, "s"],
    ].find(([s]) => seconds >= s) ?? [1, "s"];
    time.textContent = `${Math.floor(seconds / size)} ${unit}`;
  }
}

function keepWhatPeopleOpened() {
  // A refresh must not close what somebody opened, nor redraw a chart that redraws itself.
  Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) =>
    !(name === "open" && node.tagName === "DETAILS");
  Idiomorph.defaults.callbacks.beforeNodeMorphed = (node) => !node.dataset?.chart;
}

function tintNewRows(seen) {
  for (const row of document.querySelectorAll("tr[data-row]")) {
    if (seen.size && !seen.has(row.dataset.row)) row.classList.add("fresh");
  }
}

export function startLive() {
  const signs = document.querySelectorAll("[data-feed]");
  if (!signs.length) return;
  keepWhatPeopleOpened();
  let seen = new Set();
  document.body.addEventListener("htmx:beforeSwap", (event) => {
    seen = new Set([...document.querySelectorAll("tr[data-row]")].map((row) => row.dataset.row));
    // Signed out meanwhile: the answer is another page, which must not replace a part of this one.
    const asked = new URL(event.detail.pathInfo.requestPath, location.href);
    if (new URL(event.detail.xhr.responseURL).pathname !== asked.pathname) {
      event.detail.shouldSwap = false;
      location.reload();
    }
  });
  document.body.addEventListener("htmx:afterSettle", () => {
    tintNewRows(seen);
    for (const time of document.querySelectorAll("time[data-refreshed]"))
      time.dateTime = new Date().toISOString();
    tellAges();
    document.dispatchEvent(new CustomEvent("page-refreshed"));
  });
  for (const sign of signs) new Feed(sign).start();
  setInterval(tellAges, RECHECK_MS);
}
