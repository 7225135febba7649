// The evidence about one parcel: which images drive it, and at which step it matters.
const driversView = () => {
  let content = null, split = "test";
  const parcels = h("select", { id: "drivers-parcel", "aria-label": "Parcel", onchange: () => choose({ parcel: parcels.value }) });
  const which = h("div", { class: "ai-toggle", role: "group", "aria-label": "Which images" });
  const who = h("p", { class: "ai-small ai-wide" });
  const list = h("div", { class: "ai-rankings" });
  const rows = () => content.rankings.flatMap((r) => [["highest", r.highest], ["lowest", r.lowest]].flatMap(([end, images]) => images.map((one, i) => ({ parcel: content.parcel, ranking: r.name, images: r.split, end, place: i + 1, stimulus: one.stimulus, value: one.value, unit: r.unit, z: one.z, repeats: one.repeats || "", n: r.n, definition: r.definition }))));
  const COLUMNS = ["parcel", "ranking", "images", "end", "place", "stimulus", "value", "unit", "z", "repeats", "n", "definition"];
  const node = h("div", {}, h("div", { class: "ai-controls ai-eval-controls" }, h("label", { class: "ai-atlas" }, "Parcel", parcels), which), who, list, exports_(["Save as CSV", () => content && saveTable("drivers.csv", COLUMNS, rows())]));
  const picture = (one, unit) => {
    const told = `${one.stimulus}: ${number(one.value, 3)} ${unit}, z ${number(one.z)}`;
    const image = h("div", { class: "ai-picture" }, one.src ? h("img", { src: one.src, alt: told, draggable: "false" }) : h("p", { class: "ai-why" }, one.stimulus));
    // A test image is a trial of its own; a training image cannot be decoded honestly.
    const inside = one.number ? h("button", { type: "button", class: "ai-driver", title: `${told}. Open this trial`, "aria-label": `Open trial ${one.number}, ${told}`, onclick: () => { goUp(); trigger("select", { stimulus: one.stimulus }); } }, image) : h("div", { class: "ai-driver", title: told }, image);
    return h("li", {}, inside, h("p", { class: "ai-number" }, number(one.value, 2), h("small", {}, ` z ${signed(one.z, 1)}`)));
  };
  const row = (title, images, unit) => h("div", { class: "ai-driver-row" }, h("h5", {}, title), h("ol", {}, images.map((one) => picture(one, unit))));
  const render = () => {
    segments(which, [["test", "Test images"], ["train", "Training images"]], split, (name) => { split = name; render(); });
    list.replaceChildren(...content.rankings.filter((r) => r.split === split).map((r) => h(
      "section", { class: "ai-ranking", "data-ranking": r.name }, h("h4", {}, r.name[0].toUpperCase() + r.name.slice(1), r.unit ? h("span", { class: "ai-small" }, ` ${r.unit}`) : null),
      h("p", { class: "ai-small" }, `${r.definition} ${r.reason || r.sentence}`),
      r.highest.length ? [row("Highest", r.highest, r.unit), row("Lowest", r.lowest, r.unit)] : null,
    )));
  };
  const fill = (value) => {
    content = value;
    setText(who, `${value.label}, ${value.voxels.toLocaleString("en")} voxels${value.selected ? "" : " (the largest; click another on the map above)"}. z is over the images of one row. Images differ in many things at once, so these are no proof of what the parcel is for.`);
    render();
  };
  const settings = (value) => {
    parcels.replaceChildren(...value.parcels.map(([key, label]) => h("option", { value: key, selected: key === value.chosen }, label)));
    parcels.disabled = !value.parcels.length;
  };
  return { node, settings, fill };
};

