// The surface in plotly: the mesh, its colours, turning, and what lies under the pointer.
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
// Most bytes of a page are the mesh and what draws it: they come once the brain is (nearly) in view.
let inView = null;
const looked = () =>
  (inView ??= new Promise((resolve) => {
    const eye = new IntersectionObserver(
      (seen) => { if (seen.some((one) => one.isIntersecting)) { eye.disconnect(); resolve(); } },
      { rootMargin: "100px" },
    );
    eye.observe(stage);
  }));
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

// A surface of the subject's own is everybody else's no more.
const meshKey = () => (view.surface.startsWith("native") ? JSON.stringify([value.key.dataset, value.key.subject, view.surface]) : view.surface);
const fetchParcels = async (name) => {
  const { dataset, subject } = value.key, place = meshKey();
  const key = JSON.stringify([dataset, subject, name, view.surface]);
  if (!payloads.has(key)) {
    const mesh = meshes.get(place);
    payloads.set(key, server.surface({ dataset, subject, atlas: name, surface: view.surface, parcels_only: Boolean(mesh) }).then((payload) => {
      if (payload.problem) throw new Error(payload.problem);
      if (!meshes.has(place) && payload.left.vertices) {
        meshes.set(place, {
          layouts: payload.layouts,
          ...Object.fromEntries(SIDES.map((s) => [s, { vertices: decode(payload[s].vertices), faces: decode(payload[s].faces), background: decode(payload[s].background) }])),
        });
      }
      return { parcels: payload.parcels, left: decode(payload.left.parcel), right: decode(payload.right.parcel), place, borders: {} };
    }));
    payloads.get(key).catch(() => payloads.delete(key));
  }
  const parcels = await payloads.get(key);
  return { ...parcels, key, mesh: meshes.get(parcels.place) };
};
const fetchBrain = () => fetchParcels(value.key.atlas);

