// The surface and its table. The mesh is asked for once and kept; a new trial brings only one
// number a parcel, which recolours the vertices and leaves the camera alone. A map of the subject's
// voxels brings one number a vertex beside them.
const root = element.querySelector(".ai-brain");
const SIDES = ["left", "right"];
const EYE = { x: 0, y: -2, z: 0 };
const FILL = 2.05;
const DARKEN = 0.12; // how much of the folding shows through a parcel's colour
const IMPORTANCE = "importance";
let view = null; // what is shown now: map, method, measure, surface, hemisphere, camera, parcel
let value = null;
let vertices = null; // the map's value at each vertex, where it has any
let brain = null; // decoded surface payload
let plot = null; // the div that plotly draws into
let hovered = null;
let sort = { column: null, descending: true };
let effects = null; // of the lesion of each parcel alone, while that evidence is open
const payloads = new Map();
const meshes = new Map();

// --------------------------------------------------------------------------------------- controls
const segment = (name, label, options, change) => {
  const inputs = Object.entries(options).map(([key, text]) =>
    h("label", {}, h("input", { type: "radio", name: `ai-${name}`, value: key, onchange: () => change(key) }), h("span", {}, text)),
  );
  const node = h("fieldset", { class: `ai-segment ai-pick-${name}` }, h("legend", {}, label), h("div", {}, inputs));
  node.choose = (key) => node.querySelectorAll("input").forEach((i) => (i.checked = i.value === key));
  return node;
};
const waits = () => { root.dataset.state = "waiting"; };
window.addEventListener("afterimage-map-waits", waits);
// A threshold is in units of what is mapped.
const OF_MAP = ["shows", "method", "target", "atlas"], OF_PICTURE = ["surface", "measure", "threshold", "sequential", "diverging"];
const isPicture = (seen) => ["axial", "coronal", "sagittal", "glass"].includes(seen.surface); // drawn by the server
const OF_UNIT = ["shows", "method", "target", "measure"];
const tell = (asked) => {
  const change = OF_UNIT.some((key) => key in asked) ? { threshold: 0, ...asked } : asked;
  const before = view;
  view = { ...view, ...change };
  if (OF_MAP.some((key) => key in change) || ((isPicture(before) || isPicture(view)) && OF_PICTURE.some((key) => key in change && change[key] !== before[key]))) waits();
  trigger("view", change);
};
const words = (list) => Object.fromEntries(list.map((w) => [w, w[0].toUpperCase() + w.slice(1)]));
const method = segment("method", "Method", { gradient: "Gradient", "gradient x input": "Gradient × input", "integrated gradients": "Integrated" }, (key) => tell({ method: key }));
const measure = segment("measure", "Measure", words(["enrichment", "share", "mean", "signed"]), (key) => { tell({ measure: key }); sort = { column: key, descending: true }; render(); });
const surface = segment("surface", "Surface", { ...words(["inflated", "pial", "flat"]), "native inflated": "Own inflated", "native pial": "Own pial", ...words(["axial", "coronal", "sagittal", "glass"]) }, (key) => { tell({ surface: key }); render(); });
const camera = segment("camera", "View", words(["lateral", "medial", "ventral", "dorsal", "anterior", "posterior"]), (key) => { tell({ camera: key }); draw(true); });
camera.addEventListener("click", (event) => {
  // Choosing the view that is already chosen turns the brain back to it.
  if (event.target.matches("input") && event.target.value === view.camera) face();
});
const hemisphere = segment("hemisphere", "Hemisphere", words(["both", "left", "right"]), (key) => { tell({ hemisphere: key }); draw(true); });
const target = segment("target", "Target", {}, () => {});
const shows = h("select", { "aria-label": "Show", onchange: () => tell({ shows: shows.value }) });
const showsField = h("label", { class: "ai-atlas" }, "Show", shows);
const atlas = h("select", { "aria-label": "Atlas", onchange: () => tell({ atlas: atlas.value, parcel: "" }) });
const atlasField = h("label", { class: "ai-atlas" }, "Atlas", atlas);

