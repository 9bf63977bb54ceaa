"use strict";
// Traversals: the slider moves every direction at once; a strip shows its whole way and can be pointed at.
(async () => {
  const data = REPORT.sections.traversals;
  if (!data) return;
  const sheets = Object.fromEntries(Object.entries(data.sheets).map(([key, sheet]) => [key, loadSheet(sheet)]));
  await Promise.all(Object.values(sheets).map((sheet) => sheet.ready));
  const slider = document.getElementById("walk-slider"), walks = document.getElementById("walks");
  const state = { kind: data.kinds[0], start: 0, cards: [] };

  function move(card, step) {
    paint(card.face, sheets[state.kind.key], card.first + step);
    card.mark.style.width = `${100 / data.steps}%`;
    card.mark.style.left = `${(100 * step) / data.steps}%`;
  }

  function moveAll() {
    const step = Number(slider.value), value = data.values[step];
    document.getElementById("walk-value").textContent = `${value > 0 ? "+" : value < 0 ? "−" : ""}${Math.abs(value).toFixed(2)} σ`;
    state.cards.forEach((card) => move(card, step));
  }

  function element(tag, name, ...children) {
    const made = document.createElement(tag);
    if (name) made.className = name;
    made.append(...children);
    return made;
  }

  function rebuild() {
    const count = state.kind.directions.length;
    state.cards = state.kind.directions.map((direction, number) => {
      const first = (state.start * count + number) * data.steps;
      const face = element("canvas", "face"), steps = element("canvas", "steps"), mark = element("i");
      paint(steps, sheets[state.kind.key], first, data.steps);
      const text = element("div", "", element("strong", "", direction.name), element("span", "", direction.note));
      const card = { first, face, mark, root: element("div", "walk", element("div", "top", face, text), steps, element("div", "mark", mark)) };
      steps.addEventListener("pointermove", (event) => {
        const step = Math.floor((event.offsetX / steps.clientWidth) * data.steps);
        move(card, Math.min(data.steps - 1, Math.max(0, step)));
      });
      steps.addEventListener("pointerleave", () => move(card, Number(slider.value)));
      return card;
    });
    walks.replaceChildren(...state.cards.map((card) => card.root));
    moveAll();
  }

  slider.addEventListener("input", moveAll);
  choice("walk-kind", (key) => { state.kind = data.kinds.find((kind) => kind.key === key); rebuild(); }).choose(state.kind.key);
  choice("walk-start", (value) => { state.start = Number(value); rebuild(); }).choose("0");

  // Play goes to one end, then to the other, until it is stopped.
  const play = document.getElementById("walk-play");
  let timer = 0, forward = true;
  play.addEventListener("click", () => {
    if (timer) {
      clearInterval(timer);
      timer = 0;
    } else {
      timer = setInterval(() => {
        const step = Number(slider.value) + (forward ? 1 : -1);
        if (step <= 0 || step >= data.steps - 1) forward = !forward;
        slider.value = step;
        moveAll();
      }, 120);
    }
    play.textContent = timer ? "❚❚" : "▶";
    play.setAttribute("aria-label", timer ? "pause" : "play");
  });
})();
