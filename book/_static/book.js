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
