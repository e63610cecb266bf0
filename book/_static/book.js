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
  const kinds = {
    ".pst-scrollable-table-container, .cell_output .text_html": "Table",
    "div.math, div.math > mjx-container": "Equation",
  };
  for (const [boxes, kind] of Object.entries(kinds)) {
    for (const box of document.querySelectorAll(boxes)) {
      if (box.scrollWidth > box.clientWidth) {
        box.tabIndex = 0;
        box.setAttribute("role", "group");
        box.setAttribute("aria-label", `${kind} that scrolls sideways`);
      }
    }
  }
};
window.addEventListener("load", () => {
  reachScrollers();
  window.MathJax?.startup?.promise?.then(reachScrollers);
});
window.addEventListener("resize", reachScrollers);

// The first sentence of a glossary entry appears beside the link to it, for
// the pointer and for the keyboard; Escape sends it away.
const explainTerms = () => {
  const box = document.createElement("div");
  box.className = "tip-box";
  box.id = "tip-box";
  box.setAttribute("role", "tooltip");
  box.hidden = true;
  const links = document.querySelectorAll(
    ".bd-article a[href*='glossary.html#term-'][title]",
  );
  if (!links.length) return;
  document.body.append(box);
  const hide = () => {
    box.hidden = true;
  };
  for (const link of links) {
    const text = link.title;
    link.removeAttribute("title"); // it would appear a second time
    link.classList.add("tip");
    const show = () => {
      box.textContent = text;
      box.hidden = false;
      const place = link.getBoundingClientRect();
      const room = document.documentElement.clientWidth - box.offsetWidth - 16;
      box.style.left = `${Math.max(16, Math.min(place.left, room))}px`;
      box.style.top = `${place.bottom + window.scrollY + 6}px`;
    };
    link.setAttribute("aria-describedby", box.id);
    link.addEventListener("mouseenter", show);
    link.addEventListener("focus", show);
    link.addEventListener("mouseleave", hide);
    link.addEventListener("blur", hide);
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
  });
};

// Tables that sort: the head of a column becomes a button. Numbers begin with
// the largest, words with A; a second press turns the order round.
const sortTables = () => {
  for (const table of document.querySelectorAll("table.sort")) {
    const body = table.tBodies[0];
    table.querySelectorAll("th[data-sort]").forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      button.title = head.title;
      head.removeAttribute("title");
      head.replaceChildren(button);
      const numbers = head.dataset.sort === "number";
      const key = (row) => {
        const cell = row.cells[column];
        return numbers ? Number(cell.dataset.value) : cell.textContent;
      };
      const compare = (a, b) =>
        numbers ? key(a) - key(b) : key(a).localeCompare(key(b));
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        const first = numbers ? "descending" : "ascending";
        const other = numbers ? "ascending" : "descending";
        const order = now === first ? other : first;
        const sign = order === "ascending" ? 1 : -1;
        for (const one of table.querySelectorAll("th[aria-sort]")) {
          one.removeAttribute("aria-sort");
        }
        head.setAttribute("aria-sort", order);
        body.append(...[...body.rows].sort((a, b) => sign * compare(a, b)));
      });
    });
  }
};

document.addEventListener("DOMContentLoaded", () => {
  nameControls();
  sortTables();
  explainTerms();
  if (document.querySelector("script[type*='widget-view']")) {
    new MutationObserver(nameSliders).observe(document.body, {
      childList: true,
      subtree: true,
    });
  }
});
