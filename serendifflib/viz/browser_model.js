// SerenDiff in tokens, written again in plain JavaScript: a history goes in,
// the portrait, the zone, draws and a ranked list come out. Every step has
// the name that it has in the Python library and in the book. Items are
// numbered from 0 here, cells are [expectedness, relevance] from 0 to L - 1.
window.serenDiff = (asset) => {
  const { side, heads, mu } = asset;
  const SAME = 0.05; // a difference of positions below this is called "as"

  // ------------------------------------------------ numbers out of the page
  // A vector becomes an array of numbers, a matrix an array of such rows.
  const unpack = ({ shape, data }) => {
    const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
    const values = Float64Array.from(new Float32Array(bytes.buffer));
    if (shape.length === 1) return values;
    const [rows, width] = shape;
    return Array.from({ length: rows }, (_, n) =>
      values.subarray(n * width, (n + 1) * width),
    );
  };
  const unpackAll = (packed) =>
    Object.fromEntries(
      Object.entries(packed).map(([name, one]) => [name, unpack(one)]),
    );
  const weights = unpackAll(asset.weights);
  const items = unpackAll(asset.items);
  const count = asset.titles.length;
  const everything = [...Array(count).keys()];
  const { popularity, pairs, together, cosines } = items;
  const allPopularity = popularity.reduce((a, b) => a + b, 0);

  // ------------------------------- the portrait: positions on both axes
  // log p(i | T), Eq. 14: how often i occurs with what has been read
  const expectedness = (item, past) => {
    const background = (mu * popularity[item]) / allPopularity;
    let sum = 0;
    for (const h of past) {
      const share = pairs[h] + mu;
      sum += (together[item][h] + background) / share;
    }
    return Math.log(sum / past.length);
  };
  // Eq. 8: the largest cosine to what has been read
  const relevance = (item, past) =>
    Math.max(...past.map((h) => cosines[item][h]));

  // Position of a score among the scores of the catalogue, in [0, 1]. What
  // is tied is spread by a fixed key of the item.
  const key = (item) => ((item + 1) * 0.6180339887498949) % 1;
  const rounded = (score) => Math.round(score * 1e9);
  const quantile = (score, reference, item) => {
    const mine = rounded(score);
    const below = reference.filter((other) => other < mine).length;
    const tied = reference.filter((other) => other === mine).length;
    return (below + key(item) * tied) / reference.length;
  };

  const portrait = (history) => {
    const axes = [expectedness, relevance];
    const known = axes.map((axis) =>
      everything.map((item) => rounded(axis(item, history))),
    );
    const place = (item, past) =>
      axes.map((axis, n) => quantile(axis(item, past), known[n], item));
    return {
      positions: everything.map((item) => place(item, history)),
      // only what comes before an item counts; the first is the anchor
      past: history.map((item, n) =>
        n === 0 ? [1, 1] : place(item, history.slice(0, n)),
      ),
    };
  };
  const cellOf = (position) =>
    position.map((p) => Math.min(side - 1, Math.floor(p * side)));

  // ------------------------------------------------------------ the network
  const add = (...vectors) => {
    const sum = Float64Array.from(vectors[0]);
    for (const vector of vectors.slice(1)) {
      for (let c = 0; c < sum.length; c += 1) sum[c] += vector[c];
    }
    return sum;
  };
  const dot = (a, b) => {
    let sum = 0;
    for (let c = 0; c < a.length; c += 1) sum += a[c] * b[c];
    return sum;
  };
  // rows `from` to `to` of a linear layer
  const linear = (x, matrix, bias, from = 0, to = matrix.length) => {
    const y = new Float64Array(to - from);
    for (let n = from; n < to; n += 1) {
      y[n - from] = dot(matrix[n], x) + bias[n];
    }
    return y;
  };
  const layer = (name, x) =>
    linear(x, weights[`${name}.weight`], weights[`${name}.bias`]);
  const normalise = (name, x) => {
    const mean = x.reduce((a, b) => a + b, 0) / x.length;
    const square = x.reduce((a, b) => a + (b - mean) ** 2, 0) / x.length;
    const scale = weights[`${name}.weight`];
    const shift = weights[`${name}.bias`];
    const spread = Math.sqrt(square + 1e-5);
    return x.map((v, c) => ((v - mean) / spread) * scale[c] + shift[c]);
  };
  const softmax = (logits) => {
    const top = Math.max(...logits);
    const parts = Array.from(logits, (v) => Math.exp(v - top));
    const sum = parts.reduce((a, b) => a + b, 0);
    return parts.map((v) => v / sum);
  };
  // x times the normal distribution function; its error function is that of
  // Abramowitz and Stegun, 7.1.26, exact to 1.5e-7
  const gelu = (x) => {
    const z = Math.abs(x) / Math.SQRT2;
    const t = 1 / (1 + 0.3275911 * z);
    const series = [
      1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592,
    ].reduce((sum, a) => (sum + a) * t, 0);
    const erf = 1 - series * Math.exp(-z * z);
    return 0.5 * x * (1 + Math.sign(x) * erf);
  };

  // What the network keeps of a reader: each item at its cell, and the mean.
  const attention = {
    matrix: weights["attention.in_proj_weight"],
    bias: weights["attention.in_proj_bias"],
  };
  const width = attention.bias.length / 3;
  const project = (x, part) =>
    linear(x, attention.matrix, attention.bias, part * width, (part + 1) * width);
  const remember = (history, cells) => {
    const seen = history.map((item, n) =>
      add(
        items.content[item],
        weights["row.weight"][cells[n][0]],
        weights["column.weight"][cells[n][1]],
      ),
    );
    const total = add(...history.map((item) => items.mean[item]));
    return {
      keys: seen.map((x) => project(x, 1)),
      values: seen.map((x) => project(x, 2)),
      summary: total.map((v) => v / history.length),
    };
  };

  // p(token r | the tokens that are not masked, the reader). A string has
  // three tokens: expectedness, relevance, kind of item; null is the mask.
  const tables = [0, 1, 2].map((r) => weights[`tokens.${r}.weight`]);
  const layers = [];
  while (weights[`layers.${layers.length}.1.weight`]) {
    layers.push(`layers.${layers.length}`);
  }
  const answer = (tokens, r, memory) => {
    const rows = tables.map((t, n) => t[tokens[n] ?? t.length - 1]);
    let hidden = add(memory.summary, ...rows);
    const query = project(normalise("ask", hidden), 0);
    const answers = new Float64Array(width);
    const size = width / heads;
    for (let from = 0; from < width; from += size) {
      const part = (x) => x.subarray(from, from + size);
      const share = softmax(
        memory.keys.map((k) => dot(part(query), part(k)) / Math.sqrt(size)),
      );
      for (let c = from; c < from + size; c += 1) {
        answers[c] = dot(share, memory.values.map((v) => v[c]));
      }
    }
    hidden = add(hidden, layer("attention.out_proj", answers));
    for (const name of layers) {
      const wide = layer(`${name}.1`, normalise(`${name}.0`, hidden));
      hidden = add(hidden, layer(`${name}.4`, wide.map(gelu)));
    }
    return softmax(layer(`heads.${r}`, hidden));
  };

  // -------------------------------------------------- the table, exactly
  // The two tokens of a cell come first, in both orders: the mean of both is
  // the probability of the cell. The kind of item comes last.
  const table = (memory) => {
    const places = [...Array(side).keys()];
    const x = answer([null, null, null], 0, memory);
    const y = answer([null, null, null], 1, memory);
    const yGiven = places.map((a) => answer([a, null, null], 1, memory));
    const xGiven = places.map((b) => answer([null, b, null], 0, memory));
    return {
      zone: places.map((a) =>
        places.map((b) => (x[a] * yGiven[a][b] + y[b] * xGiven[b][a]) / 2),
      ),
      kinds: places.map((a) =>
        places.map((b) => answer([a, b, null], 2, memory)),
      ),
    };
  };
  const score = (item, [a, b], { zone, kinds }) =>
    Math.log(
      Math.max(1e-30, zone[a][b] * dot(kinds[a][b], items.ratios[item])),
    );

  // ------------------------------------------------------------ the draws
  // Token by token, in an order drawn for each string: three numbers decide
  // about the order, three about the values.
  const drawOne = (lots, memory) => {
    const tokens = [null, null, null];
    const order = [0, 1, 2].sort((a, b) => lots[a] - lots[b]);
    for (const r of order) {
      const chances = answer(tokens, r, memory);
      let sum = 0;
      const found = chances.findIndex((p) => (sum += p) >= lots[3 + r]);
      tokens[r] = found < 0 ? chances.length - 1 : found;
    }
    return tokens;
  };

  // ------------------------------------------------------- all of it at once
  const lotsOfPage = unpack(asset.lots);
  const look = (history, lots = lotsOfPage) => {
    const { past, positions } = portrait(history);
    const memory = remember(history, past.map(cellOf));
    const made = table(memory);
    const scores = everything.map((item) =>
      score(item, cellOf(positions[item]), made),
    );
    const order = everything
      .filter((item) => !history.includes(item))
      .sort((a, b) => scores[b] - scores[a] || a - b);
    const draws = lots.map((row) => drawOne(row, memory).slice(0, 2));
    return { history, past, positions, zone: made.zone, scores, order, draws };
  };

  // -------------------------------------------------------- the explanation
  const title = (item) => `“${asset.titles[item]}”`;
  const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
  const number = (n) =>
    "none one two three four five six seven eight nine ten".split(" ")[n] ?? n;
  const why = (item, { history, past, positions, draws }) => {
    const rest = past.slice(1);
    const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
    const centre = rest.length
      ? [mean(rest.map((p) => p[0])), mean(rest.map((p) => p[1]))]
      : [1, 1];
    const reach = rest.length ? mean(rest.map((p) => distance(p, [1, 1]))) : 0;
    const here = positions[item];
    const words = ["expected", "relevant"].map((name, axis) => {
      const step = here[axis] - centre[axis];
      if (Math.abs(step) < SAME) return `as ${name}`;
      return `${step > 0 ? "more" : "less"} ${name}`;
    });
    const radius = distance(here, [1, 1]);
    let stretch = "nearer to the familiar than this user usually stays";
    if (radius > reach) stretch = "farther than this user usually goes";
    if (Math.abs(radius - reach) < SAME) {
      stretch = "about as far as this user usually goes";
    }
    const cosine = (h) => cosines[item][h];
    const similar = [...history].sort((a, b) => cosine(b) - cosine(a));
    const cell = cellOf(here);
    const near = draws.filter((one) =>
      one.every((c, axis) => Math.abs(c - cell[axis]) <= 1),
    ).length;
    const drawn =
      `${number(near)} of ${number(draws.length)} draws ` +
      `${near === 1 ? "lies" : "lie"} here, ` +
      `near ${similar.slice(0, 2).map(title).join(" and ")}.`;
    return (
      `${title(item)} lies ${distance(here, centre).toFixed(2)} from the ` +
      `centre of the history: ${words.join(", ")}. Its distance from the ` +
      `fully familiar, ${radius.toFixed(2)}, is ${stretch} ` +
      `(${reach.toFixed(2)}). The most similar item of the history is ` +
      `${title(similar[0])} (cosine ${cosine(similar[0]).toFixed(2)}). ` +
      `${drawn[0].toUpperCase()}${drawn.slice(1)}`
    );
  };

  // How far the page is from Python: the largest difference of a position, a
  // share of the zone or a score, over the histories that Python answered.
  const difference = () => {
    let worst = 0;
    const compare = (mine, theirs) => {
      if (Array.isArray(theirs)) {
        theirs.forEach((one, n) => compare(mine[n], one));
      } else if (theirs !== null) {
        worst = Math.max(worst, Math.abs(mine - theirs));
      }
    };
    for (const { history, python } of asset.starts) {
      const mine = look(history);
      for (const name of ["past", "zone", "scores"]) {
        compare(mine[name], python[name]);
      }
      for (const item of mine.order) {
        compare(mine.positions[item], python.positions[item]);
      }
    }
    return worst;
  };

  return { look, why, cellOf, difference, titles: asset.titles, side };
};
