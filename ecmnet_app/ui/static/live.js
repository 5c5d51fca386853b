// Runs once, when the tab is first opened, with `element`, `props` and `server` given by gr.HTML. What a frame and its
// answer hold is described in ui/live.py.
const LONGEST_SIDE = 640;    // of the frames that are sent, in pixels
const JPEG_QUALITY = 0.8;
const MAX_IN_FLIGHT = 2;     // as the server allows: one that runs and one that waits
const PATIENCE = 15_000;     // milliseconds until an answer is given up
const RETRY = 1_000;         // and until the next frame is sent after a failure
const SILENCE = 3_000;       // without a picture of the camera, until that is told
const WINDOW = 4_000;        // over which the figures are taken

const find = (selector) => element.querySelector(selector);
const live = find(".live"), stage = find(".stage"), video = find("video"), still = find(".still");
const overlay = find(".overlay"), cameras = find(".camera"), mirror = find(".mirror"), opacity = find(".opacity");
const start = find(".start"), freeze = find(".freeze"), save = find(".save"), notice = find(".notice");
const context = overlay.getContext("2d", { willReadFrequently: true });
const reader = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const entries = makeLegend(find(".legend"), highlight);
const offered = props.value.weights, chooser = find(".weights");
const viewer = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

let weights = offered[0];    // {name, classes}
let run = 0;                 // number of the newest start; whatever belongs to an older one is let go
let stream = null;
let sequence = 0;            // number of the newest frame that was sent
let inFlight = new Map();    // number of a frame -> when it was taken
let answer = null;           // the newest that is shown: {seq, frame, ids, time}
let only = null;             // class that is shown alone
let lastSeen = 0, lastSent = 0, holdUntil = 0, dropped = 0;
let recent = [];             // answers of the last seconds: {time, age}

// ---- the camera

async function open(deviceId) {
  close();
  const mine = ++run;
  setState("starting");
  // Without `exact`, a phone gives its rear camera and all else what it has; the size keeps frames small.
  const which = deviceId ? { deviceId: { exact: deviceId } } : { facingMode: { ideal: "environment" } };
  try {
    const opened = await navigator.mediaDevices.getUserMedia({
      video: { ...which, width: { ideal: 640 }, height: { ideal: 480 } }, audio: false,
    });
    if (mine !== run) return opened.getTracks().forEach((track) => track.stop());
    stream = opened;
    const [track] = stream.getVideoTracks();
    track.onended = () => mine === run && fail("The camera went away. Plug it in again, or close what else uses it, then start again.");
    mirror.checked = track.getSettings().facingMode === "user";
    applyControls();
    video.srcObject = stream;
    await video.play();
    if (mine !== run) return;
    await listCameras(track);
    if (mine !== run) return;
    setState("live");
    lastSeen = performance.now();
    video.requestVideoFrameCallback((now) => look(mine, now));
  } catch (error) {
    if (mine === run) fail(explainCamera(error));  // of page.js
  }
}

// Stop the camera, and forget what was on its way.
function close() {
  run++;
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = video.srcObject = null;
  inFlight = new Map();
  answer = null;
  recent = [];
  lastSent = holdUntil = dropped = 0;
  tell("");
  clearOverlay();
}

function fail(message) {
  close();
  find(".error").textContent = message;
  setState("error");
}

async function listCameras(track) {
  const found = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === "videoinput");
  cameras.replaceChildren(...found.map(({ deviceId, label }, i) => new Option(label || `Camera ${i + 1}`, deviceId)));
  cameras.value = track.getSettings().deviceId;
}

// ---- frames out, answers in

// For every frame of the camera. The second one on its way is sent half an answer's time after the first, not at once:
// the network is as busy, and what it gets is fresher.
function look(mine, now) {
  if (mine !== run) return;
  video.requestVideoFrameCallback((now) => look(mine, now));
  lastSeen = now;
  if (live.dataset.state !== "live" || isHidden() || now < holdUntil) return;
  if (inFlight.size === 0 || (inFlight.size < MAX_IN_FLIGHT && now - lastSent >= interval() / 2)) send(mine);
}

