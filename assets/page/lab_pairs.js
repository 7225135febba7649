// Two sides of one trial, and its curve over guidance scales.
const meterOf = (share) => share === null || share === undefined ? null : h("div", { class: "ai-identified", title: "Share of the other test images that the picture resembles less than the shown one (pocket-clip); chance is 50 %" }, h("div", { class: "ai-meter" }, h("i", { style: `width:${100 * share}%` }), h("b")), h("p", {}, h("span", {}, "identified"), h("span", { class: "ai-number" }, `${Math.round(100 * share)} %`)));
const rankLine = (rank) => rank ? h("dl", { class: "ai-scores" }, h("div", {}, h("dt", {}, "rank"), h("dd", {}, rank))) : null;

const dumbbells = (rows, title) => {
  const width = 520, left = 196, right = 16, line = 23, top = 6;
  const height = top + rows.length * line + 34;
  const low = Math.min(0, ...rows.flatMap((r) => [r.a, r.b])), high = Math.max(...rows.flatMap((r) => [r.a, r.b]), low + 1e-9);
  const px = (v) => left + ((v - low) / (high - low)) * (width - left - right);
  const node = svg("svg", { class: "ai-figure", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title} of the parcels that differ most` });
  const foot = top + rows.length * line;
  for (const v of ticks(low, high, 4)) node.append(svg("line", { class: "ai-grid", x1: px(v), x2: px(v), y1: top, y2: foot }), svg("text", { class: "ai-tick", x: px(v), y: foot + 14, "text-anchor": "middle" }, short(v)));
  rows.forEach((r, i) => {
    const y = top + (i + 0.5) * line;
    node.append(
      svg("text", { class: "ai-name", x: left - 10, y: y + 4, "text-anchor": "end" }, r.label),
      svg("line", { class: "ai-between", x1: px(r.a), x2: px(r.b), y1: y, y2: y }),
      svg("circle", { class: "ai-dot-a", cx: px(r.a), cy: y, r: 5 }, svg("title", {}, `A ${short(r.a)}`)),
      svg("circle", { class: "ai-dot-b", cx: px(r.b), cy: y, r: 5 }, svg("title", {}, `B ${short(r.b)}`)),
    );
  });
  node.append(svg("text", { class: "ai-title", x: (left + width - right) / 2, y: height - 3, "text-anchor": "middle" }, title));
  return node;
};

const compareView = () => {
  const against = h("select", { id: "compare-against", "aria-label": "Compare with", onchange: () => choose({ against: against.value }) });
  const pictures = h("ol", { class: "ai-sweep ai-trio" });
  const note = h("p", { class: "ai-small ai-wide" });
  const body = h("tbody");
  const tests = h("table", { class: "ai-numbers ai-tests" }, h("thead", {}, h("tr", {}, ["Over the test images", "A", "B", "B − A, 95 % interval", "Verdict", "Chance", "N"].map((t, i) => h("th", { scope: "col", class: i && i !== 4 ? "ai-right" : "" }, t)))), body);
  const brains = ["A", "B", "B − A"].map((side) => brainFigure(["posterior", "ventral"], `Parcel map of ${side}`));
  const bars = h("div");
  const mapNote = h("p", { class: "ai-small" });
  const maps = h("section", {}, h("h4", {}, "What each rests on, on the same colours"), h("div", { class: "ai-two-brains ai-three" }, ["A", "B", "B − A"].map((side, i) => h("div", {}, h("p", { class: "ai-letter" }, side), brains[i].node))), mapNote);
  const most = h("section", {}, h("h4", {}, "Where they differ most"), h("p", { class: "ai-small" }, h("b", { class: "ai-key-a" }, "A"), " and ", h("b", { class: "ai-key-b" }, "B"), ", the parcels furthest apart."), bars, exports_(["Save figure as SVG", () => bars.firstElementChild && saveFigure("compare.svg", bars.firstElementChild)]));
  const pair = h("div", { class: "ai-pair" }, maps, most);
  const people = h("ol", { class: "ai-cards ai-people" });
  const everybody = h("section", { class: "ai-apart" }, h("h4", {}, "The same image in every subject"), people);
  const node = h("div", {}, h("p", { class: "ai-against" }, h("span", { class: "ai-atlas" }, "Compare with ", against)), pictures, note, h("div", { class: "ai-scroll" }, tests), exports_(["Save tests as CSV", () => saveTable("compare.csv", ["metric", "of", "a", "b", "difference", "low", "high", "better", "chance", "n", "reason"], kept.tests)]), pair, everybody);
  const settings = (value) => {
    const titles = { mapper: "Mapper", generator: "Generator", subject: "Subject" };
    against.replaceChildren(...value.offered.filter((g) => g.sides.length).map((group) => h("optgroup", { label: titles[group.kind] }, group.sides.map((side) => h("option", { value: side, selected: side === value.chosen }, side.slice(group.kind.length + 1))))));
    against.disabled = !value.chosen;
  };
  const digits = (metric) => (metric === "retrieval rank" ? 1 : 3);
  const percent = (metric) => metric === "two-way identification" || metric === "identification";
  const show = (metric, v) => (v === null ? "–" : percent(metric) ? `${(100 * v).toFixed(1)} %` : number(v, digits(metric)));
  const change = (metric, v) => (v === null ? "–" : percent(metric) ? signed(100 * v, 1) : signed(v, digits(metric)));
  let kept = { tests: [] };
  const fill = (value) => {
    kept = value;
    const under = (s) => h("div", {}, meterOf(s.identified), rankLine(s.rank));
    pictures.replaceChildren(
      tile({ ...value.a, label: `A · ${value.a.label}` }, under(value.a)),
      tile({ ...value.b, label: `B · ${value.b.label}` }, under(value.b)),
      tile(value.difference, h("p", { class: "ai-hint" }, "B − A; grey is no difference")),
    );
    setText(note, value.sentence);
    body.replaceChildren(...value.tests.map((t) => {
      if (t.reason) return h("tr", {}, h("th", { scope: "row" }, t.metric), h("td", { colspan: 6, class: "ai-hint" }, t.reason));
      const name = t.of === "pictures" ? "picture identified" : t.metric;
      return h("tr", { title: t.sentence, "data-metric": t.metric }, h("th", { scope: "row" }, name), h("td", { class: "ai-right ai-number" }, show(t.metric, t.a)), h("td", { class: "ai-right ai-number" }, show(t.metric, t.b)),
        h("td", { class: "ai-right ai-number" }, `${change(t.metric, t.difference)} (${change(t.metric, t.low)} to ${change(t.metric, t.high)})`), h("td", { class: `ai-verdict${t.better ? " ai-sure" : ""}` }, t.better ? `${t.better.toUpperCase()} is better` : "may be chance"), h("td", { class: "ai-right ai-number" }, show(t.metric, t.chance)), h("td", { class: "ai-right ai-number" }, t.n));
    }));
    tests.hidden = !value.tests.length;
    pair.hidden = !value.maps;
    if (value.maps) {
      const why = value.maps.reason;
      most.hidden = Boolean(why) || !value.maps.rows.length;
      setText(mapNote, why || value.maps.sentence);
      brains.forEach((b, i) => b.draw(why ? null : value.maps.brains[i]));
      maps.querySelector(".ai-two-brains").hidden = Boolean(why) || Boolean(value.maps.brains?.[0].problem && value.maps.brains[1].problem);
      if (!why) bars.replaceChildren(dumbbells(value.maps.rows, value.maps.measure));
    }
    everybody.hidden = !value.subjects.length;
    people.replaceChildren(...value.subjects.map((s) => h("li", { class: "ai-card" }, h("div", { class: "ai-picture" }, s.src ? h("img", { src: s.src, alt: s.label, draggable: "false" }) : null, s.reason ? h("p", { class: "ai-why" }, s.reason) : null), h("h4", {}, s.label), meterOf(s.identified), rankLine(s.rank), scoreList(s.scores))));
  };
  return { node, settings, fill };
};

// ---------------------------------------------------------------------------------------- curves
const band = (px, py, xs, low, high, cls) => svg("polygon", { class: cls, points: [...xs.map((x, i) => [x, high[i], i]), ...xs.map((x, i) => [x, low[i], i]).reverse()].filter(([, v]) => v !== null).map(([x, v]) => `${px(x)},${py(v)}`).join(" ") });
const line = (px, py, xs, ys, cls) => svg("polyline", { class: cls, points: xs.map((x, i) => [x, ys[i]]).filter(([, v]) => v !== null).map(([x, v]) => `${px(x)},${py(v)}`).join(" ") });
const curveView = () => {
  const told = h("p", { class: "ai-small ai-wide" });
  const plots = h("div", { class: "ai-curves" });
  let kept = null;
  const rows = () => Object.entries(kept.scores).flatMap(([score, s]) => kept.scales.map((scale, i) => ({ score, scale, mean: s.mean[i], low: s.low?.[i], high: s.high?.[i], test: s.test?.[i], test_low: s.test_low?.[i], test_high: s.test_high?.[i], chance: s.chance?.[i] })));
  const node = h("div", {}, told, plots, exports_(["Save as CSV", () => kept && saveTable("sweep-curve.csv", Object.keys(rows()[0]), rows())]));
  const NAMES = { identification: "Picture identified, share" };
  const fill = (value) => {
    kept = value;
    const behind = value.behind ? ` Behind it, grey: the mean over ${value.behind} test images with its interval, and chance, dashed.` : "";
    setText(told, `This trial at every scale of the sweep: the mean of ${value.seeds} seed${value.seeds > 1 ? "s, and how far they lie apart" : ""}.${behind}${value.remark ? ` ${value.remark}` : ""}${value.reason ? ` ${value.reason}` : ""}`);
    const xs = value.scales.map((_, i) => i); // evenly, as the thumbnails lie
    plots.replaceChildren(...Object.entries(value.scores).map(([name, s]) => {
      const every = [s.low, s.high, s.mean, s.test_low, s.test_high, s.test, s.chance].flat().filter((v) => v !== null && v !== undefined);
      const [a, b] = [Math.min(...every), Math.max(...every)], pad = (b - a || 1) * 0.08;
      const width = 500, left = 44, right = 8;
      const plot = axes({ label: `${NAMES[name] || name} against guidance scale`, width, height: 230, left, right, bottom: 30, x: [-0.5, xs.length - 0.5], y: [a - pad, b + pad], xTitle: "", yTitle: "", xTicks: [] });
      const { px, py } = plot;
      if (s.test) {
        if (s.test_low.some((v) => v !== null)) plot.node.append(band(px, py, xs, s.test_low, s.test_high, "ai-band-test"));
        plot.node.append(line(px, py, xs, s.test, "ai-line-test"));
      }
      if (s.chance) plot.node.append(line(px, py, xs, s.chance, "ai-line-chance"));
      if (value.seeds > 1) plot.node.append(band(px, py, xs, s.low, s.high, "ai-band"));
      plot.node.append(line(px, py, xs, s.mean, "ai-line"), ...xs.map((x, i) => svg("circle", { class: "ai-dot-a", cx: px(x), cy: py(s.mean[i]), r: 4 }, svg("title", {}, `scale ${value.scales[i]}: ${number(s.mean[i], 3)}`))), ...xs.map((x, i) => svg("text", { class: "ai-tick", x: px(x), y: 216, "text-anchor": "middle" }, value.scales[i])));
      const row = h("ol", { class: "ai-thumbs", style: `padding-left:${(100 * left) / width}%;padding-right:${(100 * right) / width}%` }, value.images.map((src, i) => h("li", {}, h("img", { src, alt: `Reconstruction, scale ${value.scales[i]}`, draggable: "false" }))));
      return h("figure", {}, h("h4", {}, NAMES[name] || name), plot.node, row, exports_(["Save figure as SVG", () => saveFigure(`sweep-${name}.svg`, plot.node)]));
    }));
  };
  return { node, settings: () => {}, fill };
};
