// One trial in a frame of its own, as in a notebook: its pictures, its brain and whose data it is.
// All is in the page itself; what is large is packed, and unpacked when the pictures are there.
const root = element.querySelector(".ai-app");
const { load, whole, mount } = window.afterimage;
const [trial, brain, foot] = ["trial", "brain", "footer"].map((id) => h("div", { id }));
const main = h("main", { id: "main" }, trial, brain);
root.append(main, foot);

const unpacked = async (text) => {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
};
// The frame takes what the view needs, where it may: not if it lies on another origin.
const fit = () => {
  try {
    if (window.frameElement?.dataset.fit) window.frameElement.style.height = `${document.documentElement.offsetHeight + 2}px`;
  } catch { /* the frame keeps its height */ }
};
new ResizeObserver(fit).observe(document.body);

const start = async () => {
  const value = whole(await load("trial"));
  (await mount("trial", trial, () => {}))(value.trial);
  trial.querySelectorAll(".ai-near button").forEach((button) => { button.disabled = true; }); // there is no other trial here
  (await mount("footer", foot, () => {}))({ lines: value.lines });
  brain.hidden = !value.brain;
  if (brain.hidden) return;
  const packed = await load("packed");
  window.afterimagePlotly = unpacked(packed.plotly).then((text) => document.head.append(h("script", {}, text)));
  const surfaces = unpacked(packed.surfaces).then(JSON.parse);
  const surface = async ({ surface: name }) => (await surfaces)[name];
  (await mount("brain", brain, () => {}, { surface }))(value.brain);
};
start();
