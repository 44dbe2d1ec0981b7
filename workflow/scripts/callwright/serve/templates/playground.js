// The playground: tools on the left, a request, and answers side by side. It speaks to its own server alone.
import { Card, element, inWords } from "/cards.js";
import { edit } from "/correct.js";

const at = (id) => document.getElementById(id);
const state = { tools: [], own: [], hints: [], on: new Set(), lanes: [], cards: [], asked: null, stop: null, run: null, last: null };
const EVERY = 4000; // milliseconds between looks at what others taught, and at the training

// What a reload must not lose stays in this tab (the key, too) or this browser (pasted tools and what is switched on).
const tab = (name, value) => keep(sessionStorage, name, value);
const browser = (name, value) => keep(localStorage, name, value);
function keep(store, name, value) {
  try {
    if (value === undefined) return JSON.parse(store.getItem(`callwright.${name}`) ?? "null");
    store.setItem(`callwright.${name}`, JSON.stringify(value));
  } catch { /* no storage here: nothing is kept */ }
  return null;
}

async function ask(path, body, signal) {
  const headers = {};
  if (tab("key")) headers.authorization = `Bearer ${tab("key")}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  const options = { headers, signal, method: body === undefined ? "GET" : "POST" };
  if (body !== undefined) options.body = JSON.stringify(body);
  let answer;
  try { answer = await fetch(path, options); } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is it still running?");
  }
  if (answer.status === 401) {
    await askForKey();
    return ask(path, body, signal);
  }
  if (!answer.ok) {
    const told = await answer.json().catch(() => null);
    throw new Error(told?.error?.message ?? `The server answered with status ${answer.status}.`);
  }
  return answer;
}
const json = async (path, body) => (await ask(path, body)).json();

let asking = null;
function askForKey() {
  asking ??= new Promise((done) => {
    at("key").addEventListener("close", () => { tab("key", at("key-value").value.trim()); asking = null; done(); }, { once: true });
    at("key").showModal();
  });
  return asking;
}

function alarm(message) {
  at("alert").textContent = message ?? "";
  at("alert").hidden = !message;
}

// --- tools

function use(tools, hints, on) {
  state.tools = tools;
  state.hints = hints;
  const names = tools.map((tool) => tool.function.name);
  const most = names.length > 16 ? 8 : 16; // the rest can be switched on
  state.on = new Set(on ? names.filter((name) => on.includes(name)) : names.slice(0, most));
  drawTools();
}

function drawTools() {
  at("tools").replaceChildren(...state.tools.map((tool) => {
    const { name, description, parameters } = tool.function;
    const own = state.hints.filter((hint) => hint.tool === name);
    const box = element("input", { type: "checkbox", checked: state.on.has(name), onchange: () => {
      box.checked ? state.on.add(name) : state.on.delete(name);
      counted();
    } });
    return element("div", { class: "tool" },
      element("label", {}, box, element("span", { text: name })),
      element("p", { class: "soft", text: description || "(no description)" }),
      element("p", { class: "soft", text: Object.keys(parameters?.properties ?? {})
        .map((key) => ((parameters.required ?? []).includes(key) ? key : `[${key}]`)).join(", ") }),
      own.length ? element("details", {}, element("summary", { class: "warn", text: `${own.length} hint${own.length > 1 ? "s" : ""}` }),
        element("ul", {}, ...own.map((hint) => element("li", {
          text: `${hint.parameter ? `${hint.parameter}: ` : ""}${hint.found}; ${hint.instead}` })))) : null);
  }));
  counted();
}

function counted() {
  at("on").textContent = `${state.on.size} of ${state.tools.length}`;
  browser("on", [...state.on]);
}

async function usePasted(text) {
  at("source-error").textContent = "";
  const found = await json("/playground/tools", { text });
  if (found.error) {
    at("source-error").textContent = `${found.line ? `Line ${found.line}: ` : ""}${found.error}`;
    const lines = text.split("\n");
    if (found.line && document.activeElement !== at("request")) {
      const begin = lines.slice(0, found.line - 1).join("\n").length + (found.line > 1);
      at("source").focus();
      at("source").setSelectionRange(begin, begin + (lines[found.line - 1] ?? "").length);
    }
    return false;
  }
  browser("source", text);
  use(found.tools, found.hints);
  return true;
}

// --- asking

const chosen = () => state.lanes.filter((lane) => at(`lane-${lane.name}`).checked);
const offered = () => state.tools.filter((tool) => state.on.has(tool.function.name));

async function send() {
  const text = at("request").value.trim();
  if (!text) { at("request").focus(); return; }
  stop();
  alarm();
  at("editor").replaceChildren();
  tab("request", text);
  const mine = new AbortController();
  state.stop = mine;
  state.asked = { messages: [{ role: "user", content: text }], tools: offered() };
  const lanes = chosen();
  state.cards = lanes.map((lane, number) => new Card(lane, number + 1, { correct, run: state.run && run }));
  at("answers").replaceChildren(...state.cards.map((card) => card.root));
  at("stop").hidden = false;
  at("status").textContent = "Answering …";
  const asked = state.asked;
  await Promise.all(state.cards.map((card) => answer(card, asked, mine.signal)));
  if (state.stop !== mine) return;
  state.stop = null;
  at("stop").hidden = true;
  at("status").textContent = `${state.cards.length} answer${state.cards.length === 1 ? "" : "s"}.`;
}

async function answer(card, asked, signal) {
  const body = { ...asked, lane: card.lane.name };
  if (card.lane.threshold) body.threshold = Number(at("threshold").value);
  try {
    const stream = await ask("/playground/ask", body, signal);
    let ended = false;
    for await (const event of events(stream.body)) {
      if (event.type === "text") card.text(event.text);
      else if (event.type === "tokens") card.tokens(event.tokens);
      else if (event.type === "error") throw new Error(event.message);
      else if (event.type === "done") {
        ended = true;
        const checked = event.calls.length ? (await json("/playground/check", { calls: event.calls, tools: asked.tools })).problems : [];
        card.done(event, checked);
      }
    }
    if (!ended) throw new Error("The answer ended before it was complete.");
  } catch (error) {
    card.failed(error.name === "AbortError" ? "stopped" : error.message);
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const parts = rest.split("\n\n");
    rest = parts.pop();
    for (const part of parts) if (part.startsWith("data: ")) yield JSON.parse(part.slice(6));
  }
}

function stop() {
  state.stop?.abort();
  state.stop = null;
  at("stop").hidden = true;
}

// --- running, correcting

async function run(card, call) {
  at("confirm-call").textContent = inWords(call);
  at("confirm-where").textContent = `It is made by ${state.run}.`;
  const dialog = at("confirm");
  dialog.returnValue = "no";
  dialog.showModal();
  await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  if (dialog.returnValue !== "yes") return;
  try {
    const made = await json("/playground/run", { call, confirmed: true });
    card.note(`${made.failed ? "failed: " : "= "}${made.text}`, made.failed ? "wrong" : "right");
  } catch (error) { card.note(error.message, "wrong"); }
}

function correct(card) {
  if (!card.result) return;
  const asked = state.asked;
  edit(at("editor"), asked.tools, card.result, async (row) => {
    if (row.kind === "call") {
      const { problems } = await json("/playground/check", { calls: row.calls, tools: asked.tools });
      const wrong = problems.map((problem, number) => problem && `${row.calls[number].name}: ${problem}`).filter(Boolean);
      if (wrong.length) throw new Error(wrong.join("; "));
    }
    if (!asked.tools.length) throw new Error("A correction needs at least one tool on offer.");
    const answered = { calls: card.result.calls, content: card.result.content, lane: card.lane.name };
    const made = await json("/playground/correct", { ...row, ...asked, answered });
    state.last = made.id;
    drawTaught(made.taught);
    at("status").textContent = made.held_back
      ? "Taught. This one is kept back as a test: it is never trained, and the report says whether it is answered."
      : "Taught: the next training learns it.";
  }, () => card.wrong.focus());
}

async function undo(id) {
  try {
    drawTaught((await json("/playground/undo", { id })).taught);
    at("status").textContent = "Taken back.";
    if (state.last === id) state.last = null;
  } catch (error) { alarm(error.message); }
}

function drawTaught(taught) {
  at("taught").textContent = `${taught.since} taught since the last training`;
  at("file").textContent = `${taught.file}: ${taught.count}` + (taught.broken ? `, ${taught.broken} lines cannot be read` : "");
  at("recent").hidden = !taught.recent.length;
  at("corrections").replaceChildren(...taught.recent.map((made) => element("li", {},
    element("div", {}, element("span", { text: made.request }), element("br"),
      element("code", { class: "soft", text: made.calls.length ? made.calls.map(inWords).join(", ") : made.answer }),
      made.held_back ? element("span", { class: "soft", text: " · kept back as a test" }) : null),
    element("button", { type: "button", text: "Undo", "aria-label": `Undo: ${made.request}`, onclick: () => undo(made.id) }))));
}

// --- the training

async function look() {
  if (document.hidden) return;
  try {
    const found = await json("/playground/state");
    drawTaught(found.taught);
    at("report").hidden = !found.report;
    if (!at("watch").hidden) {
      const run = await json("/playground/watch");
      at("watch").textContent = run.text;
    }
    alarm();
  } catch (error) { alarm(error.message); }
}

async function openReport() {
  const place = window.open("about:blank", "_blank");
  try {
    const { url } = await json("/playground/ticket", {});
    if (place) { place.opener = null; place.location = url; }
  } catch (error) { place?.close(); alarm(error.message); }
}

// --- beginning

function keys(event) {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  if (event.key === "Escape" && state.stop) { stop(); at("request").focus(); }
  if (typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.key === "/") { event.preventDefault(); at("request").focus(); }
  else if (event.key === "u" && state.last) undo(state.last);
  else if (/^[1-5]$/.test(event.key) && state.cards[event.key - 1]) { event.preventDefault(); correct(state.cards[event.key - 1]); }
}

async function begin() {
  const found = await json("/playground/state");
  at("model").textContent = found.model;
  document.title = `${found.model} · callwright playground`;
  state.lanes = found.lanes;
  state.run = found.run;
  state.own = found.tools;
  const kept = browser("lanes") ?? ["tuned", "base", "tuned_grammar"];
  at("lanes").append(...found.lanes.map((lane) => element("label", { title: lane.about },
    element("input", { type: "checkbox", id: `lane-${lane.name}`, checked: kept.includes(lane.name) || found.lanes.length === 1,
      onchange: () => { browser("lanes", chosen().map((each) => each.name)); thresholdShown(); } }),
    element("span", { text: lane.title }))));
  thresholdShown();
  const on = browser("on");
  use(found.tools, found.hints, on?.length && found.tools.some((tool) => on.includes(tool.function.name)) ? on : undefined);
  drawTaught(found.taught);
  at("report").hidden = !found.report;
  at("watching").hidden = !found.watch;
  at("request").value = tab("request") ?? "";
  const source = browser("source");
  if (source) { at("source").value = source; await usePasted(source).catch(() => {}); if (on) use(state.tools, state.hints, on); }
  else if (!found.tools.length) at("paste").open = true;
  at("request").focus();
  setInterval(look, EVERY);
}

const thresholdShown = () => { at("threshold-box").hidden = !chosen().some((lane) => lane.threshold); };
at("form").addEventListener("submit", (event) => { event.preventDefault(); send(); });
at("request").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
});
at("stop").addEventListener("click", stop);
at("all").addEventListener("click", () => { state.on = new Set(state.tools.map((tool) => tool.function.name)); drawTools(); });
at("none").addEventListener("click", () => { state.on.clear(); drawTools(); });
at("use").addEventListener("click", () => usePasted(at("source").value).catch((error) => { at("source-error").textContent = error.message; }));
at("own").addEventListener("click", async () => {
  browser("source", null);
  at("source-error").textContent = "";
  const found = await json("/playground/state");
  use(found.tools, found.hints);
});
at("threshold").addEventListener("input", () => { at("threshold-value").textContent = Number(at("threshold").value).toFixed(2); });
at("report").addEventListener("click", openReport);
at("watching").addEventListener("click", () => {
  at("watch").hidden = !at("watch").hidden;
  at("watching").setAttribute("aria-expanded", String(!at("watch").hidden));
  look();
});
document.addEventListener("keydown", keys);
begin().catch((error) => alarm(error.message));
