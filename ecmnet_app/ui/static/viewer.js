// Runs once, with `element`, `props` and `watch` given by gr.HTML. The value is described in ui/viewer.py.
const find = (selector) => element.querySelector(selector);
const viewer = find(".viewer"), stage = find(".stage"), overlay = find(".overlay"), split = find(".split");
const opacity = find(".opacity"), underPointer = find(".under-pointer"), legend = find(".legend");
const context = overlay.getContext("2d", { willReadFrequently: true });
const entries = makeLegend(legend, highlight);

let classes = [];
let ids = new Uint8Array(0);  // class of each pixel of the overlay
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
  readIds(mask, value.width, value.height);
  stage.style.setProperty("--ratio", value.width / value.height);
  const download = find(".download");
  download.href = value.mask;
  download.download = value.mask_name;
  find(".note").textContent = value.note;
  entries.build(classes);
  entries.update(Object.fromEntries(classes.map(({ name, area }) => [name, area])));
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

function highlight(only) {
  stage.classList.toggle("isolating", only !== null);
  paintClasses(context, ids, classes, only);
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
