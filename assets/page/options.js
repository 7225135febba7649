// The generator's own options, each with its sentence, folded away until somebody wants them.
const root = element.querySelector(".ai-options");
const changed = h("span", { class: "ai-hint" });
const list = h("div", { class: "ai-option-list" });
root.append(h("details", {}, h("summary", {}, "Options", changed), list));
let fields = {}; // by name, kept while the generator stays, so that focus is not lost
let names = "";

const field = ({ name, label, range, sentence }) => {
  const send = () => {
    if (input.value === input.dataset.sent) return;
    input.dataset.sent = input.value;
    trigger("option", { name, value: input.value });
  };
  // no number field: what is no number gets our sentence, and that field would send nothing
  const input = h("input", { type: "text", inputmode: "decimal", id: `option-${name}`, "data-option": name, autocomplete: "off", onchange: send });
  const node = h(
    "div",
    { class: "ai-option" },
    h("label", { for: `option-${name}` }, label, h("span", { class: "ai-hint" }, range)),
    input,
    h("p", { class: "ai-small" }, sentence),
  );
  return { input, node };
};

follow(({ options }) => {
  root.hidden = !options.length;
  const now = JSON.stringify(options.map((o) => [o.name, o.range, o.sentence]));
  if (now !== names) {
    names = now;
    fields = Object.fromEntries(options.map((o) => [o.name, field(o)]));
    list.replaceChildren(...options.map((o) => fields[o.name].node));
  }
  for (const { name, value, changed: set } of options) {
    const { input, node } = fields[name];
    const typing = input === document.activeElement && input.value !== input.dataset.sent;
    if (!typing || input.dataset.sent === undefined) input.value = value;
    input.dataset.sent = input.value;
    node.classList.toggle("ai-set", set);
  }
  const count = options.filter((o) => o.changed).length;
  setText(changed, count ? `${count} changed` : "");
});
