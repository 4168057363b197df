// Pictures as buttons: a click, Enter or space chooses one. State: pictures, labels, chosen,
// disabled (see editor.py).

function render({ model, el }) {
  const row = document.createElement("div");
  row.setAttribute("role", "group");
  row.setAttribute("aria-label", "variants, choose one");
  row.style.cssText = "display:flex;flex-wrap:wrap;gap:8px";
  row.onkeydown = (event) => event.stopPropagation();
  el.append(row);
  let urls = [];

  const draw = () => {
    urls.forEach((url) => URL.revokeObjectURL(url));
    const pngs = model.get("pictures");
    urls = pngs.map((png) => URL.createObjectURL(new Blob([png], { type: "image/png" })));
    const focused = [...row.children].indexOf(document.activeElement);
    row.replaceChildren(
      ...urls.map((url, index) => {
        const button = document.createElement("button");
        const picture = document.createElement("img");
        const label = model.get("labels")[index] ?? "";
        picture.src = url;
        picture.alt = `variant ${index + 1}: ${label}`;
        picture.style.cssText = "width:112px;height:112px;image-rendering:pixelated;display:block";
        const words = document.createElement("span");
        words.textContent = label;
        words.style.cssText = "display:block;width:112px;font-size:11px;line-height:1.2";
        button.type = "button";
        button.className = "fastgen-variant";
        button.dataset.lmSuppressShortcuts = "true"; // or Enter would open the notebook's cell
        button.style.cssText =
          "padding:4px;cursor:pointer;background:transparent;color:inherit;text-align:left;" +
          "border:3px solid transparent;border-radius:4px";
        button.append(picture, words);
        button.onclick = () => {
          model.set("chosen", index);
          model.save_changes();
        };
        return button;
      }),
    );
    row.children[focused]?.focus();
    mark();
  };
  const mark = () => {
    [...row.children].forEach((button, index) => {
      const chosen = index === model.get("chosen");
      button.setAttribute("aria-pressed", String(chosen));
      button.style.borderColor = chosen ? "#0072B2" : "transparent";
      button.disabled = model.get("disabled");
    });
  };

  draw();
  model.on("change:pictures", draw);
  model.on("change:labels", draw);
  model.on("change:chosen", mark);
  model.on("change:disabled", mark);
  return () => urls.forEach((url) => URL.revokeObjectURL(url));
}

export default { render };
