"use strict";
(() => {
  const colour = (text) =>
    getComputedStyle(document.documentElement).getPropertyValue(text.slice(4, -1)).trim();
  const themed = (key, value) =>
    /colou?r$/.test(key) && typeof value === "string" && value.startsWith("var(--") ? colour(value) : value;
  const places = [...document.querySelectorAll(".plot")];
  const draw = (place) => {
    const figure = JSON.parse(place.nextElementSibling.textContent, themed);
    Plotly.react(place, figure.data, figure.layout, { displayModeBar: false, responsive: true });
  };
  const drawAll = () => places.forEach(draw);
  const drawNext = (index) => {
    if (index === places.length) return;
    draw(places[index]);
    setTimeout(drawNext, 0, index + 1);
  };
  drawNext(0);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  const print = (on) => {
    document.documentElement.classList.toggle("printing", on);
    document.querySelectorAll("details").forEach((details) => {
      if (on) details.dataset.open = details.open;
      details.open = on ? details.open || details.classList.contains("print") : details.dataset.open === "true";
    });
    drawAll();
  };
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
})();
