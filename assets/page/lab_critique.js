// Is it decoding? Each test is a sentence and its chart; definition and numbers open below.
const COUNTS = new Set(["N", "pool", "k", "trials"]); // columns of whole numbers
const critiqueView = () => {
  let content = null, drawnAt = 0;
  const who = h("p", { class: "ai-small" });
  const list = h("div", { class: "ai-findings" });
  const rows = () => content.findings.flatMap((one) => one.rows.map((row) => ({ test: one.name, ...Object.fromEntries(one.columns.map((name, i) => [name, row[i]])) })));
  const columns = () => ["test", ...new Set(content.findings.flatMap((one) => one.columns))];
  const node = h("div", {}, who, list, exports_(["Save as CSV", () => saveTable("critique.csv", columns(), rows())]));

  const records = (one) => one.rows.map((row) => Object.fromEntries(one.columns.map((name, i) => [name, row[i]])));
  const told = (one, v) => (v === null || v === undefined ? "–" : one.unit === "%" ? `${(100 * v).toFixed(1)} %` : `${number(v, 2)}${one.unit ? ` ${one.unit}` : ""}`);
  const spoken = (one, row) => `${row.of}: ${told(one, row.value)}${row.low === null ? "" : `, ${told(one, row.low)} to ${told(one, row.high)}`}; chance ${told(one, row.chance)}, N ${row.N}`;

  // Rates run from 0 to 1; other units from the least that is shown, 0 included, to the most.
  const scaleOf = (one, shown) => {
    if (one.unit === "%") return (v) => Math.max(0, Math.min(1, v));
    const values = shown.flatMap((row) => [row.low, row.high, row.value, row.chance]).filter((v) => v !== null && v !== undefined);
    const low = Math.min(0, ...values), high = Math.max(...values, low + 1e-9);
    return (v) => (v - low) / (high - low);
  };
  // Names such as "new settings: top-1" are parted at the colon: what there is less of are groups.
  const grouped = (shown) => {
    const parts = shown.map((row) => row.of.split(": "));
    if (!parts.every((p) => p.length === 2)) return [["", shown.map((row) => [row.of, row])]];
    const [first, second] = [0, 1].map((side) => new Set(parts.map((p) => p[side])));
    const side = first.size < second.size ? 0 : 1;
    return [...(side ? second : first)].map((name) => [name, shown.flatMap((row, i) => (parts[i][side] === name ? [[parts[i][1 - side], row]] : []))]);
  };
  const bar = (one, at, label, row) => {
    const percent = (v) => `${(100 * at(v)).toFixed(2)}%`;
    const zero = one.unit === "%" ? 0 : at(0), end = row.value === null ? zero : at(row.value);
    return h(
      "div", { class: "ai-bar-row", title: spoken(one, row) },
      h("span", { class: "ai-bar-label" }, label),
      h("span", { class: "ai-bar-track" },
        row.value === null ? null : h("i", { style: `left:${(100 * Math.min(zero, end)).toFixed(2)}%;width:${(100 * Math.abs(end - zero)).toFixed(2)}%` }),
        row.low === null ? null : h("b", { style: `left:${percent(row.low)};width:${(100 * (at(row.high) - at(row.low))).toFixed(2)}%` }),
        row.chance === null ? null : h("u", { style: `left:${percent(row.chance)}` })),
      h("span", { class: "ai-bar-value" }, told(one, row.value)),
    );
  };
  const bars = (one) => {
    const shown = records(one);
    if (!shown.length || !("value" in shown[0])) return [];
    const at = scaleOf(one, shown), groups = grouped(shown);
    const block = ([name, some]) => h("div", { class: "ai-bar-group", role: "img", "aria-label": some.map(([, row]) => spoken(one, row)).join("; ") }, name ? h("p", { class: "ai-bar-title" }, name) : null, ...some.map(([label, row]) => bar(one, at, label, row)));
    if (shown.length <= 16 || groups.length < 2) return groups.map(block);
    return [block(groups[0]), h("details", { "data-test": `${one.name}: more` }, h("summary", {}, groups.slice(1).map(([name]) => name).join(", ")), ...groups.slice(1).map(block))];
  };

  // A curve over a logarithmic abscissa: a line a series, its interval as a band, chance dashed.
  const curve = (one, width) => {
    const [x, by] = one.curve, shown = records(one).filter((row) => row.value !== null);
    const names = [...new Set(shown.map((row) => row[by]))];
    const level = names.filter((name) => new Set(shown.filter((r) => r[by] === name).map((r) => r[x])).size === 1 && names.length > 1);
    const lines = names.filter((name) => !level.includes(name));
    const places = [...new Set(shown.filter((r) => lines.includes(r[by])).map((r) => r[x]))].sort((a, b) => a - b);
    if (places.length < 2) return [];
    const height = 260, left = 46, right = 14, top = 10, foot = height - 40;
    const low = Math.log2(places[0]), high = Math.log2(places[places.length - 1]);
    const px = (v) => left + ((Math.log2(v) - low) / (high - low)) * (width - left - right);
    const py = (v) => foot - Math.max(0, Math.min(1, v)) * (foot - top);
    const figure = svg("svg", { class: "ai-figure ai-finding-figure", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${one.name}: ${names.join(", ")} against ${x === "k" ? "brain dimensions" : x}` });
    for (const v of [0, 0.25, 0.5, 0.75, 1]) figure.append(svg("line", { class: "ai-grid", x1: left, x2: width - right, y1: py(v), y2: py(v) }), svg("text", { class: "ai-tick", x: left - 6, y: py(v) + 4, "text-anchor": "end" }, `${100 * v} %`));
    let last = -Infinity;
    for (const v of places) {
      if (px(v) - last < 34) continue;
      last = px(v);
      figure.append(svg("text", { class: "ai-tick", x: px(v), y: foot + 16, "text-anchor": "middle" }, v.toLocaleString("en-US")));
    }
    figure.append(svg("text", { class: "ai-title", x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, x === "k" ? "brain dimensions kept" : `training ${x}`));
    for (const chance of new Set(shown.map((row) => row.chance))) figure.append(svg("line", { class: "ai-line-chance", x1: left, x2: width - right, y1: py(chance), y2: py(chance) }));
    for (const row of shown.filter((r) => level.includes(r[by]))) figure.append(svg("line", { class: "ai-level", x1: left, x2: width - right, y1: py(row.value), y2: py(row.value) }, svg("title", {}, spoken(one, row))));
    const keys = [];
    let series = 0;
    for (const name of lines) {
      const fit = name.startsWith("fit, "), of = fit ? lines.indexOf(name.slice(5)) : lines.indexOf(name);
      const shade = lines.filter((n) => !n.startsWith("fit, ")).indexOf(lines[of]);
      const points = shown.filter((row) => row[by] === name).sort((a, b) => a[x] - b[x]);
      const path = points.map((row, i) => `${i ? "L" : "M"}${px(row[x]).toFixed(1)} ${py(row.value).toFixed(1)}`).join("");
      const back = [...points].reverse();
      const band = [...points.map((row) => [row, row.high]), ...back.map((row) => [row, row.low])].map(([row, v], i) => `${i ? "L" : "M"}${px(row[x]).toFixed(1)} ${py(v).toFixed(1)}`).join("");
      figure.append(svg("path", { class: `ai-series-band ai-series-${shade}`, d: `${band}Z` }), svg("path", { class: `ai-series-line ai-series-${shade}${fit ? " ai-fit" : ""}`, d: path }));
      if (!fit) for (const row of points) figure.append(svg("circle", { class: `ai-series-dot ai-series-${shade}`, cx: px(row[x]), cy: py(row.value), r: 3.5 }, svg("title", {}, spoken(one, row))));
      keys.push(h("li", {}, h("i", { class: `ai-key ai-series-${shade}${fit ? " ai-fit" : ""}` }), name));
      series += 1;
    }
    if (level.length) keys.push(h("li", {}, h("i", { class: "ai-key ai-key-level" }), level.join(", ")));
    keys.push(h("li", {}, h("i", { class: "ai-key ai-key-chance" }), "chance"));
    return [figure, h("ul", { class: "ai-series-keys" }, ...keys)];
  };

  const shownAs = (one, v, i) => (v === null ? "–" : typeof v !== "number" ? v : COUNTS.has(one.columns[i]) ? String(v) : number(v, 3));
  const table = (one) => h("div", { class: "ai-scroll", tabindex: "0", role: "region", "aria-label": `Numbers of ${one.name}` }, h("table", { class: "ai-numbers" }, h("thead", {}, h("tr", {}, ...one.columns.map((name, i) => h("th", { scope: "col", class: i ? "ai-right" : "" }, name)))), h("tbody", {}, ...one.rows.map((row) => h("tr", {}, ...row.map((v, i) => h(i ? "td" : "th", i ? { class: "ai-right ai-number" } : { scope: "row" }, shownAs(one, v, i))))))));
  const chart = (one, width) => (one.curve.length ? curve(one, width) : bars(one));
  const section = (one, width, open) => {
    const charts = chart(one, width), plain = !charts.length;
    return h(
      "section", { class: "ai-finding" }, h("h4", {}, one.name[0].toUpperCase() + one.name.slice(1)), h("p", { class: "ai-verdict-line" }, one.sentence), ...charts, plain && one.rows.length ? table(one) : null,
      h("details", { "data-test": one.name, open: open.has(one.name) }, h("summary", {}, plain ? "Definition" : "Definition and numbers"), h("p", { class: "ai-small" }, one.definition), plain ? null : table(one)),
    );
  };
  const render = () => {
    const open = new Set([...list.querySelectorAll("details[open]")].map((d) => d.dataset.test));
    drawnAt = Math.max(280, Math.min(640, list.clientWidth || 640));
    list.replaceChildren(...content.findings.map((one) => section(one, drawnAt, open)));
    for (const more of list.querySelectorAll("details")) more.open = open.has(more.dataset.test);
  };
  const fill = (value) => {
    content = value;
    setText(who, `${value.who}: each test with its definition, interval over test images, chance and N.`);
    render();
  };
  // letters of a figure keep their size: it is drawn as wide as there is room
  new ResizeObserver(() => { if (content && Math.abs(Math.max(280, Math.min(640, list.clientWidth || 640)) - drawnAt) > 8) render(); }).observe(list);
  return { node, settings: () => {}, fill };
};
