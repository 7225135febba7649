// Over all test images: maps with their statistics, and how the mappers fare.
const save = (name, mime, text) => {
  const link = h("a", { href: URL.createObjectURL(new Blob([text], { type: mime })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 5000);
};
// A name that begins like a formula would be one in a spreadsheet.
const quoted = (v) => { const own = v === null || v === undefined ? "" : String(v); const text = typeof v === "string" && /^[=+\-@\t\r]/.test(own) && Number.isNaN(Number(own.replace("−", "-"))) ? `'${own}` : own; return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text; };
const saveTable = (name, columns, rows) => save(name, "text/csv", [columns, ...rows.map((row) => columns.map((c) => row[c]))].map((row) => row.map(quoted).join(",")).join("\n") + "\n");
// What css says of a figure is written into its copy, so that it looks the same elsewhere.
const saveFigure = (name, node) => {
  const copy = node.cloneNode(true);
  const both = [[node, copy], ...[...node.querySelectorAll("*")].map((own, i) => [own, copy.querySelectorAll("*")[i]])];
  for (const [own, other] of both) {
    const style = getComputedStyle(own), word = own.tagName === "text";
    const keys = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", ...(word ? ["font-family", "font-size"] : [])];
    for (const key of keys.filter((k) => !k.startsWith("stroke-") || style.stroke !== "none")) {
      const set = style.getPropertyValue(key);
      if (!["none", "1"].includes(set) || key === "fill" || key === "stroke") other.setAttribute(key, set);
    }
    other.removeAttribute("class");
  }
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  save(name, "image/svg+xml", new XMLSerializer().serializeToString(copy));
};
const exports_ = (...buttons) => h("p", { class: "ai-saves" }, buttons.map(([text, act]) => h("button", { type: "button", class: "ai-link", onclick: act }, text)));
const segments = (node, offered, chosen, pick) => {
  node.hidden = offered.length < 2;
  node.replaceChildren(...offered.map(([key, text]) => h("button", { type: "button", "aria-pressed": key === chosen, onclick: () => pick(key) }, text)));
};
const pText = (p) => (p === null || p === undefined ? "–" : p < 0.001 ? "< 0.001" : p.toFixed(3));

// ------------------------------------------------------------------------------------- statistics
const statisticsView = () => {
  let content = null, column = "value", sort = "value";
  const people = h("div", { class: "ai-toggle", role: "group", "aria-label": "Whose map" });
  const banner = h("p", { class: "ai-banner", role: "alert" });
  const summary = h("p", { class: "ai-verdict-line" });
  const which = h("div", { class: "ai-toggle", role: "group", "aria-label": "What is drawn" });
  const own = brainFigure(["posterior", "ventral"], "Map over all test images");
  const random = brainFigure(["posterior", "ventral"], "The same map for shuffled weights");
  const ownTitle = h("p", { class: "ai-letter" }), randomBox = h("div", {}, h("p", { class: "ai-letter" }, "Weights shuffled"), random.node);
  const brains = h("div", { class: "ai-two-brains" }, h("div", {}, ownTitle, own.node), randomBox);
  const head = h("tr"), body = h("tbody");
  const facts = h("dl", { class: "ai-facts" });
  const node = h("div", {}, people, banner, summary, h("div", { class: "ai-pair" }, h("section", {}, which, brains, facts), h("section", {}, h("div", { class: "ai-table ai-lab-table ai-tall", tabindex: "0", role: "region", "aria-label": "Statistics of every parcel" }, h("table", {}, h("thead", {}, head), body)), h("p", { class: "ai-small" }, "Intervals are 95 % over test images (over subjects in a group). q is p corrected over parcels (Benjamini–Hochberg): “evidence” asks whether the parcel's betas belong to the shown image, “place” whether importance is greater here than elsewhere on the cortex."), exports_(["Save as CSV", () => saveTable("statistics.csv", Object.keys(content.rows[0]), content.rows)]))));
  const COLUMNS = { subject: [["value", null], ["low", "95 % interval"], ["q_evidence", "q, evidence"], ["q_place", "q, place"], ["randomised", "shuffled"]], group: [["value", null], ["low", "95 % interval"], ["found", "found in"], ["q", "q"]] };
  const LABEL = { value: "Importance", evidence: "Evidence", per_ceiling: "÷ noise ceiling" };
  const cell = (row, name) => {
    if (name === "low") return row.low === null ? "–" : `${number(row.low)} to ${number(row.high)}`;
    if (name.startsWith("q")) return pText(row[name]);
    return name === "found" ? `${row.found} of ${row.subjects}` : number(row[name]);
  };
  const render = () => {
    const columns = COLUMNS[content.people];
    head.replaceChildren(h("th", { scope: "col" }, "Parcel"), ...columns.map(([name, text]) => h("th", { scope: "col", class: "ai-right", "aria-sort": name === sort ? (name.startsWith("q") ? "ascending" : "descending") : "none" }, h("button", { type: "button", onclick: () => { sort = name; render(); } }, text || content.measure, h("i", { "aria-hidden": "true" }, name === sort ? "▾" : "")))));
    const up = sort.startsWith("q") ? 1 : -1;
    const most = Math.max(...content.maps.value.limits.map(Math.abs), 1e-12); // bars are as long as colours are strong
    body.replaceChildren(...[...content.rows].sort((a, b) => a.small - b.small || (a[sort] === null) - (b[sort] === null) || up * ((a[sort] ?? 0) - (b[sort] ?? 0))).map((row) => {
      const sure = (row.q_evidence ?? row.q) !== null && (row.q_evidence ?? row.q) <= 0.05;
      return h("tr", { class: `${row.small ? "ai-few" : ""} ${sure ? "ai-sure" : ""}`, "data-parcel": row.parcel }, h("td", {}, row.label), ...columns.map(([name]) => {
        const p = { q_evidence: row.p_evidence, q_place: row.p_place, q: row.p }[name];
        const td = h("td", { class: `ai-right ai-number${name === "value" ? " ai-measured" : ""}`, title: p === undefined ? null : `p ${pText(p)} before correction` }, cell(row, name));
        if (name === "value") {
          td.style.setProperty("--fill", `${Math.min(100, (100 * Math.abs(row.value ?? 0)) / most)}%`);
          td.classList.toggle("ai-beyond", Math.abs(row.value ?? 0) > most);
        }
        return td;
      }));
    }));
    const drawn = Object.keys(LABEL).filter((name) => content.maps[name]);
    if (!drawn.includes(column)) column = drawn[0];
    segments(which, drawn.map((name) => [name, LABEL[name]]), column, (name) => { column = name; render(); });
    setText(ownTitle, content.who);
    own.draw(content.maps[column] || null);
    const beside = column === "value" && content.maps.randomised;
    randomBox.hidden = !beside || Boolean(content.maps.randomised.problem);
    random.draw(beside || null);
    brains.hidden = Boolean(content.banner);
    which.hidden ||= Boolean(content.banner);
  };
  const fill = (value) => {
    content = value;
    setText(banner, value.banner);
    banner.hidden = !value.banner;
    setText(summary, value.summary);
    summary.hidden = Boolean(value.banner);
    facts.replaceChildren(...value.facts.flatMap(([name, text]) => [h("dt", {}, name), h("dd", {}, text)]));
    render();
  };
  const settings = (value) => segments(people, value.offered, value.people, (name) => choose({ people: name }));
  return { node, settings, fill };
};

// ------------------------------------------------------------------------------------- evaluation
const evaluationView = () => {
  let content = null, target = 0, subject = "", score = "", role = "averaged", plot = null;
  const targets = h("select", { "aria-label": "Target", onchange: () => { target = Number(targets.value); render(); } });
  const subjects = h("select", { "aria-label": "Subject", onchange: () => { subject = subjects.value; render(); } });
  const roles = h("div", { class: "ai-toggle", role: "group", "aria-label": "Which betas" });
  const head = h("tr"), body = h("tbody");
  const definition = h("p", { class: "ai-small" });
  const holder = h("div");
  const notes = h("div");
  const rowsNow = () => content.targets[target].rows.filter((r) => r.subject === subject);
  const node = h(
    "div", {},
    h("div", { class: "ai-controls ai-eval-controls" }, h("label", { class: "ai-atlas" }, "Target", targets), h("label", { class: "ai-atlas" }, "Subject", subjects), roles), notes,
    h("div", { class: "ai-scroll" }, h("table", { class: "ai-numbers ai-tests ai-eval" }, h("thead", {}, head), body)),
    exports_(["Save table as CSV", () => saveTable("evaluation.csv", Object.keys(content.targets[target].rows[0]), content.targets[target].rows)]),
    h("section", { class: "ai-apart" }, h("h4", { id: "eval-title" }), definition, holder, exports_(["Save figure as SVG", () => plot && saveFigure("evaluation.svg", plot)])),
  );
  const asShare = (name) => /two-way|-way|top-/i.test(content.scores[name].title);
  const show = (name, v) => (v === null || v === undefined ? "–" : asShare(name) ? `${(100 * v).toFixed(1)} %` : number(v, 3));
  const named = { averaged: "Averaged repeats", single: "Single trials" };
  const strip = () => {
    const of = content.targets[target].trials, values = of.values[score] || {};
    const mappers = Object.keys(values);
    const all = mappers.flatMap((m) => values[m]).filter((v) => v !== null);
    if (!all.length) return null;
    const line = 46, left = 110, width = 940, right = 16, top = 8, foot = top + mappers.length * line;
    const [a, b] = [Math.min(...all), Math.max(...all)];
    const px = (v) => left + ((v - a) / (b - a || 1)) * (width - left - right);
    const node = svg("svg", { class: "ai-figure ai-strip-figure", viewBox: `0 0 ${width} ${foot + 38}`, role: "img", "aria-label": "Distribution over test images" });
    for (const v of ticks(a, b, 6)) node.append(svg("line", { class: "ai-grid", x1: px(v), x2: px(v), y1: top, y2: foot }), svg("text", { class: "ai-tick", x: px(v), y: foot + 15, "text-anchor": "middle" }, short(v)));
    mappers.forEach((mapper, row) => {
      const y = top + (row + 0.5) * line;
      node.append(svg("text", { class: `ai-name${mapper === content.mapper ? " ai-strong" : ""}`, x: left - 12, y: y + 4, "text-anchor": "end" }, mapper));
      values[mapper].forEach((v, i) => {
        if (v === null) return;
        const on = of.stimuli[i] === content.stimulus;
        const shift = ((i * 0.61803) % 1 - 0.5) * (line - 16); // spread, the same for a trial in every row
        node.append(svg("circle", { class: `ai-point ai-tiny${on ? " ai-on" : ""}`, cx: px(v), cy: y + (on ? 0 : shift), r: on ? 6 : 3, "data-stimulus": of.stimuli[i], onclick: () => { goUp(); trigger("select", { stimulus: of.stimuli[i] }); } }, svg("title", {}, `Trial ${of.numbers[i]}, ${of.stimuli[i]}: ${number(v, 3)}`)));
      });
      const sorted = values[mapper].filter((v) => v !== null).sort((x, z) => x - z), middle = sorted[Math.floor(sorted.length / 2)];
      node.append(svg("line", { class: "ai-median", x1: px(middle), x2: px(middle), y1: y - 17, y2: y + 17 }));
    });
    node.querySelectorAll(".ai-on").forEach((point) => node.append(point)); // on top
    node.append(svg("text", { class: "ai-title", x: (left + width - right) / 2, y: foot + 34, "text-anchor": "middle" }, content.scores[score].title));
    return node;
  };
  const render = () => {
    const of = content.targets[target];
    const people = [...new Set(of.rows.map((r) => r.subject))];
    if (!people.includes(subject)) subject = people.find((p) => p.startsWith("mean")) || people[0];
    targets.replaceChildren(...content.targets.map((t, i) => h("option", { value: i, selected: i === target }, t.name)));
    targets.parentElement.hidden = content.targets.length < 2;
    subjects.replaceChildren(...people.map((p) => h("option", { value: p, selected: p === subject }, p)));
    segments(roles, Object.entries(named).filter(([r]) => of.rows.some((row) => row.role === r)), role, (r) => { role = r; render(); });
    const rows = rowsNow();
    const scores = Object.keys(content.scores).filter((name) => rows.some((r) => r.score === name));
    const drawable = scores.filter((name) => content.scores[name].by_trial);
    // At first the score that tells the test images apart best.
    const distinct = (name) => new Set((of.trials.values[name] || {})[content.mapper] || []).size;
    if (!drawable.includes(score)) score = drawable.reduce((a, b) => (distinct(b) > distinct(a) ? b : a), drawable[0] || "");
    const find = (mapper, name, which) => rows.find((r) => r.mapper === mapper && r.score === name && r.role === which);
    head.replaceChildren(h("th", { scope: "col" }, "Mapper"), ...scores.map((name) => h("th", { scope: "col", class: "ai-right" }, content.scores[name].by_trial ? h("button", { type: "button", class: "ai-link", title: `${content.scores[name].sentence} Select to see its distribution.`, "aria-pressed": name === score, onclick: () => { score = name; render(); } }, content.scores[name].title) : h("span", { title: content.scores[name].sentence }, content.scores[name].title))));
    const lineOf = (label, pick, cls) => {
      const cells = scores.map(pick);
      return cells.some(Boolean) ? h("tr", { class: cls || "" }, h("th", { scope: "row" }, label), ...cells.map((r, i) => h("td", { class: "ai-right ai-number" }, show(scores[i], r?.value), r && r.low !== null ? h("small", {}, `${show(scores[i], r.low).replace(" %", "")} to ${show(scores[i], r.high)}`) : null))) : null;
    };
    const best = (name) => Math.max(...of.mappers.map((m) => find(m, name, role)?.value ?? -Infinity));
    body.replaceChildren(...[
      ...of.mappers.map((mapper) => lineOf(mapper, (name) => find(mapper, name, role), mapper === content.mapper ? "ai-chosen" : "")),
      ...of.mappers.slice(0, 1).map((mapper) => lineOf(`noiseless betas, ${mapper} (ceiling)`, (name) => find(mapper, name, "ceiling"), "ai-quiet")),
      ...of.mappers.slice(0, 1).map((mapper) => lineOf(`shuffled brains, ${mapper}`, (name) => find(mapper, name, "shuffled"), "ai-quiet")),
      h("tr", { class: "ai-quiet" }, h("th", { scope: "row" }, "chance"), ...scores.map((name) => h("td", { class: "ai-right ai-number" }, show(name, rows.find((r) => r.score === name && r.chance !== null)?.chance)))),
      h("tr", { class: "ai-quiet" }, h("th", { scope: "row" }, "N test images"), ...scores.map((name) => h("td", { class: "ai-right ai-number" }, rows.find((r) => r.score === name && r.role === role)?.n ?? "–"))),
      h("tr", { class: "ai-quiet" }, h("th", { scope: "row" }, "Split"), h("td", { class: "ai-right", colspan: scores.length }, rows[0]?.split ?? "–")),
    ].filter(Boolean));
    notes.replaceChildren(...content.notes.map((text) => h("p", { class: "ai-note" }, text)));
    setText(node.querySelector("#eval-title"), score ? `Every test image of ${content.subject}: ${content.scores[score].title}` : "");
    setText(definition, score ? `${content.scores[score].sentence} The line is the median, the large dot this trial; select a dot to open its trial.` : "");
    plot = score ? strip() : null;
    holder.replaceChildren(plot || "");
  };
  const fill = (value) => {
    if (!content) { target = value.target; }
    content = value;
    target = Math.min(target, value.targets.length - 1);
    render();
  };
  return { node, settings: () => {}, fill };
};

// --------------------------------------------------------------------------------------- identity
// Names and texts in two columns, as the command trace prints them.
const identityView = () => {
  let content = null;
  const list = h("dl", { class: "ai-facts ai-identity" });
  const name = () => `identity-${content.json.subject}-${content.json.stimulus}.json`;
  const node = h(
    "div", {}, list,
    exports_(
      ["Save as CSV", () => saveTable("identity.csv", ["name", "text"], content.rows.map(([key, text]) => ({ name: key, text })))],
      ["Save as JSON", () => save(name(), "application/json", JSON.stringify(content.json, null, 2))],
    ),
  );
  const fill = (value) => {
    content = value;
    list.replaceChildren(...value.rows.flatMap(([key, text]) => [h("dt", {}, key), h("dd", {}, text)]));
  };
  return { node, settings: () => {}, fill };
};
