// Fonts of the widgets are in the folder of their script.
window.__jupyter_widgets_assets_path__ = new URL(
  "vendor/",
  document.currentScript.src,
).href;

// ipywidgets speak to MathJax 2; the pages have MathJax 3. Without this
// bridge every slider with a label leaves an error on the console.
document.addEventListener("DOMContentLoaded", () => {
  const mathjax = window.MathJax;
  if (mathjax && !mathjax.Hub) {
    mathjax.Hub = {
      Queue: ([command, , element]) => {
        if (command === "Typeset" && mathjax.typesetPromise) {
          mathjax.typesetPromise([element]);
        }
      },
    };
  }
});

// Names for controls that the theme and the widgets leave without one.
const nameControls = () => {
  for (const button of document.querySelectorAll(".search-button-field")) {
    button.removeAttribute("aria-label"); // it shows its own words
  }
  for (const summary of document.querySelectorAll("nav details > summary")) {
    const link = summary.closest("li")?.querySelector("a");
    const chapter = link?.textContent.trim() ?? "this chapter";
    summary.setAttribute("aria-label", `Pages below ${chapter}`);
  }
  // folded code says what it is; "Toggle hidden content" would hide that
  for (const summary of document.querySelectorAll("details.hide > summary")) {
    summary.removeAttribute("aria-label");
  }
};

// The handle of a slider says what it moves and what is shown now.
const nameSliders = () => {
  for (const box of document.querySelectorAll(".frame-slider")) {
    const handle = box.querySelector("[role=slider]");
    const label = box.querySelector(".widget-label");
    if (!handle || !label) continue;
    const say = () => {
      const pages = [...box.querySelectorAll(".frame-label")];
      const shown = pages.find((page) => page.offsetParent !== null);
      const text = shown?.textContent ?? "";
      // only a change is written, or the observer would call itself
      if (handle.getAttribute("aria-valuetext") !== text) {
        handle.setAttribute("aria-valuetext", text);
      }
    };
    if (!handle.hasAttribute("aria-label")) {
      handle.setAttribute("aria-label", label.textContent);
      new MutationObserver(say).observe(box, {
        attributes: true,
        childList: true,
        subtree: true,
      });
    }
    say();
  }
};

// A box that scrolls sideways can be reached by keyboard, or the arrow keys
// would not scroll it.
const reachScrollers = () => {
  const boxes = ".pst-scrollable-table-container, .cell_output .text_html";
  for (const box of document.querySelectorAll(boxes)) {
    if (box.scrollWidth > box.clientWidth) {
      box.tabIndex = 0;
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", "Table that scrolls sideways");
    }
  }
};
window.addEventListener("load", reachScrollers);
window.addEventListener("resize", reachScrollers);

document.addEventListener("DOMContentLoaded", () => {
  nameControls();
  if (document.querySelector("script[type*='widget-view']")) {
    new MutationObserver(nameSliders).observe(document.body, {
      childList: true,
      subtree: true,
    });
  }
});
