// The page: a sound is heard window by window, as it comes, and then as a whole.
import { Classifier } from "./classifier.js";
import { Clip, decode, record } from "./sound.js";

const WINDOW_SECONDS = 2;
const HOPS_PER_WINDOW = 4;
const MIN_SECONDS = 0.1;
const MAX_SECONDS = 120;
const SILENT_PEAK = 1e-3; // -60 dB of full scale
const HEARD = 0.5; // least score of a stretch that a screen reader names
const NUM_ROWS = 5;

const [inputs, recordButton, file, examples, status, problem, player, table, model] =
  ["inputs", "record", "file", "examples", "status", "problem", "player", "heard", "model"].map((id) =>
    document.getElementById(id),
  );
export let classifier = null;
let turn = 0; // counts what was asked for: what is older stops being heard
let stopRecording = null;

/** Keeps the page's files in the browser, so that it opens without a network from now on. */
async function keepOffline() {
  const settings = { updateViaCache: "none" };
  const { active, installing } = await navigator.serviceWorker.register("service_worker.js", settings);
  if (active || !installing) return;
  await new Promise((resolve) => {
    installing.onstatechange = () => ["activated", "redundant"].includes(installing.state) && resolve();
  });
}

async function load() {
  // Before the model is loaded, which then comes out of what is kept. Without it the page works online alone.
  await keepOffline().catch(() => {});
  classifier = await Classifier.load();
  const { name, labels, examples: paths } = classifier.about;
  model.textContent = `${name}, ${labels.length} labels.`;
  examples.replaceChildren(...paths.map(exampleButton));
  inputs.disabled = false;
  status.textContent = "Ready.";
}

function exampleButton(path) {
  const name = path.replace(/.*\/|\.\w+$/g, "").replaceAll("_", " ");
  const button = element("button", { type: "button", textContent: name });
  button.onclick = () => show(async (isCurrent) => play(await (await fetch(path)).blob(), isCurrent));
  return button;
}

/** Runs what shows a clip, which may ask whether it is still the latest; what goes wrong is said on the page. */
async function show(action) {
  const mine = ++turn;
  const isCurrent = () => mine === turn;
  stopRecording?.();
  problem.textContent = "";
  player.hidden = table.hidden = true;
  player.pause();
  try {
    await action(isCurrent);
  } catch (error) {
    if (!isCurrent()) return;
    status.textContent = "";
    table.hidden = true;
    problem.textContent = error.message;
  }
}

async function play(blob, isCurrent) {
  status.textContent = "Reading …";
  const clip = await decode(await blob.arrayBuffer(), classifier.about.sampling_rate, MAX_SECONDS);
  if (!isCurrent()) return;
  URL.revokeObjectURL(player.src);
  player.src = URL.createObjectURL(blob);
  player.hidden = false;
  await hear(clip, isCurrent);
}

async function recordClip(isCurrent) {
  const clip = new Clip(classifier.about.sampling_rate, MAX_SECONDS);
  const stop = await record(clip);
  if (!isCurrent()) return stop();
  recordButton.textContent = "Stop";
  stopRecording = () => {
    stop();
    recordButton.textContent = "Record";
    stopRecording = null;
  };
  clip.holds(Infinity).then(() => isCurrent() && stopRecording?.()); // it may be full
  await hear(clip, isCurrent);
}

/** Classifies windows of a clip as it grows, and at its end the whole of it. */
async function hear(clip, isCurrent) {
  const length = WINDOW_SECONDS * clip.rate;
  const hop = length / HOPS_PER_WINDOW;
  const windows = [];
  status.textContent = "Listening …";
  for (let start = 0; ; start += hop) {
    await clip.holds(start + length);
    if (start && start + length - hop >= clip.length) break;
    windows.push(await audibleScores(clip.slice(start, start + length)));
    if (!isCurrent()) return;
    draw(clip, windows, windows.at(-1), "Now");
  }
  if (clip.seconds < MIN_SECONDS) {
    throw new Error(`A clip must last at least ${MIN_SECONDS} s, found ${clip.seconds.toFixed(3)} s.`);
  }
  const whole = await audibleScores(clip.slice(0, clip.length));
  if (!isCurrent()) return;
  if (!whole.some((score) => score > 0)) throw new Error("A clip must hold sound, found silence.");
  draw(clip, windows, whole, "Whole clip");
  const best = ranked(whole).slice(0, 3);
  status.textContent = `${best.map((i) => `${classifier.about.labels[i]} ${percent(whole[i])}`).join(", ")}.`;
}

