// One line of words and a button; Enter sends them too. The words travel with the press in one
// message: an ordinary text field's Enter can overtake its last letters. State: label, placeholder,
// button, text, sent, disabled (see editor.py).

function render({ model, el }) {
  const line = document.createElement("div");
  line.className = "fastgen-request";
  line.style.cssText = "display:flex;gap:6px;align-items:center;margin:2px;max-width:620px";
  const label = document.createElement("label");
  label.textContent = model.get("label");
  label.style.cssText = "display:flex;gap:6px;align-items:center;flex:1";
  const input = document.createElement("input");
  input.type = "text";
  input.placeholder = model.get("placeholder");
  input.autocomplete = "off";
  input.dataset.lmSuppressShortcuts = "true";
  input.style.cssText = "flex:1;min-width:12em;padding:4px 8px;font:inherit";
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = model.get("button");
  button.dataset.lmSuppressShortcuts = "true";
  button.className = "jupyter-button widget-button mod-primary";
  label.append(input);
  line.append(label, button);
  el.append(line);

  input.oninput = () => {
    model.set("text", input.value);
    model.save_changes();
  };
  const send = () => {
    const count = (model.get("sent").count ?? 0) + 1;
    model.set("text", input.value);
    model.set("sent", { words: input.value, count });
    model.save_changes();
  };
  button.onclick = send;
  input.onkeydown = (event) => {
    event.stopPropagation(); // a key that reaches JupyterLab's notebook is a command to it
    if (event.key === "Enter" && !event.isComposing) {
      event.preventDefault();
      send();
    }
  };

  let focused = false; // a locked field loses the focus; it gets it back
  const lock = () => {
    const disabled = model.get("disabled");
    if (disabled && document.activeElement === input) focused = true;
    input.disabled = button.disabled = disabled;
    if (!disabled && focused) {
      focused = false;
      input.focus();
    }
  };
  const fill = () => {
    if (input.value !== model.get("text")) input.value = model.get("text");
  };
  fill();
  lock();
  model.on("change:text", fill);
  model.on("change:disabled", lock);
}

export default { render };
