// The playground: sends the form, shows the answer as it arrives, then what it cost.
const THIN = "\u2009";

function said(text, mine) {
  const line = document.createElement("p");
  line.className = mine ? "said mine" : "said";
  line.textContent = text;
  return line;
}

// The API sends cost as an exact JSON number; its text is kept, so no digit is lost.
function costText(data) {
  const found = /"cost"\s*:\s*([0-9.eE+-]+)/.exec(data);
  if (!found) return null;
  const [whole, fraction = ""] = found[1].split(".");
  if (/e/i.test(found[1])) return `$${found[1]}`;
  const padded = fraction.padEnd(Math.ceil(fraction.length / 3) * 3, "0");
  return fraction ? `$${whole}.${padded.replace(/(...)(?=.)/g, `$1${THIN}`)}` : `$${whole}`;
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    let end;
    while ((end = rest.search(/\r?\n\r?\n/)) >= 0) {
      const block = rest.slice(0, end);
      rest = rest.slice(end).replace(/^\r?\n\r?\n/, "");
      const lines = block.split(/\r?\n/);
      const field = (name) =>
        lines
          .filter((l) => l.startsWith(`${name}:`))
          .map((l) => l.slice(name.length + 1).trim())
          .join("\n");
      yield { name: field("event") || "message", data: field("data") };
    }
  }
}

function facts(place, head, usage, cost, firstMs) {
  const parts = [];
  if (cost) parts.push(cost);
  if (usage) parts.push(`${usage.prompt_tokens} tokens in, ${usage.completion_tokens} out`);
  if (head.offer) parts.push(head.offer);
  if (firstMs) parts.push(`first text after ${Math.round(firstMs)} ms, this browser's clock`);
  place.className = "muted";
  place.textContent = `${parts.join(" · ")} `;
  if (head.request_id) {
    const link = document.createElement("a");
    link.className = "link";
    link.href = `/requests/${head.request_id}/`;
    link.textContent = "see it whole";
    place.append("· ", link);
  }
}

async function ask(form, talk, signal) {
  const answer = said("", false);
  const note = document.createElement("p");
  talk.append(said(form.elements.prompt.value, true), answer, note);
  const began = performance.now();
  let head = {},
    usage = null,
    cost = null,
    firstMs = null;
  const body = new FormData(form);
  form.elements.prompt.value = "";
  try {
    const response = await fetch(form.action, { method: "POST", body, signal });
    if (!response.ok)
      throw new Error("The console refused the question. Reload the page and sign in again.");
    for await (const { name, data } of events(response)) {
      if (name === "head") head = JSON.parse(data);
      else if (name === "refused") throw new Error(JSON.parse(data).message);
      else if (data && data !== "[DONE]") {
        const chunk = JSON.parse(data);
        if (chunk.error) throw new Error(chunk.error.message);
        const text = chunk.choices?.[0]?.delta?.content ?? "";
        if (text) firstMs ??= performance.now() - began;
        answer.textContent += text;
        if (chunk.usage) {
          usage = chunk.usage;
          cost = costText(data);
        }
      }
    }
  } catch (problem) {
    if (problem.name === "AbortError") answer.textContent += " (stopped)";
    else {
      answer.classList.add("alarm");
      answer.textContent += problem.message;
    }
  }
  facts(note, head, usage, cost, firstMs);
}

export function startPlayground() {
  const panel = document.querySelector("[data-playground]");
  const form = panel.querySelector("form");
  const stop = panel.querySelector("[data-stop]");
  const talk = panel.querySelector("[data-talk]");
  let running = null;
  stop.addEventListener("click", () => running?.abort());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    running = new AbortController();
    panel.querySelector("[data-empty]")?.remove();
    stop.hidden = false;
    form.querySelector("button.primary").disabled = true;
    await ask(form, talk, running.signal);
    form.querySelector("button.primary").disabled = false;
    stop.hidden = true;
  });
}
