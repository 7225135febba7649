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
const tell = (change) => {
  view = { ...view, ...change };
  if (["shows", "method", "target", "atlas"].some((key) => key in change)) waits();
  trigger("view", change);
};
const words = (list) => Object.fromEntries(list.map((w) => [w, w[0].toUpperCase() + w.slice(1)]));
const method = segment("method", "Method", { gradient: "Gradient", "gradient x input": "Gradient × input", "integrated gradients": "Integrated" }, (key) => tell({ method: key }));
const measure = segment("measure", "Measure", words(["enrichment", "share", "mean", "signed"]), (key) => { tell({ measure: key }); sort = { column: key, descending: true }; render(); });
const surface = segment("surface", "Surface", words(["inflated", "pial", "flat"]), (key) => { tell({ surface: key }); draw(true); });
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
const bar = h("div", { class: "ai-colourbar" }, h("div", { class: "ai-ramp" }, ramp, tick), h("p", { class: "ai-ends ai-number" }, low, unit, high));
const picked = h("p", { class: "ai-picked", "aria-live": "polite" });
const stage = h("div", { class: "ai-stage" }, canvas, overlay, tip);
const surfaceSide = h("div", { class: "ai-surface-side" }, h("div", { class: "ai-controls ai-bare" }, camera, surface, hemisphere), stage, bar, picked);
const head = h("tr");
const body = h("tbody");
const table = h("div", { class: "ai-table", tabindex: "0", "aria-label": "Numbers per parcel" }, h("table", {}, h("thead", {}, head), body));
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
const columns = () => COLUMNS.filter(([column]) => value.rows.some((row) => column in row && (column !== "known" || row.known < row.voxels)));
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
  return [...value.rows].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
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
        { scope: "col", class: typeof value.rows[0]?.[column] === "number" || show[column] ? "ai-right" : "", "aria-sort": on ? (sort.descending ? "descending" : "ascending") : "none" },
        h("button", { type: "button", "data-column": column, "aria-label": label || "Hemisphere", onclick: () => { sort = { column, descending: on ? !sort.descending : Boolean(show[column]) }; renderTable(); } }, label, h("i", { "aria-hidden": "true" }, on ? (sort.descending ? "▾" : "▴") : "")),
      );
    }),
  );
  const by = measured();
  const map = value.maps[by];
  const most = Math.max(...value.rows.map((r) => Math.abs(r[by] ?? 0)), 1e-12);
  body.replaceChildren(
    ...sorted().map((row) => {
      const chosen = row.parcel === view.parcel;
      return h(
        "tr",
        {
          class: `${row.small ? "ai-few" : ""} ${chosen ? "ai-chosen" : ""}`, "data-parcel": row.parcel, "aria-selected": chosen,
          title: row.small ? "Fewer than 10 voxels: too few to trust" : null, onclick: () => choose(row.parcel),
        },
        ...columns().map(([column]) => {
          const cell = h("td", { class: show[column] ? "ai-right ai-number" : "" }, format(column, row[column]));
          if (column === by && map && row[column] !== null) {
            cell.classList.add("ai-measured");
            cell.style.setProperty("--fill", `${(100 * Math.abs(row[column])) / most}%`);
          }
          return cell;
        }),
      );
    }),
  );
};
const reveal = () => {
  const row = body.querySelector("tr.ai-chosen");
  if (!row) return;
  const [top, bottom] = [table.scrollTop + 34, table.scrollTop + table.clientHeight];
  if (row.offsetTop < top || row.offsetTop + row.offsetHeight > bottom) table.scrollTop = row.offsetTop - table.clientHeight / 2;
};
const renderPicked = () => {
  const row = value.rows.find((r) => r.parcel === view.parcel);
  picked.hidden = !row;
  if (!row) return;
  const numbers = ofVoxels()
    ? "mean" in row ? ` · mean ${format("mean", row.mean)} ` : " "
    : ` · share ${withUnit("share", row.share)} · enrichment ${withUnit("enrichment", row.enrichment)} `;
  picked.replaceChildren(
    h("b", {}, row.label), ` · ${format("voxels", row.voxels)} voxels${numbers}`,
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

// ---------------------------------------------------------------------------------------- surface
const TYPES = { float32: Float32Array, int16: Int16Array, uint16: Uint16Array, uint8: Uint8Array, int32: Int32Array };
const decode = ({ dtype, data }) => new TYPES[dtype](Uint8Array.from(atob(data), (c) => c.charCodeAt(0)).buffer);

const hasWebGL = () => {
  try {
    const context = document.createElement("canvas").getContext("webgl");
    context?.getExtension("WEBGL_lose_context")?.loseContext();
    return Boolean(context);
  } catch {
    return false;
  }
};
let webgl = null;
const drawable = () => (webgl ??= hasWebGL());
const loadPlotly = () => {
  if (window.Plotly) return Promise.resolve();
  window.afterimagePlotly ??= new Promise((resolve, reject) => {
    const script = h("script", { src: value.plotly, async: true });
    script.onload = resolve;
    script.onerror = () => reject(new Error("plotly.min.js could not be loaded"));
    document.head.append(script);
  });
  return window.afterimagePlotly;
};

const fetchBrain = async () => {
  const { dataset, subject, atlas: name } = value.key;
  const key = JSON.stringify([dataset, subject, name, view.surface]);
  if (!payloads.has(key)) {
    const mesh = meshes.get(view.surface);
    payloads.set(key, server.surface({ dataset, subject, atlas: name, surface: view.surface, parcels_only: Boolean(mesh) }).then((payload) => {
      if (payload.problem) throw new Error(payload.problem);
      if (!meshes.has(view.surface) && payload.left.vertices) {
        meshes.set(payload.surface, {
          layouts: payload.layouts,
          ...Object.fromEntries(SIDES.map((s) => [s, { vertices: decode(payload[s].vertices), faces: decode(payload[s].faces), background: decode(payload[s].background) }])),
        });
      }
      return { parcels: payload.parcels, colours: payload.colours, left: decode(payload.left.parcel), right: decode(payload.right.parcel), surface: payload.surface, borders: {} };
    }));
    payloads.get(key).catch(() => payloads.delete(key));
  }
  const parcels = await payloads.get(key);
  return { ...parcels, key, mesh: meshes.get(parcels.surface) };
};

const placed = (side) => {
  const layout = brain.mesh.layouts[view.camera];
  const [r0, r1, r2] = layout[side].rotation;
  const shift = view.hemisphere === "both" ? layout[side].offset : 0;
  const v = brain.mesh[side].vertices;
  const n = v.length / 3;
  const [x, y, z] = [new Float32Array(n), new Float32Array(n), new Float32Array(n)];
  for (let i = 0; i < n; i++) {
    const [a, b, c] = [v[3 * i], v[3 * i + 1], v[3 * i + 2]];
    x[i] = r0[0] * a + r0[1] * b + r0[2] * c + shift;
    y[i] = r1[0] * a + r1[1] * b + r1[2] * c;
    z[i] = r2[0] * a + r2[1] * b + r2[2] * c;
  }
  return { x, y, z };
};

const borders = (faces, parcels) => {
  // Vertices of a parcel with a neighbour outside it: the parcel's outline.
  const marks = new Uint8Array(parcels.length);
  for (let i = 0; i < faces.length; i += 3) {
    const [a, b, c] = [faces[i], faces[i + 1], faces[i + 2]];
    if (parcels[a] !== parcels[b] || parcels[b] !== parcels[c]) marks[a] = marks[b] = marks[c] = 1;
  }
  return marks;
};
const INK = [23, 26, 30];
const OUTLINE = 0.8; // brightness of the border between parcels
const colours = (side) => {
  const map = value.maps[measured()];
  const stops = brain.colours[map.kind];
  const at = vertices?.[side];
  const chosen = brain.parcels.findIndex((p) => p.key === view.parcel);
  const marks = (brain.borders[side] ??= borders(brain.mesh[side].faces, brain[side]));
  const few = new Set(map.small);
  const fills = map.kind === "labels"
    ? brain.parcels.map((p) => rgb(p.colour))
    : map.values.map((v, i) => (v === null || map.flat || few.has(i) ? null : colour(stops, map.limits, v)));
  const out = new Array(brain[side].length);
  const cache = new Map();
  brain[side].forEach((parcel, i) => {
    const grey = brain.mesh[side].background[i];
    const inked = marks[i] && parcel >= 0 && parcel === chosen;
    const outline = marks[i] && parcel >= 0 && !at; // a map of voxels knows no borders
    const key = inked ? "ink" : `${at ? at[i] : parcel},${grey},${outline}`;
    let text = cache.get(key);
    if (!text) {
      const own = at ? (Number.isNaN(at[i]) ? null : colour(stops, map.limits, at[i])) : fills[parcel];
      const fill = parcel < 0 && !at ? null : own;
      const shade = (1 - DARKEN * (1 - grey / 204)) * (outline ? OUTLINE : 1);
      const c = inked ? INK : fill ? fill.map((x) => x * shade) : [grey + 22, grey + 21, grey + 19];
      text = `rgb(${c.map((x) => Math.round(Math.min(255, x))).join(",")})`;
      cache.set(key, text);
    }
    out[i] = text;
  });
  return out;
};

const scene = () => {
  const axis = { visible: false, showspikes: false };
  const layout = brain.mesh.layouts[view.camera];
  const [wide, deep, tall] = view.hemisphere === "both" ? layout.extent : layout.single;
  const box = canvas.getBoundingClientRect();
  // An orthographic scene of plotly is FILL high (in its own units) at the distance of EYE.
  const size = FILL * Math.min(1 / tall, box.width / box.height / wide);
  return {
    xaxis: axis, yaxis: axis, zaxis: axis, aspectmode: "manual",
    aspectratio: { x: size * wide, y: size * Math.max(deep, 1), z: size * tall }, // a flat map has no depth
    camera: { eye: { ...EYE }, up: { x: 0, y: 0, z: 1 }, center: { x: 0, y: 0, z: 0 }, projection: { type: "orthographic" } },
    dragmode: view.surface === "flat" ? "pan" : "orbit", hovermode: "closest", bgcolor: "rgba(0,0,0,0)",
  };
};
const traceOf = (side) => {
  const f = brain.mesh[side].faces;
  const flat = view.surface === "flat";
  const pick = (k) => f.filter((_, i) => i % 3 === k);
  return {
    type: "mesh3d", ...placed(side), i: pick(0), j: pick(1), k: pick(2), vertexcolor: colours(side),
    hoverinfo: "none", visible: view.hemisphere === "both" || view.hemisphere === side,
    flatshading: false,
    lighting: flat ? { ambient: 1, diffuse: 0, specular: 0, fresnel: 0 } : { ambient: 0.86, diffuse: 0.24, specular: 0.03, roughness: 0.7, fresnel: 0.02, vertexnormalsepsilon: 0, facenormalsepsilon: 0 },
    lightposition: { x: -300, y: -1000, z: 500 },
  };
};
const face = () => plot && window.Plotly.relayout(plot, { "scene.camera": scene().camera });

let drawn = ""; // which geometry the plot shows
let drawing = Promise.resolve();
const geometry = () => JSON.stringify([brain.key, view.camera, view.hemisphere]);
const draw = (always) => {
  drawing = drawing.then(() => drawNow(always)).catch((error) => {
    overlay.hidden = false;
    setText(overlay, `The surface cannot be drawn here (${error.message}); the table says the same.`);
  });
  return drawing;
};
const drawNow = async () => {
  if (!value || value.no_surface || !Object.keys(value.maps).length) return;
  if (!drawable()) {
    overlay.hidden = false;
    setText(overlay, "This browser offers no WebGL, so the surface cannot be drawn; the table says the same.");
    return;
  }
  const [next] = await Promise.all([fetchBrain(), loadPlotly()]);
  brain = next;
  if (drawn === geometry() && plot) {
    paint();
    return;
  }
  const layout = {
    scene: scene(), margin: { l: 0, r: 0, t: 0, b: 0 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest", uirevision: geometry(),
  };
  const config = { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: false };
  await window.Plotly.react(canvas, SIDES.map(traceOf), layout, config);
  drawn = geometry();
  if (!plot) attach();
  plot = canvas;
  overlay.hidden = true;
};
const paint = () => {
  if (!plot || !brain || !Object.keys(value.maps).length) return;
  window.Plotly.restyle(plot, { vertexcolor: SIDES.map(colours) });
};

// ---------------------------------------------------------------------------------- hover, click
const parcelAt = (point) => {
  const side = SIDES[point.curveNumber];
  const index = brain[side][point.pointNumber];
  return index < 0 ? null : brain.parcels[index];
};
const valueAt = (point, row) => {
  const v = vertices?.[SIDES[point.curveNumber]][point.pointNumber];
  if (v !== undefined) return Number.isNaN(v) ? "no voxel" : format("mean", v);
  return value.maps[measured()].kind === "labels" ? "" : withUnit(measured(), row?.[measured()]);
};
const attach = () => {
  let down = null;
  canvas.on("plotly_hover", ({ points }) => {
    hovered = parcelAt(points[0]);
    const row = hovered && value.rows.find((r) => r.parcel === hovered.key);
    const text = row || vertices ? valueAt(points[0], row) : "";
    tip.hidden = (!row && !text) || !stage.matches(":hover");
    tip.replaceChildren(row ? h("b", {}, row.label) : "", h("span", { class: "ai-number" }, ` ${text}`), row?.small ? h("small", {}, " few voxels") : "");
  });
  canvas.on("plotly_unhover", () => { hovered = null; tip.hidden = true; });
  canvas.on("plotly_click", ({ points }) => { const p = parcelAt(points[0]); if (p) choose(p.key); });
  stage.addEventListener("pointerleave", () => { tip.hidden = true; });
  stage.addEventListener("pointermove", (event) => {
    const box = stage.getBoundingClientRect();
    tip.style.left = `${Math.min(event.clientX - box.left + 14, box.width - 150)}px`;
    tip.style.top = `${event.clientY - box.top + 16}px`;
  });
  stage.addEventListener("pointerdown", (event) => { down = [event.clientX, event.clientY]; }, true);
  stage.addEventListener("pointerup", (event) => {
    const moved = down && Math.hypot(event.clientX - down[0], event.clientY - down[1]);
    if (hovered && moved !== null && moved < 4) choose(hovered.key);
    down = null;
  }, true);
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
  setText(note, value.note || "");
  note.hidden = !value.note;
  root.classList.toggle("ai-no-surface", Boolean(value.no_surface));
  root.dataset.state = value.state;
  help.hidden = other;
  if (help.childElementCount === 1) help.append(...value.sentences.help.map((text) => h("p", {}, text)));
  canvas.setAttribute("aria-label", `Cortical surface coloured by ${other ? view.shows : view.measure}; the table holds the same numbers`);
  if (!map) return;
  if (!columns().some(([column]) => column === sort.column)) sort = map.kind === "labels" ? { column: "name", descending: false } : { column: measured(), descending: true };
  const stops = value.colours[map.kind] || ["transparent"];
  ramp.style.background = `linear-gradient(to right, ${stops.join(",")})`;
  setText(low, withUnit(measured(), map.limits[0]));
  setText(high, withUnit(measured(), map.limits[1]));
  setText(unit, map.title);
  tick.hidden = map.reference === null;
  if (map.reference !== null) tick.style.left = `${(100 * (map.reference - map.limits[0])) / (map.limits[1] - map.limits[0])}%`;
  bar.hidden = map.flat || map.kind === "labels" || Boolean(value.no_surface);
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
  if (!last && !value.no_surface && drawable()) Promise.all([fetchBrain(), loadPlotly()]).catch(() => {});
});
