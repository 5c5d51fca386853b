// Runs once, with `element`, `props` and `watch` given by gr.HTML. The value is described in ui/viewer.py.
const find = (selector) => element.querySelector(selector);
const viewer = find(".viewer"), stage = find(".stage"), overlay = find(".overlay"), split = find(".split");
const opacity = find(".opacity"), underPointer = find(".under-pointer"), legend = find(".legend");
const context = overlay.getContext("2d", { willReadFrequently: true });
const UNLABELLED = 255;

let classes = [];
let ids = new Uint8Array(0);  // class of each pixel of the overlay
let pinned = null;            // class whose legend entry was clicked
let shown = 0;                // number of the newest value, as pictures take a while to decode

async function show(value) {
  const number = ++shown;
  if (!value || value.error) {
    viewer.dataset.state = value ? "error" : "empty";
    find(".error").textContent = value ? value.error : "";
    return;
  }
  const mask = new Image();
  mask.src = value.mask;
  const picture = find(".picture");
  picture.src = value.picture;
  await Promise.all([mask.decode(), picture.decode()]);
  if (number !== shown) return;
  classes = value.classes;
  pinned = null;
  readIds(mask, value.width, value.height);
  stage.style.setProperty("--ratio", value.width / value.height);
  const download = find(".download");
  download.href = value.mask;
  download.download = value.mask_name;
  find(".note").textContent = value.note;
  drawLegend();
  highlight(null);
  viewer.dataset.state = "picture";
}

function readIds(mask, width, height) {
  overlay.width = width;
  overlay.height = height;
  context.imageSmoothingEnabled = false;
  context.drawImage(mask, 0, 0, width, height);
  const idOfColor = new Map(classes.map(({ id, color: [r, g, b] }) => [(r << 16) | (g << 8) | b, id]));
  const { data } = context.getImageData(0, 0, width, height);
  ids = new Uint8Array(width * height);
  for (let i = 0; i < ids.length; i++) {
    ids[i] = idOfColor.get((data[4 * i] << 16) | (data[4 * i + 1] << 8) | data[4 * i + 2]) ?? UNLABELLED;
  }
}

// Every class in its colour and unlabelled pixels clear; or one class, and all else in the dark.
function drawOverlay(only) {
  const image = context.createImageData(overlay.width, overlay.height);
  const pixels = new Uint32Array(image.data.buffer);
  const colors = new Uint32Array(256);
  const bytes = new Uint8Array(colors.buffer);
  for (const { id, color } of classes) {
    if (only === null) bytes.set([...color, id === UNLABELLED ? 0 : 255], 4 * id);
    else bytes.set(id === only ? [...color, id === UNLABELLED ? 0 : 140] : [0, 0, 0, 190], 4 * id);
  }
  for (let i = 0; i < ids.length; i++) pixels[i] = colors[ids[i]];
  context.putImageData(image, 0, 0);
}

function highlight(id) {
  const only = id ?? pinned;
  stage.classList.toggle("isolating", only !== null);
  drawOverlay(only);
  for (const item of legend.children) {
    item.firstChild.setAttribute("aria-pressed", Number(item.dataset.id) === pinned);
  }
}

function drawLegend() {
  legend.replaceChildren(...classes.map(({ id, name, color, area }) => {
    const item = document.createElement("li"), button = document.createElement("button");
    item.dataset.id = id;
    item.classList.toggle("absent", area === 0);
    item.style.setProperty("--color", `rgb(${color.join(" ")})`);
    item.style.setProperty("--area", area);
    button.append(...[["swatch", ""], ["name", name], ["area", percent(area)]].map(([className, text]) => {
      const part = document.createElement("span");
      part.className = className;
      part.textContent = text;
      return part;
    }));
    button.onpointerenter = (event) => event.pointerType === "mouse" && highlight(id);
    button.onpointerleave = (event) => event.pointerType === "mouse" && highlight(null);
    button.onclick = () => { pinned = pinned === id ? null : id; highlight(null); };
    item.append(button);
    return item;
  }));
}

function percent(area) {
  if (area === 0) return "0 %";
  return area < 0.001 ? "< 0.1 %" : `${(100 * area).toFixed(1)} %`;
}

function nameUnderPointer(event) {
  const box = overlay.getBoundingClientRect();
  const x = Math.floor((event.clientX - box.left) / box.width * overlay.width);
  const y = Math.floor((event.clientY - box.top) / box.height * overlay.height);
  const inside = x >= 0 && y >= 0 && x < overlay.width && y < overlay.height;
  const id = inside ? ids[y * overlay.width + x] : null;
  const found = classes.find((one) => one.id === id);
  underPointer.hidden = !found || event.pointerType !== "mouse";
  for (const item of legend.children) item.classList.toggle("pointed", !underPointer.hidden && item.dataset.id == id);
  if (!found) return;
  underPointer.textContent = found.name;
  underPointer.style.setProperty("--color", `rgb(${found.color.join(" ")})`);
  underPointer.style.left = `${event.clientX - box.left}px`;
  underPointer.style.top = `${event.clientY - box.top}px`;
  underPointer.classList.toggle("flipped", x > overlay.width * 0.75);
}

function applyControls() {
  stage.style.setProperty("--split", `${split.value}%`);
  stage.style.setProperty("--opacity", opacity.value / 100);
  find(".opacity-value").textContent = `${opacity.value} %`;
}

split.oninput = opacity.oninput = applyControls;
split.onpointermove = nameUnderPointer;
split.onpointerleave = () => {
  underPointer.hidden = true;
  for (const item of legend.children) item.classList.remove("pointed");
};
applyControls();
watch("value", () => show(props.value));
show(props.value);
