// How the map is drawn: what a threshold leaves out, the colours, and the outlines of another atlas.
const PALETTE_LABELS = {
  YlOrRd: "Yellow to red", viridis: "Viridis", cividis: "Cividis", RdBu: "Blue and red", PuOr: "Purple and orange", vik: "Vik: blue and brown",
};
const signed = (map) => map.kind === "diverging";
const stopsOf = (map) => value.palettes[map.kind]?.[view[map.kind]] || ["transparent"];
const isHidden = (v) => view.threshold > 0 && Math.abs(v) < view.threshold;
const rounded = (v) => Number(v.toPrecision(3));
const most = (map) => Math.max(...map.limits.map(Math.abs));
const between = (map) => `${signed(map) ? `between ${withUnit(measured(), -view.threshold)} and ` : "below "}${withUnit(measured(), view.threshold)}`;

// What the threshold leaves out, in words: of the vertices where the map has any, else of the parcels.
const hiddenText = (map) => {
  if (!view.threshold) return "Every value is coloured.";
  if (isPicture(view)) return value.picture?.hidden || "…"; // whoever draws it counts its voxels
  const few = new Set(map.small);
  const known = vertices ? SIDES.flatMap((side) => [...vertices[side]]).filter((v) => !Number.isNaN(v)) : map.values.filter((v, i) => v !== null && !few.has(i));
  const lost = known.filter(isHidden).length;
  const share = vertices ? `${known.length ? Math.round((100 * lost) / known.length) : 0} % of the mapped surface` : `${lost} of ${known.length} parcels`;
  return `Not coloured: ${share}, ${between(map)}.`;
};

// -------------------------------------------------------------------------------------- threshold
const threshold = (() => {
  const slider = h("input", { type: "range", min: 0, step: "any", id: "threshold", "aria-describedby": "threshold-text", oninput: () => set(slider.valueAsNumber), onchange: () => tell({ threshold: view.threshold }) });
  const shown = h("output", { for: "threshold", class: "ai-number" });
  const text = h("p", { class: "ai-small", id: "threshold-text", role: "status" });
  const field = h("label", { class: "ai-threshold" }, h("span", {}, "Threshold"), slider, shown);
  const node = h("div", {}, field, text);
  let top = 1;
  const write = () => {
    const map = value.maps[measured()];
    top = most(map);
    slider.max = top;
    slider.value = view.threshold;
    const written = view.threshold ? withUnit(measured(), view.threshold) : "none";
    setText(shown, written);
    slider.setAttribute("aria-valuetext", written);
    setText(text, hiddenText(map));
    const end = (v) => (100 * (v - map.limits[0])) / (map.limits[1] - map.limits[0] || 1);
    const [from, to] = [-view.threshold, view.threshold].map((v) => Math.max(0, Math.min(100, end(v))));
    veil.hidden = !view.threshold;
    veil.style.left = `${from}%`;
    veil.style.width = `${to - from}%`;
  };
  const set = (v) => {
    view = { ...view, threshold: rounded(Math.max(0, v)) };
    write();
    renderTable();
    renderPicked();
    paint();
  };
  const step = (by) => {
    if (node.hidden || bar.hidden) return;
    set(Math.min(top, view.threshold + (by * top) / 20));
    tell({ threshold: view.threshold });
  };
  return { node, write, step };
})();
const veil = h("u", { hidden: true }); // over the part of the colour bar that is not coloured

// ----------------------------------------------------------------------------- colours, outlines
const palette = h("select", { "aria-label": "Colours", id: "palette", onchange: () => { tell({ [palette.dataset.kind]: palette.value }); renderBar(); paint(); } });
const paletteField = h("label", { class: "ai-atlas" }, "Colours", palette);
const outline = h("select", { "aria-label": "Outlines of another atlas", id: "outlines", onchange: () => { tell({ outlines: outline.value }); draw(); } });
const outlineField = h("label", { class: "ai-atlas" }, "Outlines", outline);
const renderLook = (map) => {
  const names = Object.keys(value.palettes[map.kind] || {});
  palette.dataset.kind = map.kind;
  palette.replaceChildren(...names.map((name) => h("option", { value: name, selected: name === view[map.kind] }, PALETTE_LABELS[name] || name)));
  paletteField.hidden = !names.length;
  const others = value.atlases.filter((name) => name !== value.key.atlas);
  outline.replaceChildren(...["", ...others].map((name) => h("option", { value: name, selected: name === view.outlines }, name || "none")));
  outlineField.hidden = !others.length || isPicture(view);
};
const renderBar = () => {
  const map = value.maps[measured()];
  ramp.style.background = `linear-gradient(to right, ${stopsOf(map).join(",")})`;
  setText(low, (map.beyond[0] ? "≤ " : "") + withUnit(measured(), map.limits[0]));
  setText(high, (map.beyond[1] ? "≥ " : "") + withUnit(measured(), map.limits[1]));
  pointed(ramp, map.beyond);
  setText(unit, map.title);
  tick.hidden = map.reference === null;
  if (map.reference !== null) tick.style.left = `${(100 * (map.reference - map.limits[0])) / (map.limits[1] - map.limits[0])}%`;
  bar.hidden = map.flat || map.kind === "labels" || Boolean(value.no_surface);
  threshold.node.hidden = map.flat || map.kind === "labels";
  if (!threshold.node.hidden) threshold.write();
};

