"use strict";
(() => {
  // Tables that are sorted by the headings of their columns.
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const key = (row, column) => {
      const cell = row.cells[column];
      return cell.dataset.value === undefined ? cell.textContent.trim().toLowerCase() : Number(cell.dataset.value);
    };
    for (const button of table.tHead.querySelectorAll("button")) {
      button.addEventListener("click", () => {
        const head = button.closest("th");
        const first = head.dataset.first || "descending";
        const other = first === "descending" ? "ascending" : "descending";
        const order = head.getAttribute("aria-sort") === first ? other : first;
        for (const each of table.tHead.querySelectorAll("th")) each.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const rows = [...body.rows].map((row) => [key(row, head.cellIndex), row]);
        rows.sort(([a], [b]) => (a < b ? -sign : a > b ? sign : 0));
        body.append(...rows.map(([, row]) => row));
      });
    }
  }

  const gallery = document.getElementById("gallery");
  if (!gallery) return;
  const root = document.documentElement.style;
  const cards = [...gallery.querySelectorAll(".grid .card")];
  const viewer = document.getElementById("viewer");
  const hover = document.getElementById("hover");
  const classes = JSON.parse(document.getElementById("labels").textContent);
  const find = (selector) => gallery.querySelector(selector);
  find(".controls").hidden = false;

  // Sliders: those of the gallery and of the enlargement have the same values.
  let opacity = 55;
  const setOpacity = (value) => {
    for (const input of gallery.querySelectorAll(".opacity")) input.value = value;
    root.setProperty("--opacity", value / 100);
  };
  const setSplit = (value) => {
    for (const input of gallery.querySelectorAll(".split")) input.value = value;
    root.setProperty("--split", `${value}%`);
    gallery.classList.toggle("splitting", value > 0 && value < 100);
    gallery.classList.toggle("comparing", value > 0);
  };
  for (const input of gallery.querySelectorAll(".opacity")) input.addEventListener("input", () => setOpacity(input.value));
  for (const input of gallery.querySelectorAll(".split")) input.addEventListener("input", () => setSplit(input.value));
  setOpacity(opacity);
  setSplit(0);

  // Filters.
  const byClass = find(".by-class"), byConfidence = find(".by-confidence"), byError = find(".by-error"), byMasks = find(".by-masks");
  const shownCards = () => cards.filter((card) => !card.hidden);
  const filter = () => {
    const limit = Number(byConfidence.value) / 100;
    byConfidence.nextElementSibling.value = limit.toFixed(2);
    for (const card of cards) {
      const { classes: ids, confidence, error } = card.dataset;
      const hasClass = byClass.value === "" || ids.split(" ").includes(byClass.value);
      const isUnsure = limit === 1 || (confidence !== undefined && Number(confidence) <= limit);
      const wanted = byError ? byError.value : "";
      const hasError = wanted === "" || (wanted === "none" ? error === "" : error === wanted);
      const hasMasks = !byMasks?.checked || card.querySelector(".mask.right") !== null;
      card.hidden = !(hasClass && isUnsure && hasError && hasMasks);
    }
    find(".shown").value = `${shownCards().length} of ${cards.length} shown`;
  };
  for (const input of [byClass, byConfidence, byError, byMasks]) input?.addEventListener("input", filter);
  filter();

  // Enlargement.
  let current = null;
  const show = (card) => {
    current = card;
    const copy = card.cloneNode(true);
    copy.removeAttribute("tabindex");
    for (const image of copy.querySelectorAll("img")) image.loading = "eager";
    viewer.querySelector(".body").replaceChildren(copy);
    for (const input of viewer.querySelectorAll(".split")) input.disabled = !copy.querySelector(".mask.right");
    if (!viewer.open) viewer.showModal();
  };
  const step = (by) => {
    const shown = shownCards();
    if (!shown.length) return;
    const from = shown.indexOf(viewer.open ? current : document.activeElement);
    const card = from < 0 ? shown[0] : shown[Math.max(0, Math.min(shown.length - 1, from + by))];
    if (viewer.open) show(card);
    card.focus({ preventScroll: viewer.open });
    if (!viewer.open) card.scrollIntoView({ block: "center" });
  };
  viewer.addEventListener("close", () => current?.focus());
  viewer.addEventListener("click", (event) => event.target === viewer && viewer.close());
  viewer.querySelector(".close").addEventListener("click", () => viewer.close());
  viewer.querySelector(".next").addEventListener("click", () => step(1));
  viewer.querySelector(".previous").addEventListener("click", () => step(-1));
  for (const card of cards) card.addEventListener("click", () => show(card));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
    if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "m") {
      const value = Number(find(".opacity").value);
      if (value) opacity = value;
      setOpacity(value ? 0 : opacity);
    } else if (event.key === "Enter" && cards.includes(document.activeElement)) show(document.activeElement);
    else return;
    event.preventDefault();
  });

  // The class below the pointer: read from the mask that is shown there.
  const names = new Map();
  classes.colors.forEach((color, id) => {
    if (id !== classes.background) names.set(String(color), [...(names.get(String(color)) || []), `${classes.names[id]} (${id})`]);
  });
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d", { willReadFrequently: true });
  let drawn = null;
  const classAt = (image, x, y) => {
    if (!image.complete || !image.naturalWidth) return "";
    if (drawn !== image) {
      canvas.width = image.naturalWidth;
      canvas.height = image.naturalHeight;
      context.drawImage(image, 0, 0);
      drawn = image;
    }
    const box = image.getBoundingClientRect();
    const scale = Math.min(box.width / canvas.width, box.height / canvas.height);
    const column = Math.floor((x - box.left - (box.width - canvas.width * scale) / 2) / scale);
    const row = Math.floor((y - box.top - (box.height - canvas.height * scale) / 2) / scale);
    if (column < 0 || row < 0 || column >= canvas.width || row >= canvas.height) return "";
    for (const [dx, dy] of [[0, 0], [1, 0], [0, 1], [1, 1], [-1, 0], [0, -1]]) {
      const [red, green, blue, alpha] = context.getImageData(column + dx, row + dy, 1, 1).data;
      if (alpha === 255) return (names.get(`${red},${green},${blue}`) || []).join(" or ");
      if (alpha === 0 && column + dx >= 0 && row + dy >= 0 && column + dx < canvas.width && row + dy < canvas.height) {
        return classes.background === null ? "" : `${classes.names[classes.background]} (${classes.background})`;
      } // otherwise an outline: its neighbors have the class
    }
    return "";
  };
  gallery.addEventListener("pointermove", (event) => {
    const stage = event.target.closest(".stage");
    let text = "";
    if (stage) {
      const box = stage.getBoundingClientRect();
      const isRight = event.clientX - box.left < box.width * parseFloat(root.getPropertyValue("--split")) / 100;
      const mask = stage.querySelector(".mask.only") || stage.querySelector(isRight ? ".mask.right" : ".mask.left");
      if (mask) text = classAt(mask, event.clientX, event.clientY);
    }
    hover.hidden = text === "";
    if (!text) return;
    hover.textContent = text;
    (viewer.open ? viewer : gallery).append(hover);
    hover.style.left = `${Math.max(0, Math.min(event.clientX + 14, innerWidth - hover.offsetWidth - 8))}px`;
    hover.style.top = `${event.clientY + 18}px`;
  });
  gallery.addEventListener("pointerleave", () => (hover.hidden = true));
})();
