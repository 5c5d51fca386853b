// Runs once, with `element`, `props` and `watch` given by gr.HTML. The value is described in ui/video.py.
const find = (selector) => element.querySelector(selector);
const film = find(".film"), stage = find(".stage"), preview = find(".preview"), video = find(".result");
const bar = find("progress"), note = find(".progress .note"), problem = find(".problem");
const chart = find(".chart"), cursor = find(".cursor");
const context = chart.getContext("2d");
const entries = makeLegend(find(".legend"), highlight);

let classes = [];
let columns = { times: [], areas: [] };  // when each begins, in seconds, and its shares by class in permille
let seconds = 0;                         // length of the video
let only = null;                         // class that is shown alone

function show(value) {
  film.dataset.state = value?.state ?? "empty";
  if (film.dataset.state !== "done") unload();
  find(".error").textContent = value?.error ?? "";
  find(".waiting").textContent = value?.state === "waiting" ? value.note : "";
  if (!value?.classes) return;
  if (classes.map(({ name }) => name).join() !== value.classes.map(({ name }) => name).join()) {
    classes = value.classes;
    entries.build(classes.filter(({ id }) => id !== UNLABELLED));
    only = null;
  }
  columns = value.chart;
  note.textContent = value.note;
  problem.textContent = value.problem ?? "";
  problem.hidden = !value.problem;
  if (value.state === "running") {
    if (value.expected) Object.assign(bar, { max: Math.max(value.expected, value.done), value: value.done });
    else bar.removeAttribute("value");
    preview.hidden = !value.preview;
    if (value.preview) preview.src = value.preview;
    seconds = value.expected && value.done ? (columns.times.at(-1) ?? 0) * value.expected / value.done : 0;
    tell(columns.areas.at(-1));
  } else {
    if (video.getAttribute("src") !== value.files.overlay.url) video.src = value.files.overlay.url;
    for (const link of element.querySelectorAll("[data-file]")) {
      const file = value.files[link.dataset.file];
      link.href = file.url;
      link.download = file.orig_name;
    }
  }
  draw();
}

// A player without a video neither sounds nor holds its file.
function unload() {
  if (!video.hasAttribute("src")) return;
  video.pause();
  video.removeAttribute("src");
  video.load();
}

preview.onload = () => stage.style.setProperty("--ratio", preview.naturalWidth / preview.naturalHeight);
video.onloadedmetadata = () => {
  stage.style.setProperty("--ratio", video.videoWidth / video.videoHeight);
  seconds = video.duration;
  chart.setAttribute("aria-valuemax", seconds.toFixed(1));
  draw();
  follow();
};

// ---- the strip chart: every column a stack of its classes

function draw() {
  const scale = window.devicePixelRatio;
  const width = Math.round(chart.clientWidth * scale), height = Math.round(chart.clientHeight * scale);
  if (!width || !height) return;
  Object.assign(chart, { width, height });
  const { times, areas } = columns;
  const length = Math.max(seconds, times.at(-1) ?? 0, 0.001);
  for (let i = 0; i < times.length; i++) {
    const last = i + 1 === times.length;
    const end = !last ? times[i + 1] : film.dataset.state === "done" ? length : times[i] + (times[i] - (times[i - 1] ?? 0));
    const left = Math.floor(times[i] / length * width), right = Math.max(left + 1, Math.ceil(end / length * width));
    let top = 0;
    classes.forEach(({ id, color }, k) => {
      const part = areas[i][k] / 1000 * height, edge = Math.round(top);
      if (id !== UNLABELLED) {
        context.globalAlpha = only === null || only === id ? 1 : 0.12;
        context.fillStyle = `rgb(${color.join(" ")})`;
        context.fillRect(left, edge, right - left, Math.round(top + part) - edge);
      }
      top += part;
    });
  }
}

function highlight(id) {
  only = id;
  draw();
}

// Shares of the classes at a moment, in the legend.
function tell(areas) {
  if (areas) entries.update(Object.fromEntries(classes.map(({ name }, k) => [name, areas[k] / 1000])));
}

// ---- chart and player are one clock

function follow() {
  if (!seconds) return;
  cursor.style.left = `${100 * Math.min(1, video.currentTime / seconds)}%`;
  chart.setAttribute("aria-valuenow", video.currentTime.toFixed(1));
  const { times, areas } = columns;
  const column = times.findLastIndex((time) => time <= video.currentTime + 0.001);
  tell(areas[Math.max(0, column)]);
}

function seek(time) {
  if (film.dataset.state !== "done" || !seconds) return;
  video.currentTime = Math.min(Math.max(0, time), seconds);
  follow();
}

function seekTo(event) {
  const box = chart.getBoundingClientRect();
  seek((event.clientX - box.left) / box.width * seconds);
}

chart.onpointerdown = (event) => {
  if (event.pointerType === "mouse") chart.setPointerCapture(event.pointerId);
  seekTo(event);
};
chart.onpointermove = (event) => event.buttons && event.pointerType === "mouse" && seekTo(event);
chart.onkeydown = (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10 }[event.key];
  if (step) seek(video.currentTime + step);
  else if (event.key === "Home") seek(0);
  else if (event.key === "End") seek(seconds);
  else return;
  event.preventDefault();
};
video.ontimeupdate = video.onseeked = follow;
new ResizeObserver(() => chart.clientWidth ? draw() : video.pause()).observe(chart);  // no sound from behind another tab

// Start and Stop take each other's place, and the keyboard's with it.
const buttons = "#video-start, #video-stop";
const swapped = new MutationObserver(() => {
  if (document.activeElement === document.body) document.querySelector(buttons)?.focus();
});
document.addEventListener("focusin", ({ target }) => {
  if (target.matches(buttons)) swapped.observe(target.parentElement, { childList: true });
  else swapped.disconnect();
});

watch("value", () => show(props.value));
show(props.value);
