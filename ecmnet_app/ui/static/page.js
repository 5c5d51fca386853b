// Gradio says nothing where a server that ends takes the stream of its answers along, nor where the next one asks for a
// login; and where the network fails for a moment, it loads the page again without a word.
const WAS_LOST = "ecmnet-connection-was-lost";
const request = window.fetch;
let leaving = false;  // which ends the stream as well
window.addEventListener("beforeunload", () => { leaving = true; });
window.fetch = async (...asked) => {
  const response = await request(...asked);
  if (response.status === 401) {
    window.loggedOut = "You are logged out; reload the page and log in.";  // for the Live tab too
    announce(window.loggedOut);
  }
  if (!response.body || !response.url.includes("/queue/data?")) return response;
  const [theirs, ours] = response.body.tee();
  ours.pipeTo(new WritableStream()).catch(({ name }) => {
    if (leaving || name === "AbortError") return;
    sessionStorage.setItem(WAS_LOST, true);
    announce("The server was lost; reload the page.");
  });
  return new Response(theirs, response);
};
if (sessionStorage.getItem(WAS_LOST)) {
  sessionStorage.removeItem(WAS_LOST);
  announce("The connection was lost and the page loaded again; a video that ran was stopped.");
}

// Over every tab, until it is closed.
function announce(text) {
  document.querySelector(".announcement")?.remove();
  const line = Object.assign(document.createElement("p"), { className: "announcement", role: "alert" });
  const close = Object.assign(document.createElement("button"), { textContent: "×", ariaLabel: "Close" });
  close.onclick = () => line.remove();
  line.append(text, close);
  document.querySelector(".gradio-container .main").append(line);
}

// A file that the browser itself cannot draw (a TIFF, or no picture at all) shows an empty frame, no broken icon.
for (const kind of ["error", "load"]) {
  document.addEventListener(kind, ({ target }) => {
    if (!target.matches?.("#picture img")) return;
    target.classList.toggle("broken", kind === "error");
    complain("");
  }, true);
}

// Gradio shows example pictures without their names. Those that are not here yet come with a `load`.
function nameExample(image) {
  if (!image.matches?.("#examples img")) return;
  image.alt = decodeURIComponent(image.src.split("/").pop()).replace(/\.\w+$/, "").replaceAll("_", " ");
}
document.addEventListener("load", ({ target }) => nameExample(target), true);
document.querySelectorAll("#examples img").forEach(nameExample);

// Gradio is silent where a file is no picture, and where a camera or the clipboard cannot be opened to take one.
for (const kind of ["change", "drop"]) {
  document.addEventListener(kind, ({ target, dataTransfer }) => {
    if (!target.closest?.("#picture")) return;
    const [file] = (dataTransfer ?? target).files ?? [];
    if (file && !file.type.startsWith("image/")) complain(`“${file.name}” is no picture. Choose a JPEG, a PNG or the like.`);
  }, true);
}
const sources = "#picture [data-testid='source-select'] button";
window.addEventListener("unhandledrejection", (event) => {
  const source = document.querySelector(`${sources}.selected`);
  if (!(event.reason instanceof DOMException) || !source?.offsetParent) return;
  event.preventDefault();
  if (source.ariaLabel === "Capture from camera") complain(explainCamera(event.reason));
  if (source.ariaLabel === "Paste from clipboard") {
    complain("The browser does not let this page read the clipboard. Press Ctrl+V (⌘V on a Mac), or choose a file.");
  }
});
document.addEventListener("click", ({ target }) => target.closest?.(sources) && complain(""), true);

// Browsers keep camera and clipboard from a page that is neither from https nor from this machine; Gradio takes both for given.
const refuse = async () => { throw new DOMException("", "SecurityError"); };
for (const [name, value] of Object.entries({ mediaDevices: { getUserMedia: refuse }, clipboard: { read: refuse, writeText: refuse } })) {
  if (!navigator[name]) Object.defineProperty(navigator, name, { value });
}

// Gradio has a button for the clipboard and no key, which every browser allows.
document.addEventListener("paste", ({ clipboardData }) => {
  const [file] = clipboardData.files, upload = document.querySelector(sources);
  if (!file || !upload?.offsetParent) return;
  upload.click();  // where another source is chosen, there is no input
  const files = new DataTransfer();
  files.items.add(file);
  setTimeout(() => {
    const input = document.querySelector("#picture input[type=file]");
    input.files = files.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  });
});

function complain(text) {
  const picture = document.querySelector("#picture");
  let line = document.querySelector(".complaint");
  if (!line) {
    line = Object.assign(document.createElement("p"), { className: "complaint", role: "alert" });
    picture.after(line);
  }
  line.textContent = text;
  line.hidden = !text;
}

// For the Live tab too.
window.explainCamera = ({ name, message }) => ({
  SecurityError: "Browsers give their camera only to pages from https or from this machine itself. Open this page as https://… "
    + "(its server takes --ssl-certfile), or reach it through a tunnel: ssh -L 7860:localhost:7860 HOST, then http://localhost:7860.",
  NotAllowedError: "The camera is blocked for this page. Allow it where the address bar shows a camera or a lock, and in the settings of "
    + "this device, then start again.",
  NotFoundError: "There is no camera here. Plug one in and start again, or use a picture instead.",
  NotReadableError: "The camera is taken by another program. Close that one, then start again.",
  OverconstrainedError: "That camera is no longer here. Start again to use another.",
}[name] ?? `The camera could not be started (${message || name}). Try again, or choose another one.`);