const placed = (side) => {
  const [r0, r1, r2] = brain.mesh.layouts[view.camera][side].rotation;
  const v = brain.mesh[side].vertices;
  const n = v.length / 3;
  const [x, y, z] = [new Float32Array(n), new Float32Array(n), new Float32Array(n)];
  for (let i = 0; i < n; i++) {
    const [a, b, c] = [v[3 * i], v[3 * i + 1], v[3 * i + 2]];
    x[i] = r0[0] * a + r0[1] * b + r0[2] * c;
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
  const stops = stopsOf(map);
  const at = vertices?.[side];
  const chosen = brain.parcels.findIndex((p) => p.key === view.parcel);
  const marks = (brain.borders[side] ??= borders(brain.mesh[side].faces, brain[side]));
  const few = new Set(map.small);
  const fills = map.kind === "labels"
    ? brain.parcels.map((p) => rgb(p.colour))
    : map.values.map((v, i) => (v === null || map.flat || few.has(i) || isHidden(v) ? null : colour(stops, map.limits, v)));
  const out = new Array(brain[side].length);
  const cache = new Map();
  brain[side].forEach((parcel, i) => {
    const grey = brain.mesh[side].background[i];
    const inked = marks[i] && parcel >= 0 && parcel === chosen;
    const outline = marks[i] && parcel >= 0 && !at; // a map of voxels knows no borders
    const key = inked ? "ink" : `${at ? at[i] : parcel},${grey},${outline}`;
    let text = cache.get(key);
    if (!text) {
      const own = at ? (Number.isNaN(at[i]) || isHidden(at[i]) ? null : colour(stops, map.limits, at[i])) : fills[parcel];
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

// A scene for each hemisphere, so that both turn about their own middles and never into each other.
const placedSides = () => {
  const { [view.camera]: layout } = brain.mesh.layouts;
  return view.hemisphere === "both" ? [...SIDES].sort((a, b) => layout[a].offset - layout[b].offset) : [view.hemisphere];
};
const sceneName = (place) => (place ? "scene2" : "scene");
let zoom = 1;
// How a hemisphere is scaled so that it is seen whole, from wherever it is looked at: as an
// ellipsoid of its size. An orthographic scene of plotly is FILL high at the distance of EYE.
const ratios = (halves, eye = EYE) => {
  const [wide, deep, tall] = brain.mesh.layouts[view.camera].single;
  const box = canvas.getBoundingClientRect();
  const around = Math.atan2(eye.x, -eye.y), above = Math.asin(eye.z / Math.hypot(eye.x, eye.y, eye.z));
  const oblique = 1 + 0.12 * Math.abs(Math.sin(2 * around)); // it is boxier than an ellipsoid
  const seenWide = oblique * Math.hypot(wide * Math.cos(around), deep * Math.sin(around));
  const seenDeep = Math.hypot(wide * Math.sin(around), deep * Math.cos(around));
  const seenTall = Math.hypot(tall * Math.cos(above), seenDeep * Math.sin(above));
  const size = zoom * FILL * Math.min(1 / seenTall, (share(halves) * box.width) / box.height / seenWide);
  return { x: size * wide, y: size * Math.max(deep, 1), z: size * tall }; // a flat map has no depth
};
// The part of the width that a scene gets: its half, drawn in where the hemisphere is narrow.
const share = (halves) => {
  const [wide, , tall] = brain.mesh.layouts[view.camera].single;
  const box = canvas.getBoundingClientRect();
  const needed = Math.min(1 / halves, ((1.05 * box.height) / box.width) * (wide / tall));
  return halves === 1 ? 1 : (needed + 1 / halves) / 2;
};
const scene = (place, halves) => {
  const wide = share(halves), from = 0.5 + (place - halves / 2) * wide;
  const axis = { visible: false, showspikes: false };
  return {
    domain: { x: [from, from + wide], y: [0, 1] },
    xaxis: axis, yaxis: axis, zaxis: axis, aspectmode: "manual", aspectratio: ratios(halves),
    camera: { eye: { ...EYE }, up: { x: 0, y: 0, z: 1 }, center: { x: 0, y: 0, z: 0 }, projection: { type: "orthographic" } },
    dragmode: view.surface === "flat" ? "pan" : "orbit", hovermode: "closest", bgcolor: "rgba(0,0,0,0)",
  };
};
const traceOf = (side, place) => {
  const f = brain.mesh[side].faces;
  const flat = view.surface === "flat";
  const pick = (k) => f.filter((_, i) => i % 3 === k);
  return {
    type: "mesh3d", name: side, scene: sceneName(place), ...placed(side), i: pick(0), j: pick(1), k: pick(2), vertexcolor: colours(side),
    hoverinfo: "none",
    flatshading: false,
    lighting: flat ? { ambient: 1, diffuse: 0, specular: 0, fresnel: 0 } : { ambient: 0.86, diffuse: 0.24, specular: 0.03, roughness: 0.7, fresnel: 0.02, vertexnormalsepsilon: 0, facenormalsepsilon: 0 },
    lightposition: { x: -300, y: -1000, z: 500 },
  };
};
const every = (change) => plot && window.Plotly.relayout(plot, Object.fromEntries(placedSides().flatMap((_, place) => Object.entries(change).map(([key, v]) => [`${sceneName(place)}.${key}`, v]))));
const looking = (eye) => ({ camera: { ...scene(0, 1).camera, eye }, aspectratio: ratios(placedSides().length, eye) });
const eyeNow = () => plot.layout.scene.camera?.eye || EYE;
const face = () => every(looking({ ...EYE }));
const zoomBy = (by) => {
  if (!plot) return;
  zoom = by ? Math.min(6, Math.max(0.5, zoom * by)) : 1;
  if (by) every({ aspectratio: ratios(placedSides().length, eyeNow()) });
  else face();
};
const turnBy = (round, up) => {
  if (!plot) return;
  const eye = eyeNow();
  const far = Math.hypot(eye.x, eye.y, eye.z);
  const around = Math.atan2(eye.y, eye.x) + round;
  const above = Math.max(-1.55, Math.min(1.55, Math.asin(eye.z / far) + up));
  const flat = far * Math.cos(above);
  every(looking({ x: flat * Math.cos(around), y: flat * Math.sin(around), z: far * Math.sin(above) }));
};
const STEP = Math.PI / 12;
const press = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target !== stage) return;
  const rows = sorted(), at = rows.findIndex((row) => row.parcel === view.parcel);
  const act = {
    ArrowLeft: () => turnBy(-STEP, 0), ArrowRight: () => turnBy(STEP, 0), ArrowUp: () => turnBy(0, STEP), ArrowDown: () => turnBy(0, -STEP),
    "+": () => zoomBy(1.25), "=": () => zoomBy(1.25), "-": () => zoomBy(0.8), 0: () => zoomBy(0),
    "[": () => threshold.step(-1), "]": () => threshold.step(1),
    ",": () => choose(rows[Math.max(0, at - 1)].parcel), ".": () => choose(rows[Math.min(rows.length - 1, at + 1)].parcel), Escape: () => choose(""),
  }[event.key];
  if (!act || !value) return;
  event.preventDefault();
  event.stopPropagation();
  act();
};

let drawn = ""; // which geometry the plot shows
let drawing = Promise.resolve();
const facing = () => JSON.stringify([brain.key, view.camera, view.hemisphere]);
const geometry = () => `${facing()} ${outlined?.key}`;
const draw = (always) => {
  drawing = drawing.then(() => drawNow(always)).catch((error) => {
    overlay.hidden = false;
    setText(overlay, `The surface cannot be drawn here (${error.message}); the table says the same.`);
  });
  return drawing;
};
const drawNow = async () => {
  if (!value || value.no_surface || isPicture(view) || !Object.keys(value.maps).length) return;
  if (!drawable()) {
    overlay.hidden = false;
    setText(overlay, "This browser offers no WebGL, so the surface cannot be drawn; the table says the same.");
    return;
  }
  await looked();
  [brain] = await Promise.all([fetchBrain(), loadPlotly()]);
  outlined = await fetchOutlines();
  if (drawn === geometry() && plot) {
    paint();
    return;
  }
  const now = placedSides();
  const seen = plot && drawn.startsWith(facing()) ? eyeNow() : null; // only the outlines are others
  if (!seen) zoom = 1;
  const layout = {
    ...Object.fromEntries(now.map((_, place) => [sceneName(place), scene(place, now.length)])), margin: { l: 0, r: 0, t: 0, b: 0 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest", uirevision: facing(),
  };
  const config = { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: false };
  await window.Plotly.react(canvas, [...now.map(traceOf), ...now.map(outlineOf)], layout, config);
  if (seen) every(looking(seen));
  sides.replaceChildren(...now.map((side) => h("span", {}, side === "left" ? "L" : "R")));
  sides.style.width = `${100 * now.length * share(now.length)}%`;
  drawn = geometry();
  if (!plot) attach();
  plot = canvas;
  overlay.hidden = true;
};
const paint = () => {
  if (!plot || !brain || isPicture(view) || !Object.keys(value.maps).length) return;
  const now = placedSides();
  window.Plotly.restyle(plot, { vertexcolor: now.map(colours) }, now.map((_, place) => place));
};

// ---------------------------------------------------------------------------------- hover, click
const parcelAt = (point) => {
  const side = placedSides()[point.curveNumber];
  const index = brain[side][point.pointNumber];
  return index < 0 ? null : brain.parcels[index];
};
const valueAt = (point, row) => {
  const v = vertices?.[placedSides()[point.curveNumber]][point.pointNumber];
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
  let turned = null;
  canvas.on("plotly_relayouting", (change) => {
    // What one hemisphere does under the hand, the other does beside it.
    const [key, seen] = Object.entries(change).find(([name]) => /^scene2?[.]camera$/.test(name)) || [];
    if (!key || view.surface === "flat" && view.hemisphere !== "both") return;
    if (!turned) requestAnimationFrame(() => { const change = turned; turned = null; every(change); });
    turned = { camera: { ...seen }, ...(view.surface === "flat" ? {} : { aspectratio: ratios(placedSides().length, seen.eye) }) };
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

