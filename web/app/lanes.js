// @ts-check
// Lanes of blocks on a canvas that is as large as what can be seen of it, however many lanes there are.

import { time } from "./format.js";

/** @typedef {import("./blocks.js").Block} Block */
/** @typedef {{title: string, res: string, rows: Block[][], height: number, top: number}} Lane */

const rowHeight = 10, titleHeight = 18, gap = 6, axis = 22, mostRows = 12;
const colours = ["#7fb3d5", "#5dade2", "#48c9b0", "#52be80", "#f5b041", "#dc7633", "#a569bd"];

/**
 * layOut makes lanes of blocks that are sorted by time: one for each stream and resolution, in which blocks that
 * overlap are below each other.
 * @param {Block[]} blocks
 * @returns {Lane[]}
 */
export function layOut(blocks) {
  /** @type {Map<Block["stream"], Map<number, Block[][]>>} */
  const streams = new Map();
  for (const b of blocks) {
    let resolutions = streams.get(b.stream);
    if (!resolutions) streams.set(b.stream, (resolutions = new Map()));
    let rows = resolutions.get(b.res);
    if (!rows) resolutions.set(b.res, (rows = []));
    let row = rows.find((r) => r[r.length - 1].max <= b.min);
    if (!row && rows.length < mostRows) rows.push((row = []));
    (row ?? rows[mostRows - 1]).push(b);
  }
  /** @type {Lane[]} */
  const lanes = [];
  const order = [...streams.keys()].sort((a, b) => (a.group < b.group ? -1 : a.group > b.group ? 1 : a.text < b.text ? -1 : 1));
  for (const stream of order) {
    const resolutions = /** @type {Map<number, Block[][]>} */ (streams.get(stream));
    for (const res of [...resolutions.keys()].sort((a, b) => a - b)) {
      const rows = /** @type {Block[][]} */ (resolutions.get(res));
      lanes.push({ title: stream.text, res: res ? `${res / 60000}m` : "raw", rows, top: 0, height: titleHeight + rows.length * rowHeight + gap });
    }
  }
  let top = axis;
  for (const lane of lanes) {
    lane.top = top;
    top += lane.height;
  }
  return lanes;
}

/** firstAfter is the first index of row whose block ends after t. */
export function firstAfter(/** @type {Block[]} */ row, /** @type {number} */ t) {
  let low = 0, high = row.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (row[middle].max > t) high = middle;
    else low = middle + 1;
  }
  return low;
}

