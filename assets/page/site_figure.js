// One trial as a figure to take away: an SVG that holds its pictures, made in the browser.
const escaped = (text) => String(text).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
const trialFigure = async (value, site) => {
  const WIDE = 1100, GAP = 14, EDGE = 24;
  const tiles = [{ label: "Ground truth", src: value.trial.src, scores: [], made: "" }, ...value.cells.filter((cell) => cell.state === "done")];
  const columns = Math.min(6, tiles.length), side = (WIDE - 2 * EDGE - (columns - 1) * GAP) / columns;
  const out = [];
  let y = EDGE;
  const text = (x, at, words, style = "") => out.push(`<text x="${x}" y="${at}" ${style}>${escaped(words)}</text>`);
  const wrapped = (words, most) => words.split(/\s+/).reduce((lines, word) => { const last = lines[lines.length - 1]; if (last && `${last} ${word}`.length <= most) lines[lines.length - 1] = `${last} ${word}`; else lines.push(word); return lines; }, []);
  for (const line of wrapped(value.trial.caption, 80)) text(EDGE, (y += 20), line, 'font-size="20" font-family="Georgia, serif"');
  text(EDGE, (y += 22), value.trial.kicker, 'font-size="13" fill="#666"');
  if (value.decoding) text(WIDE - EDGE, y, `retrieval rank ${value.decoding.rank} of ${value.decoding.n} (chance ${value.decoding.chance})`, 'font-size="13" text-anchor="end"');
  y += 16;
  const most = Math.max(...tiles.map((tile) => tile.scores.length));
  tiles.forEach((tile, i) => {
    const x = EDGE + (i % columns) * (side + GAP), top = y + Math.floor(i / columns) * (side + 44 + 16 * most);
    text(x, top + 14, tile.row ? `${tile.label}, ${tile.row}` : tile.label, 'font-size="13" font-weight="600"');
    out.push(`<image x="${x}" y="${top + 22}" width="${side}" height="${side}" preserveAspectRatio="xMidYMid slice" href="${escaped(tile.src)}"/>`);
    [...(tile.made ? [[tile.made, ""]] : []), ...tile.scores].forEach(([name, score], line) => {
      text(x, top + side + 38 + 15 * line, name, 'font-size="12" fill="#666"');
      text(x + side, top + side + 38 + 15 * line, score, 'font-size="12" text-anchor="end"');
    });
  });
  y += Math.ceil(tiles.length / columns) * (side + 60 + 16 * most);
  const drawn = document.querySelector(".ai-canvas");
  if (drawn?.data && window.Plotly) {
    const box = drawn.getBoundingClientRect(), wide = Math.min(WIDE - 2 * EDGE, 720), tall = (wide * box.height) / box.width;
    const image = await window.Plotly.toImage(drawn, { format: "png", width: box.width, height: box.height, scale: 2 });
    out.push(`<image x="${(WIDE - wide) / 2}" y="${y}" width="${wide}" height="${tall}" href="${image}"/>`);
    y += tall + 8;
    const bar = document.querySelector(".ai-colourbar"), stops = getComputedStyle(bar.querySelector(".ai-ramp i")).backgroundImage.match(/rgba?\([^)]*\)/g) || [];
    if (stops.length > 1 && !bar.hidden) {
      const id = "ramp", [low, unit, high] = [...bar.querySelectorAll(".ai-ends span")].map((node) => node.textContent);
      out.push(`<defs><linearGradient id="${id}">${stops.map((stop, i) => `<stop offset="${i / (stops.length - 1)}" stop-color="${stop}"/>`).join("")}</linearGradient></defs>`);
      out.push(`<rect x="${WIDE / 2 - 180}" y="${y}" width="360" height="10" rx="2" fill="url(#${id})"/>`);
      text(WIDE / 2 - 180, y + 26, low, 'font-size="12" fill="#666"');
      text(WIDE / 2, y + 42, unit, 'font-size="12" fill="#666" text-anchor="middle"');
      text(WIDE / 2 + 180, y + 26, high, 'font-size="12" fill="#666" text-anchor="end"');
      text(WIDE / 2, y + 60, "What this decoder rests on, not what the brain uses.", 'font-size="12" fill="#666" text-anchor="middle"');
      y += 74;
    }
  }
  for (const [name, words] of site.lines) for (const line of wrapped(`${name}: ${words}`, 170)) text(EDGE, (y += 14), line, 'font-size="10.5" fill="#666"');
  y += EDGE;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDE} ${Math.ceil(y)}" width="${WIDE}" font-family="Helvetica, Arial, sans-serif" fill="#1d1e20"><title>${escaped(value.trial.caption)}</title><rect width="100%" height="100%" fill="#fff"/>${out.join("")}</svg>\n`;
};
