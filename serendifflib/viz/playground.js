// The playground: a reader edits a history, `serenDiff` (browser_model.js)
// answers, and everything is drawn again. The frame is playground.html; titles
// come from data, so they are set as text, never as markup.
(() => {
  const fill = (node, attributes, children) => {
    for (const [name, value] of Object.entries(attributes)) {
      node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  };
  const make = (tag, attributes = {}, ...children) =>
    fill(document.createElement(tag), attributes, children);
  const button = (words, attributes, act) => {
    const node = make("button", { type: "button", ...attributes }, words);
    node.addEventListener("click", act);
    return node;
  };
  const quoted = (title) => `“${title}”`;
  const BEST = 5;

  function start(root) {
    const asset = JSON.parse(root.querySelector("script").textContent);
    const model = window.serenDiff(asset);
    const find = (selector) => root.querySelector(selector);
    const plane = find("svg");
    const shelf = find("select");
    const [status, list, onShelf, starts, best, sentence] = [
      ".sdp-status", ".sdp-history", ".sdp-shelf", ".sdp-bar", ".sdp-five", ".sdp-why",
    ].map(find);
    const draw = (tag, attributes = {}, ...children) =>
      fill(
        document.createElementNS(plane.namespaceURI, tag),
        attributes,
        children,
      );
    const { titles, side } = model;
    const shelfOf = [];
    asset.shelves.forEach(([name, items]) => {
      for (const item of items) shelfOf[item] = name;
    });
    let history = [...asset.starts[0].history];
    let lots; // of the draws; undefined is those of the page
    let found = null; // what the model says about the history
    let chosen = null; // the item that is explained

    // ----------------------------------------------------------- the frame
    asset.shelves.forEach(([name], n) => {
      shelf.append(make("option", { value: n }, name));
    });
    const showShelfOf = (item) => {
      shelf.value = asset.shelves.findIndex(([one]) => one === shelfOf[item]);
    };
    asset.starts.forEach(({ name, history: given }) => {
      starts.append(
        button(name, {}, () => {
          history = [...given];
          showShelfOf(given[0]);
          update(`History of ${history.length}.`);
        }),
      );
    });
    find(".sdp-again").addEventListener("click", () => {
      const [count, length] = asset.lots.shape;
      lots = Array.from({ length: count }, () =>
        Array.from({ length }, Math.random),
      );
      update("Drawn again.");
    });
    const [compare, compared] = find(".sdp-compare").children;
    compare.addEventListener("click", () => {
      const worst = model.difference();
      compared.textContent =
        ` Positions, zone and scores of ${asset.starts.length} histories ` +
        `differ from Python's by at most ${worst.toExponential(1)}.`;
      root.dataset.difference = worst;
    });

    // ---------------------------------------------------------- the history
    const place = (item) => history.indexOf(item);
    const add = (item) => {
      history = [...history, item];
      update(`Added ${quoted(titles[item])} at place ${history.length}.`);
    };
    const remove = (item) => {
      history = history.filter((other) => other !== item);
      update(`Removed ${quoted(titles[item])}.`);
    };
    const move = (item, step) => {
      const from = place(item);
      history.splice(from, 1);
      history.splice(from + step, 0, item);
      update(`${quoted(titles[item])} is now at place ${from + step + 1}.`);
    };
    const focusOn = (n, kind) => {
      const row = list.children[Math.min(n, history.length - 1)];
      const wanted = row?.querySelector(`[data-do=${kind}]:enabled`);
      (wanted ?? row?.querySelector("[data-do]:enabled") ?? shelf).focus();
    };
    const tools = {
      up: { words: "Move up", step: -1 },
      down: { words: "Move down", step: 1 },
      remove: { words: "Remove", step: 0 },
    };
    const copy = (name) =>
      find(`template.${name}`).content.firstElementChild.cloneNode(true);
    const showHistory = () => {
      const rows = history.map((item, n) => {
        const row = copy("sdp-item");
        const [number, title, ...buttons] = row.children;
        number.textContent = n + 1;
        title.textContent = titles[item];
        for (const one of buttons) {
          const { words, step } = tools[one.dataset.do];
          one.setAttribute("aria-label", `${words} ${quoted(titles[item])}`);
          one.disabled = !(n + step in history);
          one.addEventListener("click", () => {
            if (step) move(item, step);
            else remove(item);
            focusOn(step ? place(item) : n, one.dataset.do);
          });
        }
        return row;
      });
      list.replaceChildren(...rows);
    };
    const showShelf = () => {
      const [, items] = asset.shelves[Number(shelf.value)];
      const had = [...onShelf.children].indexOf(document.activeElement);
      onShelf.replaceChildren(
        ...items.map((item) => {
          const there = history.includes(item);
          return button(titles[item], { "aria-pressed": there }, () =>
            there ? remove(item) : add(item),
          );
        }),
      );
      if (had >= 0) onShelf.children[had].focus();
    };

    // --------------------------------------------------------- the portrait
    const size = 100 / side;
    const cells = [];
    const drawCells = () => {
      for (let x = 0; x < side; x += 1) {
        cells.push([]);
        for (let y = 0; y < side; y += 1) {
          const box = { x: x * size, y: 100 - (y + 1) * size };
          const tip = draw("title");
          const shape = draw(
            "rect",
            { ...box, width: size, height: size, class: "sdp-cell" },
            tip,
          );
          cells[x].push({ shape, tip });
          plane.append(shape);
        }
      }
      const words = { x: 50, y: 105.5, class: "sdp-axis" };
      plane.append(
        draw("text", words, "expectedness →"),
        draw(
          "text",
          { ...words, transform: "rotate(-90)", x: -50, y: -2.5 },
          "relevance →",
        ),
      );
    };
    // Marks keep their element, so that they glide to their new place.
    const marks = new Map();
    const mark = (name, kind, [x, y], words, item) => {
      let node = marks.get(name);
      if (!node) {
        const shape =
          kind === "draw"
            ? draw("circle", { r: 1.1 })
            : draw("path", {
                d: {
                  first: "M-3-3H3V3H-3Z",
                  past: "M0-3.2A3.2 3.2 0 1 1 0 3.2A3.2 3.2 0 1 1 0-3.2Z",
                  best: "M0-4.2L4.2 0L0 4.2L-4.2 0Z",
                }[kind],
              });
        node = draw("g", {}, shape, draw("text", { y: 1.3 }));
        if (kind === "best") node.addEventListener("click", () => choose(item));
        marks.set(name, node);
        plane.append(node);
      }
      node.setAttribute("class", `sdp-mark sdp-${kind}`);
      node.classList.toggle("sdp-chosen", item === chosen);
      node.style.transform = `translate(${100 * x}px, ${100 - 100 * y}px)`;
      node.lastChild.textContent = words;
      return name;
    };
    // Where in its cell the dot of draw n stands: a spiral, so that dots of
    // one cell do not hide each other.
    const spread = (n, axis) =>
      0.5 + 0.1 * Math.sqrt(n + 1) * (axis ? Math.sin : Math.cos)(2.4 * n);
    const showPlane = () => {
      const zone = found?.zone ?? cells.map((row) => row.map(() => 0));
      const top = Math.max(...zone.flat(), 1e-9);
      cells.forEach((row, x) =>
        row.forEach(({ shape, tip }, y) => {
          const share = zone[x][y];
          shape.style.setProperty("--zone", share / top);
          tip.textContent =
            `Cell (${x + 1}, ${y + 1}): ${(100 * share).toFixed(1)}% ` +
            "of the zone";
        }),
      );
      const shown = new Set();
      found?.draws.forEach((cell, n) => {
        const spot = cell.map((c, axis) => (c + spread(n, axis)) / side);
        shown.add(mark(`draw ${n}`, "draw", spot, ""));
      });
      history.forEach((item, n) => {
        const kind = n ? "past" : "first";
        shown.add(
          mark(`${kind} ${item}`, kind, found.past[n], `${n + 1}`, item),
        );
      });
      found?.order.slice(0, BEST).forEach((item, n) => {
        const spot = found.positions[item];
        shown.add(mark(`best ${item}`, "best", spot, `${n + 1}`, item));
      });
      for (const [name, node] of marks) {
        if (shown.has(name)) continue;
        node.remove();
        marks.delete(name);
      }
      plane.setAttribute("aria-label", spoken(zone, top));
    };
    const cellName = (cell) => `(${cell.map((c) => c + 1).join(", ")})`;
    const spoken = (zone, top) => {
      if (!found) return "An empty portrait.";
      const x = zone.findIndex((row) => row.includes(top));
      const where = (items) =>
        items
          .map((item) => cellName(model.cellOf(found.positions[item])))
          .join(", ");
      return (
        "Portrait; cells are (expectedness, relevance), 1 to " +
        `${side}. The history lies in ` +
        `${found.past.map((p) => cellName(model.cellOf(p))).join(", ")}; ` +
        `the zone is strongest in ${cellName([x, zone[x].indexOf(top)])}, ` +
        `${(100 * top).toFixed(0)}%; the draws lie in ` +
        `${found.draws.map(cellName).join(", ")}; the recommendations in ` +
        `${where(found.order.slice(0, BEST))}.`
      );
    };

    // -------------------------------------------------------------- the list
    const choose = (item) => {
      chosen = item;
      showPlane();
      showBest();
    };
    const showBest = () => {
      const had = document.activeElement?.dataset?.best;
      const items = found ? found.order.slice(0, BEST) : [];
      best.replaceChildren(
        ...items.map((item, n) => {
          const row = copy("sdp-found");
          const [number, words, score, plus] = row.children;
          const [title, shelfName] = words.children;
          number.textContent = n + 1;
          title.textContent = titles[item];
          title.title = `Explain ${quoted(titles[item])}`;
          title.dataset.best = n;
          title.setAttribute("aria-pressed", item === chosen);
          title.addEventListener("click", () => choose(item));
          shelfName.textContent = shelfOf[item];
          score.lastElementChild.textContent = found.scores[item]
            .toFixed(2)
            .replace("-", "−");
          plus.dataset.best = -n - 1;
          plus.setAttribute("aria-label", `Add ${quoted(titles[item])}`);
          plus.addEventListener("click", () => add(item));
          return row;
        }),
      );
      if (had !== undefined) best.querySelector(`[data-best="${had}"]`)?.focus();
      sentence.textContent =
        chosen === null
          ? "Add an item: a portrait begins with the first one."
          : model.why(chosen, found);
    };

    function update(words) {
      found = history.length ? model.look(history, lots) : null;
      chosen = found?.order[0] ?? null;
      showHistory();
      showShelf();
      showPlane();
      showBest();
      if (words) {
        status.textContent =
          words +
          (found ? ` First is now ${quoted(titles[chosen])}.` : " It is empty.");
      }
    }

    shelf.addEventListener("change", showShelf);
    root.addEventListener("keydown", (event) => {
      // the page turns its leaves by arrow keys
      if (event.key.startsWith("Arrow")) event.stopPropagation();
    });
    drawCells();
    find(".sdp-fallback").remove();
    find(".sdp-page").removeAttribute("hidden");
    showShelfOf(history[0]);
    update("");
  }

  const waiting = ".sd-play:not([data-ready])";
  for (const root of document.querySelectorAll(waiting)) {
    root.setAttribute("data-ready", "");
    start(root);
  }
})();
