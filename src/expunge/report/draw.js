"use strict";
(async () => {
  const root = document.documentElement;
  const places = [...document.querySelectorAll(".plot")];
  const unpack = async (base64) => {
    const packed = atob(base64);
    const bytes = new Uint8Array(packed.length); // two million: a callback for each takes a third of a second
    for (let place = 0; place < packed.length; place++) bytes[place] = packed.charCodeAt(place);
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };
  const colour = (text) => getComputedStyle(root).getPropertyValue(text.slice(4, -1)).trim();
  const themed = (key, value) =>
    /colou?r$/.test(key) && typeof value === "string" && value.startsWith("var(--") ? colour(value) : value;
  const draw = (place) => {
    const { data, layout } = JSON.parse(place.nextElementSibling.textContent, themed);
    if (root.classList.contains("printing")) {
      layout.height = Math.round(layout.height * 0.7);
      layout.width = place.clientWidth;
      layout.font.size = 10;
    }
    return Plotly.react(place, data, layout, { displayModeBar: false, responsive: true });
  };
  const drawAll = () => places.forEach(draw);
  const folded = (place) => place.closest("details:not([open])") !== null;
  const drawEach = async (chosen) => {
    for (const place of chosen) {
      await draw(place);
      await new Promise((next) => setTimeout(next));
    }
  };

  // an open frame keeps the page from counting as loaded: what prints it at once must find its charts
  const hold = Object.assign(document.createElement("iframe"), { hidden: true });
  document.body.append(hold);
  hold.contentDocument.open();
  const letGo = () => {
    hold.contentDocument.close();
    hold.remove();
  };

  // the words are on the screen before the charts are begun
  await new Promise((next) => requestAnimationFrame(() => setTimeout(next)));
  try {
    const script = document.createElement("script");
    script.textContent = await unpack(document.getElementById("plotly").textContent);
    document.head.append(script);
  } catch (error) {
    places.forEach((place) => (place.textContent = `No chart in this browser (${error}); the numbers are in the table.`));
    letGo();
    return;
  }
  const print = (on) => {
    root.classList.toggle("printing", on);
    document.querySelectorAll("details").forEach((details) => {
      if (on) details.dataset.open = details.open;
      details.open = on ? details.open || details.classList.contains("print") : details.dataset.open === "true";
    });
    drawAll();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  try {
    await drawEach(places.filter((place) => !folded(place)));
  } finally {
    letGo();
  }
  // what was drawn while it was folded away has no width yet
  document.querySelectorAll("details.fold").forEach((details) =>
    details.addEventListener("toggle", () => details.open && details.querySelectorAll(".plot").forEach(draw)),
  );
  // one row is the same point in every map; what a map shows because another asked for it asks no further
  const linked = places.filter((place) => place.classList.contains("linked"));
  let asking = false;
  const others = (place, act) => {
    if (asking) return;
    asking = true;
    linked.filter((other) => other !== place).forEach(act);
    asking = false;
  };
  linked.forEach((place) => {
    place.on("plotly_hover", ({ points }) => {
      const same = points.map(({ curveNumber, pointNumber }) => ({ curveNumber, pointNumber }));
      others(place, (other) => Plotly.Fx.hover(other, same));
    });
    place.on("plotly_unhover", () => others(place, (other) => Plotly.Fx.unhover(other)));
  });
  await drawEach(places.filter(folded));
})();
