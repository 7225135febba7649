// Put before each component's script. Data reaches the page as text nodes and attributes only:
// nothing that came from a study, a file name or a link is ever parsed as markup.
const h = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    const aria = name.startsWith("aria-");
    if (value === null || value === undefined || (value === false && !aria)) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "value") node.value = value;
    else node.setAttribute(name, value === true && !aria ? "" : String(value));
  }
  node.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return node;
};
const setText = (node, text) => {
  if (node.textContent !== String(text)) node.textContent = text;
};
// The ends of a colour bar point outwards where a value lies beyond them: [below, above].
const pointed = (ramp, [below, above]) => {
  ramp.classList.toggle("ai-below", below);
  ramp.classList.toggle("ai-above", above);
};
const setSource = (img, src) => {
  if (src && img.getAttribute("src") !== src) img.setAttribute("src", src);
};
const follow = (render) => {
  let last = null;
  const update = () => {
    const value = props.value;
    if (!value || typeof value !== "object") return;
    render(value, last);
    last = value;
  };
  watch("value", update);
  update();
};
// A row of a table is chosen by a button in its first cell, so that keys reach it as a pointer does.
const rowButton = (text, label, chosen) => h("button", { type: "button", class: "ai-row-button", "aria-pressed": chosen, "aria-label": label }, text);
const walkRows = (event) => {
  const buttons = [...event.currentTarget.querySelectorAll(".ai-row-button")];
  const at = buttons.indexOf(event.target);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
  if (at < 0 || to === undefined) return;
  event.preventDefault();
  buttons[Math.max(0, Math.min(buttons.length - 1, to))].focus();
};
// Rows are written anew after each choice; the one under the keys keeps them.
const keepRow = (body, write) => {
  const held = body.contains(document.activeElement) && document.activeElement.closest("tr")?.dataset.parcel;
  write();
  if (held) [...body.rows].find((row) => row.dataset.parcel === held)?.querySelector(".ai-row-button")?.focus({ preventScroll: true });
};
