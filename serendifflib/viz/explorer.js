// The portrait explorer: a grid to hover, tap or walk through by arrow keys.
// Everything that it shows is in a JSON block beside it; all of it is set as
// text, never as markup, because titles come from data.
(() => {
  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  };
  const quoted = (title) => `“${title}”`;
  const count = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

  function start(root) {
    const data = JSON.parse(root.querySelector("script").textContent);
    const side = data.side;
    let person = data.people[0];
    let selected = 0;

    const about = make("p", { class: "sdx-about" });
    const choose = make("select", {});
    data.people.forEach((one, place) => {
      const words = `${one.name}: ${one.about}`;
      choose.append(make("option", { value: place }, words));
    });
    const label = make("label", {}, "User ", choose);

    const grid = make("div", {
      class: "sdx-grid",
      role: "grid",
      "aria-label":
        "Portrait. Rows are relevance, high at the top; columns are " +
        "expectedness, high at the right. Arrow keys move, Enter reads.",
    });
    const cells = new Array(side * side);
    for (let y = side - 1; y >= 0; y -= 1) {
      const row = make("div", { class: "sdx-row", role: "row" });
      for (let x = 0; x < side; x += 1) {
        const cell = make("div", {
          class: "sdx-cell",
          role: "gridcell",
          tabindex: -1,
          "data-place": x * side + y,
        });
        cells[x * side + y] = cell;
        row.append(cell);
      }
      grid.append(row);
    }
    const plane = make(
      "div",
      { class: "sdx-plane" },
      make("span", { class: "sdx-up", "aria-hidden": "true" }, "relevance →"),
      grid,
      make(
        "span",
        { class: "sdx-right", "aria-hidden": "true" },
        "expectedness →",
      ),
    );
    const details = make("div", {
      class: "sdx-details",
      role: "region",
      tabindex: -1,
      "aria-label": "What lies in the cell",
    });
    const list = make("ol", { class: "sdx-order" });
    const recommended = make(
      "div",
      { class: "sdx-list" },
      make("p", { class: "sdx-head" }, "Recommended to this user"),
      list,
    );
    const legend = make("p", { class: "sdx-legend" });
    for (const [mark, kind, words] of [
      ["■", "first", "first item"],
      ["●", "past", "history, with the number of items"],
      ["◆", "top", "recommended, with its place"],
      ["★", "answer", "held out"],
    ]) {
      if (kind === "answer" && !data.people.some((one) => one.answer)) {
        continue;
      }
      legend.append(
        make("span", { class: `sdx-${kind}`, "aria-hidden": "true" }, mark),
        ` ${words}; `,
      );
    }
    legend.append(
      "the shade is the generated zone, from the weakest cell of this user " +
        "(none) to the strongest (full).",
    );
    root.querySelector(".sdx-fallback").remove();
    root.append(
      make("div", { class: "sdx-bar" }, label, about),
      make("div", { class: "sdx-body" }, plane, details, recommended),
      legend,
    );

    const inside = (place) => {
      const range = (n) =>
        `${Math.round((100 * n) / side)} to ` +
        `${Math.round((100 * (n + 1)) / side)}%`;
      const x = Math.floor(place / side);
      return {
        name: `Cell (${x + 1}, ${(place % side) + 1})`,
        where:
          `expectedness ${range(x)}, relevance ${range(place % side)}`,
        past: person.history.filter((item) => item.cell === place),
        top: person.top.filter((item) => item.cell === place),
        zone: person.zone[place],
        best: person.best[place],
        answer: person.answer?.cell === place ? person.answer : null,
        first: person.history[0]?.cell === place,
      };
    };

    const spoken = (found) =>
      [
        found.name,
        found.where,
        `zone ${found.zone}% of the strongest`,
        found.past.length ? count(found.past.length, "history item") : null,
        found.first ? "the first item" : null,
        found.top.length
          ? `recommended: ${found.top.map((item) => item.place).join(", ")}`
          : null,
        found.answer ? "the held-out item" : null,
      ]
        .filter(Boolean)
        .join("; ");

    function describe(place) {
      const found = inside(place);
      const parts = [
        make("p", { class: "sdx-head" }, found.name),
        make("p", {}, `${found.where}.`),
        make(
          "p",
          {},
          `Generated zone: ${found.zone}% of the strongest cell.`,
        ),
      ];
      if (found.past.length) {
        const items = make("ul", {});
        for (const item of found.past) {
          items.append(make("li", {}, `${item.place}. ${item.title}`));
        }
        parts.push(make("p", {}, "From the history:"), items);
      } else {
        parts.push(make("p", {}, "Nothing of the history lies here."));
      }
      if (found.answer) {
        parts.push(
          make(
            "p",
            { class: "sdx-told" },
            make("strong", {}, "★ Held out: "),
            `${quoted(found.answer.title)}, place ${found.answer.place} ` +
              "for the model.",
          ),
        );
      }
      for (const item of found.top) {
        parts.push(
          make(
            "p",
            { class: "sdx-told" },
            make("strong", {}, `◆ Recommendation ${item.place}. `),
            item.why,
          ),
        );
      }
      if (!found.top.length && found.best) {
        parts.push(
          make(
            "p",
            { class: "sdx-told" },
            make(
              "strong",
              {},
              `The best unseen item here has place ${found.best.place}. `,
            ),
            found.best.why,
          ),
        );
      } else if (!found.top.length) {
        parts.push(make("p", {}, "No unseen item lies here."));
      }
      details.replaceChildren(...parts);
      cells.forEach((cell, n) => {
        cell.classList.toggle("sdx-shown", n === place);
      });
    }

    function select(place, focus) {
      cells[selected].tabIndex = -1;
      cells[selected].removeAttribute("aria-selected");
      selected = place;
      cells[place].tabIndex = 0;
      cells[place].setAttribute("aria-selected", "true");
      describe(place);
      if (focus) {
        cells[place].focus({ preventScroll: focus === "still" });
      }
    }

    function draw() {
      const weakest = Math.min(...person.zone);
      const range = Math.max(1, 100 - weakest);
      about.textContent =
        `The weakest cell of the zone has ${weakest}% of the strongest.`;
      cells.forEach((cell, place) => {
        const found = inside(place);
        cell.style.setProperty("--zone", (found.zone - weakest) / range);
        // drawn by the style sheet: the label of the cell says it in words
        const marks = [];
        const mark = (kind, text) =>
          marks.push(
            make("span", { class: `sdx-${kind}`, "data-mark": text }),
          );
        const others = found.past.length - (found.first ? 1 : 0);
        if (found.first) mark("first", "■");
        if (others) mark("past", `●${others > 1 ? others : ""}`);
        if (found.top.length) {
          const more = found.top.length > 1 ? "+" : "";
          mark("top", `◆${found.top[0].place}${more}`);
        }
        if (found.answer) mark("answer", "★");
        cell.replaceChildren(...marks);
        cell.setAttribute("aria-label", spoken(found));
      });
      list.replaceChildren(
        ...person.top.map((item) => {
          const button = make("button", { type: "button" }, item.title);
          button.addEventListener("click", () => select(item.cell, "still"));
          button.addEventListener("focus", () => describe(item.cell));
          button.addEventListener("pointerenter", () => describe(item.cell));
          return make("li", {}, button);
        }),
      );
      select(person.top.length ? person.top[0].cell : side * side - 1, false);
    }

    choose.addEventListener("change", () => {
      person = data.people[Number(choose.value)];
      draw();
    });
    const placeOf = (event) => {
      const cell = event.target.closest("[data-place]");
      return cell && Number(cell.dataset.place);
    };
    grid.addEventListener("pointerover", (event) => {
      const place = placeOf(event);
      if (place !== null && event.pointerType === "mouse") describe(place);
    });
    for (const node of [grid, list]) {
      node.addEventListener("pointerleave", () => describe(selected));
    }
    grid.addEventListener("click", (event) => {
      const place = placeOf(event);
      if (place !== null) select(place, "still");
    });
    grid.addEventListener("keydown", (event) => {
      let x = Math.floor(selected / side);
      let y = selected % side;
      if (event.key === "ArrowRight") x += 1;
      else if (event.key === "ArrowLeft") x -= 1;
      else if (event.key === "ArrowUp") y += 1;
      else if (event.key === "ArrowDown") y -= 1;
      else if (event.key === "Home") x = 0;
      else if (event.key === "End") x = side - 1;
      else if (event.key === "PageUp") y = side - 1;
      else if (event.key === "PageDown") y = 0;
      else if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        details.focus();
        return;
      } else return;
      event.preventDefault();
      event.stopPropagation(); // the page turns its leaves by arrow keys
      const within = (n) => Math.max(0, Math.min(side - 1, n));
      select(within(x) * side + within(y), true);
    });
    details.addEventListener("keydown", (event) => {
      if (event.key === "Escape") select(selected, true);
    });
    draw();
  }

  const waiting = ".sd-explorer:not([data-ready])";
  for (const root of document.querySelectorAll(waiting)) {
    root.setAttribute("data-ready", "");
    start(root);
  }
})();
