// The answers of the report: filter, sort, mark differences. All text comes from a JSON block and is set as text,
// never as HTML, so that nothing in an answer can act. Without this script the first answers stand in the page.
(() => {
  const block = document.getElementById("answer-data");
  const root = document.getElementById("browse");
  if (!block || !root) return;
  const STEP = 20;
  const { systems, shown, items } = JSON.parse(block.textContent);
  const visible = new Set(shown);
  let limit = STEP;

  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const score = (item, system) => item.answers[system]?.score ?? null;
  const gain = (item) => {
    const [before, after] = [score(item, "base"), score(item, "tuned")];
    return before === null || after === null ? null : after - before;
  };
  const words = (text) => text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  const any = (test) => (item) => systems.some((name) => item.answers[name] && test(item.answers[name]));
  const filters = {
    "all questions": () => true,
    "tuned better than base": (item) => (gain(item) ?? 0) > 0,
    "tuned worse than base": (item) => (gain(item) ?? 0) < 0,
    "unanswered, unparsed or failed": any((answer) => answer.status !== "scored"),
    "cut off": any((answer) => answer.finish === "length"),
    "with a near neighbour in training": (item) => item.near === true,
    "without a near neighbour in training": (item) => item.near === false,
  };
  // Ascending; what was not measured comes last.
  const by = (value) => (a, b) => {
    const [one, two] = [value(a), value(b)];
    return one === null || two === null ? (one === null) - (two === null) : one - two;
  };
  const loss = (item) => (gain(item) === null ? null : -gain(item));
  const orders = {
    "as drawn": by((item) => item.number),
    "largest gain first": by(loss),
    "largest loss first": by(gain),
    "tuned score, lowest first": by((item) => score(item, "tuned")),
    "base score, lowest first": by((item) => score(item, "base")),
    "shortest reference first": by((item) => item.reference.length),
  };

  // Words that the reference has are marked; what is not marked is the answer's own.
  const marked = (text, reference) => {
    const known = new Set(words(reference).filter((word) => word.length > 3));
    const box = make("div", "text");
    box.dir = "auto";
    for (const part of text.split(/([\p{L}\p{N}]+)/u)) {
      if (known.has(part.toLowerCase())) box.append(make("mark", "", part));
      else box.append(part);
    }
    return box;
  };
  const answerOf = (name, answer, reference) => {
    const section = make("section", `answer ${name}`);
    const header = make("header");
    header.append(make("b", "", name));
    if (answer.score !== null) header.append(` · ROUGE-L ${answer.score.toFixed(3)}`);
    if (answer.status !== "scored") header.append(" ", make("span", "mark", answer.status));
    if (answer.finish === "length") header.append(" ", make("span", "mark", "cut off"));
    section.append(header, marked(answer.text, reference));
    return section;
  };
  const card = (item) => {
    const article = make("article", "card");
    const title = make("b", "", `${item.number}. ${item.question}`);
    title.dir = "auto";
    const grid = make("div", "answers");
    const reference = make("section", "answer");
    const header = make("header");
    header.append(make("b", "", "reference"));
    const body = make("div", "text", item.reference);
    body.dir = "auto";
    reference.append(header, body);
    grid.append(reference);
    for (const name of systems) {
      if (visible.has(name) && item.answers[name]) grid.append(answerOf(name, item.answers[name], item.reference));
    }
    article.append(title, grid);
    return article;
  };

  const select = (label, options) => {
    const box = make("select");
    box.setAttribute("aria-label", label);
    for (const option of Object.keys(options)) box.append(make("option", "", option));
    return box;
  };
  const search = make("input");
  search.type = "search";
  search.placeholder = "Search questions and answers";
  search.setAttribute("aria-label", "Search questions and answers");
  const filter = select("Show", filters);
  const order = select("Order", orders);
  const count = make("span", "muted");
  count.setAttribute("role", "status");
  const list = make("div");
  const more = make("button", "", "Show more");
  more.type = "button";

  const draw = () => {
    const wanted = search.value.trim().toLowerCase();
    const found = items
      .filter(filters[filter.value])
      .filter((item) => !wanted || textOf(item).includes(wanted))
      .sort(orders[order.value]);
    list.replaceChildren(...found.slice(0, limit).map(card));
    count.textContent = `${Math.min(limit, found.length)} of ${found.length} questions`;
    more.hidden = limit >= found.length;
  };
  const textOf = (item) =>
    [item.question, item.reference, ...[...visible].map((name) => item.answers[name]?.text ?? "")].join("\n").toLowerCase();
  const restart = () => {
    limit = STEP;
    draw();
  };
  search.addEventListener("input", restart);
  filter.addEventListener("change", restart);
  order.addEventListener("change", restart);
  more.addEventListener("click", () => {
    limit += STEP;
    draw();
  });
  const controls = make("div", "controls");
  controls.append(search, filter, order);
  for (const name of systems) {
    const label = make("label");
    const box = make("input");
    box.type = "checkbox";
    box.checked = visible.has(name);
    box.addEventListener("change", () => {
      if (box.checked) visible.add(name);
      else visible.delete(name);
      draw();
    });
    label.append(box, ` ${name}`);
    controls.append(label);
  }
  controls.append(count);
  root.replaceChildren(controls, list, more);
  document.getElementById("answers-plain")?.remove();
  draw();
})();
