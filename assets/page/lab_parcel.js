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