export class Lanes {
  /**
   * @param {HTMLElement} box the element that scrolls
   * @param {HTMLElement} space what makes it as high as all lanes
   * @param {HTMLCanvasElement} canvas
   * @param {(b: Block|undefined) => void} picked
   * @param {(from: number, until: number) => void} zoomed
   */
  constructor(box, space, canvas, picked, zoomed) {
    this.box = box, this.space = space, this.canvas = canvas, this.picked = picked, this.zoomed = zoomed;
    /** @type {Lane[]} */
    this.lanes = [];
    this.from = 0, this.until = 1, this.first = 0, this.last = 1, this.wanted = false;
    /** @type {{x: number, to: number}|undefined} */
    this.drag = undefined;
    box.addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(box);
    canvas.addEventListener("wheel", (e) => {
      if (!e.ctrlKey) return;
      e.preventDefault();
      const at = this.timeAt(e.offsetX), by = e.deltaY > 0 ? 1.3 : 1 / 1.3;
      this.zoom(at - (at - this.from) * by, at + (this.until - at) * by);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (e) => { this.drag = { x: e.offsetX, to: e.offsetX }; });
    canvas.addEventListener("pointermove", (e) => {
      if (!this.drag) return;
      this.drag.to = e.offsetX;
      this.draw();
    });
    canvas.addEventListener("pointerup", (e) => {
      const d = this.drag;
      this.drag = undefined;
      if (d && Math.abs(e.offsetX - d.x) > 4) this.zoom(this.timeAt(Math.min(d.x, e.offsetX)), this.timeAt(Math.max(d.x, e.offsetX)));
      else this.picked(this.blockAt(e.offsetX, e.offsetY));
    });
    canvas.addEventListener("pointerleave", () => { this.drag = undefined; });
  }

  /** set shows blocks, sorted by time. The time that is shown stays, if there is one. */
  set(/** @type {Block[]} */ blocks) {
    const all = this.from === this.first && this.until === this.last;
    this.lanes = layOut(blocks);
    this.first = blocks.length ? blocks[0].min : 0;
    this.last = blocks.reduce((t, b) => Math.max(t, b.max), this.first + 1);
    const bottom = this.lanes.at(-1);
    this.space.style.height = `${bottom ? bottom.top + bottom.height : 60}px`;
    if (all) this.zoomOut();
    else this.draw();
  }

  zoomOut() { this.zoom(this.first, this.last); }

  zoom(/** @type {number} */ from, /** @type {number} */ until) {
    this.from = Math.max(this.first, from), this.until = Math.min(this.last, until);
    if (this.until - this.from < 1000) this.until = this.from + 1000;
    this.zoomed(this.from, this.until);
    this.draw();
  }

  timeAt(/** @type {number} */ x) { return this.from + (x / this.canvas.clientWidth) * (this.until - this.from); }

  /** visible is the index of the first lane that ends below y. */
  visible(/** @type {number} */ y) {
    let low = 0, high = this.lanes.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.lanes[middle].top + this.lanes[middle].height > y) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  blockAt(/** @type {number} */ x, /** @type {number} */ y) {
    const lane = this.lanes[this.visible(y + this.box.scrollTop)];
    if (!lane || y < axis) return undefined;
    const row = lane.rows[Math.floor((y + this.box.scrollTop - lane.top - titleHeight) / rowHeight)];
    const t = this.timeAt(x), b = row?.[firstAfter(row, t)];
    return b && b.min <= this.timeAt(x + 2) ? b : undefined;
  }

  /** draw draws what can be seen, once per frame. */
  draw() {
    if (this.wanted) return;
    this.wanted = true;
    requestAnimationFrame(() => {
      this.wanted = false;
      this.paint();
    });
  }

  paint() {
    const { canvas, box } = this, scale = devicePixelRatio || 1, width = box.clientWidth, height = box.clientHeight;
    canvas.style.height = `${height}px`;
    canvas.style.width = `${width}px`;
    canvas.width = width * scale, canvas.height = height * scale;
    const g = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d")), style = getComputedStyle(box);
    g.scale(scale, scale);
    g.font = "12px system-ui, sans-serif";
    const x = (/** @type {number} */ t) => ((t - this.from) / (this.until - this.from)) * width;
    for (let i = this.visible(box.scrollTop); i < this.lanes.length; i++) {
      const lane = this.lanes[i], top = lane.top - box.scrollTop;
      if (top > height) break;
      g.fillStyle = style.color;
      g.fillText(`${lane.res}  ${lane.title}`.slice(0, 300), 4, top + 13);
      lane.rows.forEach((row, r) => this.paintRow(g, row, top + titleHeight + r * rowHeight, x));
    }
    g.fillStyle = style.backgroundColor;
    g.fillRect(0, 0, width, axis);
    g.fillStyle = style.color;
    for (let px = 0; px < width; px += 170) {
      g.fillText(time(new Date(this.timeAt(px))).slice(0, 16), px + 4, 14);
      g.fillRect(px, 0, 1, axis);
    }
    if (this.drag) {
      g.fillStyle = "#8884";
      g.fillRect(Math.min(this.drag.x, this.drag.to), 0, Math.abs(this.drag.to - this.drag.x), height);
    }
  }

  /**
   * paintRow draws the blocks of a row that can be seen. Those that end in a pixel that is drawn already are passed over.
   * @param {CanvasRenderingContext2D} g
   * @param {Block[]} row
   * @param {number} top
   * @param {(t: number) => number} x
   */
  paintRow(g, row, top, x) {
    let drawn = -1;
    for (let i = firstAfter(row, this.from); i < row.length && row[i].min < this.until; i++) {
      const b = row[i], left = x(b.min), right = Math.max(left + 1, x(b.max) - 1);
      if (right <= drawn && !b.marks) continue;
      drawn = Math.floor(right) + 1;
      g.fillStyle = colours[Math.min(Math.max(b.level, 1), colours.length) - 1];
      g.fillRect(left, top, right - left, rowHeight - 2);
      if (b.marks & 7) {
        g.fillStyle = b.marks & 1 ? "#c92a2a" : "#b38600";
        g.fillRect(left, top + rowHeight - 5, right - left, 3);
      }
    }
  }
}