const methodText = h("p", { class: "ai-small" });
const measureText = h("p", { class: "ai-small" });
const note = h("p", { class: "ai-note" });
const canvas = h("div", { class: "ai-canvas", role: "img" });
const tip = h("div", { class: "ai-tip", hidden: true });
const overlay = h("p", { class: "ai-surface-text" }, "Loading the surface…");
const ramp = h("i");
const low = h("span"), high = h("span"), unit = h("span", { class: "ai-unit" }), tick = h("b", { hidden: true });
const bar = h("div", { class: "ai-colourbar" }, h("div", { class: "ai-ramp" }, ramp, veil, tick), h("p", { class: "ai-ends ai-number" }, low, unit, high), threshold.node);
const picked = h("p", { class: "ai-picked", "aria-live": "polite" });
const sides = h("div", { class: "ai-sides", "aria-hidden": "true" });
const zoomer = (text, label, by) => h("button", { type: "button", title: label, "aria-label": label, onclick: () => zoomBy(by) }, text);
const zoomers = h("div", { class: "ai-zoom", role: "group", "aria-label": "Size of the brain" }, zoomer("+", "Larger", 1.25), zoomer("−", "Smaller", 0.8), zoomer("⟲", "Turn back and whole", 0));
const stageHelp = h("span", { class: "ai-unseen", id: "stage-help" }, "Arrow keys turn the brain, plus and minus change its size, 0 turns it back; comma and full stop choose the parcel before or after in the table, Escape none; square brackets lower and raise the threshold.");
const slices = h("img", { class: "ai-slices", alt: "", hidden: true });
const stage = h("div", { class: "ai-stage", role: "application", tabindex: "0", "aria-label": "Cortical surface", "aria-describedby": "stage-help", onkeydown: (event) => press(event) }, canvas, slices, sides, overlay, tip);
const slicesNote = h("p", { class: "ai-small ai-slices-note", hidden: true });
const surfaceSide = h("div", { class: "ai-surface-side" }, h("div", { class: "ai-controls ai-bare" }, camera, surface, hemisphere), h("div", { class: "ai-stage-frame" }, stage, zoomers, stageHelp), slicesNote, bar, h("div", { class: "ai-look" }, paletteField, outlineField), picked, save);
const head = h("tr");
const body = h("tbody");
const table = h("div", { class: "ai-table", role: "region", tabindex: "0", "aria-label": "Numbers per parcel", onkeydown: (event) => walkRows(event) }, h("table", {}, h("thead", {}, head), body));
const help = h("details", { class: "ai-help" }, h("summary", {}, "What this shows, and what it does not"));
const heading = h("h2");
const measureSide = h("div", {}, h("div", { class: "ai-controls" }, measure), measureText);
root.append(
  h("header", { class: "ai-brain-head" }, h("div", {}, heading, h("div", { class: "ai-controls" }, showsField, atlasField)), note),
  h(
    "div",
    { class: "ai-choices" },
    h("div", {}, h("div", { class: "ai-controls" }, method, target), methodText),
    measureSide,
  ),
  h("div", { class: "ai-brain-grid" }, surfaceSide, h("div", { class: "ai-table-side" }, table, help)),
);

// ---------------------------------------------------------------------------------------- numbers
const COLUMNS = [
  ["name", "Parcel"], ["hemisphere", ""], ["voxels", "Voxels"], ["share", "Share, %"],
  ["known", "Known"], ["mean", "Mean"], ["r_ceiling", "r, at best"], ["r_trial", "r, trial"], ["enrichment", "Enrichment"], ["signed", "Signed"], ["effect", "Lesion effect"],
];
const ASIDE = new Set(["share", "mean", "enrichment", "signed"]); // no room for these on a phone, but for the one that is drawn
// Beside lesion effects there is no room for all measures.
const room = (column) => !effects || !["mean", "signed"].includes(column) || column === measured();
const columns = () => COLUMNS.filter(([column]) => room(column) && value.rows.some((row) => column in row && (column !== "known" || row.known < row.voxels)));
// Importance has four measures to choose from, any other map only its mean.
const measured = () => ("mean" in value.maps && !(view.measure in value.maps) ? "mean" : view.measure);
const ofVoxels = () => Boolean(value.maps.mean) && !value.maps.enrichment;
const show = {
  voxels: (v) => v.toLocaleString("en"),
  known: (v) => v.toLocaleString("en"),
  share: (v) => (100 * v).toFixed(1),
  mean: (v) => plain(v),
  r_ceiling: (v) => v.toFixed(2),
  r_trial: (v) => (Math.abs(v) < 0.005 ? 0 : v).toFixed(2).replace("-", "−"),
  enrichment: (v) => v.toFixed(2),
  effect: (v) => show.signed(v),
  signed: (v) => `${v > 0 ? "+" : v < 0 ? "−" : ""}${plain(Math.abs(v))}`,
};
const plain = (v) => (v === 0 ? "0" : Math.abs(v) >= 0.001 && Math.abs(v) < 10000 ? Number(v.toPrecision(3)).toString() : v.toExponential(1)).replace(/-/g, "−");
const unitOf = { share: " %", enrichment: " ×" };
const withUnit = (column, v) => format(column, v) + (unitOf[column] || "");
const format = (column, v) => (v === null || v === undefined ? "–" : show[column] ? show[column](v) : String(v));

