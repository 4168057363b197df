// A mask drawn over a picture: drag to mark places, drag from a marked one to unmark; with the
// keyboard arrows move and space marks. A place is one word of the picture, so that what is marked
// is exactly what is drawn anew. State: picture, hidden, side, disabled (see editor.py).

const PIXELS = 224;

function render({ model, el }) {
  const board = document.createElement("div");
  board.className = "fastgen-mask";
  board.setAttribute("role", "group");
  board.setAttribute("aria-label", "mask: arrows move, space marks a place to be drawn anew");
  const side = model.get("side");
  board.style.cssText =
    `position:relative;width:${PIXELS}px;height:${PIXELS}px;display:grid;touch-action:none;` +
    `grid-template:repeat(${side},1fr)/repeat(${side},1fr);background-size:100% 100%;` +
    "image-rendering:pixelated;user-select:none";
  el.append(board);

  let marked = new Set(model.get("hidden"));
  let stroke = null; // true while marking, false while unmarking, null between strokes
  let url = null;

  const places = Array.from({ length: side * side }, (_, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.tabIndex = place === 0 ? 0 : -1;
    button.dataset.lmSuppressShortcuts = "true"; // or Enter would open the notebook's cell
    button.setAttribute(
      "aria-label",
      `row ${Math.floor(place / side) + 1}, column ${(place % side) + 1}`,
    );
    button.onkeydown = (event) => onKey(event, place);
    return button;
  });
  board.append(...places);

  const paint = () => {
    places.forEach((button, place) => {
      const on = marked.has(place);
      button.setAttribute("aria-pressed", String(on));
      button.disabled = model.get("disabled");
      button.style.cssText =
        "margin:0;padding:0;border:1px solid rgba(128,128,128,.35);cursor:crosshair;" +
        `background:${on ? "repeating-linear-gradient(45deg,#CC79A7cc 0 5px,#ffffffaa 5px 9px)" : "transparent"}`;
    });
  };
  const send = () => {
    model.set("hidden", [...marked].sort((a, b) => a - b));
    model.save_changes();
  };
  const put = (place, on) => {
    if (on) marked.add(place);
    else marked.delete(place);
    paint();
  };
  const placeAt = (event) => {
    const box = board.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * side);
    const row = Math.floor(((event.clientY - box.top) / box.height) * side);
    const inside = column >= 0 && column < side && row >= 0 && row < side;
    return inside ? row * side + column : null;
  };
  const onKey = (event, place) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -side, ArrowDown: side }[event.key];
    if (step !== undefined) {
      const sideways = Math.abs(step) === 1;
      const next = place + step;
      const sameRow = Math.floor(next / side) === Math.floor(place / side);
      if (next >= 0 && next < side * side && (!sideways || sameRow)) {
        places[place].tabIndex = -1;
        places[next].tabIndex = 0;
        places[next].focus();
      }
    } else if (event.key === " " || event.key === "Enter") {
      put(place, !marked.has(place));
      send();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  };

  board.onpointerdown = (event) => {
    const place = placeAt(event);
    if (place === null || model.get("disabled")) return;
    board.setPointerCapture(event.pointerId);
    stroke = !marked.has(place);
    put(place, stroke);
  };
  board.onpointermove = (event) => {
    const place = stroke === null ? null : placeAt(event);
    if (place !== null && marked.has(place) !== stroke) put(place, stroke);
  };
  board.onpointerup = board.onpointercancel = () => {
    if (stroke === null) return;
    stroke = null;
    send();
  };

  const picture = () => {
    if (url) URL.revokeObjectURL(url);
    const png = model.get("picture");
    url = png?.byteLength ? URL.createObjectURL(new Blob([png], { type: "image/png" })) : null;
    board.style.backgroundImage = url ? `url(${url})` : "none";
  };
  picture();
  paint();
  model.on("change:picture", picture);
  model.on("change:disabled", paint);
  model.on("change:hidden", () => {
    marked = new Set(model.get("hidden"));
    paint();
  });
  return () => url && URL.revokeObjectURL(url);
}

export default { render };
