// Two rows that the reader picks: their results by seed, and the sentence of the report for their difference.
{
  const picked = JSON.parse(document.getElementById("pairs").textContent);
  const selects = ["first", "second"].map((name) => document.getElementById(`compare-${name}`));

  // As the tables format numbers: four decimals, six digits of a large number, three of a small one.
  function formatted(value, signed) {
    if (value === null) return "-";
    const size = Math.abs(value);
    let digits = size.toFixed(4);
    if (size >= 1e4) digits = String(Number(size.toPrecision(6)));
    else if (size > 0 && size < 1e-3) digits = size.toExponential(2);
    return (value < 0 ? "-" : signed ? "+" : "") + digits;
  }

  // [case, mean, low, high] of the first row minus the second.
  function difference(i, j) {
    if (i < j) return picked.pairs[`${i},${j}`];
    const [name, ...ends] = picked.pairs[`${j},${i}`];
    const [mean, low, high] = ends.map((value) => (value === null ? null : -value));
    return [name, mean, high, low];
  }

  function sharedSeeds(first, second) {
    return Object.keys(first.results).filter((seed) => seed in second.results);
  }

  function sentence(i, j) {
    const [name, mean, low, high] = difference(i, j);
    const [first, second] = [picked.rows[i], picked.rows[j]];
    const n = sharedSeeds(first, second).length;
    const [better, worse] = mean > 0 === first.more ? [first, second] : [second, first];
    const [least, most] = mean > 0 || low === null ? [low, high] : [-high, -low];
    const words = {
      dataset: first.dataset,
      metric: first.metric,
      first: first.model,
      second: second.model,
      better: better.model,
      worse: worse.model,
      comparative: first.more ? "higher" : "lower",
      size: formatted(mean === null ? null : Math.abs(mean)),
      seeds: `${n} shared seed${n === 1 ? "" : "s"}`,
      interval: picked.interval,
      low: formatted(least),
      high: formatted(most),
    };
    return picked.sentences[name].replace(/\{(\w+)\}/g, (_, key) => words[key]);
  }

  // Lines of the table: each seed of either row, and the mean of the differences with its interval.
  function lines(i, j) {
    const [first, second] = [picked.rows[i], picked.rows[j]];
    const [, mean, low, high] = difference(i, j);
    const seeds = new Set([first, second].flatMap((row) => [...Object.keys(row.results), ...Object.keys(row.others)]));
    const cell = (row, seed) => (seed in row.results ? formatted(row.results[seed]) : (row.others[seed] ?? "not trained"));
    const found = [...seeds].sort((a, b) => a - b).map((seed) => {
      const values = [first.results[seed], second.results[seed]];
      const known = values.every((value) => value !== undefined && value !== null);
      return [seed, cell(first, seed), cell(second, seed), known ? formatted(values[0] - values[1], true) : "-"];
    });
    const interval = low === null ? "-" : `${formatted(low, true)} to ${formatted(high, true)}`;
    return [...found, ["mean", "", "", formatted(mean, true)], [picked.interval, "", "", interval]];
  }

  function element(name, text) {
    const made = document.createElement(name);
    made.textContent = text;
    return made;
  }

  function tableRow(cells, kind) {
    const row = document.createElement("tr");
    row.append(...cells.map((text) => element(kind, text)));
    return row;
  }

  function compare() {
    const [i, j] = selects.map((select) => Number(select.value));
    const table = document.createElement("table");
    const head = document.createElement("thead");
    const body = document.createElement("tbody");
    head.append(tableRow(["seed", picked.rows[i].model, picked.rows[j].model, "difference"], "th"));
    body.append(...lines(i, j).map((cells) => tableRow(cells, "td")));
    table.append(head, body);
    const frame = document.createElement("div");
    frame.className = "wide";
    frame.append(table);
    document.getElementById("compare-result").replaceChildren(element("p", sentence(i, j)), frame);
  }

  function options(numbers, chosen) {
    return numbers.map((number) => {
      const option = element("option", picked.rows[number].name);
      option.value = number;
      option.selected = number === chosen;
      return option;
    });
  }

  // The second list has the other rows of the first row's data set.
  function pickFirst() {
    const first = selects[0].value;
    const before = selects[1].value;
    const others = Object.keys(picked.rows).filter((k) => k !== first && picked.rows[k].dataset === picked.rows[first].dataset);
    selects[1].replaceChildren(...options(others, others.includes(before) ? before : others[0]));
    compare();
  }

  const numbers = Object.keys(picked.rows);
  selects[0].replaceChildren(...options(numbers, numbers[0]));
  selects[0].addEventListener("change", pickFirst);
  selects[1].addEventListener("change", compare);
  pickFirst();
}
