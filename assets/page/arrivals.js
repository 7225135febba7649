// During a scan: asks twice a second what arrived, says it, and shows the newest trial where wanted.
const root = element.querySelector(".ai-arrivals");
const EVERY = 400; // milliseconds: with the look at the files a trial is on its way within half a second
const line = h("span", { role: "status", class: "ai-arrivals-line" });
const told = h("p", { class: "ai-arrivals-told", role: "alert", hidden: true });
const box = h("input", { type: "checkbox", id: "arrivals-follow", checked: true });
const newest = h("button", { type: "button", class: "ai-link", onclick: () => trigger("arrived", { show: true }) }, "show it");
root.append(h("p", { class: "ai-arrivals-bar" }, h("span", { class: "ai-live", "aria-hidden": "true" }), line, newest, h("label", { for: "arrivals-follow" }, box, "show each new trial")), told);
let seen = null;
const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString();
const write = (now) => {
  const came = now.newest ? `, ${now.came} since the start; the newest, ${now.newest}, came at ${clock(now.at)}` : ", none since the start";
  setText(line, `Watching ${now.dataset}: ${now.trials} test trial${now.trials === 1 ? "" : "s"}${came}.`);
  newest.hidden = !now.newest || box.checked;
  told.hidden = !now.told;
  setText(told, now.told);
};
const ask = async () => {
  if (!root.isConnected) return;
  try {
    const now = await server.arrivals({});
    write(now);
    if (seen !== null && now.revision !== seen) trigger("arrived", { show: box.checked && Boolean(now.came) });
    seen = now.revision;
  } catch {
    setText(line, "The server does not answer.");
  }
  setTimeout(ask, EVERY);
};
box.addEventListener("change", () => (newest.hidden = box.checked || !seen));
ask();
