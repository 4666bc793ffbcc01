// The page is opened with ?server=…&ws_service_id=…, and needs no token: the app decides who may call it.
// Whatever the app says is shown as text, never as HTML.

const SIZE = 64; // pixels in a row of the image, and rows
const SHOWN = 8; // objects in the table
const CONNECT_MS = 20_000;

const at = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
let image = [];

function say(text, error) {
  at("state").textContent = text;
  at("state").dataset.kind = error === undefined ? "" : "error";
  at("reason").hidden = error === undefined;
  at("said").textContent = error === undefined ? "" : String(error?.message ?? error);
}

/** What went wrong, for somebody who has not read the code of the app. */
function inWords(error) {
  const said = String(error?.message ?? error);
  if (/PermissionError|permission denied|may not call/i.test(said)) return "The app does not let you do this.";
  if (/not found/i.test(said)) return "The app is not running, or has moved. Open its page from a fresh link.";
  if (/time.?out/i.test(said)) return "No answer in time. The app or the server may be busy; try again in a moment.";
  if (/connect|closed|network/i.test(said)) return "The server cannot be reached. Try again in a moment.";
  return "The app could not do this.";
}

/** The app, called as anybody. */
async function connect() {
  // The library comes from the server this page comes from: no other host is asked, and its version fits.
  const [root] = location.pathname.split(/\/[^/]+\/view\//);
  const { connectToServer } = await import(`${location.origin}${root}/assets/hypha-rpc-websocket.mjs`);
  const server = await connectToServer({ server_url: query.get("server") ?? location.origin + root });
  return server.getService(query.get("ws_service_id"));
}

function within(promise, ms) {
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error("timeout")), ms));
  return Promise.race([promise, late]);
}

/** Soft round spots on a noisy ground, as rows of grey values from 0 to 255. */
function synthetic() {
  const spots = Array.from({ length: 6 + Math.floor(Math.random() * 8) }, () => ({
    row: Math.random() * SIZE,
    column: Math.random() * SIZE,
    width: 2 + Math.random() * 4,
    peak: 90 + Math.random() * 130,
  }));
  const grey = (row, column) => {
    const ground = 15 + Math.random() * 20;
    const light = ({ row: r, column: c, width, peak }) =>
      peak * Math.exp(-((row - r) ** 2 + (column - c) ** 2) / (2 * width * width));
    return Math.min(255, Math.round(spots.reduce((sum, spot) => sum + light(spot), ground)));
  };
  return Array.from({ length: SIZE }, (_, row) => Array.from({ length: SIZE }, (_, column) => grey(row, column)));
}

function show({ threshold, count, objects, summary }) {
  at("summary").textContent = summary;
  at("threshold").value = threshold;
  at("value").textContent = threshold.toFixed(0);
  at("image").setAttribute("aria-label", `An image in which ${count} objects are marked`);
  draw(threshold, objects);
  const cell = (number) => Object.assign(document.createElement("td"), { textContent: number.toFixed(0) });
  const row = ({ area, centre: [row, column], mean }) => {
    const line = document.createElement("tr");
    line.append(...[area, row, column, mean].map(cell));
    return line;
  };
  at("objects").tBodies[0].replaceChildren(...objects.slice(0, SHOWN).map(row));
  at("objects").hidden = objects.length === 0;
}

function draw(threshold, objects) {
  const context = at("image").getContext("2d");
  const pixels = context.createImageData(SIZE, SIZE);
  image.flat().forEach((grey, index) => {
    const found = grey > threshold;
    pixels.data.set([found ? grey * 0.4 : grey, grey, found ? grey * 0.6 : grey, 255], index * 4);
  });
  context.putImageData(pixels, 0, 0);
  context.fillStyle = "#ff5d3b";
  for (const { centre: [row, column] } of objects) context.fillRect(column - 0.5, row - 0.5, 2, 2);
}

async function start() {
  if (!query.get("ws_service_id")) {
    say("This page was opened without the address of its app. Use the link that the worker gives (static_site_url).");
    at("state").dataset.kind = "error";
    return;
  }
  const app = await within(connect(), CONNECT_MS);
  const measure = async (threshold) => {
    say("Measuring …");
    try {
      const began = performance.now();
      show(await app.measure({ image, threshold, _rkwargs: true }));
      say(`Answered in ${(performance.now() - began).toFixed(0)} ms.`);
    } catch (error) {
      say(inWords(error), error);
    }
  };
  at("new").onclick = () => {
    image = synthetic();
    return measure(null);
  };
  at("auto").onclick = () => measure(null);
  at("threshold").oninput = () => (at("value").textContent = at("threshold").value);
  at("threshold").onchange = () => measure(Number(at("threshold").value));
  at("controls").onsubmit = (event) => event.preventDefault();
  const { greeting, uptime } = await app.ping();
  image = synthetic();
  draw(Infinity, []);
  at("value").textContent = at("threshold").value;
  at("fields").disabled = false;
  say(`${greeting}: the app is there, and has been for ${uptime}.`);
}

start().catch((error) => say(inWords(error), error));
