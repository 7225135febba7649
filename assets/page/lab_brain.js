// Small still views of the cortical surface on a plain canvas: no WebGL, for maps side by side.
const ARRAYS = { float32: Float32Array, int16: Int16Array, uint16: Uint16Array, uint8: Uint8Array };
const unpack = ({ dtype, data }) => new ARRAYS[dtype](Uint8Array.from(atob(data), (c) => c.charCodeAt(0)).buffer);
const HALVES = ["left", "right"];
window.afterimageSurfaces ??= new Map(); // one for all components of the page
const surfaceOf = (key) => {
  const name = JSON.stringify(key);
  const known = window.afterimageSurfaces;
  if (!known.has(name)) {
    known.set(name, server.surface({ ...key, surface: "inflated" }).then((payload) => {
      if (payload.problem) throw new Error(payload.problem);
      for (const half of HALVES) payload[half] = Object.fromEntries(Object.entries(payload[half]).map(([part, array]) => [part, unpack(array)]));
      return payload;
    }));
    known.get(name).catch(() => known.delete(name));
  }
  return known.get(name);
};
const hex = (text) => [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16));
const shadeOf = (stops, [low, high], v) => {
  const at = Math.min(1, Math.max(0, (v - low) / (high - low || 1))) * (stops.length - 1);
  const i = Math.min(stops.length - 2, Math.floor(at));
  const [a, b] = [hex(stops[i]), hex(stops[i + 1])];
  return a.map((x, k) => x + (b[k] - x) * (at - i));
};
// `values`: parcel -> number or null; or `vertices`: {left, right} of numbers, NaN for nothing.
const drawBrain = (canvas, brain, { values, vertices, kind, limits, camera }) => {
  const ratio = Math.min(2, window.devicePixelRatio || 1) * 1.5;
  const [wide, , tall] = brain.layouts[camera].extent;
  const width = (canvas.width = Math.round(canvas.clientWidth * ratio) || 300);
  const height = (canvas.height = Math.round((width * tall) / wide) + 2);
  const pen = canvas.getContext("2d");
  const size = (width - 4) / wide;
  const stops = brain.colours[kind];
  const fills = values && brain.parcels.map((p) => (values[p.key] === null || values[p.key] === undefined ? null : shadeOf(stops, limits, values[p.key])));
  const faces = [];
  for (const half of HALVES) {
    const { rotation, offset } = brain.layouts[camera][half];
    const { vertices: v, faces: f, parcel, background } = brain[half];
    const at = vertices?.[half];
    const n = v.length / 3, points = new Float32Array(3 * n);
    for (let i = 0; i < n; i++) for (let k = 0; k < 3; k++) {
      const r = rotation[k];
      points[3 * i + k] = r[0] * v[3 * i] + r[1] * v[3 * i + 1] + r[2] * v[3 * i + 2] + (k ? 0 : offset);
    }
    for (let i = 0; i < f.length; i += 3) {
      const [a, b, c] = [3 * f[i], 3 * f[i + 1], 3 * f[i + 2]];
      const [ux, uy, uz] = [points[b] - points[a], points[b + 1] - points[a + 1], points[b + 2] - points[a + 2]];
      const [wx, wy, wz] = [points[c] - points[a], points[c + 1] - points[a + 1], points[c + 2] - points[a + 2]];
      const [nx, ny, nz] = [uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx];
      if (ny >= 0) continue; // it looks away
      const own = at ? (Number.isNaN(at[f[i]]) ? null : shadeOf(stops, limits, at[f[i]])) : parcel[f[i]] < 0 ? null : fills[parcel[f[i]]];
      const grey = background[f[i]];
      const light = 0.72 + 0.28 * Math.min(1, -ny / (Math.hypot(nx, ny, nz) || 1));
      const edge = !at && (parcel[f[i]] !== parcel[f[i + 1]] || parcel[f[i]] !== parcel[f[i + 2]]) ? 0.85 : 1;
      const rgb = (own || [grey + 22, grey + 21, grey + 19]).map((x) => Math.round(Math.min(255, x * (own ? light * edge * (0.9 + 0.1 * grey / 204) : light))));
      faces.push([points[a + 1] + points[b + 1] + points[c + 1], a, b, c, points, `rgb(${rgb.join(",")})`]);
    }
  }
  faces.sort((p, q) => q[0] - p[0]);
  pen.lineWidth = 0.8;
  for (const [, a, b, c, points, fill] of faces) {
    pen.beginPath();
    for (const [k, i] of [a, b, c].entries()) pen[k ? "lineTo" : "moveTo"](width / 2 + size * points[i], height / 2 - size * points[i + 2]);
    pen.closePath();
    pen.fillStyle = pen.strokeStyle = fill;
    pen.fill();
    pen.stroke();
  }
};
// A figure of one map from several sides; `map` is {key, values, kind, limits, title, problem}.
const brainFigure = (cameras, label) => {
  const canvases = cameras.map(() => h("canvas", { role: "img", "aria-label": label }));
  const ramp = h("i"), low = h("span"), title = h("span"), high = h("span");
  const bar = h("div", { class: "ai-small-bar", hidden: true }, ramp, h("p", { class: "ai-ends ai-number" }, low, title, high));
  const note = h("p", { class: "ai-small" });
  const node = h("div", { class: "ai-small-brain" }, h("div", {}, canvases), bar, note);
  const draw = async (map) => {
    node.hidden = !map;
    if (!map) return;
    setText(note, map.problem || "");
    if (map.problem) { canvases.forEach((c) => { c.hidden = true; }); bar.hidden = true; return; }
    try {
      const brain = await surfaceOf(map.key);
      const vertices = map.vertices && Object.fromEntries(HALVES.map((half) => [half, unpack(map.vertices[half])]));
      canvases.forEach((canvas, i) => { canvas.hidden = false; drawBrain(canvas, brain, { ...map, vertices, camera: cameras[i] }); });
      ramp.style.background = `linear-gradient(to right, ${brain.colours[map.kind].join(",")})`;
      setText(low, short(map.limits[0]));
      setText(high, short(map.limits[1]));
      setText(title, map.title);
      bar.hidden = false;
    } catch (error) {
      setText(note, error.message);
    }
  };
  return { node, draw };
};
