// The drawing surface. Its value is the JSON of view.canvas: a tumour as bits, side x side, and what lies
// behind it. A stroke is drawn here at once and sent when the pointer is lifted.
const board = element.querySelector("canvas.board");
const ring = element.querySelector(".ring");
const width = element.querySelector("input.width");
const draw = board.getContext("2d");
const layer = document.createElement("canvas");  // the tumour, one pixel for one
const anatomy = new Image();
let side = 1, bits = new Uint8Array(1), colour = "#ffffff", stroke = 0, before = [], last = null, erase = false;

function unpacked(text) {
  const bytes = atob(text), result = new Uint8Array(side * side);
  for (let i = 0; i < result.length; i++) result[i] = bytes.charCodeAt(i >> 3) >> (7 - (i & 7)) & 1;
  return result;
}

function packed() {
  const bytes = new Uint8Array(Math.ceil(bits.length / 8));
  for (let i = 0; i < bits.length; i++) bytes[i >> 3] |= bits[i] << (7 - (i & 7));
  return btoa(String.fromCharCode(...bytes));
}

function paint() {
  const picture = new ImageData(side, side);
  const rgb = [1, 3, 5].map(i => parseInt(colour.slice(i, i + 2), 16));
  for (let i = 0; i < bits.length; i++) if (bits[i]) picture.data.set([...rgb, 255], 4 * i);
  layer.width = layer.height = side;
  layer.getContext("2d").putImageData(picture, 0, 0);
  draw.imageSmoothingQuality = "high";
  draw.clearRect(0, 0, board.width, board.height);
  if (anatomy.complete && anatomy.naturalWidth) draw.drawImage(anatomy, 0, 0, board.width, board.height);
  draw.globalAlpha = 0.85;
  draw.drawImage(layer, 0, 0, board.width, board.height);
  draw.globalAlpha = 1;
}

function receive() {
  const given = JSON.parse(props.value);
  if (last || given.stroke < stroke) return;  // an answer to a stroke before the last one
  side = given.side;
  colour = given.colour;
  bits = unpacked(given.shown);
  if (anatomy.src !== given.anatomy) before = [];  // another head
  anatomy.onload = paint;
  anatomy.src = given.anatomy;
  element.querySelector(".undo").disabled = !before.length;
  element.querySelector(".clear").disabled = !bits.some(bit => bit);
}

function send() {
  stroke++;
  const value = JSON.parse(props.value);
  value.drawn = value.shown = packed();
  value.stroke = stroke;
  props.value = JSON.stringify(value);
  trigger("input");
}

function remember() {
  before.push(bits.slice());
  if (before.length > 40) before.shift();
}

function place(event) {
  const box = board.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width * side, (event.clientY - box.top) / box.height * side];
}

function dab(x, y) {
  const radius = width.value / 200 * side;
  for (let row = Math.max(0, Math.floor(y - radius)); row < Math.min(side, y + radius); row++)
    for (let column = Math.max(0, Math.floor(x - radius)); column < Math.min(side, x + radius); column++)
      if ((column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2 <= radius ** 2) bits[row * side + column] = erase ? 0 : 1;
}

function follow(event) {
  const [x, y] = place(event), steps = Math.ceil(Math.hypot(x - last[0], y - last[1])) || 1;
  for (let i = 1; i <= steps; i++) dab(last[0] + (x - last[0]) * i / steps, last[1] + (y - last[1]) * i / steps);
  last = [x, y];
  paint();
}

function hover(event) {
  const box = board.getBoundingClientRect();
  ring.style.width = ring.style.height = width.value / 100 * box.width + "px";
  ring.style.left = event.clientX - box.left + "px";
  ring.style.top = event.clientY - box.top + "px";
  ring.hidden = event.pointerType === "touch";
}

board.addEventListener("pointerdown", event => {
  if (event.button) return;
  board.setPointerCapture(event.pointerId);
  remember();
  last = place(event);
  follow(event);
});
board.addEventListener("pointermove", event => {
  hover(event);
  if (last) follow(event);
});
for (const end of ["pointerup", "pointercancel"])
  board.addEventListener(end, () => {
    if (!last) return;
    last = null;
    send();
  });
board.addEventListener("pointerleave", () => { ring.hidden = true; });
for (const tool of element.querySelectorAll("button[data-tool]"))
  tool.addEventListener("click", () => {
    erase = tool.dataset.tool === "erase";
    for (const other of element.querySelectorAll("button[data-tool]"))
      other.setAttribute("aria-pressed", String(other === tool));
  });
element.querySelector(".undo").addEventListener("click", () => {
  if (!before.length) return;
  bits = before.pop();
  paint();
  send();
});
element.querySelector(".clear").addEventListener("click", () => {
  remember();
  bits = new Uint8Array(side * side);
  paint();
  send();
});
watch("value", receive);
receive();
