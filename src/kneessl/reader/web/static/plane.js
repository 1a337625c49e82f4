// One plane: its slices on a canvas, the heat over them, and the strip of evidence to go through them by.

import { make } from "./dom.js";
import { title } from "./words.js";

export const SIDE = 256;
const PIXELS = SIDE * SIDE;
const WINDOW = { width: 255, level: 127.5 };
const FOR = [0xd9, 0x73, 0x0d]; // as the reports have them
const AGAINST = [0x2f, 0x7f, 0xd6];
const OPPOSITE = { L: "R", R: "L", A: "P", P: "A", S: "I", I: "S" };
const BAR_MM = 50;
const WHEEL_STEP = 60; // a mouse's notch gives 100 or more at once, a touch pad a little at a time
const TOUCH_STEP = 12; // CSS pixels of a finger's way from slice to slice

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** A pixel as canvases have it in memory on all machines that browsers run on: red first. */
const colour = (red, green, blue, alpha) => ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;

function surface() {
  const canvas = new OffscreenCanvas(SIDE, SIDE);
  const context = canvas.getContext("2d");
  const image = context.createImageData(SIDE, SIDE);
  return { canvas, context, image, pixels: new Uint32Array(image.data.buffer) };
}

export class PlaneView {
  /** `facts` as in `result.json`; `directions` such as "LIP"; `onActive` hears when this plane is worked with. */
  constructor(plane, facts, directions, onActive) {
    this.plane = plane;
    this.count = facts.slices;
    this.index = Math.floor(this.count / 2);
    this.grey = surface();
    this.warm = surface();
    this.heat = null;
    this.opacity = 0;
    this.keys = [];
    this.slices = null;
    this.pending = false;
    this.wheel = 0;
    this.build(facts, directions);
    this.listen(onActive);
    this.resetWindow();
  }

  build(facts, [, down, right]) {
    const corner = (place, ...children) => make("span", { class: `corner ${place}` }, ...children);
    const edge = (place, letter) => make("span", { class: `edge ${place}` }, letter);
    this.canvas = make("canvas", {
      tabindex: 0, role: "slider", "aria-orientation": "vertical",
      "aria-label": `${title(this.plane)} slices`, "aria-valuemin": 1, "aria-valuemax": this.count,
    });
    this.where = make("output", { class: "where" });
    this.windowText = corner("bottom left");
    const bar = make("span", { class: "ruler" });
    bar.style.width = `${(100 * BAR_MM) / (facts.pixel_mm * SIDE)}%`;
    this.strip = make("canvas", { class: "strip", "aria-hidden": "true" });
    const step = (by, word, sign) => make("button", {
      type: "button", class: "step", "aria-label": `${word} ${this.plane} slice`, click: () => this.go(this.index + by),
    }, sign);
    this.root = make(
      "section", { class: "plane", "data-plane": this.plane, "aria-label": `${title(this.plane)} plane` },
      make(
        "div", { class: "screen" }, this.canvas,
        make("div", { class: "over", "aria-hidden": "true" },
          corner("top left", title(this.plane)), corner("top right", this.where), this.windowText,
          bar, corner("bottom right", `${BAR_MM} mm`),
          edge("up", OPPOSITE[down]), edge("down", down), edge("left", OPPOSITE[right]), edge("right", right)),
      ),
      make("div", { class: "steps-bar" }, step(-1, "Previous", "◀"), this.strip, step(1, "Next", "▶")),
    );
    new ResizeObserver(() => this.redraw()).observe(this.canvas);
  }

  setSlices(bytes) {
    this.slices = bytes;
    this.redraw();
  }

  /** int8 of a finding, or null; `keys` are its key slices, from 0, with their numbers. */
  setHeat(bytes, keys) {
    this.heat = bytes;
    this.keys = keys;
    this.evidence = bytes ? perSlice(bytes, this.count) : null;
    this.redraw();
  }

  /** 0 to 1: how dense the strongest heat is. */
  setOpacity(opacity) {
    this.opacity = opacity;
    this.redraw();
  }

  go(index) {
    this.index = clamp(Math.round(index), 0, this.count - 1);
    this.redraw();
  }

  resetWindow() {
    this.setWindow(WINDOW.width, WINDOW.level);
  }

  /** Grey values are stretched so that those from level - width / 2 to level + width / 2 fill black to white. */
  setWindow(width, level) {
    this.width = clamp(width, 4, 512);
    this.level = clamp(level, 0, 255);
    this.redraw();
  }

  /** Change the window as a drag of so many screen pixels does. */
  drag(dx, dy) {
    const scale = 300 / Math.max(this.canvas.clientWidth, 1);
    this.setWindow(this.width + dx * scale, this.level + dy * scale);
  }

