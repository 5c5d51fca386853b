// What the scripts of pictures under their classes share; it stands before each of them. A class is {id, name, color},
// from ui/component.py.
const UNLABELLED = 255;

// Fill a canvas with the ids of its pixels: every class in its colour and unlabelled pixels clear; or only one class,
// and all else in the dark.
function paintClasses(context, ids, classes, only) {
  const image = context.createImageData(context.canvas.width, context.canvas.height);
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

// A legend in a list. It calls highlight with the id of the class to show alone, which is that under the pointer or
// else the one that was clicked, or with null.
function makeLegend(list, highlight) {
  let pinned = null;

  function entry({ id, name, color }) {
    const item = document.createElement("li"), button = document.createElement("button");
    item.dataset.id = id;
    item.dataset.name = name;
    item.style.setProperty("--color", `rgb(${color.join(" ")})`);
    button.append(...[["swatch", ""], ["name", name], ["area", ""]].map(([className, text]) => {
      const part = document.createElement("span");
      part.className = className;
      part.textContent = text;
      return part;
    }));
    button.onpointerenter = (event) => event.pointerType === "mouse" && highlight(id);
    button.onpointerleave = (event) => event.pointerType === "mouse" && highlight(pinned);
    button.onclick = () => {
      pinned = pinned === id ? null : id;
      for (const other of list.children) {
        other.firstChild.setAttribute("aria-pressed", Number(other.dataset.id) === pinned);
      }
      highlight(pinned);
    };
    button.setAttribute("aria-pressed", false);
    item.append(button);
    return item;
  }

  return {
    build(classes) {
      pinned = null;
      list.replaceChildren(...classes.map(entry));
    },
    update(areas) {  // share of the picture by the name of the class
      for (const item of list.children) {
        const area = areas[item.dataset.name] ?? 0;
        item.classList.toggle("absent", area === 0);
        item.style.setProperty("--area", area);
        item.querySelector(".area").textContent = percent(area);
      }
    },
  };
}

function percent(area) {
  if (area === 0) return "0 %";
  return area < 0.001 ? "< 0.1 %" : `${(100 * area).toFixed(1)} %`;
}
