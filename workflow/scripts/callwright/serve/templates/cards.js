// An answer as a card. All text comes from models and files, so it is only ever set as text, never as HTML.

export function element(name, options = {}, ...children) {
  const { text, ...attributes } = options;
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== undefined && value !== null) made.setAttribute(key, value);
  }
  if (text !== undefined) made.textContent = text;
  made.append(...children.filter(Boolean));
  return made;
}

export const percent = (share) => `${Math.round(100 * share)} %`;
export const written = (value) => (typeof value === "string" ? value : JSON.stringify(value));
export const inWords = (call) =>
  `${call.name}(${Object.entries(call.arguments ?? {}).map(([key, value]) => `${key}=${JSON.stringify(value)}`).join(", ")})`;

export class Card {
  constructor(lane, number, actions) {
    this.lane = lane;
    this.actions = actions;
    this.result = null;
    this.said = element("div", { class: "said" });
    this.calls = element("div");
    this.notes = element("div");
    this.numbers = element("p", { class: "soft numbers", text: "waiting" });
    this.wrong = element("button", { type: "button", disabled: true, onclick: () => actions.correct(this) },
      element("span", { text: "That is wrong " }), element("kbd", { text: String(number) }));
    this.wrong.setAttribute("aria-label", `That is wrong: ${lane.title}`);
    this.root = element("article", { class: "card busy", "aria-label": lane.title, "data-lane": lane.name },
      element("div", { class: "row" }, element("h3", { text: lane.title, title: lane.about }), this.wrong),
      this.said, this.calls, this.notes, this.numbers);
  }

  text(piece) { this.said.textContent += piece; }
  tokens(count) { this.numbers.textContent = `${count} tokens`; }

  call(made, problem) {
    const rows = Object.entries(made.arguments ?? {}).map(([key, value]) =>
      element("tr", {}, element("td", { class: "soft", text: key }), element("td", { text: written(value) })));
    const run = this.actions.run && !problem
      ? element("button", { type: "button", text: "Run it", onclick: () => this.actions.run(this, made) }) : null;
    this.calls.append(element("div", { class: problem ? "call bad" : "call" },
      element("h4", { text: made.name }), element("table", {}, ...rows),
      element("p", { class: problem ? "wrong numbers" : "right numbers",
        text: problem ? `not valid: ${problem}` : "fits its schema" }), run));
  }

  note(text, kind = "warn") { this.notes.append(element("p", { class: `${kind} numbers`, text })); }

  done(result, checked) {
    this.result = result;
    this.root.classList.remove("busy");
    this.wrong.disabled = false;
    this.said.textContent = result.content;
    this.calls.replaceChildren();
    result.calls.forEach((made, at) => this.call(made, checked[at]));
    for (const problem of result.problems) {
      this.note(problem.message, "wrong");
      this.notes.append(element("pre", { text: problem.text }));
    }
    const call = result.call_probability;
    const line = result.threshold;
    if (call !== null && !result.calls.length && (line === null || call < line)) {
      const from = line === null ? "" : `, and from ${percent(line)} on it would have called`;
      this.note(`No call: where that is decided, a call had ${percent(call)}${from}.`, "soft");
    } else if (call !== null && line !== null) {
      this.note(`A call had ${percent(call)}, the threshold is ${percent(line)}.`, "soft");
    }
    if (result.finish_reason === "length") this.note("cut at the limit of tokens");
    const sure = result.confidence;
    const bar = element("i");
    bar.style.width = sure === null ? "0" : percent(sure).replace(" ", "");
    this.numbers.textContent = `${sure === null ? "" : `confidence ${percent(sure)} · `}${result.output_tokens} tokens after ` +
      `${result.prompt_tokens} · ${result.seconds.toFixed(2)} s`;
    if (sure !== null) this.numbers.before(element("div", { class: "meter", title: "mean probability of the tokens" }, bar));
  }

  failed(message) {
    this.root.classList.remove("busy");
    this.note(message, "wrong");
    this.numbers.textContent = "";
  }
}