  listen(onActive) {
    const active = () => onActive(this);
    const points = new Map();
    let travelled = 0;
    this.canvas.addEventListener("focus", active);
    this.canvas.addEventListener("wheel", (event) => {
      if (event.ctrlKey) return; // the browser's own zoom
      event.preventDefault();
      this.turn(event.deltaMode ? event.deltaY * WHEEL_STEP : event.deltaY);
      active();
    }, { passive: false });
    this.canvas.addEventListener("dblclick", () => this.resetWindow());
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.focus({ preventScroll: true });
      this.canvas.setPointerCapture(event.pointerId);
      points.set(event.pointerId, event);
      travelled = 0;
    });
    this.canvas.addEventListener("pointermove", (event) => {
      const before = points.get(event.pointerId);
      if (!before) return;
      const [dx, dy] = [event.clientX - before.clientX, event.clientY - before.clientY];
      points.set(event.pointerId, event);
      if (event.pointerType !== "touch" || points.size > 1) {
        this.drag(dx / points.size, dy / points.size);
      } else {
        travelled += dy;
        const steps = Math.trunc(travelled / TOUCH_STEP);
        travelled -= steps * TOUCH_STEP;
        this.go(this.index + steps);
      }
    });
    for (const end of ["pointerup", "pointercancel"]) {
      this.canvas.addEventListener(end, (event) => points.delete(event.pointerId));
    }
    const point = (event) => {
      if (!event.buttons) return;
      const box = this.strip.getBoundingClientRect();
      this.go(Math.floor(((event.clientX - box.left) / box.width) * this.count));
      active();
    };
    this.strip.addEventListener("pointerdown", (event) => { this.strip.setPointerCapture(event.pointerId); point(event); });
    this.strip.addEventListener("pointermove", point);
  }

  turn(distance) {
    this.wheel += distance;
    if (Math.abs(this.wheel) < WHEEL_STEP) return;
    this.go(this.index + Math.sign(this.wheel));
    this.wheel = 0;
  }

  redraw() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.tell();
      this.paint();
      this.paintStrip();
    });
  }

  tell() {
    const text = `${this.index + 1} / ${this.count}`;
    const key = this.keys.find((one) => one.index === this.index);
    const spoken = `slice ${this.index + 1} of ${this.count}${key ? `, key slice ${key.number}` : ""}`;
    this.where.textContent = key ? `key ${key.number} · ${text}` : text;
    this.windowText.textContent = `W ${Math.round(this.width)} L ${Math.round(this.level)}`;
    this.canvas.setAttribute("aria-valuenow", this.index + 1);
    this.canvas.setAttribute("aria-valuetext", spoken);
  }

  paint() {
    const side = Math.round(this.canvas.clientWidth * devicePixelRatio);
    if (!this.slices || !side) return;
    if (this.canvas.width !== side) this.canvas.width = this.canvas.height = side;
    const context = this.canvas.getContext("2d");
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "low"; // bilinear
    const from = this.index * PIXELS;
    blit(this.grey, this.slices.subarray(from, from + PIXELS), greyTable(this.width, this.level));
    context.drawImage(this.grey.canvas, 0, 0, side, side);
    if (!this.heat || !this.opacity) return;
    const values = new Uint8Array(this.heat.buffer, this.heat.byteOffset + from, PIXELS);
    blit(this.warm, values, heatTable(this.opacity));
    context.drawImage(this.warm.canvas, 0, 0, side, side);
  }

  paintStrip() {
    const { strip, count } = this;
    const [width, height] = [strip.clientWidth, strip.clientHeight].map((side) => Math.round(side * devicePixelRatio));
    if (!width) return;
    [strip.width, strip.height] = [width, height];
    const context = strip.getContext("2d");
    const one = width / count;
    const foot = height * 0.72;
    const bar = (index, value, room, rgb) => {
      context.fillStyle = `rgb(${rgb})`;
      context.fillRect(index * one + 0.15 * one, foot, 0.7 * one, -value * room);
    };
    context.fillStyle = "#2b2b2b";
    context.fillRect(this.index * one, 0, one, height);
    context.fillStyle = "#5c5c5c";
    context.fillRect(0, foot, width, devicePixelRatio);
    for (let index = 0; index < count && this.evidence; index += 1) {
      bar(index, this.evidence.for[index], foot - 11 * devicePixelRatio, FOR);
      bar(index, -this.evidence.against[index], height - foot, AGAINST);
    }
    context.font = `600 ${10 * devicePixelRatio}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.fillStyle = "#e8e8e8";
    for (const key of this.keys) context.fillText(key.number, (key.index + 0.5) * one, 9.5 * devicePixelRatio);
    context.fillRect(this.index * one, height - 2 * devicePixelRatio, one, 2 * devicePixelRatio);
  }
}

function blit(target, values, table) {
  const { pixels } = target;
  for (let i = 0; i < PIXELS; i += 1) pixels[i] = table[values[i]];
  target.context.putImageData(target.image, 0, 0);
}

function greyTable(width, level) {
  const low = level - width / 2;
  return Uint32Array.from({ length: 256 }, (_, value) => {
    const grey = clamp(Math.round((255 * (value - low)) / width), 0, 255);
    return colour(grey, grey, grey, 255);
  });
}

/** By the byte of an int8: -127 is 129. */
function heatTable(opacity) {
  return Uint32Array.from({ length: 256 }, (_, byte) => {
    const value = byte < 128 ? byte : byte - 256;
    const alpha = Math.round(255 * opacity * Math.min(1, Math.abs(value) / 127));
    return colour(...(value >= 0 ? FOR : AGAINST), alpha);
  });
}

/** What speaks for and against on each slice, as shares of the strongest. */
function perSlice(values, count) {
  const sums = { for: new Float64Array(count), against: new Float64Array(count) };
  for (let i = 0; i < values.length; i += 1) sums[values[i] >= 0 ? "for" : "against"][Math.floor(i / PIXELS)] += Math.abs(values[i]);
  const most = Math.max(...sums.for, ...sums.against) || 1;
  return { for: sums.for.map((sum) => sum / most), against: sums.against.map((sum) => sum / most) };
}
