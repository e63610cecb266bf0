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
