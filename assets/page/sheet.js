// All trials at once: a contact sheet that is sorted, filtered and searched, with pictures side by
// side at full size. It draws the payload of explorer/evidence/sheet_view.py and needs common.js
// alone, so that a page of plain files has it too: showSheet there, lab_sheet.js on a server.
//
// ask.thumbs(ids, scale) and ask.full(id) promise pictures that the payload has no address of;
// ask.open(id) shows a trial, ask.draw(scale) draws what is not there yet.
const sheetView = (ask = {}) => {
  const MOST_BESIDE = 12, MOST_ZOOM = 16, AT_ONCE = 30;
  let data = null, scale = "", score = "", best = true, category = "", words = "", only = "all", chosen = false;
  let order = [], current = "", columns = 1;
  const selected = new Set(), cells = new Map(), visible = new Set(), pending = new Set(), sources = new Map();

  const folded = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
  const meaning = () => data.scores.find((one) => one.key === score);
  const valueOf = (trial, of = meaning()) => (of ? (of.by_scale ? trial.pictures[scale]?.scores : trial.scores)?.[of.key] ?? null : null);
  const minus = (text) => text.replace("-", "−");
  const written = (v, of) => {
    if (v === null || v === undefined) return "–";
    return minus(of.whole ? String(v) : Math.abs(v) >= 100 ? v.toFixed(0) : v.toFixed(2));
  };
  const shortCaption = (trial) => trial.caption || trial.id;
  const undrawn = () => (data.made === "generated" ? "not drawn" : "not shown yet");
  const scaleLabel = () => data.scales.find((one) => one.key === scale)?.label || "";

  // --------------------------------------------------------------------------------- the controls
  const picker = (label, change) => {
    const field = h("select", { onchange: () => change(field.value) });
    return { field, node: h("label", { class: "ai-contact-pick" }, h("span", {}, label), field) };
  };
  const sorter = picker("Sort by", (v) => { score = v; chosen = true; least.value = most.value = ""; render(); });
  const scaler = picker("Pictures", (v) => { scale = v; render(); });
  const filter = picker("Images", (v) => { category = v; render(); });
  const shown = picker("Show", (v) => { only = v; render(); });
  const turn = h("button", { type: "button", class: "ai-button ai-contact-turn", onclick: () => { best = !best; render(); } });
  let typing = 0;
  const search = h("input", { type: "search", placeholder: "words of a caption", oninput: () => {
    clearTimeout(typing);
    typing = setTimeout(() => { words = search.value; render(); }, 150);
  } });
  // Values of the score between two bounds; an empty field is none.
  const bound = (label) => h("input", { type: "number", step: "any", "aria-label": label, oninput: () => { clearTimeout(typing); typing = setTimeout(() => render(), 150); } });
  const least = bound("Least value of the score"), most = bound("Greatest value of the score");
  const bounds = h("div", { class: "ai-contact-pick" }, h("span", {}, "Values from, to"), h("div", { class: "ai-contact-bounds" }, least, most));
  const within = (trial) => {
    const [low, high] = [least, most].map((field) => (field.value === "" ? null : Number(field.value)));
    if (!meaning() || (low === null && high === null)) return true;
    const v = valueOf(trial);
    return v !== null && (low === null || v >= low) && (high === null || v <= high);
  };
  const about = h("p", { class: "ai-contact-about" });
  const definition = h("p", { class: "ai-small ai-wide" });
  const figures = h("dl", { class: "ai-contact-figures" });
  const drawText = h("span", { class: "ai-small" });
  const drawButton = h("button", { type: "button", class: "ai-button ai-contact-draw", onclick: () => ask.draw?.(scale) });
  const notes = h("div", { class: "ai-contact-notes" });
  const count = h("p", { class: "ai-small ai-contact-count", role: "status" });
  const beside = h("button", { type: "button", class: "ai-button", onclick: () => zoom([...selected]) }, "Side by side");
  const clear = h("button", { type: "button", class: "ai-link", onclick: () => { selected.clear(); render(true); list.querySelector('[tabindex="0"]')?.focus(); } }, "Clear");
  const list = h("div", { class: "ai-contact-list", role: "listbox", "aria-multiselectable": "true", "aria-label": "Test trials", onkeydown: (event) => walk(event) });
  const none = h("p", { class: "ai-small" }, "No trial fits.");
  const hint = h("p", { class: "ai-small ai-contact-hint" }, "Select a picture for its full size, the tick to put several side by side; a double click opens the trial. Keys: arrows move, Space selects, Enter opens the trial, Z shows it in full size.");

  // ------------------------------------------------------------------------------------ the cells
  const build = (trial) => {
    const truth = h("img", { alt: "", draggable: "false" }), drawn = h("img", { alt: "", draggable: "false" });
    const blank = h("span", { class: "ai-contact-blank" });
    const line = h("span", { class: "ai-contact-value" }), mark = h("span", { class: "ai-contact-mark" });
    const node = h(
      "div", { class: "ai-contact-cell", role: "option", "data-id": trial.id, tabindex: -1,
        onclick: (event) => {
          focusOn(trial.id);
          if (event.target.closest(".ai-contact-tick") || event.ctrlKey || event.metaKey || event.shiftKey) pick(trial.id);
          else if (event.target.closest(".ai-contact-pair")) zoom([trial.id]);
        },
        ondblclick: (event) => { if (!event.target.closest(".ai-contact-pair, .ai-contact-tick")) open(trial.id); },
        onfocus: () => { if (current !== trial.id) focusOn(trial.id); } },
      h("span", { class: "ai-contact-pair" }, h("span", { class: "ai-contact-pane" }, truth, trial.pictured ? null : h("span", { class: "ai-contact-blank" }, "no picture")), h("span", { class: "ai-contact-pane" }, drawn, blank)),
      h("span", { class: "ai-contact-line" }, h("b", {}, trial.number), line, mark),
      h("span", { class: "ai-contact-caption", title: trial.caption }, shortCaption(trial)),
      h("span", { class: "ai-contact-tick", "aria-hidden": "true" }, "✓"),
    );
    watcher.observe(node);
    return { node, truth, drawn, blank, line, mark };
  };
  const paint = (trial, ends = null) => {
    const cell = cells.get(trial.id), of = meaning();
    const truth = trial.thumb || sources.get(`\n${trial.id}`), there = trial.pictures[scale];
    const drawn = there && (there.thumb || sources.get(`${scale}\n${trial.id}`));
    // Files load as they are scrolled to; what a server sends is asked for as it is.
    if (visible.has(trial.id) || truth?.startsWith("data:")) setSource(cell.truth, truth);
    cell.truth.hidden = !cell.truth.getAttribute("src");
    if (drawn && (visible.has(trial.id) || drawn.startsWith("data:"))) setSource(cell.drawn, drawn);
    else if (!drawn) cell.drawn.removeAttribute("src");
    cell.drawn.hidden = !cell.drawn.getAttribute("src");
    cell.drawn.parentElement.hidden = !data.scales.length;
    setText(cell.blank, there ? "" : trial.why ? "cannot be drawn" : undrawn());
    cell.blank.title = trial.why;
    cell.blank.hidden = Boolean(there);
    const value = valueOf(trial);
    setText(cell.line, of ? written(value, of) : "");
    if (ends) {
      const which = ends.best.has(trial.id) ? "best" : ends.worst.has(trial.id) ? "worst" : "";
      cell.node.dataset.end = which;
      setText(cell.mark, which);
    }
    const on = selected.has(trial.id);
    cell.node.setAttribute("aria-selected", on);
    const end = cell.node.dataset.end;
    const told = [`Trial ${trial.number}: ${shortCaption(trial)}`, of ? `${of.title} ${written(value, of)}` : "", end, there || !data.scales.length ? "" : undrawn()];
    cell.node.setAttribute("aria-label", told.filter(Boolean).join(", "));
  };

  // Only what is seen is asked for.
  let asked = 0;
  const flush = () => {
    asked = 0;
    if (!data) return;
    const lacking = order.filter((trial) => visible.has(trial.id) && !pending.has(`${scale}\n${trial.id}`)
      && ((trial.pictured && !trial.thumb && !sources.has(`\n${trial.id}`)) || (trial.pictures[scale] && !trial.pictures[scale].thumb && !sources.has(`${scale}\n${trial.id}`))));
    order.filter((trial) => visible.has(trial.id)).forEach((trial) => paint(trial));
    if (!lacking.length || !ask.thumbs) return;
    const now = lacking.slice(0, AT_ONCE), at = scale;
    now.forEach((trial) => pending.add(`${at}\n${trial.id}`));
    Promise.resolve(ask.thumbs(now.map((trial) => trial.id), at)).then((found) => {
      now.forEach((trial) => {
        pending.delete(`${at}\n${trial.id}`);
        const got = found?.[trial.id];
        if (!got) return;
        if (got.truth) sources.set(`\n${trial.id}`, got.truth);
        if (got.drawn) sources.set(`${at}\n${trial.id}`, got.drawn);
      });
      data.trials.filter((trial) => now.some((one) => one.id === trial.id)).forEach((trial) => paint(trial));
      if (now.some((trial) => found?.[trial.id])) soon();
    }, () => now.forEach((trial) => pending.delete(`${at}\n${trial.id}`)));
  };
  const soon = () => { asked ||= setTimeout(flush, 60); };
  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) visible[isIntersecting ? "add" : "delete"](target.dataset.id);
    soon();
  }, { rootMargin: "240px 0px" });

  // ------------------------------------------------------------------------- sorted and filtered
  const sorted = (trials) => {
    const of = meaning(), sign = of && (of.better === "higher") === best ? -1 : 1;
    const rank = (trial) => { const v = valueOf(trial, of); return v === null ? null : sign * v; };
    return [...trials].sort((a, b) => {
      const [x, y] = [rank(a), rank(b)];
      return (x === null) - (y === null) || (x ?? 0) - (y ?? 0) || (of || best ? 1 : -1) * (a.number - b.number);
    });
  };
  const fits = (trial) => (!category || trial.category === category) && within(trial)
    && folded(words).split(/\s+/).filter(Boolean).every((word) => folded(`${trial.caption} ${trial.id}`).includes(word))
    && (only === "all" || (only === "drawn" ? trial.pictures[scale] : selected.has(trial.id)));
  const extremes = (trials) => {
    const of = meaning(), values = trials.map((trial) => [trial.id, valueOf(trial, of)]).filter(([, v]) => v !== null);
    const ends = [Math.min(...values.map(([, v]) => v)), Math.max(...values.map(([, v]) => v))];
    if (!values.length || ends[0] === ends[1]) return { best: new Set(), worst: new Set(), values };
    const [low, high] = ends.map((end) => new Set(values.filter(([, v]) => v === end).map(([id]) => id)));
    return of.better === "higher" ? { best: high, worst: low, values } : { best: low, worst: high, values };
  };
  const offer = (picked, offered, value) => {
    const same = JSON.stringify(offered);
    if (picked.shown !== same) {
      picked.shown = same;
      picked.field.replaceChildren(...offered.map(([key, text]) => h("option", { value: key }, text)));
    }
    picked.field.value = value;
  };

  const render = (keep = false) => {
    if (!data) return;
    const of = meaning(), numbers = data.trials.map((trial) => valueOf(trial)).filter((v) => v !== null);
    if (of) of.whole = numbers.every(Number.isInteger);
    offer(sorter, [["", "number"], ...data.scores.map((one) => [one.key, one.title])], score);
    offer(scaler, data.scales.map((one) => [one.key, one.label]), scale);
    offer(filter, [["", "all categories"], ...data.categories.map((name) => [name, name])], category);
    offer(shown, [["all", "all"], ["drawn", "those with a picture"], ["selected", "selected ones"]], only);
    scaler.node.hidden = data.scales.length < 2;
    shown.node.hidden = !data.scales.length && !selected.size;
    bounds.hidden = !of;
    filter.node.hidden = !data.categories.length;
    setText(turn, of ? (best ? "Best first" : "Worst first") : best ? "Ascending" : "Descending");
    turn.setAttribute("aria-label", `Order: ${turn.textContent}; select to turn it round`);
    // While pictures come in and the list is in use, nothing moves under the hand.
    const held = keep && list.matches(":hover, :focus-within") && order.length;
    order = held ? order.map(({ id }) => data.trials.find((trial) => trial.id === id)).filter(Boolean) : sorted(data.trials.filter(fits));
    const ends = extremes(order), middle = ends.values.map(([, v]) => v).sort((a, b) => a - b);
    const holding = list.contains(document.activeElement);
    const nodes = order.map((trial) => { if (!cells.has(trial.id)) cells.set(trial.id, build(trial)); return cells.get(trial.id).node; });
    if (nodes.length !== list.children.length || nodes.some((node, i) => node !== list.children[i])) {
      list.replaceChildren(...nodes);
      if (holding && cells.get(current)?.node.isConnected) cells.get(current).node.focus({ preventScroll: true });
    }
    if (!keep || !order.some((trial) => trial.id === current)) current = order[0]?.id || "";
    order.forEach((trial) => { paint(trial, ends); cells.get(trial.id).node.tabIndex = trial.id === current ? 0 : -1; });
    none.hidden = order.length > 0;
    list.hidden = !order.length;
    about.replaceChildren(...data.about.map((text) => h("span", {}, text)), ...(data.scales.length && scaleLabel() !== data.about[2] ? [h("span", {}, scaleLabel())] : []), ...(data.simulated ? [h("span", { class: "ai-badge", title: data.data_note }, "Simulated data")] : []), ...(data.made !== "generated" ? [h("span", { class: "ai-badge" }, data.made)] : []));
    setText(definition, of ? `${of.sentence}; ${of.better} is better.` : "In the order of the data set.");
    const chance = of ? of.chance[of.by_scale ? scale : ""] : undefined, known = chance !== undefined && chance !== null;
    const low = middle[0], high = middle[middle.length - 1], better = of?.better === "higher";
    const median = middle.length % 2 ? middle[(middle.length - 1) / 2] : (middle[middle.length / 2 - 1] + middle[middle.length / 2]) / 2;
    const facts = !of ? [] : [["N", String(middle.length)], ...(middle.length ? [["best", written(better ? high : low, of)], ["median", written(median, { whole: of.whole && Number.isInteger(median) })], ["worst", written(better ? low : high, of)]] : []), ["chance", known ? minus(String(Number(chance.toFixed(2)))) : data.measured === false ? "measured at the end" : "not known"]];
    figures.replaceChildren(...facts.map(([name, text]) => h("div", { title: name === "chance" && known ? of.chance_of : null }, h("dt", {}, name), h("dd", {}, text))));
    if (of && known && of.chance_of) definition.append(` Chance: ${of.chance_of}.`);
    const able = data.trials.filter((trial) => !trial.why).length, there = able - (data.lacking[scale] ?? 0), offered = data.offers?.[scale];
    setText(drawText, data.scales.length ? `${there} of ${data.trials.length} are ${data.made === "generated" ? "drawn" : "shown"} ${scaleLabel().startsWith("scale ") ? "at" : "by"} ${scaleLabel()}.` : "");
    drawButton.hidden = !offered || !ask.draw;
    setText(drawButton, offered || "");
    notes.replaceChildren(...data.notes.map((text) => h("p", { class: "ai-note" }, text)));
    const many = selected.size;
    setText(count, `${order.length === data.trials.length ? `${order.length} trials` : `${order.length} of ${data.trials.length} trials`}${many ? `, ${many} selected` : ""}`);
    beside.hidden = clear.hidden = !many;
    beside.disabled = many > MOST_BESIDE;
    beside.title = many > MOST_BESIDE ? `At most ${MOST_BESIDE} stand side by side` : "";
    soon();
  };

  // ------------------------------------------------------------------------------------- by keys
  const focusOn = (id) => {
    const before = cells.get(current)?.node;
    if (before) before.tabIndex = -1;
    current = id;
    const node = cells.get(id).node;
    node.tabIndex = 0;
    if (document.activeElement !== node) node.focus({ preventScroll: false });
  };
  const pick = (id) => { selected[selected.has(id) ? "delete" : "add"](id); render(true); };
  const open = (id) => {
    const trial = data.trials.find((one) => one.id === id);
    if (ask.open) ask.open(id);
    else if (trial.href) window.location.href = trial.href;
  };
  const walk = (event) => {
    const at = order.findIndex((trial) => trial.id === current);
    if (at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const top = list.children[0].offsetTop;
    columns = Math.max(1, [...list.children].findIndex((node) => node.offsetTop > top));
    if ([...list.children].every((node) => node.offsetTop === top)) columns = order.length;
    const page = columns * 4, last = order.length - 1;
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + columns, ArrowUp: at - columns, Home: 0, End: last, PageDown: Math.min(last, at + page), PageUp: Math.max(0, at - page) }[event.key];
    if (to !== undefined) {
      if (to >= 0 && to <= last) focusOn(order[to].id);
    } else if (event.key === " ") pick(current);
    else if (event.key === "Enter") open(current);
    else if (event.key === "z" || event.key === "Z") zoom(selected.has(current) && selected.size > 1 ? [...selected] : [current]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };

  // -------------------------------------------------- full size: truth and scales move as one
  const sight = { z: 1, x: 0, y: 0 };
  let ids = [];
  const level = h("output", { class: "ai-number", "aria-live": "polite" });
  const title = h("h2", { id: `zoom-title-${Math.random().toString(36).slice(2)}` });
  const body = h("div", { class: "ai-full-body", tabindex: "0", role: "region", "aria-label": "Pictures" });
  const tool = (text, label, act) => h("button", { type: "button", class: "ai-button", "aria-label": label, title: label, onclick: act }, text);
  const before = tool("‹", "Previous trial", () => step(-1)), after = tool("›", "Next trial", () => step(1));
  const dialog = h(
    "dialog", { class: "ai-full", "aria-labelledby": title.id, onkeydown: (event) => zoomKeys(event), onclose: () => cells.get(current)?.node.focus({ preventScroll: true }), onclick: (event) => { if (event.target === dialog) dialog.close(); } },
    h("header", {}, title, h("div", { class: "ai-full-tools" }, before, after, tool("−", "Smaller", () => zoomBy(1 / 1.5)), level, tool("+", "Larger", () => zoomBy(1.5)), tool("1×", "Whole picture", () => reset()), h("button", { type: "button", class: "ai-button ai-full-close", onclick: () => dialog.close() }, "Close"))),
    body,
  );
  const apply = () => {
    const most = 100 * (sight.z - 1);
    sight.x = Math.min(0, Math.max(-most, sight.x));
    sight.y = Math.min(0, Math.max(-most, sight.y));
    dialog.style.setProperty("--z", sight.z);
    dialog.style.setProperty("--x", `${sight.x}%`);
    dialog.style.setProperty("--y", `${sight.y}%`);
    dialog.classList.toggle("ai-fulled", sight.z > 1);
    setText(level, `${sight.z.toFixed(1)}×`);
  };
  const reset = () => { Object.assign(sight, { z: 1, x: 0, y: 0 }); apply(); };
  // About a point of the picture's frame, given in [0, 1]: that stays where it is.
  const zoomBy = (factor, px = 0.5, py = 0.5) => {
    const z = Math.min(MOST_ZOOM, Math.max(1, sight.z * factor)), by = z / sight.z;
    sight.x = 100 * px - (100 * px - sight.x) * by;
    sight.y = 100 * py - (100 * py - sight.y) * by;
    sight.z = z;
    apply();
  };
  const fingers = new Map();
  const placeIn = (pane, { x, y }) => { const box = pane.getBoundingClientRect(); return [(x - box.left) / box.width, (y - box.top) / box.height, box.width, box.height]; };
  const spread = () => { const [a, b] = [...fingers.values()]; return { far: Math.hypot(a.x - b.x, a.y - b.y) || 1, x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 }; };
  const hold = (pane) => {
    pane.addEventListener("wheel", (event) => {
      event.preventDefault();
      const [px, py] = placeIn(pane, { x: event.clientX, y: event.clientY });
      zoomBy(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.002)), px, py);
    }, { passive: false });
    pane.addEventListener("pointerdown", (event) => {
      fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      try { pane.setPointerCapture(event.pointerId); } catch { /* gone already */ }
    });
    pane.addEventListener("pointermove", (event) => {
      const was = fingers.get(event.pointerId);
      if (!was) return;
      const now = { x: event.clientX, y: event.clientY }, old = fingers.size === 2 ? spread() : null;
      fingers.set(event.pointerId, now);
      const [, , width, height] = placeIn(pane, now);
      if (old) {
        const at = spread(), [px, py] = placeIn(pane, at);
        sight.x += (100 * (at.x - old.x)) / width;
        sight.y += (100 * (at.y - old.y)) / height;
        zoomBy(at.far / old.far, px, py);
      } else if (sight.z > 1) {
        sight.x += (100 * (now.x - was.x)) / width;
        sight.y += (100 * (now.y - was.y)) / height;
        apply();
      }
    });
    for (const name of ["pointerup", "pointercancel"]) pane.addEventListener(name, (event) => fingers.delete(event.pointerId));
    return pane;
  };
  const zoomKeys = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const move = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (event.key === "+" || event.key === "=") zoomBy(1.5);
    else if (event.key === "-" || event.key === "−") zoomBy(1 / 1.5);
    else if (event.key === "0") reset();
    else if (move && sight.z > 1) { sight.x += 10 * move[0]; sight.y += 10 * move[1]; apply(); }
    else if (move && move[0] && ids.length === 1) step(-move[0]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const pane = (src, label, alt, lines, blank) => {
    const img = h("img", { alt, draggable: "false" });
    setSource(img, src);
    img.hidden = !src;
    const frame = hold(h("div", { class: "ai-full-pane" }, img, blank && !src ? h("span", { class: "ai-contact-blank" }, blank) : null));
    return { img, node: h("figure", {}, frame, h("figcaption", {}, h("b", {}, label), lines.length ? h("dl", { class: "ai-scores" }, lines.map(([name, text]) => h("div", {}, h("dt", {}, name), h("dd", {}, text)))) : null)) };
  };
  const rowOf = (trial, alone) => {
    const known = data.scores.filter((one) => !one.by_scale && trial.scores[one.key] !== undefined).slice(0, 2).map((one) => [one.title, written(trial.scores[one.key], { whole: Number.isInteger(trial.scores[one.key]) })]);
    const truth = pane(trial.full || trial.thumb || sources.get(`\n${trial.id}`), "Shown image", `Shown image: ${shortCaption(trial)}`, known, trial.pictured ? "" : "no picture");
    const drawn = data.scales.map(({ key, label }) => {
      const there = trial.pictures[key];
      const lines = there ? data.scores.filter((one) => one.by_scale).map((one) => [one.title, written(there.scores[one.key], { whole: false })]) : [];
      return [key, pane(there && (there.full || there.thumb || sources.get(`${key}\n${trial.id}`)), label, `Reconstruction, ${label}`, lines, there ? "" : undrawn())];
    });
    if (ask.full && !trial.full) {
      Promise.resolve(ask.full(trial.id)).then((found) => {
        if (!found) return;
        if (found.truth) { setSource(truth.img, found.truth); truth.img.hidden = false; }
        for (const [key, one] of drawn) if (found.drawn?.[key]) { setSource(one.img, found.drawn[key]); one.img.hidden = false; }
      }, () => {});
    }
    const go = ask.open || trial.href ? h("button", { type: "button", class: "ai-link", onclick: () => { dialog.close(); open(trial.id); } }, "Open this trial") : null;
    const head = h("p", { class: "ai-full-head" }, alone ? null : h("b", {}, `${trial.number}. ${shortCaption(trial)}`), go);
    return h("section", { class: "ai-full-row" }, head, h("div", { class: "ai-full-panes" }, truth.node, drawn.map(([, one]) => one.node)));
  };
  const fillZoom = () => {
    const trials = ids.map((id) => data.trials.find((trial) => trial.id === id)).filter(Boolean), alone = trials.length === 1;
    setText(title, alone ? `${trials[0].number}. ${shortCaption(trials[0])}` : `${trials.length} trials side by side`);
    before.hidden = after.hidden = !alone;
    dialog.classList.toggle("ai-alone", alone);
    body.classList.toggle("ai-few", !alone && data.scales.length < 3);
    body.replaceChildren(...trials.map((trial) => rowOf(trial, alone)));
  };
  const zoom = (wanted) => {
    ids = wanted.slice(0, MOST_BESIDE);
    if (!ids.length) return;
    fillZoom();
    fingers.clear();
    reset();
    dialog.showModal();
    body.focus();
  };
  const step = (by) => {
    const at = order.findIndex((trial) => trial.id === ids[0]), next = order[(at + by + order.length) % order.length];
    if (!next) return;
    ids = [next.id];
    if (cells.get(current)) cells.get(current).node.tabIndex = -1;
    current = next.id;
    cells.get(current).node.tabIndex = 0;
    fillZoom();
  };

  const node = h(
    "section", { class: "ai-contact" },
    about, notes,
    h("div", { class: "ai-contact-controls" }, sorter.node, turn, bounds, scaler.node, filter.node, h("label", { class: "ai-contact-pick" }, h("span", {}, "Text"), search), shown.node),
    definition, figures,
    h("p", { class: "ai-contact-drawing" }, drawText, drawButton),
    h("div", { class: "ai-contact-bar" }, count, beside, clear),
    none, list, hint, dialog,
  );
  const fill = (value) => {
    const first = data === null || data.link !== value.link;
    if (first) { // another study, subject or decoder
      for (const cell of cells.values()) watcher.unobserve(cell.node);
      for (const known of [cells, visible, pending, sources]) known.clear();
    }
    data = value;
    if (!data.scales.some((one) => one.key === scale)) scale = data.scale;
    const offered = data.scores.map((one) => one.key);
    if ((!chosen && first) || (score && !offered.includes(score))) score = ["pocket-clip", ...offered].find((key) => offered.includes(key)) ?? "";
    if (category && !data.categories.includes(category)) category = "";
    for (const id of [...selected]) if (!data.trials.some((trial) => trial.id === id)) selected.delete(id);
    render(!first);
  };
  return { node, fill };
};

// On a page of plain files: the element of this id, and its payload beside it.
const showSheet = (id) => {
  const view = sheetView();
  document.getElementById(id).append(view.node);
  view.fill(JSON.parse(document.getElementById(`${id}-data`).textContent));
  return view;
};