const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
const colour = (stops, limits, v) => {
  const span = limits[1] - limits[0] || 1;
  const at = Math.min(1, Math.max(0, (v - limits[0]) / span)) * (stops.length - 1);
  const i = Math.min(stops.length - 2, Math.floor(at));
  const [a, b] = [rgb(stops[i]), rgb(stops[i + 1])];
  return a.map((x, k) => x + (b[k] - x) * (at - i));
};

const takeEffects = () => value.rows.forEach((row) => { if (effects) row.effect = effects[row.parcel] ?? null; });
window.addEventListener("afterimage-trial", () => { effects = null; });
window.addEventListener("afterimage-effects", ({ detail }) => {
  effects = detail;
  if (!value) return;
  takeEffects();
  renderTable();
});

// ------------------------------------------------------------------------------------------ table
const sorted = () => {
  const { column, descending } = sort;
  const key = (row) => row[column];
  const few = !["name", "hemisphere", "voxels"].includes(column);
  return [...value.rows].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    // Values of few voxels are wild: they never lead, except where one looks for a name or a size.
    if (few && a.small !== b.small) return a.small - b.small;
    if (x === null || y === null) return (x === null) - (y === null);
    const order = typeof x === "number" ? x - y : String(x).localeCompare(String(y));
    return (descending ? -order : order) || a.parcel.localeCompare(b.parcel);
  });
};
const renderTable = () => {
  head.replaceChildren(
    ...columns().map(([column, label]) => {
      const on = sort.column === column;
      return h(
        "th",
        { scope: "col", "data-aside": ASIDE.has(column) && column !== measured(), class: typeof value.rows[0]?.[column] === "number" || show[column] ? "ai-right" : "", "aria-sort": on ? (sort.descending ? "descending" : "ascending") : "none" },
        h("button", { type: "button", "data-column": column, "aria-label": label || "Hemisphere", onclick: () => { sort = { column, descending: on ? !sort.descending : Boolean(show[column]) }; renderTable(); head.querySelector(`[data-column=${column}]`).focus({ preventScroll: true }); } }, label, h("i", { "aria-hidden": "true" }, on ? (sort.descending ? "▾" : "▴") : "")),
      );
    }),
  );
  const by = measured();
  const map = value.maps[by];
  const most = map ? Math.max(...map.limits.map(Math.abs), 1e-12) : 1; // bars are as long as colours are strong
  keepRow(body, () => body.replaceChildren(
    ...sorted().map((row) => {
      const chosen = row.parcel === view.parcel;
      return h(
        "tr",
        {
          class: `${row.small ? "ai-few" : ""} ${chosen ? "ai-chosen" : ""} ${isUnder(row) ? "ai-under" : ""}`, "data-parcel": row.parcel,
          title: row.small ? "Fewer than 10 voxels: too few to trust" : null, onclick: () => choose(row.parcel),
        },
        ...columns().map(([column], place) => {
          const text = format(column, row[column]);
          const cell = h("td", { "data-aside": ASIDE.has(column) && column !== by, class: show[column] ? "ai-right ai-number" : "" }, place ? text : rowButton(text, row.label, chosen));
          if (!place && row.small) cell.append(h("small", { class: "ai-few-note" }, " few voxels"));
          if (column === by && map && row[column] !== null) {
            cell.classList.add("ai-measured");
            cell.style.setProperty("--fill", `${Math.min(100, (100 * Math.abs(row[column])) / most)}%`);
            cell.classList.toggle("ai-beyond", Math.abs(row[column]) > most);
          }
          return cell;
        }),
      );
    }),
  ));
};
const reveal = () => {
  const row = body.querySelector("tr.ai-chosen");
  if (!row) return;
  const [top, bottom] = [table.scrollTop + 34, table.scrollTop + table.clientHeight];
  if (row.offsetTop < top || row.offsetTop + row.offsetHeight > bottom) table.scrollTop = row.offsetTop - table.clientHeight / 2;
};
// A map of voxels colours each vertex by itself, whatever its parcel's mean.
const isUnder = (row) => !ofVoxels() && typeof row[measured()] === "number" && isHidden(row[measured()]);
const renderPicked = () => {
  const row = value.rows.find((r) => r.parcel === view.parcel);
  picked.hidden = !row;
  if (!row) return;
  const numbers = ofVoxels()
    ? "mean" in row ? ` · mean ${format("mean", row.mean)} ` : " "
    : ` · share ${withUnit("share", row.share)} · enrichment ${withUnit("enrichment", row.enrichment)} `;
  picked.replaceChildren(
    h("b", {}, row.label), ` · ${format("voxels", row.voxels)} voxels${numbers}${isUnder(row) ? "· below the threshold, not coloured " : ""}`,
    h("button", { type: "button", class: "ai-link", id: "lesion-this", onclick: () => window.dispatchEvent(new CustomEvent("afterimage-lesion", { detail: row.parcel })) }, "lesion this"),
    h("button", { type: "button", class: "ai-link", onclick: () => choose("") }, "clear"),
  );
};
const choose = (parcel) => {
  if (view.parcel === parcel) return;
  view = { ...view, parcel };
  trigger("select", { parcel });
  renderTable();
  renderPicked();
  reveal();
  paint();
};