let outlined = null; // the parcels of the second atlas at each vertex
const fetchOutlines = async () => (view.outlines && value.atlases.includes(view.outlines) ? fetchParcels(view.outlines) : null);
// Lines where parcels meet, from the middle of one edge to the middle of another, a little above the
// surface so that it does not swallow them.
const LIFT = 0.7; // mm
const outlineOf = (side, place) => {
  const { x, y, z } = placed(side), f = brain.mesh[side].faces;
  const parcels = outlined?.[side];
  const normals = [x, y, z].map((axis) => new Float32Array(axis.length));
  for (let i = 0; parcels && i < f.length; i += 3) {
    const [a, b, c] = [f[i], f[i + 1], f[i + 2]];
    const [u, w] = [b, c].map((k) => [x[k] - x[a], y[k] - y[a], z[k] - z[a]]);
    const face = [u[1] * w[2] - u[2] * w[1], u[2] * w[0] - u[0] * w[2], u[0] * w[1] - u[1] * w[0]];
    for (const k of [a, b, c]) normals.forEach((axis, n) => { axis[k] += face[n]; });
  }
  const lifted = [x, y, z].map((axis, n) => (k) => axis[k] + (LIFT * normals[n][k]) / (Math.hypot(normals[0][k], normals[1][k], normals[2][k]) || 1));
  const line = [[], [], []];
  for (let i = 0; parcels && i < f.length; i += 3) {
    const corners = [f[i], f[i + 1], f[i + 2]];
    const edges = [[0, 1], [1, 2], [2, 0]].map(([p, q]) => [corners[p], corners[q]]).filter(([p, q]) => parcels[p] !== parcels[q]);
    const middle = edges.length === 3 ? corners : null; // where three parcels meet, to their middle
    const ends = edges.map(([p, q]) => lifted.map((at) => (at(p) + at(q)) / 2));
    const centre = middle && lifted.map((at) => (at(middle[0]) + at(middle[1]) + at(middle[2])) / 3);
    const pairs = centre ? ends.map((end) => [end, centre]) : ends.length === 2 ? [ends] : [];
    for (const [from, to] of pairs) line.forEach((axis, n) => axis.push(from[n], to[n], null));
  }
  return {
    type: "scatter3d", mode: "lines", scene: sceneName(place), x: line[0], y: line[1], z: line[2], connectgaps: false,
    hoverinfo: "skip", line: { color: "#26292e", width: 3 },
  };
};

// ------------------------------------------------------------------------------------------ files
const each = h("select", { "aria-label": "Values to save", id: "save-values" }, h("option", { value: "" }, "as drawn"), h("option", { value: "voxels." }, "of each voxel"));
const eachField = h("label", { class: "ai-atlas" }, "Values", each);
const saveRow = h("div", { class: "ai-menu-row" });
const saved = h("p", { class: "ai-small", role: "status" });
const save = h("details", { class: "ai-help", id: "save-map" }, h("summary", {}, "Save the map as a file"), h("div", { class: "ai-save" }, eachField, saveRow), saved);
const renderSave = () => {
  save.hidden = !value.files.length;
  eachField.hidden = view.shows !== IMPORTANCE;
  const prefix = () => (eachField.hidden ? "" : each.value);
  saveRow.replaceChildren(...value.files.map(([form, label]) => h("button", { type: "button", "data-form": form, onclick: () => { setText(saved, `Preparing ${label}…`); setTimeout(() => setText(saved, ""), 4000); trigger("export", { format: prefix() + form }); } }, label)));
};
