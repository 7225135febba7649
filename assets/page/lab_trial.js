// The evidence about one trial: controls and lesions. Each view is {node, settings, fill}: built
// once, told what it is of at once, and filled as its parts finish.
const svg = (tag, attributes = {}, ...children) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, String(value));
  }
  node.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return node;
};
const choose = (change) => trigger("choose", change);
const minus = (text) => String(text).replace("-", "−");
const fixed = (v, digits) => v.toFixed(digits).replace(/^-(0(\.0*)?)$/, "$1"); // no −0.00
const number = (v, digits = 2) => (v === null || v === undefined ? "–" : minus(fixed(v, digits)));
const signed = (v, digits = 2) => (v === null ? "–" : `${Number(fixed(v, digits)) > 0 ? "+" : ""}${number(v, digits)}`);

const scoreList = (scores) => h("dl", { class: "ai-scores" }, scores.map(([name, text]) => h("div", {}, h("dt", {}, name), h("dd", {}, text))));
const tile = ({ label, src, scores, note }, under) =>
  h(
    "li",
    { class: "ai-tile" },
    h("figure", {},
      h("div", { class: "ai-picture" }, src ? h("img", { src, alt: label, draggable: "false" }) : null),
      h("figcaption", {}, h("p", {}, h("b", {}, label)), under || null, note ? h("p", { class: "ai-hint" }, note) : null, scoreList(scores))),
  );

