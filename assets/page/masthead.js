// The head of the page: study, link, export, light and dark. It also keeps the address bar,
// listens for keys and saves the files that exports send.
const root = element.querySelector(".ai-masthead");
const study = h("span", { class: "ai-study" });
const badge = h("span", { class: "ai-badge" }, "Simulated data");
const note = h("span", { class: "ai-about-note" });
const copy = h("button", { type: "button", class: "ai-button", id: "copy-link", onclick: () => copyLink() }, "Copy link");
const busy = h("span", { class: "ai-busy", hidden: true, role: "status" });
const exporter = (format, label) =>
  h("button", { type: "button", "data-format": format, onclick: () => request(format) }, label);
const picker = h("input", { type: "file", accept: ".json,application/json", hidden: true, id: "record-file", onchange: () => open() });
const menu = h(
  "details",
  { class: "ai-menu", id: "export" },
  h("summary", { class: "ai-button" }, "Export"),
  h(
    "div",
    { class: "ai-menu-panel" },
    h("p", {}, "Figure"),
    h("div", { class: "ai-menu-row" }, exporter("png", "PNG"), exporter("svg", "SVG"), exporter("pdf", "PDF")),
    h("p", {}, "Parcels"),
    h("div", { class: "ai-menu-row" }, exporter("csv", "Table as CSV")),
    h("p", {}, "All choices"),
    h("div", { class: "ai-menu-row" }, exporter("json", "Record as JSON"), h("button", { type: "button", onclick: () => picker.click() }, "Open a record…")),
  ),
);
const lecture = h("button", { type: "button", class: "ai-button", id: "lecture-open", title: "Five steps on a typical trial, in large type", onclick: () => window.dispatchEvent(new Event("afterimage-lecture")) }, "Lecture");
const theme = h("button", { type: "button", class: "ai-button ai-icon", id: "theme", title: "Light or dark", "aria-label": "Switch between light and dark", onclick: () => toggle() }, "◐");
root.append(
  h("a", { class: "ai-mark", href: "?", title: "Start again with a random trial" }, h("i", { "aria-hidden": "true" }), "Afterimage"),
  h("p", { class: "ai-about" }, study, badge, note),
  h("div", { class: "ai-tools" }, busy, lecture, copy, menu, picker, theme),
);

const waiting = (text) => {
  busy.hidden = !text;
  setText(busy, text);
};
const request = (format) => {
  menu.open = false;
  waiting(`Preparing ${format.toUpperCase()}…`);
  trigger("export", { format });
};
const open = async () => {
  const file = picker.files[0];
  picker.value = "";
  menu.open = false;
  if (file) trigger("record", { text: (await file.slice(0, 300000).text()) });
};
const copyLink = async () => {
  const link = window.location.href;
  try {
    await navigator.clipboard.writeText(link);
  } catch {
    // Without a secure connection there is no clipboard: fall back to a selected field.
    const field = h("textarea", { value: link, class: "ai-offscreen" });
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  copy.textContent = "Copied";
  setTimeout(() => (copy.textContent = "Copy link"), 1600);
};

const dark = (on) => document.body.classList.toggle("dark", on);
const toggle = () => {
  const on = !document.body.classList.contains("dark");
  dark(on);
  try { localStorage.setItem("afterimage-theme", on ? "dark" : "light"); } catch { /* private mode */ }
};
try {
  const kept = localStorage.getItem("afterimage-theme");
  if (kept) dark(kept === "dark");
} catch { /* private mode */ }

const save = ({ name, mime, data }) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const link = h("a", { href: URL.createObjectURL(new Blob([bytes], { type: mime })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
};

let saved = null;
follow((value) => {
  setText(study, value.title || "");
  badge.hidden = !value.simulated;
  setText(note, value.note || "");
  if (value.link && `?${value.link}` !== window.location.search) history.replaceState(null, "", `?${value.link}`);
  if (value.file && value.file.id !== saved) {
    saved = value.file.id;
    waiting("");
    if (value.file.data) save(value.file);
  }
});

document.addEventListener("click", (event) => {
  if (menu.open && !menu.contains(event.target)) menu.open = false;
});
const KEYS = { ArrowLeft: "previous", ArrowRight: "next", r: "random" };
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") menu.open = false;
  if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
  const typing = event.target.closest("input, textarea, select, [contenteditable], [role=listbox], [role=slider], .js-plotly-plot");
  const button = document.getElementById(KEYS[event.key] || "none");
  if (typing || !button) return;
  event.preventDefault();
  button.click();
});