function isHidden() {
  return document.hidden || element.offsetParent === null;  // the browser's tab, or ours
}

// Milliseconds from one answer to the next.
function interval() {
  return recent.length < 2 ? 0 : (recent.at(-1).time - recent[0].time) / (recent.length - 1);
}

async function send(mine) {
  const seq = ++sequence, time = performance.now(), frame = takeFrame(), asked = weights;
  lastSent = time;
  inFlight.set(seq, time);
  let reply;
  try {
    const image = await encode(frame);
    reply = await server.segment_frame({ viewer, seq, image, weights: asked.name });
  } catch {
    reply = null;
  }
  if (mine !== run || !inFlight.delete(seq) || asked !== weights) return;  // stopped, given up or changed meanwhile
  if (!reply && window.loggedOut) return fail(window.loggedOut);  // of page.js
  if (!reply || reply.error) {
    tell(reply ? reply.error : "The server does not answer. Trying again …");
    holdUntil = performance.now() + RETRY;
  } else if (reply.dropped || !(await show(mine, asked, { seq, frame, time, ...reply }))) {
    if (mine === run) dropped++;
  }
}

function takeFrame() {
  const { videoWidth, videoHeight } = video;
  const scale = Math.min(1, LONGEST_SIDE / Math.max(videoWidth, videoHeight));
  const frame = document.createElement("canvas");
  frame.width = Math.round(videoWidth * scale);
  frame.height = Math.round(videoHeight * scale);
  frame.getContext("2d").drawImage(video, 0, 0, frame.width, frame.height);
  return frame;
}

function encode(frame) {
  return new Promise((resolve, reject) => frame.toBlob((blob) => {
    const file = new FileReader();
    file.onload = () => resolve(file.result.slice(file.result.indexOf(",") + 1));
    file.onerror = () => reject(file.error);
    file.readAsDataURL(blob);
  }, "image/jpeg", JPEG_QUALITY));
}

// Whether it could: not where it was stopped, frozen or overtaken, or other weights were chosen.
async function show(mine, asked, { seq, frame, time, mask, areas }) {
  const late = () => mine !== run || asked !== weights || live.dataset.state !== "live" || seq < answer?.seq;
  if (late()) return false;
  const image = new Image();
  image.src = mask;
  await image.decode();
  if (late()) return false;
  const { width, height } = frame;
  Object.assign(reader.canvas, { width, height });
  reader.drawImage(image, 0, 0);
  const { data } = reader.getImageData(0, 0, width, height);
  const ids = new Uint8Array(width * height);
  for (let i = 0; i < ids.length; i++) ids[i] = data[4 * i];  // the mask's grey is the id
  answer = { seq, frame, ids, time };
  if (overlay.width !== width || overlay.height !== height) Object.assign(overlay, { width, height });
  paintClasses(context, ids, weights.classes, only);
  entries.update(areas);
  tell("");
  const now = performance.now();
  recent.push({ time: now, age: now - time });
  live.dispatchEvent(new CustomEvent("overlay", { detail: { seq, time, age: now - time } }));  // for who measures
  return true;
}

// What was answered by other weights has other classes.
function chooseWeights() {
  weights = offered[chooser.selectedIndex];
  answer = null;
  recent = [];
  only = null;
  stage.classList.remove("isolating");
  clearOverlay();
  entries.build(weights.classes.filter(({ id }) => id !== UNLABELLED));
  if (live.dataset.state === "frozen") setState("live");
}

function clearOverlay() {
  context.clearRect(0, 0, overlay.width, overlay.height);
}

// ---- twice a second: figures, and what has gone stale