// --------------------------------------------------------------------------------------- figures
const ticks = (low, high, count = 4) => {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const out = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-6; v += step) out.push(Math.abs(v) < step * 1e-6 ? 0 : v);
  return out;
};
const short = (v) => minus(Number(v.toPrecision(3)).toString());
// A square plot with its axes: `at` maps values to points. Returns the svg and its scales.
const axes = ({ width, height, x, y, xTitle, yTitle, label, left = 52, bottom = 40, top = 12, right = 14, xTicks, yTicks }) => {
  const px = (v) => left + ((v - x[0]) / (x[1] - x[0] || 1)) * (width - left - right);
  const py = (v) => height - bottom - ((v - y[0]) / (y[1] - y[0] || 1)) * (height - top - bottom);
  const frame = [
    ...(yTicks || ticks(...y)).map((v) => [
      svg("line", { class: v === 0 ? "ai-zero" : "ai-grid", x1: left, x2: width - right, y1: py(v), y2: py(v) }),
      svg("text", { class: "ai-tick", x: left - 7, y: py(v) + 3.5, "text-anchor": "end" }, short(v)),
    ]),
    ...(xTicks || ticks(...x)).map((v) => svg("text", { class: "ai-tick", x: px(v), y: height - bottom + 16, "text-anchor": "middle" }, short(v))),
    svg("line", { class: "ai-axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }),
    svg("text", { class: "ai-title", x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle" }, xTitle),
    svg("text", { class: "ai-title", transform: `translate(11 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, yTitle),
  ];
  return { px, py, node: svg("svg", { class: "ai-figure", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, frame.flat()) };
};

// -------------------------------------------------------------------------------------- controls
const controlsView = () => {
  const told = h("p", { class: "ai-small ai-wide" });
  const strip = h("ol", { class: "ai-cards" });
  const cards = new Map();
  const card = (value) => {
    const identified = value.identified === null ? null : h(
      "div",
      { class: "ai-identified", title: "Share of the other test images that the picture resembles less than the shown one (pocket-clip); chance is 50 %" },
      h("div", { class: "ai-meter" }, h("i", { style: `width:${100 * value.identified}%` }), h("b")),
      h("p", {}, h("span", {}, "identified"), h("span", { class: "ai-number" }, `${Math.round(100 * value.identified)} %`)),
    );
    return h(
      "li",
      { class: "ai-card", "data-control": value.name, "data-state": value.state },
      h("div", { class: "ai-picture" }, value.src ? h("img", { src: value.src, alt: value.title, draggable: "false" }) : null, value.reason ? h("p", { class: "ai-why" }, value.reason) : null),
      h("h4", {}, value.title),
      value.note ? h("p", { class: "ai-hint" }, value.note) : null,
      identified,
      h("dl", { class: "ai-scores" }, value.rank ? h("div", { title: "Rank of the shown image by what is decoded" }, h("dt", {}, "rank"), h("dd", {}, value.rank)) : null, value.scores.map(([name, text]) => h("div", {}, h("dt", {}, name), h("dd", {}, text)))),
      h("p", { class: "ai-small" }, value.sentence),
    );
  };
  let kept = { cards: [] };
  const fill = (content) => {
    kept = content;
    const scale = content.scale ? ` at scale ${content.scale}` : "";
    setText(told, `The same generator (${content.generator})${scale}, the same seed (${content.seed}), given something else each time. “Identified” counts how often the picture resembles the shown image more than another test image: the mark is chance, 50 % on average, around which a single picture without a brain may lie anywhere.`);
    const before = new Set(cards.keys());
    content.cards.forEach((value, index) => {
      const text = JSON.stringify(value);
      before.delete(value.name);
      if (cards.get(value.name)?.text === text) return;
      const node = card(value);
      if (cards.has(value.name)) cards.get(value.name).node.replaceWith(node);
      else strip.insertBefore(node, strip.children[index] || null);
      cards.set(value.name, { node, text });
    });
    before.forEach((name) => { cards.get(name).node.remove(); cards.delete(name); });
  };
  const rows = () => kept.cards.map(({ name, rank, identified, reason, scores }) => ({ control: name, identified, rank, ...Object.fromEntries(scores || []), reason }));
  const saves = exports_(["Save as CSV", () => saveTable("controls.csv", [...new Set(rows().flatMap(Object.keys))], rows())]);
  return { node: h("div", {}, told, strip, saves), settings: () => {}, fill };
};

// --------------------------------------------------------------------------------------- lesions
const scatterPlot = (value, chosen, pick) => {
  const xs = value.points.map((p) => p.x), ys = value.points.map((p) => p.y);
  const ends = (v, zero) => { const [a, b] = [Math.min(...v, ...zero), Math.max(...v, ...zero)]; const pad = (b - a || 1) * 0.06; return [a - (a < 0 ? pad : 0), b + pad]; };
  const plot = axes({
    width: 460, height: 330, x: ends(xs, [0]), y: ends(ys, [0]), xTitle: `Gradient importance (${value.measure})`,
    label: "Importance of each parcel against the effect of its lesion; the table beside holds the same numbers",
    yTitle: value.against === "effect" ? "Lesion effect, nats" : "Size of the lesion effect, nats",
  });
  // The three largest are named, unless their names would lie on one another.
  const placed = [];
  const free = (p) => placed.every((q) => Math.abs(plot.py(p.y) - plot.py(q.y)) > 15 || Math.abs(plot.px(p.x) - plot.px(q.x)) > 190) && placed.push(p);
  const ranked = [...value.points].sort((a, b) => Math.abs(b.y) - Math.abs(a.y)).slice(0, 3);
  const named = [...value.points.filter((p) => chosen.includes(p.parcel)), ...ranked].filter(free).map((p) => p.parcel);
  for (const p of value.points) {
    const on = chosen.includes(p.parcel);
    plot.node.append(
      svg("circle", { class: `ai-point${p.small ? " ai-few" : ""}${on ? " ai-on" : ""}`, cx: plot.px(p.x), cy: plot.py(p.y), r: on ? 6 : 4.5, "data-parcel": p.parcel, onclick: () => pick(p.parcel) }, svg("title", {}, `${p.label}: importance ${short(p.x)}, lesion ${short(p.y)} nats`)),
    );
    if (named.includes(p.parcel)) {
      const right = plot.px(p.x) > 300;
      plot.node.append(svg("text", { class: "ai-label", x: plot.px(p.x) + (right ? -9 : 9), y: plot.py(p.y) - 5, "text-anchor": right ? "end" : "start" }, p.label));
    }
  }
  return plot.node;
};

const lesionView = () => {
  let chosen = [], settings = null, content = null, shown = "trial";
  const set = (parcels) => choose({ lesion: parcels.length ? parcels.join(";") : "none" });
  const toggle = (parcel) => set(chosen.includes(parcel) ? chosen.filter((p) => p !== parcel) : [...chosen, parcel]);
  const only = (parcel) => set([parcel]);
  const chips = h("ul", { class: "ai-chips" });
  const add = h("select", { "aria-label": "Add a parcel to the lesion", onchange: () => { if (add.value) toggle(add.value); } });
  const hint = h("p", { class: "ai-small" });
  const gainText = h("output", { class: "ai-number" });
  const gain = h("input", { type: "range", min: 0, max: 2, step: 0.25, id: "lesion-gain", list: "ai-gains", "aria-label": "Gain of the lesioned parcels", oninput: () => setText(gainText, `${minus(gain.value)}×`), onchange: () => choose({ gain: gain.value }) });
  const fill = h("select", { id: "lesion-fill", "aria-label": "Replaced by", onchange: () => choose({ fill: fill.value }) });
  const fillText = h("p", { class: "ai-small" });
  const donorImage = h("img", { alt: "", draggable: "false" });
  const donorNumber = h("input", { type: "number", min: 1, "aria-label": "Number of the trial whose betas are put in", id: "lesion-donor", onchange: () => { const s = settings.stimuli[Number(donorNumber.value) - 1]; choose({ donor: s || donorNumber.value }); } });
  const donorText = h("span", { class: "ai-small" });
  const donor = h("div", { class: "ai-donor" }, donorImage, h("label", {}, "Trial ", donorNumber), donorText);
  const side = h(
    "div", { class: "ai-lesion-side" },
    h("h4", {}, "Parcels"), chips, h("div", { class: "ai-atlas" }, add), hint,
    h("h4", {}, "Gain ", gainText), gain, h("p", { class: "ai-ends ai-number" }, h("span", {}, "0× silent"), h("span", {}, "1× intact"), h("span", {}, "2× loud")),
    h("h4", {}, "Replaced by"), h("div", { class: "ai-atlas" }, fill), donor, fillText,
  );
  const warning = h("p", { class: "ai-note" });
  const pictures = h("ol", { class: "ai-sweep ai-trio" });
  const undrawn = h("p", { class: "ai-small" });
  const numbers = h("table", { class: "ai-numbers" });
  const result = h("div", { class: "ai-lesion-result" }, pictures, undrawn, numbers, warning);
  const tableHead = h("tr", {}, ["Parcel", "Voxels", "Lesion effect, nats", "Rank without", "Importance"].map((text, i) => h("th", { class: i ? "ai-right" : "", scope: "col" }, text)));
  const body = h("tbody");
  const table = h("div", { class: "ai-table ai-lab-table", tabindex: "0", role: "region", "aria-label": "Lesion effect of every parcel", onkeydown: walkRows }, h("table", {}, h("thead", {}, tableHead), body));
  const which = h("div", { class: "ai-toggle", role: "group" });
  const figure = h("div");
  const rho = h("p", { class: "ai-rho" });
  const sentence = h("p", { class: "ai-small" });
  const node = h(
    "div", {},
    h("div", { class: "ai-lesion" }, side, result),
    h("div", { class: "ai-pair" },
      h("section", {}, h("h4", {}, "What each parcel alone is worth"), h("p", { class: "ai-small" }, "How far the retrieval margin of the shown image falls when one parcel is replaced: above 0 the parcel speaks for the image, below 0 against it. Select a row to lesion it."), table,
        exports_(["Save as CSV", () => saveTable("lesions.csv", ["parcel", "label", "voxels", "effect", "rank", "importance", "small"], content.rows)])),
      h("section", {}, h("h4", {}, "Does the map tell the truth about this decoder?"), which, figure, rho, sentence,
        exports_(["Save figure as SVG", () => figure.firstElementChild && saveFigure("importance-and-lesions.svg", figure.firstElementChild)]))),
  );

  const told = (value, reset) => {
    settings = value;
    if (reset) setText(hint, "");
    gain.value = value.gain;
    setText(gainText, `${minus(value.gain)}×`);
    fill.replaceChildren(...value.fills.map((name) => h("option", { value: name, selected: name === value.fill }, name)));
    donor.hidden = value.fill !== "another trial";
    donorNumber.value = value.donor ?? "";
    donorNumber.max = value.stimuli.length;
    if (value.chosen.length) showChosen(value.chosen);
  };
  const showChosen = (keys) => {
    chosen = [...keys];
    const of = Object.fromEntries(settings.parcels.map((p) => [p.parcel, p]));
    chips.replaceChildren(...chosen.map((key) => h("li", { "data-parcel": key }, of[key]?.label || key, h("button", { type: "button", "aria-label": `Take ${of[key]?.label || key} out of the lesion`, onclick: () => toggle(key) }, "×"))));
    add.replaceChildren(h("option", { value: "" }, "Add a parcel…"), ...settings.parcels.filter((p) => !chosen.includes(p.parcel)).map((p) => h("option", { value: p.parcel }, `${p.label} (${p.voxels})`)));
  };
  const renderFigure = () => {
    const value = content.scatter[shown] || content.scatter.trial;
    which.hidden = figure.hidden = rho.hidden = !value;
    if (!value) { setText(sentence, content.alone); return; }
    const offered = [["trial", "This trial"], ["mean", content.scatter.mean ? `Mean of ${content.scatter.mean.n} trials` : "Mean of test trials"]];
    which.replaceChildren(...offered.map(([key, text]) => h("button", { type: "button", "aria-pressed": key === shown, disabled: key === "mean" && !content.scatter.mean, onclick: () => { shown = key; renderFigure(); } }, text)));
    figure.replaceChildren(value.points.length > 1 ? scatterPlot(value, chosen, only) : "");
    rho.replaceChildren(h("strong", {}, value.correlation), h("span", {}, ` rank correlation over ${value.points.length} parcels`));
    const mean = content.fill === "training mean" ? "" : " The lesions of this figure take the training mean.";
    setText(sentence, value.sentence + mean);
  };
  const fillIn = (value) => {
    content = value;
    if (!value.rows) return;
    showChosen(value.chosen);
    setText(hint, value.unchosen ? "Nothing is chosen, so the parcel whose lesion matters most here is shown. Click one on the map, in the table or in the figure." : "");
    const of = value.lesion;
    setText(fillText, of ? of.sentence : "");
    setText(warning, of ? of.warning : "");
    warning.hidden = !of?.warning;
    donor.hidden = !of?.donor;
    if (of?.donor) {
      setSource(donorImage, of.donor.src);
      donorNumber.value = of.donor.number;
      setText(donorText, of.donor.caption);
    }
    numbers.hidden = !of;
    if (of) numbers.replaceChildren(h("thead", {}, h("tr", {}, ["", "Intact", "Lesioned", ""].map((t, i) => h(t ? "th" : "td", t === "" ? {} : { scope: "col", class: i === 1 || i === 2 ? "ai-right" : "" }, t)))), h("tbody", {}, of.rows.map(([name, a, b, unit]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", { class: "ai-right ai-number" }, a), h("td", { class: "ai-right ai-number" }, b), h("td", { class: "ai-hint" }, unit)))));
    if (value.pictures) pictures.replaceChildren(...value.pictures.map((p) => tile(p, p.label === "Difference" ? h("p", { class: "ai-hint" }, "lesioned − intact; grey is no change") : null)));
    else if (!pictures.childElementCount) pictures.replaceChildren(...["Intact", "Lesioned", "Difference"].map((label) => tile({ label, src: "", scores: [] })));
    pictures.classList.toggle("ai-stale", !value.pictures);
    setText(undrawn, value.undrawn || "");
    const most = Math.max(...value.rows.map((r) => Math.abs(r.effect ?? 0)), 1e-12);
    keepRow(body, () => body.replaceChildren(...[...value.rows].sort((a, b) => a.small - b.small || (b.effect ?? b.shift ?? -1e9) - (a.effect ?? a.shift ?? -1e9)).map((row) => {
      const effect = h("td", { class: "ai-right ai-number ai-measured" }, signed(row.effect));
      effect.style.setProperty("--fill", `${(100 * Math.abs(row.effect ?? 0)) / most}%`);
      const on = value.chosen.includes(row.parcel);
      return h("tr", { class: `${row.small ? "ai-few" : ""} ${on ? "ai-chosen" : ""}`, "data-parcel": row.parcel, title: row.small ? "Fewer than 10 voxels: what it does may be chance" : null, onclick: () => (value.unchosen ? only(row.parcel) : toggle(row.parcel)) },
        h("td", {}, rowButton(row.label, row.label, on), row.small ? h("small", { class: "ai-few-note" }, " few voxels") : null), h("td", { class: "ai-right ai-number" }, row.voxels.toLocaleString("en")), effect, h("td", { class: "ai-right ai-number" }, row.rank), h("td", { class: "ai-right ai-number" }, number(row.importance)));
    })));
    renderFigure();
    window.dispatchEvent(new CustomEvent("afterimage-effects", { detail: Object.fromEntries(value.rows.map((r) => [r.parcel, r.effect])) }));
  };
  return { node, settings: told, fill: fillIn };
};
