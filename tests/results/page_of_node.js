// Runs compare.js on the JSON of a page, picks each pair of rows, and prints what the page shows. A few lines stand in for a browser.
const fs = require("fs");
const [, , script, json] = process.argv;

class Element {
  children = [];
  listeners = {};
  text = "";
  get textContent() { return this.text + this.children.map((child) => child.textContent).join("\n"); }
  set textContent(text) { this.text = text; }
  append(...added) { this.children.push(...added); }
  replaceChildren(...added) { this.children = added; this.picked = undefined; }
  addEventListener(name, listener) { this.listeners[name] = listener; }
  get value() { return this.picked ?? String((this.children.find((option) => option.selected) ?? this.children[0])?.own ?? ""); }
  set value(value) { this.own = this.picked = value; }
  pick(value) { this.picked = value; this.listeners.change(); }
}

const elements = Object.fromEntries(["pairs", "compare-first", "compare-second", "compare-result"].map((id) => [id, new Element()]));
elements.pairs.textContent = fs.readFileSync(json, "utf8");
globalThis.document = { getElementById: (id) => elements[id], createElement: () => new Element() };
new Function(fs.readFileSync(script, "utf8"))();

const shown = [];
const [first, second] = [elements["compare-first"], elements["compare-second"]];
const names = (select) => select.children.map((option) => String(option.own));
for (const i of names(first)) {
  first.pick(i);
  for (const j of names(second)) {
    second.pick(j);
    const [sentence, frame] = elements["compare-result"].children;
    const rows = frame.children[0].children.flatMap((part) => part.children).map((row) => row.children.map((cell) => cell.textContent));
    shown.push({ first: first.value, second: second.value, sentence: sentence.textContent, rows });
  }
}
console.log(JSON.stringify(shown));
