// During a scan: asks twice a second what arrived, says it, and shows the newest trial where wanted.
const root = element.querySelector(".ai-arrivals");
const EVERY = 400; // milliseconds: with the look at the files a trial is on its way within half a second
const line = h("span", { role: "status" });
const told = h("p", { class: "ai-notice", role: "alert", hidden: true });
let follows = true, seen = null, came = 0;
const steer = h("button", { type: "button", class: "ai-arrivals-follow", "aria-pressed": true, onclick: () => turn() }, "Show each new trial");
root.append(h("div", { class: "ai-arrivals-bar" }, h("i", { "aria-hidden": "true" }), line, steer), told);
const turn = () => {
  follows = !follows;
  steer.setAttribute("aria-pressed", String(follows));
  if (follows && came) trigger("arrived", { show: true });
};
const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString();
const write = (now) => {
  const newest = now.newest ? `, ${now.came} of them since the start; the newest, ${now.newest}, came at ${clock(now.at)}` : ", none new";
  setText(line, `Watching ${now.dataset}: ${now.trials} test trial${now.trials === 1 ? "" : "s"}${newest}.`);
  told.hidden = !now.told;
  setText(told, now.told);
};
const ask = async () => {
  if (!root.isConnected) return;
  try {
    const now = await server.arrivals({});
    write(now);
    const another = seen !== null && now.revision !== seen;
    const more = now.came > came;
    [seen, came] = [now.revision, now.came];
    if (another) trigger("arrived", { show: follows && more });
  } catch {
    setText(line, "The server does not answer.");
  }
  setTimeout(ask, EVERY);
};
ask();
