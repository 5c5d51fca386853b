// A file that the browser itself cannot draw (a TIFF, or no picture at all) shows an empty frame, no broken icon.
for (const kind of ["error", "load"]) {
  document.addEventListener(kind, ({ target }) => {
    if (target.matches?.("#picture img")) target.classList.toggle("broken", kind === "error");
  }, true);
}
