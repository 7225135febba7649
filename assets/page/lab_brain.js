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
// Drawn point by point with a depth buffer: some ten milliseconds, where paths take a second.
const drawBrain = (canvas, brain, { values, vertices, kind, limits, camera }) => {
  const ratio = Math.max(1.5, Math.min(2, window.devicePixelRatio || 1));
  const [wide, , tall] = brain.layouts[camera].extent;
  const width = (canvas.width = Math.round(canvas.clientWidth * ratio) || 400);
  const height = (canvas.height = Math.round((width * tall) / wide) + 2);
  const pen = canvas.getContext("2d"), image = pen.createImageData(width, height);
  const depth = new Float32Array(width * height).fill(Infinity);
  const size = (width - 4) / wide;
  const stops = brain.colours[kind];
  const fills = values && brain.parcels.map((p) => (values[p.key] === null || values[p.key] === undefined ? null : shadeOf(stops, limits, values[p.key])));
  for (const half of HALVES) {
    const { rotation: [r0, r1, r2], offset } = brain.layouts[camera][half];
    const { vertices: v, faces: f, parcel, background } = brain[half];
    const n = v.length / 3, at = vertices?.[half];
    const [x, y, z] = [new Float32Array(n), new Float32Array(n), new Float32Array(n)]; // on the canvas, y is depth
    for (let i = 0; i < n; i++) {
      const [a, b, c] = [v[3 * i], v[3 * i + 1], v[3 * i + 2]];
      x[i] = width / 2 + size * (r0[0] * a + r0[1] * b + r0[2] * c + offset);
      y[i] = size * (r1[0] * a + r1[1] * b + r1[2] * c);
      z[i] = height / 2 - size * (r2[0] * a + r2[1] * b + r2[2] * c);
    }
    const facing = new Float32Array(n), length = new Float32Array(n), edge = new Uint8Array(n);
    const [nx, nz] = [new Float32Array(n), new Float32Array(n)];
    for (let i = 0; i < f.length; i += 3) {
      const [a, b, c] = [f[i], f[i + 1], f[i + 2]];
      const [ux, uy, uz, wx, wy, wz] = [x[b] - x[a], y[b] - y[a], z[b] - z[a], x[c] - x[a], y[c] - y[a], z[c] - z[a]];
      const face = [uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx];
      const border = !at && (parcel[a] !== parcel[b] || parcel[b] !== parcel[c]);
      for (const k of [a, b, c]) { nx[k] += face[0]; facing[k] += face[1]; nz[k] += face[2]; if (border) edge[k] = 1; }
    }
    const colour = new Float32Array(3 * n);
    for (let i = 0; i < n; i++) {
      length[i] = Math.hypot(nx[i], facing[i], nz[i]) || 1;
      const own = at ? (Number.isNaN(at[i]) ? null : shadeOf(stops, limits, at[i])) : parcel[i] < 0 ? null : fills[parcel[i]];
      const light = (0.72 + 0.28 * Math.abs(facing[i]) / length[i]) * (own && edge[i] ? 0.82 : 1);
      for (let k = 0; k < 3; k++) colour[3 * i + k] = light * (own ? own[k] * (0.9 + (0.1 * background[i]) / 204) : background[i] + 22 - k);
    }
    for (let i = 0; i < f.length; i += 3) {
      const [a, b, c] = [f[i], f[i + 1], f[i + 2]];
      const area = (x[b] - x[a]) * (z[c] - z[a]) - (x[c] - x[a]) * (z[b] - z[a]);
      if (!area) continue;
      const [x0, x1] = [Math.max(0, Math.ceil(Math.min(x[a], x[b], x[c]))), Math.min(width - 1, Math.max(x[a], x[b], x[c]))];
      const [z0, z1] = [Math.max(0, Math.ceil(Math.min(z[a], z[b], z[c]))), Math.min(height - 1, Math.max(z[a], z[b], z[c]))];
      for (let pz = z0; pz <= z1; pz++) for (let px = x0; px <= x1; px++) {
        const q = ((px - x[a]) * (z[c] - z[a]) - (x[c] - x[a]) * (pz - z[a])) / area;
        const r = ((x[b] - x[a]) * (pz - z[a]) - (px - x[a]) * (z[b] - z[a])) / area;
        const p = 1 - q - r;
        if (p < -1e-4 || q < -1e-4 || r < -1e-4) continue;
        const near = p * y[a] + q * y[b] + r * y[c], spot = pz * width + px;
        if (near >= depth[spot]) continue;
        depth[spot] = near;
        for (let k = 0; k < 3; k++) image.data[4 * spot + k] = p * colour[3 * a + k] + q * colour[3 * b + k] + r * colour[3 * c + k];
        image.data[4 * spot + 3] = 255;
      }
    }
  }
  pen.putImageData(image, 0, 0);
};
// A figure of one map from several sides; `map` is {key, values, kind, limits, title, problem}.
const brainFigure = (cameras, label) => {
  const canvases = cameras.map(() => h("canvas", { role: "img", "aria-label": label }));
  const ramp = h("i"), low = h("span"), title = h("span"), high = h("span");
  const bar = h("div", { class: "ai-small-bar", hidden: true }, ramp, h("p", { class: "ai-ends ai-number" }, low, title, high));
  const note = h("p", { class: "ai-small" });
  const node = h("div", { class: "ai-small-brain" }, h("div", {}, canvases), bar, note);
  let drawn = "";
  const draw = async (map) => {
    node.hidden = !map;
    const what = JSON.stringify([map, canvases[0].clientWidth]);
    if (!map || what === drawn) return; // views are filled part by part, with the same map
    drawn = what;
    setText(note, map.problem || "");
    if (map.problem) { canvases.forEach((c) => { c.hidden = true; }); bar.hidden = true; return; }
    try {
      const brain = await surfaceOf(map.key);
      const vertices = map.vertices && Object.fromEntries(HALVES.map((half) => [half, unpack(map.vertices[half])]));
      canvases.forEach((canvas, i) => { canvas.hidden = false; drawBrain(canvas, brain, { ...map, vertices, camera: cameras[i] }); });
      ramp.style.background = `linear-gradient(to right, ${brain.colours[map.kind].join(",")})`;
      setText(low, (map.beyond[0] ? "≤ " : "") + short(map.limits[0]));
      setText(high, (map.beyond[1] ? "≥ " : "") + short(map.limits[1]));
      pointed(ramp, map.beyond);
      setText(title, map.title);
      bar.hidden = false;
    } catch (error) {
      setText(note, error.message);
    }
  };
  return { node, draw };
};
