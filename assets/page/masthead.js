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
    h("div", { class: "ai-menu-row" }, exporter("json", "Record as JSON"), h("button", { type: "button", id: "record-open", onclick: () => picker.click() }, "Open a record…")),
  ),
);
const lecture = h("button", { type: "button", class: "ai-button", id: "lecture-open", title: "Five steps on a typical trial, in large type", onclick: () => window.dispatchEvent(new Event("afterimage-lecture")) }, "Lecture");
const theme = h("button", { type: "button", class: "ai-button ai-icon", id: "theme", title: "Light or dark", "aria-label": "Switch between light and dark", onclick: () => toggle() }, "◐");
// ------------------------------------------------------------------------------------------- keys
const SHORTCUTS = [
  ["← →", "the trial before, the next trial"], ["r", "a random trial"], ["?", "this list"], ["Esc", "close what is open"],
];
const ELSEWHERE = [
  ["Tab", "from field to field; in the list of evidence ← → move, Enter opens"],
  ["← → ↑ ↓", "among all trials: move; Space selects, Enter opens the trial, Z shows it in full size; there + − 0 zoom"],
  ["↑ ↓", "in a table of parcels, from row to row; Enter chooses the parcel"],
  ["← → ↑ ↓  + − 0", "on the brain: turn, size, back"], [", .", "on the brain: the parcel before, the next in the table"],
  ["[ ]", "on the brain: a lower, a higher threshold"],
];
let single = true; // whether single keys do something outside a field
try { single = localStorage.getItem("afterimage-keys") !== "off"; } catch { /* private mode */ }
const toggleKeys = h("input", { type: "checkbox", id: "keys-on", checked: single, onchange: () => {
  single = toggleKeys.checked;
  try { localStorage.setItem("afterimage-keys", single ? "on" : "off"); } catch { /* private mode */ }
} });
const listed = (rows) => h("dl", {}, rows.map(([key, text]) => h("div", {}, h("dt", {}, key), h("dd", {}, text))));
const keys = h(
  "dialog", { class: "ai-keys", "aria-labelledby": "keys-title", onclick: (event) => { if (event.target === keys) keys.close(); } },
  h("h2", { id: "keys-title" }, "Keys"), listed(SHORTCUTS),
  h("label", {}, toggleKeys, " Single keys go from trial to trial (arrows, r, ?)"),
  h("h3", {}, "Inside a part of the page"), listed(ELSEWHERE),
  h("button", { type: "button", class: "ai-button", onclick: () => keys.close() }, "Close"),
);
const keysOpen = h("button", { type: "button", class: "ai-button ai-icon", id: "keys-open", title: "Keys", "aria-label": "List of keys", onclick: () => keys.showModal() }, "⌨\uFE0E");

// The first stop of the Tab key: past the pickers, to the trial.
const skip = h("a", { class: "ai-skip", href: "#trial", onclick: (event) => {
  event.preventDefault();
  const to = document.querySelector(".ai-caption");
  to?.setAttribute("tabindex", "-1");
  to?.focus();
} }, "Skip to the trial");

root.append(
  skip,
  h("h1", {}, h("a", { class: "ai-mark", href: "?", id: "start-again", title: "Start again with a random trial" }, h("i", { "aria-hidden": "true" }), "Afterimage")),
  h("p", { class: "ai-about" }, study, badge, note),
  h("div", { class: "ai-tools" }, busy, lecture, copy, menu, picker, keysOpen, theme),
  keys,
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

// On a phone the decoder's fields are folded away above the trial.
if (window.matchMedia("(max-width: 720px)").matches) {
  const fold = () => {
    const button = document.querySelector("#decoder > button");
    if (button) button.click(); else setTimeout(fold, 100); // the fields come after the head
  };
  fold();
}

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

// Each trial is a place in the browser's history; what else is chosen changes that place.
// A page of plain files has its address after #, since no server reads it.
let place = null, returning = false, sign = "?";
const here = () => (sign === "#" ? window.location.hash : window.location.search);
const keepAddress = (link, trial) => {
  const address = `${sign}${link}`;
  if (address !== (here() || sign)) {
    const other = place !== null && trial !== place && !returning;
    history[other ? "pushState" : "replaceState"](null, "", address);
  }
  returning = false;
  place = trial;
};
window.addEventListener("popstate", () => {
  returning = true;
  trigger("place", { query: here() });
});
// The number of a trial counts when Enter or Tab confirms it; left otherwise, the field shows again
// what is in force. (Taken when it loses focus, it would undo a click on "next".)
let number = null;
document.addEventListener("keydown", (event) => {
  if (event.key === "Tab" && event.target.matches?.("#number input")) {
    event.target.dispatchEvent(new KeyboardEvent("keypress", { key: "Enter", bubbles: true }));
  }
});
document.addEventListener("focusout", (event) => {
  if (!event.target.matches?.("#number input")) return;
  const field = event.target;
  setTimeout(() => {
    if (document.activeElement === field || number === null || field.value === String(number)) return;
    field.value = String(number);
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }, 600);
});

let saved = null;
follow((value) => {
  setText(study, value.title || "");
  badge.hidden = !value.simulated;
  setText(note, value.note || "");
  if (value.tab) document.title = `${value.tab} · Afterimage`;
  if (value.number) number = value.number;
  if (value.sign) {
    sign = value.sign;
    element.querySelector("#start-again").setAttribute("href", sign);
  }
  if (value.formats) {
    menu.hidden = !value.formats.length;
    menu.querySelectorAll(".ai-menu-row").forEach((row) => {
      row.querySelectorAll("button").forEach((button) => { button.hidden = !value.formats.includes(button.dataset.format); });
      row.hidden = row.previousElementSibling.hidden = !row.querySelector("button:not([hidden])");
    });
  }
  if (value.link || value.sign) keepAddress(value.link, JSON.stringify(value.trial || null));
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
// What takes these keys for itself: fields, tabs, tables, the brain, an open list.
const OWN = "input, textarea, select, dialog, [contenteditable], [role=listbox], [role=slider], [role=tablist], [role=application], .ai-table";
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") menu.open = false;
  if (event.ctrlKey || event.metaKey || event.altKey || !single || event.target.closest(OWN)) return;
  if (event.key === "?") { keys.showModal(); event.preventDefault(); return; }
  const button = document.getElementById(KEYS[event.key] || "none");
  if (event.shiftKey || !button) return;
  event.preventDefault();
  button.click();
});
