// The Character List: a new node goes on to the next idol after each run.
import { app } from "../../../scripts/app.js";

app.registerExtension({
  name: "shinymas.sheet",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name !== "ShinyMasCharacterList") return;
    const { onNodeCreated } = nodeType.prototype;
    nodeType.prototype.onNodeCreated = function (...args) {
      const result = onNodeCreated?.apply(this, args);
      // Front ends start with a random one; a saved graph brings its own setting.
      const control = this.widgets?.find((widget) => widget.name === "control_after_generate");
      if (control) control.value = "increment";
      return result;
    };
  },
});