// ----------------------------------------------------------------------------------------- render
const render = () => {
  const map = value.maps[measured()];
  for (const [control, key] of [[method, view.method], [measure, view.measure], [surface, view.surface], [camera, view.camera], [hemisphere, view.hemisphere]]) control.choose(key);
  const other = view.shows !== IMPORTANCE;
  setText(heading, value.heading);
  shows.replaceChildren(...value.offered.map(([name, label]) => h("option", { value: name, selected: name === view.shows }, label)));
  showsField.hidden = value.offered.length < 2;
  method.hidden = target.hidden = measureSide.hidden = other;
  root.classList.toggle("ai-other-map", other);
  setText(methodText, other ? value.sentences.shows : [value.sentences.method[view.method], value.sentences.target[view.target]].filter(Boolean).join(" "));
  setText(measureText, value.sentences.measure[view.measure] || "");
  atlasField.hidden = value.atlases.length < 2;
  atlas.replaceChildren(...value.atlases.map((name) => h("option", { value: name, selected: name === value.key.atlas }, name)));
  target.querySelector("div").replaceChildren(
    ...value.targets.map((name) => h("label", {}, h("input", { type: "radio", name: "ai-target", value: name, checked: name === view.target, onchange: () => tell({ target: name }) }), h("span", {}, name))),
  );
  target.hidden = other || value.targets.length < 2;
  // A page of plain files has the methods that it was made with.
  if (value.methods) {
    method.querySelectorAll("label").forEach((label) => { label.hidden = !value.methods.includes(label.firstChild.value); });
    method.hidden ||= value.methods.length < 2;
  }
  setText(note, value.note || "");
  note.hidden = !value.note;
  surface.querySelectorAll("label").forEach((label) => { label.hidden = !value.surfaces.includes(label.firstChild.value); });
  const flatPicture = isPicture(view);
  camera.hidden = hemisphere.hidden = zoomers.hidden = sides.hidden = canvas.hidden = flatPicture;
  slices.hidden = slicesNote.hidden = !flatPicture;
  if (flatPicture) {
    const picture = value.picture?.of === view.surface ? value.picture : null;
    setSource(slices, picture?.image);
    slices.alt = picture ? `${picture.note} The table holds the same numbers by parcel.` : "";
    setText(slicesNote, picture?.note || "");
    overlay.hidden = Boolean(picture);
    setText(overlay, "Drawing the picture…");
  }
  root.classList.toggle("ai-no-surface", Boolean(value.no_surface));
  root.dataset.state = value.state;
  help.hidden = other;
  if (help.childElementCount === 1) help.append(...value.sentences.help.map((text) => h("p", {}, text)));
  canvas.setAttribute("aria-label", `Cortical surface coloured by ${other ? view.shows : view.measure}; the table holds the same numbers`);
  if (!map) return;
  if (!columns().some(([column]) => column === sort.column)) sort = map.kind === "labels" ? { column: "name", descending: false } : { column: measured(), descending: true };
  renderBar();
  renderLook(map);
  renderSave();
  renderTable();
  renderPicked();
  reveal();
  draw();
};
follow((next, last) => {
  if (next.vertices !== last?.vertices) vertices = next.vertices && Object.fromEntries(SIDES.map((side) => [side, decode(next.vertices[side])]));
  value = next;
  takeEffects();
  // The server's view counts when it changed there (a link, a record); else what was chosen here.
  if (!last || JSON.stringify(last.view) !== JSON.stringify(next.view)) view = { ...next.view };
  render();
  // While the first map is computed, fetch what it will be drawn with.
  if (!last && !value.no_surface && !isPicture(view) && drawable()) looked().then(() => Promise.all([fetchBrain(), loadPlotly()])).catch(() => {});
});
