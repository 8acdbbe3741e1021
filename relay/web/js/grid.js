/**
 * Where tiles go. Pure arithmetic: sizes in CSS pixels in, rectangles out.
 *
 * Tiles of a grid are equal and 16:9. On a stage that is taller than wide they may also be 4:3 or square where that
 * makes them larger: phones are held upright, and so are the cameras in them.
 */

const WIDE = [16 / 9];
const TALL = [16 / 9, 4 / 3, 1];
// A screen that is shared takes this part of the stage; faces get the rest.
const SHARE = 0.78;

/** Return {columns, rows, width, height} of the largest equal tiles for `count` on a stage of this size. */
export function bestGrid(count, stageWidth, stageHeight, gap, ratios = ratiosFor(stageWidth, stageHeight)) {
  let best = { columns: 1, rows: Math.max(1, count), width: 0, height: 0 };
  for (let columns = 1; columns <= count; columns++) {
    const rows = Math.ceil(count / columns);
    const cellWidth = (stageWidth - gap * (columns - 1)) / columns;
    const cellHeight = (stageHeight - gap * (rows - 1)) / rows;
    if (cellWidth <= 0 || cellHeight <= 0) continue;
    for (const ratio of ratios) {
      const width = Math.min(cellWidth, cellHeight * ratio);
      const height = width / ratio;
      if (width * height > best.width * best.height + 0.01) best = { columns, rows, width, height };
    }
  }
  return best;
}

function ratiosFor(width, height) {
  return height > width ? TALL : WIDE;
}

/** Return one {x, y, width, height} per tile, rows centred, the last row too. */
export function gridLayout(count, stageWidth, stageHeight, gap, ratios = ratiosFor(stageWidth, stageHeight)) {
  const { columns, rows, width, height } = bestGrid(count, stageWidth, stageHeight, gap, ratios);
  const top = (stageHeight - rows * height - (rows - 1) * gap) / 2;
  const places = [];
  for (let index = 0; index < count; index++) {
    const row = Math.floor(index / columns);
    const inRow = Math.min(columns, count - row * columns);
    const left = (stageWidth - inRow * width - (inRow - 1) * gap) / 2;
    places.push(rectangle(left + (index - row * columns) * (width + gap), top + row * (height + gap), width, height));
  }
  return places;
}

/** Return one rectangle per tile where the first, a shared screen, gets most of the stage. */
export function spotlightLayout(count, stageWidth, stageHeight, gap) {
  if (count <= 1) return [rectangle(0, 0, stageWidth, stageHeight)].slice(0, count);
  const isBeside = stageWidth > stageHeight * 1.2;
  const width = isBeside ? stageWidth * SHARE : stageWidth;
  const height = isBeside ? stageHeight : Math.min(stageHeight * 0.6, (stageWidth * 3) / 4);
  const [x, y] = isBeside ? [width + gap, 0] : [0, height + gap];
  const others = gridLayout(count - 1, stageWidth - x, stageHeight - y, gap, WIDE);
  return [rectangle(0, 0, width, height), ...others.map((place) => ({ ...place, x: place.x + x, y: place.y + y }))];
}

// Whole pixels: text in a tile that begins at half a pixel is blurred.
function rectangle(x, y, width, height) {
  return { x: Math.round(x), y: Math.round(y), width: Math.floor(width), height: Math.floor(height) };
}