// ------------------------------------------------------------------------------------------ steps
const stepsView = () => {
  let content = null, chosen = [], names = {};
  const set = (parcels) => choose({ lesion: parcels.length ? parcels.join(";") : "none" });
  const chips = h("ul", { class: "ai-chips" });
  const add = h("select", { id: "steps-parcel", "aria-label": "Add a parcel to the lesion", onchange: () => { if (add.value) set([...chosen.filter((p) => p !== add.value), add.value]); } });
  const who = h("p", { class: "ai-small ai-wide" });
  const verdict = h("p", { class: "ai-verdict-line", role: "status" });
  const strip = h("div", { class: "ai-scroll", tabindex: "0", role: "region", "aria-label": "Pictures after each step" });
  const plots = h("div", { class: "ai-curves" });
  const COLUMNS = ["step", "latents", "pixels", "similarity", "intact", "lesioned"];
  const node = h("div", {}, h("div", { class: "ai-controls ai-eval-controls" }, chips, h("label", { class: "ai-atlas" }, "Add ", add)), who, verdict, strip, plots, exports_(["Save as CSV", () => content && saveTable("steps.csv", COLUMNS, content.rows)]));
  const chip = (key) => h("li", { "data-parcel": key }, names[key] || key, h("button", { type: "button", "aria-label": `Leave out ${names[key] || key}`, onclick: () => set(chosen.filter((p) => p !== key)) }, "×"));
  const show = (keys) => { chosen = keys; chips.replaceChildren(...keys.map(chip)); };
  const ROWS = ["Intact", "Lesioned", "Difference"];
  const TITLES = { latents: "Distance before decoding", pixels: "1 − PixCorr of both", similarity: "pocket-clip similarity of both" };
  const plot = (title, series, note, name) => {
    const rows = content.rows, xs = rows.map((r) => r.step);
    const every = series.flatMap(([key]) => rows.map((r) => r[key])).filter((v) => v !== null);
    if (!every.length) return null;
    const low = Math.min(0, ...every), high = Math.max(...every, low + 1e-6), pad = (high - low) * 0.06;
    const figure = axes({ width: 500, height: 240, left: 46, right: 10, bottom: 38, x: [0.5, content.steps + 0.5], y: [low, high + pad], xTitle: "Step", yTitle: "", label: `${title} after each step; the table that can be saved holds the same numbers`, xTicks: ticks(1, content.steps, 6).filter(Number.isInteger) });
    for (const [key, cls, dot] of series) {
      figure.node.append(line(figure.px, figure.py, xs, rows.map((r) => r[key]), cls), ...rows.filter((r) => r[key] !== null).map((r) => svg("circle", { class: dot, cx: figure.px(r.step), cy: figure.py(r[key]), r: 3 }, svg("title", {}, `step ${r.step}: ${number(r[key], 3)}`))));
    }
    return h("figure", {}, h("h4", {}, title), h("p", { class: "ai-small" }, note), figure.node, exports_(["Save figure as SVG", () => saveFigure(`steps-${name}.svg`, figure.node)]));
  };
  const fill = (value) => {
    content = value;
    if (value.labels) value.chosen.forEach((key, i) => { names[key] = value.labels[i]; });
    if (!value.rows) return;
    show(value.chosen);
    const gain = value.gain ? ` at gain ${value.gain}` : "";
    setText(who, `${value.generator} at scale ${value.scale}, seed ${value.seed}: the same picture from the same noise, intact and with these betas replaced${gain} as in Lesion. ${value.fill} Each picture is what would come out if all noise that is left were taken at once.`);
    setText(verdict, value.sentence);
    strip.replaceChildren(h("table", { class: "ai-step-strip" },
      h("thead", {}, h("tr", {}, h("td"), value.images.map((one) => h("th", { scope: "col", class: "ai-number" }, one.step)))),
      h("tbody", {}, ROWS.map((name, i) => h("tr", {}, h("th", { scope: "row" }, name), value.images.map((one) => h("td", {}, h("img", { src: one.images[i], alt: `${name} after step ${one.step}`, draggable: "false" }))))))));
    const curve = (key) => plot(TITLES[key], [[key, "ai-line", "ai-dot-a"]], value.definitions[key], key);
    const shown = plot("pocket-clip similarity to the shown image", [["intact", "ai-line", "ai-dot-a"], ["lesioned", "ai-line ai-line-b", "ai-dot-b"]], h("span", {}, h("b", { class: "ai-key-a" }, "Intact"), " and ", h("b", { class: "ai-key-b" }, "lesioned"), "."), "shown");
    plots.replaceChildren(...[curve("latents"), curve("pixels"), curve("similarity"), shown].filter(Boolean));
  };
  const settings = (value) => {
    names = Object.fromEntries(value.parcels);
    show(value.chosen);
    add.replaceChildren(h("option", { value: "" }, "a parcel…"), ...value.parcels.filter(([key]) => !value.chosen.includes(key)).map(([key, label]) => h("option", { value: key }, label)));
  };
  return { node, settings, fill };
};