function tick() {
  if (!element.isConnected) {
    close();
    clearInterval(ticking);
    return;
  }
  if (stream) find(".dropped").textContent = dropped;
  if (live.dataset.state !== "live") return;
  const now = performance.now();
  recent = recent.filter(({ time }) => now - time < WINDOW);
  const ages = recent.map(({ age }) => age).sort((a, b) => a - b);
  const median = ages[ages.length >> 1];
  find(".fps").textContent = recent.length < 2 ? "–" : (1000 / interval()).toFixed(1);
  find(".behind").textContent = median === undefined ? "–" : median < 1000 ? `${Math.round(median)} ms` : `${(median / 1000).toFixed(1)} s`;
  if (isHidden()) {
    lastSeen = now;  // the browser shows us no frames meanwhile
    return clearOverlay();  // when it is seen again, the street has moved on
  }
  for (const [seq, time] of inFlight) {
    if (now - time > PATIENCE) {
      inFlight.delete(seq);
      tell("The server is slow to answer. Trying again …");
    }
  }
  if (answer && recent.length === 0) clearOverlay();
  if (now - lastSeen > SILENCE) tell("The camera sends no picture. Wait for it, or stop and start it again.");
}

// ---- controls

function setState(state) {
  live.dataset.state = state;
  start.textContent = { idle: "Start camera", starting: "Waiting for the camera …", error: "Start camera" }[state] ?? "Stop";
  start.classList.toggle("primary", state === "idle" || state === "error");
  start.classList.toggle("secondary", state !== "idle" && state !== "error");
  freeze.textContent = state === "frozen" ? "Go on" : "Freeze";
  find(".tag").textContent = state === "frozen" ? "Frozen" : "Live";
  cameras.disabled = !stream;
  mirror.disabled = !stream;
  if (!stream) for (const figure of element.querySelectorAll(".figures dd")) figure.textContent = "–";
}

function tell(message) {
  notice.textContent = message;
  notice.hidden = !message;
}

function highlight(id) {
  only = id;
  stage.classList.toggle("isolating", only !== null);
  if (answer) paintClasses(context, answer.ids, weights.classes, only);
}

function applyControls() {
  stage.style.setProperty("--opacity", opacity.value / 100);
  find(".opacity-value").textContent = `${opacity.value} %`;
  stage.classList.toggle("mirrored", mirror.checked);
}

// The frame and the classes that were found in it, which are of one moment; a live picture runs ahead of its classes.
function toggleFreeze() {
  if (live.dataset.state === "frozen") return setState("live");
  if (!answer) return;
  Object.assign(still, { width: answer.frame.width, height: answer.frame.height });
  still.getContext("2d").drawImage(answer.frame, 0, 0);
  paintClasses(context, answer.ids, weights.classes, only);
  setState("frozen");
}

// The newest frame with its classes over it, as the page shows them.
function savePicture() {
  if (!answer) return;
  const picture = document.createElement("canvas");
  Object.assign(picture, { width: answer.frame.width, height: answer.frame.height });
  const drawing = picture.getContext("2d");
  if (mirror.checked) drawing.setTransform(-1, 0, 0, 1, picture.width, 0);
  drawing.drawImage(answer.frame, 0, 0);
  paintClasses(context, answer.ids, weights.classes, only);
  drawing.globalAlpha = only === null ? opacity.value / 100 : 1;
  drawing.drawImage(overlay, 0, 0);
  picture.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `ecmnet-${new Date().toISOString().slice(0, 19).replace(/[T:]/g, "-")}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }, "image/png");
}

start.onclick = () => {
  if (["idle", "error"].includes(live.dataset.state)) return open();
  close();
  setState("idle");
};
cameras.onchange = () => open(cameras.value);
video.onresize = () => stage.style.setProperty("--ratio", video.videoWidth / video.videoHeight);  // phones turn
opacity.oninput = mirror.onchange = applyControls;
freeze.onclick = toggleFreeze;
save.onclick = savePicture;
chooser.replaceChildren(...offered.map(({ name }) => new Option(name)));
chooser.parentElement.hidden = offered.length < 2;
chooser.onchange = chooseWeights;
chooseWeights();
applyControls();
setState("idle");
const ticking = setInterval(tick, 500);
