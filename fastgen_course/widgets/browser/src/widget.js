// The widget's page side: initialize() once a widget, render() once a view.

import { Controller } from "./controller.js";
import { measureInTurn } from "./measure.js";
import { sharedRuntime } from "./runtime.js";
import { View } from "./view.js";

// The static serving page draws with the same runtime and times with the same clock.
export { measureInTurn, sharedRuntime };

export default {
  initialize({ model }) {
    const runtime = sharedRuntime();
    const key = model.get("key");
    const closing = new AbortController();
    const controller = new Controller(model, runtime, closing.signal);
    runtime.controllers.set(key, controller);
    controller.look();
    return () => {
      closing.abort();
      if (runtime.controllers.get(key) === controller) runtime.controllers.delete(key);
    };
  },

  render({ model, el }) {
    const controller = sharedRuntime().controllers.get(model.get("key"));
    const view = new View(model, controller, el);
    return () => view.close();
  },
};
