// What is shown of a site: all trials, or one of them with its maps and evidence. The address after
// # says which, with the same words as a link of the page on a server.
const root = element.querySelector(".ai-app");
const { load, whole, changed, mount } = window.afterimage;
const SHOWN = ["statistics", "evaluation"], OF_TRIAL = ["controls", "curve", ...SHOWN];
const SURFACES = ["inflated", "pial", "flat"]; // slices and a subject's own surface take a server
const INTRO = "How much of the picture is the brain's, and how well this decoder does over all trials. It was computed when this page was made.";
let site = null, group = null, index = null, at = null, view = {}, panel = "", ticket = 0, now = null, file = null;
const show = {}; // component -> what shows a value in it

// ------------------------------------------------------------------------------------- the frame
const select = (label, change) => {
  const field = h("select", { "aria-label": label, onchange: () => change(field.value) });
  return { field, node: h("label", { class: "ai-atlas" }, label, field) };
};
const people = select("Subject", (name) => go({ subject: name }));
const mappers = select("Mapper", (name) => go({ mapper: name }));
const step = (id, text, label, act) => h("button", { type: "button", class: "ai-button", id, "aria-label": label, title: label, onclick: act }, text);
const home = h("a", { class: "ai-button", id: "all-trials", href: "#" }, "All trials");
const number = h("input", { type: "number", id: "number", min: 1, "aria-label": "Number of the trial", onchange: () => { const row = index.rows.find(([, n]) => n === Number(number.value)); if (row) go({ trial: row[0] }); else number.value = now?.number ?? ""; } });
const steps = h("div", { class: "ai-steps" }, step("previous", "‹", "The trial before", () => walk(-1)), number, h("span", { class: "ai-small" }), step("next", "›", "The next trial", () => walk(1)), step("random", "Random", "A random trial", () => anywhere()));
const bar = h("nav", { class: "ai-site-bar", "aria-label": "What is shown" }, home, people.node, mappers.node, steps);
const about = h("p", { class: "ai-small ai-wide" });
const problem = h("p", { class: "ai-note", role: "alert", hidden: true });
const [head, gallery, trial, brain, lab, foot] = ["masthead", "sheet", "trial", "brain", "lab", "footer"].map((id) => h("div", { id, role: { masthead: "banner", footer: "contentinfo" }[id] }));
const meanings = h("details", { class: "ai-help ai-site-scores" }, h("summary", {}, "What the scores are: definition, chance and N"));
const tables = h("section", { class: "ai-site-tables" }), listed = h("ul");
const main = h("main", { id: "main" }, bar, problem, about, gallery, trial, meanings, brain, lab, tables);
root.append(head, main, foot);
const tell = (error) => { setText(problem, error ? `This part of the page cannot be shown: ${error.message}.` : ""); problem.hidden = !error; };