/** The scores of a window or clip; 0 where it is silent or too short. */
async function audibleScores(samples) {
  const { labels, sampling_rate } = classifier.about;
  const isAudible = samples.some((value) => Math.abs(value) >= SILENT_PEAK);
  const isLong = samples.length >= MIN_SECONDS * sampling_rate;
  return isAudible && isLong ? classifier.scores(samples) : new Float32Array(labels.length);
}

const ranked = (scores) => [...scores.keys()].sort((a, b) => scores[b] - scores[a]);
const percent = (score) => `${Math.round(100 * score)}%`;

/** Shows the labels with the highest scores, now or in any window. */
function draw(clip, windows, scores, title) {
  const hop = WINDOW_SECONDS / HOPS_PER_WINDOW;
  // A window counts for the time around its middle.
  const inner = windows.slice(1).map((_, i) => (i + 1) * hop + (WINDOW_SECONDS - hop) / 2);
  const edges = [0, ...inner, clip.seconds];
  const highest = scores.map((score, i) => Math.max(score, ...windows.map((window) => window[i])));
  document.getElementById("scored").textContent = title;
  document.getElementById("time").textContent = `0 to ${clip.seconds.toFixed(1)} s`;
  const rows = ranked(highest).slice(0, NUM_ROWS);
  const overTime = (i) => windows.map((window, k) => ({ start: edges[k], end: edges[k + 1], score: window[i] }));
  table.tBodies[0].replaceChildren(...rows.map((i) => row(classifier.about.labels[i], scores[i], overTime(i))));
  table.hidden = false;
}

function row(label, score, spans) {
  const bar = element("div", { className: "bar" });
  bar.append(part({ width: percent(score) }));
  const strip = element("div", { className: "strip", role: "img", ariaLabel: heardWhen(spans) });
  strip.append(...spans.map(({ start, end, score }) => part({ flexGrow: end - start, opacity: score })));
  const result = element("tr");
  result.append(element("th", { scope: "row", textContent: label }), element("td"), element("td"));
  result.cells[1].append(percent(score), bar);
  result.cells[2].append(strip);
  return result;
}

/** What a strip shows, in words. */
function heardWhen(spans) {
  const heard = spans.filter(({ score }) => score >= HEARD);
  const joined = [];
  for (const { start, end } of heard) {
    if (joined.at(-1)?.end === start) joined.at(-1).end = end;
    else joined.push({ start, end });
  }
  const times = joined.map(({ start, end }) => `${start.toFixed(1)} to ${end.toFixed(1)} s`);
  return times.length ? `heard from ${times.join(", ")}` : `below ${percent(HEARD)} throughout`;
}

function element(name, properties = {}) {
  return Object.assign(document.createElement(name), properties);
}

function part(style) {
  const result = element("span");
  Object.assign(result.style, style);
  return result;
}

recordButton.onclick = () => (stopRecording ? stopRecording() : show(recordClip));
file.onchange = () => file.files.length && show((isCurrent) => play(file.files[0], isCurrent));
document.ondragover = (event) => event.preventDefault();
document.ondrop = (event) => {
  event.preventDefault();
  if (classifier && event.dataTransfer.files.length) {
    show((isCurrent) => play(event.dataTransfer.files[0], isCurrent));
  }
};

load().catch((error) => {
  status.textContent = "";
  problem.textContent = `The page could not be loaded: ${error.message}`;
});
