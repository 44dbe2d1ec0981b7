// "That is wrong": a form for the answer that would have been right, made from the tools' schemas.
import { element, written } from "/cards.js";

const plain = (schema) => {
  if (Array.isArray(schema.enum)) return "enum";
  const kinds = [].concat(schema.type ?? []).filter((kind) => kind !== "null");
  return kinds.length === 1 ? kinds[0] : "json";
};

// A field for a parameter; `read` gives its value, undefined where it is left out, or throws with what is wrong.
function field(name, schema, required, value) {
  const id = `field-${Math.random().toString(36).slice(2)}`;
  const kind = plain(schema);
  let input;
  if (kind === "enum" || kind === "boolean") {
    const values = kind === "enum" ? schema.enum : [true, false];
    input = element("select", { id }, element("option", { value: "", text: required ? "choose" : "leave out" }),
      ...values.map((each, at) => element("option", { value: String(at + 1), text: written(each),
        selected: value !== undefined && JSON.stringify(each) === JSON.stringify(value) })));
    input.read = () => (input.value ? values[Number(input.value) - 1] : undefined);
  } else {
    const shown = value === undefined ? "" : kind === "string" ? String(value) : JSON.stringify(value);
    input = element("input", { id, value: shown, placeholder: required ? "" : "leave out", autocomplete: "off",
      inputmode: kind === "integer" || kind === "number" ? "decimal" : "text" });
    input.read = () => {
      const text = input.value.trim();
      if (!text) return undefined;
      if (kind === "string") return input.value;
      try { return JSON.parse(text); } catch {
        if (kind === "json" && !/^[[{"\d-]/.test(text)) return input.value;
        throw new Error(`${name} is no ${kind === "json" ? "JSON" : kind}: ${text}`);
      }
    };
  }
  const about = [required ? "" : "optional", schema.description ?? ""].filter(Boolean).join(" · ");
  return { name, input, root: element("div", { class: "field" }, element("label", { for: id, text: name }), input,
    about ? element("small", { text: about }) : null) };
}

class CallForm {
  constructor(tools, call, remove) {
    this.tools = tools;
    this.choice = element("select", { "aria-label": "tool" }, ...tools.map((tool) =>
      element("option", { text: tool.function.name, selected: tool.function.name === call?.name })));
    this.box = element("div");
    this.root = element("div", { class: "one" }, element("div", { class: "row" }, this.choice,
      element("button", { type: "button", text: "Remove", onclick: () => remove(this) })), this.box);
    this.choice.addEventListener("change", () => this.draw(this.values()));
    this.draw(call?.arguments ?? {});
  }

  tool() { return this.tools.find((tool) => tool.function.name === this.choice.value); }

  values() {
    const found = {};
    for (const each of this.fields) { try { found[each.name] = each.input.read(); } catch { /* another tool, another type */ } }
    return found;
  }

  draw(values) {
    const parameters = this.tool().function.parameters ?? {};
    this.fields = Object.entries(parameters.properties ?? {}).map(([name, schema]) =>
      field(name, schema, (parameters.required ?? []).includes(name), values[name]));
    this.box.replaceChildren(...this.fields.map((each) => each.root));
  }

  read() {
    const found = {};
    for (const each of this.fields) {
      const value = each.input.read();
      if (value !== undefined) found[each.name] = value;
    }
    return { name: this.tool().function.name, arguments: found };
  }
}

// Shows the editor in `place`; `save(row)` sends {kind, calls, answer} and throws what the server says against it.
export function edit(place, tools, result, save, closed) {
  const forms = [];
  const calls = element("fieldset", { class: "calls" }, element("legend", { class: "hide", text: "calls" }));
  const add = (call) => {
    const form = new CallForm(tools, call, (old) => { old.root.remove(); forms.splice(forms.indexOf(old), 1); });
    forms.push(form);
    calls.append(form.root);
    return form;
  };
  const known = result.calls.filter((call) => tools.some((tool) => tool.function.name === call.name));
  for (const call of known.length || !tools.length ? known : [undefined]) add(call);
  const kinds = [["call", "It should call"], ["ask", "It should ask"], ["decline", "It should decline"]]
    .filter(([kind]) => kind !== "call" || tools.length);
  const radios = kinds.map(([value, text], at) => element("label", {},
    element("input", { type: "radio", name: "kind", value, checked: at === 0, onchange: () => shown() }), element("span", { text })));
  const answer = element("input", { id: "right-answer", autocomplete: "off" });
  const words = element("div", { class: "field" }, element("label", { for: "right-answer", text: "Its words" }), answer);
  const more = element("button", { type: "button", text: "Another call", onclick: () => add().choice.focus() });
  const error = element("p", { class: "wrong", role: "alert" });
  const kind = () => form.querySelector("input[name=kind]:checked").value;
  const shown = () => {
    calls.hidden = more.hidden = kind() !== "call";
    words.hidden = kind() === "call";
    answer.placeholder = kind() === "ask" ? "I need one more detail. …" : "I can't do that with the tools I have.";
  };
  const close = () => { place.replaceChildren(); closed(); };
  const form = element("form", { class: "editor", "aria-label": "The right answer" },
    element("div", { class: "row" }, element("h2", { text: "What would have been right?" })),
    element("fieldset", {}, element("legend", { class: "hide", text: "kind" }), ...radios),
    calls, words, error,
    element("div", { class: "row wrap" }, element("button", { class: "first", text: "Teach it" }), more,
      element("button", { type: "button", text: "Cancel", onclick: close })));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    error.textContent = "";
    try {
      const row = { kind: kind(), calls: [] };
      if (row.kind === "call") {
        row.calls = forms.map((each) => each.read());
        if (!row.calls.length) throw new Error("There is no call: add one, or choose that it should ask or decline.");
      } else if (answer.value.trim()) row.answer = answer.value.trim();
      else if (row.kind === "ask") throw new Error("Write what it should ask.");
      await save(row);
      close();
    } catch (caught) { error.textContent = caught.message; }
  });
  form.addEventListener("keydown", (event) => { if (event.key === "Escape") { event.stopPropagation(); close(); } });
  place.replaceChildren(form);
  shown();
  form.querySelector("input[name=kind]:checked").focus();
  form.scrollIntoView({ block: "nearest" });
}