// --------------------------------------------------------------------------------------- address
const read = (text) => Object.fromEntries(new URLSearchParams(text.replace(/^[#?]/, "")));
const words = () => {
  const found = { subject: group.subject, mapper: group.mapper };
  if (at) {
    found.trial = at;
    for (const [key, name] of Object.entries(site.keys)) if (name in view && view[name] !== usual(name)) found[key] = Array.isArray(view[name]) ? view[name].join(";") : view[name];
  }
  if (panel) found.panel = panel;
  const alone = !at && !panel && group === site.groups[0];
  return alone ? "" : new URLSearchParams(found).toString();
};
const usual = (name) => (name === "atlas" ? group.atlases[0] : name === "method" ? group.methods[0] : site.view[name]);
const go = (wanted) => open({ ...read(words()), ...wanted });
const typed = (name, text) => (typeof site.view[name] === "number" ? Number(text) || 0 : Array.isArray(site.view[name]) ? text.split(";").filter(Boolean) : text);
const open = async (wanted) => {
  const mine = (ticket += 1);
  try {
    const of = site.groups.filter((one) => !wanted.subject || one.subject === wanted.subject);
    const chosen = of.find((one) => one.mapper === wanted.mapper) || of[0] || site.groups[0];
    const list = await load(`${chosen.name}/index`);
    const row = wanted.trial && list.rows.find(([id]) => id === wanted.trial);
    const next = row && { ...whole(await load(`${chosen.name}/trial-${row[1]}`)), number: row[1] };
    if (mine !== ticket) return;
    tell(wanted.trial && !row ? new Error(`there is no trial ${wanted.trial} here`) : null);
    if (chosen !== group) view = {};
    [group, index, at, now] = [chosen, list, row ? row[0] : null, next || null];
    for (const [key, name] of Object.entries(site.keys)) if (key in wanted && key !== "panel" && name in site.view) view[name] = typed(name, wanted[key]);
    if (!group.methods.includes(view.method)) view.method = group.methods[0];
    if (!group.atlases.includes(view.atlas)) view.atlas = group.atlases[0];
    if (!SURFACES.includes(view.surface)) delete view.surface;
    panel = (at ? OF_TRIAL : SHOWN).includes(wanted.panel) ? wanted.panel : "";
    await render(mine);
  } catch (error) {
    if (mine === ticket) tell(error);
  }
};
const walk = (by) => { const at_ = index.rows.findIndex(([id]) => id === at); go({ trial: index.rows[(at_ + by + index.rows.length) % index.rows.length][0] }); };
const anywhere = () => { const others = index.rows.filter(([id]) => id !== at); if (others.length) go({ trial: others[Math.floor(Math.random() * others.length)][0] }); };

// ---------------------------------------------------------------------------------------- render
const offer = (picker, names, chosen) => {
  picker.field.replaceChildren(...names.map((name) => h("option", { value: name, selected: name === chosen }, name)));
  picker.node.hidden = names.length < 2;
};
const heading = () => {
  const row = index.rows.find(([id]) => id === at);
  show.masthead({
    title: site.title, simulated: site.simulated, note: site.note, sign: "#", formats: at ? ["svg", "csv"] : [],
    link: words(), trial: [group.name, at], number: now?.number, tab: row ? `${row[2] || row[0]} · ${group.subject}` : site.title, file,
  });
};
const render = async (mine) => {
  main.dataset.at = at || "";
  offer(people, [...new Set(site.groups.map((one) => one.subject))], group.subject);
  offer(mappers, site.groups.filter((one) => one.subject === group.subject).map((one) => one.mapper), group.mapper);
  gallery.hidden = tables.hidden = about.hidden = Boolean(at);
  trial.hidden = meanings.hidden = brain.hidden = !at;
  home.setAttribute("aria-current", at ? "false" : "page");
  steps.querySelector("#previous").hidden = steps.querySelector("span").hidden = number.hidden = !at;
  steps.querySelector("#next").hidden = !at;
  number.value = now?.number ?? "";
  number.max = index.rows.length;
  setText(steps.querySelector("span"), `of ${index.rows.length}`);
  heading();
  if (!at) {
    listed.replaceChildren(...site.tables.filter((one) => [group.name, ""].includes(one.group)).map(({ text, path }) => h("li", {}, h("a", { href: path, download: "" }, text))));
    show.gallery ??= await mount("sheet", gallery, (_, { trial: id }) => { go({ trial: id, panel: "" }); window.scrollTo(0, 0); });
    show.gallery({ index, name: group.name, full });
    main.dataset.state = "done";
  } else {
    show.trial ??= await mount("trial", trial, heard);
    if (mine !== ticket) return;
    show.trial({ ...now.trial, ticket: mine });
    showMeanings();
    show.brain ??= await mount("brain", brain, heard, { surface });
    await showBrain(mine);
    main.dataset.state = "done";
  }
  // What lies below comes when the pictures above are there.
  if (at || panel) await showLab(mine);
  else setTimeout(() => { if (mine === ticket) showLab(mine).catch(tell); }, 300);
};
// Beside a trial's scores: what each means, what guessing gives at every scale, and over how many.
const showMeanings = () => {
  const plain = (v) => (v === null || v === undefined ? "–" : Number(v.toFixed(2)).toString().replace("-", "−"));
  const counted = (one) => index.rows.filter(([, , , , , , scores, pictures]) => {
    const place = index.keys[one.by_scale ? "picture" : "trial"].indexOf(one.key);
    return ((one.by_scale ? pictures[index.scale] : scores) || [])[place] != null;
  }).length;
  const rows = index.scores.map((one) => {
    const chance = Object.entries(one.chance).map(([scale, v]) => (scale && index.scales.length > 1 ? `${plain(v)} at ${scale}` : plain(v))).join(", ");
    return h("div", {}, h("dt", {}, one.title), h("dd", {}, `${one.sentence}; ${one.better} is better. `, h("span", { class: "ai-number" }, `Chance ${chance || "not known"}${chance && one.chance_of ? ` (${one.chance_of})` : ""}, N ${counted(one)}.`)));
  });
  meanings.replaceChildren(meanings.firstChild, h("dl", {}, rows));
};
// A trial's pictures at full size, for the sheet.
const full = async (id) => {
  const [, number_] = index.rows.find(([one]) => one === id);
  const { trial: found } = whole(await load(`${group.name}/trial-${number_}`));
  return { truth: found.trial.src, drawn: Object.fromEntries(found.cells.map((cell, i) => [index.scales[i]?.key, cell.src])) };
};

// ------------------------------------------------------------------------------------- the brain
const showBrain = async (mine) => {
  const { bases, others } = await load(`${group.name}/maps`);
  const key = `${view.atlas}|${view.method}`, wanted = { ...site.view, ...view };
  let value = bases[key] || Object.values(bases)[0];
  if (wanted.shows !== "importance") {
    const name = others[`${view.atlas}|${wanted.shows}`] || others[`${view.atlas}|${wanted.shows}|${now.repeats}`];
    if (name) value = await load(name);
  } else {
    const change = now.maps[key];
    if (typeof change === "string") value = { ...value, state: "failed", note: change };
    else if (bases[key]) value = changed(bases[key], change);
  }
  if (mine !== ticket) return;
  brain.hidden = !value;
  if (!value) return;
  const offered = value.offered.filter(([name]) => name === "importance" || group.shows.includes(name));
  show.brain({ ...value, offered, methods: group.methods, files: [], picture: null, surfaces: SURFACES, targets: value.targets.slice(0, 1), view: { ...value.view, ...view, atlas: view.atlas } });
};
const decoded = ({ dtype, data, unit }) => {
  if (!unit) return { dtype, data };
  const steps_ = new Int16Array(Uint8Array.from(atob(data), (c) => c.charCodeAt(0)).buffer);
  const bytes = new Uint8Array(Float32Array.from(steps_, (v) => v * unit).buffer);
  return { dtype: "float32", data: packed(bytes) };
};
const packed = (bytes) => {
  let text = "";
  for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
  return btoa(text);
};
// What the page asks its server for: the mesh of a surface and an atlas on it.
const surface = async ({ subject, atlas, surface: name, parcels_only: bare }) => {
  const of = site.groups.find((one) => one.subject === subject && one.parcels[atlas]);
  if (!of) return { problem: "this page has no surface for this atlas" };
  const [parcels, mesh] = await Promise.all([load(of.parcels[atlas]), load(`surfaces/${name}`)]);
  const halves = await Promise.all(["left", "right"].map(async (side) => {
    const arrays = bare ? [] : await Promise.all(Object.entries(mesh[side]).map(async ([part, array]) => [part, decoded(await load(array))]));
    return [side, { ...Object.fromEntries(arrays), ...parcels[side] }];
  }));
  return { ...parcels, surface: name, layouts: mesh.layouts, ...Object.fromEntries(halves) };
};

// ---------------------------------------------------------------------------------- the evidence
const ask = async (name) => {
  const { statistics, evaluation } = await load(`${group.name}/over`);
  if (name === "evaluation") return { ...evaluation, content: evaluation.content && { ...evaluation.content, stimulus: at || "" } };
  if (name === "statistics") return (statistics[view.atlas] || {})[view.measure || site.view.measure] || { state: "none", question: "", sentence: "There is no map here, so there are no statistics of it.", settings: {}, content: null };
  const there = name === "controls" ? group.controls : group.curves;
  if (there.includes(now.number)) return whole(await load(`${group.name}/${name}-${now.number}`));
  const told = there.length ? `They are there for ${there.length} of ${index.rows.length} trials, evenly spaced: ${there.join(", ")}.` : "They were left out.";
  return { state: "none", question: "", sentence: `When this page was made, this was not computed for trial ${now.number}. ${told}`, settings: {}, content: null };
};
const showLab = async (mine) => {
  show.lab ??= await mount("lab", lab, heard, { surface });
  const offered = at ? OF_TRIAL : SHOWN;
  const frame = { panel, offered, intro: INTRO, state: "off", question: "", sentence: "", settings: {}, content: null, progress: { state: "done", text: "", fraction: 1 } };
  const value = panel ? { ...frame, ...(await ask(panel)), panel } : frame;
  if (mine === ticket) show.lab({ ...value, ticket: mine });
};

// ---------------------------------------------------------------------------------------- events
const heard = (name, detail) => {
  if (name === "select" && "stimulus" in detail) { go({ trial: detail.stimulus }); return; }
  if (name === "select" && "parcel" in detail) { view.parcel = detail.parcel; heading(); return; }
  if (name === "view") {
    view = { ...view, ...detail };
    heading();
    const again = ["shows", "method", "atlas"].some((key) => key in detail);
    if (again) showBrain(ticket).catch(tell);
    if (("measure" in detail || "atlas" in detail) && panel === "statistics") showLab((ticket += 1)).catch(tell);
  }
  if (name === "choose" && "panel" in detail) {
    panel = detail.panel === "none" ? "" : detail.panel;
    heading();
    showLab((ticket += 1)).catch(tell);
  }
};
// The names of parcels are the same for all trials, the numbers are the trial's.
const joined = (names, numbers) => { const lines = numbers.split("\n"); return names.split("\n").map((line, i) => (line || lines[i] ? `${line},${lines[i]}` : "")).join("\n"); };
// The brain is drawn once it is seen: a figure has it all the same.
const drawnBrain = async () => {
  const at_ = window.scrollY, told = () => document.querySelector(".ai-surface-text");
  if (brain.hidden || !told() || told().hidden) return;
  brain.scrollIntoView({ behavior: "instant" });
  for (let i = 0; i < 80 && !told().hidden && /^Loading/.test(told().textContent); i++) await new Promise((next) => setTimeout(next, 100));
  window.scrollTo({ top: at_, behavior: "instant" });
};
const save = async (format) => {
  const name = `afterimage_${group.subject}_${at}.${format}`.replace(/[^A-Za-z0-9._-]+/g, "-");
  const of = { svg: ["image/svg+xml", async () => { await drawnBrain(); return trialFigure(now.trial, site); }], csv: ["text/csv", async () => joined((await load(`${group.name}/maps`)).named[view.atlas] ?? "", now.csv[view.atlas] ?? "")] };
  const [mime, make] = of[format];
  file = { id: Date.now(), name, mime, data: packed(new TextEncoder().encode(await make())) };
  heading();
};
const start = async () => {
  site = await load("site");
  setText(about, site.about);
  tables.append(
    h("h2", {}, "Tables"), h("p", { class: "ai-small" }, "Comma-separated values, for a spreadsheet or a script."),
    listed,
  );
  show.masthead = await mount("masthead", head, (name, detail) => {
    if (name === "place") open(read(detail.query));
    if (name === "export") save(detail.format).catch(tell);
  });
  (await mount("footer", foot, () => {}))({ lines: site.lines });
  await open(read(window.location.hash));
  if (panel && !at) lab.scrollIntoView({ block: "start" }); // the link is of what lies below all trials
};
start().catch(tell);
